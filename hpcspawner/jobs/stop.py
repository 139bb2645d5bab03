"""The end of a job: asked for, confirmed, explained, recorded."""

import asyncio
import contextlib

from hpcspawner.errors import SchedulerError
from hpcspawner.jobs.causes import RENEWED_AFTER, explain_end
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.record import End
from hpcspawner.jobs.submit import find_job
from hpcspawner.jobs.tasks import in_background, once
from hpcspawner.schedulers.queue import NOT_OURS, NOT_VISIBLE, TAKEN, is_ours
from hpcspawner.schedulers.state import JobState, JobStatus

_LAST_WORDS_S = 3.0
_FIRST_LOOKS_S = 10.0
# A job that runs on costs its owner; a cancel costs the scheduler little.
_LONGEST_PAUSE_S = 15.0
_SUBMIT_LOOK_S = 0.5
_NOT_LONG_S = 5.0
_NEVER_A_JOB = JobStatus(JobState.ENDED, native_state="NOT SUBMITTED")


async def end_job(job: Job, limit_s: float | None) -> None:
    """End a job; never raises. Returns when the scheduler confirms, or after `limit_s` seconds and goes on behind.

    Without a limit it returns only when the job has ended.
    """
    if job.end is not None:
        return
    job.mark_unwanted()
    try:
        async with asyncio.timeout(limit_s):
            await once(job.tasks, "end", lambda: _end(job), job.cluster.client.log)
    except TimeoutError:
        pass
    except Exception:
        # Housekeeping tries again; the user who stops a server should not meet this.
        job.cluster.client.log.exception("%s: job %s could not be ended yet", job.log_name, job.record.job_id)


async def _end(job: Job) -> None:
    # Not awaited: a database that is away must not keep the job alive.
    in_background(job.ledger.save(job), job.cluster.client.log)
    in_background(_revoke(job), job.cluster.client.log)
    # The follow-up first: it would start when its parent is cancelled.
    for follower in job.ledger.following(job):
        await end_job(follower, None)
    await _settle_submit(job)
    status = await _cancel_for_sure(job) if job.record.job_id else _NEVER_A_JOB
    await finish(job, status)


async def _settle_submit(job: Job) -> None:
    """Know whether there is a job: a submit may be on its way, in this process or in one that is gone."""
    submit = job.tasks.get("submit")
    while submit is not None and not submit.done() and not job.record.job_id:
        await asyncio.wait([submit], timeout=_SUBMIT_LOOK_S)
    if job.record.asked_at and not job.record.job_id and job.end is None:
        # Should it turn up later than this, it is an orphan with our tag.
        with contextlib.suppress(SchedulerError):
            await find_job(job, 0.0)


async def _cancel_for_sure(job: Job) -> JobStatus:
    """Cancel until the job has ended; never raises. Looks often at first, then less and less."""
    pause_s = 1.0
    while (status := await _cancelled(job)) is None:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    return status


async def _cancelled(job: Job) -> JobStatus | None:
    """Cancel once and look for a while whether the job has ended; how it was seen to, or None."""
    seen = await _looked(job)
    if seen.state is JobState.ENDED and (seen.native_state or seen.reason == TAKEN):
        return seen
    asked_at, taken = now(), await _cancel(job, seen)
    while True:
        status = await job.cluster.queue.status(job.listed, now())
        # Where its owner's jobs are hidden from the Hub, the scheduler's word that it took the cancel must do.
        if status.state is JobState.ENDED or (taken and status.reason == NOT_VISIBLE):
            return status
        # A cancel that was taken has an effect soon; one that failed is tried again instead.
        if not taken or now() - asked_at > _FIRST_LOOKS_S:
            return None
        await asyncio.sleep(0.2)


async def _listed(job: Job, after: float | None = None) -> JobStatus:
    status = await job.cluster.queue.status(job.listed, now() if after is None else after)
    if status.state is JobState.UNKNOWN and job.cluster.queue.error is None:
        # An absence takes two listings, and a Hub that has just started has only one.
        status = await job.cluster.queue.status(job.listed, now())
    return status


async def _looked(job: Job) -> JobStatus:
    """The job by a listing begun now, its owner's where the Hub may not see it; UNKNOWN where there is none."""
    status = await _listed(job)
    if status.reason != NOT_VISIBLE:
        return status
    with contextlib.suppress(SchedulerError):
        found = (await job.cluster.client.listing(job.record.owner)).jobs.get(job.record.job_id)
        if found is not None:
            return found if is_ours(found, job.listed) else JobStatus(JobState.UNKNOWN, reason=NOT_OURS)
    return status


async def _cancel(job: Job, seen: JobStatus) -> bool:
    """Cancel the job unless its number is another job's by what was `seen` just now; whether it was taken."""
    log = job.cluster.client.log
    if seen.reason in (NOT_OURS, TAKEN):
        log.warning("%s: job %s is not cancelled: %s", job.log_name, job.record.job_id, seen.reason)
        return False
    try:
        await job.cluster.client.cancel(job.record.owner, job.record.job_id)
    except Exception as error:
        log.warning("%s: job %s could not be cancelled yet: %s", job.log_name, job.record.job_id, error)
        return False
    return True


async def has_ended(job: Job, after: float | None = None) -> bool:
    """Whether the job is over by proof, in which case its end is recorded now; no is the answer of a slow scheduler.

    By a listing begun after this monotonic time, or after now.
    """
    status = JobStatus(JobState.UNKNOWN)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_NOT_LONG_S):
            status = await _listed(job, after)
    if status.state is JobState.ENDED:
        await finish(job, status)
    return status.state is JobState.ENDED


async def finish(job: Job, status: JobStatus) -> End:
    """Record the proven end of a job: why it ended, its token revoked, its record closed."""
    if job.end is not None:
        return job.end
    return await once(job.tasks, "finish", lambda: _finish(job, status), job.cluster.client.log)


async def _finish(job: Job, status: JobStatus) -> End:
    log, record = job.cluster.client.log, None
    if job.record.wanted and job.record.job_id:
        await _await_report(job)
        # Else what the scheduler remembers by this number is of another job.
        if status.reason != TAKEN:
            record = await job.cluster.client.record(job.record.job_id)
        if not status.native_state:
            # Judged by its absence alone. If it does exist, nothing waits for it.
            await _cancel(job, await _looked(job))
    end = explain_end(job, record, status, job.cluster.profile.job)
    await _revoke(job)
    # Before the parent is closed: from then on housekeeping takes up what follows it.
    unneeded = [] if end.cause in RENEWED_AFTER else list(job.ledger.following(job))
    for follower in unneeded:
        follower.mark_unwanted()
        await job.ledger.save(follower)
    job.ended(end)
    await job.ledger.save(job)
    for follower in unneeded:
        in_background(end_job(follower, None), log)
    job.notify()
    # What waits to take its place.
    siblings = job.ledger.of(job.record.username, job.record.server)
    job.ledger.wake.set(job.tag, *(other.tag for other in siblings))
    return end


async def _await_report(job: Job) -> None:
    """The launcher tells best what happened; its report may be on its way."""
    deadline = now() + _LAST_WORDS_S
    while job.record.run and job.report is None and now() < deadline:
        job.changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - now())):
                await job.changed.wait()


async def _revoke(job: Job) -> None:
    pause_s = 1.0
    while not job.ledger.outside.revoke_token(job):
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
