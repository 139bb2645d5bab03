"""Start pressed twice: the second press leads to the same page as the first, not to an error."""

import asyncio
from typing import Any
from weakref import WeakValueDictionary

from jupyterhub.app import JupyterHub
from jupyterhub.handlers.pages import SpawnHandler
from tornado import web

from hpcspawner.hub.startup_checks import routes

_ALREADY = 400


class StartHandler(SpawnHandler):  # type: ignore[misc]
    """As JupyterHub's own, but for a server that is starting or there: the waiting page, or the server."""

    # One press is seen to after the other, or both would find no server that starts.
    _turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def _post(self, user_name: str, server_name: str, **more: Any) -> None:
        turn = self._turns.setdefault((user_name, server_name), asyncio.Lock())
        async with turn:
            try:
                await super()._post(user_name=user_name, server_name=server_name, **more)
            except web.HTTPError as error:
                if error.status_code != _ALREADY or not self._lead_on(user_name, server_name):
                    raise

    def _lead_on(self, user_name: str, server_name: str) -> bool:
        """Send the browser on to a server that is on its way or there; whether there is one."""
        user = self.find_user(user_name)
        spawner = user.spawners.get(server_name) if user is not None else None
        if spawner is None or not spawner.active:
            return False
        if spawner.ready:
            self.redirect(self.get_next_url(user, default=user.server_url(server_name)))
        else:
            self.redirect(self._get_pending_url(user, server_name))
        return True


def install(app: JupyterHub) -> None:
    """Put the handler in the place of JupyterHub's own, in a Hub that has been put together."""
    for rule in routes(app.tornado_application.default_router):
        if rule.target is SpawnHandler:
            rule.target = StartHandler
