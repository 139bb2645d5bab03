"""What one user may choose of what a site offers, by the scheduler's own accounting; what is not known is no limit."""

import time
from dataclasses import dataclass
from typing import Any

from hpcspawner.language import _
from hpcspawner.schedulers.standing import Member, Reservation
from hpcspawner.schedulers.standings import Standings
from hpcspawner.site.profile import Partition

# Reservations that begin later are not listed; they may be named.
_SOON_S = 7 * 24 * 3600


@dataclass(frozen=True, slots=True)
class Own:
    """One user's standing: `user` is the account on the cluster, `member` its accounts, None where not known.

    `reservations` are all that the cluster has, whoever may use them.
    """

    user: str = ""
    member: Member | None = None
    reservations: tuple[Reservation, ...] = ()

    def no_account(self, account: str, partition: Partition) -> str:
        """Why jobs in this partition can't be charged to an account; "" where they can, or where that is not known."""
        if self.member is None or self.member.may_charge(account, _name(partition)):
            return ""
        if not self.member.may_charge(account, None):
            return _("you are not a member of it")
        places = ", ".join(sorted(self.member.accounts[account.lower()]))
        return _("you may use it only in {partitions}", partitions=places)

    def no_qos(self, qos: str, account: str, partition: Partition) -> str:
        """Why a QOS can't be had with an account ("": the user's default one)."""
        allowed = self.member.qos(account, partition.name) if self.member else ()
        if not allowed or qos.lower() in allowed:
            return ""
        charged = account or (self.member.default if self.member else "")
        return _("the account {account} may use: {allowed}", account=repr(charged), allowed=", ".join(allowed))

    def no_reservation(self, name: str, account: str) -> str:
        """Why a reservation can't be used. One that is another's looks like one that is not there."""
        found = next((one for one in self.reservations if one.name == name), None)
        if found is None or found.admits(self.user, self.member, account):
            return ""
        if account and found.admits(self.user, self.member):
            return _("not with the account {account}", account=repr(account))
        return _("there is none of this name that you may use")

    def usable(self) -> list[Reservation]:
        """Reservations that the user may use now or soon, the first to begin first."""
        now = time.time()
        listed = (one for one in self.reservations if one.ends_at > now and one.starts_at < now + _SOON_S)
        return sorted(
            (one for one in listed if one.admits(self.user, self.member)), key=lambda one: (one.starts_at, one.name)
        )


NOT_KNOWN = Own()
"""Of whom nothing is known."""


def of_user(standings: Standings, user: str) -> Own:
    """What is known at the moment of an account on the cluster; nothing is asked for."""
    accounts, reservations = standings.accounts, standings.reservations
    # The accounting knows names in small letters.
    member = accounts.part.value.get(user.lower()) if accounts and accounts.part else None
    return Own(user, member, reservations.part.value if reservations and reservations.part else ())


def as_data(own: Own) -> dict[str, Any] | None:
    """The same for a browser: accounts with QOS by partition, "" for all of them; None where nothing is known."""
    if own.member is None:
        return None
    accounts = {name: {place: list(qos) for place, qos in rows.items()} for name, rows in own.member.accounts.items()}
    return {"default": own.member.default, "accounts": accounts}


def _name(partition: Partition) -> str | None:
    """What the scheduler is told; of a partition that it chooses itself, None."""
    return None if partition.form_only else partition.name
