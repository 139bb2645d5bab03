"""HPCSpawner: the Hub's lifecycle calls, each a few lines that hand on."""

import asyncio
import hashlib
import os
import pwd
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from batchspawner import BatchSpawnerBase
from jupyterhub import apihandlers
from traitlets import Float, List, Unicode, default

from hpcspawner.errors import HPCSpawnerError, Problem, RequestError
from hpcspawner.hub.ledger import Row, ledger, new_label, now
from hpcspawner.hub.life import Limits, cancel_until_ended, in_background, place, submit, wait_until_listening
from hpcspawner.hub.pages import Draft, LinkFillsForm, News, as_hub_error, draft, for_the_log, render_form
from hpcspawner.job.script import CallHome, render
from hpcspawner.job.state import JobState
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import JobRequest, LocalAccount
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import load

# Importing batchspawner adds an endpoint that takes more than a port from a job. Ours is `hub/reports.py`;
# `hub/boot.py` proves at start-up that the other one is gone.
apihandlers.default_handlers[:] = [
    entry for entry in apihandlers.default_handlers if not entry[1].__module__.startswith("batchspawner")
]

OVERRIDES = {
    "start": "submits through our client and waits for the launcher's report; two clocks instead of one",
    "stop": "never raises; confirms by the listing; what could not be cancelled is tried again",
    "poll": "reads the shared listing; an error of the scheduler is no end; never raises",
    "progress": "tells what changes, when it changes",
    "options_from_query": "a link fills the form and starts nothing",
    "get_state": "keeps what a restarted Hub needs to know the job again, and no secret",
    "load_state": "puts the job back into the ledger",
    "clear_state": "forgets the job of this spawner, not the job",
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

        It travels in the job script. Empty: the compute node's own store is trusted.
        """,
    )
    spool = Unicode(
        config=True,
        help="""
        Folder of the embedded `local` scheduler; other schedulers do not use it.

        Default: `hpcspawner-spool` in the Hub's working directory.
        """,
    )
    fallback_path = List(
        Unicode(),
        config=True,
        help="""
        Folders put at the end of every job's PATH, on the compute node.

        For machines where the Hub's own environment is also there for jobs; the profile's environments win.
        """,
    )
    poll_interval_s = Float(
        10.0,
        config=True,
        help="""
        Seconds that a listing of the batch system's queue is good for.

        One listing serves all users' servers. Below about 5 a busy controller notices; above about 30 the waiting
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
        Seconds that a stop waits for the scheduler to confirm; after that it is confirmed in the background.

        JupyterHub shows "stopping" during this time.
        """,
    )

    row: Row | None = None
    news: News | None = None
    _request: JobRequest | None = None
    _account: LocalAccount | None = None

    @default("spool")
    def _spool_default(self) -> str:
        return str(Path.cwd() / "hpcspawner-spool")

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

    # Doors: form, link, REST, stored options. All lead to `request.gate.make`.

    async def _form(self) -> str:
        """The inside of the Hub's spawn form."""
        shown = draft.get() or Draft(self.user_options or self.orm_spawner.user_options or {})
        return render_form(self.cluster.profile, shown)

    def _from_form(self, form_data: Mapping[str, list[Any]]) -> Awaitable[dict[str, Any]]:
        """Judge before the Hub has made a token or a row, so that a refusal leaves nothing behind."""
        shown = Draft(read(form_data))
        draft.set(shown)
        return self._judged_form(shown)

    async def _judged_form(self, shown: Draft) -> dict[str, Any]:
        try:
            return dict((await self._judge(shown.values)).choices)
        except RequestError as error:
            shown.problems = error.problems
            refused = as_hub_error(error, self.cluster.profile)
            # The form itself says it, beside the fields.
            refused.jupyterhub_message = refused.jupyterhub_html_message = ""
            raise refused from error

    def options_from_query(self, query_data: Mapping[str, list[str]]) -> dict[str, Any]:
        """Fill the form from a link; a link alone never starts a job, so this always raises."""
        note = "These choices come from a link. Nothing has been started yet; look them over and press Start."
        draft.set(Draft(read(query_data), note=note))
        raise LinkFillsForm

    async def accept(self, options: Mapping[str, Any]) -> None:
        """Judge options of any origin, just before the start."""
        self.news = News()
        try:
            self._request = await self._judge_or_defaults(options)
        except RequestError as error:
            raise as_hub_error(error, self.cluster.profile) from error

    async def _judge_or_defaults(self, options: Mapping[str, Any]) -> JobRequest:
        """Judge; a stored choice that the site does not offer any more gives way to the defaults."""
        try:
            return await self._judge(options)
        except RequestError as error:
            # Nobody is there to ask, so a start without options must not fail for what was chosen long ago.
            if not options or not self._stored_options():
                raise
            request = await self._judge({})
            self.log.info("%s: the last choice is not offered any more: %s", self._log_name, error)
            if self.news is not None:
                await self.news.say(f"Your last choice is not offered any more, so the defaults are used. {error}")
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
        self._account = await asyncio.to_thread(_local_account, self.user.name, own=not self._becomes_user)
        return make(options, self.cluster.profile, self._account)

    @property
    def _becomes_user(self) -> bool:
        return bool(self.cluster.profile.scheduler.prefix)

    # Life: start, poll, stop.

    async def start(self) -> str:
        """Submit the job and wait until its server listens; the address of the server."""
        if self._request is None or self._account is None or self.news is None:
            raise RuntimeError("start() was called before the options were judged")
        cluster, request = self.cluster, self._request
        label = new_label(self.name, self._hub_id)
        row = Row(owner=self._account.name, label=label, server=self._log_name)
        row.environment = self.get_env()
        row.ask = lambda after: cluster.queue.status(row.job, after)
        try:
            home = CallHome(
                url=self._callback(),
                ticket=row.arm(),
                ca=await self._ca(),
                limit_s=int(self.start_limit_s),
                fallback_path=tuple(self.fallback_path),
                arguments=tuple(self.get_args()),
            )
            script = render(request, cluster.client.scheduler, cluster.profile.job, label, home)
            await self.news.say("Asking the scheduler for a job", 5)
            self.row = ledger().open(row)
            await submit(cluster, row, script)
            self.job_id = row.job_id
            self.log.info("%s: job %s submitted for %s", self._log_name, row.job_id, row.owner)
            limits = Limits(self.poll_interval_s, self.start_limit_s)
            await wait_until_listening(cluster, row, self.news, limits, details=request.details)
            await self.news.say("The server listens; opening it", 90)
        except HPCSpawnerError as error:
            self.log.error("%s: %s", self._log_name, for_the_log(error))
            raise as_hub_error(error, cluster.profile) from error
        finally:
            await self.news.close()
        self._watch(row)
        return f"http://{place(cluster.profile.scheduler.node_name, row.host)}:{row.port}"

    async def poll(self) -> int | None:
        """None while the job may still be there; 0, or the server's exit code, once it is proven gone."""
        row = self.row
        if row is None or (not row.job_id and not row.wanted):
            return 0
        if not row.job_id:
            return None
        # An end that the launcher reported is news: the listing must be younger than the report.
        after = now() if row.end else now() - self.poll_interval_s
        status = await self.cluster.queue.status(row.job, after)
        if status.state is not JobState.ENDED:
            return None
        ledger().close(row)
        code = row.end.exit_code if row.end else None
        return code if code is not None else 0

    async def stop(self, now: bool = False) -> None:
        """End the job; what the scheduler does not confirm in time is seen to in the background."""
        row = self.row
        if row is not None:
            await cancel_until_ended(self.cluster, row, self.stop_limit_s)

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What happens to the job, told when it changes."""
        # The page may be there before the options are judged.
        while self.news is None and self.pending == "spawn":
            await asyncio.sleep(0.1)
        if self.news is not None:
            async for event in self.news:
                yield event

    # State: what survives a restart of the Hub.

    def get_state(self) -> dict[str, Any]:
        """What a restarted Hub needs to know the job again; no secret among it."""
        state = {} if self.row is None or not self.row.job_id else {"hpcspawner": self.row.as_state()}
        return state

    def load_state(self, state: dict[str, Any]) -> None:
        """Know a job again that an earlier Hub process started."""
        kept = state.get("hpcspawner")
        if not kept:
            return
        try:
            row = Row.from_state(kept, self._log_name)
        except (KeyError, TypeError):
            self.log.error("%s: its state was written by another version and can't be read: %s", self._log_name, kept)
            return
        self.row = ledger().open(row)
        row.ask = lambda after: self.cluster.queue.status(row.job, after)
        self.job_id = row.job_id
        self._watch(row)

    def _watch(self, row: Row) -> None:
        """Have the Hub look at once when the launcher reports the end, and not at its next poll."""
        row.on_end = lambda: in_background(self._see_end(row), self.log)

    async def _see_end(self, row: Row) -> None:
        for _ in range(_TRIES_TO_SEE_AN_END):
            status = await self.cluster.queue.status(row.job, now())
            if self.row is not row or self.pending:
                return
            if status.state is JobState.ENDED:
                await self.poll_and_notify()
                return

    def clear_state(self) -> None:
        """Forget the job of the last start. The Hub calls this before a start and after a stop."""
        self.row = self.news = self._request = self._account = None
        self.job_id = ""

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
        """Not used: `schedulers/client.py` submits."""
        raise _not_ours("submit_batch_script")

    async def query_job_status(self) -> str:
        """Not used: `schedulers/queue.py` asks once for all."""
        raise _not_ours("query_job_status")

    async def cancel_batch_job(self) -> None:
        """Not used: `schedulers/client.py` cancels."""
        raise _not_ours("cancel_batch_job")

    async def run_command(self, cmd: str, input: Any = None, env: Any = None) -> str:
        """Not used: `schedulers/client.py` runs commands, without a shell."""
        raise _not_ours("run_command")

    def get_req_subvars(self) -> dict[str, Any]:
        """Not used: a script comes from a judged request, not from traits."""
        raise _not_ours("get_req_subvars")

    # Small facts.

    @property
    def _hub_id(self) -> str:
        """Tells this Hub from another on the same cluster."""
        return hashlib.sha256(f"{self.callback_url}{self.hub.base_url}".encode()).hexdigest()

    def _callback(self) -> str:
        return f"{self.callback_url.rstrip('/')}{self.hub.base_url}api/hpcspawner"

    async def _ca(self) -> str | None:
        if not self.ca_file:
            return None
        return await asyncio.to_thread(Path(self.ca_file).read_text, encoding="ascii")


def _local_account(name: str, *, own: bool) -> LocalAccount:
    """The account that the job runs under: the user's, or the Hub's own where the profile has no prefix."""
    try:
        entry = pwd.getpwuid(os.geteuid()) if own else pwd.getpwnam(name)
    except KeyError as error:
        message = f"There is no account {name!r} on the cluster, so no job can be submitted for it."
        raise RequestError([Problem("user", message)]) from error
    return LocalAccount(entry.pw_name, entry.pw_dir)


def _not_ours(name: str) -> RuntimeError:
    return RuntimeError(f"HPCSpawner does not use {name}() of its parent class")
