"""Stages of a job, its moves between them as events, and who hears of these."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hpcspawner.jobs.job import Job


class Stage(StrEnum):
    """Where a job is in its life."""

    INTENT = "intent"  # a record, and no job id yet
    QUEUED = "queued"  # the scheduler has it
    RUNNING = "running"  # on a node; its launcher has traded the ticket
    LISTENING = "listening"  # its server has a port
    READY = "ready"  # its server has answered the Hub
    STOPPING = "stopping"  # not wanted, and not seen to end
    ENDED = "ended"


MOVES: dict[Stage, frozenset[Stage]] = {
    Stage.INTENT: frozenset({Stage.QUEUED, Stage.STOPPING, Stage.ENDED}),
    Stage.QUEUED: frozenset({Stage.RUNNING, Stage.STOPPING, Stage.ENDED}),
    # A job may be put back into the queue, or start again on another node.
    Stage.RUNNING: frozenset({Stage.LISTENING, Stage.QUEUED, Stage.STOPPING, Stage.ENDED}),
    Stage.LISTENING: frozenset({Stage.READY, Stage.RUNNING, Stage.QUEUED, Stage.STOPPING, Stage.ENDED}),
    Stage.READY: frozenset({Stage.LISTENING, Stage.RUNNING, Stage.QUEUED, Stage.STOPPING, Stage.ENDED}),
    Stage.STOPPING: frozenset({Stage.ENDED}),
    Stage.ENDED: frozenset(),
}
"""Every legal move. READY goes back to LISTENING when the Hub lets go of a server and takes it up again."""


@dataclass(frozen=True, slots=True)
class Moved:
    """A job has moved from one stage to another; the job is as it is after the move."""

    job: "Job"
    before: Stage
    after: Stage


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something was refused: `what` is "options", "ticket" or "report", `job` the job it was for, if one is known."""

    what: str
    why: str
    job: "Job | None" = None
    username: str | None = None
    servername: str | None = None


@dataclass(frozen=True, slots=True)
class Reaped:
    """A job that no server needs was seen to: `outcome` is "cancelled", "failed" or "dry-run"."""

    cluster: str
    outcome: str


Event = Moved | Refusal | Reaped
Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outside:
    """What a job's life needs of the Hub around it.

    `revoke_token` takes back the API token of a job's server and returns False if that must be tried again. Each of
    `listeners` is called with each event, and must not raise.
    """

    revoke_token: "Callable[[Job], bool]"
    listeners: Sequence[Listener]


def log_line(event: Event) -> None:
    """One line in the Hub's log for each move."""
    if not isinstance(event, Moved):
        return
    record = event.job.record
    said = _WORDS.get(event.after, "")
    if event.after is Stage.QUEUED and event.before is not Stage.INTENT:
        said = ""  # back in the queue, which is said with the reason where it is seen
    level = logging.INFO if said else logging.DEBUG
    words = said.format(record=record) or f"is {event.after.value}"
    event.job.cluster.client.log.log(level, "%s: job %s %s", record.log_name, record.job_id or "(none)", words)


_WORDS = {
    Stage.QUEUED: "submitted for {record.owner}",
    Stage.LISTENING: "listens on {record.host}:{record.port}",
    Stage.ENDED: "has ended ({record.cause}): {record.message}",
}
