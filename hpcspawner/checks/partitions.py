"""Checks of the profile against what the cluster has: partitions, limits, accounts, QOS."""

import difflib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from hpcspawner.checks.finding import Finding, good, not_checked, warning, wrong
from hpcspawner.schedulers import survey
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.inventory import Inventory, PartitionLimits
from hpcspawner.site.profile import ANY_GPU, Partition, SiteProfile


async def compare(client: Client, profile: SiteProfile) -> list[Finding]:
    """Every difference that users would meet, each at its place in the profile."""
    if client.access.api:
        return [not_checked("slurmrestd is not asked for them; run check on the head, without scheduler.api")]
    if client.scheduler.inventory is None:
        return [not_checked(f"{client.scheduler.name} has no partitions of its own")]
    inventory = await survey.inventory(client)
    return list(differences(profile, inventory)) or [
        good(f"{', '.join(one.name for one in profile.partitions)}: as the cluster has them")
    ]


def differences(profile: SiteProfile, inventory: Inventory) -> Iterator[Finding]:
    """What the profile offers and the cluster does not have."""
    for number, partition in enumerate(profile.partitions, 1):
        if partition.form_only:
            continue
        place = f"partitions[{number}] ({partition.name})"
        there = inventory.partition(partition.name)
        if there is None:
            known = [one.name for one in inventory.partitions]
            yield wrong(
                f"{place}: the cluster has no partition of this name",
                f"{_nearest(partition.name, known)}it has: {_some(known)}",
            )
            continue
        yield from _state(place, there)
        yield from _limits(place, partition, there)
        yield from _names(place, partition, there, inventory)
    yield from _unknown("accounts", "account", profile.accounts, inventory.accounts)


def _state(place: str, there: PartitionLimits) -> Iterator[Finding]:
    if not there.is_up:
        yield warning(
            f"{place}: the partition takes no jobs, or starts none, at the moment",
            "set it up, or take it out of the profile",
        )


def _limits(place: str, partition: Partition, there: PartitionLimits) -> Iterator[Finding]:
    limits: list[tuple[str, Any, Any]] = [
        ("max_walltime", partition.max_walltime, there.max_walltime),
        ("max_nodes", partition.max_nodes, there.max_nodes),
    ]
    if not partition.whole_nodes:
        limits += [("max_cpus", partition.max_cpus, there.cpus), ("max_memory", partition.max_memory, there.memory)]
    for key, ours, theirs in limits:
        if ours is not None and theirs is not None and ours > theirs:
            yield wrong(f"{place}.{key}: {ours} is more than the cluster allows ({theirs})", f"write {theirs} or less")
    for kind, count in partition.gpus.items():
        has = max(there.gpus.values(), default=0) if kind == ANY_GPU else there.gpus.get(kind)
        if not has:
            kinds = _some([f"{name} = {number}" for name, number in there.gpus.items()])
            yield wrong(f"{place}.gpus: no node of the partition has GPUs of type {kind!r}", f"its nodes have: {kinds}")
        elif count > has:
            yield wrong(f"{place}.gpus: {kind} = {count} is more than its nodes have ({has})", f"write {has} or less")


def _names(place: str, partition: Partition, there: PartitionLimits, inventory: Inventory) -> Iterator[Finding]:
    for feature in partition.features:
        # `a|b` and `[a*2]` are expressions of Slurm's.
        if feature.replace("-", "").replace("_", "").isalnum() and feature not in there.features:
            yield wrong(f"{place}.features: no node has {feature!r}", f"its nodes have: {_some(there.features)}")
    yield from _unknown(f"{place}.accounts", "account", partition.accounts, inventory.accounts)
    yield from _unknown(f"{place}.qos", "QOS", partition.qos, inventory.qos)
    for key, ours, allowed in (("accounts", partition.accounts, there.accounts), ("qos", partition.qos, there.qos)):
        for name in ours:
            if allowed and name not in allowed:
                yield wrong(f"{place}.{key}: the partition does not allow {name!r}", f"it allows: {_some(allowed)}")


def _unknown(place: str, kind: str, names: Iterable[str], known: Collection[str] | None) -> Iterator[Finding]:
    for name in names:
        if known is not None and name not in known:
            yield wrong(
                f"{place}: the cluster has no {kind} {name!r}", f"{_nearest(name, known)}it has: {_some(sorted(known))}"
            )


def _nearest(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}? " if near else ""


def _some(names: Collection[str], most: int = 12) -> str:
    shown = list(names)[:most]
    return ", ".join(shown) + (f" and {len(names) - most} more" if len(names) > most else "") if shown else "none"
