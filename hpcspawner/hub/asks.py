"""What the form asks the Hub while it is open: what is free, when a request could start, what it costs and submits."""

import asyncio
import shlex
import time
from http import HTTPStatus
from typing import Any

from tornado import web

from hpcspawner.errors import RequestError, SchedulerError
from hpcspawner.hub.answers import JsonHandler, form_of
from hpcspawner.hub.choices import chosen
from hpcspawner.hub.doors import Doors
from hpcspawner.hub.hub_ledger import hub_ledger
from hpcspawner.jobs.ledger import job_name
from hpcspawner.language import _, joined
from hpcspawner.pages.free import in_words
from hpcspawner.request.cost import sentence
from hpcspawner.request.form import read
from hpcspawner.schedulers.base import JobLabel, Resources
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.script.render import preview
from hpcspawner.units import day_of_month

# One user may ask again after this time, and so many questions go on at once: each is a command of the scheduler's.
_GAP_S = 3.0
_AT_ONCE = 2
_LABEL = JobLabel("jupyter", "example")


class Asked(JsonHandler):
    """A question of the form's."""

    def spawner(self) -> Doors:
        """Of the user who asks; 404 where it is not ours."""
        spawner = self.current_user.spawners[""]
        if not isinstance(spawner, Doors):
            raise web.HTTPError(HTTPStatus.NOT_FOUND)
        return spawner

    def cluster(self, options: dict[str, Any]) -> Cluster:
        """The cluster that was named, or the default one; 404 for another."""
        try:
            return chosen(options, hub_ledger().clusters)
        except RequestError:
            raise web.HTTPError(HTTPStatus.NOT_FOUND) from None


class Turns:
    """Who may ask the cluster when: each user once in a few seconds, and few of them at once."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self._asked_at: dict[str, float] = {}
        self._at_once: asyncio.Semaphore | None = None

    def is_too_soon(self, name: str) -> bool:
        """Whether this user has asked a moment ago; else the time counts from now."""
        now = time.monotonic()
        if now - self._asked_at.get(name, float("-inf")) < _GAP_S:
            return True
        self._asked_at[name] = now
        return False

    @property
    def one(self) -> asyncio.Semaphore:
        """To be held while it is asked."""
        if self._at_once is None:
            self._at_once = asyncio.Semaphore(_AT_ONCE)
        return self._at_once


TOO_SOON = {"message": _("Please wait a moment before you ask again.")}


class FactsHandler(Asked):
    """`GET hpcspawner/facts?cluster=NAME`: what is free, by partition. Never waits for the scheduler."""

    @web.authenticated
    async def get(self) -> None:
        """The newest facts, as the form shows them."""
        cluster = self.cluster({"cluster": self.get_argument("cluster", "")})
        spawner = self.spawner()
        self.tell(in_words(spawner.facts_of(cluster), [one.name for one in cluster.profile.partitions]))


class WhenHandler(Asked):
    """`POST hpcspawner/when` with the form's fields: when this request could start, by the scheduler's own word."""

    _turns = Turns()

    @web.authenticated
    async def post(self) -> None:
        """One sentence; nothing is submitted."""
        options = read({name: self.get_arguments(name) for name in self.request.arguments})
        if self._turns.is_too_soon(self.current_user.name):
            return self.tell(TOO_SOON, HTTPStatus.TOO_MANY_REQUESTS)
        cluster = self.cluster(options)
        try:
            account, request = await self.spawner().judged(options, cluster)
            return self.tell({"message": await self._sentence(cluster, account.name, request.resources)})
        except RequestError as error:
            return self.tell({"message": error.sentence}, HTTPStatus.BAD_REQUEST)
        except SchedulerError as error:
            return self.tell(
                {"message": _("The scheduler does not tell: {why}", why=error.sentence)}, HTTPStatus.SERVICE_UNAVAILABLE
            )

    async def _sentence(self, cluster: Cluster, account: str, wanted: Resources) -> str:
        async with self._turns.one:
            estimate = await cluster.client.estimate(account, cluster.client.scheduler.options(wanted, _LABEL))
        if estimate.refusal:
            return _("The scheduler would not take this job: {why}", why=estimate.refusal)
        if estimate.starts_in_s <= 60:
            return _("It could start now, by the scheduler's estimate.")
        at, hour = estimate.at, f"{estimate.at:%H:%M}"
        if estimate.starts_in_s < 12 * 3600:
            return _("It could start at {time}, by the scheduler's estimate.", time=hour)
        message = _("It could start at {time} on {day}, by the scheduler's estimate.")
        return message.fill(time=hour, day=day_of_month(at.day, at.month))


class CostHandler(Asked):
    """`POST hpcspawner/cost` with the form's fields: what this request costs at most, and what the account has left."""

    _turns = Turns()

    @web.authenticated
    async def post(self) -> None:
        """A sentence or two; nothing is submitted."""
        options = read({name: self.get_arguments(name) for name in self.request.arguments})
        cluster = self.cluster(options)
        try:
            account, request = await self.spawner().judged(options, cluster)
        except RequestError as error:
            return self.tell({"message": error.sentence}, HTTPStatus.BAD_REQUEST)
        except SchedulerError as error:
            return self.tell({"message": error.sentence}, HTTPStatus.SERVICE_UNAVAILABLE)
        costs = sentence(cluster.profile, request.resources, request.renewals)
        # Another account at each question would be another command each time.
        if self._turns.is_too_soon(self.current_user.name):
            return self.tell(TOO_SOON, HTTPStatus.TOO_MANY_REQUESTS)
        async with self._turns.one:
            has = await cluster.balances.sentence(account.name, request.resources.account or "")
        return self.tell({"message": joined([costs, has]) or _("This site names no cost.")})


class ScriptHandler(Asked):
    """`POST hpcspawner/script` with the form's fields: the page that shows what they would submit. Nothing is."""

    @web.authenticated
    async def post(self) -> None:
        """The submit command with its options, and the script; or why the request is refused."""
        options = read({name: self.get_arguments(name) for name in self.request.arguments})
        cluster, spawner = self.cluster(options), self.spawner()
        try:
            _, request = await spawner.judged(options, cluster)
            scheduler = cluster.client.scheduler
            label = JobLabel(job_name(form_of(self)[1]), _LABEL.tag)
            job = preview(request, scheduler, cluster.profile.job, label, await spawner.home_for_preview())
            words = submit_words(scheduler, job.options, cluster.profile.directives)
        except RequestError as error:
            self.set_status(HTTPStatus.BAD_REQUEST)
            return await self._show(problems=[problem.message for problem in error.problems])
        except SchedulerError as error:
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
            return await self._show(problems=[error.sentence])
        costs = sentence(cluster.profile, request.resources, request.renewals)
        return await self._show(command=shlex.join(words), script=job.script, costs=costs)

    async def _show(self, **shown: Any) -> None:
        self.set_header("Cache-Control", "no-store")
        self.finish(await self.render_template("hpc_job_script.html", **({"problems": []} | shown)))


HANDLERS = [
    (r"/hpcspawner/cost", CostHandler),
    (r"/hpcspawner/facts", FactsHandler),
    (r"/hpcspawner/script", ScriptHandler),
    (r"/hpcspawner/when", WhenHandler),
]
"""For `JupyterHub.extra_handlers`."""
