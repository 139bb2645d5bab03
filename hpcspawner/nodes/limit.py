"""How many refused calls a caller may make before it gets a short answer that is not logged.

Only refused calls are counted, so however many servers start at one address, none of them meets a limit.
"""

import ipaddress
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from hpcspawner.jobs.job import now

WINDOW_S = 60.0
"""Counts begin anew after this time."""


@dataclass(frozen=True, slots=True)
class Limited:
    """A caller was refused too often: it may call again in `retry_after_s`; `is_first` for one line in the log."""

    retry_after_s: int
    is_first: bool


@dataclass(slots=True)
class Refusals:
    """Refused calls of the last minute by caller. No more callers are kept than `in_all` says."""

    per_caller: int = 60
    in_all: float = math.inf
    clock: Callable[[], float] = now
    _began: float = -math.inf
    _counts: dict[str, int] = field(default_factory=dict)
    _all: int = 0

    def count(self, caller: str) -> Limited | None:
        """Note a refused call; None where the caller may be answered in words."""
        left_s = self._left()
        mine = self._counts.get(caller, 0)
        if mine >= self.per_caller:
            self._counts[caller] = mine + 1
            return Limited(left_s, mine == self.per_caller)
        self._all += 1
        if self._all > self.in_all:
            return Limited(left_s, self._all == self.in_all + 1)
        self._counts[caller] = mine + 1
        return None

    def is_over(self, caller: str) -> bool:
        """Whether the next refusal of this caller is one too many."""
        self._left()
        return self._counts.get(caller, 0) >= self.per_caller

    def _left(self) -> int:
        """Whole seconds until counts begin anew."""
        at = self.clock()
        if at - self._began >= WINDOW_S:
            self._began, self._all = at, 0
            self._counts.clear()
        return math.ceil(self._began + WINDOW_S - at)


def network(address: str) -> str:
    """What an address is counted as: an IPv6 host has all addresses of its /64, and may change them for each call."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found, 64), strict=False))
