"""Runs in the measured Hub: for how long its event loop answers nobody. `GET /hub/api/bench/loop` tells.

Such a pause lasts from one look at the sockets to the next. Its processor time is told beside its wall time, for on a
busy machine the loop also waits for others, and for the disk.
"""

import asyncio
import gc
import json
import time
from collections.abc import Callable
from typing import Any

from jupyterhub.apihandlers.base import APIHandler

_SHORTEST_S = 0.002
_pauses: list[tuple[float, float]] = []
_steps: list[tuple[float, str]] = []
_collections: list[float] = []
_began = [0.0]
_run = asyncio.Handle._run


def install(c: Any) -> None:
    """Measure this process's loop, which runs already, and what it does."""
    asyncio.Handle._run = _timed  # type: ignore[method-assign]
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    selector.select = _Pauses(selector.select)
    gc.callbacks.append(_collected)
    c.JupyterHub.extra_handlers.append((r"/api/bench/loop", _Loop))


class _Pauses:
    """Stands for the loop's look at its sockets, between two of which nobody is answered."""

    def __init__(self, select: Callable[..., Any]):
        self._select = select
        self._wall, self._cpu = time.perf_counter(), time.thread_time()

    def __call__(self, timeout: float | None = None) -> Any:
        wall, cpu = time.perf_counter() - self._wall, time.thread_time() - self._cpu
        if wall > _SHORTEST_S:
            _pauses.append((1000 * wall, 1000 * cpu))
        ready = self._select(timeout)
        self._wall, self._cpu = time.perf_counter(), time.thread_time()
        return ready


def _timed(handle: Any) -> None:
    cpu, callback = time.thread_time(), handle._callback
    _run(handle)
    cpu = time.thread_time() - cpu
    if cpu > _SHORTEST_S:
        _steps.append((round(1000 * cpu, 1), _name(callback)))


def _collected(phase: str, _facts: object) -> None:
    """Note how long Python looks for what nobody needs, which stops all that it does."""
    if phase == "start":
        _began[:] = [time.thread_time()]
    elif (cpu := time.thread_time() - _began[0]) > _SHORTEST_S:
        _collections.append(round(1000 * cpu, 1))


def _name(callback: Any) -> str:
    task = getattr(callback, "__self__", None)
    get = getattr(task, "get_coro", None)
    return str(getattr(get() if get else callback, "__qualname__", repr(callback)))


class _Loop(APIHandler):
    """The pauses since the last question."""

    async def prepare(self) -> None:
        """Do without a login."""

    def check_xsrf_cookie(self) -> None:
        """Do without."""

    def get(self) -> None:
        """The longest pause since the last question, by the wall and by the processor; the steps that took longest."""
        pauses, _pauses[:] = _pauses[:], []
        steps, _steps[:] = sorted(_steps, reverse=True), []
        found = {
            "pause_ms": round(max((wall for wall, _ in pauses), default=0.0), 1),
            "pause_cpu_ms": round(max((cpu for _, cpu in pauses), default=0.0), 1),
            "over_20_ms": sum(cpu > 20 for _, cpu in pauses),
            "steps": steps[:8],
            "collections": sorted(_collections, reverse=True)[:8],
        }
        _collections.clear()
        self.write(json.dumps(found))
