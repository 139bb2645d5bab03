"""HPCSpawner: the Hub's lifecycle calls, each a few lines that hand on."""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from typing import Any

from batchspawner import BatchSpawnerBase
from cryptography.x509 import CertificateSigningRequest
from jupyterhub import apihandlers
from traitlets import Bool, Enum, Float, List, Unicode, default

from hpcspawner.errors import (
    AccountRefused,
    HPCSpawnerError,
    LedgerUnavailable,
    LedgerUnusable,
    Reason,
    RequestError,
    SchedulerNotSetUp,
    ServerLost,
)
from hpcspawner.hub import audit, startup, tokens
from hpcspawner.hub.unknown_jobs import survey
from hpcspawner.jobs import secret
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.ledger import Ledger, Row, now, open_ledger
from hpcspawner.jobs.news import News
from hpcspawner.jobs.stop import end_job, finish, has_ended
from hpcspawner.jobs.submit import Write, obtain
from hpcspawner.jobs.tasks import in_background
from hpcspawner.jobs.wait import Limits, Waiting, moved
from hpcspawner.nodes.address import Naming, Patience, ServerAddress, Sign, Tls
from hpcspawner.nodes.certificates import AUTHORITY
from hpcspawner.nodes.server_names import ZONE
from hpcspawner.pages.pages import Draft, LinkFillsForm, as_hub_error, draft, for_the_log, render_form
from hpcspawner.request import accounts
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import JobRequest, LocalAccount
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.state import JobState
from hpcspawner.script.render import CallHome, submission
from hpcspawner.site.profile import load

# Importing batchspawner adds an endpoint that takes more than a port from a job. Ours is `nodes/endpoints.py`;
# `hub/startup.py` proves at start-up that the other one is gone.
apihandlers.default_handlers[:] = [
    entry for entry in apihandlers.default_handlers if not entry[1].__module__.startswith("batchspawner")
]

OVERRIDES = {
    "start": "submits through our client and waits for the launcher's report; two clocks instead of one",
    "stop": "never raises; confirms by the listing; what could not be cancelled is tried again",
    "poll": "reads the shared listing; an error of the scheduler is no end; never raises",
    "progress": "tells what changes, when it changes",
    "options_from_query": "a link fills the form and starts nothing",
    "start_polling": "the regular look also sees that a job has moved; the Hub's check at its start is over",
    "get_state": "keeps the ledger's row, which is the one that counts as long as it is there",
    "load_state": "finds the job in the ledger",
    "clear_state": "lets go of the job, which the ledger keeps",
    "create_certs": "a server's key is made on its node; see nodes/certificates.py",
    "move_certs": "there is nothing to move",
    "get_env": "nothing of the Hub's own environment is for a compute node",
    "state_ispending": "the parent reads raw text here; ours has values",
    "state_isrunning": "as state_ispending",
    "state_isunknown": "as state_ispending",
    "state_gethost": "as state_ispending",
    "submit_batch_script": "would run the parent's shell command",
    "query_job_status": "would run the parent's shell command",
    "cancel_batch_job": "would run the parent's shell command",
    "run_command": "would run a shell line",
    "get_req_subvars": "evaluates the user database in every poll",
}
"""Every method of the parent that we replace, and why; a test keeps it complete."""


# At least a second apart: a listing is never asked for sooner.
_TRIES_TO_SEE_AN_END = 10
_TRIES_TO_STORE = 3
# JupyterHub's check at its start must not hang on a scheduler that hangs.
_BOOT_LISTING_S = 5.0
# A follow-up that was refused, for a limit on jobs in the queue perhaps, may be taken later.
_RENEW_AGAIN_S = 600.0


# JupyterHub lets go of a server whose poll says that it is gone, and does not stop it. Set where that is wanted.
_leaving: ContextVar[bool] = ContextVar("hpcspawner_leaving", default=False)


@cache
def _cluster(site: str, spool: str, log: Any) -> Cluster:
    """One per site file and Hub, however many spawners there are."""
    return Cluster.of(load(site), Path(spool), log)


class HPCSpawner(BatchSpawnerBase):
    """Starts single-user servers as batch jobs, as the site's profile offers them."""

    site = Unicode(
        config=True,
        help="""
        Path of the site profile, a TOML file.

        `hpcspawner.configure(c, "site.toml")` sets it and checks the file when the Hub starts.
        """,
    )
    callback_url = Unicode(
        config=True,
        help="""
        Public https address of this Hub as compute nodes reach it, such as `https://hub.example.org`.

        The job's launcher calls `<callback_url><base_url>hub/api/hpcspawner/…` there, through the proxy.
        """,
    )
    ca_file = Unicode(
        config=True,
        help="""
        PEM file with the authority that signed the Hub's certificate.

        It travels in the job script. Empty: the launcher trusts the compute node's own store.
        """,
    )
    spool = Unicode(
        config=True,
        help="""
        Folder of the embedded `local` scheduler; other schedulers ignore it.

        Default: `hpcspawner-spool` in the Hub's working directory.
        """,
    )
    fallback_path = List(
        Unicode(),
        config=True,
        help="""
        Folders put at the end of every job's PATH, on the compute node.

        For machines where jobs can use the Hub's own environment; the profile's environments come first.
        """,
    )
    poll_interval_s = Float(
        10.0,
        config=True,
        help="""
        Seconds for which the Hub reuses one listing of the scheduler's queue.

        One listing serves all users' servers. Values below about 5 load a busy controller; above about 30 the waiting
        page lags. A started server reports itself at once.
        """,
    )
    start_limit_s = Float(
        300.0,
        config=True,
        help="""
        Seconds from a running job to a listening server.

        A first start on a cold parallel file system takes a minute or two; a server that needs more is broken.
        """,
    )
    stop_limit_s = Float(
        10.0,
        config=True,
        help="""
        Seconds that a stop waits for the scheduler's confirmation; after that the Hub waits in the background.

        JupyterHub shows "stopping" during this time.
        """,
    )

    ledger_url = Unicode(
        config=True,
        help="""
        SQLAlchemy URL of the database that keeps the record of every job, such as `postgresql://…`.

        Default: `hpcspawner.sqlite` beside the Hub's own database where that is SQLite, else the Hub's own database,
        in a table of its own.
        """,
    )
    secret_file = Unicode(
        config=True,
        help="""
        File with the secret from which the Hub derives job tags, server tokens and report keys.

        Made at the first start, with 32 random bytes in hexadecimal digits and mode 0600; the Hub does not start with
        one that other accounts may read. Keep it: without it the Hub does not recognise running servers. Default:
        `hpcspawner_secret` beside the Hub's own database where that is SQLite, else in the Hub's working directory.
        """,
    )
    housekeeping_interval_s = Float(
        60.0,
        config=True,
        help="""
        Seconds between two rounds of housekeeping.

        In each round the Hub takes up jobs that no server object has yet, and cancels jobs that no server needs. A
        change of a job's state does not wait for the next round.
        """,
    )
    orphan_grace_s = Float(
        300.0,
        config=True,
        help="""
        Seconds before the Hub cancels one of its jobs that no server needs, because the server was stopped or removed.

        The Hub cancels at most three such jobs in a round. It takes up a job that is missing from the ledger where the
        job's tag proves which server it belongs to; otherwise it keeps the job if it is older than the Hub's start.
        """,
    )
    reaper_dry_run = Bool(
        False,
        config=True,
        help="""
        Only log the jobs that would be cancelled because no server needs them.

        For a first try on a site with jobs of other Hubs. Stopping a server still cancels its job.
        """,
    )

    allow_root = Bool(
        False,
        config=True,
        help="""
        Let all jobs run as root, where the Hub runs as root and the site runs jobs as the Hub's own account.

        Every user is root then: use it only in a container that has no other account and nothing to lose. Without it
        such a Hub submits no job. It changes nothing where jobs run as their users: there the Hub submits no job for
        root.
        """,
    )

    certificate_names = Enum(
        ["job", "host"],
        default_value="job",
        config=True,
        help="""
        What a server's certificate identifies: its job (safe) or only its node (weaker).

        "job": `j<nonce>.<node>.<certificate_zone>`, so that no other server on the node can pose as this one. "host" is
        weaker: another user's server on the same node has a certificate for the same name. Use it only for proxies that
        can't resolve such names, on clusters where users never share nodes.
        """,
    )
    certificate_zone = Unicode(
        ZONE,
        config=True,
        help="""
        DNS zone of the servers' names.

        The Hub and configurable-http-proxy need no name server for the default. Another zone is the site's own, with
        wildcard DNS: `<anything>.<node>.<zone>` must resolve to the node.
        """,
    )

    row: Row | None = None
    news: News | None = None
    _request: JobRequest | None = None
    _account: LocalAccount | None = None
    # JupyterHub looks at each server when it starts; until it has seen one, nothing may end its job.
    _checked_at_boot = False
    _patience: Patience
    _renew_after = 0.0

    @default("spool")
    def _spool_default(self) -> str:
        return str(Path.cwd() / "hpcspawner-spool")

    @default("ledger_url")
    def _ledger_url_default(self) -> str:
        return startup.ledger_url_beside_the_hubs()

    @default("secret_file")
    def _secret_file_default(self) -> str:
        return startup.secret_file_beside_the_hubs()

    @default("ip")
    def _ip_default(self) -> str:
        return self.cluster.client.scheduler.listen_ip

    @default("env_keep")
    def _env_keep_default(self) -> list[str]:
        return []

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
    def cluster(self) -> Cluster:
        """The site's profile, commands and queue, shared with every other spawner."""
        return _cluster(self.site, self.spool, self.log)

    @property
    def ledger(self) -> Ledger:
        """The Hub's record of its jobs, opened when it is first needed."""
        try:
            return open_ledger(self.ledger_url, self.keys, self.log, startup.OUTSIDE)
        except LedgerUnusable as error:
            # Before JupyterHub drops the servers that it can't find in there.
            self.log.critical("hpcspawner: %s The Hub stops.", error)
            raise SystemExit(1) from None

    def keys(self) -> Keys:
        """What this Hub derives from its secret, which is read, or made, now. Raises SecretUnusable."""
        return Keys(secret.kept(Path(self.secret_file), self.log), self._hub_id, startup.cookie_secret())

    # Doors: form, link, REST, stored options. All lead to `request.gate.make`.

    async def _form(self) -> str:
        """The inside of the Hub's spawn form."""
        shown = draft.get() or Draft(
            self.user_options or self.orm_spawner.user_options or {}, note=self._end_of_the_last()
        )
        return render_form(self.cluster.profile, shown)

    def _end_of_the_last(self) -> str:
        """Why the last server ended, for a user who did not end it."""
        end = self.ledger.last_end(self.user.name, self.name)
        return f"Your last server ended at {end.when}. {end.message}" if end else ""

    def _from_form(self, form_data: Mapping[str, list[Any]]) -> Awaitable[dict[str, Any]]:
        """Judge before the Hub has made a token or a row, so that a refusal leaves nothing behind."""
        shown = Draft(read(form_data))
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

    def options_from_query(self, query_data: Mapping[str, list[str]]) -> dict[str, Any]:
        """Fill the form from a link; a link alone never starts a job, so this always raises."""
        note = "A link filled in this form. No server has been started yet: check the choices and press Start."
        draft.set(Draft(read(query_data), note=note))
        raise LinkFillsForm

    async def accept(self, options: Mapping[str, Any]) -> None:
        """Judge options of any origin, just before the start. A job that is there already is not judged again."""
        self.news = News()
        row = self._kept()
        if row is not None and row.job_id and await has_ended(self.cluster, row):
            # A follow-up may take its place.
            row = self._kept()
        try:
            self._check_taken_up(row)
            self._request = await (self._judge_or_defaults(options) if row is None else self._judge_kept(row))
        except RequestError as error:
            self.ledger.emit(audit.refused_options(self.user.name, self.name, error))
            raise as_hub_error(error, self.cluster.profile) from error
        except ServerLost as error:
            raise as_hub_error(error, self.cluster.profile) from error
        if row is None:
            return
        if self._request is not None and not row.choices:
            row.choices = dict(self._request.choices)
        self.user_options = dict(row.choices)
        if options and dict(options) != row.choices:
            await self.news.say(
                "This server already has a job. Your new choices will apply the next time you start it."
            )

    def _check_taken_up(self, row: Row | None) -> None:
        """A job that ends while housekeeping takes it up is not replaced by one that its user has not asked for."""
        if row is None and getattr(self.handler, "takes_up", False):
            end = self.ledger.last_end(self.user.name, self.name)
            raise ServerLost(end.message if end else "The job of this server has ended.", Reason.JOB_ENDED)

    async def _judge_kept(self, row: Row) -> JobRequest | None:
        """The request behind a job that may be there; None where the site does not offer it any more."""
        try:
            return await self._judge(row.choices)
        except AccountRefused:
            # Nothing is ended for it: a wrong min_uid in the profile must not cost servers that run.
            raise
        except RequestError as error:
            if row.job_id:
                return None
            # Whether it was submitted is not known, and it can't be submitted again. A user database that is away at
            # the moment says the same as one that does not know the user, so then there will be another try.
            if any(problem.field != "user" for problem in error.problems):
                in_background(end_job(self.cluster, row, None), self.log)
            raise

    async def _judge_or_defaults(self, options: Mapping[str, Any]) -> JobRequest:
        """Judge; a stored choice that the site does not offer any more gives way to the defaults."""
        try:
            return await self._judge(options)
        except RequestError as error:
            # Nobody is there to ask, so a start without options must not fail for what was chosen long ago.
            if not options or not self._stored_options():
                raise
            request = await self._judge({})
            self.log.info("%s: the last choice is no longer offered: %s", self._log_name, error)
            if self.news is not None:
                await self.news.say(f"Your last choice is no longer offered, so the form shows the defaults. {error}")
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

    async def _judge(self, options: object) -> JobRequest:
        # Off the loop: accounts may come from a directory service.
        self._account = await asyncio.to_thread(self._local_account)
        return make(options, self.cluster.profile, self._account)

    def _local_account(self) -> LocalAccount:
        """The account that the job runs under: the user's, or the Hub's own where the profile has no prefix."""
        access = self.cluster.profile.scheduler
        if access.prefix:
            return accounts.of_user(self.user.name, access.min_uid, own=not access.helper)
        return accounts.of_hub(allow_root=self.allow_root)

    # Life: start, poll, stop.

    async def start(self) -> str:
        """Submit a job, or take up the one that is there, and wait until its server listens; the server's address."""
        cluster, news = self.cluster, self.news
        if news is None:
            raise RuntimeError("start() was called before the options were checked")
        row = None
        try:
            await self._old_jobs_have_ended()
            row = await self._kept_or_lost()
            self._check_taken_up(row)
            row = row or self._new_row()
            await self._adopt(row)
            write = await self._writer(row)
            await news.say("Submitting the job" if not row.asked_at else "Looking for the job", 5)
            adopted = bool(row.job_id)
            await obtain(cluster, row, write, news.say)
            self.job_id = row.job_id
            did = "taken up again" if adopted else "submitted"
            self.log.info("%s: job %s %s for %s", self._log_name, row.job_id, did, row.owner)
            waiting = Waiting(cluster, row, news, self._limits(row))
            await waiting.until_it_answers(self._answers, details=bool(row.choices.get("details")))
            await news.say("The server listens; opening it", 90)
        except HPCSpawnerError as error:
            if isinstance(error, LedgerUnavailable):
                self._release()
            if row is not None and self.ledger.by_tag(row.tag) is None:
                # Refused, or never asked for: there will be no server that could need its token.
                tokens.revoke(row)
            self.log.error("%s: %s", self._log_name, for_the_log(error))
            raise as_hub_error(error, cluster.profile) from error
        finally:
            await news.close()
        row.environment = {}
        # A follow-up is asked for at once: it grows older in the queue while this server works.
        self.ledger.wake.set()
        return (await self._address()).address(row)

    def _kept(self) -> Row | None:
        """A job of this server that is wanted and not yet seen to end; a follow-up only after its parent."""
        rows = self.ledger.of(self.user.name, self.name)
        return next((row for row in rows if row.wanted and not self.ledger.by_tag(row.follows)), None)

    async def _kept_or_lost(self) -> Row | None:
        """As `_kept`; before a job is asked for, one that the ledger has lost must have been looked for."""
        row = self._kept()
        while row is None and not self.ledger.surveyed:
            if await survey(self.db, self.cluster, now() - self.poll_interval_s) is None:
                if isinstance(self.cluster.queue.error, SchedulerNotSetUp):
                    # Waiting would not help; the submit could not do better.
                    raise self.cluster.queue.error
                await _say_away(self.news)
                await asyncio.sleep(1)
            row = self._kept()
        return row

    async def _old_jobs_have_ended(self) -> None:
        """At most one job of a server runs."""
        for row in self.ledger.of(self.user.name, self.name):
            if not row.wanted:
                if self.news:
                    await self.news.say(f"Waiting for this server's previous job {row.job_id} to end".rstrip(), 2)
                await end_job(self.cluster, row, None)

    def _new_row(self, follows: Row | None = None) -> Row:
        if self._request is None or self._account is None:
            raise RuntimeError("no job without judged options")
        row = self.ledger.new_row(self.user.name, self.name, self._account.name, follows)
        row.choices = dict(self._request.choices)
        row.renewals = follows.renewals - 1 if follows else self._request.renewals
        return row

    async def _adopt(self, row: Row) -> None:
        """Look after this job, with the token that its server has or will get."""
        token = self.ledger.keys.token(row.tag)
        for _ in range(_TRIES_TO_STORE):
            if tokens.hand_over(self, token):
                break
            await asyncio.sleep(1)
        else:
            raise LedgerUnavailable
        row.environment = {**self.get_env(), "JUPYTERHUB_API_TOKEN": token, "JPY_API_TOKEN": token}
        if row.follows:
            # Its parent is over; now this is the server's job, and its own time in the queue begins.
            row.follows, row.waits_since = "", time.time()
            await self.ledger.save(row)
        self._wire(row)

    def _wire(self, row: Row) -> None:
        cluster = self.cluster
        row.ask = lambda after: cluster.queue.status(row.job, after)
        if cluster.profile.job.requeue:
            row.count_runs = lambda: cluster.client.runs(row.job_id)
        if self.internal_ssl:
            row.certify = partial(self._certify, row)
        row.on_report = lambda: in_background(self._recheck(row), self.log)
        row.attached = True
        self.row, self.job_id = row, row.job_id
        self._checked_at_boot = False
        self._patience, self._renew_after = Patience(), 0.0

    def _release(self) -> None:
        """Leave the job to housekeeping."""
        row, self.row, self.job_id = self.row, None, ""
        if row is not None:
            row.attached, row.on_report, row.environment = False, None, {}
            self.ledger.wake.set()

    async def _writer(self, row: Row) -> Write:
        """What makes the job that carries a ticket."""
        ca, cluster, request = await self._ca(), self.cluster, self._request

        def write(ticket: str) -> Submission:
            if request is None:
                raise RuntimeError("an existing job is never submitted again")
            home = CallHome(
                url=self._callback(),
                ticket=ticket,
                ca=ca,
                limit_s=int(self.start_limit_s),
                fallback_path=tuple(self.fallback_path),
                arguments=tuple(self.get_args()),
                tls=self.internal_ssl,
            )
            return submission(request, cluster.client.scheduler, cluster.profile.job, row.label, home)

        return write

    def _limits(self, row: Row) -> Limits:
        limit = self._request.queue_limit if self._request else self.cluster.profile.limits.queue
        return Limits(self.poll_interval_s, limit.seconds, self.start_limit_s)

    async def renew(self) -> None:
        """See to it that a job which may start again has its follow-up in the queue."""
        row = self.row
        if row is None or not row.port or not row.wanted or row.renewals < 1 or any(self.ledger.following(row)):
            return
        if now() < self._renew_after:
            return
        self._renew_after = now() + _RENEW_AGAIN_S
        try:
            self._request = await self._judge(row.choices)
            follower = self._new_row(row)
            write = await self._writer(follower)
            if not row.wanted or row.end is not None:
                return  # it was stopped meanwhile
            await obtain(self.cluster, follower, write, _quiet)
            self.log.info("%s: job %s follows job %s", self._log_name, follower.job_id, row.job_id)
        except HPCSpawnerError as error:
            self.log.warning("%s: no follow-up job for %s: %s", self._log_name, row.job_id, for_the_log(error))

    async def poll(self) -> int | None:
        """None while the job may still be there; 0, or the server's exit code, once it is proven gone."""
        row = self.row
        if _leaving.get():
            return 1
        if row is None or (not row.job_id and not row.wanted):
            return 0
        if self._checked_at_boot:
            # A server that is slow today leaves the Hub's table, never the ledger.
            return None if row.wanted and row.port and await self._is_there(row) else 0
        if row.end is None and row.job_id:
            # An end that the launcher reported is news: the listing must be younger than the report.
            after = now() if row.report else now() - self.poll_interval_s
            status = await self.cluster.queue.status(row.job, after)
            if status.state is JobState.ENDED:
                await finish(self.cluster, row, status)
        return (row.end.exit_code or 0) if row.end else None

    async def _is_there(self, row: Row) -> bool:
        """Whether a server from before the Hub's start answers where its job still is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BOOT_LISTING_S):
                status = await self.cluster.queue.status(row.job, now() - self.poll_interval_s)
                if status.state is JobState.ENDED or moved(row, status):
                    return False
        return await self._answers()

    async def _watch(self) -> None:
        """The regular look: a server whose job has moved is let go of, which ends no job."""
        if not self.pending and await self._must_leave() and not self.pending:
            # Of this task and what it calls; a stop by the user that comes meanwhile is another.
            _leaving.set(True)
        await self.poll_and_notify()

    @property
    def unpolled(self) -> bool:
        """Whether nobody looks any more what becomes of this server: JupyterHub failed while it let go of it."""
        return self.active and not self.pending and self.poll_interval > 0 and self._poll_callback is None

    async def leave(self) -> None:
        """Let go of the server; housekeeping takes its job up again."""
        _leaving.set(True)
        await self.user.stop(self.name)

    async def _must_leave(self) -> bool:
        """Whether the job is wanted but its server is no longer where the Hub sends its users."""
        row = self.row
        if row is None or not row.job_id or not row.wanted or row.end is not None:
            return False
        if not row.port:
            return True  # another run has traded the ticket
        status = await self.cluster.queue.status(row.job, now() - self.poll_interval_s)
        if row.port and moved(row, status):
            self.log.warning("%s: job %s is %s again", self._log_name, row.job_id, status.state.value)
            await self.ledger.put_back(row)
            return True
        return status.state is JobState.RUNNING and await self._is_silent(row)

    async def _is_silent(self, row: Row) -> bool:
        sign = await (await self._address()).sign(row)
        if sign is Sign.NONE:
            self.log.warning("%s: nothing answers on %s:%s", self._log_name, row.host, row.port)
        elif sign is Sign.MUTE:
            self.log.warning(
                "%s: %s:%s takes connections and does not prove who it is", self._log_name, row.host, row.port
            )
        return self._patience.ends(sign, now())

    async def stop(self, now: bool = False) -> None:
        """End the job; what the scheduler does not confirm in time is seen to in the background."""
        row = self.row
        if row is not None and not self._checked_at_boot:
            await end_job(self.cluster, row, self.stop_limit_s)

    def start_polling(self) -> None:
        """As JupyterHub's own, with our look; its first call says that the Hub has seen the server."""
        self._checked_at_boot = False
        super().start_polling()
        if self._poll_callback is not None:
            self._poll_callback.callback = self._watch

    async def _answers(self) -> bool:
        if self.row is None or self.server is None:
            return False
        return await (await self._address()).answers(self.row, f"{self.server.base_url}api")

    async def _certify(self, row: Row, request: CertificateSigningRequest) -> dict[str, str]:
        return await (await self._address()).certify(row, request)

    async def _address(self) -> ServerAddress:
        zone = self.certificate_zone if self.certificate_names == "job" else ""
        naming = Naming(self.ledger.keys, self.cluster.profile.scheduler.node_name, zone)
        if not self.internal_ssl:
            return ServerAddress(naming, None)
        hub = self.hub
        files = [self.internal_certs_location, self.internal_trust_bundles[AUTHORITY]]
        return ServerAddress(naming, await asyncio.to_thread(Tls.of, *files, hub.certfile, hub.keyfile, hub.cafile))

    async def create_certs(self) -> dict[str, str]:
        """None are made on the Hub: the key is made on the node, and never leaves it."""
        return {}

    async def move_certs(self, paths: dict[str, str]) -> dict[str, str]:
        """Nothing was made, so nothing is moved."""
        return paths

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What happens to the job, told when it changes."""
        # The page may be there before the options are judged.
        while self.news is None and self.pending == "spawn":
            await asyncio.sleep(0.1)
        if self.news is not None:
            async for event in self.news:
                yield event

    # State: what survives a restart of the Hub lies in the ledger.

    def get_state(self) -> dict[str, Any]:
        """Where to find the job in the ledger, and its row, should the ledger be lost."""
        return {"hpcspawner": self.row.copy()} if self.row is not None else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Find the job that an earlier Hub process started."""
        row = self.ledger.recall(self.user.name, self.name, state.get("hpcspawner", {}))
        # Without a server of JupyterHub's nobody checks it; then housekeeping takes the job up.
        if row is not None and self.orm_spawner.server is not None:
            self._wire(row)
            self._checked_at_boot = True

    async def _recheck(self, row: Row) -> None:
        """Have the Hub look at once when the launcher reports something, and not at its next poll."""
        for _ in range(_TRIES_TO_SEE_AN_END):
            if self.row is not row or self.pending:
                return
            status = await self.cluster.queue.status(row.job, now())
            if not row.port or status.state in (JobState.ENDED, JobState.PENDING, JobState.HELD):
                await self._watch()
                return

    def clear_state(self) -> None:
        """Let go of the job of the last start. The Hub calls this before a start and after a stop."""
        self._release()
        self.news = self._request = self._account = None
        self._checked_at_boot = False

    def get_env(self) -> dict[str, str]:
        """The environment of the server: what JupyterHub wants it to know, and the admin's `Spawner.environment`."""
        return {name: str(value) for name, value in super().get_env().items()}

    # The parent's own machinery, which must never run.

    def state_ispending(self) -> bool:
        """Not used: states are values here."""
        raise _not_ours("state_ispending")

    def state_isrunning(self) -> bool:
        """Not used: states are values here."""
        raise _not_ours("state_isrunning")

    def state_isunknown(self) -> bool:
        """Not used: states are values here."""
        raise _not_ours("state_isunknown")

    def state_gethost(self) -> str:
        """Not used: states are values here."""
        raise _not_ours("state_gethost")

    async def submit_batch_script(self) -> str:
        """Not used: `schedulers/commands.py` submits."""
        raise _not_ours("submit_batch_script")

    async def query_job_status(self) -> str:
        """Not used: `schedulers/queue.py` asks once for all."""
        raise _not_ours("query_job_status")

    async def cancel_batch_job(self) -> None:
        """Not used: `schedulers/commands.py` cancels."""
        raise _not_ours("cancel_batch_job")

    async def run_command(self, cmd: str, input: Any = None, env: Any = None) -> str:
        """Not used: `schedulers/commands.py` runs commands, without a shell."""
        raise _not_ours("run_command")

    def get_req_subvars(self) -> dict[str, Any]:
        """Not used: a script comes from a judged request, not from traits."""
        raise _not_ours("get_req_subvars")

    # Small facts.

    @property
    def _hub_id(self) -> str:
        """Tells this Hub from another on the same cluster."""
        return hashlib.sha256(self._callback().encode()).hexdigest()

    def _callback(self) -> str:
        return f"{self.callback_url.rstrip('/')}{self.hub.base_url}api/hpcspawner"

    async def _ca(self) -> str | None:
        if not self.ca_file:
            return None
        return await asyncio.to_thread(Path(self.ca_file).read_text, encoding="ascii")


async def _say_away(news: News | None) -> None:
    if news is not None:
        await news.say("The scheduler is not answering at the moment. The Hub will submit the job as soon as it does.")


async def _quiet(_: str) -> None:
    """Nobody looks at a follow-up's news."""


def _not_ours(name: str) -> RuntimeError:
    return RuntimeError(f"HPCSpawner does not use {name}() of its parent class")
