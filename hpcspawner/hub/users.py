"""JupyterHub's users by name, without a question to its database for each.

JupyterHub keeps those it has met by their numbers alone, and asks the database for a name each time: with a thousand
servers that is a thousand questions for every look at all of them.
"""

import logging
from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from sqlalchemy import event, inspect

from hpcspawner.jobs.saved import SavedPresets
from hpcspawner.jobs.tasks import in_background


class Users:
    """The users of a Hub. One that is renamed or deleted is noticed."""

    def __init__(self, app: JupyterHub):
        self._app = app
        self._numbers: dict[str, int] = {}

    def find(self, name: str) -> Any:
        """JupyterHub's object for this user, or None where there is no such user."""
        user = self._known(name)
        if user is None:
            self._learn(name)
            user = self._known(name)
        if user is None and name in self._numbers:
            # JupyterHub has not met this one since it started.
            user = self._app.users.get(self._numbers[name])
        return user

    def _learn(self, name: str) -> None:
        """The number alone: a whole user is seven questions."""
        number = self._app.db.query(orm.User.id).filter(orm.User.name == name).scalar()
        if number is None:
            self._numbers.pop(name, None)
        else:
            self._numbers[name] = number

    def _known(self, name: str) -> Any:
        # As a plain dictionary: JupyterHub's own look-up asks the database for what it does not have.
        user = dict.get(self._app.users, self._numbers.get(name))
        if user is None or user.name != name or not inspect(user.orm_user).persistent:
            return None
        return user


def forget_with_their_users(app: JupyterHub, saved: SavedPresets, log: logging.Logger) -> None:
    """Presets go with their user: those of users that are gone already, and of each that is deleted from now on."""
    names = {name for (name,) in app.db.query(orm.User.name)}
    in_background(saved.forget(set(saved.usernames) - names), log)

    def deleted(_mapper: Any, _connection: Any, user: orm.User) -> None:
        in_background(saved.forget({user.name}), log)

    event.listen(orm.User, "after_delete", deleted)
