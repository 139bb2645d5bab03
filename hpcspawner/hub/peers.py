"""Who calls the Hub's own port, known by the certificate, and what that caller may do there.

JupyterHub's `internal_ssl` lets in all who have a certificate of one of its authorities, and each server has one.
"""

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from pathlib import Path
from typing import Any

from certipy import Certipy
from cryptography import x509
from jupyterhub.app import JupyterHub
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, RequestStartLine

from hpcspawner.hub import bodies
from hpcspawner.hub.bodies import BoundedServer
from hpcspawner.nodes.certificates import AUTHORITY
from hpcspawner.nodes.limit import Refusals, network

HUB, PROXY, PROXY_API = "hub-ca", "proxy-client-ca", "proxy-api-ca"
_CLAIMS = re.compile(r"forwarded|x-forwarded-.*|x-real-ip|x-scheme", re.IGNORECASE)
# What jupyterhub-singleuser asks the Hub for: its version, whose token or cookie this is, and where activity goes.
_OF_SERVERS = (
    r"GET (|/)",
    r"GET /user",
    r"POST /oauth2/token",
    r"POST /users/[^/]+/activity",
)
_SERVERS_ONLY = (
    "with a server's certificate, the Hub's port accepts only the API calls of jupyterhub-singleuser; call the Hub's "
    "public address for anything else"
)


class Peer(Enum):
    """Whom a certificate is for."""

    PROXY = auto()
    SERVER = auto()
    OTHER = auto()


@dataclass(frozen=True, slots=True)
class Authorities:
    """The names of who signs for servers and for the proxy."""

    servers: x509.Name
    proxy: x509.Name

    @classmethod
    def of(cls, folder: str) -> "Authorities":
        """JupyterHub's own, from `internal_certs_location`. Reads files: not on a loop that serves."""
        return cls(subject(folder, AUTHORITY), subject(folder, PROXY))

    def peer(self, certificate: bytes | None) -> Peer:
        """Whose this certificate (DER, checked by TLS) is; the weaker where it could be either's."""
        if certificate is None:
            return Peer.OTHER
        issuer = x509.load_der_x509_certificate(certificate).issuer
        if issuer == self.servers:
            return Peer.SERVER
        return Peer.PROXY if issuer == self.proxy else Peer.OTHER


def subject(folder: str, authority: str) -> x509.Name:
    """The name by which an authority signs."""
    file = Certipy(store_dir=folder).store.get_record(authority)["files"]["cert"]
    return x509.load_pem_x509_certificate(Path(file).read_bytes()).subject


def install() -> None:
    """Have the Hub that reads its configuration now know its callers."""
    HTTPServer.configure(HubServer)
    if JupyterHub.initialized():
        narrow(JupyterHub.instance())


def narrow(app: JupyterHub) -> None:
    """Have the proxy's REST API believe the Hub's certificate alone.

    As JupyterHub has it, the certificates of servers and services open the connection, and the token alone refuses.
    Comes before `init_internal_ssl`, which writes the files.
    """

    def rewrite(change: Any) -> None:
        if PROXY_API in change["new"]:
            store = Certipy(store_dir=app.internal_certs_location)
            change["new"].update(store.trust_from_graph({PROXY_API: [HUB]}))

    app.observe(rewrite, names="internal_trust_bundles")


class HubServer(BoundedServer):
    """The Hub's web server; any other server of this process is tornado's own."""

    _authorities: Authorities | None = None

    def initialize(self, *args: Any, **options: Any) -> None:
        """As tornado's own."""
        super().initialize(*args, **options)
        hub = JupyterHub.instance() if JupyterHub.initialized() else None
        if hub is None or self.request_callback is not hub.tornado_application:
            return
        self.ours = bodies.places(hub.hub.base_url)
        self._allowed = re.compile(_calls(hub.hub.base_url))
        self._refusals, self.log = Refusals(), hub.log
        if self.ssl_options is not None:
            self._authorities = Authorities.of(hub.internal_certs_location)

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """As tornado's own."""
        delegate = super().start_request(server_conn, request_conn)
        return delegate if self._authorities is None else _Judged(self, request_conn, delegate)

    def judge(self, connection: Any, start: RequestStartLine, headers: HTTPHeaders) -> str:
        """Why this request is refused; "" if it may go on, with what its sender may claim."""
        shown = connection.stream.socket.getpeercert(binary_form=True)
        peer = self._authorities.peer(shown) if self._authorities else Peer.OTHER
        if peer is not Peer.PROXY:
            for name in [name for name in headers if _CLAIMS.fullmatch(name)]:
                del headers[name]
        if peer is Peer.SERVER and not self._allowed.fullmatch(f"{start.method} {start.path.partition('?')[0]}"):
            self._note(connection)
            return _SERVERS_ONLY
        return ""

    def _note(self, connection: Any) -> None:
        address = str(connection.context.remote_ip)
        if self._refusals.count(network(address)) is None:
            self.log.warning("The Hub's port refused a call from a server at %s: %s", address, _SERVERS_ONLY)


def _calls(base_url: str) -> str:
    """The pattern of what servers may ask for."""
    return "|".join(call.replace(" ", f" {re.escape(base_url)}api", 1) for call in _OF_SERVERS)


class _Judged(HTTPMessageDelegate):
    """One request: who sends it is known when its headers are there, for then TLS has been spoken."""

    def __init__(self, server: HubServer, connection: Any, inner: HTTPMessageDelegate):
        self._server, self._connection, self._inner = server, connection, inner
        self._refused = False

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        """As tornado's own."""
        why = self._server.judge(self._connection, start_line, headers)
        if not why:
            return self._inner.headers_received(start_line, headers)
        self._refused = True
        bodies.answer(self._connection, start_line.method, HTTPStatus.FORBIDDEN, why)
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """As tornado's own."""
        return None if self._refused else self._inner.data_received(chunk)

    def finish(self) -> None:
        """As tornado's own."""
        if not self._refused:
            self._inner.finish()

    def on_connection_close(self) -> None:
        """As tornado's own."""
        if not self._refused:
            self._inner.on_connection_close()
