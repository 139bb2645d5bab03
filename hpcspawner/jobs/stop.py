"""The end of a job: asked for, confirmed, explained, recorded."""

import asyncio
import contextlib

from hpcspawner.errors import SchedulerError
from hpcspawner.jobs.causes import RENEWED_AFTER, explain_end
from hpcspawner.jobs.events import Action
from hpcspawner.jobs.ledger import End, Row, emit, ledger, now
from hpcspawner.jobs.submit import find_job
from hpcspawner.jobs.tasks import in_background, once
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import NOT_OURS, NOT_VISIBLE, TAKEN, is_ours
from hpcspawner.schedulers.state import JobState, JobStatus

_LAST_WORDS_S = 3.0
_FIRST_LOOKS_S = 10.0
# A job that runs on costs its owner; a cancel costs the scheduler little.
_LONGEST_PAUSE_S = 15.0
_SUBMIT_LOOK_S = 0.5
_NOT_LONG_S = 5.0
_NEVER_A_JOB = JobStatus(JobState.ENDED, native_state="NOT SUBMITTED")


async def end_job(cluster: Cluster, row: Row, limit_s: float | None) -> None:
    """End a job; never raises. Returns when the scheduler confirms, or after `limit_s` seconds and goes on behind.

    Without a limit it returns only when the job has ended.
    """
    if row.end is not None:
        return
    if row.wanted:
        emit(Action.STOP, cluster, row)
    row.mark_unwanted()
    try:
        async with asyncio.timeout(limit_s):
            await once(row.tasks, "end", lambda: _end(cluster, row), cluster.client.log)
    except TimeoutError:
        pass
    except Exception:
        # Housekeeping tries again; nobody who stops a server should meet this.
        cluster.client.log.exception("%s: job %s could not be ended yet", row.log_name, row.job_id)


async def _end(cluster: Cluster, row: Row) -> None:
    # Not awaited: a database that is away must not keep the job alive.
    in_background(ledger().save(row), cluster.client.log)
    in_background(_revoke(row), cluster.client.log)
    # The follow-up first: it would start when its parent is cancelled.
    for follower in ledger().following(row):
        await end_job(cluster, follower, None)
    await _settle_submit(cluster, row)
    status = await _cancel_for_sure(cluster, row) if row.job_id else _NEVER_A_JOB
    await finish(cluster, row, status)


async def _settle_submit(cluster: Cluster, row: Row) -> None:
    """Know whether there is a job: a submit may be on its way, in this process or in one that is gone."""
    submit = row.tasks.get("submit")
    while submit is not None and not submit.done() and not row.job_id:
        await asyncio.wait([submit], timeout=_SUBMIT_LOOK_S)
    if row.asked_at and not row.job_id and row.end is None:
        # Should it turn up later than this, it is an orphan with our tag.
        with contextlib.suppress(SchedulerError):
            await find_job(cluster, row, 0.0)


async def _cancel_for_sure(cluster: Cluster, row: Row) -> JobStatus:
    """Cancel until the job has ended; never raises. Looks often at first, then less and less."""
    pause_s = 1.0
    while (status := await _cancelled(cluster, row)) is None:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return status


async def _cancelled(cluster: Cluster, row: Row) -> JobStatus | None:
    """Cancel once and look for a while whether the job has ended; how it was seen to, or None."""
    seen = await _looked(cluster, row)
    if seen.state is JobState.ENDED and (seen.native_state or seen.reason == TAKEN):
        return seen
    asked_at, taken = now(), await _cancel(cluster, row, seen)
    while True:
        status = await cluster.queue.status(row.job, now())
        # Where its owner's jobs are hidden from the Hub, the scheduler's word that it took the cancel must do.
        if status.state is JobState.ENDED or (taken and status.reason == NOT_VISIBLE):
            return status
        # A cancel that was taken has an effect soon; one that failed is tried again instead.
        if not taken or now() - asked_at > _FIRST_LOOKS_S:
            return None
        await asyncio.sleep(0.2)


async def _listed(cluster: Cluster, row: Row, after: float | None = None) -> JobStatus:
    status = await cluster.queue.status(row.job, now() if after is None else after)
    if status.state is JobState.UNKNOWN and cluster.queue.error is None:
        # An absence takes two listings, and a Hub that has just started has only one.
        status = await cluster.queue.status(row.job, now())
    return status


async def _looked(cluster: Cluster, row: Row) -> JobStatus:
    """The job by a listing begun now, its owner's where the Hub may not see it; UNKNOWN where there is none."""
    status = await _listed(cluster, row)
    if status.reason != NOT_VISIBLE:
        return status
    with contextlib.suppress(SchedulerError):
        found = (await cluster.client.listing(row.owner)).jobs.get(row.job_id)
        if found is not None:
            return found if is_ours(found, row.job) else JobStatus(JobState.UNKNOWN, reason=NOT_OURS)
    return status


async def _cancel(cluster: Cluster, row: Row, seen: JobStatus) -> bool:
    """Cancel the job unless its number is another job's by what was `seen` just now; whether it was taken."""
    log = cluster.client.log
    if seen.reason in (NOT_OURS, TAKEN):
        log.warning("%s: job %s is not cancelled: %s", row.log_name, row.job_id, seen.reason)
        return False
    try:
        await cluster.client.cancel(row.owner, row.job_id)
    except Exception as error:
        log.warning("%s: job %s could not be cancelled yet: %s", row.log_name, row.job_id, error)
        return False
    return True


async def has_ended(cluster: Cluster, row: Row, after: float | None = None) -> bool:
    """Whether the job is over by proof, in which case its end is recorded now; no is the answer of a slow scheduler.

    By a listing begun after this monotonic time, or after now.
    """
    status = JobStatus(JobState.UNKNOWN)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_NOT_LONG_S):
            status = await _listed(cluster, row, after)
    if status.state is JobState.ENDED:
        await finish(cluster, row, status)
    return status.state is JobState.ENDED


async def finish(cluster: Cluster, row: Row, status: JobStatus) -> End:
    """Record the proven end of a job: why it ended, its token revoked, its row closed."""
    if row.end is not None:
        return row.end
    return await once(row.tasks, "finish", lambda: _finish(cluster, row, status), cluster.client.log)


async def _finish(cluster: Cluster, row: Row, status: JobStatus) -> End:
    log, record = cluster.client.log, None
    if row.wanted and row.job_id:
        await _await_report(row)
        # Else what the scheduler remembers by this number is of another job.
        if status.reason != TAKEN:
            record = await cluster.client.record(row.job_id)
        if not status.native_state:
            # Judged by its absence alone; should it be there after all, nobody waits for it.
            await _cancel(cluster, row, await _looked(cluster, row))
    end = explain_end(row, record, status, cluster.profile.job)
    await _revoke(row)
    # Before the parent is closed: from then on housekeeping takes up what follows it.
    unneeded = [] if end.cause in RENEWED_AFTER else list(ledger().following(row))
    for follower in unneeded:
        follower.mark_unwanted()
        await ledger().save(follower)
    row.end = end
    emit(Action.END, cluster, row)
    await ledger().save(row)
    log.info("%s: job %s has ended (%s): %s", row.log_name, row.job_id or "(none)", end.cause.value, end.message)
    for follower in unneeded:
        in_background(end_job(cluster, follower, None), log)
    row.notify()
    # What waits to take its place.
    ledger().wake.set(row.tag, *(other.tag for other in ledger().of(row.username, row.server)))
    return end


async def _await_report(row: Row) -> None:
    """The launcher tells best what happened; its report may be on its way."""
    deadline = now() + _LAST_WORDS_S
    while row.run and row.report is None and now() < deadline:
        row.changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - now())):
                await row.changed.wait()


async def _revoke(row: Row) -> None:
    pause_s = 1.0
    while not ledger().outside.revoke_token(row):
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
