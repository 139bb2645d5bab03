"""Presets of users' own: saved and deleted from the form, also without JavaScript."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.user import User
from jupyterhub.utils import url_path_join
from tornado import web

from hpcspawner.errors import Problem, RequestError, SchedulerError
from hpcspawner.hub.answers import form_of
from hpcspawner.hub.choices import chosen
from hpcspawner.hub.doors import Doors
from hpcspawner.hub.hub_ledger import hub_ledger
from hpcspawner.jobs.saved import CannotSave, Saved, checked_name
from hpcspawner.language import sentence_of
from hpcspawner.pages.pages import Draft, as_hub_error, draft
from hpcspawner.request.form import read

# What is too long for a name is shown so far.
_LONGEST = 200


class PresetsHandler(SpawnHandler):
    """`POST hpcspawner/presets` with the form's fields: saves them as `_preset`, or deletes the preset `_delete`.

    `_form` is the form's address, which says whose it is. The answer is that form.
    """

    @web.authenticated
    def get(self) -> None:
        """For who loads a refused form anew: an empty one."""
        self.redirect(url_path_join(self.hub.base_url, "spawn"))

    @web.authenticated
    async def post(self) -> None:
        """As the user whose form it is; an admin who may start their servers may do this too."""
        user, server = form_of(self)
        await self._change(user_name=user, server_name=server)

    @needs_scope("servers")
    async def _change(self, user_name: str, server_name: str) -> None:
        user = self.find_user(user_name)
        spawner = user.spawners[""] if user is not None else None
        if not isinstance(spawner, Doors):
            raise web.HTTPError(404)
        fields = {name: self.get_body_arguments(name) for name in self.request.body_arguments}
        # Which button it was: a browser sends the name of the one that was pressed.
        name = self.get_body_argument("_delete", "")
        options = read(fields)
        try:
            cluster = chosen(options, hub_ledger().clusters)
        except RequestError:
            raise web.HTTPError(404) from None
        if name:
            return await self._delete(
                user, server_name, options, hub_ledger().saved.find(user.name, cluster.name, name)
            )
        name = self.get_body_argument("_preset", "")[:_LONGEST]
        try:
            name = checked_name(name)
            _, request = await spawner.judged(options, cluster)
            await hub_ledger().saved.save(Saved(user.name, cluster.name, name, dict(request.choices)))
        except CannotSave as error:
            return await self._refuse(
                user, server_name, Draft(options, (Problem("name", sentence_of(error)),), saving=name)
            )
        except RequestError as error:
            return await self._refuse(user, server_name, Draft(options, tuple(error.problems), saving=name))
        except SchedulerError as error:
            raise as_hub_error(error, cluster.profile) from error
        return self._back(user, server_name, cluster=cluster.name, saved=name)

    async def _delete(self, user: User, server_name: str, options: Mapping[str, Any], found: Saved | None) -> None:
        """What is gone already is gone."""
        try:
            if found is not None:
                await hub_ledger().saved.delete(found)
        except CannotSave as error:
            return await self._refuse(user, server_name, Draft(options, note=sentence_of(error)))
        cluster = options.get("cluster", "")
        return self._back(user, server_name, **({"cluster": cluster} if cluster else {}))

    def _address(self, user: User, server_name: str) -> str:
        is_own = user.name == self.current_user.name and not server_name
        whose = [] if is_own else [user.escaped_name, *([quote(server_name, safe="")] if server_name else [])]
        return url_path_join(self.hub.base_url, "spawn", *whose)

    def _back(self, user: User, server_name: str, **shown: str) -> None:
        query = f"?{urlencode(shown)}" if shown else ""
        self.redirect(self._address(user, server_name) + query)

    async def _refuse(self, user: User, server_name: str, shown: Draft) -> None:
        """The form as it was, with what is wrong."""
        draft.set(shown)
        # JupyterHub's page sends the form where it came from.
        self.request.uri = self._address(user, server_name)
        form = await user.spawners[""].get_options_form()
        self.set_status(400)
        self.finish(await self._render_form(for_user=user, spawner_options_form=form))


HANDLERS = [(r"/hpcspawner/presets", PresetsHandler)]
"""For `JupyterHub.extra_handlers`."""
