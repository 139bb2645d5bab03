"""Every job that this Hub has started and not yet seen the end of.

Held in memory: a running server survives a restart of the Hub through the Hub's own record of its state
(`HPCSpawner.get_state`), a waiting one does not yet.
"""

import asyncio
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Self

from hpcspawner.job.state import JobStatus
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.queue import OwnedJob


def digest(secret: str) -> str:
    """What the Hub keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class End:
    """How a job ended, by the launcher's own word. `exit_code` and `signal` are None where there was none."""

    reason: str
    message: str
    exit_code: int | None = None
    signal: int | None = None
    log: tuple[str, ...] = ()


@dataclass(eq=False)
class Row:
    """One job, from before its submit to its end.

    `environment` is what the launcher gets for the ticket; it is kept until the server listens, because an answer
    may be lost on the way. `run` is the first caller's own mark: nobody else gets the same answer.
    """

    owner: str
    label: JobLabel
    server: str
    ticket_hash: str = ""
    report_key_hash: str = ""
    report_key: str = ""
    job_id: str = ""
    submitted_at: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    run: str = ""
    host: str = ""
    port: int = 0
    end: End | None = None
    wanted: bool = True
    being_cancelled: bool = False
    ask: Callable[[float], Awaitable[JobStatus]] | None = None
    on_end: Callable[[], object] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def job(self) -> OwnedJob:
        """What a listing must agree with."""
        return OwnedJob(self.job_id, self.owner, self.label.tag, self.submitted_at)

    def as_state(self) -> dict[str, Any]:
        """What a restarted Hub needs to know this job again; hashes, never secrets."""
        return {
            "owner": self.owner,
            "name": self.label.name,
            "tag": self.label.tag,
            "job_id": self.job_id,
            "report_key_hash": self.report_key_hash,
            "host": self.host,
            "port": self.port,
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], server: str) -> Self:
        """The row that `as_state` described."""
        label = JobLabel(state["name"], state["tag"])
        kept = ("owner", "job_id", "report_key_hash", "host", "port")
        return cls(label=label, server=server, submitted_at=now(), **{name: state[name] for name in kept})

    def submitted(self, job_id: str) -> None:
        """Note the id that the scheduler gave.

        Only now does the clock of its absence start: listings begun while the submit was under way prove nothing.
        """
        self.job_id = job_id
        self.submitted_at = now()
        self.changed.set()

    def arm(self) -> str:
        """Make a new ticket and forget any older one; the ticket itself is returned and not kept."""
        ticket = secrets.token_urlsafe(32)
        self.ticket_hash = digest(ticket)
        self.run = ""
        return ticket

    def open(self, run: str) -> None:
        """Bind the ticket to the run that presented it and make the key for its reports."""
        if not self.run:
            self.run = run
            self.report_key = secrets.token_urlsafe(32)
            self.report_key_hash = digest(self.report_key)

    def give_up(self) -> None:
        """Nobody wants this job any more; a launcher that calls gets nothing."""
        self.wanted = False
        self.environment = {}

    def listening(self, host: str, port: int) -> None:
        """Note where the server is; the ticket is spent for good."""
        self.host, self.port = host, port
        self.ticket_hash = self.report_key = ""
        self.environment = {}
        self.changed.set()

    def ended(self, end: End) -> None:
        """Note how it ended."""
        self.end = end
        self.changed.set()
        if self.on_end:
            self.on_end()


class Ledger:
    """The rows, found by what a launcher can show."""

    def __init__(self) -> None:
        self._rows: set[Row] = set()

    def open(self, row: Row) -> Row:
        """Keep a row from before its submit. The Hub may load one state more than once: the newest row counts."""
        same = {other for other in self._rows if row.job_id and (other.job_id, other.label) == (row.job_id, row.label)}
        self._rows -= same
        self._rows.add(row)
        return row

    def close(self, row: Row) -> None:
        """Drop a row whose job has ended."""
        self._rows.discard(row)

    def by_ticket(self, ticket: str) -> Row | None:
        """The row that this ticket was made for, or None."""
        wanted = digest(ticket)
        return next((row for row in self._rows if _same(row.ticket_hash, wanted)), None)

    def by_report_key(self, key: str) -> Row | None:
        """The row whose launcher was given this key, or None."""
        wanted = digest(key)
        return next((row for row in self._rows if _same(row.report_key_hash, wanted)), None)


@cache
def ledger() -> Ledger:
    """The Hub's one ledger. Handlers and spawners are made apart from each other and meet here."""
    return Ledger()


def new_label(server: str, hub_id: str) -> JobLabel:
    """A name for people and a tag for us; the tag is short because old Torques keep 15 characters of it."""
    tag = f"h{hub_id[:4]}{secrets.token_hex(5)}"
    return JobLabel(name=f"jupyter-{_slug(server)}" if server else "jupyter", tag=tag)


def now() -> float:
    """Seconds of the one clock that listings and rows share; no change of the time of day disturbs it."""
    return time.monotonic()


def _slug(server: str) -> str:
    kept = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in server.lower())[:20]
    return kept if kept == server else f"{kept}-{hashlib.sha256(server.encode()).hexdigest()[:6]}"


def _same(kept: str, wanted: str) -> bool:
    return bool(kept) and secrets.compare_digest(kept, wanted)
