"""Teaches the Hub's HTTP client and its proxy where the names of servers lead, by hooks that are there for this.

JupyterHub 6 asks by aiohttp, JupyterHub 5 by tornado, and the proxy is a program of Node.js. Where a site has wildcard
DNS for a zone of its own, none of it is needed.
"""

import ipaddress
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jupyterhub
from jupyterhub.app import JupyterHub
from tornado.httpclient import AsyncHTTPClient
from tornado.netutil import DefaultLoopResolver, Resolver
from traitlets.config.loader import DeferredConfig, LazyConfigValue

from hpcspawner.errors import more
from hpcspawner.nodes.server_names import node_behind

HOOK = Path(__file__).parent / "proxy" / "names.js"
"""What the proxy loads."""
_PROXY = ["configurable-http-proxy"]


class NodeResolver(DefaultLoopResolver):
    """For tornado's HTTP client, which JupyterHub 5 uses."""

    async def resolve(self, host: str, port: int, family: Any = 0) -> list[tuple[int, Any]]:
        """Addresses of the node that a server's name holds, or of any other host."""
        return await super().resolve(node_behind(host), port, family)


def install_resolvers(c: Any) -> None:
    """Have the Hub's HTTP client and its proxy look for the node in a server's name."""
    Resolver.configure(NodeResolver)
    if jupyterhub.version_info[0] >= 6:
        # aiohttp is none of JupyterHub 5's.
        from hpcspawner.nodes.aiohttp_resolver import NodeResolver as ForAiohttp  # noqa: PLC0415

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


def is_required(word: str) -> bool:
    """Whether a word of the proxy's command has the proxy load our hook."""
    return _required() in word


def missing_resolver(app: JupyterHub) -> str:
    """What in this Hub does not know where the servers of our zone are, and what to do about it; "" if all do."""
    if jupyterhub.version_info[0] < 6 and AsyncHTTPClient.configured_class().__name__ == "CurlAsyncHTTPClient":
        return "JupyterHub 5 uses pycurl where it is installed, and pycurl has its own resolver: uninstall it"
    command = getattr(app.proxy, "command", None)
    if command is None:
        return f"the proxy is a {type(app.proxy).__name__}, which has its own resolver"
    if not app.proxy.should_start:
        # Another program starts the proxy, so the Hub can't see how.
        app.log.warning(
            "hpcspawner: the Hub does not start the proxy itself. Start the proxy with the environment variable "
            "NODE_OPTIONS=%s, or it can't reach any server.%s",
            node_options(),
            more("proxy-hook"),
        )
        return ""
    if not any(is_required(str(word)) for word in command):
        return (
            "ConfigurableHTTPProxy.command was overwritten after hpcspawner.configure() added its hook: set it "
            "before calling configure()"
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
