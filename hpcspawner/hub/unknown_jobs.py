"""Jobs with our tag that the ledger does not know: taken up where it is proven whose they are, else kept and named.

A ledger may be lost, or a backup from before be in its place. So the Hub ends a job for being unknown only where it was
there all the time and would know it: never what runs already when the Hub starts.
"""

import logging
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jupyterhub import orm

from hpcspawner.errors import SchedulerError
from hpcspawner.jobs.ledger import Row, job_name, ledger, now
from hpcspawner.jobs.stop import end_job
from hpcspawner.jobs.tasks import in_background
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.state import JobState, JobStatus

# So few that an admin sees in time what goes on.
_AT_ONCE = 3
# Where more of our jobs than this are unknown, the ledger is more likely wrong than they are.
_MOST_UNKNOWN = 1 / 3
_WAITING = (JobState.PENDING, JobState.HELD)

Jobs = Mapping[str, JobStatus]


async def survey(db: Any, cluster: Cluster, after: float) -> Jobs | None:
    """Our jobs in a listing begun after this monotonic time, those that the ledger lacks taken up; None without one.

    `db` is JupyterHub's session: it knows the users and their servers.
    """
    jobs = await cluster.queue.ours(ledger().keys.is_ours, after)
    if jobs is None:
        return None
    # What runs comes first, so that a follow-up in the queue finds its parent.
    for job_id in sorted(_unknown(jobs), key=lambda job_id: jobs[job_id].state in _WAITING):
        _take_up(db, cluster, jobs, job_id)
    ledger().surveyed = True
    return jobs


def _unknown(jobs: Jobs) -> list[str]:
    return [id for id, job in jobs.items() if ledger().by_tag(job.tag) is None and not ledger().has_ended(job.tag)]


def _take_up(db: Any, cluster: Cluster, jobs: Jobs, job_id: str) -> None:
    """Make a row for a job whose server is proven and has no other job that lives."""
    job = jobs[job_id]
    servers = _servers_of(db, cluster, job)
    if len(servers) != 1:
        return
    ((username, server),) = servers
    others = [row for row in ledger().of(username, server) if row.wanted]
    alive = next((row for row in others if _is_there(row, jobs)), None)
    if alive is not None and job.state not in _WAITING:
        return
    for row in others:
        if not row.job_id and row is not alive:
            # It was about to be submitted when the backup was made, and came to nothing, or it would be listed.
            in_background(end_job(cluster, row, None), cluster.client.log)
    row = _row(db, username, server, job_id, job)
    if alive is not None:
        row.follows, row.label = alive.tag, JobLabel(row.label.name, row.tag, alive.job_id)
    ledger().restore(row)
    cluster.client.log.warning(
        "%s: job %s is not in the ledger, which was made on %s; the Hub takes it up again%s",
        *(row.log_name, job_id, ledger().age),
        f", after job {alive.job_id}" if alive is not None else "",
    )


def _row(db: Any, username: str, server: str, job_id: str, job: JobStatus) -> Row:
    """What can be known again. Not the run that may have traded the ticket already, nor the port of its server."""
    choices = _last_choices(db, username, server)
    label = JobLabel(job_name(server), job.tag)
    row = Row(username, server, job.owner, label, choices, asked_at=time.time(), waits_since=time.time())
    row.submitted(job_id)
    if job.state in _WAITING:
        # None has traded it yet.
        row.arm(ledger().keys.ticket(job.tag))
    else:
        # Else who has read the script could trade it once more.
        row.host, row.inherited = job.host or "", True
    return row


def _is_there(row: Row, jobs: Jobs) -> bool:
    return any(job.tag == row.tag and row.job_id in ("", job_id) for job_id, job in jobs.items())


def _servers_of(db: Any, cluster: Cluster, job: JobStatus) -> list[tuple[str, str]]:
    """The servers that JupyterHub knows and that this job's tag was made for: one, if all is well."""
    named = db.query(orm.User.name, orm.Spawner.name).outerjoin(orm.Spawner, orm.Spawner.user_id == orm.User.id)
    # An account mostly has its user's name; not where all jobs are one account's, or where names have aliases.
    own = [] if job.owner == cluster.client.own_account else _proven(named.filter(orm.User.name == job.owner), job)
    return own or _proven(named, job)


def _proven(named: Iterable[Any], job: JobStatus) -> list[tuple[str, str]]:
    # Everybody has a server without a name, noted or not.
    candidates = {(username, name or "") for username, server in named for name in (server, "")}
    return [found for found in sorted(candidates) if ledger().keys.is_of(job.tag, job.owner, *found)]


def _last_choices(db: Any, username: str, server: str) -> dict[str, Any]:
    """What the server's user chose last, as JupyterHub remembers it."""
    user = orm.User.find(db, username)
    known = user.orm_spawners.get(server) if user is not None else None
    return dict(known.user_options or {}) if known is not None else {}


@dataclass(slots=True)
class Reaper:
    """Cancels jobs of ours that are not wanted. `grace_s` is how long each is left alone first."""

    cluster: Cluster
    grace_s: float
    dry_run: bool
    log: logging.Logger
    _since: dict[str, float] = field(default_factory=dict)
    _tries: dict[str, int] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)
    # Unknown when this process looked first.
    _spared: set[str] | None = None

    def look(self, jobs: Jobs) -> None:
        """Cancel some of these jobs of ours, in the background, and name those that are unknown and kept."""
        unwanted = [job_id for job_id, job in jobs.items() if _is_unwanted(job_id, job.tag, jobs)]
        unknown = [job_id for job_id, job in jobs.items() if job_id not in unwanted and _is_unknown(job_id, job.tag)]
        if self._spared is None:
            self._spared = set(unknown)
        self._since = {job_id: self._since.get(job_id, now()) for job_id in (*unwanted, *unknown)}
        self._tries = {job_id: self._tries.get(job_id, 0) for job_id in self._since}
        if len(unknown) <= _MOST_UNKNOWN * len(jobs):
            unwanted += [job_id for job_id in unknown if job_id not in self._spared]
        self._tell([job_id for job_id in unknown if job_id not in unwanted], jobs)
        due = [job_id for job_id in unwanted if now() - self._since[job_id] >= self.grace_s]
        for job_id in sorted(due, key=lambda job_id: self._tries[job_id])[:_AT_ONCE]:
            self._tries[job_id] += 1
            in_background(self._cancel(job_id, jobs[job_id].owner), self.log)

    def _tell(self, kept: list[str], jobs: Jobs) -> None:
        for job_id in kept:
            if job_id not in self._told:
                self.log.warning(
                    "hpcspawner: job %s of %s has a tag of this Hub, but the ledger, made on %s, has no record of "
                    "it, and the Hub can't prove that one of its servers needs it. The Hub leaves it alone. To "
                    "cancel it: %s",
                    *(job_id, jobs[job_id].owner, ledger().age),
                    shlex.join(self.cluster.client.scheduler.cancel_command(job_id)),
                )
        self._told = self._told & set(jobs) | set(kept)

    async def _cancel(self, job_id: str, owner: str) -> None:
        if self.dry_run:
            self.log.warning("hpcspawner: job %s of %s would be cancelled: no server needs it", job_id, owner)
            return
        self.log.warning("hpcspawner: job %s of %s is cancelled: no server needs it", job_id, owner)
        try:
            await self.cluster.client.cancel(owner, job_id)
        except SchedulerError as error:
            self.log.warning("hpcspawner: job %s could not be cancelled yet: %s", job_id, error)


def _is_unwanted(job_id: str, tag: str, jobs: Jobs) -> bool:
    """Whether the ledger itself says so: its row has ended, or has another job, which is listed too."""
    row = ledger().by_tag(tag)
    if row is None:
        return ledger().has_ended(tag)
    return bool(row.job_id) and row.job_id != job_id and row.job_id in jobs


def _is_unknown(job_id: str, tag: str) -> bool:
    row = ledger().by_tag(tag)
    return row is None or row.job_id not in ("", job_id)
