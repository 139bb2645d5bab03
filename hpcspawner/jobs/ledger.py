"""Every job that this Hub has asked for, from the intent to the end: in memory to read, in a database to keep.

A record is committed before its job is submitted and again right after, so whatever happens to the Hub in between,
the next one knows what to look for.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from hpcspawner.errors import LedgerUnavailable, ProfileError, more
from hpcspawner.jobs.events import Event, Outside
from hpcspawner.jobs.job import Job, digest, now
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.record import End, JobRecord
from hpcspawner.jobs.saved import SavedPresets
from hpcspawner.jobs.table import Store
from hpcspawner.jobs.tasks import Wake, in_background
from hpcspawner.schedulers.cluster import Cluster, Clusters

_KEEP_ENDED_S = 30 * 24 * 3600
_LONGEST_PAUSE_S = 30.0
# Of each user; the pages list them.
_PAST = 10


ServerName = tuple[str, str]
"""A server of the Hub: the name of its user and its own, "" for the default one."""


class Ledger:
    """The jobs that live, and the last end of each server. Reading is memory; what is awaited is committed."""

    def __init__(self, store: Store, keys: Keys, log: logging.Logger, clusters: Clusters, outside: Outside):
        self.keys, self.clusters, self.outside = keys, clusters, outside
        self.wake = Wake()
        """Set when something has happened that housekeeping should look at before its time."""
        self.surveyed: set[str] = set()
        """Clusters in whose listing this process has looked for jobs of ours that the ledger lacks."""
        self._store, self._log = store, log
        self._live: dict[str, Job] = {}
        self._ended: dict[str, float] = {}
        self._by_hash: dict[str, Job] = {}
        self._hashes: dict[str, tuple[str, str]] = {}
        self._ends: dict[ServerName, Job] = {}
        self._past: dict[str, list[Job]] = {}
        self._of_server: dict[ServerName, dict[str, Job]] = {}
        self._warn_of_other_hubs()
        try:
            self.saved = SavedPresets(store, log)
            self._load()
        except (ValueError, TypeError) as error:
            raise store.unusable(error) from error
        self._warn_of_another_secret()

    def _load(self) -> None:
        records = [JobRecord.from_columns(row) for row in self._store.load(time.time() - _KEEP_ENDED_S)]
        # Before there were several, every job was the one cluster's.
        records = [one if one.cluster else replace(one, cluster=self.clusters.default.name) for one in records]
        self._keep_clusters(records)
        for record in records:
            cluster = self.clusters.get(record.cluster)
            if cluster is not None:
                self._index(self._known(record, cluster))
            elif record.ended_at is not None:
                self._index(self._known(record, self.clusters.default))

    def _known(self, record: JobRecord, cluster: Cluster) -> Job:
        """A job from before this process: only listings that this process has asked for can prove its absence."""
        return Job(record, cluster, self, inherited=True, listed_after=now())

    def _keep_clusters(self, records: list[JobRecord]) -> None:
        """Remember today's profiles, and use the kept one of a cluster that is not configured while its jobs live."""
        kept = self._store.profiles()
        self._store.keep_profiles({one.name: one.source for one in self.clusters.offered})
        for name in sorted({one.cluster for one in records if one.ended_at is None}):
            if self.clusters.get(name) is not None:
                continue
            ids = ", ".join(one.job_id or f"one of {one.owner}" for one in records if one.cluster == name)
            try:
                self.clusters.retire(name, kept.get(name, ""))
            except ProfileError as error:
                self._log.error(
                    "hpcspawner: cluster %s is not configured and its kept profile can't be used (%s); the Hub leaves "
                    "these jobs alone: %s",
                    *(name, error, ids),
                )
            else:
                self._log.warning(
                    "hpcspawner: cluster %s is not configured now. No new server starts there; these jobs go on until "
                    "they end: %s",
                    *(name, ids),
                )

    def _warn_of_other_hubs(self) -> None:
        if others := self._store.other_hubs_jobs():
            self._log.warning(
                "hpcspawner: the ledger has %s unfinished jobs of a Hub with another callback_url; this Hub leaves "
                "them alone. If the address of this Hub has changed, cancel them or set the old address again.",
                others,
            )

    def _warn_of_another_secret(self) -> None:
        records = [job.record for job in self.live()]
        if lost := [one for one in records if not self.keys.is_ours(one.owner, one.tag)]:
            self._log.warning(
                "hpcspawner: %s unfinished jobs have tags from another secret, so the Hub does not recognise their "
                "servers. Put the "
                "old secret file back (HPCSpawner.secret_file), or cancel these jobs: %s%s",
                len(lost),
                ", ".join(one.job_id or f"one of {one.owner}" for one in lost),
                more("hub-secret"),
            )

    def new_job(self, server: ServerName, owner: str, cluster: Cluster, follows: Job | None = None) -> Job:
        """A job that is about to be asked for; not kept before `open`."""
        username, name = server
        tag = self.keys.new_tag(owner, username, name)
        while self.by_tag(tag) or self.has_ended(tag):
            tag = self.keys.new_tag(owner, username, name)
        record = JobRecord(
            tag,
            cluster.name,
            username,
            name,
            owner,
            job_name(name),
            follows=follows.tag if follows else "",
            submitted_at=time.time(),
        )
        return Job(record, cluster, self, parent_id=follows.record.job_id if follows else "")

    def emit(self, event: Event) -> None:
        """Hand an event to all who want to know."""
        for listener in self.outside.listeners:
            listener(event)

    async def open(self, job: Job) -> None:
        """Keep a job from before its submit; LedgerUnavailable if that is not certain."""
        try:
            await self._store.write(job.record.columns())
        except SQLAlchemyError as error:
            self._log.error("%s: no job was submitted, because the ledger can't be written: %s", job.log_name, error)
            raise LedgerUnavailable from error
        self._index(job)

    async def save(self, job: Job) -> None:
        """Commit what has changed, however long the database may be away."""
        self._index(job)
        pause_s = 1.0
        while True:
            try:
                return await self._store.write(job.record.columns())
            except SQLAlchemyError as error:
                self._log.error("%s: the ledger can't be written, trying again: %s", job.log_name, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def prune(self) -> None:
        """Drop what ended long ago."""
        before = time.time() - _KEEP_ENDED_S
        self._ends = {key: job for key, job in self._ends.items() if job.end and job.end.at >= before}
        young = {user: [job for job in jobs if job.end and job.end.at >= before] for user, jobs in self._past.items()}
        self._past = {user: jobs for user, jobs in young.items() if jobs}
        self._ended = {tag: at for tag, at in self._ended.items() if at >= before}
        await self._store.prune(before)

    def restore(self, job: Job) -> None:
        """Know a job again whose record was lost; it is committed behind."""
        self._index(job)
        in_background(self.save(job), self._log)
        self.wake.set(job.tag)

    async def put_back(self, job: Job) -> None:
        """Note that the scheduler has put a job back into its queue; its next run has the job's ticket to trade."""
        job.back_in_queue(time.time())
        if not job.record.ticket_hash:
            job.arm(self.keys.ticket(job.tag))
        await self.save(job)

    def recall(self, username: str, server: str, copy: dict[str, Any]) -> Job | None:
        """The living job of this server with the copy's tag, or None; from the copy where that knows of a later run."""
        tag = str(copy.get("tag", ""))
        known = self.by_tag(tag)
        if self.has_ended(tag) or (known and (not known.record.wanted or _is_as_late(known, copy))):
            return known
        record = _record_of(copy)
        cluster = self.clusters.get(record.cluster) if record else None
        if record is None or cluster is None:
            return known  # of another version, which kept the tag alone perhaps
        if (record.username, record.server) != (username, server) or not self.keys.is_ours(record.owner, tag):
            return known
        job = self._known(record, cluster)
        self._log.warning(
            "%s: took job %s from JupyterHub's own database, because the ledger, made on %s, has no record of %s",
            *(job.log_name, record.job_id, self.age, "where it runs now" if known else "it"),
        )
        self.restore(job)
        return job

    @property
    def age(self) -> str:
        """When the ledger was made, for people."""
        return time.strftime("%d %B %Y at %H:%M", time.localtime(self._store.created_at))

    def has_ended(self, tag: str) -> bool:
        """Whether the job with this tag has ended, at most a month ago."""
        return tag in self._ended

    def live(self) -> list[Job]:
        """Every job that has not been seen to end."""
        return list(self._live.values())

    def of(self, username: str, server: str) -> list[Job]:
        """The living jobs of one server, the oldest first."""
        return list(self._of_server.get((username, server), {}).values())

    def by_tag(self, tag: str) -> Job | None:
        """The living job with this tag, or None."""
        return self._live.get(tag)

    def following(self, job: Job) -> Iterator[Job]:
        """Jobs that wait to take this one's place."""
        siblings = self.of(job.record.username, job.record.server)
        return (other for other in siblings if other.record.follows == job.tag)

    def last_end(self, username: str, server: str) -> End | None:
        """How the last job of this server ended, if its user did not end it and it is not long ago."""
        job = self.last_ended(username, server)
        return job.end if job else None

    def last_ended(self, username: str, server: str) -> Job | None:
        """The last job of this server, if it has ended, its user did not end it, and it is not long ago."""
        job = self._ends.get((username, server))
        return job if job and job.end and job.end.shown_to_user else None

    def past(self, username: str) -> list[Job]:
        """The last ten jobs of a user that ended in the last month, of all servers, the newest end first."""
        return list(self._past.get(username, ()))

    def by_ticket(self, ticket: str) -> Job | None:
        """The job that this ticket was made for, or None."""
        wanted = digest(ticket)
        job = self._by_hash.get(wanted)
        return job if job is not None and _same(job.record.ticket_hash, wanted) else None

    def by_report_key(self, key: str) -> Job | None:
        """The job whose launcher was given this key, or None."""
        wanted = digest(key)
        job = self._by_hash.get(wanted)
        return job if job is not None and _same(job.record.report_key_hash, wanted) else None

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    def _index(self, job: Job) -> None:
        server = (job.record.username, job.record.server)
        for known in self._hashes.pop(job.tag, ()):
            self._by_hash.pop(known, None)
        if job.end is None:
            self._live[job.tag] = job
            self._of_server.setdefault(server, {})[job.tag] = job
            self._hashes[job.tag] = job.record.ticket_hash, job.record.report_key_hash
            self._by_hash.update({known: job for known in self._hashes[job.tag] if known})
            return
        self._live.pop(job.tag, None)
        self._forget(job, server)
        self._ended[job.tag] = job.end.at
        last = self._ends.get(server)
        if last is None or last.end is None or last.end.at <= job.end.at:
            self._ends[server] = job
        others = [one for one in self._past.get(job.record.username, ()) if one.tag != job.tag]
        others = sorted([*others, job], key=lambda one: one.end.at if one.end else 0.0, reverse=True)
        self._past[job.record.username] = others[:_PAST]

    def _forget(self, job: Job, server: ServerName) -> None:
        of_server = self._of_server.get(server, {})
        of_server.pop(job.tag, None)
        if not of_server:
            self._of_server.pop(server, None)


def _is_as_late(known: Job, copy: dict[str, Any]) -> bool:
    """Whether the ledger knows of a run at least as late as the copy's."""
    return known.record.started_at >= float(copy.get("started_at") or 0.0)


def _record_of(copy: dict[str, Any]) -> JobRecord | None:
    try:
        return JobRecord.from_columns(copy)
    except (KeyError, ValueError, TypeError):
        return None


def job_name(server: str) -> str:
    """What people see in a listing: harmless, whatever the server's name is."""
    return f"jupyter-{_slug(server)}" if server else "jupyter"


def _slug(server: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in server.lower())[:20]
    return kept if kept == server else f"{kept}-{hashlib.sha256(server.encode()).hexdigest()[:6]}"


def _same(kept: str, wanted: str) -> bool:
    return bool(kept) and secrets.compare_digest(kept, wanted)
