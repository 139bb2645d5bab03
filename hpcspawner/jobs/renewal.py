"""Renewal at the user's wish: a job that was to end with its wall time gets one that follows."""

from dataclasses import dataclass

from hpcspawner.jobs.job import Job


@dataclass(frozen=True, slots=True)
class Renewals:
    """How often a server starts again by itself (`left`), and how often its user may still ask for that (`more`)."""

    left: int
    more: int


def renewals(job: Job) -> Renewals:
    """What the job's cluster still offers its user."""
    left = job.record.renewals
    # Of those that were asked for, these have taken place.
    used = max(0, _asked(job) - left)
    if job.cluster.retired:
        return Renewals(left, 0)
    return Renewals(left, max(0, job.cluster.profile.limits.renewals - used - left))


async def renew(job: Job) -> str:
    """Have one more job follow; why not, in words for the user, or "" if it will."""
    found = renewals(job)
    if not job.record.wanted or job.end is not None:
        return "This server was stopped."
    if found.left:
        return ""
    if not found.more:
        return "This site lets the server start again no more often."
    # As if it had been chosen in the form: what was chosen less what is left is what has taken place.
    job.change(choices={**job.record.choices, "renewals": _asked(job) + 1}, renewals=1)
    await job.ledger.save(job)
    job.ledger.wake.set(job.tag)
    return ""


def _asked(job: Job) -> int:
    asked = job.record.choices.get("renewals", job.cluster.profile.defaults.renewals)
    return int(asked) if isinstance(asked, int | str) and str(asked).isdecimal() else 0
