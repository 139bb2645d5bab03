"""Housekeeping: every job of ours is looked after by a server of the Hub, or ended.

Runs when the Hub has put itself together, whenever the ledger is stirred, and once in a while.
"""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from tornado.httputil import HTTPHeaders, HTTPServerRequest, RequestStartLine

from hpcspawner.hub.unknown_jobs import Reaper, survey
from hpcspawner.jobs.ledger import Row, ledger, now
from hpcspawner.jobs.stop import end_job, has_ended
from hpcspawner.jobs.tasks import in_background, once
from hpcspawner.schedulers.cluster import Cluster

# What could not be done now is tried again soon; what is under way takes about as long.
_SOON_S = 2.0
_PRUNE_EVERY_S = 24 * 3600
# JupyterHub waits a second between the end of a start that its user has cancelled and the stop of its server.
_STOP_COMES_S = 5.0
# Taking up a job costs the Hub about what a click on Start does.
_AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class HousekeepingLimits:
    """How often to look, how long to leave an unknown job of ours alone, and whether to cancel it then."""

    interval_s: float
    orphan_grace_s: float
    dry_run: bool


@dataclass(slots=True)
class Housekeeping:
    """One for a Hub and its cluster."""

    app: JupyterHub
    cluster: Cluster
    limits: HousekeepingLimits
    log: logging.Logger
    _adopting: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    _ownerless: dict[str, float] = field(default_factory=dict)
    _unpolled: dict[str, float] = field(default_factory=dict)
    _pruned_at: float = float("-inf")
    _gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))
    _reaper: Reaper = field(init=False)

    def __post_init__(self) -> None:
        self._reaper = Reaper(self.cluster, self.limits.orphan_grace_s, self.limits.dry_run, self.log)

    async def run(self) -> None:
        """Until the Hub ends."""
        while True:
            ledger().wake.clear()
            try:
                settled = await self._round()
            except Exception:
                self._failed("housekeeping")
                settled = False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.limits.interval_s if settled else _SOON_S):
                    await ledger().wake.wait()

    def _failed(self, what: str) -> None:
        """Log what went wrong, and leave JupyterHub's session fit for the others who share it."""
        self.log.exception("hpcspawner: %s failed; housekeeping tries again in the next round", what)
        self.app.db.rollback()

    async def _round(self) -> bool:
        """Look once at everything; whether nothing is left that can't wait."""
        done = [await self._tried(row) for row in ledger().live()]
        self._not_before = {tag: moment for tag, moment in self._not_before.items() if moment > now()}
        self._ownerless = {tag: since for tag, since in self._ownerless.items() if ledger().by_tag(tag)}
        self._unpolled = {tag: since for tag, since in self._unpolled.items() if ledger().by_tag(tag)}
        # Apart from the round: a scheduler that hangs must not hold up what needs none.
        in_background(once(self._tasks, "reap", self._reap, self.log), self.log)
        if now() - self._pruned_at > _PRUNE_EVERY_S:
            self._pruned_at = now()
            await ledger().prune()
        return all(done)

    async def _tried(self, row: Row) -> bool:
        try:
            return await self._see_to(row)
        except Exception:
            self._failed(f"checking job {row.job_id} of {row.log_name}")
            return False

    async def _see_to(self, row: Row) -> bool:
        """Look after one job; whether it can wait for the next round."""
        if row.end is not None or self._is_busy(row):
            return True
        if not row.wanted:
            in_background(end_job(self.cluster, row, None), self.log)
            return True
        spawner = self._spawner(row)
        if spawner is not None and spawner.row is row:
            if spawner.ready and row.renewals and self._has_user(row):
                in_background(once(row.tasks, "renew", spawner.renew, self.log), self.log)
            if self._is_unpolled(row, spawner):
                if now() - self._unpolled[row.tag] > _STOP_COMES_S:
                    in_background(spawner.leave(), self.log)
                return False
            # One that is about to be ready has a follow-up to ask for.
            return bool(spawner.ready or not row.port or not row.renewals)
        if row.follows and ledger().by_tag(row.follows):
            await self._see_to_follower(row)
            return True
        return self._take_up(row, spawner)

    def _is_unpolled(self, row: Row, spawner: Any) -> bool:
        """Whether nobody looks at this server any more; since when is noted."""
        if spawner.unpolled:
            self._unpolled.setdefault(row.tag, now())
        else:
            self._unpolled.pop(row.tag, None)
        return row.tag in self._unpolled

    @staticmethod
    def _is_busy(row: Row) -> bool:
        return any(not task.done() for task in row.tasks.values())

    async def _see_to_follower(self, row: Row) -> None:
        """A follow-up in the queue needs nothing; one whose submit was cut off is cleared away and asked for again."""
        if not self._has_user(row):
            self._give_up(row)
        elif not row.job_id:
            in_background(end_job(self.cluster, row, None), self.log)

    def _spawner(self, row: Row) -> Any:
        """What the Hub has for this server, or None."""
        orm_user = orm.User.find(self.app.db, row.username)
        user = self.app.users[orm_user] if orm_user is not None else None
        return user.spawners.get(row.server) if user is not None else None

    def _take_up(self, row: Row, spawner: Any) -> bool:
        if not self._has_user(row):
            return self._give_up(row)
        if (spawner is not None and (spawner.pending or spawner.active)) or row.tag in self._adopting:
            return False
        if now() < self._not_before.get(row.tag, 0.0):
            return True
        task = self._adopting[row.tag] = in_background(self._adopt(row), self.log)
        task.add_done_callback(lambda _: self._adopting.pop(row.tag, None))
        return False

    def _has_user(self, row: Row) -> bool:
        """Whether the Hub still has this user and server; who is blocked gets nothing back."""
        orm_user = orm.User.find(self.app.db, row.username)
        if orm_user is None or row.username in self.app.authenticator.blocked_users:
            return False
        return row.server == "" or row.server in orm_user.orm_spawners

    def _give_up(self, row: Row) -> bool:
        """End the job of a user or a server that the Hub does not know, after a time of grace."""
        since = self._ownerless.setdefault(row.tag, now())
        if now() - since < self.limits.orphan_grace_s:
            return True
        self.log.warning("%s: the Hub no longer has this server; ending job %s", row.log_name, row.job_id)
        in_background(end_job(self.cluster, row, None), self.log)
        return True

    async def _adopt(self, row: Row) -> None:
        """Have the Hub start this server as if its user had asked; the start finds the job and waits for it."""
        async with self._gate:
            if row.job_id and await has_ended(self.cluster, row):
                return
            if row.attached or row.end is not None or not row.wanted:
                return
            self.log.info("%s: taking up job %s", row.log_name, row.job_id or "(not known yet)")
            user = self.app.users[orm.User.find(self.app.db, row.username)]
            try:
                await _Inside(self.app).spawn_single_user(user, row.server, options=dict(row.choices))
            except Exception as error:
                # It stands on the server's page; where the job was not even reached, a later round tries again.
                self._not_before[row.tag] = now() + self.limits.interval_s / 2
                self.log.warning("%s: job %s was not taken up: %s", row.log_name, row.job_id, error)

    async def _reap(self) -> None:
        """Take up what the ledger has lost, and cancel what is not wanted."""
        jobs = await survey(self.app.db, self.cluster, now() - self.limits.interval_s / 2)
        # Without a listing nothing was seen, so nothing has changed.
        if jobs is not None:
            self._reaper.look(jobs)


class _Inside(BaseHandler):
    """JupyterHub starts servers from the handler of a web request; here nobody has sent one.

    `takes_up` tells the spawner that this start is for a job that is there, and asks for no other.
    """

    takes_up = True

    def __init__(self, app: JupyterHub):
        start, headers = RequestStartLine("GET", app.hub.base_url, "HTTP/1.1"), HTTPHeaders({"Host": "localhost"})
        request = HTTPServerRequest(start_line=start, headers=headers, connection=_NoConnection())  # type: ignore[arg-type]
        super().__init__(app.tornado_application, request)

    async def refresh_auth(self, user: Any, force: bool = False) -> Any:
        """Do without: the user was there when the job was asked for, and need not be now."""
        return user


class _NoConnection:
    """As much of a connection as a handler touches before it answers."""

    context = None

    def set_close_callback(self, _callback: Any) -> None:
        """Nothing is ever closed."""
