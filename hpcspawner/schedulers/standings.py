"""What the users of a cluster may choose there, as its scheduler says: asked for once for all who look."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Generic, TypeVar

from hpcspawner.errors import SchedulerError
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.facts import Part
from hpcspawner.schedulers.questions import ACCOUNTS, RESERVATIONS
from hpcspawner.schedulers.standing import Member, Reservation, StandingReader

_ACCOUNTS_S = 300.0
_RESERVATIONS_S = 60.0
# A query that takes long shows a busy database: leave it five times as long in peace.
_GAP_PER_DURATION = 5.0
# An answer that is younger is not asked for again, whoever wants to be sure.
_YOUNG_S = 10.0

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """The newest answer to one question: asked for once for all who look, never while somebody waits for a page."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[Value]], interval_s: float, client: Client):
        """`ask` raises SchedulerError; `name` is what people call the answer."""
        self.name = name
        self.part: Part[Value] | None = None
        self.failed = False
        """Whether the last try gave no answer."""
        self._ask, self._interval_s, self._client = ask, interval_s, client
        self._asking: asyncio.Task[None] | None = None
        self._due = float("-inf")

    def latest(self) -> Part[Value] | None:
        """The newest answer, at once; where it is old, a newer one is asked for. Needs a running event loop."""
        if (self._asking is None or self._asking.done()) and time.monotonic() >= self._due:
            self._asking = asyncio.create_task(self._refresh())
        return self.part

    async def fresh(self) -> None:
        """Return once the question that is under way, or a new one, has been answered."""
        if not self.failed and self.part is not None and time.time() - self.part.at > _YOUNG_S:
            self._due = time.monotonic()
        self.latest()
        if self._asking is not None:
            # Shielded: one who leaves must not take the answer from the others.
            await asyncio.shield(self._asking)

    async def _refresh(self) -> None:
        begun, at = time.monotonic(), time.time()
        try:
            self.part, self.failed = Part(await self._ask(), at), False
        except (SchedulerError, ValueError) as error:
            self.failed = True
            self._client.complain(self.name, f"could not find out about {self.name}: {error}")
        except Exception:
            # Whatever it was: a page without it is whole.
            self.failed = True
            self._client.log.log(logging.WARNING, "could not find out about %s", self.name, exc_info=True)
        took = time.monotonic() - begun
        self._due = time.monotonic() + max(self._interval_s, _GAP_PER_DURATION * took)


class Standings:
    """What the users of one cluster may choose there, as far as it is known."""

    def __init__(self, client: Client, *, accounts: bool, reservations: bool):
        """`accounts` and `reservations` tell what the site offers; of the other nothing is asked."""
        self._client = client
        self._reader = client.scheduler.standing
        self.accounts: Kept[Mapping[str, Member]] | None = None
        self.reservations: Kept[tuple[Reservation, ...]] | None = None
        if self._reader and self._reader.accounts_commands and (accounts or reservations):
            self.accounts = Kept("accounts", partial(self._ask_accounts, self._reader), _ACCOUNTS_S, client)
        if self._reader and self._reader.reservations_command and reservations:
            self.reservations = Kept(
                "reservations", partial(self._ask_reservations, self._reader), _RESERVATIONS_S, client
            )

    @property
    def kept(self) -> tuple[Kept[Mapping[str, Member]] | Kept[tuple[Reservation, ...]], ...]:
        """What is asked for here."""
        return tuple(one for one in (self.accounts, self.reservations) if one is not None)

    def look(self) -> None:
        """See to it that what is old is asked for anew."""
        for one in self.kept:
            one.latest()

    async def fresh(self) -> None:
        """Return once all of it is young, or was asked for in vain."""
        await asyncio.gather(*(one.fresh() for one in self.kept))

    async def _ask_accounts(self, reader: StandingReader) -> Mapping[str, Member]:
        commands = reader.accounts_commands
        outs = await asyncio.gather(*(self._client.output(argv, ACCOUNTS + name) for name, argv in commands.items()))
        # Off the loop: a site may have many thousands of users.
        return await asyncio.to_thread(reader.parse_accounts, dict(zip(commands, outs, strict=True)))

    async def _ask_reservations(self, reader: StandingReader) -> tuple[Reservation, ...]:
        out = await self._client.output(reader.reservations_command, RESERVATIONS)
        return await asyncio.to_thread(reader.parse_reservations, out)
