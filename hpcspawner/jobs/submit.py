"""From a row of the ledger to exactly one job, whatever happens in between."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from hpcspawner.errors import SchedulerError, SchedulerUnreachable
from hpcspawner.jobs.events import Action
from hpcspawner.jobs.ledger import End, Row, emit, ledger, now
from hpcspawner.jobs.tasks import once
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.cluster import Cluster
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


async def obtain(cluster: Cluster, row: Row, write: Write, say: Say) -> None:
    """See to it that the row has one job. `write` makes the job whose script carries the ticket it is given.

    Raises a SchedulerError where the scheduler refuses, LedgerUnavailable where the intent can't be committed. A
    caller that is cancelled leaves it to be finished in the background.
    """
    await once(row.tasks, "submit", lambda: _obtain(cluster, row, write, say), cluster.client.log)


async def _obtain(cluster: Cluster, row: Row, write: Write, say: Say) -> None:
    if row.asked_at and not row.job_id:
        # The Hub ended in the middle of a submit. It goes on without the Hub, so its outcome may be late.
        await say("Checking whether the scheduler already has the job")
        await find_job(cluster, row, row.asked_at + cluster.client.access.command_timeout_s + _STRAGGLER_S)
    while row.wanted and not row.job_id:
        await _ask(cluster, row, write, say)


async def _ask(cluster: Cluster, row: Row, write: Write, say: Say) -> None:
    """Submit once. Without an answer: wait for the scheduler, and look whether there is a job after all."""
    row.asked_at = time.time()
    # Should the last submit turn out to have made a job after all, its ticket is worth nothing.
    again = repr(row.asked_at) if row.ticket_hash else ""
    ticket = row.arm(ledger().keys.ticket(row.tag, again))
    await ledger().open(row)
    try:
        job_id = await cluster.client.submit(row.owner, write(ticket))
    except SchedulerUnreachable as error:
        if error.lingering:
            # It may still act, at any time; nobody could tell its job from a second one's.
            row.mark_unwanted()
            row.hub_verdict = End(Cause.NOT_STARTED, str(error), time.time())
            raise
        await say("The scheduler is not answering at the moment. The Hub will submit the job as soon as it does.")
        await find_job(cluster, row, 0.0)
    except SchedulerError as error:
        row.end = End(Cause.NOT_STARTED, str(error), time.time())
        emit(Action.END, cluster, row)
        await ledger().save(row)
        raise
    else:
        await _note(cluster, row, job_id)


async def _note(cluster: Cluster, row: Row, job_id: str) -> None:
    row.submitted(job_id)
    emit(Action.SUBMIT, cluster, row)
    await ledger().save(row)


async def _search_as_owner(cluster: Cluster, row: Row) -> Found:
    """Whatever is hidden from the Hub's account, an owner sees the jobs that are theirs."""
    try:
        listing = await cluster.client.listing(row.owner)
    except SchedulerError:
        return Found((), proven=False)
    wanted = (row.owner, row.tag)
    ids = tuple(job_id for job_id, job in listing.jobs.items() if (job.owner, job.tag) == wanted)
    return Found(ids, proven=True)


async def find_job(cluster: Cluster, row: Row, sure_after: float) -> None:
    """Find the job by its tag, or prove that there is none; takes as long as the scheduler is away.

    Absence counts from `sure_after` on (seconds since 1970). Raises SchedulerUnreachable where it can't be proven.
    """
    proofs, hidden_since = 0, None
    while proofs < _PROOFS:
        found = await cluster.queue.search(row.owner, row.tag, now())
        if not found.proven and cluster.queue.error is None:
            found = await _search_as_owner(cluster, row)
        if found.job_ids:
            await _note(cluster, row, found.job_ids[-1])
            return
        if found.proven:
            proofs += time.time() >= sure_after
        elif cluster.queue.error is None:
            hidden_since = hidden_since or now()
            if now() - hidden_since > _HIDDEN_S:
                error = SchedulerUnreachable(
                    "The scheduler did not confirm the submission, and the Hub is not "
                    "allowed to see whether the job exists."
                )
                row.hub_verdict = End(Cause.NOT_STARTED, str(error), time.time())
                raise error
        if proofs < _PROOFS:
            await asyncio.sleep(_PAUSE_S)
