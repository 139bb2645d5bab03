"""A job: its record, its cluster, its stage, and what only this process knows of it."""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cryptography.x509 import CertificateSigningRequest

from hpcspawner.jobs.events import MOVES, Moved, Stage
from hpcspawner.jobs.record import End, JobRecord, Report, columns_of_end
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import OwnedJob
from hpcspawner.schedulers.state import JobState, JobStatus

if TYPE_CHECKING:
    from hpcspawner.jobs.ledger import Ledger


class IllegalMove(RuntimeError):
    """A change would move a job to a stage that it can't reach from where it is: a mistake of ours."""


_NO_PHASES: Mapping[str, float] = {}


def now() -> float:
    """Seconds of the one clock that listings and jobs share; no change of the time of day disturbs it."""
    return time.monotonic()


def digest(secret: str) -> str:
    """What the Hub keeps of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(eq=False)
class Job:
    """One job of one server, in the ledger `ledger` and on the cluster `cluster`.

    The record changes by `change` alone. The other fields are what only this process knows: `hub_verdict` is why the
    Hub itself gave the job up, `attached` whether one of the Hub's spawners looks after it, `answered` whether its
    server has answered that spawner, `adopted` whether the server was there before this start. `listed_after` is a time
    of `now()`: an older listing says nothing of the job. `inherited`: another process began this run of the job, so its
    last report may be missing. `begun_at` (since 1970) is when the Hub began to work on the start, `handed_out_at` (of
    `now()`) when the launcher got its environment; 0 where another process did it. `phases` are the launcher's seconds.
    `parent_id` is the job that this one follows.
    """

    record: JobRecord
    cluster: Cluster
    ledger: "Ledger" = field(repr=False)

    environment: dict[str, str] = field(default_factory=dict, repr=False)
    report: Report | None = None
    warned: bool = False
    hub_verdict: End | None = None
    attached: bool = False
    answered: bool = False
    adopted: bool = False
    inherited: bool = False
    listed_after: float = 0.0
    parent_id: str = ""
    ask: "Callable[[float], Awaitable[Any]] | None" = None
    count_runs: Callable[[], Awaitable[int]] | None = None
    begun_at: float = 0.0
    handed_out_at: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    certify: Callable[[CertificateSigningRequest], Awaitable[dict[str, str]]] | None = None
    on_report: Callable[[], object] | None = None
    tasks: dict[str, asyncio.Task[Any]] = field(default_factory=dict, repr=False)
    changed: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    @property
    def tag(self) -> str:
        """The mark in the scheduler's listing; it names the job for as long as it is known."""
        return self.record.tag

    @property
    def log_name(self) -> str:
        """The server as JupyterHub's log calls it."""
        return self.record.log_name

    @property
    def label(self) -> JobLabel:
        """What the submit command gets."""
        return replace(self.record.label, follows=self.parent_id)

    @property
    def end(self) -> End | None:
        """Why the job is over; None until then."""
        return self.record.end

    @property
    def listed(self) -> OwnedJob:
        """What a listing must agree with."""
        record = self.record
        return OwnedJob(record.job_id, record.owner, record.tag, self.listed_after)

    @property
    def was_lost(self) -> bool:
        """Whether the job ran when its record was made again, so that the Hub can't know where its server listens."""
        return self.inherited and not self.record.ticket_hash and not self.record.port

    @property
    def stage(self) -> Stage:
        """Where the job is in its life, by its record."""
        record = self.record
        if record.ended_at is not None:
            return Stage.ENDED
        if not record.wanted:
            return Stage.STOPPING
        if record.port:
            return Stage.READY if self.answered else Stage.LISTENING
        if record.host:
            return Stage.RUNNING
        return Stage.QUEUED if record.job_id else Stage.INTENT

    def change(self, **columns: Any) -> None:
        """Change the record; a move to another stage is an event. Raises IllegalMove, and then nothing has changed."""
        before, record = self.stage, self.record
        self.record = replace(record, **columns)
        if self.stage is before:
            return
        if self.stage not in MOVES[before]:
            self.record, after = record, self.stage
            raise IllegalMove(f"job {record.job_id or record.tag} can't move from {before} to {after}")
        self.ledger.emit(Moved(self, before, self.stage))

    def submitted(self, job_id: str) -> None:
        """Note the id that the scheduler gave.

        Only now does the clock of its absence start: listings begun while the submit was under way prove nothing.
        """
        self.listed_after = now()
        self.change(job_id=job_id)
        self.changed.set()

    def expect(self, status: JobStatus) -> None:
        """Note when the scheduler expects to start the job. A guess is committed with what follows."""
        expected_at = status.starts_at if status.state is JobState.PENDING else 0.0
        if status.state is not JobState.UNKNOWN and expected_at != self.record.expected_at:
            self.change(expected_at=expected_at)

    def arm(self, ticket: str) -> str:
        """Wait for a run that shows this ticket, which is returned and not kept, and for no other."""
        self.change(ticket_hash=digest(ticket), run="")
        return ticket

    def open(self, run: str, runs: int, host: str, report_key: str) -> None:
        """Bind the ticket to the run that presented it; any server that an earlier run had is gone."""
        self.answered = False
        self.report, self.warned = None, False
        self.inherited = False
        self.change(run=run, runs=runs, host=host, port=0, started_at=time.time(), report_key_hash=digest(report_key))

    def back_in_queue(self, since: float) -> None:
        """The scheduler has put the job back: another run, on another node perhaps, takes the server's place."""
        self.inherited = self.answered = False
        self.report = None
        # `run` and `started_at` stay: the next run must prove that it is another and later one.
        self.change(host="", port=0, report_key_hash="", submitted_at=since)

    def mark_unwanted(self) -> None:
        """End the job's rights at once: a launcher that calls gets nothing."""
        self.environment = {}
        self.change(wanted=False)
        self.changed.set()

    def listening(self, port: int, phases: Mapping[str, float] = _NO_PHASES) -> None:
        """Note where the server is, and for how many seconds its launcher was at what."""
        self.phases = phases
        self.change(port=port)
        self.notify()

    def is_ready(self, *, adopted: bool) -> None:
        """Note that the server has answered; `adopted` tells that it was there before this start."""
        before = self.stage
        self.answered, self.adopted = True, adopted
        if self.stage is not before:
            self.ledger.emit(Moved(self, before, self.stage))

    def release(self) -> None:
        """Note that no spawner looks after the job now."""
        self.attached = self.answered = False
        self.on_report, self.environment = None, {}

    def ended(self, end: End) -> None:
        """Note the proven end."""
        self.change(**columns_of_end(end))

    def reported(self, report: Report) -> None:
        """Note what the launcher says of its end."""
        self.report = report
        self.notify()

    def notify(self) -> None:
        """Wake what waits for news of this job."""
        self.changed.set()
        if self.on_report:
            self.on_report()
