"""The life of one job: submitted, waited for, ended."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hpcspawner.errors import HPCSpawnerError, Reason, SchedulerError, SchedulerUnreachable, ServerLost
from hpcspawner.hub.ledger import Row, ledger, now
from hpcspawner.hub.pages import News
from hpcspawner.job.state import JobState, JobStatus
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import HIDDEN

_LAST_WORDS_S = 3.0
# The launcher has the same limit and better words, so it is heard first.
_LAUNCHER_FIRST_S = 15.0
_FIRST_LOOKS_S = 10.0
# A job that no listing shows may be hidden, or gone before it was seen; neither will ever become a server.
_HIDDEN_S = 60.0
_LONGEST_PAUSE_S = 60.0
_LOOK_FOR_TAG_AFTER_S = (2.0, 10.0, 30.0)
# The loop keeps only weak references to tasks; work in the background must not vanish half done.
_background: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a listing is good for, and seconds from a running job to a listening server."""

    poll_interval_s: float
    start_limit_s: float


async def submit(cluster: Cluster, row: Row, script: str) -> None:
    """Submit a job and note its id. A caller that is cancelled leaves the submit to finish in the background."""
    await asyncio.shield(in_background(_submit(cluster, row, script), cluster.client.log))


async def _submit(cluster: Cluster, row: Row, script: str) -> None:
    try:
        job_id = await cluster.client.submit(row.owner, script)
    except SchedulerError as error:
        ledger().close(row)
        row.wanted = False
        if isinstance(error, SchedulerUnreachable):
            in_background(_cancel_by_tag(cluster, row), cluster.client.log)
        raise
    row.submitted(job_id)
    if not row.wanted:
        await _cancel_for_sure(cluster, row)


async def _cancel_by_tag(cluster: Cluster, row: Row) -> None:
    """After a submit without an answer: if there is a job after all, nobody waits for it any more."""
    for pause_s in _LOOK_FOR_TAG_AFTER_S:
        await asyncio.sleep(pause_s)
        job_id = await cluster.queue.find(row.owner, row.label.tag, now())
        if job_id:
            row.submitted(job_id)
            await _cancel_for_sure(cluster, row)
            return


async def wait_until_listening(cluster: Cluster, row: Row, news: News, limits: Limits, *, details: bool) -> None:
    """Wait until the launcher has reported a port; raise ServerLost when the job or the server ends before."""
    running, hidden_since = _Stopwatch(), None
    after = row.submitted_at
    while not row.port:
        row.changed.clear()
        status = await cluster.queue.status(row.job, after)
        if row.end or status.state is JobState.ENDED:
            raise await _lost(cluster, row, status)
        await _tell(cluster, row, news, status, details=details)
        hidden_since = (hidden_since or now()) if status.reason == HIDDEN else None
        if hidden_since and now() - hidden_since > _HIDDEN_S:
            raise ServerLost(
                f"Job {row.job_id} was submitted, but the Hub can't follow it: {HIDDEN}. "
                f"Please tell {cluster.profile.contact}.",
                Reason.NOT_SET_UP,
            )
        if running.seconds(status.state) > limits.start_limit_s + _LAUNCHER_FIRST_S:
            raise ServerLost(
                f"Job {row.job_id} has run on {status.host} for {limits.start_limit_s:g} s without a listening "
                f"server. Its log is on the cluster in {cluster.profile.job.log}.",
                Reason.START_LIMIT,
            )
        if row.port:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(row.changed.wait(), limits.poll_interval_s)
        after = now() - limits.poll_interval_s / 2


class _Stopwatch:
    """Seconds that a job has been seen running: what lies between two looks that both saw it run."""

    def __init__(self) -> None:
        self._total_s = 0.0
        self._since: float | None = None

    def seconds(self, state: JobState) -> float:
        """Take note of what was seen now; a job that waits again starts again."""
        moment = now()
        if state is JobState.RUNNING and self._since is not None:
            self._total_s += moment - self._since
        elif state is not JobState.UNKNOWN and state is not JobState.RUNNING:
            self._total_s = 0.0
        self._since = moment if state is JobState.RUNNING else None
        return self._total_s


async def _tell(cluster: Cluster, row: Row, news: News, status: JobStatus, *, details: bool) -> None:
    if status.state is JobState.UNKNOWN:
        if cluster.queue.error:
            await news.say("The scheduler does not answer at the moment; the job keeps its place.")
        elif status.reason:
            await news.say(f"Nothing is known of job {row.job_id}: {status.reason}.")
        return
    if not news.differs(row.job_id, status):
        return
    record = ""
    if details:
        with contextlib.suppress(HPCSpawnerError):
            record = await cluster.client.details(row.job_id)
    explained = cluster.client.scheduler.explain(status.reason) if status.state is not JobState.RUNNING else ""
    await news.status(row.job_id, status, explained, record)


async def _lost(cluster: Cluster, row: Row, status: JobStatus) -> ServerLost:
    """Why there is no server, by the launcher's own word where it comes in time."""
    if row.end is None:
        row.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(row.changed.wait(), _LAST_WORDS_S)
    if row.end is None:
        if not status.word:
            # Judged by its absence alone; should it be there after all, nobody waits for it.
            with contextlib.suppress(SchedulerError):
                await cluster.client.cancel(row.owner, row.job_id)
        explained = cluster.client.scheduler.explain(status.reason)
        why = f" The scheduler says: {status.word}. {explained}".rstrip() if status.word else ""
        return ServerLost(f"Job {row.job_id} ended before its server was up.{why}", Reason.JOB_ENDED)
    message = row.end.message or f"The server ended ({row.end.reason})."
    return ServerLost(f"{message} (job {row.job_id})", Reason.SERVER_FAILED, row.end.log)


async def cancel_until_ended(cluster: Cluster, row: Row, limit_s: float) -> None:
    """End a job; never raises. Returns when the scheduler confirms, or after `limit_s` seconds and goes on behind."""
    row.give_up()
    if not row.job_id or row.being_cancelled:
        return  # what comes of a submit that is still on its way is cancelled when it comes
    task = in_background(_cancel_for_sure(cluster, row), cluster.client.log)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), limit_s)


async def _cancel_for_sure(cluster: Cluster, row: Row) -> None:
    """Cancel until the job has ended; never raises. Looks often at first, then less and less."""
    row.being_cancelled = True
    pause_s = 1.0
    while not await _cancelled(cluster, row):
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    cluster.client.log.info("%s: job %s has ended", row.server, row.job_id)
    ledger().close(row)


async def _cancelled(cluster: Cluster, row: Row) -> bool:
    """Cancel once and look for a while whether the job has ended."""
    log, asked_at = cluster.client.log, now()
    try:
        await cluster.client.cancel(row.owner, row.job_id)
        taken = True
    except Exception as error:
        log.warning("%s: job %s could not be cancelled yet: %s", row.server, row.job_id, error)
        taken = False
    while True:
        status = await cluster.queue.status(row.job, now())
        # Where its owner's jobs are hidden from the Hub, the scheduler's word that it took the cancel must do.
        if status.state is JobState.ENDED or (taken and status.reason == HIDDEN):
            return True
        if now() - asked_at > _FIRST_LOOKS_S:
            return False
        await asyncio.sleep(0.2)


def in_background(work: Coroutine[Any, Any, None], log: logging.Logger) -> asyncio.Task[None]:
    """Run something that must be finished whoever waits for it; an error of ours in it is logged."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)

    def done(finished: asyncio.Task[None]) -> None:
        _background.discard(finished)
        error = None if finished.cancelled() else finished.exception()
        if error is not None and not isinstance(error, HPCSpawnerError):
            log.error("work in the background failed", exc_info=error)

    task.add_done_callback(done)
    return task


def place(node_name: str, host: str) -> str:
    """The node's name as the Hub resolves it, in brackets where it is an IPv6 address."""
    name = node_name.replace("{node}", host)
    return f"[{name}]" if ":" in name else name
