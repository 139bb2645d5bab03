"""Whether a server on a node can be reached.

By asyncio alone: HTTP clients that bring a resolver of their own may ask the machine's user and host database on the
loop, which then stands still for as long as that database is silent.
"""

import asyncio
import contextlib

_PROBE_S = 5.0
_NOT_FOUND = b"404"


async def answers(host: str, port: int, path: str) -> bool:
    """Whether a server answers there within a few seconds, and knows the place: another one on that port would not."""
    with contextlib.suppress(OSError):
        async with asyncio.timeout(_PROBE_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                version, status = (await reader.readline()).split()[:2]
            except ValueError:
                return False
            finally:
                writer.close()
            return version.startswith(b"HTTP/") and status != _NOT_FOUND
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
