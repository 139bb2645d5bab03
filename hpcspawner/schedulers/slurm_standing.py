"""What Slurm lets single users choose: sacctmgr and `scontrol show reservation`."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from hpcspawner.schedulers.standing import EVERYWHERE, Listed, Member, Reservation, StandingReader

_ASSOCIATIONS = ("cluster", "account", "parentname", "user", "partition", "qos", "defaultqos")
_DEFAULTS = ("user", "defaultaccount")
_SACCTMGR = ("sacctmgr", "--noheader", "--parsable2", "show")
_CLUSTER = re.compile(r"^ClusterName\s*=\s*(\S+)", re.MULTILINE | re.ASCII)
_NONE_THERE = "No reservations in the system"
# Only administrators write any of it. What comes later may be a comment.
_FIELDS = re.compile(
    r"(?:^|\s)(ReservationName|StartTime|EndTime|Nodes|PartitionName|Flags|Users|Groups|Accounts|State)=(\S*)", re.ASCII
)
_NOTHING = frozenset({"", "(null)", "N/A"})


class _Row(NamedTuple):
    cluster: str
    account: str
    parent: str
    user: str
    partition: str
    qos: str
    default_qos: str


class SlurmStanding(StandingReader):
    """Associations of all users in one answer, with the accounts above theirs; reservations, hidden ones too."""

    accounts_commands = {
        "associations": (*_SACCTMGR, "associations", f"format={','.join(_ASSOCIATIONS)}"),
        "defaults": (*_SACCTMGR, "user", f"format={','.join(_DEFAULTS)}"),
        # The accounting may serve several clusters.
        "cluster": ("scontrol", "show", "config"),
    }
    reservations_command = ("scontrol", "--all", "--oneliner", "show", "reservation")

    def parse_accounts(self, outs: Mapping[str, str]) -> Mapping[str, Member]:
        """Raises ValueError for rows with other columns, and where none is of this cluster."""
        name = _CLUSTER.search(outs["cluster"])
        if not name:
            raise ValueError("scontrol does not name the cluster")
        rows = [row for row in _rows(outs["associations"]) if row.cluster == name[1].lower()]
        if not rows:
            raise ValueError(f"sacctmgr has no association on the cluster {name[1]}")
        above = _above({row.account: row.parent for row in rows if not row.user})
        accounts: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {}
        for row in rows:
            if row.user:
                places = accounts.setdefault(row.user, {}).setdefault(row.account, {})
                places[row.partition or EVERYWHERE] = _qos(row)
        defaults = dict(_pairs(outs["defaults"]))
        return {
            user: Member(
                accounts=of_user,
                default=defaults.get(user, "") if defaults.get(user, "") in of_user else "",
                above={one: above[one] for one in of_user if above.get(one)},
            )
            for user, of_user in accounts.items()
        }

    def parse_reservations(self, out: str) -> tuple[Reservation, ...]:
        """Raises ValueError where the answer is neither a list nor says that there is none."""
        lines = [line for line in out.splitlines() if line.strip()]
        if not lines or lines[0].strip().startswith(_NONE_THERE):
            return ()
        return tuple(_reservation(line) for line in lines)


def _rows(out: str) -> Iterator[_Row]:
    for line in out.splitlines():
        columns = line.split("|")
        if len(columns) != len(_ASSOCIATIONS):
            raise ValueError(f"sacctmgr printed this instead of an association: {line[:100]!r}")
        yield _Row(*(column.strip() for column in columns))


def _pairs(out: str) -> Iterator[tuple[str, str]]:
    for line in out.splitlines():
        user, _, account = line.strip().partition("|")
        yield user, account


def _above(parents: Mapping[str, str]) -> dict[str, frozenset[str]]:
    """All accounts over each; a circle, which Slurm does not allow, ends the search."""
    found: dict[str, frozenset[str]] = {}
    for account in parents:
        over: list[str] = []
        one = parents[account]
        while one and one not in over:
            over.append(one)
            one = parents.get(one, "")
        found[account] = frozenset(over)
    return found


def _qos(row: _Row) -> tuple[str, ...]:
    """What sacctmgr lists is what counts, inherited ones among it; with a sign it is a change to an unknown list."""
    names = [one for one in row.qos.split(",") if one]
    if any(one[0] in "+-" for one in names):
        return ()
    return tuple(dict.fromkeys([*names, *([row.default_qos] if names and row.default_qos else [])]))


def _reservation(line: str) -> Reservation:
    said: dict[str, str] = {}
    for name, value in _FIELDS.findall(line):
        said.setdefault(name, "" if value in _NOTHING else value)
    if not said.get("ReservationName"):
        raise ValueError(f"scontrol printed this instead of a reservation: {line[:100]!r}")
    return Reservation(
        name=said["ReservationName"],
        starts_at=_time(said.get("StartTime", "")),
        ends_at=_time(said.get("EndTime", "")),
        partition=said.get("PartitionName", ""),
        nodes=said.get("Nodes", ""),
        users=_listed(said.get("Users", "")),
        accounts=_listed(said.get("Accounts", "")),
        groups=bool(said.get("Groups")),
        flags=frozenset(filter(None, said.get("Flags", "").split(","))),
    )


def _time(text: str) -> float:
    """In the cluster's own time, which is the Hub's, as seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()


def _listed(text: str) -> Listed:
    """`alice,bob`, or `-alice,-bob` for all but these."""
    names = [one for one in text.split(",") if one]
    excluded = any(one.startswith("-") for one in names)
    return Listed(frozenset(one.lstrip("+-") for one in names), excluded)
