"""What an account has left, by a command that the site names: asked for once for all who look within five minutes."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence

from hpcspawner.errors import SchedulerError
from hpcspawner.language import _
from hpcspawner.schedulers.commands import Client

_FRESH_S = 300.0
_MOST_KEPT = 1000
_LONGEST = 200


class Balances:
    """The balances of one cluster's accounts, each kept for five minutes."""

    def __init__(self, client: Client, command: Sequence[str]):
        """`command` is an argv with `{account}` or `{user}` in it; empty: no balance is known."""
        self._client = client
        self._command = tuple(command)
        self._asked: OrderedDict[tuple[str, ...], tuple[float, asyncio.Task[str]]] = OrderedDict()

    async def sentence(self, user: str, account: str) -> str:
        """What is left and as of when, or that it is not known; "" where the site names no command.

        Takes as long as the command, whose time is limited.
        """
        if not self._command:
            return ""
        if not account and any("{account}" in word for word in self._command):
            return _("Choose an account to see its balance.")
        argv = tuple(word.replace("{account}", account).replace("{user}", user) for word in self._command)
        at, asking = self._ask(argv)
        try:
            # Shielded: one who leaves must not take the answer from the others.
            line = await asyncio.shield(asking)
        except SchedulerError as error:
            self._client.complain("balance", f"could not ask for a balance: {error}")
            self._asked.pop(argv, None)
            line = ""
        when = time.strftime("%H:%M", time.localtime(at))
        if not line:
            return _("The balance is not known at the moment.")
        return _("{account} has: {balance} (as of {time}).", account=account or user, balance=line, time=when)

    def _ask(self, argv: tuple[str, ...]) -> tuple[float, "asyncio.Task[str]"]:
        known = self._asked.get(argv)
        if known is None or time.time() - known[0] > _FRESH_S:
            known = self._asked[argv] = (time.time(), asyncio.create_task(self._line(argv)))
            self._asked.move_to_end(argv)
            if len(self._asked) > _MOST_KEPT:
                self._asked.popitem(last=False)
        return known

    async def _line(self, argv: Sequence[str]) -> str:
        lines = (line.strip() for line in (await self._client.output(argv)).splitlines())
        return "".join(one if one.isprintable() else "?" for one in next(filter(None, lines), "")[:_LONGEST])
