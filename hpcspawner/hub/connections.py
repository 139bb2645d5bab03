"""Open connections of one server: as many as leave the process files for its work, and no more bytes than it can keep.

A connection whose request is not whole costs a stranger nothing, whether it says nothing at all, does not finish the
TLS handshake, or stops in the middle of a body. Where there are too many of them, the oldest ones of the address that
has the most are closed. One whose request is being answered is left alone.
"""

import itertools
import resource
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from hpcspawner.nodes.limit import network

MOST_BYTES = 64 << 20
"""Bytes of bodies that are not whole yet, of all connections together."""
# Where files are plenty, memory is the limit: with TLS each connection has buffers of its own.
_MOST = 8192


def most() -> int:
    """How many connections may be open: half of the files that this process may have, the rest is for its work."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST if files == resource.RLIM_INFINITY else min(files // 2, _MOST)


@dataclass(slots=True)
class _One:
    address: str
    waits: bool = True
    since: int = 0
    kept: int = 0


@dataclass(slots=True)
class Connections:
    """Keeps count of connections, each known by any one object; says which one has to go."""

    most: int
    most_bytes: int = MOST_BYTES
    _open: dict[Hashable, _One] = field(default_factory=dict)
    _turns: "itertools.count[int]" = field(default_factory=itertools.count)
    _kept: int = 0

    def opened(self, connection: Hashable, address: str) -> Hashable | None:
        """Note a new one, at this IP address; the one to close for it, which is itself where all others are at work."""
        gone = self._longest_waiting() if len(self._open) >= self.most else None
        if gone is None and len(self._open) >= self.most:
            return connection
        self._open[connection] = _One(network(address), since=next(self._turns))
        return gone

    def waits(self, connection: Hashable) -> None:
        """Note that its next request is waited for."""
        if one := self._open.get(connection):
            self._kept -= one.kept
            one.waits, one.since, one.kept = True, next(self._turns), 0

    def keeps(self, connection: Hashable, size: int) -> Hashable | None:
        """Note that so many bytes of its body are kept; the one to close for them."""
        one = self._open.get(connection)
        if one is None:
            return None
        one.kept += size
        self._kept += size
        if self._kept <= self.most_bytes:
            return None
        return max(self._open, key=lambda other: self._open[other].kept)

    def is_whole(self, connection: Hashable) -> None:
        """Note that its request has come and is being answered."""
        if one := self._open.get(connection):
            self._kept -= one.kept
            one.waits, one.kept = False, 0

    def closed(self, connection: Hashable) -> None:
        """Forget it; again does nothing."""
        if one := self._open.pop(connection, None):
            self._kept -= one.kept

    def _longest_waiting(self) -> Hashable | None:
        waiting = {connection: one for connection, one in self._open.items() if one.waits}
        if not waiting:
            return None
        busiest, _ = Counter(one.address for one in waiting.values()).most_common(1)[0]
        return min((key for key, one in waiting.items() if one.address == busiest), key=lambda key: waiting[key].since)
