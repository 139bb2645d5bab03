"""Servers on the home page and on the admin's page of all servers, what these ask while they are open, and Stop.

All of it reads memory: no scheduler is asked while somebody waits for a page.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import fields
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, urlencode

from jupyterhub import orm
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.scopes import Scope, needs_scope
from jupyterhub.user import User
from jupyterhub.utils import url_path_join
from tornado import web

from hpcspawner.hub.answers import JsonHandler
from hpcspawner.hub.hub_ledger import hub_ledger
from hpcspawner.jobs import overview
from hpcspawner.jobs.overview import Health, Page, Row, State, View
from hpcspawner.jobs.record import JobRecord
from hpcspawner.language import _

MaySee = Callable[[str, str], bool]


def rows_of(user: User) -> list[Row]:
    """The servers of one user that have a job, for templates."""
    ledger = hub_ledger()
    names = {"", *(one.name for one in user.all_spawners())}
    return overview.of_user(lambda name: ledger.of(user.name, name), names)


def allowed(handler: BaseHandler, scope: str) -> MaySee:
    """Whether a request has a scope for the server of a user, by their names."""
    granted = handler.parsed_scopes.get(scope, {})
    if granted is Scope.ALL:
        return lambda _user, _server: True
    users, servers = set(granted.get("user", ())), set(granted.get("server", ()))
    if groups := granted.get("group"):
        members = handler.db.query(orm.User.name).join(orm.User.groups).filter(orm.Group.name.in_(groups))
        users.update(name for (name,) in members)
    return lambda user, server: user in users or f"{user}/{server}" in servers


def as_data(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Rows for the page's script; where `shape` has changed, the row's buttons have."""
    return [_data(f"{one.user}/{one.server}", one.state.value, one) for one in rows]


def _data(key: str, shape: str, one: Row | Health) -> dict[str, Any]:
    return {"key": key, "shape": shape, "cells": _cells(one)}


def _cells(one: Row | Health) -> dict[str, str]:
    cells = {field.name: getattr(one, field.name) for field in fields(one)}
    return {name: value.word if isinstance(value, State) else value for name, value in cells.items()}


class OwnServersHandler(JsonHandler):
    """`GET hpcspawner/servers/own`: the rows of the home page of the user who asks."""

    @web.authenticated
    async def get(self) -> None:
        """The rows as JSON."""
        if not isinstance(self.current_user, User):
            raise web.HTTPError(HTTPStatus.NOT_FOUND)
        self._tell(user_name=self.current_user.name)

    @needs_scope("read:servers")
    def _tell(self, user_name: str) -> None:
        self.tell({"rows": as_data(rows_of(self.current_user))})


class ServersHandler(JsonHandler):
    """`GET hpcspawner/servers`: all servers that the reader may see, as a page for those with the scope `admin-ui`."""

    @web.authenticated
    @needs_scope("admin-ui")
    async def get(self) -> None:
        """One page of the rows; `state`, `cluster`, `sort` and `page` choose which."""
        wanted = self.wanted()
        page = await self.page(wanted)
        may_stop, may_open = allowed(self, "delete:servers"), allowed(self, "access:servers")
        html = await self.render_template(
            "hpc_servers.html",
            page=page,
            view=wanted,
            clusters=self.health(page),
            states=list(State),
            columns=_COLUMNS,
            link=self.link,
            may_stop=may_stop,
            may_open=may_open,
            data_url=self.link(wanted, "servers/all"),
        )
        self.finish(html)

    def wanted(self) -> View:
        """What the address asks for; 400 with what is allowed."""
        names = ("state", "cluster", "sort", "page")
        try:
            return overview.view(
                {name: self.get_argument(name, "") for name in names}, [one.name for one in hub_ledger().clusters]
            )
        except ValueError as error:
            # tornado formats the log message with its arguments.
            raise web.HTTPError(HTTPStatus.BAD_REQUEST, "%s", error) from None

    async def page(self, wanted: View) -> Page:
        """The rows that are wanted, of servers that the reader may see."""
        sees = allowed(self, "read:servers")

        def may_see(record: JobRecord) -> bool:
            return sees(record.username, record.server)

        return await overview.page(hub_ledger().live(), wanted, may_see)

    def health(self, page: Page) -> list[Health]:
        """Every cluster, with how many servers the reader may see."""
        return [overview.health(one, page.counts.get(one.name, {})) for one in hub_ledger().clusters]

    def link(self, view: View, place: str = "servers", **changed: Any) -> str:
        """The address of another view."""
        values = {"state": view.state, "cluster": view.cluster, "sort": view.sort, "down": view.down, "page": view.page}
        values |= {"page": 1} | changed if changed else {}
        values["sort"] = f"-{values['sort']}" if values.pop("down") else values["sort"]
        texts = {name: str(value) for name, value in values.items() if value}
        return f"{url_path_join(self.hub.base_url, 'hpcspawner', place)}?{urlencode(texts)}"


_COLUMNS = {
    "user": _("User"),
    "state": _("State"),
    "cluster": _("Cluster"),
    "partition": _("Partition"),
    "node": _("Node"),
    "gpus": _("GPUs"),
    "time": _("Time left, or place in the queue"),
}


class AllServersHandler(ServersHandler):
    """`GET hpcspawner/servers/all`: what the page of all servers shows, with the same choice, as JSON."""

    @web.authenticated
    @needs_scope("admin-ui")
    async def get(self) -> None:
        """Rows of servers and of clusters."""
        page = await self.page(self.wanted())
        clusters = [_data(f"cluster {one.name}", one.state, one) for one in self.health(page)]
        self.tell({"rows": [*clusters, *as_data(page.rows)]})


class CancelHandler(BaseHandler):
    """`POST hpcspawner/cancel` with `server` and `then`, and `user` for another's: ends a server or its start.

    For pages without JavaScript too.
    """

    @web.authenticated
    async def post(self) -> None:
        """As the REST API does it; then the home page, the page of all servers, or the form with the last choice."""
        await self._end(
            user_name=self.get_argument("user", self.current_user.name), server_name=self.get_argument("server", "")
        )

    @needs_scope("delete:servers")
    async def _end(self, user_name: str, server_name: str) -> None:
        user = self.find_user(user_name)
        spawner = user.spawners.get(server_name) if user is not None and server_name in user.spawners else None
        if spawner is None:
            raise web.HTTPError(HTTPStatus.NOT_FOUND)
        if spawner.pending == "spawn" and spawner._spawn_future is not None:
            spawner._spawn_future.cancel()
            # Until the start has let go of the server; what takes longer goes on by itself.
            for _ in range(100):
                if not spawner.pending:
                    break
                await asyncio.sleep(0.1)
        if spawner.active and not spawner.pending:
            await self.stop_single_user(user, server_name)
        self.redirect(url_path_join(self.hub.base_url, *self._then(user, server_name)))

    def _then(self, user: User, name: str) -> list[str]:
        then = self.get_argument("then", "")
        if then == "form":
            return ["spawn", user.escaped_name, quote(name, safe="")] if name else ["spawn"]
        return ["hpcspawner", "servers"] if then == "servers" else ["home"]


HANDLERS = [
    (r"/hpcspawner/cancel", CancelHandler),
    (r"/hpcspawner/servers", ServersHandler),
    (r"/hpcspawner/servers/all", AllServersHandler),
    (r"/hpcspawner/servers/own", OwnServersHandler),
]
"""For `JupyterHub.extra_handlers`."""
