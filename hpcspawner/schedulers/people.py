"""The users of a cluster elsewhere, as its login node's user database has them."""

import json
import pwd
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from hpcspawner.errors import SchedulerError, SchedulerUnreachable
from hpcspawner.language import _
from hpcspawner.programs import helper
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.records import numbered

# An account hardly ever changes; one that was closed is refused by the login node at each submit anyhow.
_FRESH_S = 600.0


class NotAUser(Exception):
    """The login node has no such account, or it is not one of the Hub's users; the text is the helper's."""


@dataclass(frozen=True, slots=True)
class Person:
    """An account: its entry as in a local user database, and the name of its primary group."""

    entry: pwd.struct_passwd
    group: str


class People:
    """Asks the verb `who`, and remembers the answers; old ones serve while no login node answers."""

    def __init__(self, ask: Callable[[str], Awaitable[Answer]], clock: Callable[[], float] = time.monotonic):
        """`ask` puts the question about a name and raises SchedulerError."""
        self._ask, self._clock = ask, clock
        self._known: dict[str, tuple[float, Person]] = {}

    async def find(self, name: str) -> Person:
        """The account of this name. Raises NotAUser, SchedulerError."""
        asked_at, known = self._known.get(name, (float("-inf"), None))
        if known is not None and self._clock() - asked_at < _FRESH_S:
            return known
        try:
            answer = await self._ask(name)
        except SchedulerError:
            if known is not None:
                return known
            raise
        if answer.code in (helper.NO_USER, helper.NOT_PERMITTED, helper.BAD_INPUT):
            self._known.pop(name, None)
            raise NotAUser(answer.message.removeprefix(helper.SAYS))
        try:
            found = _read(json.loads(answer.out) if answer.code == 0 else None)
        except (ValueError, TypeError, KeyError) as error:
            raise SchedulerUnreachable(
                _("The login node's answer about the account {name} could not be read.", name=repr(name)),
                helper.WHO,
                answer.message[:200],
            ) from error
        self._known[name] = (self._clock(), found)
        return found

    def name_of(self, uid: int) -> str:
        """The name of the account with this number, if it is known without a question."""
        if uid == 0:
            return "root"
        names = (one.entry.pw_name for _, one in self._known.values() if one.entry.pw_uid == uid)
        return next(names, numbered(uid))


def _read(said: Any) -> Person:
    texts = [said[key] for key in ("name", "home", "group")]
    numbers = [said[key] for key in ("uid", "gid")]
    if not all(isinstance(one, str) for one in texts) or not all(type(one) is int for one in numbers):
        raise TypeError
    entry = pwd.struct_passwd((texts[0], "x", *numbers, "", texts[1], ""))
    return Person(entry, texts[2])
