"""What a cluster of Torque or OpenPBS has: qstat, pbsnodes."""

import json
import re
from collections.abc import Mapping
from typing import Any

from hpcspawner.schedulers.inventory import Inventory, InventoryReader, PartitionLimits, largest
from hpcspawner.schedulers.pbs_facts import mebibytes, torque_fields
from hpcspawner.site.profile import ANY_GPU
from hpcspawner.units import Memory, Walltime

# What pbsnodes says of every node, and no user chooses by.
_NO_FEATURES = frozenset({"arch", "host", "mem", "ncpus", "vnode", "ngpus", "naccelerators", "hbmem"})
# A node without jobs may still be one that takes none.
_AWAY = ("down", "offline", "unknown")

_NOTE = "PBS does not say which nodes a queue has: max_cpus, max_memory and gpus are those of the largest node of all"

_Queues = dict[str, dict[str, str]]


class TorqueInventory(InventoryReader):
    """Queues by `qstat -Q -f`, nodes by the XML of pbsnodes. Torque does not say which nodes a queue has."""

    commands = {"queues": ("qstat", "-Q", "-f"), "nodes": ("pbsnodes", "-x")}
    version_command = ("qstat", "--version")
    oldest = (6, 1)

    def parse(self, outs: Mapping[str, str]) -> Inventory:
        """Raises ValueError for what is not XML."""
        nodes = list(torque_fields(outs["nodes"]))
        names = tuple(node.get("name", "") for node in nodes)
        return _inventory(_queues_in_text(outs["queues"]), [_of_torque(node) for node in nodes], names)


class OpenPBSInventory(InventoryReader):
    """Queues and nodes by JSON."""

    commands = {
        "queues": ("qstat", "-Q", "-f", "-F", "json"),
        "nodes": ("pbsnodes", "-a", "-F", "json"),
    }
    version_command = ("qstat", "--version")
    oldest = (19, 1)

    def parse(self, outs: Mapping[str, str]) -> Inventory:
        """Raises ValueError for what is not JSON."""
        queues = json.loads(outs["queues"], strict=False).get("Queue", {})
        nodes = json.loads(outs["nodes"], strict=False).get("nodes", {})
        flat = {name: _flat(values) for name, values in queues.items()}
        return _inventory(flat, [_of_openpbs(node) for node in nodes.values()], tuple(nodes))


def _queues_in_text(out: str) -> _Queues:
    """Queues by name; a value that is too long goes on after a tab."""
    queues: _Queues = {}
    values: dict[str, str] = {}
    for line in out.replace("\n\t", "").splitlines():
        if line.startswith("Queue: "):
            values = queues.setdefault(line.removeprefix("Queue: ").strip(), {})
        elif " = " in line:
            name, _, value = line.strip().partition(" = ")
            values.setdefault(name, value)
    return queues


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    """`{"resources_max": {"walltime": …}}` as `resources_max.walltime`, in the words of the text."""
    flat: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": str(text) for inner, text in value.items()}
        else:
            flat[name] = str(value)
    return flat


def _of_torque(node: Mapping[str, str]) -> PartitionLimits:
    status = dict(pair.split("=", 1) for pair in node.get("status", "").split(",") if "=" in pair)
    return PartitionLimits(
        name="",
        is_up=not any(word in node.get("state", "") for word in _AWAY),
        cpus=int(node["np"]) if node.get("np", "").isdecimal() else None,
        memory=_memory(status.get("physmem", "")),
        gpus=_gpus(node.get("gpus", "")),
        features=tuple(one for one in node.get("properties", "").split(",") if one),
    )


def _of_openpbs(node: Mapping[str, Any]) -> PartitionLimits:
    has = node.get("resources_available", {})
    return PartitionLimits(
        name="",
        is_up=not any(word in str(node.get("state", "")) for word in _AWAY),
        cpus=int(has["ncpus"]) if str(has.get("ncpus", "")).isdecimal() else None,
        memory=_memory(str(has.get("mem", ""))),
        gpus=_gpus(str(has.get("ngpus", ""))),
        features=tuple(name for name, value in has.items() if value == "True" and name not in _NO_FEATURES),
    )


def _gpus(count: str) -> dict[str, int]:
    return {ANY_GPU: int(count)} if count.isdecimal() and int(count) else {}


def _inventory(queues: _Queues, nodes: list[PartitionLimits], names: tuple[str, ...]) -> Inventory:
    execution = {name: one for name, one in queues.items() if one.get("queue_type", "Execution") == "Execution"}
    if not execution:
        raise ValueError("qstat lists no queue that runs jobs")
    size = largest(nodes) if nodes else PartitionLimits("")
    return Inventory(tuple(_queue(name, one, size) for name, one in execution.items()), names, note=_NOTE)


def _queue(name: str, values: Mapping[str, str], size: PartitionLimits) -> PartitionLimits:
    most = {key: values.get(f"resources_max.{key}", "") for key in ("walltime", "nodect", "ncpus", "mem", "ngpus")}
    return PartitionLimits(
        name=name,
        is_up=values.get("enabled") == values.get("started") == "True",
        max_walltime=_walltime(most["walltime"]),
        max_nodes=int(most["nodect"]) if most["nodect"].isdecimal() else None,
        cpus=int(most["ncpus"]) if most["ncpus"].isdecimal() else size.cpus,
        memory=_memory(most["mem"]) or size.memory,
        gpus=_gpus(most["ngpus"]) or size.gpus,
        features=size.features,
    )


def _walltime(text: str) -> Walltime | None:
    match = re.fullmatch(r"(?:(\d{1,6}):)?(?:(\d{1,2}):)?(\d{1,9})", text, re.ASCII)
    if not match:
        return None
    parts = [int(part) for part in text.split(":")]
    total = sum(part * length for part, length in zip(reversed(parts), (1, 60, 3600), strict=False))
    return Walltime(total) if total else None


def _memory(text: str) -> Memory | None:
    mib = mebibytes(text)
    return Memory(mib) if mib else None
