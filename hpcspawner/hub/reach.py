"""Whether a server on a node can be reached."""

import asyncio
import contextlib

from jupyterhub.utils import wait_for_http_server

_PROBE_S = 5.0
_NOT_FOUND = 404


async def answers(url: str) -> bool:
    """Whether a server answers there within a few seconds, and knows the place: another one on that port would not."""
    # Its own limit counts only between two tries, and one try may hang on a node that is cut off.
    with contextlib.suppress(Exception):
        async with asyncio.timeout(_PROBE_S):
            response = await wait_for_http_server(url, timeout=_PROBE_S)
            # JupyterHub 6 and 5 use different HTTP clients.
            return (response.status if hasattr(response, "status") else response.code) != _NOT_FOUND
    return False


async def accepts(host: str, port: int) -> bool:
    """Whether somebody takes connections there: the cheapest sign of life."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return True
    return False


def place(node_name: str, host: str) -> str:
    """The node's name as the Hub resolves it."""
    return node_name.replace("{node}", host)
