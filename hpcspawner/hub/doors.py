"""Where options come in: form, link, REST, stored options. All lead to `request.gate.make`."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from jupyterhub import apihandlers
from jupyterhub.utils import url_path_join
from traitlets import default

from hpcspawner.errors import (
    AccountRefused,
    LedgerUnusable,
    Problem,
    Reason,
    RequestError,
    SchedulerError,
    ServerLost,
    more,
)
from hpcspawner.hub import audit, startup
from hpcspawner.hub.choices import choices_of, chosen, with_preset, with_saved
from hpcspawner.hub.hub_ledger import open_ledger
from hpcspawner.hub.traits import Traits
from hpcspawner.jobs import secret
from hpcspawner.jobs.causes import entry_of
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.ledger import Ledger
from hpcspawner.jobs.news import News
from hpcspawner.jobs.stop import end_job, has_ended
from hpcspawner.jobs.tasks import in_background
from hpcspawner.language import _
from hpcspawner.pages.failure import Failure, failure
from hpcspawner.pages.history import PastJob, past_jobs
from hpcspawner.pages.pages import Draft, LinkFillsForm, as_hub_error, draft, for_the_log, render_form
from hpcspawner.request import accounts
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import JobRequest, LocalAccount
from hpcspawner.request.own import NOT_KNOWN, Own, of_user
from hpcspawner.schedulers.cluster import Cluster, Clusters
from hpcspawner.schedulers.facts import Facts
from hpcspawner.site.presets import LAST

# Options that are judged by what the scheduler says of the user, too.
_OF_STANDING = frozenset({"account", "qos", "reservation"})
_ENDED = _("Your last server ended at {time}. {why}")


@cache
def _clusters(sites: tuple[str, ...], spool: str, log: Any) -> Clusters:
    """Once for a Hub, however many spawners there are."""
    return Clusters.of(sites, Path(spool), log)


class Doors(Traits):
    """The spawner's methods that JupyterHub hands options to."""

    news: News | None = None
    _judging_s = 0.0
    job: Job | None = None
    _request: JobRequest | None = None
    _account: LocalAccount | None = None
    _chosen: Cluster | None = None

    @default("options_form")
    def _options_form_default(self) -> Callable[..., Any]:
        return type(self)._form

    @default("options_from_form")
    def _options_from_form_default(self) -> Callable[..., Any]:
        return self._from_form

    @default("apply_user_options")
    def _apply_user_options_default(self) -> Callable[..., Any]:
        return type(self).accept

    @property
    def ledger(self) -> Ledger:
        """The Hub's record of its jobs, opened when it is first needed."""
        try:
            return open_ledger(self.ledger_url, self.keys, self._make_clusters, self.log)
        except LedgerUnusable as error:
            # Before JupyterHub drops the servers that it can't find in there.
            self.log.critical("hpcspawner: %s The Hub stops.%s", error, more(error.entry))
            raise SystemExit(1) from None

    def _make_clusters(self) -> Clusters:
        return _clusters(tuple(self.sites), self.spool, self.log)

    def keys(self) -> Keys:
        """What this Hub derives from its secret, which is read, or made, now. Raises SecretUnusable."""
        return Keys(secret.kept(Path(self.secret_file), self.log), self._hub_id, startup.cookie_secret())

    @property
    def cluster(self) -> Cluster:
        """Where this server's job is, or would be by what its user chose last."""
        if self.job is not None:
            return self.job.cluster
        if self._chosen is not None:
            return self._chosen
        return self._offered(self.user_options or self.orm_spawner.user_options or {})

    def _offered(self, options: Mapping[str, Any]) -> Cluster:
        """The cluster that these options name, or the default one."""
        try:
            return chosen(options, self.ledger.clusters)
        except RequestError:
            return self.ledger.clusters.default

    async def _form(self) -> str:
        """The inside of the Hub's spawn form."""
        last = self._last_choice()
        shown = draft.get() or Draft(last, note=self._end_of_the_last())
        shown.last = last
        cluster = self._offered(shown.values)
        shown.values = self._seen(shown.values, cluster)
        shown.own = self._own_on(cluster)
        shown.saved = tuple((one.name, one.options) for one in self.ledger.saved.of(self.user.name, cluster.name))
        shown.presets_url = url_path_join(self.hub.base_url, "hpcspawner/presets")
        if shown.to_judge:
            shown.problems = await self._problems(shown.values, cluster)
        return render_form(cluster, self.ledger.clusters.offered, shown, self.facts_of(cluster))

    def _seen(self, options: Mapping[str, Any], cluster: Cluster) -> Mapping[str, Any]:
        """Options with those of the preset that they name, to be seen in the form."""
        try:
            return with_preset(self._with_saved(options, cluster), cluster.profile)
        except RequestError:
            return options

    async def _problems(self, options: Mapping[str, Any], cluster: Cluster) -> tuple[Problem, ...]:
        """What is wrong with these options, as far as it can be told."""
        try:
            await self.judged(options, cluster)
        except RequestError as error:
            return tuple(error.problems)
        except SchedulerError as error:
            self.log.warning("%s: %s", self._log_name, for_the_log(error))
        return ()

    def _with_saved(self, options: Any, cluster: Cluster) -> Any:
        return with_saved(options, self.ledger.saved, self.user.name, cluster)

    def _own_on(self, cluster: Cluster, account: str = "") -> Own:
        """What is known there of this user, or of their account; what is old is asked for anew, for the next time."""
        if not cluster.standings.kept:
            return NOT_KNOWN
        cluster.standings.look()
        try:
            account = account or accounts.name_on(cluster, self.user.name)
        except AccountRefused:
            return NOT_KNOWN
        return of_user(cluster.standings, account)

    def facts_of(self, cluster: Cluster) -> Facts:
        """What is free there, as of the last time that the Hub asked; three listings of the queue make one of nodes."""
        return cluster.board.latest(3 * self.poll_interval_s)

    def _last_choice(self) -> dict[str, Any]:
        return dict(self.user_options or self.orm_spawner.user_options or {})

    def _end_of_the_last(self) -> str:
        """Why the last server ended, for a user who did not end it."""
        end = self.ledger.last_end(self.user.name, self.name)
        return _ENDED.fill(time=end.when, why=end.message) if end else ""

    def last_failure(self, username: str, server: str) -> Failure | None:
        """Why the last server of this name ended, for its page; None where its user ended it, or it is long ago."""
        job = self.ledger.last_ended(username, server)
        if job is None or job.end is None:
            return None
        message = _ENDED.fill(time=job.end.when, why=job.end.message)
        shown = failure(message, job.end.cause, job.cluster.profile, choices_of(job), job.end.log)
        return replace(shown, entry=entry_of(job.end, reported=job.report is not None))

    def history(self, username: str) -> list[PastJob]:
        """The last jobs of a user, for the pages; reads memory."""
        return past_jobs(self.ledger.past(username))

    def _from_form(self, form_data: Mapping[str, list[Any]]) -> Awaitable[dict[str, Any]]:
        """Judge before the Hub has made a token or a job, so that a refusal leaves nothing behind."""
        options = read(form_data)
        shown = Draft(self._last_choice() if options.get("preset") == LAST else options)
        draft.set(shown)
        return self._judged_form(shown)

    async def _judged_form(self, shown: Draft) -> dict[str, Any]:
        try:
            return dict((await self._judge(shown.values)).choices)
        except RequestError as error:
            self.ledger.emit(audit.refused_options(self.user.name, self.name, error))
            shown.problems = error.problems
            refused = as_hub_error(error, self.cluster.profile)
            # The form itself says it, beside the fields.
            refused.jupyterhub_message = refused.jupyterhub_html_message = ""
            raise refused from error
        except SchedulerError as error:
            raise self._no_account(error) from error

    def _no_account(self, error: SchedulerError) -> Exception:
        """That the user's account could not be looked up, which is asked of a login node."""
        self.log.error("%s: %s", self._log_name, for_the_log(error))
        return as_hub_error(error, self.cluster.profile)

    def options_from_query(self, query_data: Mapping[str, list[str]]) -> dict[str, Any]:
        """Fill the form from a link; a link alone never starts a job, so this always raises."""
        # A stranger's link must not bring lines that the user's job would run.
        options = {name: value for name, value in read(query_data).items() if name != "own_setup"}
        if name := options.pop("saved", ""):
            draft.set(self._saved_draft(options, name))
            raise LinkFillsForm
        note = ""
        # Another cluster alone is no choice to look at.
        if options.keys() - {"cluster"}:
            note = _("A link filled in this form. No server has been started yet: check the choices and press Start.")
        draft.set(Draft(options, note=note, filled_in=bool(note)))
        raise LinkFillsForm

    def _saved_draft(self, options: Mapping[str, Any], name: object) -> Draft:
        """The form with one of the user's own presets, to be looked at."""
        cluster = self._offered(options)
        found = self.ledger.saved.find(self.user.name, cluster.name, name)
        chosen_cluster = {"cluster": cluster.name} if self.ledger.clusters.several else {}
        if found is None:
            return Draft(chosen_cluster, note=_("There is no preset of yours with this name."))
        note = _("The form shows your preset “{name}”. No server has been started yet.", name=found.name)
        return Draft({**found.options, **chosen_cluster}, note=note, filled_in=True, to_judge=True)

    async def accept(self, options: Mapping[str, Any]) -> None:
        """Judge options of any origin, just before the start. A job that is there already is not judged again."""
        began = now()
        # The pages that are open have those of a job that was held until now.
        self.news = getattr(self.handler, "news", None) or News()
        job = self._kept()
        # Housekeeping takes up many at once, by one listing.
        seen_after = getattr(self.handler, "seen_after", None)
        if job is not None and job.record.job_id and await has_ended(job, seen_after):
            # A follow-up may take its place.
            job = self._kept()
        try:
            self._check_taken_up(job)
            self._request = await (self._judge_or_defaults(options) if job is None else self._judge_kept(job))
        except RequestError as error:
            self.ledger.emit(audit.refused_options(self.user.name, self.name, error))
            raise as_hub_error(error, self.cluster.profile) from error
        except SchedulerError as error:
            raise self._no_account(error) from error
        except ServerLost as error:
            raise as_hub_error(error, self.cluster.profile) from error
        self._judging_s = now() - began
        if job is None:
            self._keep_choices(options)
            return
        if self._request is not None and not job.record.choices:
            job.change(choices=dict(self._request.choices))
        self.user_options = dict(job.record.choices)
        if options and dict(options) != job.record.choices:
            await self.news.say(
                _("This server already has a job. Your new choices will apply the next time you start it.")
            )

    def _keep_choices(self, options: Mapping[str, Any]) -> None:
        """Have the last choice outlive the user's own preset that it was made by, which may be deleted."""
        try:
            is_plain = self._with_saved(options, self.cluster) is options
        except RequestError:
            is_plain = False
        if self._request is not None and not is_plain:
            self.user_options = self.orm_spawner.user_options = dict(self._request.choices)

    def _check_taken_up(self, job: Job | None) -> None:
        """A job that ends while housekeeping takes it up is not replaced by one that its user has not asked for."""
        if job is None and getattr(self.handler, "takes_up", False):
            end = self.ledger.last_end(self.user.name, self.name)
            raise ServerLost(end.message if end else _("The job of this server has ended."), Reason.JOB_ENDED)

    async def _judge_kept(self, job: Job) -> JobRequest | None:
        """The request behind a job that may be there; None where the site no longer offers it."""
        try:
            return await self._judge(choices_of(job), is_new=False)
        except AccountRefused:
            # Nothing is ended for it: a wrong min_uid in the profile must not cost servers that run.
            raise
        except RequestError as error:
            if job.record.job_id:
                return None
            # Whether it was submitted is not known, and it can't be submitted again. A user database that is away at
            # the moment says the same as one that does not know the user, so then there will be another try.
            if any(problem.field != "user" for problem in error.problems):
                in_background(end_job(job, None), self.log)
            raise

    async def _judge_or_defaults(self, options: Mapping[str, Any]) -> JobRequest:
        """Judge the options; the defaults replace a stored choice that the site no longer offers."""
        try:
            return await self._judge(options)
        except RequestError as error:
            # No user is there to ask, so a start without options must not fail because of an old choice.
            if not options or not self._stored_options():
                raise
            request = await self._judge({})
            self.log.info("%s: the last choice is no longer offered: %s", self._log_name, error)
            if self.news is not None:
                message = _("Your last choice is no longer offered, so the form shows the defaults. {why}")
                await self.news.say(message.fill(why=error.sentence))
            return request

    def _stored_options(self) -> bool:
        """Whether this start was asked for without options, so that the Hub took the last ones."""
        handler = self.handler
        if handler is None or handler.request.method != "POST":
            return True
        if not isinstance(handler, apihandlers.users.UserServerAPIHandler):
            return False
        # JupyterHub 6 reads the body in a way of its own, in which an empty object means "none given".
        if hasattr(handler, "get_server_json_body"):
            return handler.get_server_json_body()["user_options"] is None
        return handler.get_json_body() is None

    async def _judge(self, options: object, *, is_new: bool = True) -> JobRequest:
        clusters = self.ledger.clusters
        cluster = self._chosen = chosen(options, clusters)
        self._account, request = await self.judged(options, cluster, is_new=is_new)
        if clusters.several:
            return replace(request, choices={"cluster": cluster.name, **request.choices})
        return request

    async def judged(
        self, options: object, cluster: Cluster, *, is_new: bool = True
    ) -> tuple[LocalAccount, JobRequest]:
        """The account and the request that these options make on a cluster. Raises RequestError, SchedulerError.

        A new request is judged by the user's own standing too. What is refused for it is judged once more by a fresh
        answer of the scheduler's.
        """
        account = await self.account_on(cluster)
        own = self._own_on(cluster, account.name) if is_new else NOT_KNOWN
        options = self._with_saved(options, cluster)
        try:
            return account, make(options, cluster.profile, account, own)
        except RequestError as error:
            if own is NOT_KNOWN or _OF_STANDING.isdisjoint(problem.field for problem in error.problems):
                raise
            await cluster.standings.fresh()
            return account, make(options, cluster.profile, account, self._own_on(cluster, account.name))

    async def account_on(self, cluster: Cluster) -> LocalAccount:
        """The account that the job runs under: the user's, or the Hub's own where the profile has no prefix."""
        access, people = cluster.profile.scheduler, cluster.client.people
        if not access.acts_for_users:
            return await asyncio.to_thread(accounts.of_hub, allow_root=self.allow_root)
        name = accounts.name_on(cluster, self.user.name)
        if people is not None:
            return await accounts.of_login_node(name, access.min_uid, people)
        # Off the loop: accounts may come from a directory service.
        return await asyncio.to_thread(accounts.of_user, name, access.min_uid, own=not (access.helper or access.api))

    @property
    def _hub_id(self) -> str:
        """Tells this Hub from another on the same cluster."""
        return hub_id(self.callback_url, self.hub.base_url)

    def _callback(self) -> str:
        return callback(self.callback_url, self.hub.base_url)


def callback(callback_url: str, base_url: str) -> str:
    """Where jobs call; `base_url` is the path of the Hub itself, such as `/hub/`."""
    return f"{callback_url.rstrip('/')}{base_url}api/hpcspawner"


def hub_id(callback_url: str, base_url: str) -> str:
    """Tells this Hub from another on the same cluster."""
    return hashlib.sha256(callback(callback_url, base_url).encode()).hexdigest()
