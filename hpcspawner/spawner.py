"""HPCSpawner: the Hub's lifecycle calls, each a few lines that hand on."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub.utils import maybe_future

from hpcspawner.errors import HPCSpawnerError, LedgerUnavailable, SchedulerNotSetUp
from hpcspawner.hub import tokens
from hpcspawner.hub.choices import choices_of
from hpcspawner.hub.unknown_jobs import survey
from hpcspawner.hub.watch import Watch, leaving
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.news import News
from hpcspawner.jobs.stop import end_job, finish
from hpcspawner.jobs.submit import Write, obtain
from hpcspawner.jobs.tasks import in_background
from hpcspawner.jobs.wait import Limits, Waiting
from hpcspawner.language import _
from hpcspawner.nodes.address import Patience
from hpcspawner.pages.pages import as_hub_error, for_the_log
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.state import JobState
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome

_TRIES_TO_STORE = 3
# A follow-up that was refused, for a limit on jobs in the queue perhaps, may be taken later.
_RENEW_AGAIN_S = 600.0


class HPCSpawner(Watch):
    """Starts single-user servers as batch jobs, as the profiles of the site's clusters offer them."""

    _renew_after = 0.0

    # Life: hold, start, poll, stop.

    def look_after(self, job: Job) -> None:
        """Be the server of a job that waits in its queue: a stop from here on ends the job."""
        self.job, self.job_id, self.news = job, job.record.job_id, News()

    async def may_hold(self, job: Job) -> bool:
        """Whether `hold` is to follow, by the request behind the job; else the start says why not."""
        try:
            self._request = await self._judge_kept(job)
        except HPCSpawnerError:
            return False
        self.user_options = dict(job.record.choices)
        self.log.info("%s: job %s taken up again for %s", self._log_name, self.job_id, job.record.owner)
        return True

    async def hold(self, job: Job, go: asyncio.Event) -> None:
        """Return when the job does anything but wait, or when `go` is set. JupyterHub starts the server only then."""
        news = self.news or News()
        await Waiting(job, news, self._limits(job)).while_it_waits(go, details=bool(job.record.choices.get("details")))

    def let_go(self) -> None:
        """Note that a job that was held has none to look after it."""
        self._release()
        self.news = None

    async def start(self) -> str:
        """Submit a job, or take up the one that is there, and wait until its server listens; the server's address."""
        cluster, news = self.cluster, self.news
        if news is None:
            raise RuntimeError("start() was called before the options were checked")
        job = None
        try:
            await self._old_jobs_have_ended()
            job = await self._kept_or_lost()
            self._check_taken_up(job)
            if job is None:
                job = self._new_job()
                job.begun_at = time.time() - self._judging_s
            await self._adopt(job)
            write = await self._writer(job)
            await news.say(_("Looking for the job") if job.record.asked_at else _("Submitting the job"), 5)
            adopted = bool(job.record.job_id)
            await obtain(job, write, news.say)
            self.job_id = job.record.job_id
            if adopted and getattr(self.handler, "news", None) is None:
                self.log.info("%s: job %s taken up again for %s", self._log_name, self.job_id, job.record.owner)
            waiting = Waiting(job, news, self._limits(job))
            await waiting.until_it_answers(self._answers, details=bool(job.record.choices.get("details")))
            await news.say(_("The server listens; opening it"), 90)
        except HPCSpawnerError as error:
            if isinstance(error, LedgerUnavailable):
                self._release()
            if job is not None and self.ledger.by_tag(job.tag) is None:
                # Refused, or never asked for: there will be no server that could need its token.
                tokens.revoke(job)
            self.log.error("%s: %s", self._log_name, for_the_log(error))
            raise as_hub_error(error, cluster.profile, self._choices_of(job)) from error
        finally:
            await news.close()
        job.environment = {}
        # A follow-up is asked for at once: it grows older in the queue while this server works.
        self.ledger.wake.set(job.tag)
        return (await self._address()).address(job)

    def _choices_of(self, job: Job | None) -> dict[str, Any]:
        """What was asked for, to ask for it again."""
        if job is not None:
            return choices_of(job)
        return dict(self._request.choices) if self._request else {}

    def _kept(self) -> Job | None:
        """A job of this server that is wanted and not yet seen to end; a follow-up only after its parent."""
        jobs = self.ledger.of(self.user.name, self.name)
        return next((job for job in jobs if job.record.wanted and not self.ledger.by_tag(job.record.follows)), None)

    async def _kept_or_lost(self) -> Job | None:
        """As `_kept`; before a job is asked for, one that the ledger has lost must have been looked for."""
        job = self._kept()
        while job is None and self.cluster.name not in self.ledger.surveyed:
            if await survey(self.db, self.ledger, self.cluster, now() - self.poll_interval_s) is None:
                if isinstance(self.cluster.queue.error, SchedulerNotSetUp):
                    # Waiting would not help; the submit could not do better.
                    raise self.cluster.queue.error
                await _say_away(self.news)
                await asyncio.sleep(1)
            job = self._kept()
        return job

    async def _old_jobs_have_ended(self) -> None:
        """At most one job of a server runs on a cluster; one that is away must not hold up a start on another."""
        for job in self.ledger.of(self.user.name, self.name):
            if job.record.wanted or job.cluster is not self.cluster:
                continue
            if self.news:
                message = _("Waiting for this server's previous job {id} to end", id=job.record.job_id)
                await self.news.say(message, 2)
            await end_job(job, None)

    def _new_job(self, follows: Job | None = None) -> Job:
        if self._request is None or self._account is None:
            raise RuntimeError("no job without judged options")
        job = self.ledger.new_job((self.user.name, self.name), self._account.name, self.cluster, follows)
        renewals = follows.record.renewals - 1 if follows else self._request.renewals
        job.change(choices=dict(self._request.choices), renewals=renewals)
        return job

    async def _adopt(self, job: Job) -> None:
        """Look after this job, with the token that its server has or will get."""
        token = self.ledger.keys.token(job.tag)
        for _try in range(_TRIES_TO_STORE):
            if tokens.hand_over(self, token):
                break
            await asyncio.sleep(1)
        else:
            raise LedgerUnavailable
        job.environment = {**self.get_env(), "JUPYTERHUB_API_TOKEN": token, "JPY_API_TOKEN": token}
        if job.record.follows:
            # Its parent is over; now this is the server's job, and its own time in the queue begins.
            job.change(follows="", submitted_at=time.time())
            await self.ledger.save(job)
        self._wire(job)

    def _wire(self, job: Job) -> None:
        cluster = job.cluster
        if self.ip_follows_cluster:
            self.ip = cluster.client.scheduler.listen_ip
        job.ask = lambda after: cluster.queue.status(job.listed, after, at_once=True)
        if cluster.profile.job.requeue:
            job.count_runs = lambda: cluster.client.runs(job.record.job_id)
        if self.internal_ssl:
            job.certify = partial(self._certify, job)
        job.on_report = lambda: in_background(self._recheck(job), self.log)
        job.attached = True
        self.job, self.job_id = job, job.record.job_id
        self._checked_at_boot = False
        self._patience, self._renew_after = Patience(), 0.0

    def _release(self) -> None:
        """Leave the job to housekeeping."""
        job, self.job, self.job_id = self.job, None, ""
        if job is not None:
            job.release()
            self.ledger.wake.set(job.tag)

    async def _writer(self, job: Job) -> Write:
        """What makes the job that carries a ticket."""
        ca, cluster, request = await self._ca(), self.cluster, self._request

        def write(ticket: str) -> Submission:
            if request is None:
                raise RuntimeError("an existing job is never submitted again")
            home = self._home(ticket, ca)
            return submission(request, cluster.client.scheduler, cluster.profile.job, job.label, home)

        return write

    def _home(self, ticket: str, ca: str | None) -> CallHome:
        return CallHome(
            url=self._callback(),
            ticket=ticket,
            ca=ca,
            limit_s=int(self.start_limit_s),
            fallback_path=tuple(self.fallback_path),
            arguments=tuple(self.get_args()),
            tls=self.internal_ssl,
        )

    async def home_for_preview(self) -> CallHome:
        """How a job would reach the Hub, with a stand-in for the ticket."""
        return self._home("A-TICKET-STANDS-HERE", await self._ca())

    def _limits(self, job: Job) -> Limits:
        limit = self._request.queue_limit if self._request else self.cluster.profile.limits.queue
        return Limits(self.poll_interval_s, limit.seconds, self.start_limit_s)

    async def renew(self) -> None:
        """See to it that a job which may start again has its follow-up in the queue."""
        job = self.job
        if job is None or not job.record.port or not job.record.wanted or now() < self._renew_after:
            return
        if job.record.renewals < 1 or job.cluster.retired or any(self.ledger.following(job)):
            return
        self._renew_after = now() + _RENEW_AGAIN_S
        try:
            self._request = await self._judge(choices_of(job))
            follower = self._new_job(job)
            write = await self._writer(follower)
            if not job.record.wanted or job.end is not None:
                return  # it was stopped meanwhile
            await obtain(follower, write, _quiet)
            self.log.info("%s: job %s follows job %s", self._log_name, follower.record.job_id, job.record.job_id)
        except HPCSpawnerError as error:
            self.log.warning("%s: no follow-up job for %s: %s", self._log_name, job.record.job_id, for_the_log(error))

    async def poll(self) -> int | None:
        """None while the job may still be there; 0, or the server's exit code, once it is proven gone."""
        job = self.job
        if leaving.get():
            return 1
        if job is None or (not job.record.job_id and not job.record.wanted):
            return 0
        if self._checked_at_boot:
            # A server that is slow today leaves the Hub's table, never the ledger.
            return None if job.record.wanted and job.record.port and await self._is_there(job) else 0
        if job.end is None and job.record.job_id:
            # An end that the launcher reported is news: the listing must be younger than the report.
            after = now() if job.report else now() - self.poll_interval_s
            status = await self.cluster.queue.status(job.listed, after)
            if status.state is JobState.ENDED:
                await finish(job, status)
        return (job.end.exit_code or 0) if job.end else None

    async def stop(self, now: bool = False) -> None:
        """End the job; what the scheduler does not confirm in time is seen to in the background."""
        job = self.job
        if job is not None and not self._checked_at_boot:
            await end_job(job, self.stop_limit_s)

    def start_polling(self) -> None:
        """As JupyterHub's own, with our look; its first call says that the Hub has seen the server."""
        self._checked_at_boot = False
        super().start_polling()
        if self._poll_callback is not None:
            self._poll_callback.callback = self._watch

    async def create_certs(self) -> dict[str, str]:
        """None are made on the Hub: the key is made on the node, and never leaves it."""
        return {}

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Nothing was made, so nothing is moved."""
        return paths

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The job's progress messages, as they come."""
        # The page may be there before the options are judged.
        while self.news is None and self.pending == "spawn":
            await asyncio.sleep(0.1)
        if self.news is not None:
            async for event in self.news:
                yield event

    # JupyterHub's start and stop are many steps without a pause. Where it awaits these hooks, others have a turn: it
    # has committed what it did. Elsewhere the end of another request would roll it back.

    async def run_auth_state_hook(self, auth_state: Any) -> None:
        """As JupyterHub's, after a pause."""
        await asyncio.sleep(0)
        await super().run_auth_state_hook(auth_state)

    async def run_post_stop_hook(self) -> Any:
        """As JupyterHub's, after a pause."""
        await asyncio.sleep(0)
        return await maybe_future(super().run_post_stop_hook())

    # State: what survives a restart of the Hub lies in the ledger.

    def get_state(self) -> dict[str, Any]:
        """Where to find the job in the ledger, and its job, should the ledger be lost."""
        return {"hpcspawner": self.job.record.copy()} if self.job is not None else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Find the job that an earlier Hub process started."""
        job = self.ledger.recall(self.user.name, self.name, state.get("hpcspawner", {}))
        # JupyterHub checks only servers that it has a record of; for others housekeeping takes the job up.
        if self.orm_spawner.server is None:
            return
        if job is None:
            # Its start was never finished. JupyterHub would find that out by a stop of each such server, one by one.
            self.server = None
        else:
            self._wire(job)
            self._checked_at_boot = True

    def clear_state(self) -> None:
        """Let go of the job of the last start. The Hub calls this before a start and after a stop."""
        self._release()
        self.news = self._request = self._account = None
        self._checked_at_boot = False

    def get_env(self) -> dict[str, str]:
        """The environment of the server: what JupyterHub wants it to know, and the admin's `Spawner.environment`."""
        return {name: str(value) for name, value in super().get_env().items()}

    # Small facts.

    async def _ca(self) -> str | None:
        if not self.ca_file:
            return None
        return await asyncio.to_thread(Path(self.ca_file).read_text, encoding="ascii")


async def _say_away(news: News | None) -> None:
    if news is not None:
        await news.say("The scheduler is not answering at the moment. The Hub will submit the job as soon as it does.")


async def _quiet(_: str) -> None:
    """No page shows a follow-up's messages."""
