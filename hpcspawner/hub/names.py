"""Names of servers, each with its node inside: `j<nonce>.<node>.<zone>`.

A certificate for such a name tells two servers on one node apart, which one for the node's own name can't. No name
server knows these names: the Hub's HTTP clients and its proxy take the node out of them, by hooks that JupyterHub,
tornado and Node.js offer for this. Where a site has wildcard DNS for a zone of its own, no hook is needed.
"""

import ipaddress
import os
import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jupyterhub
from jupyterhub.app import JupyterHub
from tornado.httpclient import AsyncHTTPClient
from tornado.netutil import DefaultLoopResolver, Resolver
from traitlets.config.loader import DeferredConfig, LazyConfigValue

ZONE = "hpcspawner.internal"
"""Set aside for private use like everything under `internal`, so no name server will ever know it."""

_IPV6 = "v6."
# All that makes an address, for a node may be called v6 too.
_IPV6_NODE = re.compile(r"v6\.([0-9a-f]{4}(?:-[0-9a-f]{4}){7})", re.ASCII | re.IGNORECASE)
HOOK = Path(__file__).parent / "proxy" / "names.js"
"""What the proxy loads."""
_PROXY = ["configurable-http-proxy"]


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


class NodeResolver(DefaultLoopResolver):
    """For tornado's HTTP client, which JupyterHub 5 uses."""

    async def resolve(self, host: str, port: int, family: Any = 0) -> list[tuple[int, Any]]:
        """Addresses of the node that a server's name holds, or of any other host."""
        return await super().resolve(node_behind(host), port, family)


def teach(c: Any) -> None:
    """Have the Hub's HTTP client and its proxy look for the node in a server's name."""
    Resolver.configure(NodeResolver)
    if jupyterhub.version_info[0] >= 6:
        # aiohttp is none of JupyterHub 5's.
        from hpcspawner.hub.aio import NodeResolver as ForAiohttp  # noqa: PLC0415

        c.JupyterHubHTTPClient.connector_options.update({"resolver": ForAiohttp()})
    c.ConfigurableHTTPProxy.command = ["env", f"NODE_OPTIONS={node_options()}", *_command(c)]


def _command(c: Any) -> list[str]:
    """The proxy's command as the configuration has it so far, in any form that JupyterHub takes."""
    command = c.ConfigurableHTTPProxy.get("command") or _PROXY
    if isinstance(command, LazyConfigValue):
        # Words were added to the default.
        command = command.get_value(_PROXY)
    return [command] if isinstance(command, str) else list(command)


def node_options() -> str:
    """The value of NODE_OPTIONS for a proxy, with what the Hub's own environment has."""
    return f"{os.environ.get('NODE_OPTIONS', '')} {_required()}".strip()


def _required() -> str:
    """Our part of it; Node.js divides the value at spaces outside of quotes."""
    path = str(HOOK).replace("\\", "\\\\").replace('"', '\\"')
    return f'--require="{path}"'


def untaught(app: JupyterHub) -> str:
    """What in this Hub does not know where the servers of our zone are, and what to do about it; "" if all do."""
    if jupyterhub.version_info[0] < 6 and AsyncHTTPClient.configured_class().__name__ == "CurlAsyncHTTPClient":
        return "pycurl, which JupyterHub 5 uses where it is installed, has a resolver of its own: uninstall it"
    command = getattr(app.proxy, "command", None)
    if command is None:
        return f"the proxy is a {type(app.proxy).__name__}, which has a resolver of its own"
    if not app.proxy.should_start:
        # Started by somebody else, so nobody here sees how.
        app.log.warning(
            "hpcspawner: the proxy is not started by the Hub. It must be started with the environment variable "
            "NODE_OPTIONS=%s, or no server is reached.",
            node_options(),
        )
        return ""
    if not any(_required() in str(word) for word in command):
        return (
            "ConfigurableHTTPProxy.command is set after hpcspawner.configure(), which takes its part out: set it before"
        )
    return ""


class HubNames(list[str], DeferredConfig):
    """Names that the Hub's own certificate needs, for `trusted_alt_names`: those by which its servers will call it.

    Worked out when the configuration is complete, wherever in it the Hub's address stands. More may be appended.
    """

    def __init__(self, c: Any):
        earlier = c.JupyterHub.get("trusted_alt_names") or []
        super().__init__(earlier.get_value([]) if isinstance(earlier, LazyConfigValue) else earlier)
        self._c = c

    def get_value(self, trait: Any) -> list[str]:
        """What is appended, and the Hub's addresses."""
        set_ones = self._c.JupyterHub
        urls = [urlsplit(set_ones.get(name) or "").hostname for name in ("hub_bind_url", "hub_connect_url")]
        hosts = [*urls, set_ones.get("hub_connect_ip"), set_ones.get("hub_ip"), socket.gethostname()]
        return [*self, *dict.fromkeys(_alt_name(host) for host in hosts if host and host not in _ANYWHERE)]


_ANYWHERE = {"0.0.0.0", "::", "*"}  # noqa: S104 - not to bind to


def _alt_name(host: str) -> str:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return f"DNS:{host}"
    return f"IP:{host}"
