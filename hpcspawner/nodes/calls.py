"""What a launcher's calls may look like: the two bodies, each text in them with its length and its letters."""

import json
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from cryptography.x509 import CertificateSigningRequest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from hpcspawner.nodes import certificates
from hpcspawner.units import printable

Secret = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{20,200}$")]
"""The letters of `secrets.token_urlsafe`."""
# Slurm's numbers, those of arrays and of jobs of several parts, and Torque's with the server's name behind.
JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+\[\]-]{0,100}$")]
Pem = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/= \r\n-]{1,4096}$")]


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class TicketRequest(_Body):
    """The launcher's first call: its ticket, its job as the node knows it, and what tells this run from any other.

    That is the public key of a signing request, or a random mark where there is no TLS to the node.
    """

    ticket: Secret
    job: JobId
    csr: Pem | None = None
    run: Secret | None = None

    @model_validator(mode="after")
    def _one_mark(self) -> Self:
        if (self.csr is None) == (self.run is None):
            raise ValueError("either csr or run")
        return self

    @cached_property
    def request(self) -> CertificateSigningRequest | None:
        """The signing request with its signature checked; ValueError if it is none. Costs a fraction of a millisecond.

        So it is looked at when the caller's ticket is known.
        """
        return certificates.read_request(self.csr) if self.csr else None

    @property
    def mark(self) -> str:
        """What the ticket is bound to; ValueError as with `request`.

        A random mark never looks like that of a key, which has a colon. A public key is shown to all who connect; that
        it is one's own is shown by a signing request alone.
        """
        return certificates.mark(self.request) if self.request else str(self.run)


_Seconds = Annotated[float, Field(ge=0, le=86_400)]


class Phases(_Body):
    """How many seconds a launcher was at what, for the metrics."""

    key: _Seconds | None = None
    ticket: _Seconds | None = None
    prepare: _Seconds | None = None
    server: _Seconds | None = None


class Listening(_Body):
    """The server listens on this port; the host is never taken from here."""

    report_key: Secret
    event: Literal["listening"]
    port: Annotated[int, Field(ge=1024, le=65535)]
    phases: Phases = Phases()


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


class Wish(_Body):
    """What the server's user asks for in its status bar."""

    report_key: Secret
    event: Literal["renew", "stop"]


Event = Listening | Warned | Ended | Wish
REPORT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="event")])
TICKET: TypeAdapter[TicketRequest] = TypeAdapter(TicketRequest)


def secret_in(body: bytes, field: str) -> str:
    """The secret that a body shows, whatever else is wrong with it; "" if it shows none."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    found = found.get(field) if isinstance(found, dict) else None
    return found if isinstance(found, str) and found.isascii() else ""
