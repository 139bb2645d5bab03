"""What happens to jobs and what was refused, as values. Those who want to know are handed in when the ledger opens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from hpcspawner.schedulers.cluster import Cluster

if TYPE_CHECKING:
    from hpcspawner.jobs.ledger import Row


class Action(StrEnum):
    """What has become of a job; ADOPT is START for a job that was there before, as after a restart of the Hub."""

    SUBMIT = "submit"
    START = "start"
    ADOPT = "adopt"
    STOP = "stop"
    END = "end"


@dataclass(frozen=True, slots=True)
class JobEvent:
    """One change in the life of a job; the row is as it is after the change."""

    action: Action
    cluster: Cluster
    row: "Row"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something was refused: `what` is "options", "ticket" or "report", `row` the job it was for, if one is known."""

    what: str
    why: str
    row: "Row | None" = None
    username: str | None = None
    servername: str | None = None


Event = JobEvent | Refusal
Listener = Callable[[Event], None]


@dataclass(frozen=True, slots=True)
class Outside:
    """What a job's life needs of the Hub around it.

    `revoke_token` takes back the API token of a row's server and returns False if that must be tried again. Each of
    `listeners` is called with each event, and must not raise.
    """

    revoke_token: "Callable[[Row], bool]"
    listeners: Sequence[Listener]
