"""What is kept of a job: one frozen record, whose fields are the columns of the ledger's table."""

from dataclasses import dataclass, field, fields
from typing import Any, Self

from sqlalchemy import JSON, Boolean, Column, Float, Integer, String
from sqlalchemy.types import TypeEngine

from hpcspawner.language import Text
from hpcspawner.request.model import Choice
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.state import Cause
from hpcspawner.units import Walltime, clock_time

# Without the number of bits MySQL keeps seven digits, which is some minutes of a time since 1970.
SECONDS = Float(53)
_LONGEST_MESSAGE = 1000


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
        return clock_time(self.at)

    @property
    def shown_to_user(self) -> bool:
        """Whether the server's user did not ask for this end, so that the page explains it."""
        return self.cause is not Cause.STOPPED


def _kept(kind: TypeEngine[Any], default: Any = None, **of_column: Any) -> Any:
    """A field with its column; without a default it must be given."""
    metadata = {"type": kind, "column": of_column}
    if default is None and not of_column.get("nullable"):
        return field(metadata=metadata)
    if isinstance(default, dict | list):
        return field(default_factory=type(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job of one server.

    `cluster` is the name of the cluster that it was submitted to. `username` and `server` are the Hub's names, `owner`
    is the account on the cluster, `tag` the mark in the scheduler's listing, which names the record. `follows` is the
    tag of the job whose place this one takes when that one's wall time ends, `renewals` how often that may still
    happen. `run` is the mark of the launcher that has traded the ticket (the digest of its public key, if it has one),
    `runs` how often the scheduler had started the job by then.

    Times are seconds since 1970, 0 where unknown: `asked_at` when the last submit began, `submitted_at` since when the
    job waits in the queue, `expected_at` when the scheduler expects to start it (a guess, kept with the next change),
    `started_at` when its present run began. `ended_at` is None until the job is over; the fields after it say why.
    `words` is what `message` is made of, to tell it in other languages. Secrets are kept as hashes.
    """

    # ruff: noqa: RUF009 - `_kept` makes the field
    tag: str = _kept(String(40), primary_key=True)
    cluster: str = _kept(String(64))
    username: str = _kept(String(255))
    server: str = _kept(String(255))
    owner: str = _kept(String(64))
    name: str = _kept(String(64))
    follows: str = _kept(String(40), "")
    choices: dict[str, Choice] = _kept(JSON(), {})
    renewals: int = _kept(Integer(), 0)
    job_id: str = _kept(String(255), "")
    asked_at: float = _kept(SECONDS, 0.0)
    submitted_at: float = _kept(SECONDS, 0.0)
    expected_at: float = _kept(SECONDS, 0.0)
    started_at: float = _kept(SECONDS, 0.0)
    ticket_hash: str = _kept(String(64), "")
    run: str = _kept(String(200), "")
    runs: int = _kept(Integer(), 0)
    report_key_hash: str = _kept(String(64), "")
    host: str = _kept(String(255), "")
    port: int = _kept(Integer(), 0)
    wanted: bool = _kept(Boolean(), True)
    ended_at: float | None = _kept(SECONDS, nullable=True, index=True)
    cause: str = _kept(String(40), "")
    message: str = _kept(String(_LONGEST_MESSAGE), "")
    exit_code: int | None = _kept(Integer(), nullable=True)
    log: list[str] = _kept(JSON(), [])
    words: dict[str, Any] | None = _kept(JSON(none_as_null=True), nullable=True)

    @property
    def label(self) -> JobLabel:
        """What identifies the job in a listing."""
        return JobLabel(self.name, self.tag)

    @property
    def log_name(self) -> str:
        """The server as JupyterHub's log calls it."""
        return f"{self.username}:{self.server}" if self.server else self.username

    @property
    def walltime_s(self) -> int:
        """The wall time that was asked for, in seconds; 0 where that is not known."""
        try:
            return Walltime.parse(self.choices.get("walltime")).seconds
        except ValueError:
            return 0

    @property
    def ends_at(self) -> float:
        """When the wall time of the present run ends, in seconds since 1970; 0 where that is not known."""
        return self.started_at + self.walltime_s if self.started_at and self.walltime_s else 0.0

    @property
    def end(self) -> End | None:
        """Why the job is over; None until then."""
        if self.ended_at is None:
            return None
        message = Text.from_parts(self.words) if self.words else self.message
        return End(Cause(self.cause), message, self.ended_at, self.exit_code, tuple(self.log))

    def columns(self) -> dict[str, Any]:
        """As the table has it."""
        return {one.name: getattr(self, one.name) for one in fields(self)}

    @classmethod
    def from_columns(cls, columns: dict[str, Any]) -> Self:
        """The record that `columns` described. Raises TypeError for other columns, ValueError for an unknown cause."""
        record = cls(**columns)
        _ = record.end
        return record

    def copy(self) -> dict[str, Any]:
        """The columns of a job that lives, for JupyterHub to keep beside its server."""
        return {name: value for name, value in self.columns().items() if name not in OF_THE_END}


OF_THE_END = frozenset({"ended_at", "cause", "message", "exit_code", "log", "words"})
"""The columns that are empty until the job is over."""


def columns_of_end(end: End) -> dict[str, Any]:
    """The last columns of a record, filled in."""
    return {
        "ended_at": end.at,
        "cause": end.cause.value,
        "message": end.message[:_LONGEST_MESSAGE],
        "exit_code": end.exit_code,
        "log": list(end.log),
        "words": end.message.parts() if isinstance(end.message, Text) else None,
    }


def table_columns() -> list[Column[Any]]:
    """The columns of the ledger's table, one for each field."""
    made = []
    for one in fields(JobRecord):
        kind, options = one.metadata["type"], one.metadata["column"]
        made.append(Column(one.name, kind, **{"nullable": False, **options}))
    return made
