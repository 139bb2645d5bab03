"""What state a job is in, in words that no scheduler owns."""

from dataclasses import dataclass
from enum import Enum


class JobState(Enum):
    """The states that a Hub must tell apart."""

    PENDING = "pending"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    ENDED = "ended"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job as a listing shows it.

    `word` is the scheduler's own state, `host` the first node, `owner` the account that owns the job, `tag` the
    mark that its submitter gave it, `starts` the expected or real start as the scheduler writes it ("" if unknown).
    """

    state: JobState
    host: str | None = None
    reason: str = ""
    owner: str = ""
    tag: str = ""
    starts: str = ""
    word: str = ""
