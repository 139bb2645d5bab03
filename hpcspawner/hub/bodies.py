"""A server for unknown callers: limits the size of request bodies and the number of connections."""

import json
import logging
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine

from hpcspawner.hub.connections import Connections, most
from hpcspawner.jobs.job import now

CAP = 64 * 1024
"""Bytes for addresses that jobs call; the longest call of a launcher has less than a tenth of it."""
FORM_CAP = 256 * 1024
"""Bytes for our pages: a form with as many set-up lines as a site may allow, each letter as long as a form makes it."""
HUB_CAP = 1 << 20
"""Bytes for JupyterHub's own addresses; tornado would keep 100 MB of each. A list of 30,000 users is shorter."""
# By so much a body may be too long and is still read, and dropped: who is cut off while sending loses the answer.
_DROPPED = 1 << 20
_MOST_DIGITS = 10
_SAY_AGAIN_S = 60.0


def places(base_url: str) -> tuple[str, ...]:
    """What the paths of our addresses begin with, on a Hub at `base_url` ("/hub/"): what jobs call, then pages."""
    return f"{base_url}api/hpcspawner/", f"{base_url}hpcspawner/"


class BoundedServer(HTTPServer):
    """A web server that refuses bodies which are too long, and connections which are too many, once `ours` is set."""

    ours: tuple[str, ...] = ()
    log: logging.Logger = logging.getLogger(__name__)

    def initialize(self, *args: Any, **options: Any) -> None:
        """As tornado's own."""
        super().initialize(*args, **options)
        self.connections, self._said_at = Connections(most()), -_SAY_AGAIN_S

    def handle_stream(self, stream: Any, address: tuple[Any, ...]) -> None:
        """As tornado's own: a connection that was just made. Over a Unix socket it has no address."""
        gone = self.connections.opened(stream, str(address[0]) if address else "") if self.ours else None
        self.close_for_others(gone)
        if gone is not stream:
            super().handle_stream(stream, address)

    def close_for_others(self, stream: Any) -> None:
        """Close a connection, if there is one to close, and say so once in a while."""
        if stream is None:
            return
        if now() - self._said_at >= _SAY_AGAIN_S:
            self._said_at = now()
            self.log.warning(
                "hpcspawner: too many connections are open (the limit is %s) or too many request bodies are "
                "incomplete; the Hub closes the oldest. If this is not an attack, raise the Hub's limit of open "
                "files (LimitNOFILE).",
                self.connections.most,
            )
        self.connections.closed(stream)
        stream.close()

    def start_request(self, server_conn: Any, request_conn: Any) -> HTTPMessageDelegate:
        """As tornado's own."""
        delegate = super().start_request(server_conn, request_conn)
        if not self.ours:
            return delegate
        self.connections.waits(server_conn.stream)
        return _Measured(self, request_conn, delegate)

    def on_close(self, server_conn: Any) -> None:
        """As tornado's own."""
        self.connections.closed(server_conn.stream)
        super().on_close(server_conn)


class _Measured(HTTPMessageDelegate):
    """One request, whose body is kept up to its cap and no further."""

    def __init__(self, server: BoundedServer, connection: Any, inner: HTTPMessageDelegate):
        self._server, self._connection, self._inner = server, connection, inner
        # The connection lets go of it before the last word.
        self._stream = connection.stream
        self._method, self._cap, self._size, self._refused = "", 0, 0, False

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        """As tornado's own; a request that announces too long a body is refused at once."""
        self._method = start_line.method
        caps = zip(self._server.ours, (CAP, FORM_CAP), strict=False)
        self._cap = next((cap for place, cap in caps if start_line.path.startswith(place)), HUB_CAP)
        going_on = self._inner.headers_received(start_line, headers)
        if _declared_length(headers) > self._cap + _DROPPED:
            self._refuse()
        return going_on

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """As tornado's own; what comes after the cap is dropped, and far after it the connection ends."""
        self._size += len(chunk)
        if self._size <= self._cap:
            self._server.close_for_others(self._server.connections.keeps(self._stream, len(chunk)))
            return self._inner.data_received(chunk)
        if self._size > self._cap + _DROPPED and not self._refused:
            self._refuse()
        return None

    def finish(self) -> None:
        """As tornado's own."""
        self._server.connections.is_whole(self._stream)
        if self._size > self._cap:
            self._refuse()
        elif not self._refused:
            self._inner.finish()

    def on_connection_close(self) -> None:
        """As tornado's own."""
        if not self._refused:
            self._inner.on_connection_close()

    def _refuse(self) -> None:
        """Answer in place of the Hub, which never hears of this request."""
        self._refused = True
        self._inner.on_connection_close()
        why = f"a request body for this address may have at most {self._cap} bytes; this one is longer"
        answer(self._connection, self._method, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)


def _declared_length(headers: HTTPHeaders) -> int:
    """The length that a request says its body has; 0 if it says none, or nothing that is one."""
    length = headers.get("Content-Length", "").lstrip("0")
    if not (length.isascii() and length.isdecimal()):
        return 0
    return int(length[:_MOST_DIGITS]) * (10 if len(length) > _MOST_DIGITS else 1)


def answer(connection: Any, method: str, status: HTTPStatus, message: str) -> None:
    """Send an error in JSON, as JupyterHub's API does, and have the connection end: there may be more to come."""
    body = json.dumps({"status": status, "message": message}).encode()
    headers = HTTPHeaders(
        {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"},
    )
    connection.write_headers(
        ResponseStartLine("HTTP/1.1", status, status.phrase), headers, b"" if method == "HEAD" else body
    )
    connection.finish()
