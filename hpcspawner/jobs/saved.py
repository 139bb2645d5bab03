"""The users' own presets: in memory to read, beside the ledger to keep."""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from hpcspawner.jobs.table import Store
from hpcspawner.language import _

MOST = 20
"""How many presets a user may have, on all clusters together."""

LONGEST_NAME = 60
"""Characters of a name."""

_MOST_BYTES = 16_384
# Their length is the site's to limit, which has been done when they come here.
_OWN_SETUP = "own_setup"
_AWAY = _("The Hub can't write presets at the moment. Please try again later.")


class CannotSave(ValueError):
    """Why a preset is not saved, or not deleted, as a sentence for its user."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Choices of a user's on one cluster, under a name of theirs. They were judged when they were saved."""

    username: str
    cluster: str
    name: str
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """Tells it from all others; databases differ in what they take for the same text."""
        return hashlib.sha256(json.dumps([self.username, self.cluster, self.name]).encode()).hexdigest()


class SavedPresets:
    """All presets that users have saved at this Hub."""

    def __init__(self, store: Store, log: logging.Logger):
        """Reads the table, which blocks. Raises LedgerUnusable."""
        self._store, self._log = store, log
        self._lock = asyncio.Lock()
        self._by_user: dict[str, dict[str, Saved]] = {}
        for row in store.saved_presets():
            self._keep(Saved(row["username"], row["cluster"], row["name"], dict(row["options"])))

    @property
    def usernames(self) -> list[str]:
        """The users that have some."""
        return list(self._by_user)

    def of(self, username: str, cluster: str) -> list[Saved]:
        """A user's presets on a cluster, by name."""
        mine = self._by_user.get(username, {}).values()
        return sorted((one for one in mine if one.cluster == cluster), key=lambda one: one.name.casefold())

    def find(self, username: str, cluster: str, name: object) -> Saved | None:
        """The preset of this name, or None."""
        return next((one for one in self.of(username, cluster) if one.name == name), None)

    async def save(self, saved: Saved) -> None:
        """Keep a preset in place of the one of this name. Raises CannotSave."""
        async with self._lock:
            mine = self._by_user.get(saved.username, {})
            if saved.key not in mine and len(mine) >= MOST:
                raise CannotSave(_("You have {most} presets, which is the most. Delete one first.", most=MOST))
            text = json.dumps(dict(saved.options))
            if len(json.dumps({key: one for key, one in saved.options.items() if key != _OWN_SETUP})) > _MOST_BYTES:
                long = _(
                    "These choices are longer than {most} bytes, which is the most for a preset.", most=_MOST_BYTES
                )
                raise CannotSave(long)
            row = {"id": saved.key, "username": saved.username, "cluster": saved.cluster, "name": saved.name}
            try:
                await self._store.keep_preset({**row, "options": json.loads(text), "saved_at": time.time()})
            except SQLAlchemyError as error:
                self._log.error("a preset of %s could not be saved: %s", saved.username, error)
                raise CannotSave(_AWAY) from error
            self._keep(saved)

    async def delete(self, saved: Saved) -> None:
        """Forget a preset. Raises CannotSave."""
        await self._drop({saved.key})

    async def forget(self, usernames: Collection[str]) -> None:
        """Forget all presets of users that are no more. Raises CannotSave."""
        await self._drop({key for name in usernames for key in self._by_user.get(name, {})})

    async def _drop(self, keys: set[str]) -> None:
        if not keys:
            return
        async with self._lock:
            try:
                await self._store.drop_presets(keys)
            except SQLAlchemyError as error:
                self._log.error("presets could not be deleted: %s", error)
                raise CannotSave(_AWAY) from error
            left = {
                user: {key: one for key, one in mine.items() if key not in keys} for user, mine in self._by_user.items()
            }
            self._by_user = {user: mine for user, mine in left.items() if mine}

    def _keep(self, saved: Saved) -> None:
        self._by_user.setdefault(saved.username, {})[saved.key] = saved


def checked_name(text: str) -> str:
    """The name of a preset as it is kept, without blanks around it. Raises CannotSave."""
    name = text.strip()
    if not name:
        raise CannotSave(_("Write a name for the preset."))
    if len(name) > LONGEST_NAME:
        long = _(
            "The name of the preset is {count} characters long; {most} are allowed.", count=len(name), most=LONGEST_NAME
        )
        raise CannotSave(long)
    if not name.isprintable():
        raise CannotSave(_("The name of the preset contains a line break or another control character."))
    return name
