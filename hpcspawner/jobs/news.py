"""The news of one start, for every page that is open."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from hpcspawner.language import _, all_told, joined
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.units import clock_time

_PROGRESS = {
    JobState.PENDING: 20,
    JobState.HELD: 20,
    JobState.SUSPENDED: 30,
    JobState.RUNNING: 50,
    JobState.ENDED: 100,
}

STEPS = ("submitted", "waiting", "assigned", "starting", "ready")
"""What a start goes through, in order; an event's `step` is the one that it has reached."""

_STEP = {
    JobState.PENDING: "waiting",
    JobState.HELD: "waiting",
    JobState.SUSPENDED: "starting",
    JobState.RUNNING: "starting",
    JobState.ENDED: "starting",
}
# Slurm's word for nodes that are being made ready for a job that has them.
_ASSIGNED = "CONFIGURING"
# Longer than a page without JavaScript takes to show itself again.
_READS_AGAIN_S = 30.0
# So long nothing is said to a page. What follows changes nothing on it.
_SHOWS_ITSELF_S = 120.0
# What `say` is told of a server that listens.
_READY_PERCENT = 90


@dataclass(frozen=True, slots=True)
class Wait:
    """What a waiting job's page says beside its state.

    `advice` is what its user can do, "" where nothing is known. `since` and `until` are seconds since 1970, 0 where
    unknown: when it began to wait and when the Hub will give up. `ahead` is how many jobs are ahead of it in its
    partition, None where the scheduler does not tell.
    """

    advice: str = ""
    since: float = 0.0
    until: float = 0.0
    ahead: int | None = None

    def words(self) -> dict[str, Any]:
        """As a page without JavaScript shows them; with it, times with a number are shown in the reader's zone."""
        return {
            "advice": self.advice,
            "since": _time(self.since),
            "since_at": self.since,
            "until": _time(self.until),
            "until_at": self.until,
            "ahead": "" if self.ahead is None else str(self.ahead) if self.ahead else _("none"),
        }


_NO_WAIT = Wait()


def _time(at: float) -> str:
    return clock_time(at) if at else ""


class News:
    """The news of one start, in order; every open page gets all of it, and nothing comes twice."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._last: tuple[Any, ...] = ()
        self._over = False
        self._latest: dict[str, Any] = {}
        self._readers = 0
        self._read_until = float("-inf")
        self.on_reader: Callable[[], object] | None = None
        """Called when somebody begins to read."""

    @property
    def latest(self) -> dict[str, Any]:
        """The newest facts about the job, for a page without JavaScript."""
        self._read()
        return self._latest

    @property
    def has_readers(self) -> bool:
        """Whether a page is open that shows this; one without JavaScript was, a short while ago."""
        return self._readers > 0 or time.monotonic() < self._read_until

    def _read(self) -> None:
        had_readers = self.has_readers
        self._read_until = time.monotonic() + _READS_AGAIN_S
        if self.on_reader is not None and not had_readers:
            self.on_reader()

    @property
    def step(self) -> str:
        """The step that the start has reached."""
        steps = (event["step"] for event in reversed(self._events) if "step" in event)
        return next(steps, STEPS[0])

    async def say(self, message: str, progress: int | None = None) -> None:
        """Add one sentence that is not a state of the job."""
        event: dict[str, Any] = {"message": message}
        if progress is not None:
            event["progress"] = progress
        if progress == _READY_PERCENT:
            event["step"] = STEPS[-1]
        await self._add(event)

    def differs(self, job_id: str, status: JobStatus) -> bool:
        """Whether this state differs from the last one. A new guess of the start alone is no news."""
        return (job_id, status.state, status.host, status.reason) != self._last

    async def status(
        self, job_id: str, status: JobStatus, explained: str, details: str = "", wait: Wait = _NO_WAIT
    ) -> None:
        """The job's state, if it differs from the last one."""
        if status.state is JobState.UNKNOWN or not self.differs(job_id, status):
            return
        self._last = (job_id, status.state, status.host, status.reason)
        starts_at = status.starts_at if status.state is JobState.PENDING else 0.0
        starts = _time(starts_at)
        # Only the newest record is worth its memory.
        for event in self._events:
            event.get("job", {}).pop("details", None)
        waits = status.state in (JobState.PENDING, JobState.HELD)
        self._latest = {
            "id": job_id,
            "state": status.state.word,
            "reason": explained,
            "host": status.host or "",
            "starts": starts,
            "starts_at": starts_at,
            "details": details,
            **(wait if waits else _NO_WAIT).words(),
        }
        await self._add(
            {
                "progress": _PROGRESS.get(status.state, 10),
                "message": _sentence(job_id, status, explained, starts),
                "step": "assigned" if status.native_state == _ASSIGNED else _STEP.get(status.state, STEPS[0]),
                "job": dict(self._latest),
            }
        )

    async def moved_up(self, wait: Wait) -> None:
        """The number of jobs ahead, if it has changed; it is no line of what happened."""
        ahead = wait.words()["ahead"]
        if self._latest.get("state") and self._latest.get("ahead") != ahead:
            self._latest["ahead"] = ahead
            await self._add({"job": {"ahead": ahead}})

    async def close(self) -> None:
        """End the messages."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        self._read()
        self._readers += 1
        try:
            async for event in self._all():
                # In the language of the page that listens.
                yield all_told(event)
        finally:
            self._readers -= 1

    async def _all(self) -> AsyncIterator[dict[str, Any]]:
        sent = 0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHOWS_ITSELF_S), self._changed:
                    while len(self._events) == sent and not self._over:
                        await self._changed.wait()
            fresh = self._events[sent:]
            sent += len(fresh)
            # JupyterHub notices that a page is gone when it writes to it.
            for event in fresh or [{"job": {"ahead": self._latest.get("ahead", "")}}]:
                yield event
            if self._over and sent == len(self._events):
                return

    async def _add(self, event: dict[str, Any]) -> None:
        async with self._changed:
            if self._events and self._events[-1] == event:
                return
            self._events.append(event)
            self._changed.notify_all()


def _sentence(job_id: str, status: JobStatus, explained: str, starts: str) -> str:
    if status.state is JobState.RUNNING:
        return _("Job {id} is running on {node}; the server is starting", id=job_id, node=status.host or "")
    state = _("Job {id} is {state}", id=job_id, state=status.state.word)
    expected = _("Expected start: {time}.", time=starts) if starts else ""
    return joined([joined([state, explained], ": "), expected])
