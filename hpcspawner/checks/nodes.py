"""Checks of the way to the nodes: their names, the ports of servers."""

import asyncio
import socket

from hpcspawner.checks.finding import Finding, good, not_checked, warning, wrong
from hpcspawner.errors import SchedulerError
from hpcspawner.schedulers import survey
from hpcspawner.schedulers.commands import Client
from hpcspawner.site.profile import SiteProfile

# Of a large cluster some will do: they share a name service.
_MOST = 40
_FEWEST_PORTS = 100


async def names_resolve(client: Client) -> list[Finding]:
    """Whether the Hub's machine knows the nodes by the names that the scheduler gives."""
    if client.access.api:
        return [not_checked("slurmrestd is not asked for the nodes; --submit tries one")]
    if not client.access.has_nodes or client.scheduler.inventory is None:
        return [not_checked("jobs run on the Hub's own machine")]
    try:
        nodes = (await survey.inventory(client)).nodes
    except SchedulerError:
        return [not_checked("the nodes could not be listed; see the check of the partitions")]
    step = max(1, len(nodes) // _MOST)
    some = nodes[::step]
    names = [client.access.node_name.replace("{node}", node) for node in some]
    found = await asyncio.gather(*(asyncio.to_thread(_resolves, name) for name in names))
    unknown = [name for name, known in zip(names, found, strict=True) if not known]
    if unknown:
        what = f"{len(unknown)} of {len(names)} nodes have names that this machine can't resolve, such as {unknown[0]}"
        return [wrong(what, "add them to DNS or /etc/hosts, or set scheduler.node_name, such as '{node}.cluster'")]
    return [good(f"{len(names)} names of nodes resolve")]


def _resolves(name: str) -> bool:
    try:
        return bool(socket.getaddrinfo(name, None))
    except (OSError, UnicodeError):
        return False


def ports(profile: SiteProfile) -> list[Finding]:
    """Whether there are ports enough for the servers of one node."""
    if profile.job.ports is None:
        return [not_checked("servers take any free port: the Hub must reach all of them on the nodes (job.ports)")]
    first, last = profile.job.ports
    count = last - first + 1
    if count < _FEWEST_PORTS:
        what = f"job.ports has {count} ports for all servers of a node, and for other programs there"
        return [
            warning(what, f"allow at least {_FEWEST_PORTS}, and open them in the nodes' firewall for the Hub's machine")
        ]
    found = [good(f"{count} ports from {first} to {last}")]
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            low, high = map(int, file.read().split())
    except (OSError, ValueError):
        return found
    if first <= high and last >= low:
        cure = f"choose a range outside of {low} to {high}, from which the system takes ports for outgoing connections"
        return [warning(f"job.ports {first} to {last} overlaps with the system's own range on this machine", cure)]
    return found
