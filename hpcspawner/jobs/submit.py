"""From the intent in the ledger to exactly one job of the scheduler, whatever happens in between."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from hpcspawner.errors import SchedulerError, SchedulerUnreachable
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.record import End
from hpcspawner.jobs.tasks import once
from hpcspawner.language import _
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.queue import Found
from hpcspawner.schedulers.state import Cause

# A listing or two more cost nothing; a second job would.
_PROOFS = 2
_PAUSE_S = 2.0
# A submit that an earlier process began may still be under way when this one looks.
_STRAGGLER_S = 5.0
# Where the Hub may not see a user's jobs, looking longer shows no more.
_HIDDEN_S = 60.0

Say = Callable[[str], Awaitable[None]]
Write = Callable[[str], Submission]


async def obtain(job: Job, write: Write, say: Say) -> None:
    """Submit the job, or find that the scheduler has it already.

    `write` makes the job whose script carries the ticket that it is given. Raises a SchedulerError where the scheduler
    refuses, LedgerUnavailable where the intent can't be committed. A caller that is cancelled leaves it to be finished
    in the background.
    """
    await once(job.tasks, "submit", lambda: _obtain(job, write, say), job.cluster.client.log)


async def _obtain(job: Job, write: Write, say: Say) -> None:
    if job.record.asked_at and not job.record.job_id:
        # The Hub ended in the middle of a submit. It goes on without the Hub, so its outcome may be late.
        await say(_("Checking whether the scheduler already has the job"))
        await find_job(job, job.record.asked_at + job.cluster.client.access.command_timeout_s + _STRAGGLER_S)
    while job.record.wanted and not job.record.job_id:
        await _ask(job, write, say)


async def _ask(job: Job, write: Write, say: Say) -> None:
    """Submit once. Without an answer: wait for the scheduler, and look whether there is a job after all."""
    job.change(asked_at=time.time())
    # Should the last submit turn out to have made a job after all, its ticket is worth nothing.
    again = repr(job.record.asked_at) if job.record.ticket_hash else ""
    ticket = job.arm(job.ledger.keys.ticket(job.tag, again))
    await job.ledger.open(job)
    try:
        job_id = await job.cluster.client.submit(job.record.owner, write(ticket))
    except SchedulerUnreachable as error:
        if error.lingering:
            # The first submit may still create its job, which would look like the second's.
            job.mark_unwanted()
            job.hub_verdict = End(Cause.NOT_STARTED, error.sentence, time.time())
            raise
        away = _("The scheduler is not answering at the moment. The Hub will submit the job as soon as it does.")
        await say(away)
        await find_job(job, error.settled_at)
    except SchedulerError as error:
        job.ended(End(Cause.NOT_STARTED, error.sentence, time.time()))
        await job.ledger.save(job)
        raise
    else:
        await _note(job, job_id)


async def _note(job: Job, job_id: str) -> None:
    job.submitted(job_id)
    await job.ledger.save(job)


async def _search_as_owner(job: Job) -> Found:
    """Whatever is hidden from the Hub's account, an owner sees the jobs that are theirs."""
    try:
        listing = await job.cluster.client.listing(job.record.owner)
    except SchedulerError:
        return Found((), proven=False)
    wanted = (job.record.owner, job.tag)
    ids = tuple(job_id for job_id, one in listing.jobs.items() if (one.owner, one.tag) == wanted)
    return Found(ids, proven=True)


async def find_job(job: Job, sure_after: float) -> None:
    """Find the job by its tag, or prove that there is none; takes as long as the scheduler is away.

    Absence counts from `sure_after` on (seconds since 1970). Raises SchedulerUnreachable where it can't be proven.
    """
    proofs, hidden_since = 0, None
    while proofs < _PROOFS:
        found = await job.cluster.queue.search(job.record.owner, job.tag, now())
        if not found.proven and job.cluster.queue.error is None:
            found = await _search_as_owner(job)
        if found.job_ids:
            await _note(job, found.job_ids[-1])
            return
        if found.proven:
            proofs += time.time() >= sure_after
        elif job.cluster.queue.error is None:
            hidden_since = hidden_since or now()
            if now() - hidden_since > _HIDDEN_S:
                error = SchedulerUnreachable(
                    _(
                        "The scheduler did not confirm the submission, and the Hub is not allowed to see whether the "
                        "job exists."
                    )
                )
                job.hub_verdict = End(Cause.NOT_STARTED, error.sentence, time.time())
                raise error
        if proofs < _PROOFS:
            await asyncio.sleep(_PAUSE_S)
