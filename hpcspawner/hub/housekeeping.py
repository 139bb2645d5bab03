"""Housekeeping: every job of ours is looked after by a server of the Hub, or ended.

All jobs are looked at when the Hub has put itself together and once in a while, in slices that hold up nothing; in
between those of which the ledger says that something has happened.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jupyterhub.app import JupyterHub

from hpcspawner.hub.take_up import TakingUp
from hpcspawner.hub.unknown_jobs import Reaper, survey
from hpcspawner.hub.users import Users
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.ledger import Ledger
from hpcspawner.jobs.stop import end_job
from hpcspawner.jobs.tasks import Slices, in_background, once
from hpcspawner.schedulers.state import JobState

# What could not be done now is tried again soon; what is under way takes about as long.
_SOON_S = 2.0
_PRUNE_EVERY_S = 24 * 3600
# JupyterHub waits a second between the end of a start that its user has cancelled and the stop of its server.
_STOP_COMES_S = 5.0


@dataclass(frozen=True, slots=True)
class HousekeepingLimits:
    """How often to look, how long to leave an unknown job of ours alone, and whether to cancel it then."""

    interval_s: float
    orphan_grace_s: float
    dry_run: bool


@dataclass(slots=True)
class Housekeeping:
    """One for a Hub and its clusters."""

    app: JupyterHub
    ledger: Ledger
    limits: HousekeepingLimits
    log: logging.Logger
    _tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict)
    _ownerless: dict[str, float] = field(default_factory=dict)
    _unpolled: dict[str, float] = field(default_factory=dict)
    _pruned_at: float = float("-inf")
    # Jobs that can't wait for the next round, and when they and all of them are due.
    _unsettled: set[str] = field(default_factory=set)
    _soon_at: float = float("inf")
    _round_at: float = float("-inf")
    _users: Users = field(init=False)
    _taking_up: TakingUp = field(init=False)
    _reapers: tuple[Reaper, ...] = field(init=False)

    def __post_init__(self) -> None:
        self._users = Users(self.app)
        self._taking_up = TakingUp(self.app, self._users, self.limits.interval_s / 2)
        grace_s, dry_run = self.limits.orphan_grace_s, self.limits.dry_run
        self._reapers = tuple(Reaper(self.ledger, one, grace_s, dry_run, self.log) for one in self.ledger.clusters)

    async def run(self) -> None:
        """Until the Hub ends."""
        wake = self.ledger.wake
        while True:
            named = wake.taken()
            if named is None or now() >= self._round_at:
                await self._round()
                self._taking_up.first(named or ())
            else:
                due = self._unsettled if now() >= self._soon_at else set()
                known = map(self.ledger.by_tag, dict.fromkeys([*named, *due]))
                await self._look_at([job for job in known if job is not None])
                # Something has happened to these: their launchers call, perhaps.
                self._taking_up.first(named)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, min(self._round_at, self._soon_at) - now())):
                    await wake.wait()

    def _failed(self, what: str) -> None:
        """Log what went wrong, and leave JupyterHub's session fit for the others who share it."""
        self.log.exception("hpcspawner: %s failed; housekeeping tries again in the next round", what)
        self.app.db.rollback()

    async def _round(self) -> None:
        """Look once at everything."""
        try:
            self._forget()
            await self._look_at(self.ledger.live())
            # Apart from the round: a scheduler that hangs must not hold up what needs none.
            for reaper in self._reapers:
                in_background(once(self._tasks, reaper.cluster.name, partial(self._reap, reaper), self.log), self.log)
            if now() - self._pruned_at > _PRUNE_EVERY_S:
                self._pruned_at = now()
                await self.ledger.prune()
            self._round_at = now() + self.limits.interval_s
        except Exception:
            self._failed("housekeeping")
            self._round_at = now() + _SOON_S

    def _forget(self) -> None:
        """Drop what was noted of jobs that have ended."""
        self._taking_up.forget()
        self._unsettled = {tag for tag in self._unsettled if self.ledger.by_tag(tag)}
        self._ownerless = {tag: since for tag, since in self._ownerless.items() if self.ledger.by_tag(tag)}
        self._unpolled = {tag: since for tag, since in self._unpolled.items() if self.ledger.by_tag(tag)}

    async def _look_at(self, jobs: Iterable[Job]) -> None:
        """See to these jobs in slices; those that can't wait for the next round are looked at again soon."""
        slices = Slices()
        for job in jobs:
            if await self._tried(job):
                self._unsettled.discard(job.tag)
            else:
                self._unsettled.add(job.tag)
            await slices.pause()
        self._soon_at = now() + _SOON_S if self._unsettled else float("inf")

    async def _tried(self, job: Job) -> bool:
        try:
            return await self._see_to(job)
        except Exception:
            self._failed(f"checking job {job.record.job_id} of {job.log_name}")
            return False

    async def _see_to(self, job: Job) -> bool:
        """Look after one job; whether it can wait for the next round."""
        if job.end is not None or self._is_busy(job):
            return True
        if not job.record.wanted:
            in_background(end_job(job, None), self.log)
            return True
        spawner = self._spawner(job)
        if spawner is not None and spawner.job is job:
            if spawner.ready and job.record.renewals and self._has_user(job):
                in_background(once(job.tasks, "renew", spawner.renew, self.log), self.log)
            if self._is_unpolled(job, spawner):
                if now() - self._unpolled[job.tag] > _STOP_COMES_S:
                    in_background(spawner.leave(), self.log)
                return False
            # One that is about to be ready has a follow-up to ask for.
            return bool(spawner.ready or not job.record.port or not job.record.renewals)
        if job.record.follows and self.ledger.by_tag(job.record.follows):
            await self._see_to_follower(job)
            return True
        return self._take_up(job, spawner)

    def _is_unpolled(self, job: Job, spawner: Any) -> bool:
        """Whether JupyterHub does not poll this server now; since when is noted."""
        if spawner.unpolled:
            self._unpolled.setdefault(job.tag, now())
        else:
            self._unpolled.pop(job.tag, None)
        return job.tag in self._unpolled

    @staticmethod
    def _is_busy(job: Job) -> bool:
        return any(not task.done() for task in job.tasks.values())

    async def _see_to_follower(self, job: Job) -> None:
        """A follow-up in the queue needs nothing; one whose submit was cut off is cleared away and asked for again."""
        if not self._has_user(job):
            self._give_up(job)
        elif not job.record.job_id:
            in_background(end_job(job, None), self.log)

    def _spawner(self, job: Job) -> Any:
        """What the Hub has for this server, or None."""
        user = self._users.find(job.record.username)
        return user.spawners.get(job.record.server) if user is not None else None

    def _take_up(self, job: Job, spawner: Any) -> bool:
        if not self._has_user(job):
            return self._give_up(job)
        if spawner is not None and (spawner.pending or spawner.active):
            return False
        self._taking_up.add(job)
        return False  # it is not yet

    def _has_user(self, job: Job) -> bool:
        """Whether the Hub still has this user and server; who is blocked gets nothing back."""
        user = self._users.find(job.record.username)
        if user is None or job.record.username in self.app.authenticator.blocked_users:
            return False
        return job.record.server == "" or job.record.server in user.orm_user.orm_spawners

    def _give_up(self, job: Job) -> bool:
        """End the job of a user or a server that the Hub does not know, after a time of grace."""
        since = self._ownerless.setdefault(job.tag, now())
        if now() - since < self.limits.orphan_grace_s:
            return True
        self.log.warning("%s: the Hub no longer has this server; ending job %s", job.log_name, job.record.job_id)
        in_background(end_job(job, None), self.log)
        return True

    async def _reap(self, reaper: Reaper) -> None:
        """Take up what the ledger has lost, and cancel what is not wanted."""
        jobs = await survey(self.app.db, self.ledger, reaper.cluster, now() - self.limits.interval_s / 2)
        # Without a listing nothing was seen, so nothing has changed.
        if jobs is not None:
            self._taking_up.first(one.tag for one in jobs.values() if one.state is JobState.RUNNING)
            await reaper.look(jobs)
