"""From a submitted job to a server that answers: two clocks, and what is told meanwhile."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from hpcspawner.errors import HPCSpawnerError, Reason, ServerLost
from hpcspawner.jobs.causes import KILLED, explain_end, where_its_log_is
from hpcspawner.jobs.events import Action
from hpcspawner.jobs.ledger import End, Report, Row, emit, ledger, now
from hpcspawner.jobs.news import News
from hpcspawner.jobs.stop import finish
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import NOT_VISIBLE
from hpcspawner.schedulers.state import Cause, JobState, JobStatus
from hpcspawner.units import Walltime

# The launcher has the same limit and better words, so it is heard first.
_LAUNCHER_FIRST_S = 15.0
# A job that no listing shows may be hidden, or gone before it was seen; neither will ever become a server.
_HIDDEN_S = 60.0
# A launcher that was killed may have been so because its job goes back into the queue, or out of it: the scheduler
# will tell.
_PUT_BACK_S = 30.0
_SOON_S = 1.0
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

    def __init__(self, cluster: Cluster, row: Row, news: News, limits: Limits):
        self.cluster, self.row, self.news, self.limits = cluster, row, news, limits
        self._running = _Stopwatch()
        self._hidden_since: float | None = None
        self._killed_since: float | None = None

    async def until_it_answers(self, answers: Callable[[], Awaitable[bool]], *, details: bool) -> None:
        """Return when the server answers; raise ServerLost when the job ends before, or waits too long."""
        row, known = self.row, bool(self.row.port)
        # A launcher reports the port when its server listens. One that is known from before must show itself, and only
        # where the job still is: the port may be somebody else's by now.
        while known or not row.port:
            row.changed.clear()
            state = await self._look(details=details)
            if known and row.port and state in _MAY_ANSWER and await answers():
                break
            if known and row.port and state is JobState.RUNNING:
                await self.news.say(f"The server of job {row.job_id} on {row.host} does not answer yet; waiting for it")
            known = known and bool(row.port)
            if row.changed.is_set():
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SOON_S if row.report else self.limits.poll_interval_s):
                    await row.changed.wait()
        emit(Action.ADOPT if known else Action.START, self.cluster, row)

    async def _look(self, *, details: bool) -> JobState:
        row = self.row
        after = now() if row.report else max(row.submitted_at, now() - self.limits.poll_interval_s / 2)
        status = await self.cluster.queue.status(row.job, after)
        if status.state is JobState.ENDED or (row.report and not self._was_killed(row.report)):
            raise await self._lost(status)
        if row.host and moved(row, status):
            await ledger().put_back(row)
        if row.report is None:
            self._killed_since = None
        await self._tell(status, details=details)
        self._check_visible(status)
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
            contact = self.cluster.profile.contact
            message = f"was submitted, but the Hub can't monitor it: {NOT_VISIBLE}. Please contact {contact}."
            raise self._failed(message, Reason.NOT_SET_UP)

    def _check_queue(self, status: JobStatus) -> None:
        """What will never start fails at once; what waits longer than its user would, too."""
        if status.hopeless:
            explained = self.cluster.client.scheduler.explain(status.reason)
            raise self._failed(f"will not start. The scheduler says: {status.reason}. {explained}", Reason.HELD)
        if status.state in _WAITING and time.time() - self.row.waits_since > self.limits.queue_limit_s:
            limit = Walltime(int(self.limits.queue_limit_s))
            message = f"was cancelled after waiting {limit} in the queue, the limit that you or your site set."
            raise self._failed(message, Reason.QUEUE_LIMIT)

    async def _check_start(self, status: JobStatus) -> None:
        row = self.row
        if status.state in _WAITING:
            if row.was_lost:
                await ledger().put_back(row)
            # Whatever was before, its run will be seen from the beginning.
            row.inherited = False
        is_late = self._running.seconds(status.state) > self.limits.start_limit_s + _LAUNCHER_FIRST_S
        if row.port or status.state is not JobState.RUNNING or not (is_late or row.was_lost):
            return
        if row.inherited:
            # A start that hangs is ended by its launcher; so this is a server that somebody may work in.
            await self.news.say(
                f"Job {row.job_id} is running on {status.host}, but the Hub lost its record of the job and can't "
                f"reach its server. The job runs until its wall time ends. To end it now, press Cancel; then you can "
                f"start another."
            )
        elif is_late:
            message = (
                f"ran on {status.host} for {self.limits.start_limit_s:g} s, but no server listened there. "
                f"{where_its_log_is(row, self.cluster.profile.job, status.host or '')}"
            )
            raise self._failed(message, Reason.START_LIMIT)

    def _failed(self, message: str, reason: Reason) -> ServerLost:
        """Give a job up for a reason that the scheduler will not know when the job has ended."""
        text = f"Job {self.row.job_id} {message}".rstrip()
        self.row.hub_verdict = End(Cause.NOT_STARTED, text, time.time())
        return ServerLost(text, reason)

    async def _lost(self, status: JobStatus) -> ServerLost:
        """Why there is no server. The launcher may be heard before the scheduler shows the end of the job."""
        row = self.row
        if status.state is not JobState.ENDED and row.report:
            row.hub_verdict = explain_end(row, None, status, self.cluster.profile.job)
            return ServerLost(f"{row.report.message} (job {row.job_id})", Reason.SERVER_FAILED, row.report.log)
        end = await finish(self.cluster, row, status)
        reason = Reason.SERVER_FAILED if row.report else Reason.JOB_ENDED
        return ServerLost(f"{end.message} (job {row.job_id})", reason, end.log)

    async def _tell(self, status: JobStatus, *, details: bool) -> None:
        row, cluster, news = self.row, self.cluster, self.news
        if status.state is JobState.UNKNOWN:
            if cluster.queue.error:
                await news.say("The scheduler is not answering at the moment; the job keeps its place in the queue.")
            elif status.reason:
                await news.say(f"The Hub can't see job {row.job_id}: {status.reason}.")
            return
        if news.differs(row.job_id, status):
            record = ""
            if details:
                with contextlib.suppress(HPCSpawnerError):
                    record = await cluster.client.details(row.job_id)
            explained = "" if status.state is JobState.RUNNING else self._explained(status)
            await news.status(row.job_id, status, explained, record)

    def _explained(self, status: JobStatus) -> str:
        """Why the job waits: in our words, with the scheduler's own beside them."""
        ours, own = self.cluster.client.scheduler.explain(status.reason), status.reason.rstrip(".")
        is_said = own in ours or ours.rstrip(".") in own
        return ours if is_said else f"{ours} The scheduler says: {own}."


def moved(row: Row, status: JobStatus) -> bool:
    """Whether the job is no longer where its server was: back in the queue, or run again on another node."""
    return status.state in _WAITING or (status.state is JobState.RUNNING and status.host not in (None, row.host))


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
