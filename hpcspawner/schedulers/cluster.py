"""The clusters of a Hub: for each its profile, its commands and its queue."""

import logging
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from hpcspawner.errors import ProfileError
from hpcspawner.schedulers.balance import Balances
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.schedulers.facts import Board
from hpcspawner.schedulers.queue import Queue
from hpcspawner.schedulers.standings import Standings
from hpcspawner.site.profile import SiteProfile, load, parse


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all spawners of one cluster share. `source` is the text of its profile, `retired` whether it is offered."""

    profile: SiteProfile
    client: Client
    queue: Queue
    board: Board
    balances: Balances
    standings: Standings
    source: str = ""
    retired: bool = False

    @property
    def name(self) -> str:
        """What the ledger, the options and the events call it."""
        return self.profile.name

    @classmethod
    def of(cls, profile: SiteProfile, spool: Path, log: logging.Logger, source: str = "") -> Self:
        """Put the parts together; starts nothing. `spool` is the folder of the embedded scheduler."""
        client = Client(
            make_scheduler(profile.scheduler, spool, profile.job.leave_out), profile.scheduler, log, profile.directives
        )
        board = Board(client, [one.name for one in profile.partitions])
        balances = Balances(client, profile.cost.balance if profile.cost else ())
        standings = Standings(
            client,
            accounts=profile.account != "hidden" or any(one.qos for one in profile.partitions),
            reservations=profile.reservation != "hidden",
        )
        return cls(profile, client, Queue(client), board, balances, standings, source)


class Clusters:
    """The clusters of a Hub by name: those that it offers, in their order, and those whose last jobs still run."""

    def __init__(self, offered: Iterable[Cluster], make: Callable[[SiteProfile], Cluster]):
        self.offered = tuple(offered)
        self._make = make
        self._by_name = {one.name: one for one in self.offered}

    @classmethod
    def of(cls, sites: Iterable[str], spool: Path, log: logging.Logger) -> Self:
        """From the files of profiles; the first is the default. Reads files. Raises ProfileError."""
        profiles = [(load(site), Path(site).read_text(encoding="utf-8")) for site in sites]

        def folder(profile: SiteProfile) -> Path:
            # Two embedded schedulers need a folder each; the first keeps the one that it had when it was alone.
            return spool if profile.name == profiles[0][0].name else spool.with_name(f"{spool.name}-{profile.name}")

        return cls(
            [Cluster.of(profile, folder(profile), log, source) for profile, source in profiles],
            lambda profile: Cluster.of(profile, folder(profile), log),
        )

    @property
    def default(self) -> Cluster:
        """Where a server starts whose user chose no cluster."""
        return self.offered[0]

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self.offered) > 1

    def get(self, name: str) -> Cluster | None:
        """The cluster of this name, offered or retired; None where there is none."""
        return self._by_name.get(name)

    def offers(self, name: str) -> Cluster | None:
        """The cluster of this name if servers may start there."""
        return next((one for one in self.offered if one.name == name), None)

    def retire(self, name: str, source: str) -> None:
        """Know a cluster that is not offered now, by the text of its last profile. Raises ProfileError."""
        if not source:
            raise ProfileError(name, ["no profile of it was kept"])
        try:
            profile = parse(tomllib.loads(source), name)
        except tomllib.TOMLDecodeError as error:
            raise ProfileError(name, [f"is not TOML: {error}"]) from error
        made = self._make(profile.model_copy(update={"name": name}))
        self._by_name[name] = replace(made, source=source, retired=True)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self._by_name.values())
