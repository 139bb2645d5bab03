"""What a cluster has, as its own scheduler says: partitions with their limits, nodes, accounts.

For `hpcspawner init`, which writes a profile from it, and `hpcspawner check`, which compares a profile with it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from hpcspawner.units import Memory, Walltime


@dataclass(frozen=True, slots=True)
class PartitionLimits:
    """The most that a partition (a queue of PBS) has or allows; None where the scheduler does not say.

    `cpus`, `memory` and `gpus` (a number for each type) are those of the largest node. `accounts` and `qos` are the
    only ones that may be used there, empty where all may.
    """

    name: str
    is_default: bool = False
    is_up: bool = True
    max_walltime: Walltime | None = None
    max_nodes: int | None = None
    cpus: int | None = None
    memory: Memory | None = None
    gpus: Mapping[str, int] = field(default_factory=dict)
    features: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    qos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inventory:
    """What a cluster has. `accounts` and `qos` are None where the scheduler does not list them.

    `note` says what a reader of the limits should know, "" for nothing.
    """

    partitions: tuple[PartitionLimits, ...]
    nodes: tuple[str, ...] = ()
    accounts: tuple[str, ...] | None = None
    qos: tuple[str, ...] | None = None
    note: str = ""

    def partition(self, name: str) -> PartitionLimits | None:
        """The partition of this name, or None."""
        return next((one for one in self.partitions if one.name == name), None)

    @property
    def features(self) -> frozenset[str]:
        """All features that some node has."""
        return frozenset(one for partition in self.partitions for one in partition.features)


class InventoryReader(ABC):
    """How one scheduler is asked what it has: commands by name, and a parser of their outputs by the same names."""

    commands: Mapping[str, tuple[str, ...]]
    """argv by name; all run under the Hub's own account."""

    optional: frozenset[str] = frozenset()
    """Names of commands that may fail; their output is "" then."""

    version_command: tuple[str, ...]
    """argv that prints the scheduler's release."""

    oldest: tuple[int, ...] = ()
    """The oldest release that the package is tested with."""

    clock_command: tuple[str, ...] = ()
    """argv whose output tells the time of the controller's clock; empty where there is none."""

    @abstractmethod
    def parse(self, outs: Mapping[str, str]) -> Inventory:
        """What the cluster has. Raises ValueError for output that can't be read."""

    def parse_clock(self, out: str) -> float:
        """Seconds since 1970 by the controller's clock. Raises ValueError."""
        raise ValueError("this scheduler does not tell the time of its clock")


def largest(partitions: Iterable[PartitionLimits]) -> PartitionLimits:
    """Several rows of one partition as one: of each limit the highest, of each list all."""
    rows = list(partitions)
    first = rows[0]
    gpus: dict[str, int] = {}
    for row in rows:
        for kind, count in row.gpus.items():
            gpus[kind] = max(count, gpus.get(kind, 0))
    return PartitionLimits(
        name=first.name,
        is_default=any(row.is_default for row in rows),
        is_up=any(row.is_up for row in rows),
        max_walltime=first.max_walltime,
        max_nodes=first.max_nodes,
        cpus=max((row.cpus for row in rows if row.cpus), default=None),
        memory=max((row.memory for row in rows if row.memory), default=None),
        gpus=gpus,
        features=tuple(dict.fromkeys(one for row in rows for one in row.features)),
        accounts=first.accounts,
        qos=first.qos,
    )
