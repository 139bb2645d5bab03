"""What Slurm says of its nodes, partitions and waiting jobs: `scontrol show node`, sinfo, squeue."""

import io
import re
from collections.abc import Collection, Iterator
from datetime import datetime

from hpcspawner.schedulers.base import Answer, Scheduler
from hpcspawner.schedulers.nodes import Estimate, Node, NodeState, Queued, state_by_use
from hpcspawner.site.profile import ANY_GPU

# Text for people too, but no user writes any of it. One line for each node, whatever the number of its partitions;
# sinfo has one for each pair, and pads each field to its full width.
_NODES_COMMAND = ("scontrol", "--all", "--details", "--oneliner", "show", "node")
_OPEN_COMMAND = ("sinfo", "--all", "--noheader", "--format=%R|%a")
_WAITING_COMMAND = ("squeue", "--all", "--noheader", "--states=PENDING", "--format=%i|%P|%Q")

_TO_START = re.compile(
    r"^sbatch: Job \d+ to start at (\d{9,12}|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\b", re.MULTILINE | re.ASCII
)
_REFUSED = re.compile(r"^(?:sbatch: )?(?:error: )?allocation failure: (.*)$", re.MULTILINE)
_NODE = re.compile(r"NodeName=\S+ ", re.ASCII)
_FIELDS = re.compile(
    r"(?:^|\s)(CPUAlloc|CPUEfctv|CPUTot|Gres|GresUsed|RealMemory|AllocMem|State|Partitions)=(\S*)", re.ASCII
)
# `gpu:4`, `gpu:v100:4(S:0-1)`, `gpu:1g.5gb:2(IDX:0,2)`; other resources than GPUs are left out.
_GPUS = re.compile(r"(?:^|,)gpu(?::([^:,()]+))?:(\d{1,6})(?=[,(]|$)", re.ASCII)
_IN_BRACKETS = re.compile(r"\([^)]*\)")
# Words of a node's state with which it takes no job, whatever else stands there.
_AWAY = frozenset(
    {
        *("DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILING", "FUTURE", "INVALID", "INVALID_REG"),
        *("MAINT", "MAINTENANCE", "NOT_RESPONDING", "NO_RESPOND", "REBOOT", "REBOOT_ISSUED", "REBOOT_REQUESTED"),
        *("POWERING_DOWN", "POWER_DOWN", "BLOCKED"),
    }
)
_PRESENT = frozenset({"IDLE", "MIXED", "ALLOCATED", "COMPLETING", "PLANNED"})


class SlurmFacts(Scheduler):
    """The part of Slurm that tells what is free, who waits, and when a job could start."""

    estimate_words: tuple[str, ...] = ("--test-only",)

    def parse_estimate(self, answer: Answer) -> Estimate:
        """`Job 12 to start at 2026-11-26T23:25:13 using …`, or why it would not be taken."""
        return parse_estimate(answer)

    def nodes_command(self, mark: str) -> list[str]:
        """One line for each node."""
        return list(_NODES_COMMAND)

    def parse_nodes(self, out: str, mark: str) -> Iterator[Node]:
        """With GPUs by type."""
        return parse_nodes(out)

    def waiting_command(self, mark: str) -> list[str]:
        """One line for each waiting job, of fields that no user writes."""
        return list(_WAITING_COMMAND)

    def parse_waiting(self, out: str, mark: str) -> dict[str, Queued]:
        """In the order of their priorities."""
        return parse_waiting(out)

    def open_command(self, mark: str) -> list[str]:
        """One line for each partition."""
        return list(_OPEN_COMMAND)

    def parse_open(self, out: str, mark: str) -> dict[str, bool]:
        """A partition that is down, drained or inactive starts no job."""
        return parse_open(out)


def parse_estimate(answer: Answer) -> Estimate:
    """sbatch's line on standard error. Where sudo has dropped the variable for numbers, it is in the Hub's own time."""
    if match := _TO_START.search(answer.err):
        at = match[1]
        return Estimate(datetime.fromtimestamp(int(at)) if at.isdecimal() else datetime.fromisoformat(at))
    refusal = _REFUSED.search(answer.err)
    if answer.code and refusal:
        return Estimate(datetime.now(), refusal[1].strip())
    raise ValueError(f"sbatch does not say when the job could start: {answer.message[:200]}")


def parse_nodes(out: str) -> Iterator[Node]:
    """Node by node, so that no step takes long. Raises ValueError where no line describes a node."""
    found = False
    for line in io.StringIO(out):
        if _NODE.match(line):
            found = True
            yield _node(line)
    if not found:
        raise ValueError(f"scontrol describes no node: {out[:200]!r}")


def _node(line: str) -> Node:
    said: dict[str, str] = {}
    for name, value in _FIELDS.findall(line):
        # What comes later may be an operator's remark.
        said.setdefault(name, value)
    cores = _number(said.get("CPUEfctv") or said.get("CPUTot", ""))
    idle = max(cores - _number(said.get("CPUAlloc", "")), 0)
    gpus, used = gpus_of(said.get("Gres", "")), gpus_of(said.get("GresUsed", ""))
    memory = _number(said.get("RealMemory", "")) - _number(said.get("AllocMem", ""))
    return Node(
        partitions=tuple(filter(None, said.get("Partitions", "").split(","))),
        state=_state(said.get("State", ""), cores, idle),
        cores=cores,
        idle_cores=idle,
        idle_memory=max(memory, 0) if said.get("RealMemory") else None,
        gpus=gpus,
        idle_gpus=left(gpus, used) if "GresUsed" in said else {},
    )


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0


def _state(text: str, cores: int, idle: int) -> NodeState:
    """`IDLE`, `MIXED+PLANNED`, `DOWN*+DRAIN`: a base, flags, and a star for a node that does not respond."""
    return state_of(set(text.replace("*", "+NOT_RESPONDING").strip("~#!%$@^-").split("+")), cores, idle)


def state_of(words: Collection[str], cores: int, idle: int) -> NodeState:
    """What a node's base state and flags come to."""
    words = set(words)
    if words & _AWAY:
        return NodeState.DOWN
    if "RESERVED" in words:
        return NodeState.RESERVED
    return state_by_use(cores, idle) if words & _PRESENT else NodeState.UNKNOWN


def gpus_of(text: str) -> dict[str, int]:
    """GPUs by type, of `gpu:v100:4(S:0-1),lscratch:100`; those without a type are `any`."""
    counts: dict[str, int] = {}
    for kind, count in _GPUS.findall(_IN_BRACKETS.sub("", text)):
        counts[kind or ANY_GPU] = counts.get(kind or ANY_GPU, 0) + int(count)
    return {kind: count for kind, count in counts.items() if count}


def left(gpus: dict[str, int], used: dict[str, int]) -> dict[str, int]:
    """What is idle of each type. Where one of the two texts has no types, only the sum can be told."""
    if set(used) <= set(gpus):
        return {kind: max(count - used.get(kind, 0), 0) for kind, count in gpus.items()}
    if len(gpus) == 1:
        return {kind: max(count - sum(used.values()), 0) for kind, count in gpus.items()}
    return {}


def parse_open(out: str) -> dict[str, bool]:
    """Whether each partition starts jobs. Raises ValueError where none is named."""
    rows = [line.rpartition("|") for line in out.splitlines() if "|" in line]
    if not rows:
        raise ValueError(f"sinfo names no partition: {out[:200]!r}")
    return {name: word.strip() == "up" for name, _, word in rows}


def parse_waiting(out: str) -> dict[str, Queued]:
    """The waiting jobs by partition. A job that may run in several of them waits in each."""
    order: dict[str, list[tuple[int, int, str]]] = {}
    for position, line in enumerate(io.StringIO(out)):
        job_id, partitions, priority = _row(line)
        for name in partitions.split(","):
            order.setdefault(name, []).append((-priority, position, job_id))
    return {name: Queued(len(jobs), tuple(job_id for *_, job_id in sorted(jobs))) for name, jobs in order.items()}


def _row(line: str) -> tuple[str, str, int]:
    job_id, first, rest = line.rstrip("\n").partition("|")
    partitions, second, priority = rest.rpartition("|")
    if not first or not second or not re.fullmatch(r"\d{1,20}", priority, re.ASCII):
        raise ValueError(f"not a waiting job of squeue's: {line[:200]!r}")
    return job_id, partitions, int(priority)
