"""The last jobs of a user, as the form and the page of a failure list them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpcspawner.errors import RequestError
from hpcspawner.jobs.job import Job
from hpcspawner.language import _
from hpcspawner.request.cost import amount, most
from hpcspawner.request.gate import judge
from hpcspawner.request.offer import offer
from hpcspawner.request.presets import ANYONE
from hpcspawner.site.profile import SiteProfile
from hpcspawner.units import Walltime


@dataclass(frozen=True, slots=True)
class PastJob:
    """One job that has ended. `ran` is how long its last run took, "" where it never ran; `cost` is "" if unknown."""

    job_id: str
    server: str
    cluster: str
    partition: str
    ended: str
    ran: str
    end: str
    cost: str


def past_jobs(jobs: Sequence[Job]) -> list[PastJob]:
    """As the pages list them, in the same order; jobs that have not ended are left out."""
    return [_past(job) for job in jobs if job.end is not None]


def _past(job: Job) -> PastJob:
    record, end, profile = job.record, job.end, job.cluster.profile
    at = end.at if end else 0.0
    ran_s = int(at - record.started_at) if record.started_at else 0
    return PastJob(
        job_id=record.job_id,
        server=record.server,
        cluster=profile.title,
        partition=str(record.choices.get("partition", "")),
        ended=end.when if end else "",
        ran=str(Walltime(ran_s)) if ran_s > 0 else "",
        end=(end.message if end else "") or _("Its user stopped it."),
        cost=_cost(profile, record.choices, ran_s),
    )


def _cost(profile: SiteProfile, choices: Mapping[str, Any], ran_s: int) -> str:
    """What a run of so many seconds cost by today's rates; "" where the site names none or no longer offers it."""
    if ran_s <= 0:
        return ""
    try:
        wanted = judge({name: value for name, value in choices.items() if name != "cluster"}, offer(profile), ANYONE)
    except RequestError:
        return ""
    number = most(profile, replace(wanted.resources, walltime=Walltime(ran_s)))
    return "" if number is None else amount(profile, number)
