"""Work that must be finished whoever waits for it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hpcspawner.errors import HPCSpawnerError

_Value = TypeVar("_Value")
# The loop keeps only weak references to tasks; work in the background must not vanish half done.
_running: set[asyncio.Task[Any]] = set()


def in_background(work: Coroutine[Any, Any, _Value], log: logging.Logger) -> asyncio.Task[_Value]:
    """Run something to its end. An error that is none of ours is logged here; ours are for those who wait."""
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
