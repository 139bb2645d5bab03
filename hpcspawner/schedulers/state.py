"""What state a job is in, in words that no scheduler owns."""

from dataclasses import dataclass
from enum import Enum, StrEnum

from hpcspawner.language import Text, _
from hpcspawner.units import printable


class JobState(Enum):
    """The states that a Hub must tell apart."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    ENDED = "ended"
    UNKNOWN = "unknown"

    @property
    def word(self) -> Text:
        """For people."""
        return _WORDS[self]


_WORDS = {
    JobState.PENDING: _("pending"),
    JobState.HELD: _("held"),
    JobState.RUNNING: _("running"),
    JobState.SUSPENDED: _("suspended"),
    JobState.ENDED: _("ended"),
    JobState.UNKNOWN: _("unknown"),
}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job as a listing shows it.

    `native_state` is the scheduler's own state, `host` the first node, `owner` the account that owns the job, `tag` the
    mark that its submitter gave it, `starts_at` its expected or real start in seconds since 1970 (0 if unknown).
    `hopeless` marks a job that waits for what will never come; `reason` says why. Every text is made printable.
    """

    state: JobState
    host: str | None = None
    reason: str = ""
    owner: str = ""
    tag: str = ""
    starts_at: float = 0.0
    native_state: str = ""
    hopeless: bool = False

    def __post_init__(self) -> None:
        _make_printable(self, "host", "reason", "owner", "tag", "native_state")


class Cause(StrEnum):
    """Why a job ended."""

    WALL_TIME = "wall-time"
    OUT_OF_MEMORY = "out-of-memory"
    NODE_FAILED = "node-failed"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    IDLE = "idle"
    EXITED = "exited"
    NOT_STARTED = "not-started"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Record:
    """What a scheduler remembers of a job that has ended.

    `message` is one printable sentence for people. `exit_code` and `signal` are the script's, None where there was
    none; `cancelled_by` is the account that cancelled it and `node` where it ran, "" if that is not known.
    """

    cause: Cause
    message: str
    exit_code: int | None = None
    signal: int | None = None
    cancelled_by: str = ""
    node: str = ""

    def __post_init__(self) -> None:
        _make_printable(self, "message", "cancelled_by", "node")


def _make_printable(value: JobStatus | Record, *names: str) -> None:
    """A comment is its user's own text, a reason an operator's: a line break in one gets no further than here."""
    for name in names:
        text = getattr(value, name)
        if text is not None and not text.isprintable():
            object.__setattr__(value, name, printable(text))
