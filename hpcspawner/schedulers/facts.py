"""What a cluster has free at the moment, for people to choose by. Nothing is judged by it: it may be old."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from hpcspawner.errors import SchedulerError
from hpcspawner.language import _
from hpcspawner.schedulers.base import Scheduler
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.nodes import Node, NodeState, Queued
from hpcspawner.schedulers.questions import NODES, OPEN, WAITING

_INTERVAL_S = 30.0
# A query that takes long shows a busy controller: leave it five times as long in peace.
_GAP_PER_DURATION = 5.0
_LONGEST_GAP_S = 600.0
# What the Hub asks for, by the names that people read.
_NAMES = {NODES: _("nodes"), WAITING: _("waiting jobs"), OPEN: _("open partitions")}


@dataclass(frozen=True, slots=True)
class Free:
    """What one partition has at the moment.

    With `whole_cluster` the scheduler does not tie nodes to partitions, and these are all of them.
    `nodes` are counts by state. Cores and GPUs are those of nodes that take jobs; GPUs by type, "any" for those
    without one. `idle_gpus` lacks a type of which the scheduler does not tell how many are in use. `widest_cores` and
    `widest_memory` (MiB; None: not known) are the most that one node has idle.
    """

    nodes: Mapping[NodeState, int] = field(default_factory=dict)
    cores: int = 0
    idle_cores: int = 0
    gpus: Mapping[str, int] = field(default_factory=dict)
    idle_gpus: Mapping[str, int] = field(default_factory=dict)
    widest_cores: int = 0
    widest_memory: int | None = None
    whole_cluster: bool = False


Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Part(Generic[Value]):
    """One answer and when it was asked for, in seconds since 1970."""

    value: Value
    at: float


@dataclass(frozen=True, slots=True)
class Facts:
    """The newest answers by partition, each None until the scheduler has given one or where it never does.

    `failed` names the questions that the scheduler did not answer the last time.
    """

    free: Part[Mapping[str, Free]] | None = None
    queued: Part[Mapping[str, Queued]] | None = None
    open: Part[Mapping[str, bool]] | None = None
    failed: tuple[str, ...] = ()

    @property
    def oldest_at(self) -> float:
        """When the oldest of the answers was asked for, in seconds since 1970; 0 where there is none."""
        return min((part.at for part in (self.free, self.queued, self.open) if part is not None), default=0.0)


def sum_up(nodes: Iterable[Node], partitions: Sequence[str]) -> dict[str, Free]:
    """Nodes by partition; one that names no partition counts for all of `partitions`."""
    sums: dict[str, _Sum] = {}
    for node in nodes:
        for name in partitions if node.partitions is None else node.partitions:
            sums.setdefault(name, _Sum()).add(node)
    return {name: one.result() for name, one in sums.items()}


class _Sum:
    def __init__(self) -> None:
        self._nodes: dict[NodeState, int] = {}
        self._cores = self._idle_cores = self._widest = 0
        self._gpus: dict[str, int] = {}
        self._idle_gpus: dict[str, int] = {}
        self._memory: int | None = None
        self._uncounted: set[str] = set()
        self._whole_cluster = False

    def add(self, node: Node) -> None:
        self._nodes[node.state] = self._nodes.get(node.state, 0) + 1
        self._whole_cluster = node.partitions is None
        if not node.state.takes_jobs:
            return
        self._cores += node.cores
        self._idle_cores += node.idle_cores
        self._widest = max(self._widest, node.idle_cores)
        if node.idle_memory is not None:
            self._memory = max(self._memory or 0, node.idle_memory)
        _add(self._gpus, node.gpus)
        _add(self._idle_gpus, node.idle_gpus)
        self._uncounted.update(node.gpus.keys() - node.idle_gpus.keys())

    def result(self) -> Free:
        return Free(
            nodes=self._nodes,
            cores=self._cores,
            idle_cores=self._idle_cores,
            gpus=self._gpus,
            idle_gpus={kind: count for kind, count in self._idle_gpus.items() if kind not in self._uncounted},
            widest_cores=self._widest,
            widest_memory=self._memory,
            whole_cluster=self._whole_cluster,
        )


def _add(total: dict[str, int], counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


class Board:
    """The facts of one cluster: asked for once for all who look, never while somebody waits for a page."""

    def __init__(self, client: Client, partitions: Sequence[str], clock: Callable[[], float] = time.monotonic):
        """`partitions` are the names in the profile."""
        self._client = client
        self._partitions = tuple(partitions)
        self._clock = clock
        self._facts = Facts()
        self._asking: asyncio.Task[None] | None = None
        self._due = float("-inf")
        self._interval_s = _INTERVAL_S

    @property
    def offered(self) -> bool:
        """Whether this scheduler tells anything of its nodes."""
        return bool(self._client.scheduler.nodes_command("0"))

    @property
    def newest(self) -> Facts:
        """The newest facts, however old; nothing is asked for."""
        return self._facts

    @property
    def age_s(self) -> float:
        """How many seconds ago the oldest of the facts was asked for; not a number where there is none."""
        return time.time() - self._facts.oldest_at if self._facts.oldest_at else float("nan")

    def latest(self, interval_s: float = _INTERVAL_S) -> Facts:
        """The newest facts, at once; where they are older than `interval_s`, newer ones are asked for.

        Needs a running event loop.
        """
        self._interval_s = interval_s
        if self.offered and (self._asking is None or self._asking.done()) and self._clock() >= self._due:
            self._asking = asyncio.create_task(self._refresh())
        return self._facts

    async def fresh(self) -> Facts:
        """As `latest`, after the query that is under way, if there is one."""
        self.latest()
        if self._asking is not None:
            # Shielded: one who leaves must not take the answer from the others.
            await asyncio.shield(self._asking)
        return self._facts

    async def _refresh(self) -> None:
        begun, at = self._clock(), time.time()
        scheduler = self._client.scheduler
        parse_nodes = partial(_parsed_nodes, scheduler, self._partitions)
        free, queued, is_open = await asyncio.gather(
            self._part(NODES, scheduler.nodes_command, parse_nodes, self._facts.free, at),
            self._part(WAITING, scheduler.waiting_command, scheduler.parse_waiting, self._facts.queued, at),
            self._part(OPEN, scheduler.open_command, scheduler.parse_open, self._facts.open, at),
        )
        parts = {NODES: free, WAITING: queued, OPEN: is_open}
        failed = tuple(_NAMES[verb] for verb, (_, worked) in parts.items() if not worked)
        self._facts = Facts(free[0], queued[0], is_open[0], failed)
        took = self._clock() - begun
        self._due = self._clock() + min(max(self._interval_s, _GAP_PER_DURATION * took), _LONGEST_GAP_S)

    async def _part(
        self,
        verb: str,
        command: Callable[[str], list[str]],
        parse: Callable[[str, str], Any],
        old: Part[Any] | None,
        at: float,
    ) -> tuple[Part[Any] | None, bool]:
        """One answer, or the one before; and whether this one worked."""
        try:
            value = await self._client.parsed(verb, command, parse)
        except SchedulerError as error:
            self._client.complain(verb, f"could not find out about {_NAMES[verb]}: {error}")
            return old, False
        except Exception:
            # Whatever it was: a page without these facts is whole.
            self._client.log.log(logging.WARNING, "could not find out about %s", _NAMES[verb], exc_info=True)
            return old, False
        return (Part(value, at) if value is not None else None), True


def _parsed_nodes(scheduler: Scheduler, partitions: Sequence[str], out: str, mark: str) -> dict[str, Free]:
    return sum_up(scheduler.parse_nodes(out, mark), partitions)
