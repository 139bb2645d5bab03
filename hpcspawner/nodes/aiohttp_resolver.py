"""The resolver for aiohttp, which JupyterHub uses from version 6 on and JupyterHub 5 does not bring."""

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from hpcspawner.nodes.server_names import node_behind


class NodeResolver(AbstractResolver):
    """Finds the node that a server's name holds, and any other host as always."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses as aiohttp wants them."""
        # Made here: it belongs to the loop, and the configuration is read before there is one.
        found = await ThreadedResolver().resolve(node_behind(host), port, family)
        return [{**entry, "hostname": host} for entry in found]

    async def close(self) -> None:
        """Nothing is kept open."""
