"""The size of a request's body is judged before it is kept, for every address and every method."""

import json
from collections.abc import Awaitable
from http import HTTPStatus
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine

CAP = 64 * 1024
"""Bytes for addresses of ours; the longest call of a launcher has less than a tenth of it."""
HUB_CAP = 10 << 20
"""Bytes for JupyterHub's own addresses, whose longest calls are far shorter; tornado would keep 100 MB of each."""
# By so much a body may be too long and is still read, and dropped: who is cut off while sending loses the answer.
_DROPPED = 1 << 20
_MOST_DIGITS = 10


def places(base_url: str) -> tuple[str, ...]:
    """What the paths of our addresses begin with, on a Hub at `base_url` ("/hub/")."""
    return f"{base_url}api/hpcspawner/", f"{base_url}hpcspawner/"


class BoundedServer(HTTPServer):
    """A web server that refuses bodies which are too long, once `ours` is set."""

    ours: tuple[str, ...] = ()

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """As tornado's own."""
        delegate = super().start_request(server_conn, request_conn)
        return _Measured(self.ours, request_conn, delegate) if self.ours else delegate


class _Measured(HTTPMessageDelegate):
    """One request, whose body is kept up to its cap and no further."""

    def __init__(self, ours: tuple[str, ...], connection: Any, inner: HTTPMessageDelegate):
        self._ours, self._connection, self._inner = ours, connection, inner
        self._method, self._cap, self._size, self._refused = "", 0, 0, False

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> Awaitable[None] | None:
        """As tornado's own; a length that is told and far too long is refused at once."""
        self._method = start_line.method
        self._cap = CAP if start_line.path.startswith(self._ours) else HUB_CAP
        going_on = self._inner.headers_received(start_line, headers)
        if _told(headers) > self._cap + _DROPPED:
            self._refuse()
        return going_on

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """As tornado's own; what comes after the cap is dropped, and far after it the connection ends."""
        self._size += len(chunk)
        if self._size <= self._cap:
            return self._inner.data_received(chunk)
        if self._size > self._cap + _DROPPED and not self._refused:
            self._refuse()
        return None

    def finish(self) -> None:
        """As tornado's own."""
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
        why = f"the body of a request to this address may have {self._cap} bytes; this one is longer"
        answer(self._connection, self._method, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, why)


def _told(headers: HTTPHeaders) -> int:
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
