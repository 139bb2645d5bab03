"""What a Slurm cluster has: sinfo, scontrol, sacctmgr."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

from hpcspawner.schedulers.inventory import Inventory, InventoryReader, PartitionLimits, largest
from hpcspawner.schedulers.slurm_facts import gpus_of
from hpcspawner.units import Memory, Walltime

# Partition, with a star where it is the default; state, wall time, nodes of a job, CPUs, MiB, generic resources,
# features; features come last, for they may hold a bar.
_COLUMNS = ("%P", "%a", "%l", "%s", "%c", "%m", "%G", "%f")
_NOTHING = frozenset({"", "(null)", "N/A", "n/a", "ALL", "NONE"})
_CLOCK = re.compile(r"^sdiag output at .*\((\d{9,11})\)", re.MULTILINE | re.ASCII)


class SlurmInventory(InventoryReader):
    """Partitions by sinfo, and by scontrol what sinfo does not tell; accounts and QOS from the accounting."""

    commands = {
        "partitions": ("sinfo", "--all", "--exact", "--noheader", f"--format={'|'.join(_COLUMNS)}"),
        "nodes": ("sinfo", "--all", "--Node", "--noheader", "--format=%N"),
        "rules": ("scontrol", "--all", "--oneliner", "show", "partition"),
        "accounts": ("sacctmgr", "--noheader", "--parsable2", "show", "account", "format=account"),
        "qos": ("sacctmgr", "--noheader", "--parsable2", "show", "qos", "format=name"),
    }
    optional = frozenset({"rules", "accounts", "qos"})
    version_command = ("sinfo", "--version")
    oldest = (22, 5)
    clock_command = ("sdiag",)

    def parse(self, outs: Mapping[str, str]) -> Inventory:
        """Raises ValueError for a row with other columns."""
        rows: dict[str, list[PartitionLimits]] = {}
        for line in outs["partitions"].splitlines():
            row = _row(line)
            rows.setdefault(row.name, []).append(row)
        if not rows:
            raise ValueError("sinfo lists no partition")
        rules = dict(_rules(outs["rules"]))
        return Inventory(
            partitions=tuple(_ruled(largest(some), rules.get(name, {})) for name, some in rows.items()),
            nodes=tuple(dict.fromkeys(outs["nodes"].split())),
            accounts=_listed(outs["accounts"]),
            qos=_listed(outs["qos"]),
        )

    def parse_clock(self, out: str) -> float:
        """The time in sdiag's first line, which is the controller's."""
        if not (match := _CLOCK.search(out)):
            raise ValueError("sdiag does not tell the time")
        return float(match[1])


def _row(line: str) -> PartitionLimits:
    columns = line.split("|", len(_COLUMNS) - 1)
    if len(columns) != len(_COLUMNS):
        raise ValueError(f"sinfo printed this instead of a partition: {line[:100]!r}")
    name, state, walltime, nodes, cpus, memory, gres, features = (one.strip() for one in columns)
    mib = re.match(r"\d+", memory)
    return PartitionLimits(
        name=name.removesuffix("*"),
        is_default=name.endswith("*"),
        is_up=state == "up",
        max_walltime=_walltime(walltime),
        max_nodes=_count(nodes.rpartition("-")[2]),
        cpus=_count(cpus.rstrip("+")),
        memory=Memory(int(mib[0])) if mib and int(mib[0]) > 1 else None,
        gpus=gpus_of(gres),
        features=tuple(one for one in features.split(",") if one not in _NOTHING),
    )


def _walltime(text: str) -> Walltime | None:
    """As sinfo prints a limit: `30:00` is half an hour, `infinite` none."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text, re.ASCII)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    total = days * 86400 + hours * 3600 + minutes * 60 + seconds
    return Walltime(total) if total else None


def _count(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,7}", text, re.ASCII) else None


def _rules(out: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Partitions as scontrol shows them, by name. Only administrators write any of it."""
    for line in out.splitlines():
        pairs = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if "PartitionName" in pairs:
            yield pairs["PartitionName"], pairs


def _ruled(partition: PartitionLimits, rules: Mapping[str, str]) -> PartitionLimits:
    def names(key: str) -> tuple[str, ...]:
        return tuple(one for one in rules.get(key, "").split(",") if one not in _NOTHING)

    return replace(
        partition,
        max_nodes=partition.max_nodes or _count(rules.get("MaxNodes", "")),
        accounts=names("AllowAccounts"),
        qos=names("AllowQos"),
    )


def _listed(out: str) -> tuple[str, ...] | None:
    return tuple(sorted({line.strip() for line in out.splitlines() if line.strip()})) or None
