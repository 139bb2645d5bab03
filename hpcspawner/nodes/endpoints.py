"""The two endpoints that a launcher calls: a ticket for its environment, and reports of what became of the server."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict
from http import HTTPStatus
from typing import Any, ClassVar, NoReturn

from jupyterhub.apihandlers.base import APIHandler
from pydantic import TypeAdapter, ValidationError
from tornado import web

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp
from hpcspawner.jobs.events import Refusal
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.ledger import Ledger
from hpcspawner.jobs.record import Report
from hpcspawner.jobs.renewal import renew, renewals
from hpcspawner.jobs.tasks import in_background
from hpcspawner.nodes import certificates
from hpcspawner.nodes.calls import REPORT, TICKET, Ended, Event, Listening, TicketRequest, Wish, secret_in
from hpcspawner.nodes.limit import WINDOW_S, Limited, Refusals, network
from hpcspawner.schedulers.state import JobState
from hpcspawner.sentences import recognised

_DONE = {
    "renew": "When the time ends, a new job takes over at this address. Save your files: what runs then is lost.",
    "stop": "The server stops.",
}
# Who has the secret of a job is counted by its job: others at the same address do not matter to it.
_strangers, _jobs = Refusals(in_all=600), Refusals()
# A job's own calls that ask for the same answer again. Apart, for a stranger with its ticket must not use them up.
_repeats = Refusals()


class _LauncherHandler(APIHandler):
    """Neither a login nor a cookie counts here: what a caller may do hangs on the secret in its body alone."""

    what: ClassVar[str]
    """How events call it."""

    def initialize(self, ledger: Callable[[], Ledger]) -> None:
        """`ledger` gives the Hub's one, which is opened after the handlers are made."""
        self._ledger = ledger

    @property
    def ledger(self) -> Ledger:
        """The Hub's ledger."""
        return self._ledger()

    async def prepare(self) -> None:
        """Do without the Hub's look-up of a user: a launcher has none."""
        self._jupyterhub_user = None
        self._resolve_roles_and_scopes()
        if self.request.method != "POST":
            self.refuse(405, "a launcher's call must be a POST")

    def check_xsrf_cookie(self) -> None:
        """Do without: no cookie gives any right here."""

    def checked(self, shape: TypeAdapter[Any], job: Job | None) -> Any:
        """The checked body, or 400 without a word of what was sent."""
        try:
            return shape.validate_json(self.request.body)
        except ValidationError as error:
            # Names that we know: what a stranger calls its keys gets neither into the answer nor into the log.
            known = [entry["loc"] for entry in error.errors() if entry["type"] != "extra_forbidden"]
            places = "; ".join(".".join(map(str, loc)) for loc in known) or "an unknown key"
        self.refuse(400, f"malformed launcher call: {places}", job=job)

    def answer(self, status: int, body: dict[str, Any]) -> None:
        """Send JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(body))

    def not_yet(self, why: str) -> NoReturn:
        """Ask the launcher to call again; nothing is spent."""
        self.set_header("Retry-After", "1")
        self.answer(503, {"message": why})
        raise web.Finish

    def refuse(self, status: int, message: str, why: str = "", job: Job | None = None) -> NoReturn:
        """End with this answer; `why` stands in the event, `job` is the job whose secret was shown."""
        address = self.request.remote_ip or ""
        limited = _jobs.count(job.tag) if job else _strangers.count(network(address))
        if limited is not None:
            self._say_too_many(limited, job)
            raise web.Finish
        whose = f"{job.log_name}: " if job else ""
        self.log.warning("%sa %s call from %s was refused: %s", whose, self.what, address, why or message)
        if why:
            self.ledger.emit(Refusal(self.what, why, job))
        self.answer(status, {"status": status, "message": message})
        raise web.Finish

    def _say_too_many(self, limited: Limited, job: Job | None) -> None:
        if limited.is_first:
            whose = f"{job.log_name}: " if job else ""
            self.log.warning(
                "%scalls from %s are limited: too many were refused or repeated within %.0f s; further calls get 429 "
                "and are not logged",
                *(whose, self.request.remote_ip, WINDOW_S),
            )
        self.set_header("Retry-After", str(limited.retry_after_s))
        self.answer(429, {"status": 429, "message": "too many calls were refused or repeated; call again later"})

    def _log(self) -> None:
        """As tornado's own, which writes a line for each request; not for what was refused without a word."""
        if self.get_status() != HTTPStatus.TOO_MANY_REQUESTS:
            super()._log()


class TicketHandler(_LauncherHandler):
    """`POST /hub/api/hpcspawner/ticket`: 200 with the environment, 503 not yet, 403 no such ticket, 410 job ended."""

    what = "ticket"

    async def post(self) -> None:
        """Trade a ticket, once the scheduler itself says that the job runs."""
        job = self.ledger.by_ticket(secret_in(self.request.body, "ticket"))
        call: TicketRequest = self.checked(TICKET, job)
        if job is None or not _same_job(job, call):
            self._not_valid("no such ticket" if job is None else "the ticket of another job", job)
        mark = self._mark(job, call)
        if job.record.run not in ("", mark) and _jobs.is_over(job.tag):
            # Before the scheduler is asked once more.
            self._not_valid("presented again", job)
        # An answer may be lost on its way, but not without end.
        if job.record.run == mark and (limited := _repeats.count(job.tag)):
            self._say_too_many(limited, job)
            raise web.Finish
        host = await self._host(job)
        try:
            bound = await self._bind(job, call, host)
        except SchedulerError:
            self.not_yet("the scheduler did not say how often it has started this job")
        if not bound:
            self._not_valid("presented again", job)
        if not job.environment:
            job.notify()
            self.not_yet("the Hub is not handling this job yet")
        await self._hand_out(job, call)

    def _not_valid(self, why: str, job: Job | None) -> NoReturn:
        self.refuse(403, "this ticket is not valid", why, job)

    def _mark(self, job: Job, call: TicketRequest) -> str:
        """What tells this run from any other: its key is looked at only now that its ticket is known."""
        try:
            return call.mark
        except ValueError:
            self.refuse(400, "malformed launcher call: csr is not a signing request for a key on P-256", job=job)

    async def _host(self, job: Job) -> str:
        """Where the scheduler says that the job runs, asked now."""
        if not job.record.wanted:
            self.refuse(410, "this server was stopped", "the server was stopped", job)
        if not job.record.job_id or job.ask is None:
            # A job that runs is taken up before those that wait.
            self.ledger.wake.set(job.tag)
            self.not_yet("the Hub is not handling this job yet")
        status = await job.ask(now())
        if status.state is JobState.ENDED:
            self.refuse(410, "the scheduler says that this job has ended", "the job has ended", job)
        if status.state is not JobState.RUNNING or not status.host:
            self.not_yet(f"the scheduler says that this job is {status.state.value}")
        return status.host

    async def _hand_out(self, job: Job, call: TicketRequest) -> None:
        answer: dict[str, Any] = {
            "environment": job.environment,
            "report_key": self.ledger.keys.report_key(job.tag, call.mark),
        }
        if job.certify is not None and call.request is None:
            # Its set-up has failed, or it has found no way to make a key: it may say so, and gets nothing else.
            self.log.info(
                "%s: job %s sent no signing request from %s, so the Hub sends it no environment",
                job.log_name,
                job.record.job_id,
                job.record.host,
            )
            answer["environment"] = {}
        elif job.certify is not None and call.request is not None:
            answer.update(await job.certify(call.request))
            if job.record.run != call.mark or not job.record.wanted:
                # Meanwhile another run has taken its place, or the server was stopped.
                self._not_valid("from an earlier run of the job", job)
            self.log.info(
                "%s: job %s is running on %s and got its certificate", job.log_name, job.record.job_id, job.record.host
            )
        else:
            self.log.info(
                "%s: job %s is running on %s and got its environment", job.log_name, job.record.job_id, job.record.host
            )
        job.handed_out_at = now()
        self.answer(200, answer)

    async def _bind(self, job: Job, call: TicketRequest, host: str) -> bool:
        """Whether this run may have the environment: the first, or one that the scheduler proves to be a new one."""
        mark = call.mark
        runs = await _runs(job) if job.record.run != mark else job.record.runs
        # Another call may have been faster while this one waited for the scheduler.
        if not job.record.wanted or self.ledger.by_ticket(call.ticket) is not job:
            return False
        if job.record.run and job.record.run != mark and runs <= job.record.runs:
            return False
        if job.record.run != mark:
            job.open(mark, runs, host, self.ledger.keys.report_key(job.tag, mark))
            await self.ledger.save(job)
        # A run that listens already has what it needs.
        return not job.record.port


class ReportHandler(_LauncherHandler):
    """`POST /hub/api/hpcspawner/report`: 200 taken, 403 no such key, 409 not now."""

    what = "report"

    async def post(self) -> None:
        """Take note of a listening server, of a warning, of a wish of its user, or of an end."""
        job = self.ledger.by_report_key(secret_in(self.request.body, "report_key"))
        call: Event = self.checked(REPORT, job)
        if job is None:
            self.refuse(403, "this key is not known", "no such key")
        if isinstance(call, Listening):
            await self._listening(job, call)
            self.answer(200, _told(job))
        elif isinstance(call, Wish):
            refused = await (self._renew(job) if call.event == "renew" else self._stop(job))
            self.answer(200, {"done": not refused, "message": refused or _DONE[call.event], **_told(job)})
        elif isinstance(call, Ended):
            self._ended(job, call)
            self.answer(200, {})
        else:
            self._warned(job)
            self.answer(200, {})

    async def _listening(self, job: Job, call: Listening) -> None:
        if job.record.port and job.record.port != call.port:
            self.refuse(409, "this server has reported another port already", "another port", job)
        if job.report or not job.record.wanted:
            self.refuse(410, "this server has ended", job=job)
        if job.certify is not None and not job.record.run.startswith(certificates.KEY):
            self.refuse(409, "this server has no certificate", "the server has no TLS", job)
        if not job.record.port:
            job.listening(call.port, call.phases.model_dump(exclude_none=True))
            await self.ledger.save(job)

    async def _renew(self, job: Job) -> str:
        """Have a job follow; why not, in words for the user, or "". One line is logged, however often that is asked."""
        before = job.record.renewals
        refused = await renew(job)
        if job.record.renewals != before:
            self.log.info("%s: job %s is to be renewed, at its user's wish", job.log_name, job.record.job_id)
        return refused

    async def _stop(self, job: Job) -> str:
        """Stop the server as its user would at the Hub; why not, in words for the user, or ""."""
        user = self.find_user(job.record.username)
        spawner = user.spawners.get(job.record.server) if user is not None else None
        if spawner is None or not spawner.ready:
            return "The server starts or stops just now. Try again, or use the Hub's page."
        self.log.info("%s: job %s is stopped at its user's wish", job.log_name, job.record.job_id)
        # The proxy's route goes with the server, so nothing can wait for the end.
        in_background(self.stop_single_user(user, job.record.server), self.log)
        return ""

    def _warned(self, job: Job) -> None:
        if not job.warned:
            job.warned = True
            self.log.info("%s: the wall time of job %s ends soon", job.log_name, job.record.job_id)

    def _ended(self, job: Job, call: Ended) -> None:
        if job.report:
            return  # said before; its answer was lost
        self.log.info("%s: job %s reports its end: %s %r", job.log_name, job.record.job_id, call.reason, call.message)
        job.reported(Report(call.reason, recognised(call.message), call.exit_code, call.signal, tuple(call.log)))


def _told(job: Job) -> dict[str, Any]:
    """What the server's status bar shows that the job's script does not know."""
    return {"cluster": job.cluster.profile.title, "renewals": asdict(renewals(job))}


def _same_job(job: Job, call: TicketRequest) -> bool:
    """Whether the caller is this job's job: schedulers write the number alone or with the server's name behind."""
    return not job.record.job_id or _number(call.job) == _number(job.record.job_id)


async def _runs(job: Job) -> int:
    """How often the scheduler has started the job; once, where jobs are never requeued or the scheduler does not
    count."""
    if job.count_runs is not None:
        with contextlib.suppress(SchedulerNotSetUp):
            return await job.count_runs()
    return 1


def _number(job_id: str) -> str:
    return job_id.partition(".")[0]


def handlers(ledger: Callable[[], Ledger]) -> list[tuple[str, type[APIHandler], dict[str, Any]]]:
    """What `configure()` adds to the Hub's routes."""
    return [
        (r"/api/hpcspawner/ticket", TicketHandler, {"ledger": ledger}),
        (r"/api/hpcspawner/report", ReportHandler, {"ledger": ledger}),
    ]
