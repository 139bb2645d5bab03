"""Jobs with our tag that the ledger does not know: taken up where it is proven whose they are, else kept and named.

A ledger may be lost, or a backup from before be in its place. So the Hub ends a job for being unknown only where it was
there all the time and would know it: never what runs already when the Hub starts.
"""

import logging
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jupyterhub import orm

from hpcspawner.errors import SchedulerError
from hpcspawner.jobs.job import Job, digest, now
from hpcspawner.jobs.ledger import Ledger, ServerName, job_name
from hpcspawner.jobs.record import JobRecord
from hpcspawner.jobs.stop import end_job
from hpcspawner.jobs.tasks import Slices, in_background
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.state import JobState, JobStatus

# So few that an admin sees in time what goes on.
_AT_ONCE = 3
# Where more of our jobs than this are unknown, the ledger is more likely wrong than they are.
_MOST_UNKNOWN = 1 / 3
_WAITING = (JobState.PENDING, JobState.HELD)

Jobs = Mapping[str, JobStatus]


async def survey(db: Any, ledger: Ledger, cluster: Cluster, after: float) -> Jobs | None:
    """Our jobs in a listing begun after this monotonic time, those that the ledger lacks taken up; None without one.

    `db` is JupyterHub's session: it knows the users and their servers.
    """
    jobs = await cluster.queue.ours(partial(_is_ours, ledger), after)
    if jobs is None:
        return None
    await _Survey(db, ledger, cluster, jobs).take_up_unknown()
    ledger.surveyed.add(cluster.name)
    return jobs


def _is_ours(ledger: Ledger, owner: str, tag: str) -> bool:
    """Whether this Hub made the tag for the owner: a look in the ledger costs less than the proof."""
    job = ledger.by_tag(tag)
    return (job is not None and job.record.owner == owner) or ledger.keys.is_ours(owner, tag)


@dataclass(frozen=True, slots=True)
class _Survey:
    """One look at a cluster's listing: `jobs` are those in it that carry a mark of this Hub."""

    db: Any
    ledger: Ledger
    cluster: Cluster
    jobs: Jobs

    async def take_up_unknown(self) -> None:
        known, slices = self.ledger, Slices()
        await slices.pause()
        unknown = [id for id, one in self.jobs.items() if not known.by_tag(one.tag) and not known.has_ended(one.tag)]
        # What runs comes first, so that a follow-up in the queue finds its parent.
        for job_id in sorted(unknown, key=lambda job_id: self.jobs[job_id].state in _WAITING):
            self._take_up(job_id)
            await slices.pause()

    def _take_up(self, job_id: str) -> None:
        """Make a record for a job whose server is proven and has no other job that lives."""
        listed = self.jobs[job_id]
        servers = self._servers_of(listed)
        if len(servers) != 1:
            return
        (server,) = servers
        others = [job for job in self.ledger.of(*server) if job.record.wanted]
        alive = next((job for job in others if self._is_there(job)), None)
        if alive is not None and listed.state not in _WAITING:
            return
        for other in others:
            if not other.record.job_id and other is not alive:
                # It was about to be submitted when the backup was made, and came to nothing, or it would be listed.
                in_background(end_job(other, None), self.cluster.client.log)
        job = self._job(server, job_id, alive)
        self.ledger.restore(job)
        self.cluster.client.log.warning(
            "%s: job %s is not in the ledger, which was made on %s; the Hub takes it up again%s",
            *(job.log_name, job_id, self.ledger.age),
            f", after job {alive.record.job_id}" if alive is not None else "",
        )

    def _job(self, server: ServerName, job_id: str, parent: Job | None) -> Job:
        """What can be known again. Not the run that may have traded the ticket already, nor the port of its server."""
        listed, moment, waits = self.jobs[job_id], time.time(), self.jobs[job_id].state in _WAITING
        record = JobRecord(
            listed.tag,
            self.cluster.name,
            *server,
            listed.owner,
            job_name(server[1]),
            follows=parent.tag if parent is not None else "",
            choices=self._last_choices(server),
            job_id=job_id,
            asked_at=moment,
            submitted_at=moment,
            # Else who has read the script could trade it once more.
            ticket_hash=digest(self.ledger.keys.ticket(listed.tag)) if waits else "",
            host="" if waits else listed.host or "",
        )
        parent_id = parent.record.job_id if parent is not None else ""
        return Job(record, self.cluster, self.ledger, inherited=not waits, listed_after=now(), parent_id=parent_id)

    def _is_there(self, job: Job) -> bool:
        return (
            any(one.tag == job.tag and job.record.job_id in ("", job_id) for job_id, one in self.jobs.items())
            or job.cluster is not self.cluster
        )

    def _servers_of(self, listed: JobStatus) -> list[ServerName]:
        """The servers that JupyterHub knows and that this job's tag was made for: one, if all is well."""
        named = self.db.query(orm.User.name, orm.Spawner.name).outerjoin(
            orm.Spawner, orm.Spawner.user_id == orm.User.id
        )
        # An account mostly has its user's name; not where all jobs are one account's, or where names have aliases.
        own: list[ServerName] = []
        if listed.owner != self.cluster.client.own_account:
            own = self._proven(named.filter(orm.User.name == listed.owner), listed)
        return own or self._proven(named, listed)

    def _proven(self, named: Iterable[Any], listed: JobStatus) -> list[ServerName]:
        # Everybody has a server without a name, noted or not.
        candidates = {(username, name or "") for username, server in named for name in (server, "")}
        return [found for found in sorted(candidates) if self.ledger.keys.is_of(listed.tag, listed.owner, *found)]

    def _last_choices(self, server: ServerName) -> dict[str, Any]:
        """What the server's user chose last, as JupyterHub remembers it."""
        user = orm.User.find(self.db, server[0])
        known = user.orm_spawners.get(server[1]) if user is not None else None
        return dict(known.user_options or {}) if known is not None else {}


@dataclass(slots=True)
class Reaper:
    """Cancels jobs of ours that are not wanted. `grace_s` is how long each is left alone first."""

    ledger: Ledger
    cluster: Cluster
    grace_s: float
    dry_run: bool
    log: logging.Logger
    _since: dict[str, float] = field(default_factory=dict)
    _tries: dict[str, int] = field(default_factory=dict)
    _logged: set[str] = field(default_factory=set)
    # Unknown when this process looked first.
    _spared: set[str] | None = None

    async def look(self, jobs: Jobs) -> None:
        """Cancel some of these jobs of ours, in the background, and name those that are unknown and kept."""
        unwanted, unknown, slices = [], [], Slices()
        for job_id, one in jobs.items():
            if self._is_unwanted(job_id, one.tag, jobs):
                unwanted.append(job_id)
            elif self._is_unknown(job_id, one.tag):
                unknown.append(job_id)
            await slices.pause()
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
            if job_id not in self._logged:
                self.log.warning(
                    "hpcspawner: job %s of %s has a tag of this Hub, but the ledger, made on %s, has no record of "
                    "it, and the Hub can't prove that one of its servers needs it. The Hub leaves it alone. To "
                    "cancel it: %s",
                    *(job_id, jobs[job_id].owner, self.ledger.age),
                    shlex.join(self.cluster.client.scheduler.cancel_command(job_id)),
                )
        self._logged = self._logged & set(jobs) | set(kept)

    async def _cancel(self, job_id: str, owner: str) -> None:
        if self.dry_run:
            self.log.warning("hpcspawner: job %s of %s would be cancelled: no server needs it", job_id, owner)
            return
        self.log.warning("hpcspawner: job %s of %s is cancelled: no server needs it", job_id, owner)
        try:
            await self.cluster.client.cancel(owner, job_id)
        except SchedulerError as error:
            self.log.warning("hpcspawner: job %s could not be cancelled yet: %s", job_id, error)

    def _is_unwanted(self, job_id: str, tag: str, jobs: Jobs) -> bool:
        """Whether the ledger itself says so: its job has ended, or has another number, which is listed too."""
        job = self.ledger.by_tag(tag)
        if job is None:
            return self.ledger.has_ended(tag)
        known = job.record.job_id
        return bool(known) and known != job_id and known in jobs

    def _is_unknown(self, job_id: str, tag: str) -> bool:
        job = self.ledger.by_tag(tag)
        return job is None or job.record.job_id not in ("", job_id)
