"""Taking up jobs that no server of the Hub looks after: each by a start that finds its job and waits for it.

A few at a time, for each costs the Hub about what a click on Start does; a job that runs comes before those that wait.
A job that waits in its queue is held: its server is shown as starting, and JupyterHub starts it when the job runs.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Any

from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from hpcspawner.hub import internals
from hpcspawner.hub.users import Users
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.stop import has_ended
from hpcspawner.jobs.tasks import Slices, in_background
from hpcspawner.schedulers.state import JobState

# So few that a request to the Hub meanwhile waits for no more than a few steps of these.
_AT_ONCE = 2
# The same for those that are held: their requests are judged in threads, which may all be done in the same moment.
_HELD_AT_ONCE = 4
# A start that can't find its job at once, for want of a scheduler or a database, keeps no other from its turn.
_LONGEST_TURN_S = 5.0
_LOOK_S = 0.01
_COUNT_AGAIN_S = 1.0


class _Held:
    """A job that is held: until when, and the start that its server gets in the end."""

    def __init__(self, job: Job) -> None:
        self.job, self.go = job, asyncio.Event()
        self.start: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def let_go(self) -> None:
        """Have its server started."""
        self.go.set()
        self.job.changed.set()


class TakingUp:
    """The line of jobs to be taken up. One that was not is left alone for `pause_s` seconds."""

    def __init__(self, app: JupyterHub, users: Users, pause_s: float):
        self._app, self._users, self._pause_s, self._log = app, users, pause_s, app.log
        self._line: dict[str, Job] = {}
        self._first: dict[str, Job] = {}
        self._under_way: set[str] = set()
        self._held: dict[str, _Held] = {}
        self._beginning = asyncio.Semaphore(_HELD_AT_ONCE)
        self._not_before: dict[str, float] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._counted: Any = None
        self._counted_at = float("-inf")
        # One listing serves all that are in the line by then.
        self._seen_after = now()

    def add(self, job: Job) -> None:
        """Have a job taken up when its turn comes, unless that has just failed."""
        known = job.tag in self._under_way or job.tag in self._first or job.tag in self._held
        if known or now() < self._not_before.get(job.tag, 0.0):
            return
        if not self._workers:
            self._seen_after = now()
        self._line[job.tag] = job
        self._hire()

    def _hire(self) -> None:
        while len(self._workers) < min(_AT_ONCE, len(self._line) + len(self._first)):
            worker = in_background(self._work(), self._log)
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    def first(self, tags: Iterable[str]) -> None:
        """Take up those of these jobs that are in the line before the others."""
        for tag in tags:
            if tag in self._held:
                self._held[tag].let_go()
            elif tag in self._line:
                self._first[tag] = self._line.pop(tag)

    def forget(self) -> None:
        """Drop what was noted of jobs that may be tried again."""
        self._not_before = {tag: moment for tag, moment in self._not_before.items() if moment > now()}

    async def _work(self) -> None:
        slices = Slices()
        while line := self._first or self._line:
            tag = next(iter(line))
            job = line.pop(tag)
            self._under_way.add(tag)
            try:
                await self._adopt(job)
            except Exception as error:
                self._was_not(job, error)
            finally:
                self._under_way.discard(tag)
                self._settle(tag, None)
            await slices.pause()

    def _settle(self, tag: str, start: asyncio.Future[Any] | None) -> None:
        """Tell a held job's server of its start, or that there is none."""
        held = self._held.get(tag)
        # One that is being held waits on.
        if held is not None and held.go.is_set() and not held.start.done():
            held.start.set_result(start)

    def _was_not(self, job: Job, error: object) -> None:
        """Note that a job was not taken up. It stands on the server's page; a later round tries again."""
        self._not_before[job.tag] = now() + self._pause_s
        self._log.warning("%s: job %s was not taken up: %s", job.log_name, job.record.job_id, error)

    async def _adopt(self, job: Job) -> None:
        """Have the Hub start this server as if its user had asked; the start finds the job and waits for it."""
        if job.record.job_id and await has_ended(job, self._seen_after):
            return
        if job.attached or job.end is not None or not job.record.wanted:
            return
        user = self._users.find(job.record.username)
        held = self._held.get(job.tag)
        if held is None and await self._only_waits(job):
            return self._hold(job, user.get_spawner(job.record.server, replace_failed=True))
        if held is None and (known := user.spawners.get(job.record.server)) is not None and known.job is job:
            return  # it was held until its user cancelled it: a stop comes
        self._log.info("%s: taking up job %s", job.log_name, job.record.job_id or "(not known yet)")
        inside = _Inside(self._app, self._seen_after, self._counts())
        if held is not None:
            inside.news = user.spawners[job.record.server].news
            internals.make_way(user.spawners[job.record.server])
        await inside.spawn_single_user(user, job.record.server, options=dict(job.record.choices))
        spawner = user.spawners[job.record.server]
        if (start := spawner._spawn_future) is not None:
            start.add_done_callback(partial(self._ended, job))
            self._settle(job.tag, start)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_TURN_S):
                while spawner.pending and not job.attached:
                    await asyncio.sleep(_LOOK_S)

    async def _only_waits(self, job: Job) -> bool:
        """Whether the job is in its queue, and no run of it has called yet."""
        record = job.record
        if not record.job_id or record.host or record.follows or not record.choices:
            return False
        status = await job.cluster.queue.status(job.listed, self._seen_after)
        return status.state in (JobState.PENDING, JobState.HELD) and not status.hopeless

    def _hold(self, job: Job, spawner: Any) -> None:
        if spawner.pending or spawner.job is job:
            return  # its user has pressed Start meanwhile, or Cancel
        held = self._held[job.tag] = _Held(job)
        spawner.look_after(job)
        internals.hold(spawner, self._while_held(job, spawner, held), partial(self._let_go, job, spawner))

    async def _while_held(self, job: Job, spawner: Any, held: _Held) -> None:
        try:
            async with self._beginning:
                is_held = await spawner.may_hold(job)
            if is_held:
                await spawner.hold(job, held.go)
            held.go.set()
            self._first[job.tag] = job
            self._hire()
            start = await held.start
        finally:
            held.start.cancel()
            self._held.pop(job.tag, None)
        if start is not None:
            # Who waits for the end of this waits for the end of the start.
            await start

    def _let_go(self, job: Job, spawner: Any, task: asyncio.Task[None]) -> None:
        """Of a job whose hold was over without a start. Where its user has cancelled it, a stop comes."""
        if task.cancelled():
            return
        spawner.let_go()
        if (error := task.exception()) is not None:
            self._was_not(job, error)

    def _counts(self) -> Any:
        """How many servers the Hub has, for JupyterHub's limits and its metric: counted once a second."""
        if now() - self._counted_at > _COUNT_AGAIN_S:
            self._counted, self._counted_at = self._app.users.count_active_users(), now()
        return self._counted

    def _ended(self, job: Job, start: asyncio.Future[Any]) -> None:
        if not start.cancelled() and (error := start.exception()) is not None:
            self._was_not(job, error)


class _Inside(BaseHandler):
    """JupyterHub starts servers from the handler of a web request; here there is no request.

    `takes_up` tells the spawner that this start is for a job that is there, and asks for no other; `seen_after` that a
    listing begun after this monotonic time says enough about that job.
    """

    takes_up = True
    news: Any = None
    """What the pages of a server that was held show."""
    slow_spawn_timeout = 0
    """There is no caller that waits for an answer."""

    def __init__(self, app: JupyterHub, seen_after: float = 0.0, counts: Any = None):
        self.seen_after = seen_after
        self._counts = counts
        start, headers = RequestStartLine("GET", app.hub.base_url, "HTTP/1.1"), HTTPHeaders({"Host": "localhost"})
        request = HTTPServerRequest(start_line=start, headers=headers, connection=_NoConnection())  # type: ignore[arg-type]
        super().__init__(app.tornado_application, request)

    @property
    def users(self) -> Any:
        """JupyterHub's, that count their servers no more: it does so at each start."""
        return _Counted(super().users, self._counts)

    async def refresh_auth(self, user: Any, force: bool = False) -> Any:
        """Do without: the user was there when the job was asked for, and need not be now."""
        return user


class _Counted:
    """JupyterHub's users, with the number of their servers known."""

    def __init__(self, users: Any, counts: Any):
        self._users, self._counts = users, counts

    def count_active_users(self) -> Any:
        """As JupyterHub's."""
        return self._users.count_active_users() if self._counts is None else self._counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._users, name)


class _NoConnection:
    """As much of a connection as a handler touches before it answers."""

    context = None

    def set_close_callback(self, _callback: Any) -> None:
        """Nothing is ever closed."""
