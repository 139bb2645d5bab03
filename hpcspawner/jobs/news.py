"""The news of one start, for every page that is open."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from hpcspawner.schedulers.state import JobState, JobStatus

_PROGRESS = {
    JobState.PENDING: 20,
    JobState.HELD: 20,
    JobState.SUSPENDED: 30,
    JobState.RUNNING: 50,
    JobState.ENDED: 100,
}


class News:
    """The news of one start, in order; every open page gets all of it, and nothing comes twice."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._last: tuple[Any, ...] = ()
        self._over = False

    @property
    def latest(self) -> dict[str, Any]:
        """The newest event's facts about the job, for a page without JavaScript."""
        jobs = (event["job"] for event in reversed(self._events) if "job" in event)
        return next(jobs, {})

    async def say(self, message: str, progress: int | None = None) -> None:
        """Add one sentence that is not a state of the job."""
        await self._add({"message": message} if progress is None else {"message": message, "progress": progress})

    def differs(self, job_id: str, status: JobStatus) -> bool:
        """Whether this state differs from the last one. A new guess of the start alone is no news."""
        return (job_id, status.state, status.host, status.reason) != self._last

    async def status(self, job_id: str, status: JobStatus, explained: str, details: str = "") -> None:
        """The job's state, if it differs from the last one."""
        if status.state is JobState.UNKNOWN or not self.differs(job_id, status):
            return
        self._last = (job_id, status.state, status.host, status.reason)
        starts = status.starts if status.state is JobState.PENDING else ""
        # Only the newest record is worth its memory.
        for event in self._events:
            event.get("job", {}).pop("details", None)
        await self._add(
            {
                "progress": _PROGRESS.get(status.state, 10),
                "message": _sentence(job_id, status, explained, starts),
                "job": {
                    "id": job_id,
                    "state": status.state.value,
                    "reason": explained,
                    "host": status.host or "",
                    "starts": starts,
                    "details": details,
                },
            }
        )

    async def close(self) -> None:
        """End the messages."""
        async with self._changed:
            self._over = True
            self._changed.notify_all()

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        sent = 0
        while True:
            async with self._changed:
                while len(self._events) == sent and not self._over:
                    await self._changed.wait()
            fresh = self._events[sent:]
            sent += len(fresh)
            for event in fresh:
                yield dict(event)
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
        return f"Job {job_id} is running on {status.host}; the server is starting"
    because = f": {explained}" if explained else ""
    expected = f" Expected start: {starts}." if starts else ""
    return f"Job {job_id} is {status.state.value}{because}{expected}"
