"""Servers and clusters as tables show them: read from memory, no question to a scheduler, many rows in slices."""

import asyncio
import heapq
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from hpcspawner.jobs.events import Stage
from hpcspawner.jobs.job import Job
from hpcspawner.jobs.record import JobRecord
from hpcspawner.jobs.wait import ahead, explained
from hpcspawner.language import Text, _, joined
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.state import JobState
from hpcspawner.units import Walltime

PAGE = 50
"""Rows of one page."""
# So many jobs are looked at before others have a turn on the event loop: about a millisecond.
_SLICE = 250
_MINUTE_S = 60


class State(StrEnum):
    """What a server does, as people filter by it, in the order of its life."""

    WAITING = "waiting"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"

    @property
    def word(self) -> Text:
        """For people."""
        return _WORDS[self]


_WORDS = {
    State.WAITING: _("waiting"),
    State.STARTING: _("starting"),
    State.RUNNING: _("running"),
    State.STOPPING: _("stopping"),
}

_STATES = {
    Stage.INTENT: State.WAITING,
    Stage.QUEUED: State.WAITING,
    Stage.RUNNING: State.STARTING,
    Stage.LISTENING: State.STARTING,
    Stage.READY: State.RUNNING,
    Stage.STOPPING: State.STOPPING,
}
_ORDER = {state: place for place, state in enumerate(State)}


@dataclass(frozen=True, slots=True)
class Row:
    """One server in words. `time` is the time left, or the place in the queue; `reason` why it waits."""

    user: str
    server: str
    state: State
    cluster: str
    partition: str
    node: str
    gpus: str
    time: str
    reason: str
    job_id: str


def state_of(job: Job) -> State:
    """What the server of a job that lives does."""
    return _STATES.get(job.stage, State.STOPPING)


def row(job: Job, at: float) -> Row:
    """One server at a time in seconds since 1970."""
    record, state = job.record, state_of(job)
    return Row(
        user=record.username,
        server=record.server,
        state=state,
        cluster=job.cluster.profile.title or job.cluster.name,
        partition=_partition(job),
        node=record.host,
        gpus=_gpus(record),
        time=_place(job, at) if state is State.WAITING else _left(record, at),
        reason=_reason(job) if state is State.WAITING else "",
        job_id=record.job_id,
    )


def _partition(job: Job) -> str:
    name = str(job.record.choices.get("partition", ""))
    known = job.cluster.profile.partition(name)
    return known.label if known else name


def _gpus(record: JobRecord) -> str:
    count, kind = record.choices.get("gpus"), record.choices.get("gpu_type")
    if not count:
        return _("none")
    return f"{count} {kind}" if kind else str(count)


def _left(record: JobRecord, at: float) -> str:
    if not record.ends_at:
        return ""
    return in_minutes(record.ends_at - at) if record.ends_at > at else _("over")


def in_minutes(seconds: float) -> str:
    """A length of time for people; it is shown again in a few seconds."""
    return _("under 1m") if seconds < _MINUTE_S else str(Walltime(int(seconds // _MINUTE_S) * _MINUTE_S))


def _place(job: Job, at: float) -> str:
    parts, before = [], ahead(job.record, job.cluster.board.newest)
    if before is not None:
        parts.append(_("next in its partition") if before == 0 else _("{count} ahead", count=before))
    if job.record.submitted_at:
        parts.append(_("waits {time}", time=in_minutes(at - job.record.submitted_at)))
    return joined(parts, ", ")


def _reason(job: Job) -> str:
    if not job.record.job_id:
        return _("The job is being submitted.")
    if job.cluster.queue.error:
        return _("The scheduler does not answer; the job keeps its place.")
    status = job.cluster.queue.seen(job.listed)
    waits = status.state in (JobState.PENDING, JobState.HELD)
    return explained(job.cluster, status) if waits and status.reason else ""


def of_user(find: Callable[[str], Iterable[Job]], servers: Iterable[str]) -> list[Row]:
    """The rows of these servers of one user, of which `find` gives the jobs."""
    at = time.time()
    return [row(job, at) for name in sorted(servers) for job in shown(find(name))]


def shown(jobs: Iterable[Job]) -> Iterator[Job]:
    """Without those that wait to take the place of a server that runs."""
    return (job for job in jobs if not job.record.follows)


# ---- all servers


_KEYS: Mapping[str, Callable[[Job], tuple[object, ...]]] = {
    "user": lambda job: (),
    "state": lambda job: (_ORDER[state_of(job)],),
    "cluster": lambda job: (job.cluster.name,),
    "partition": lambda job: (str(job.record.choices.get("partition", "")),),
    "node": lambda job: (job.record.host,),
    "time": lambda job: (job.record.ends_at or math.inf, job.record.submitted_at),
}
SORTS = tuple(_KEYS)
"""What the rows may be sorted by; user and server decide between equals."""


@dataclass(frozen=True, slots=True)
class View:
    """Which rows, in which order. "" and None stand for all; `page` counts from 1."""

    state: State | None = None
    cluster: str = ""
    sort: str = SORTS[0]
    down: bool = False
    page: int = 1


def view(arguments: Mapping[str, str], clusters: Sequence[str]) -> View:
    """What an address asks for. Raises ValueError with what is allowed."""
    state, cluster = arguments.get("state", ""), arguments.get("cluster", "")
    sort, page = arguments.get("sort", "") or SORTS[0], arguments.get("page", "") or "1"
    _check("state", state, ("", *State))
    _check("cluster", cluster, ("", *clusters))
    _check("sort", sort.removeprefix("-"), SORTS)
    if not (page.isascii() and page.isdigit() and 0 < len(page) < 7 and int(page) > 0):
        raise ValueError(f"page is {page[:60]!r}; it is a number from 1 to 999999")
    return View(State(state) if state else None, cluster, sort.removeprefix("-"), sort.startswith("-"), int(page))


def _check(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} is {value[:60]!r}; choose one of {', '.join(filter(None, allowed))}")


@dataclass(frozen=True, slots=True)
class Page:
    """The rows of one page; `found` is how many rows all pages have, `number` that of this page, `of` of the last.

    `counts` is how many servers of each state a cluster has, by the names of the clusters.
    """

    rows: list[Row] = field(default_factory=list)
    found: int = 0
    number: int = 1
    of: int = 1
    counts: Mapping[str, Mapping[State, int]] = field(default_factory=dict)


async def page(jobs: Sequence[Job], wanted: View, may_see: Callable[[JobRecord], bool]) -> Page:
    """The rows that are wanted, of those that the reader may see; others have a turn on the loop after each slice."""
    counts: dict[str, Counter[State]] = {}
    sorted_slices = []
    for start in range(0, len(jobs), _SLICE):
        some = [job for job in shown(jobs[start : start + _SLICE]) if may_see(job.record)]
        for job in some:
            counts.setdefault(job.cluster.name, Counter())[state_of(job)] += 1
        sorted_slices.append(sorted(_keyed(some, wanted), key=_first, reverse=wanted.down))
        await asyncio.sleep(0)
    found = sum(map(len, sorted_slices))
    last = max(1, math.ceil(found / PAGE))
    number = min(wanted.page, last)
    merged = heapq.merge(*sorted_slices, key=_first, reverse=wanted.down)
    await _skip(merged, (number - 1) * PAGE)
    at = time.time()
    rows = []
    for _key, job in islice(merged, PAGE):
        rows.append(row(job, at))
        await asyncio.sleep(0)
    return Page(rows, found, number, last, counts)


_Keyed = tuple[tuple[object, ...], Job]


def _first(keyed: _Keyed) -> tuple[object, ...]:
    return keyed[0]


def _keyed(jobs: Iterable[Job], wanted: View) -> Iterator[_Keyed]:
    key = _KEYS[wanted.sort]
    for job in jobs:
        if wanted.state in (None, state_of(job)) and wanted.cluster in ("", job.cluster.name):
            yield (*key(job), job.record.username, job.record.server), job


async def _skip(merged: Iterator[_Keyed], count: int) -> None:
    while count > 0:
        for _passed in islice(merged, min(count, _SLICE)):
            pass
        count -= _SLICE
        await asyncio.sleep(0)


# ---- clusters


@dataclass(frozen=True, slots=True)
class Health:
    """One cluster in words: whether it answers, how old is what is known of it, and its jobs.

    `well` is None while it was not asked. `all_jobs` counts those of all users, `jobs` those of this Hub.
    """

    name: str
    title: str
    well: bool | None
    state: str
    error: str
    listing: str
    facts: str
    jobs: str
    all_jobs: str


def health(cluster: Cluster, counts: Mapping[State, int]) -> Health:
    """How a cluster is, with how many of this Hub's servers in each state."""
    queue = cluster.queue
    listed = not math.isnan(queue.age_s)
    well = False if queue.error else (True if listed else None)
    own = [joined([str(counts[state]), state.word]) for state in State if counts.get(state)]
    return Health(
        name=cluster.name,
        title=cluster.profile.title or cluster.name,
        well=well,
        state={True: _("answers"), False: _("does not answer"), None: _("not asked yet")}[well],
        error=queue.error.sentence if queue.error else "",
        listing=_age(queue.age_s),
        facts=_age(cluster.board.age_s) if cluster.board.offered else _("not offered"),
        jobs=joined(own, ", ") or _("none"),
        all_jobs=_all_jobs(queue.waiting, queue.running) if listed else _("unknown"),
    )


def _age(seconds: float) -> str:
    return _("none yet") if math.isnan(seconds) else _("{time} old", time=in_minutes(seconds))


def _all_jobs(waiting: int, running: int) -> Text:
    return _("{waiting} waiting, {running} running", waiting=waiting, running=running)
