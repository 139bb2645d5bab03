"""One query per cluster for all jobs, whatever their number; the spawners read memory."""

import asyncio
import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from hpcspawner.errors import SchedulerError, SchedulerUnreachable
from hpcspawner.language import _
from hpcspawner.schedulers.commands import Client, Listing
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.schedulers.watchers import Wake, Watcher, Watchers, stirred

_SHORTEST_GAP_S = 1.0
# So many listings of a quick scheduler may follow one another, after as many gaps without one, for those who ask at
# once: a job that starts as soon as it was submitted does not wait for a gap to be over.
_AT_ONCE = 3
# A listing that takes long shows a busy controller: leave it four times as long in peace.
_GAP_PER_DURATION = 5.0
# One that failed, after a long time-out perhaps, says nothing of the load; whether it is back is worth a question.
_GAP_AFTER_FAILURE_S = 5.0
_LONGEST_GAP_S = 60.0
# How long the scheduler's promise to show all jobs is believed; who got none asks again sooner.
_SIGHT_S = 600.0
_NO_SIGHT_S = 60.0

NOT_VISIBLE = _("the Hub's account is not allowed to list this user's jobs")
NOT_OURS = _("the scheduler lists this job id with another owner or tag")
"""Of a job that the listing has by our job's number: whose it is must be found out, and it is not cancelled."""
TAKEN = _("the scheduler has reused this job id for another job")
"""Of a job that is gone, as ours are where the scheduler's numbers began anew."""

# What a scheduler prints for an owner that the user database does not name.
_NO_ONE = re.compile(r"nobody|\d*", re.ASCII)


@dataclass(frozen=True, slots=True)
class OwnedJob:
    """What must agree before a line of a listing is believed to be our job. `submitted_at` is monotonic time."""

    job_id: str
    owner: str
    tag: str
    submitted_at: float


@dataclass(frozen=True, slots=True)
class Found:
    """Ids of the jobs with one owner and tag, running or ended, in one listing.

    `proven` tells that the listing would show such a job, so that none in it means that there was none at its time.
    """

    job_ids: tuple[str, ...]
    proven: bool


class Queue:
    """The newest listing of one cluster and one from a gap before it, refreshed on demand, never twice at once."""

    def __init__(self, client: Client, clock: Callable[[], float] = time.monotonic):
        self.client = client
        self.error: SchedulerError | None = None
        self._clock = clock
        self._newest: Listing | None = None
        self._previous: Listing | None = None
        self._spaced: Listing | None = None
        self._counts: Mapping[JobState, int] = {}
        self._asking: asyncio.Task[None] | None = None
        self._watchers = Watchers()
        self._following: asyncio.Task[None] | None = None
        self._every_s = 0.0
        self._owners_seen: set[str] = set()
        self._sees_all = False
        self._visibility_due = float("-inf")
        self._last_attempt = float("-inf")
        self._due = float("-inf")
        self._durations_s = (0.0, 0.0)

    @property
    def size(self) -> int:
        """How many jobs the newest listing shows; 0 where there is none."""
        return len(self._newest.jobs) if self._newest else 0

    @property
    def age_s(self) -> float:
        """How many seconds ago the newest listing was begun; not a number where there is none."""
        return self._clock() - self._newest.begun_at if self._newest else float("nan")

    @property
    def waiting(self) -> int:
        """How many jobs of all users wait, by the newest listing."""
        return self._counts.get(JobState.PENDING, 0) + self._counts.get(JobState.HELD, 0)

    @property
    def running(self) -> int:
        """How many jobs of all users run, by the newest listing."""
        return self._counts.get(JobState.RUNNING, 0)

    def seen(self, job: OwnedJob) -> JobStatus:
        """State of one job by the listings that are there, for people to read; asks the scheduler nothing."""
        return judge(job, self._newest, self._previous)

    async def status(self, job: OwnedJob, after: float, *, at_once: bool = False) -> JobStatus:
        """State of one job by a listing begun after this monotonic time; UNKNOWN where the scheduler gave none.

        `at_once` is for who has seen the job run, and would only wait for a gap between listings to be over. Who waits
        for a job to be gone needs two looks, a gap apart.
        """
        if await self._ask(after, at_once=at_once):
            status = judge(job, self._newest, self._previous)
            if status.state is JobState.ENDED and not status.native_state and status.reason != TAKEN:
                return await self._absence(job, status)
            return status
        return JobStatus(JobState.UNKNOWN, reason=self.error.sentence if self.error else "")

    @contextlib.contextmanager
    def watched(self, job: OwnedJob, wake: Wake, every_s: float) -> Iterator[None]:
        """Have a listing every so many seconds until the block is left, and `wake` called when one has news of the job.

        All who watch share the listings; the newest watcher's `every_s` holds. Needs a running event loop.
        """
        self._every_s = every_s
        with self._watchers.added(job.job_id, job.owner, job.tag, wake):
            if self._following is None or self._following.done():
                self._following = asyncio.create_task(self._follow())
            yield

    async def _follow(self) -> None:
        while self._watchers:
            await self._ask(self._clock() - self._every_s)
            age_s = self._clock() - self._last_attempt
            pause_s = self._every_s if self.error is None else min(self._every_s, _GAP_AFTER_FAILURE_S)
            await asyncio.sleep(max(_SHORTEST_GAP_S, pause_s - age_s))

    async def _absence(self, job: OwnedJob, status: JobStatus) -> JobStatus:
        """What the absence of a job from two listings is worth."""
        if not self.can_see(job.owner):
            return JobStatus(JobState.UNKNOWN, reason=NOT_VISIBLE)
        listings = [listing for listing in (self._newest, self._previous) if listing is not None]
        if self.client.scheduler.silent_when_empty and not all(listing.jobs for listing in listings):
            # No jobs at all, and not a word of anything: that is also what a command prints which has failed.
            return status if await self.client.is_unknown(job.job_id) else JobStatus(JobState.UNKNOWN)
        return status

    def can_see(self, owner: str) -> bool:
        """Whether the absence of a job proves its end: sites may hide the jobs of some users from the Hub's account.

        Nothing is hidden from its owner, nor where the scheduler says that it hides nothing. Else only a job of the
        same owner proves it: a coordinator on Slurm sees the jobs of some users, and not of others.
        """
        return self._sees_all or owner in self._owners_seen or owner == self.client.own_account

    async def search(self, owner: str, tag: str, after: float) -> Found:
        """Jobs with this owner and tag in a listing begun after this monotonic time."""
        if not await self._ask(after) or self._newest is None:
            return Found((), proven=False)
        wanted = (owner, tag)
        ids = tuple(job_id for job_id, job in self._newest.jobs.items() if (job.owner, job.tag) == wanted)
        return Found(ids, proven=bool(ids) or self.can_see(owner))

    async def ours(self, is_ours: Callable[[str, str], bool], after: float) -> dict[str, JobStatus] | None:
        """Jobs that haven't ended and whose owner and tag satisfy `is_ours`; None where the listing failed."""
        if not await self._ask(after) or self._newest is None:
            return None
        return {
            job_id: job
            for job_id, job in self._newest.jobs.items()
            if job.state is not JobState.ENDED and is_ours(job.owner, job.tag)
        }

    async def _ask(self, after: float, *, at_once: bool = False) -> bool:
        while self._newest is None or self._newest.begun_at <= after:
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._refresh(at_once=at_once))
            # Shielded: one caller that gives up must not take the answer from the others.
            await asyncio.shield(self._asking)
            if self._last_attempt > after:
                return self.error is None
        return True

    async def _refresh(self, *, at_once: bool = False) -> None:
        # One that took long may have waited for a controller that was away; two in a row mean that it is busy.
        gap = min(max(_SHORTEST_GAP_S, _GAP_PER_DURATION * min(self._durations_s)), _LONGEST_GAP_S)
        if self.error is not None:
            gap = min(gap, _GAP_AFTER_FAILURE_S)
        await asyncio.sleep(self._pause_s(gap, at_once=at_once))
        begun, had_failed = self._begins(gap), self.error is not None
        woken: list[Wake] = []
        try:
            # The promise is as old as the listing that it is to vouch for.
            listing, _ = await asyncio.gather(self.client.listing(), self._refresh_visibility())
            watchers = self._watchers.all()
            # Of a long queue this takes longer than the loop should be held.
            counts, owners, woken = await asyncio.to_thread(_read, listing, self._newest, watchers.values())
            # Those who have begun to watch meanwhile have looked at the older listing.
            woken += [wake for key, (_, wake) in self._watchers.all().items() if key not in watchers]
        except SchedulerError as error:
            self.error = error
        except Exception as error:
            # Whatever it was, it says nothing about any job, and no caller may fail by it.
            self.client.log.exception("could not list jobs")
            self.error = SchedulerUnreachable(f"The Hub could not list jobs: {error}")
        else:
            self.error = None
            self._durations_s = (self._durations_s[1], self._clock() - begun)
            # Of those that followed one another at once the first counts: a job is gone where two looks, a gap apart,
            # did not see it. A sleep may end a little early.
            if self._spaced is None or begun - self._spaced.begun_at >= 0.9 * _SHORTEST_GAP_S:
                self._previous, self._spaced = self._spaced, listing
            self._newest, self._counts = listing, counts
            self._owners_seen |= owners
        comes_or_goes = had_failed != (self.error is not None)
        self._watchers.wake([wake for _, wake in self._watchers.all().values()] if comes_or_goes else woken)

    def _pause_s(self, gap: float, *, at_once: bool) -> float:
        """How long to leave the scheduler in peace: no more than a listing for each gap, in the long run."""
        now = self._clock()
        if at_once and gap == _SHORTEST_GAP_S and self.error is None:
            return max(0.0, min(gap, self._due - (_AT_ONCE - 1) * gap - now))
        return max(0.0, min(gap, self._last_attempt + gap - now))

    def _begins(self, gap: float) -> float:
        """Note that a listing begins; return the time."""
        self._last_attempt = now = self._clock()
        self._due = max(self._due, now) + gap
        return now

    async def _refresh_visibility(self) -> None:
        if self._clock() < self._visibility_due:
            return
        self._sees_all = await self.client.sees_all()
        self._visibility_due = self._clock() + (_SIGHT_S if self._sees_all else _NO_SIGHT_S)


def _read(
    listing: Listing, before: Listing | None, watchers: Iterable[Watcher]
) -> tuple[Counter[JobState], set[str], list[Wake]]:
    """How many jobs are in each state, whose they are, and whom to wake."""
    jobs = before.jobs if before is not None else {}
    counts = Counter(job.state for job in listing.jobs.values())
    return counts, {job.owner for job in listing.jobs.values()}, stirred(watchers, jobs, listing.jobs)


def judge(job: OwnedJob, newest: Listing | None, previous: Listing | None) -> JobStatus:
    """State of one job from the last two successful listings; "gone" needs both to be younger than the submit."""
    if newest is None:
        return JobStatus(JobState.UNKNOWN)
    found = newest.jobs.get(job.job_id)
    if found is not None and is_ours(found, job):
        return found
    if found is not None and not _is_anothers(found, job):
        # Whichever it was: of two jobs by one number the older is gone.
        has_ended = found.state is JobState.ENDED and newest.begun_at > job.submitted_at
        if has_ended and found.owner == job.owner:
            return JobStatus(JobState.ENDED, reason=TAKEN)
        return JobStatus(JobState.UNKNOWN, reason=NOT_OURS, owner=found.owner)
    absent = [
        listing
        for listing in (newest, previous)
        if listing is not None and listing.begun_at > job.submitted_at and not _may_show(listing, job)
    ]
    if len(absent) == 2:
        return JobStatus(JobState.ENDED, reason=TAKEN if found is not None else "")
    return JobStatus(JobState.UNKNOWN, reason=NOT_OURS if found is not None else "")


def is_ours(found: JobStatus, job: OwnedJob) -> bool:
    """Whether what a listing shows by the number of our job is that job."""
    return (found.owner, found.tag) == (job.owner, job.tag)


def _may_show(listing: Listing, job: OwnedJob) -> bool:
    found = listing.jobs.get(job.job_id)
    return found is not None and not _is_anothers(found, job)


def _is_anothers(found: JobStatus, job: OwnedJob) -> bool:
    """Whether it is surely another job by this number, of another user; one mark alone its owner can change."""
    return found.owner != job.owner and found.tag != job.tag and not _NO_ONE.fullmatch(found.owner)
