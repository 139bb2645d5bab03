"""Work that must be finished, with or without a caller that waits for it."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hpcspawner.errors import HPCSpawnerError

_Value = TypeVar("_Value")
# Much less than what somebody would notice who waits for the Hub.
_SLICE_S = 0.002
# The loop keeps only weak references to tasks; work in the background must not vanish half done.
_running: set[asyncio.Task[Any]] = set()


def in_background(work: Coroutine[Any, Any, _Value], log: logging.Logger) -> asyncio.Task[_Value]:
    """Run something to its end. Unexpected errors are logged here; HPCSpawnerErrors are for the callers that wait."""
    task = asyncio.get_running_loop().create_task(work)
    _running.add(task)

    def done(finished: asyncio.Task[_Value]) -> None:
        _running.discard(finished)
        error = None if finished.cancelled() else finished.exception()
        if error is not None and not isinstance(error, HPCSpawnerError):
            log.error("background work failed", exc_info=error)

    task.add_done_callback(done)
    return task


async def once(
    tasks: dict[str, asyncio.Task[Any]], name: str, work: Callable[[], Coroutine[Any, Any, _Value]], log: logging.Logger
) -> _Value:
    """The result of the work of this name that is under way, else of a new one. Cancelling a caller leaves it alone."""
    task = tasks.get(name)
    if task is None or task.done():
        task = tasks[name] = in_background(work(), log)
    result: _Value = await asyncio.shield(task)
    return result


class Wake:
    """Wakes who looks after the jobs, and says which jobs to look at."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._named: dict[str, None] = {}
        self._all = False

    def set(self, *tags: str) -> None:
        """Have the jobs with these tags looked at soon; all jobs where none is named."""
        self._named.update(dict.fromkeys(tags))
        self._all = self._all or not tags
        self._event.set()

    def is_set(self) -> bool:
        """Whether there is something to look at."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when there is something to look at."""
        await self._event.wait()

    def taken(self) -> list[str] | None:
        """The tags of the jobs to look at, in the order they came, None for all; from now on there are none."""
        named = None if self._all else list(self._named)
        self._named, self._all = {}, False
        self._event.clear()
        return named


class Slices:
    """Long work on the loop, in slices: others have their turn between two."""

    def __init__(self, slice_s: float = _SLICE_S):
        self._slice_s = slice_s
        self._began = time.perf_counter()

    async def pause(self) -> None:
        """Let others have their turn if this slice has had its time."""
        if time.perf_counter() - self._began >= self._slice_s:
            await asyncio.sleep(0)
            self._began = time.perf_counter()
