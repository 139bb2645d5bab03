"""Who waits for a job is woken when a listing shows it otherwise than the one before."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hpcspawner.schedulers.state import JobStatus

Wake = Callable[[], object]
Watcher = tuple[tuple[str, str, str], Wake]
"""The number, owner and tag of a job, and what to call."""

# Each that is woken looks at its job. A thousand may stir at once, as when a maintenance begins.
_AT_ONCE = 20


class Watchers:
    """Whose turn it is when a listing comes, by the number, owner and tag of the jobs."""

    def __init__(self) -> None:
        self._wakes: dict[object, Watcher] = {}
        self._waking: set[asyncio.Task[None]] = set()

    def __bool__(self) -> bool:
        return bool(self._wakes)

    @contextlib.contextmanager
    def added(self, job_id: str, owner: str, tag: str, wake: Wake) -> Iterator[None]:
        """Have `wake` called, until the block is left, when something is new of this job."""
        key = object()
        self._wakes[key] = (job_id, owner, tag), wake
        try:
            yield
        finally:
            del self._wakes[key]

    def all(self) -> dict[object, Watcher]:
        """Everybody who waits now."""
        return dict(self._wakes)

    def wake(self, wakes: Sequence[Wake]) -> None:
        """Wake these, a few at a time; needs a running event loop."""
        if wakes:
            task = asyncio.create_task(_wake(wakes))
            self._waking.add(task)
            task.add_done_callback(self._waking.discard)


async def _wake(wakes: Sequence[Wake]) -> None:
    for number, wake in enumerate(wakes, 1):
        wake()
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)


def stirred(watchers: Iterable[Watcher], before: Mapping[str, JobStatus], after: Mapping[str, JobStatus]) -> list[Wake]:
    """Those of the watchers whose job two listings show otherwise, and of whose job the newer one says nothing.

    The absence of a job takes more than one listing to prove, and so does a mark that is not the Hub's.
    """
    wakes = []
    for (job_id, owner, tag), wake in watchers:
        now = after.get(job_id)
        is_there = now is not None and (now.owner, now.tag) == (owner, tag)
        if not is_there or _seen(before.get(job_id)) != _seen(now):
            wakes.append(wake)
    return wakes


def _seen(status: JobStatus | None) -> tuple[object, ...] | None:
    """What its user would notice: the scheduler's guess of the start changes all the time."""
    if status is None:
        return None
    return status.state, status.native_state, status.host, status.reason, status.hopeless
