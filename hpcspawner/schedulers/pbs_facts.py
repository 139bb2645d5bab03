"""What Torque and OpenPBS say of their nodes and queues: pbsnodes and `qstat -Q`."""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import cast
from xml.etree import ElementTree

from hpcspawner.schedulers.nodes import Node, NodeState, Queued, state_by_use
from hpcspawner.site.profile import ANY_GPU

_SLICE = 65_536
_AWAY = re.compile(r"down|offline|unknown|stale|maintenance|provisioning|initializing|unresolvable|sleep", re.ASCII)
_RESERVED = re.compile(r"reserve|resv-exclusive", re.ASCII)
_SIZE = re.compile(r"(\d{1,15})(b|kb|mb|gb|tb)?", re.ASCII | re.IGNORECASE)
_MIB = {"b": 1 / 2**20, "kb": 1 / 1024, "mb": 1, "gb": 1024, "tb": 1024 * 1024, "": 1 / 2**20}
_QUEUED = re.compile(r"\b(?:Queued|Held|Waiting):(\d{1,9})", re.ASCII)


# ---- Torque


def torque_nodes(out: str) -> Iterator[Node]:
    """By pbsnodes' XML. Torque does not tie nodes to queues."""
    found = False
    for said in torque_fields(out):
        found = True
        yield _torque_node(said)
    if not found:
        raise ValueError(f"pbsnodes describes no node: {out[:200]!r}")


def torque_fields(out: str) -> Iterator[dict[str, str]]:
    """What pbsnodes' XML says of each node, read in slices, so that no step takes long."""
    if "<!" in out:
        raise ValueError("pbsnodes' XML holds a declaration")
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser(["end"])
    try:
        for start in range(0, len(out), _SLICE):
            parser.feed(out[start : start + _SLICE])
            for _, element in cast("Iterator[tuple[str, ElementTree.Element]]", parser.read_events()):
                if element.tag == "Node":
                    yield {child.tag: child.text or "" for child in element}
                    element.clear()
        parser.close()
    except ElementTree.ParseError as error:
        raise ValueError(f"pbsnodes' XML can't be read: {error}") from error


def _torque_node(said: dict[str, str]) -> Node:
    cores = _number(said.get("np", ""))
    idle = max(cores - _slots(said.get("jobs", "")), 0)
    gpus = _number(said.get("gpus", ""))
    # Only where Torque watches the GPUs does it tell which are in use.
    states = re.findall(r"gpu_state=(\w+)", said.get("gpu_status", ""))
    return Node(
        partitions=None,
        state=_state(said.get("state", ""), cores, idle),
        cores=cores,
        idle_cores=idle,
        gpus={ANY_GPU: gpus} if gpus else {},
        idle_gpus={ANY_GPU: states.count("Unallocated")} if states else {},
    )


def _slots(text: str) -> int:
    """How many cores `0-3/12.server,5/13.server` names."""
    total = 0
    for cores in re.findall(r"(?:^|,)\s*([\d,-]+)/", text, re.ASCII):
        for part in filter(None, cores.split(",")):
            low, _, high = part.partition("-")
            total += max(_number(high) - _number(low), 0) + 1 if high else 1
    return total


def torque_waiting(out: str) -> dict[str, Queued]:
    """Counts by queue, from `qstat -Q -f`; a long line goes on after a tab."""
    counts, name = {}, ""
    for line in io.StringIO(out.replace("\n\t", "")):
        if line.startswith("Queue: "):
            name = line.removeprefix("Queue: ").strip()
        elif name and line.strip().startswith("state_count ="):
            counts[name] = _queued(line)
    if not counts:
        raise ValueError(f"qstat names no queue: {out[:200]!r}")
    return counts


# ---- OpenPBS


def openpbs_nodes(out: str, mark: str) -> Iterator[Node]:
    """By pbsnodes' lines of fields, framed by the mark: JSON could be read only as a whole, which takes long."""
    found = False
    for line in io.StringIO(out):
        said = dict(field.partition("=")[::2] for field in line.rstrip("\n").split(mark))
        if "Name" in said and "state" in said:
            found = True
            yield _openpbs_node(said)
    if not found:
        raise ValueError(f"pbsnodes describes no node: {out[:200]!r}")


def _openpbs_node(said: dict[str, str]) -> Node:
    has, used = _of("resources_available", said), _of("resources_assigned", said)
    cores = _number(has("ncpus"))
    idle = max(cores - _number(used("ncpus")), 0)
    gpus = _number(has("ngpus"))
    memory = mebibytes(has("mem"))
    queues = said.get("queue") or has("Qlist")
    return Node(
        partitions=tuple(filter(None, queues.split(","))) if queues else None,
        state=_state(said["state"], cores, idle),
        cores=cores,
        idle_cores=idle,
        idle_memory=max(memory - (mebibytes(used("mem")) or 0), 0) if memory else None,
        gpus={ANY_GPU: gpus} if gpus else {},
        idle_gpus={ANY_GPU: max(gpus - _number(used("ngpus")), 0)} if gpus else {},
    )


def _of(group: str, said: dict[str, str]) -> Callable[[str], str]:
    return lambda name: said.get(f"{group}.{name}", "")


def openpbs_waiting(out: str) -> dict[str, Queued]:
    """Counts by queue, from `qstat -Q -f -F json`."""
    try:
        queues = json.loads(out)["Queue"]
        return {name: _queued(queue["state_count"]) for name, queue in queues.items()}
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"qstat names no queue: {out[:200]!r}") from error


# ---- both


def _queued(state_count: str) -> Queued:
    return Queued(sum(int(count) for count in _QUEUED.findall(state_count)))


def _state(text: str, cores: int, idle: int) -> NodeState:
    if not text or _AWAY.search(text):
        return NodeState.DOWN if text else NodeState.UNKNOWN
    if _RESERVED.search(text):
        return NodeState.RESERVED
    if "job-exclusive" in text or text == "busy":
        return NodeState.FULL
    return state_by_use(cores, idle)


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"\d{1,9}", text, re.ASCII) else 0


def mebibytes(text: str) -> int | None:
    """Of `4gb` or `1024kb`; None for what is no size."""
    match = _SIZE.fullmatch(text)
    return int(int(match[1]) * _MIB[(match[2] or "").lower()]) if match else None
