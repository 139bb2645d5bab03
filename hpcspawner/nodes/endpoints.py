"""The two endpoints that a launcher calls: a ticket for its environment, and reports of what became of the server."""

import contextlib
import json
from http import HTTPStatus
from typing import Any, ClassVar, NoReturn

from jupyterhub.apihandlers.base import APIHandler
from pydantic import TypeAdapter, ValidationError
from tornado import web

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp
from hpcspawner.jobs.events import Refusal
from hpcspawner.jobs.ledger import Report, Row, ledger, now
from hpcspawner.nodes import certificates
from hpcspawner.nodes.calls import REPORT, TICKET, Ended, Event, Listening, TicketRequest, Warned, secret_in
from hpcspawner.nodes.limit import WINDOW_S, Limited, Refusals, network
from hpcspawner.schedulers.state import JobState

# Who has the secret of a job is counted by its job: others at the same address do not matter to it.
_strangers, _jobs = Refusals(in_all=600), Refusals()
# A job's own calls that ask for the same answer again. Apart, for a stranger with its ticket must not use them up.
_repeats = Refusals()


class _LauncherHandler(APIHandler):
    """Neither a login nor a cookie counts here: what a caller may do hangs on the secret in its body alone."""

    what: ClassVar[str]
    """How events call it."""

    async def prepare(self) -> None:
        """Do without the Hub's look-up of a user: a launcher has none."""
        self._jupyterhub_user = None
        self._resolve_roles_and_scopes()
        if self.request.method != "POST":
            self.refuse(405, "a launcher's call must be a POST")

    def check_xsrf_cookie(self) -> None:
        """Do without: no cookie gives any right here."""

    def checked(self, shape: TypeAdapter[Any], row: Row | None) -> Any:
        """The checked body, or 400 without a word of what was sent."""
        try:
            return shape.validate_json(self.request.body)
        except ValidationError as error:
            # Names that we know: what a stranger calls its keys gets neither into the answer nor into the log.
            known = [entry["loc"] for entry in error.errors() if entry["type"] != "extra_forbidden"]
            places = "; ".join(".".join(map(str, loc)) for loc in known) or "an unknown key"
        self.refuse(400, f"malformed launcher call: {places}", row=row)

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

    def refuse(self, status: int, message: str, why: str = "", row: Row | None = None) -> NoReturn:
        """End with this answer; `why` stands in the event, `row` is the job whose secret was shown."""
        address = self.request.remote_ip or ""
        limited = _jobs.count(row.tag) if row else _strangers.count(network(address))
        if limited is not None:
            self._say_too_many(limited, row)
            raise web.Finish
        whose = f"{row.log_name}: " if row else ""
        self.log.warning("%sa %s call from %s was refused: %s", whose, self.what, address, why or message)
        if why:
            ledger().emit(Refusal(self.what, why, row))
        self.answer(status, {"status": status, "message": message})
        raise web.Finish

    def _say_too_many(self, limited: Limited, row: Row | None) -> None:
        if limited.is_first:
            whose = f"{row.log_name}: " if row else ""
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
        row = ledger().by_ticket(secret_in(self.request.body, "ticket"))
        call: TicketRequest = self.checked(TICKET, row)
        if row is None or not _same_job(row, call):
            self._not_valid("no such ticket" if row is None else "the ticket of another job", row)
        mark = self._mark(row, call)
        if row.run not in ("", mark) and _jobs.is_over(row.tag):
            # Before the scheduler is asked once more.
            self._not_valid("presented again", row)
        # An answer may be lost on its way, but not without end.
        if row.run == mark and (limited := _repeats.count(row.tag)):
            self._say_too_many(limited, row)
            raise web.Finish
        host = await self._host(row)
        try:
            bound = await self._bind(row, call, host)
        except SchedulerError:
            self.not_yet("the scheduler did not say how often it has started this job")
        if not bound:
            self._not_valid("presented again", row)
        if not row.environment:
            row.notify()
            self.not_yet("the Hub is not handling this job yet")
        await self._hand_out(row, call)

    def _not_valid(self, why: str, row: Row | None) -> NoReturn:
        self.refuse(403, "this ticket is not valid", why, row)

    def _mark(self, row: Row, call: TicketRequest) -> str:
        """What tells this run from any other: its key is looked at only now that its ticket is known."""
        try:
            return call.mark
        except ValueError:
            self.refuse(400, "malformed launcher call: csr is not a signing request for a key on P-256", row=row)

    async def _host(self, row: Row) -> str:
        """Where the scheduler says that the job runs, asked now."""
        if not row.wanted:
            self.refuse(410, "this server was stopped", "the server was stopped", row)
        if not row.job_id or row.ask is None:
            self.not_yet("the Hub is not handling this job yet")
        status = await row.ask(now())
        if status.state is JobState.ENDED:
            self.refuse(410, "the scheduler says that this job has ended", "the job has ended", row)
        if status.state is not JobState.RUNNING or not status.host:
            self.not_yet(f"the scheduler says that this job is {status.state.value}")
        return status.host

    async def _hand_out(self, row: Row, call: TicketRequest) -> None:
        answer: dict[str, Any] = {
            "environment": row.environment,
            "report_key": ledger().keys.report_key(row.tag, call.mark),
        }
        if row.certify is not None and call.request is None:
            # Its set-up has failed, or it has found no way to make a key: it may say so, and gets nothing else.
            self.log.info(
                "%s: job %s sent no signing request from %s, so the Hub sends it no environment",
                row.log_name,
                row.job_id,
                row.host,
            )
            answer["environment"] = {}
        elif row.certify is not None and call.request is not None:
            answer.update(await row.certify(call.request))
            if row.run != call.mark or not row.wanted:
                # Meanwhile another run has taken its place, or the server was stopped.
                self._not_valid("from an earlier run of the job", row)
            self.log.info("%s: job %s is running on %s and got its certificate", row.log_name, row.job_id, row.host)
        else:
            self.log.info("%s: job %s is running on %s and got its environment", row.log_name, row.job_id, row.host)
        self.answer(200, answer)

    async def _bind(self, row: Row, call: TicketRequest, host: str) -> bool:
        """Whether this run may have the environment: the first, or one that the scheduler proves to be a new one."""
        mark = call.mark
        runs = await _runs(row) if row.run != mark else row.runs
        # Another call may have been faster while this one waited for the scheduler.
        if not row.wanted or ledger().by_ticket(call.ticket) is not row:
            return False
        if row.run and row.run != mark and runs <= row.runs:
            return False
        if row.run != mark:
            row.open(mark, runs, host, ledger().keys.report_key(row.tag, mark))
            await ledger().save(row)
        # A run that listens already has what it needs.
        return not row.port


class ReportHandler(_LauncherHandler):
    """`POST /hub/api/hpcspawner/report`: 200 taken, 403 no such key, 409 not now."""

    what = "report"

    async def post(self) -> None:
        """Take note of a listening server, of a warning or of an end."""
        row = ledger().by_report_key(secret_in(self.request.body, "report_key"))
        call: Event = self.checked(REPORT, row)
        if row is None:
            self.refuse(403, "this key is not known", "no such key")
        if isinstance(call, Listening):
            await self._listening(row, call)
        elif isinstance(call, Warned):
            self._warned(row)
        else:
            self._ended(row, call)
        self.answer(200, {})

    async def _listening(self, row: Row, call: Listening) -> None:
        if row.port and row.port != call.port:
            self.refuse(409, "this server has reported another port already", "another port", row)
        if row.report or not row.wanted:
            self.refuse(410, "this server has ended", row=row)
        if row.certify is not None and not row.run.startswith(certificates.KEY):
            self.refuse(409, "this server has no certificate", "the server has no TLS", row)
        if not row.port:
            self.log.info("%s: job %s listens on %s:%s", row.log_name, row.job_id, row.host, call.port)
            row.listening(call.port)
            await ledger().save(row)

    def _warned(self, row: Row) -> None:
        if not row.warned:
            row.warned = True
            self.log.info("%s: the wall time of job %s ends soon", row.log_name, row.job_id)

    def _ended(self, row: Row, call: Ended) -> None:
        if row.report:
            return  # said before; its answer was lost
        self.log.info("%s: job %s reports its end: %s %r", row.log_name, row.job_id, call.reason, call.message)
        row.reported(Report(call.reason, call.message, call.exit_code, call.signal, tuple(call.log)))


def _same_job(row: Row, call: TicketRequest) -> bool:
    """Whether the caller is this row's job: schedulers write the number alone or with the server's name behind."""
    return not row.job_id or _number(call.job) == _number(row.job_id)


async def _runs(row: Row) -> int:
    """How often the scheduler has started the job; where jobs are never put back, or nobody knows, once."""
    if row.count_runs is not None:
        with contextlib.suppress(SchedulerNotSetUp):
            return await row.count_runs()
    return 1


def _number(job_id: str) -> str:
    return job_id.partition(".")[0]


HANDLERS: list[tuple[str, type[APIHandler]]] = [
    (r"/api/hpcspawner/ticket", TicketHandler),
    (r"/api/hpcspawner/report", ReportHandler),
]
"""What `configure()` adds to the Hub's routes."""
