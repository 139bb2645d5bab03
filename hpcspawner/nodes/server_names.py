"""Names of servers, each with its node inside: `j<nonce>.<node>.<zone>`.

A certificate for such a name tells two servers on one node apart, which one for the node's own name can't. No name
server knows these names: the Hub's HTTP client takes the node out of them (`resolvers.py`), and so does its proxy
(`proxy/names.js`).
"""

import ipaddress
import re

ZONE = "hpcspawner.internal"
"""Set aside for private use like everything under `internal`, so no name server will ever know it."""

_IPV6 = "v6."
# All that makes an address, for a node may be called v6 too.
_IPV6_NODE = re.compile(r"v6\.([0-9a-f]{4}(?:-[0-9a-f]{4}){7})", re.ASCII | re.IGNORECASE)


def server_name(nonce: str, node: str, zone: str) -> str:
    """The name of one server: on `node`, which is a name or an address as the Hub reaches it."""
    return f"j{nonce}.{_IPV6 + _dashed(node) if ':' in node else node}.{zone}".lower()


def node_behind(host: str) -> str:
    """The node in a server's name of our own zone; any other host as it is."""
    if not host.lower().endswith(f".{ZONE}"):
        return host
    node = host[: -len(ZONE) - 1].partition(".")[2]
    address = _IPV6_NODE.fullmatch(node)
    return address[1].replace("-", ":") if address else node or host


def _dashed(address: str) -> str:
    # In full, so that no label begins or ends with a dash.
    return ipaddress.IPv6Address(address).exploded.replace(":", "-")
