"""The two endpoints that a launcher calls: a ticket for its environment, and reports of what became of the server."""

import contextlib
import json
from typing import Annotated, Any, Literal, Self

from cryptography.x509 import CertificateSigningRequest
from jupyterhub.apihandlers.base import APIHandler
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from tornado import web

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp
from hpcspawner.hub import audit, certificates
from hpcspawner.hub.ledger import Report, Row, ledger, now
from hpcspawner.job.state import JobState
from hpcspawner.units import printable

_BODY_CAP = 64 * 1024
_REQUEST_CAP = 4096
Secret = Annotated[str, Field(min_length=20, max_length=200)]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def _signing_request(text: object) -> CertificateSigningRequest:
    if not isinstance(text, str) or len(text) > _REQUEST_CAP:
        raise ValueError("not a signing request")
    return certificates.read_request(text)


class TicketRequest(_Body):
    """The launcher's first call: its ticket, its job as the node knows it, and what tells this run from any other.

    That is the public key of a signing request, or a random mark where there is no TLS to the node.
    """

    ticket: Secret
    job: Annotated[str, Field(max_length=100)]
    csr: Annotated[InstanceOf[CertificateSigningRequest] | None, BeforeValidator(_signing_request)] = None
    run: Secret | None = None

    @model_validator(mode="after")
    def _one_mark(self) -> Self:
        if (self.csr is None) == (self.run is None):
            raise ValueError("either csr or run")
        # A public key is shown to all who connect; that it is one's own is shown by a signing request alone.
        if self.run and self.run.startswith(certificates.KEY):
            raise ValueError("a run may not look like a key")
        return self

    @property
    def mark(self) -> str:
        """What the ticket is bound to."""
        return certificates.mark(self.csr) if self.csr else str(self.run)


class Listening(_Body):
    """The server listens on this port; the host is never taken from here."""

    report_key: Secret
    event: Literal["listening"]
    port: Annotated[int, Field(ge=1024, le=65535)]


class Ended(_Body):
    """The server has ended, or never began."""

    report_key: Secret
    event: Literal["ended"]
    reason: Literal[
        "server-exited",
        "idle",
        "signalled",
        "setup-failed",
        "bad-directory",
        "missing-program",
        "no-port",
        "never-listened",
        "no-key",
    ]
    message: Annotated[str, Field(max_length=500), AfterValidator(printable)] = ""
    exit_code: Annotated[int, Field(ge=0, le=255)] | None = None
    signal: Annotated[int, Field(ge=1, le=64)] | None = None
    log: Annotated[list[Annotated[str, Field(max_length=300), AfterValidator(printable)]], Field(max_length=20)] = []


class Warned(_Body):
    """The scheduler has warned the job that its wall time ends soon."""

    report_key: Secret
    event: Literal["warned"]


_Event = Listening | Warned | Ended
_REPORT: TypeAdapter[_Event] = TypeAdapter(Annotated[_Event, Field(discriminator="event")])
_TICKET = TypeAdapter(TicketRequest)


class _LauncherHandler(APIHandler):
    """Neither a login nor a cookie counts here: what a caller may do hangs on the secret in its body alone."""

    async def prepare(self) -> None:
        """Do without the Hub's look-up of a user: a launcher has none."""
        self._jupyterhub_user = None
        self._resolve_roles_and_scopes()

    def check_xsrf_cookie(self) -> None:
        """Do without: no cookie gives any right here."""

    def body(self, shape: TypeAdapter[Any]) -> Any:
        """The checked body, or 400 without a word of what was sent."""
        if len(self.request.body) > _BODY_CAP:
            raise web.HTTPError(413, "body too long")
        try:
            return shape.validate_json(self.request.body)
        except ValidationError as error:
            # Names that we know: what a stranger calls its keys gets neither into the answer nor into the log.
            known = [entry["loc"] for entry in error.errors() if entry["type"] != "extra_forbidden"]
            places = "; ".join(".".join(map(str, loc)) for loc in known) or "an unknown key"
            raise web.HTTPError(400, f"malformed launcher call: {places}") from None

    def answer(self, status: int, body: dict[str, Any]) -> None:
        """Send JSON."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(body))

    def not_yet(self, why: str) -> None:
        """Ask the launcher to call again; nothing is spent."""
        self.set_header("Retry-After", "1")
        self.answer(503, {"message": why})


class TicketHandler(_LauncherHandler):
    """`POST /hub/api/hpcspawner/ticket`: 200 with the environment, 503 not yet, 403 no such ticket, 410 job ended."""

    async def post(self) -> None:
        """Trade a ticket, once the scheduler itself says that the job runs."""
        call: TicketRequest = self.body(_TICKET)
        row = ledger().by_ticket(call.ticket)
        if row is None or not _same_job(row, call):
            self.log.warning("A ticket that is not valid (any more) was presented from %s", self.request.remote_ip)
            audit.refused_call("ticket", "no such ticket" if row is None else "the ticket of another job", row)
            raise web.HTTPError(403, "this ticket is not valid")
        if not row.wanted:
            audit.refused_call("ticket", "the server was stopped", row)
            raise web.HTTPError(410, "this server was stopped")
        if not row.job_id or row.ask is None:
            return self.not_yet("the Hub does not look after this job yet")
        status = await row.ask(now())
        if status.state is JobState.ENDED:
            audit.refused_call("ticket", "the job has ended", row)
            raise web.HTTPError(410, "the scheduler says that this job has ended")
        if status.state is not JobState.RUNNING or not status.host:
            return self.not_yet(f"the scheduler says that this job is {status.state.value}")
        try:
            bound = await self._bind(row, call, status.host)
        except SchedulerError:
            return self.not_yet("the scheduler does not say how often it has started this job")
        if not bound:
            self.log.warning("%s: its ticket was presented again, from %s", row.log_name, self.request.remote_ip)
            audit.refused_call("ticket", "presented again", row)
            raise web.HTTPError(403, "this ticket is not valid")
        if not row.environment:
            row.tell()
            return self.not_yet("the Hub does not look after this job yet")
        return await self._hand_out(row, call)

    async def _hand_out(self, row: Row, call: TicketRequest) -> None:
        answer: dict[str, Any] = {
            "environment": row.environment,
            "report_key": ledger().keys.report_key(row.tag, call.mark),
        }
        if row.certify is not None and call.csr is None:
            # Its set-up has failed, or it has found no way to make a key: it may say so, and gets nothing else.
            self.log.info(
                "%s: job %s sent no signing request from %s; it gets no environment", row.log_name, row.job_id, row.host
            )
            answer["environment"] = {}
        elif row.certify is not None and call.csr is not None:
            answer.update(await row.certify(call.csr))
            if row.run != call.mark or not row.wanted:
                # Meanwhile another run has taken its place, or the server was stopped.
                audit.refused_call("ticket", "no longer this run's", row)
                raise web.HTTPError(403, "this ticket is not valid")
            self.log.info("%s: job %s runs on %s and got its certificate", row.log_name, row.job_id, row.host)
        else:
            self.log.info("%s: job %s runs on %s and got its environment", row.log_name, row.job_id, row.host)
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

    async def post(self) -> None:
        """Take note of a listening server, of a warning or of an end."""
        call: _Event = self.body(_REPORT)
        row = ledger().by_report_key(call.report_key)
        if row is None:
            self.log.warning("A report with a key that is not known came from %s", self.request.remote_ip)
            audit.refused_call("report", "no such key")
            raise web.HTTPError(403, "this key is not known")
        if isinstance(call, Listening):
            await self._listening(row, call)
        elif isinstance(call, Warned):
            self.log.info("%s: the wall time of job %s ends soon", row.log_name, row.job_id)
        else:
            self._ended(row, call)
        self.answer(200, {})

    async def _listening(self, row: Row, call: Listening) -> None:
        if row.port and row.port != call.port:
            audit.refused_call("report", "another port", row)
            raise web.HTTPError(409, "this server has reported another port already")
        if row.report or not row.wanted:
            raise web.HTTPError(410, "this server has ended")
        if row.certify is not None and not row.run.startswith(certificates.KEY):
            audit.refused_call("report", "a server without TLS", row)
            raise web.HTTPError(409, "this server has no certificate")
        if not row.port:
            self.log.info("%s: job %s listens on %s:%s", row.log_name, row.job_id, row.host, call.port)
            row.listening(call.port)
            await ledger().save(row)

    def _ended(self, row: Row, call: Ended) -> None:
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
