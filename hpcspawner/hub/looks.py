"""What the open form asks about files, as the user: own environments, and a check of a choice before it is queued."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

from tornado import web

from hpcspawner.errors import RequestError, SchedulerError
from hpcspawner.hub.asks import TOO_SOON, Asked, Turns
from hpcspawner.language import _
from hpcspawner.pages.pages import for_the_log
from hpcspawner.request import looks
from hpcspawner.request.form import read
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.cluster import Cluster

# How long an answer serves: who has just made an environment wants to see it.
_KEPT_S = 60.0
_MOST_KEPT = 500

_NOTHING: dict[str, Any] = {"environments": [], "problems": []}


class Kept:
    """The newest answer for each user of each cluster. However often it is asked for, one look goes on at a time."""

    def __init__(self, turns: Turns) -> None:
        """Nothing has been looked for yet."""
        self._turns = turns
        self._answers: dict[tuple[str, str], tuple[float, asyncio.Task[dict[str, Any]]]] = {}

    async def environments(self, cluster: Cluster, user: LocalAccount) -> dict[str, Any]:
        """The user's own environments, as `request.looks` makes them. Raises SchedulerError, AnswerUnreadable."""
        key = (cluster.name, user.name)
        begun_at, task = self._answers.get(key, (float("-inf"), None))
        if task is None or (task.done() and time.monotonic() - begun_at > _KEPT_S):
            task = asyncio.create_task(self._look(cluster, user))
            self._forget_old()
            self._answers[key] = (time.monotonic(), task)
        # Who closes the page takes the answer from no one else.
        return await asyncio.shield(task)

    async def _look(self, cluster: Cluster, user: LocalAccount) -> dict[str, Any]:
        async with self._turns.one:
            answer = await cluster.client.look(user.name, looks.find(cluster.profile, user))
        return looks.environments(cluster.profile, user, answer)

    def _forget_old(self) -> None:
        done = [key for key, (_, task) in self._answers.items() if task.done()]
        for key in done[: max(0, len(self._answers) + 1 - _MOST_KEPT)]:
            _, task = self._answers.pop(key)
            # Else asyncio complains of an error that its users have seen.
            task.cancelled() or task.exception()


class _Looks(Asked):
    async def told(
        self, cluster: Cluster, words: str, look: Callable[[LocalAccount], Awaitable[dict[str, Any]]]
    ) -> None:
        """Send what `look` finds for the user who asks, or why there is no answer."""
        try:
            self.tell(await look(await self.spawner().account_on(cluster)))
        except RequestError as error:
            self.tell(_NOTHING | {"message": error.sentence}, HTTPStatus.BAD_REQUEST)
        except (SchedulerError, looks.AnswerUnreadable) as error:
            self.log.warning("%s: %s", words, for_the_log(error) if isinstance(error, SchedulerError) else error)
            self.tell(
                _NOTHING | {"message": _("{what}; the Hub's log says why.", what=words)}, HTTPStatus.SERVICE_UNAVAILABLE
            )


class EnvironmentsHandler(_Looks):
    """`GET hpcspawner/environments?cluster=NAME`: the user's own environments, as the form adds them."""

    _kept = Kept(Turns())

    @web.authenticated
    async def get(self) -> None:
        """Kept for a minute; 404 where the site lets users name none, or lets the Hub not look."""
        cluster = self.cluster({"cluster": self.get_argument("cluster", "")})
        if not cluster.profile.own_environments or not cluster.profile.scheduler.look:
            raise web.HTTPError(HTTPStatus.NOT_FOUND)
        words = _("Your own environments could not be looked for")
        await self.told(cluster, words, partial(self._kept.environments, cluster))


class CheckHandler(_Looks):
    """`POST hpcspawner/check` with the form's fields: whether directory, environment and image are usable."""

    _turns = Turns()
    _asking: ClassVar[set[str]] = set()

    @web.authenticated
    async def post(self) -> None:
        """A sentence for each problem; nothing is submitted."""
        name = self.current_user.name
        # One at a time: a file system that hangs must not cost the others their turns.
        if name in self._asking or self._turns.is_too_soon(name):
            return self.tell(_NOTHING | TOO_SOON, HTTPStatus.TOO_MANY_REQUESTS)
        options = read({field: self.get_arguments(field) for field in self.request.arguments})
        cluster = self.cluster(options)
        if not cluster.profile.scheduler.look:
            raise web.HTTPError(HTTPStatus.NOT_FOUND)
        self._asking.add(name)
        try:
            return await self.told(cluster, _("The check could not be made"), partial(self._check, cluster, options))
        finally:
            self._asking.discard(name)

    async def _check(self, cluster: Cluster, options: dict[str, Any], user: LocalAccount) -> dict[str, Any]:
        spawner = self.spawner()
        _, request = await spawner.judged(options, cluster)
        asked = looks.check(cluster.profile, user, request, spawner.fallback_path)
        async with self._turns.one:
            return looks.problems(await cluster.client.look(user.name, asked))


HANDLERS = [(r"/hpcspawner/environments", EnvironmentsHandler), (r"/hpcspawner/check", CheckHandler)]
"""For `JupyterHub.extra_handlers`."""
