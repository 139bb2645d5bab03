"""A node and a queue of waiting jobs as a scheduler describes them, in words that no scheduler owns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class NodeState(StrEnum):
    """What a node does. Only the first three take jobs of everybody."""

    FREE = "free"
    PARTLY = "partly"
    FULL = "full"
    RESERVED = "reserved"
    DOWN = "down"
    UNKNOWN = "unknown"

    @property
    def takes_jobs(self) -> bool:
        """Whether jobs of everybody run there."""
        return self in (NodeState.FREE, NodeState.PARTLY, NodeState.FULL)


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `partitions` is None where the scheduler does not tie nodes to partitions.

    GPUs are counts by type, "any" for those without one; `idle_gpus` lacks a type of which it is not known how many are
    in use. Memory is in MiB, None where it is not known.
    """

    partitions: tuple[str, ...] | None
    state: NodeState
    cores: int
    idle_cores: int
    idle_memory: int | None = None
    gpus: Mapping[str, int] = field(default_factory=dict)
    idle_gpus: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Queued:
    """Jobs that wait in one partition: how many, and their ids, the most urgent first, where the scheduler tells."""

    count: int
    order: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Estimate:
    """When a job could start by the scheduler's own word; `refusal` says why it would not be taken, "" if it would."""

    at: datetime
    refusal: str = ""

    @property
    def starts_in_s(self) -> float:
        """Seconds from now, below 0 for a time that has passed."""
        return (self.at - datetime.now()).total_seconds()


def state_by_use(cores: int, idle: int) -> NodeState:
    """The state of a node that takes jobs, by its cores."""
    if idle <= 0:
        return NodeState.FULL
    return NodeState.FREE if idle >= cores else NodeState.PARTLY
