"""From a submitted job to a server that answers: two clocks, and the news meanwhile."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from hpcspawner.errors import HPCSpawnerError, Reason, ServerLost
from hpcspawner.jobs.causes import KILLED, entry_of, explain_end, where_its_log_is
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.news import News, Wait
from hpcspawner.jobs.record import End, JobRecord, Report
from hpcspawner.jobs.stop import finish
from hpcspawner.language import Text, _, joined
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.facts import Facts
from hpcspawner.schedulers.queue import NOT_OURS, NOT_VISIBLE
from hpcspawner.schedulers.state import Cause, JobState, JobStatus
from hpcspawner.units import Walltime

# The launcher has the same limit and better words, so it is heard first.
_LAUNCHER_FIRST_S = 15.0
# A job that no listing shows may be hidden, or gone before it was seen; neither will ever become a server.
_HIDDEN_S = 60.0
# A site's plugin changes the mark when the job is submitted: it will not come back.
_UNMARKED_S = 5.0
# For so long a number that the scheduler gave out is surely that job's.
_FRESH_S = 120.0
# A launcher that was killed may have been so because its job goes back into the queue, or out of it: the scheduler
# will tell.
_PUT_BACK_S = 30.0
_SOON_S = 1.0
# So many intervals between listings may pass until a job in its queue is looked at that no listing has news of.
_RARELY = 3
_random = random.SystemRandom()
_MARK_IS_GONE = (
    "%s: job %s is cancelled: the scheduler shows it without the Hub's mark, %s. A job_submit plugin, a cli_filter or "
    "a wrapper of the submit command has changed it. Leave it alone there, or choose another place for it "
    "(scheduler.tag of the profile, which is %r; with Slurm it may be 'comment' or 'job-name')"
)
_MAY_ANSWER = (JobState.RUNNING, JobState.UNKNOWN)
_WAITING = (JobState.PENDING, JobState.HELD)


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a listing is good for; that a job may wait in the queue; from a running job to a server."""

    poll_interval_s: float
    queue_limit_s: float
    start_limit_s: float


class Waiting:
    """One start that waits for its server. `answers` asks the server itself, once its port is known."""

    def __init__(self, job: Job, news: News, limits: Limits):
        self.job, self.news, self.limits = job, news, limits
        self.cluster = job.cluster
        self._running = _Stopwatch()
        self._hidden_since: float | None = None
        self._unmarked_since: float | None = None
        self._killed_since: float | None = None
        self._in_queue = False

    async def until_it_answers(self, answers: Callable[[], Awaitable[bool]], *, details: bool) -> None:
        """Return when the server answers; raise ServerLost when the job ends before, or waits too long."""
        job, known = self.job, bool(self.job.record.port)
        # A launcher reports the port when its server listens. One that is known from before must show itself, and only
        # where the job still is: the port may be somebody else's by now.
        with self._woken():
            while known or not job.record.port:
                job.changed.clear()
                state = await self._look(details=details)
                if known and job.record.port and state in _MAY_ANSWER and await answers():
                    break
                if known and job.record.port and state is JobState.RUNNING:
                    message = _("The server of job {id} on {node} does not answer yet; waiting for it")
                    await self.news.say(message.fill(id=job.record.job_id, node=job.record.host))
                known = known and bool(job.record.port)
                await self._pause(_SOON_S if job.report else self._until_next_look_s())
        job.is_ready(adopted=known)

    async def while_it_waits(self, go: asyncio.Event, *, details: bool) -> None:
        """Return when the job does anything but wait in its queue, or when `go` is set and the job's `changed`."""
        job = self.job
        with self._woken():
            while job.record.wanted and job.end is None and not go.is_set():
                job.changed.clear()
                status = await self._status()
                job.expect(status)
                if not self.only_waits(status):
                    return
                await self._tell(status, details=details)
                await self._pause(self._until_next_look_s())

    @contextlib.contextmanager
    def _woken(self) -> Iterator[None]:
        """Be woken when a listing has news of the job, and when somebody opens its page."""
        wake = self.job.changed.set
        self.news.on_reader = wake
        try:
            with self.cluster.queue.watched(self.job.listed, wake, self.limits.poll_interval_s):
                yield
        finally:
            self.news.on_reader = None

    async def _pause(self, longest_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self.job.changed.wait()

    def only_waits(self, status: JobStatus) -> bool:
        """Whether all that there is to do for a job is to wait; an answer that says nothing changes nothing."""
        if status.state is JobState.UNKNOWN:
            return status.reason not in (NOT_OURS, NOT_VISIBLE)
        return status.state in _WAITING and not status.hopeless and not self._waits_too_long(status)

    def _waits_too_long(self, status: JobStatus) -> bool:
        return status.state in _WAITING and time.time() > self._gives_up_at()

    async def _status(self) -> JobStatus:
        job = self.job
        good_for_s = self.limits.poll_interval_s * (1.0 if self._in_queue else 0.5)
        after = now() if job.report else max(job.listed_after, now() - good_for_s)
        status = await self.cluster.queue.status(job.listed, after)
        if self.cluster.queue.error is None:
            self._in_queue = status.state in _WAITING and not status.hopeless
        return status

    def _until_next_look_s(self) -> float:
        """A job in its queue is looked at when a listing has news of it; its readers want to know its place there."""
        looks = _RARELY if self._in_queue and not self.news.has_readers else 1
        # A thousand that a slow listing has woken together must not wake together for ever.
        pause_s = looks * self.limits.poll_interval_s * _random.uniform(0.8, 1.0)
        if not self._in_queue:
            return pause_s
        return min(pause_s, max(_SOON_S, self._gives_up_at() - time.time()))

    def _gives_up_at(self) -> float:
        return self.job.record.submitted_at + self.limits.queue_limit_s

    async def _look(self, *, details: bool) -> JobState:
        job = self.job
        status = await self._status()
        if status.state is JobState.ENDED or (job.report and not self._was_killed(job.report)):
            raise await self._lost(status)
        if job.record.host and moved(job, status):
            await job.ledger.put_back(job)
        job.expect(status)
        if job.report is None:
            self._killed_since = None
        await self._tell(status, details=details)
        self._check_visible(status)
        await self._check_mark(status)
        self._check_queue(status)
        await self._check_start(status)
        return status.state

    def _was_killed(self, report: Report) -> bool:
        """Whether to leave the last word to the scheduler: it knows who did it, and whether the job starts again."""
        self._killed_since = self._killed_since or now()
        return report.reason == KILLED and now() - self._killed_since < _PUT_BACK_S

    def _check_visible(self, status: JobStatus) -> None:
        self._hidden_since = (self._hidden_since or now()) if status.reason == NOT_VISIBLE else None
        if self._hidden_since and now() - self._hidden_since > _HIDDEN_S:
            message = _("Job {id} was submitted, but the Hub can't monitor it: {why}. Please contact {contact}.")
            contact = str(self.cluster.profile.contact)
            raise self._failed(message.fill(why=NOT_VISIBLE, contact=contact), Reason.NOT_SET_UP)

    async def _check_mark(self, status: JobStatus) -> None:
        """A new job that the scheduler shows without the Hub's mark will never get its ticket."""
        record = self.job.record
        is_unmarked = status.reason == NOT_OURS and status.owner == record.owner
        is_fresh = not record.run and time.time() - record.asked_at < _FRESH_S
        self._unmarked_since = (self._unmarked_since or now()) if is_unmarked and is_fresh else None
        if self._unmarked_since is None or now() - self._unmarked_since < _UNMARKED_S:
            return
        with contextlib.suppress(HPCSpawnerError):
            await self.cluster.client.cancel(record.owner, record.job_id)
        log, kept_in = self.cluster.client.log, self.cluster.client.access.tag
        log.error(_MARK_IS_GONE, record.log_name, record.job_id, record.tag, kept_in)
        message = _(
            "Job {id} was cancelled: this site changes the tag by which the Hub recognises its jobs. Please contact "
            "{contact}."
        )
        raise self._failed(message.fill(contact=str(self.cluster.profile.contact)), Reason.NOT_SET_UP)

    def _check_queue(self, status: JobStatus) -> None:
        """What will never start fails at once; what waits longer than its user would, too."""
        if status.hopeless:
            message = _("Job {id} will not start. The scheduler says: {reason}. {explained}")
            explained = self.cluster.client.scheduler.explain(status.reason)
            raise self._failed(message.fill(reason=status.reason, explained=explained), Reason.HELD)
        if self._waits_too_long(status):
            limit = Walltime(int(self.limits.queue_limit_s))
            message = _(
                "Job {id} was cancelled after waiting {limit} in the queue, the limit that you or your site set."
            )
            raise self._failed(message.fill(limit=limit), Reason.QUEUE_LIMIT)

    async def _check_start(self, status: JobStatus) -> None:
        job = self.job
        if status.state in _WAITING:
            if job.was_lost:
                await job.ledger.put_back(job)
            # Whatever was before, its run will be seen from the beginning.
            job.inherited = False
        is_late = self._running.seconds(status.state) > self.limits.start_limit_s + _LAUNCHER_FIRST_S
        if job.record.port or status.state is not JobState.RUNNING or not (is_late or job.was_lost):
            return
        if job.inherited:
            # A start that hangs is ended by its launcher; so this is a server that somebody may work in.
            message = _(
                "Job {id} is running on {node}, but the Hub lost its record of the job and can't reach its server. The "
                "job runs until its wall time ends. To end it now, press Cancel; then you can start another."
            )
            await self.news.say(message.fill(id=job.record.job_id, node=status.host))
        elif is_late:
            message = _("Job {id} ran on {node} for {seconds} s, but no server listened there. {log}")
            log = where_its_log_is(job, self.cluster.profile.job, status.host or "")
            seconds = f"{self.limits.start_limit_s:g}"
            raise self._failed(message.fill(node=status.host, seconds=seconds, log=log), Reason.START_LIMIT)

    def _failed(self, message: Text, reason: Reason) -> ServerLost:
        """Give a job up for a reason that the scheduler will not know when the job has ended."""
        text = message.fill(id=self.job.record.job_id)
        self.job.hub_verdict = End(Cause.NOT_STARTED, text, time.time())
        return ServerLost(text, reason)

    async def _lost(self, status: JobStatus) -> ServerLost:
        """Why there is no server. The launcher may be heard before the scheduler shows the end of the job."""
        job = self.job
        if status.state is not JobState.ENDED and job.report:
            job.hub_verdict = explain_end(job, None, status, self.cluster.profile.job)
            text = _of_job(job.report.message, job)
            return ServerLost(text, Reason.SERVER_FAILED, job.report.log)
        end = await finish(job, status)
        reason = Reason.SERVER_FAILED if job.report else Reason.JOB_ENDED
        text = _of_job(end.message, job)
        return ServerLost(text, reason, end.log, end.cause.value, entry_of(end, reported=job.report is not None))

    async def _tell(self, status: JobStatus, *, details: bool) -> None:
        job, news = self.job, self.news
        if status.state is JobState.UNKNOWN:
            if self.cluster.queue.error:
                away = _("The scheduler is not answering at the moment; the job keeps its place in the queue.")
                await news.say(away)
            elif status.reason:
                message = _("The Hub can't see job {id}: {reason}.", id=job.record.job_id, reason=status.reason)
                await news.say(message)
            return
        if news.differs(job.record.job_id, status):
            record = ""
            if details:
                with contextlib.suppress(HPCSpawnerError):
                    record = await self.cluster.client.details(job.record.job_id)
            why = "" if status.state is JobState.RUNNING else explained(self.cluster, status)
            await news.status(job.record.job_id, status, why, record, self._wait(status))
        elif status.state in _WAITING and news.has_readers:
            await news.moved_up(self._wait(status))

    def _wait(self, status: JobStatus) -> Wait:
        record, cluster = self.job.record, self.cluster
        # The scheduler is not asked for what no page shows.
        facts = cluster.board.latest(3 * self.limits.poll_interval_s) if self.news.has_readers else None
        return Wait(
            advice=cluster.client.scheduler.advise(status.reason) if status.reason else "",
            since=record.submitted_at,
            until=self._gives_up_at() if record.submitted_at else 0.0,
            ahead=ahead(record, facts) if facts else None,
        )


def _of_job(message: str, job: Job) -> Text:
    return _("{message} (job {id})", message=message, id=job.record.job_id)


def explained(cluster: Cluster, status: JobStatus) -> str:
    """Why a job waits: in our words, with the scheduler's own beside them."""
    ours, own = cluster.client.scheduler.explain(status.reason), status.reason.rstrip(".")
    is_said = own in ours or ours.rstrip(".") in own
    return ours if is_said else joined([ours, _("The scheduler says: {own}.", own=own)])


def ahead(record: JobRecord, facts: Facts) -> int | None:
    """How many jobs are ahead of this one in its partition; None where the scheduler does not tell."""
    queued = facts.queued.value.get(str(record.choices.get("partition"))) if facts.queued else None
    order = queued.order if queued else ()
    return order.index(record.job_id) if record.job_id in order else None


def moved(job: Job, status: JobStatus) -> bool:
    """Whether the job is no longer where its server was: back in the queue, or run again on another node."""
    return status.state in _WAITING or (status.state is JobState.RUNNING and status.host not in (None, job.record.host))


class _Stopwatch:
    """Seconds that a job has been seen running: what lies between two looks that both saw it run."""

    def __init__(self) -> None:
        self._total_s = 0.0
        self._since: float | None = None

    def seconds(self, state: JobState) -> float:
        """Take note of what was seen now; a job that waits again starts again."""
        moment = now()
        if state is JobState.RUNNING and self._since is not None:
            self._total_s += moment - self._since
        elif state is not JobState.UNKNOWN and state is not JobState.RUNNING:
            self._total_s = 0.0
        self._since = moment if state is JobState.RUNNING else None
        return self._total_s
