"""What a scheduler's accounting lets single users choose: their accounts with QOS, and reservations."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

EVERYWHERE = ""
"""Stands for all partitions in `Member.accounts`."""


@dataclass(frozen=True, slots=True)
class Member:
    """What the accounting has of one user.

    `accounts` are by name, each with the QOS that it may use, by partition or `EVERYWHERE`; no QOS: not known.
    `default` is the account of a job that names none, "" where that is not known. `above` are the accounts over each.
    """

    accounts: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)
    default: str = ""
    above: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def may_charge(self, account: str, partition: str | None) -> bool:
        """Whether jobs in this partition (None: in some) may be charged to the account."""
        places = self.accounts.get(account.lower(), {})
        return bool(places) and (partition is None or EVERYWHERE in places or partition in places)

    def qos(self, account: str, partition: str) -> tuple[str, ...]:
        """The QOS that may be asked for; empty where that is not known."""
        places = self.accounts.get((account or self.default).lower(), {})
        return places.get(partition, places.get(EVERYWHERE, ()))

    def lineage(self, account: str) -> frozenset[str]:
        """The account and those above it."""
        return frozenset({account.lower()}).union(self.above.get(account.lower(), ()))


@dataclass(frozen=True, slots=True)
class Listed:
    """A list of names that may or, with `excluded`, may not; an empty one says nothing."""

    names: frozenset[str] = frozenset()
    excluded: bool = False

    def admits(self, names: Iterable[str]) -> bool:
        """Whether somebody with one of these names may, by this list alone."""
        return not self.names or self.names.isdisjoint(names) == self.excluded


@dataclass(frozen=True, slots=True)
class Reservation:
    """Nodes that are set aside from `starts_at` to `ends_at` (seconds since 1970).

    `partition` is "" for none, `nodes` as the scheduler writes them. With `groups` the members of groups of the system
    may use it, which is not known here.
    """

    name: str
    starts_at: float
    ends_at: float
    partition: str = ""
    nodes: str = ""
    users: Listed = Listed()
    accounts: Listed = Listed()
    groups: bool = False
    flags: frozenset[str] = frozenset()

    def admits(self, user: str, member: Member | None, account: str = "") -> bool:
        """Whether this user may use it, with this account or ("") some account; True where that is not known."""
        if self.groups:
            return True
        accounts = [account] if account else (member.accounts if member else ())
        by_account = member is None or any(self.accounts.admits(member.lineage(one)) for one in accounts)
        return self.users.admits([user]) and by_account


class StandingReader(ABC):
    """How one scheduler is asked for it: commands by name, run under the Hub's own account, and their parsers."""

    accounts_commands: Mapping[str, tuple[str, ...]] = {}
    """argv by name; empty where it has no accounts."""

    reservations_command: tuple[str, ...] = ()
    """argv; empty where it has no reservations."""

    @abstractmethod
    def parse_accounts(self, outs: Mapping[str, str]) -> Mapping[str, Member]:
        """The users by name. Raises ValueError for what can't be trusted."""

    @abstractmethod
    def parse_reservations(self, out: str) -> tuple[Reservation, ...]:
        """All of them. Raises ValueError for what can't be trusted."""
