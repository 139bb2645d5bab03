"""Every job that this Hub has asked for, from the intent to the end: in memory to read, in a database to keep.

A row is committed before its job is submitted and again right after, so whatever happens to the Hub in between,
the next one knows what to look for.
"""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from cryptography.x509 import CertificateSigningRequest
from sqlalchemy.exc import SQLAlchemyError

from hpcspawner.errors import LedgerUnavailable, LedgerUnusable
from hpcspawner.jobs.events import Action, Event, JobEvent, Outside
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.table import Store
from hpcspawner.jobs.tasks import in_background
from hpcspawner.request.model import Choice
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import OwnedJob
from hpcspawner.schedulers.state import Cause, JobStatus

_KEEP_ENDED_S = 30 * 24 * 3600
_LONGEST_PAUSE_S = 30.0


def digest(secret: str) -> str:
    """What the Hub keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Report:
    """How a run of the launcher ended, by its own word. `exit_code` and `signal` are None where there was none."""

    reason: str
    message: str
    exit_code: int | None = None
    signal: int | None = None
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """Why a job is over, at what time (seconds since 1970), and the last lines that it wrote."""

    cause: Cause
    message: str
    at: float
    exit_code: int | None = None
    log: tuple[str, ...] = ()

    @property
    def when(self) -> str:
        """The time of the Hub's clock, for people."""
        return time.strftime("%H:%M on %d %B %Y", time.localtime(self.at))

    @property
    def shown_to_user(self) -> bool:
        """Whether the server's user has not asked for it, so that they want to know."""
        return self.cause is not Cause.STOPPED


@dataclass(eq=False)
class Row:
    """One job of one server. The fields down to `end` are kept in the database.

    `username` and `server` are the Hub's names, `owner` is the account on the cluster. `follows` is the tag of the job
    whose place this one takes when that one's wall time ends, `renewals` how often that may still happen.
    `asked_at` and `waits_since` are seconds since 1970: when the last submit began (0: never), and since when the job
    waits in the queue. `run` is the mark of the launcher that has traded the ticket (the digest of its public key, if
    it has one), `runs` how often the scheduler had started the job by then, `began_at` when that was.
    """

    username: str
    server: str
    owner: str
    label: JobLabel
    choices: dict[str, Choice] = field(default_factory=dict)
    follows: str = ""
    renewals: int = 0
    job_id: str = ""
    asked_at: float = 0.0
    waits_since: float = 0.0
    ticket_hash: str = ""
    run: str = ""
    runs: int = 0
    began_at: float = 0.0
    report_key_hash: str = ""
    host: str = ""
    port: int = 0
    wanted: bool = True
    end: End | None = None

    # What only this process knows. `hub_verdict` is why the Hub itself gave the job up, `attached` whether one of the
    # Hub's spawners looks after it, `submitted_at` monotonic time. `inherited`: another process began this run of the
    # job, so its last report may be missing.
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    report: Report | None = None
    warned: bool = False
    hub_verdict: End | None = None
    attached: bool = False
    inherited: bool = False
    submitted_at: float = 0.0
    ask: Callable[[float], Awaitable[JobStatus]] | None = None
    count_runs: Callable[[], Awaitable[int]] | None = None
    certify: Callable[[CertificateSigningRequest], Awaitable[dict[str, str]]] | None = None
    on_report: Callable[[], object] | None = None
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict, repr=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def tag(self) -> str:
        """The mark in the scheduler's listing; it names the row."""
        return self.label.tag

    @property
    def log_name(self) -> str:
        """The server as JupyterHub's log calls it."""
        return f"{self.username}:{self.server}" if self.server else self.username

    @property
    def was_lost(self) -> bool:
        """Whether the job ran when its row was made again, so that none knows where its server listens."""
        return self.inherited and not self.ticket_hash and not self.port

    @property
    def job(self) -> OwnedJob:
        """What a listing must agree with."""
        return OwnedJob(self.job_id, self.owner, self.tag, self.submitted_at)

    def stored(self) -> dict[str, Any]:
        """The columns; hashes, never secrets."""
        end = self.end
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "tag": self.tag,
            "name": self.label.name,
            "ended_at": end.at if end else None,
            "cause": end.cause.value if end else "",
            "message": end.message[:1000] if end else "",
            "exit_code": end.exit_code if end else None,
            "log": list(end.log) if end else [],
        }

    @classmethod
    def from_stored(cls, columns: dict[str, Any]) -> Self:
        """The row that `stored` described."""
        row = cls(label=JobLabel(columns["name"], columns["tag"]), **{name: columns[name] for name in _PLAIN})
        if columns["ended_at"] is not None:
            row.end = End(
                Cause(columns["cause"]),
                columns["message"],
                columns["ended_at"],
                columns["exit_code"],
                tuple(columns["log"]),
            )
        # Only listings that this process has asked for can prove an absence.
        row.submitted_at = now()
        row.inherited = True
        return row

    def copy(self) -> dict[str, Any]:
        """The columns of a job that lives, for JupyterHub to keep beside its server: hashes, never secrets."""
        return {name: value for name, value in self.stored().items() if name not in _OF_THE_END}

    @classmethod
    def from_copy(cls, copy: dict[str, Any]) -> Self:
        """The row that `copy` described. Raises KeyError where another version has made it."""
        return cls.from_stored({**copy, "ended_at": None})

    def submitted(self, job_id: str) -> None:
        """Note the id that the scheduler gave.

        Only now does the clock of its absence start: listings begun while the submit was under way prove nothing.
        """
        self.job_id = job_id
        self.submitted_at = now()
        self.changed.set()

    def arm(self, ticket: str) -> str:
        """Wait for a run that shows this ticket, which is returned and not kept, and for no other."""
        self.ticket_hash = digest(ticket)
        self.run = ""
        return ticket

    def open(self, run: str, runs: int, host: str, report_key: str) -> None:
        """Bind the ticket to the run that presented it; any server that an earlier run had is gone."""
        self.run, self.runs, self.host, self.port = run, runs, host, 0
        self.began_at = time.time()
        self.report_key_hash = digest(report_key)
        self.report, self.warned = None, False
        self.inherited = False

    def back_in_queue(self, waits_since: float) -> None:
        """The scheduler has put the job back: another run, on another node perhaps, takes the server's place."""
        self.host, self.port, self.report_key_hash = "", 0, ""
        self.waits_since = waits_since
        self.inherited = False
        self.report = None

    def mark_unwanted(self) -> None:
        """Nobody wants this job any more; a launcher that calls gets nothing."""
        self.wanted = False
        self.environment = {}
        self.changed.set()

    def listening(self, port: int) -> None:
        """Note where the server is."""
        self.port = port
        self.notify()

    def reported(self, report: Report) -> None:
        """Note what the launcher says of its end."""
        self.report = report
        self.notify()

    def notify(self) -> None:
        """Wake those who wait for news of this job."""
        self.changed.set()
        if self.on_report:
            self.on_report()


_PLAIN = (
    "username",
    "server",
    "owner",
    "choices",
    "follows",
    "renewals",
    "job_id",
    "asked_at",
    "waits_since",
    "ticket_hash",
    "run",
    "runs",
    "began_at",
    "report_key_hash",
    "host",
    "port",
    "wanted",
)
_OF_THE_END = frozenset({"ended_at", "cause", "message", "exit_code", "log"})


class Ledger:
    """The rows that live, and the last end of each server. Reading is memory; what is awaited is committed."""

    def __init__(self, store: Store, keys: Keys, log: logging.Logger, outside: Outside):
        self.keys = keys
        self.outside = outside
        self.wake = asyncio.Event()
        """Set when something has happened that housekeeping should look at before its time."""
        self.surveyed = False
        """Whether this process has looked in the scheduler's listing for jobs of ours that the ledger lacks."""
        self._store, self._log = store, log
        self._live: dict[str, Row] = {}
        self._ended: dict[str, float] = {}
        self._by_hash: dict[str, Row] = {}
        self._hashes: dict[str, tuple[str, str]] = {}
        self._ends: dict[tuple[str, str], Row] = {}
        if others := store.other_hubs_jobs():
            log.warning(
                "hpcspawner: the ledger has %s unfinished jobs of a Hub with another callback_url; this Hub leaves "
                "them alone. If the address of this Hub has changed, cancel them or set the old address again.",
                others,
            )
        try:
            for row in map(Row.from_stored, store.load(time.time() - _KEEP_ENDED_S)):
                self._index(row)
        except (ValueError, TypeError) as error:
            raise store.unusable(error) from error
        if lost := [row for row in self.live() if not keys.is_ours(row.owner, row.tag)]:
            log.warning(
                "hpcspawner: %s unfinished jobs have tags from another secret, so the Hub does not recognise their "
                "servers. Put the "
                "old secret file back (HPCSpawner.secret_file), or cancel these jobs: %s",
                len(lost),
                ", ".join(row.job_id or f"one of {row.owner}" for row in lost),
            )

    def new_row(self, username: str, server: str, owner: str, follows: Row | None = None) -> Row:
        """A row for a job that is about to be asked for; not kept before `open`."""
        tag = self.keys.new_tag(owner, username, server)
        while self.by_tag(tag) or self.has_ended(tag):
            tag = self.keys.new_tag(owner, username, server)
        label = JobLabel(job_name(server), tag, follows.job_id if follows else "")
        return Row(username, server, owner, label, follows=follows.tag if follows else "", waits_since=time.time())

    def emit(self, event: Event) -> None:
        """Hand an event to all who want to know."""
        for listener in self.outside.listeners:
            listener(event)

    async def open(self, row: Row) -> None:
        """Keep a row from before its submit; LedgerUnavailable if that is not certain."""
        try:
            await self._store.write(row.stored())
        except SQLAlchemyError as error:
            self._log.error("%s: no job was submitted, because the ledger can't be written: %s", row.log_name, error)
            raise LedgerUnavailable from error
        self._index(row)

    async def save(self, row: Row) -> None:
        """Commit what has changed, however long the database may be away."""
        self._index(row)
        pause_s = 1.0
        while True:
            try:
                return await self._store.write(row.stored())
            except SQLAlchemyError as error:
                self._log.error("%s: the ledger can't be written, trying again: %s", row.log_name, error)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def prune(self) -> None:
        """Drop what ended long ago."""
        before = time.time() - _KEEP_ENDED_S
        self._ends = {key: row for key, row in self._ends.items() if row.end and row.end.at >= before}
        self._ended = {tag: at for tag, at in self._ended.items() if at >= before}
        await self._store.prune(before)

    def restore(self, row: Row) -> None:
        """Know a job again whose row was lost; it is committed behind."""
        self._index(row)
        in_background(self.save(row), self._log)
        self.wake.set()

    async def put_back(self, row: Row) -> None:
        """Note that the scheduler has put a job back into its queue; its next run has the job's ticket to trade."""
        row.back_in_queue(time.time())
        if not row.ticket_hash:
            row.arm(self.keys.ticket(row.tag))
        await self.save(row)

    def recall(self, username: str, server: str, copy: dict[str, Any]) -> Row | None:
        """The living job of this server with the copy's tag, or None; from the copy where that knows of a later run."""
        tag = str(copy.get("tag", ""))
        known = self.by_tag(tag)
        if self.has_ended(tag) or (known and (not known.wanted or known.began_at >= copy.get("began_at", 0.0))):
            return known
        try:
            row = Row.from_copy(copy)
        except (KeyError, ValueError, TypeError):
            return known  # of another version, which kept the tag alone perhaps
        if (row.username, row.server) != (username, server) or not self.keys.is_ours(row.owner, tag):
            return known
        self._log.warning(
            "%s: took job %s from JupyterHub's own database, because the ledger, made on %s, has no record of %s",
            *(row.log_name, row.job_id, self.age, "where it runs now" if known else "it"),
        )
        self.restore(row)
        return row

    @property
    def age(self) -> str:
        """When the ledger was made, for people."""
        return time.strftime("%d %B %Y at %H:%M", time.localtime(self._store.created_at))

    def has_ended(self, tag: str) -> bool:
        """Whether the job with this tag has ended, at most a month ago."""
        return tag in self._ended

    def live(self) -> list[Row]:
        """Every job that has not been seen to end."""
        return list(self._live.values())

    def of(self, username: str, server: str) -> list[Row]:
        """The living jobs of one server, the oldest first."""
        return [row for row in self._live.values() if (row.username, row.server) == (username, server)]

    def by_tag(self, tag: str) -> Row | None:
        """The living job with this tag, or None."""
        return self._live.get(tag)

    def following(self, row: Row) -> Iterator[Row]:
        """Jobs that wait to take this one's place."""
        return (other for other in self.live() if other.follows == row.tag)

    def last_end(self, username: str, server: str) -> End | None:
        """How the last job of this server ended, if its user did not end it and it is not long ago."""
        row = self._ends.get((username, server))
        return row.end if row and row.end and row.end.shown_to_user else None

    def by_ticket(self, ticket: str) -> Row | None:
        """The row that this ticket was made for, or None."""
        wanted = digest(ticket)
        row = self._by_hash.get(wanted)
        return row if row is not None and _same(row.ticket_hash, wanted) else None

    def by_report_key(self, key: str) -> Row | None:
        """The row whose launcher was given this key, or None."""
        wanted = digest(key)
        row = self._by_hash.get(wanted)
        return row if row is not None and _same(row.report_key_hash, wanted) else None

    def close(self) -> None:
        """Let go of the database."""
        self._store.close()

    def _index(self, row: Row) -> None:
        for known in self._hashes.pop(row.tag, ()):
            self._by_hash.pop(known, None)
        if row.end is None:
            self._live[row.tag] = row
            self._hashes[row.tag] = row.ticket_hash, row.report_key_hash
            self._by_hash.update({known: row for known in self._hashes[row.tag] if known})
            return
        self._live.pop(row.tag, None)
        self._ended[row.tag] = row.end.at
        last = self._ends.get((row.username, row.server))
        if last is None or last.end is None or last.end.at <= row.end.at:
            self._ends[row.username, row.server] = row


_opened: list[Ledger] = []


def open_ledger(url: str, make_keys: Callable[[], Keys], log: logging.Logger, outside: Outside) -> Ledger:
    """The Hub's one ledger, opened when it is first asked for. Raises LedgerUnusable."""
    if not _opened:
        keys = make_keys()
        store = Store(url, keys.hub, log)
        try:
            _opened.append(Ledger(store, keys, log, outside))
        except LedgerUnusable:
            store.close()
            raise
    return _opened[0]


def ledger() -> Ledger:
    """The Hub's one ledger. Handlers and spawners are made apart from each other and meet here."""
    return _opened[0]


def emit(action: Action, cluster: Cluster, row: Row) -> None:
    """Hand on what has become of a job."""
    ledger().emit(JobEvent(action, cluster, row))


def close_ledger() -> None:
    """Forget the ledger, for a process that starts another Hub."""
    while _opened:
        _opened.pop().close()


def now() -> float:
    """Seconds of the one clock that listings and rows share; no change of the time of day disturbs it."""
    return time.monotonic()


def job_name(server: str) -> str:
    """What people see in a listing: harmless, whatever the server's name is."""
    return f"jupyter-{_slug(server)}" if server else "jupyter"


def _slug(server: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in server.lower())[:20]
    return kept if kept == server else f"{kept}-{hashlib.sha256(server.encode()).hexdigest()[:6]}"


def _same(kept: str, wanted: str) -> bool:
    return bool(kept) and secrets.compare_digest(kept, wanted)
