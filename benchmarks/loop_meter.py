"""Runs in the measured Hub: how long the steps of its event loop take. `GET /hub/api/bench/loop` tells, and begins anew.

A step that takes long is a pause for everybody else. Its processor time is told beside its wall time, for on a busy
machine the loop also waits for others.
"""

import asyncio
import json
import time
from typing import Any

from jupyterhub.apihandlers.base import APIHandler

_steps: list[tuple[float, float, str]] = []
_SHORTEST_S = 0.002
_run = asyncio.Handle._run


def install(c: Any) -> None:
    """Measure every step of this process's loop."""
    asyncio.Handle._run = _timed  # type: ignore[method-assign]
    c.JupyterHub.extra_handlers.append((r"/api/bench/loop", _Loop))


def _timed(handle: Any) -> None:
    wall, cpu, callback = time.perf_counter(), time.thread_time(), handle._callback
    _run(handle)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    if wall > _SHORTEST_S:
        _steps.append((wall, cpu, _name(callback)))


def _name(callback: Any) -> str:
    task = getattr(callback, "__self__", None)
    get = getattr(task, "get_coro", None)
    return getattr(get() if get else callback, "__qualname__", repr(callback))


class _Loop(APIHandler):
    """The longest steps since the last question."""

    async def prepare(self) -> None:
        """Do without a login."""

    def check_xsrf_cookie(self) -> None:
        """Do without."""

    def get(self) -> None:
        """JSON: the longest step by the wall, that by the processor, and how many took over 5 and 20 ms of it."""
        steps, _steps[:] = _steps[:], []
        cpu_ms = sorted(((round(1000 * cpu, 1), name) for _, cpu, name in steps), reverse=True)
        self.write(
            json.dumps(
                {
                    "wall_ms": round(1000 * max((wall for wall, _, _ in steps), default=0.0), 1),
                    "cpu_ms": cpu_ms[0][0] if cpu_ms else 0.0,
                    "over_5_ms": sum(ms > 5 for ms, _ in cpu_ms),
                    "over_20_ms": sum(ms > 20 for ms, _ in cpu_ms),
                    "steps": cpu_ms[:8],
                }
            )
        )
