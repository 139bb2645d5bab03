"""The life of one job: submitted, waited for, ended."""

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from hpcspawner.errors import HPCSpawnerError, Reason, SchedulerError, ServerLost
from hpcspawner.hub.ledger import Row, ledger, now
from hpcspawner.hub.pages import News
from hpcspawner.job.state import JobState, JobStatus
from hpcspawner.schedulers.cluster import Cluster

_RETRY_CANCEL_S = 10.0
_LAST_WORDS_S = 3.0
# The loop keeps only weak references to tasks; work in the background must not vanish half done.
_background: set[asyncio.Task[Any]] = set()


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds that a listing is good for, and seconds from a running job to a listening server."""

    poll_interval_s: float
    start_limit_s: float


async def submit(cluster: Cluster, row: Row, script: str) -> None:
    """Submit a job and note its id. A caller that is cancelled leaves the submit to finish in the background."""
    task = in_background(_submit(cluster, row, script))
    await asyncio.shield(task)


async def _submit(cluster: Cluster, row: Row, script: str) -> None:
    row.submitted_at = now()
    try:
        job_id = await cluster.client.submit(row.owner, script)
    except SchedulerError:
        ledger().close(row)
        row.wanted = False
        raise
    row.submitted(job_id)
    if not row.wanted:
        await _cancel_for_sure(cluster, row)


async def wait_until_listening(cluster: Cluster, row: Row, news: News, limits: Limits, *, details: bool) -> None:
    """Wait until the launcher has reported a port; raise ServerLost when the job or the server ends before."""
    started_at = None
    after = row.submitted_at
    while not row.port:
        row.changed.clear()
        status = await cluster.queue.status(row.job, after)
        await _tell(cluster, row, news, status, details=details)
        if row.end or status.state is JobState.ENDED:
            raise await _lost(row, status)
        if status.state is JobState.RUNNING:
            started_at = started_at or now()
            if now() - started_at > limits.start_limit_s:
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


async def _tell(cluster: Cluster, row: Row, news: News, status: JobStatus, *, details: bool) -> None:
    if status.state is JobState.UNKNOWN:
        if cluster.queue.error:
            await news.say("The scheduler does not answer at the moment; the job keeps its place.")
        return
    record = ""
    if details:
        with contextlib.suppress(HPCSpawnerError):
            record = await cluster.client.details(row.job_id)
    explained = cluster.client.scheduler.explain(status.reason) if status.state is not JobState.RUNNING else ""
    await news.status(row.job_id, status, explained, record)


async def _lost(row: Row, status: JobStatus) -> ServerLost:
    """Why there is no server, by the launcher's own word where it comes in time."""
    if row.end is None:
        row.changed.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(row.changed.wait(), _LAST_WORDS_S)
    if row.end is None:
        word = f" ({status.word})" if status.word else ""
        return ServerLost(
            f"Job {row.job_id} ended{word} before its server was up, and said nothing more.", Reason.JOB_ENDED
        )
    message = row.end.message or f"The server ended ({row.end.reason})."
    return ServerLost(f"{message} (job {row.job_id})", Reason.SERVER_FAILED, row.end.log)


async def cancel_until_ended(cluster: Cluster, row: Row, limit_s: float) -> None:
    """End a job; never raises. Returns when the scheduler confirms, or after `limit_s` seconds and goes on behind."""
    row.wanted = False
    if not row.job_id:
        return  # the submit is still on its way, or failed; what comes of it is cancelled when it comes
    task = in_background(_cancel_for_sure(cluster, row))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(task), limit_s)


async def _cancel_for_sure(cluster: Cluster, row: Row) -> None:
    log = cluster.client.log
    while True:
        asked_at = now()
        try:
            await cluster.client.cancel(row.owner, row.job_id)
        except SchedulerError as error:
            log.warning("%s: job %s could not be cancelled yet: %s", row.server, row.job_id, error)
        while now() - asked_at < _RETRY_CANCEL_S:
            status = await cluster.queue.status(row.job, now())
            if status.state is JobState.ENDED:
                log.info("%s: job %s has ended", row.server, row.job_id)
                ledger().close(row)
                return
            await asyncio.sleep(0.2)


def in_background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run something that must be finished whoever waits for it."""
    task = asyncio.get_running_loop().create_task(work)
    _background.add(task)
    task.add_done_callback(_done)
    return task


def _done(task: asyncio.Task[None]) -> None:
    _background.discard(task)
    if not task.cancelled():
        task.exception()  # looked at, so that a failure nobody waits for is not reported as forgotten


def place(node_name: str, host: str) -> str:
    """The node's name as the Hub resolves it, in brackets where it is an IPv6 address."""
    name = node_name.replace("{node}", host)
    return f"[{name}]" if ":" in name else name
