"""Stands in front of a server that knows no Hub: lets through who may use it, as the Hub says.

It is jupyter-server-proxy's standalone mode, run by an environment of the site on the node, with what is missing there:
WebSockets are authenticated too, requests by cookie must come from the server's own pages, the Hub's secrets stay here,
and a Jupyter server behind gets a secret of its own with each request. `alone/front.json` beside it says what stands
behind, as the launcher's `Alone` and `Program` write it.
"""

import json
import logging
import os
import time
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from jupyter_server_proxy.handlers import SuperviseAndProxyHandler
from jupyter_server_proxy.standalone.app import StandaloneProxyServer
from jupyter_server_proxy.standalone.proxy import make_standalone_proxy
from jupyterhub.services.auth import HubOAuthenticated
from tornado import httputil, web, websocket

_HUBS_COOKIES = ("jupyterhub-", "_xsrf")
_EVENTS = "text/event-stream"
LONGEST_MESSAGE = 100 * 1024 * 1024
"""Of a WebSocket, in bytes: as of requests and answers, which tornado limits itself."""


class Attached(SuperviseAndProxyHandler):
    """The server behind runs already."""

    async def ensure_process(self) -> None:
        """Start nothing."""


def without_hubs(cookies: str) -> str:
    """A Cookie header without what is between the browser and the Hub."""
    kept = [one.strip() for one in cookies.split(";") if not one.strip().startswith(_HUBS_COOKIES)]
    return "; ".join(kept)


def kept_below(cookie: str, base: str) -> str:
    """A Set-Cookie header by which the cookie goes to this server alone, and not to those of others at the same Hub."""
    first, *parts = (part.strip() for part in cookie.split(";"))
    kept = [part for part in parts if not part.lower().startswith(("path=", "domain="))]
    path = next((part[5:] for part in parts if part.lower().startswith("path=")), "")
    return "; ".join([first, *kept, f"Path={path if f'{path}/'.startswith(f'{base}/') else f'{base}/'}"])


def comes_from_below(headers: Any, base: str, method: str) -> bool:
    """Whether a request by cookie comes from a page of this server, as far as a browser says so.

    Pages of programs know no XSRF token. A page of another user's server at the same address can leave out the Referer
    or name another one; only a domain for each user stops that.
    """
    reads = method in {"GET", "HEAD", "OPTIONS"}
    if headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and reads:
        return True
    site, origin, referer = (headers.get(name) for name in ("Sec-Fetch-Site", "Origin", "Referer"))
    if site not in (None, "same-origin") or (origin and urlsplit(origin).netloc != headers.get("Host")):
        return False
    if referer and not f"{urlsplit(referer).path}/".startswith(f"{base}/"):
        return False
    return bool(reads or site or origin)


class Guarded:
    """Mixed into the handler that passes requests on; it asks the Hub about each one. `inner` is `front.json`."""

    inner: Any
    base: str
    reader_left = False
    check_xsrf_cookie = HubOAuthenticated.check_xsrf_cookie

    def prepare(self: Any) -> None:
        """Refuse WebSockets of strangers; others are sent to the log-in or refused where they are passed on."""
        # The proxy has put its own functions over the class's, and a stream's headers come by `set_header`.
        self.set_header = partial(self.replace_header, self.set_header)
        self.write = partial(self.write_to_reader, self.write)
        self.accept = self.request.headers.get("Accept")
        if _EVENTS in (self.accept or ""):
            self.request.headers["Accept"] = _EVENTS  # by which the proxy knows what to pass on as it comes
        if "Upgrade" in self.request.headers and not self.current_user:
            raise web.HTTPError(403)
        if self.current_user:
            left = [pair for pair in parse_qsl(self.request.query, keep_blank_values=True) if pair[0] != "token"]
            if "token=" in self.request.query:
                self.request.query = urlencode(left)
            self.begin()

    def begin(self: Any) -> None:
        """Set the cookie for the pages' own requests."""
        _ = self.xsrf_token

    def proxy_request_headers(self: Any) -> Any:
        """The browser's, without what is the Hub's, and with what the server behind asks for."""
        headers = super().proxy_request_headers()  # type: ignore[misc]
        headers.pop("Authorization", None)
        for name, value in self.inner["headers"].items():
            headers[name] = value
        if self.accept:
            headers["Accept"] = self.accept
        headers["Cookie"] = without_hubs(headers.get("Cookie", ""))
        return headers

    def add_header(self: Any, name: str, value: str) -> None:
        """Pass a header of the answer on, but no cookie that would be the Hub's."""
        ours = [one.OutputString(None) for one in getattr(self, "_new_cookie", {}).values()]
        if name.lower() == "set-cookie" and value not in ours:
            if value.startswith(_HUBS_COOKIES):
                return
            value = kept_below(value, self.base)
        super().add_header(name, value)  # type: ignore[misc]

    def replace_header(self, replace: Any, name: str, value: str) -> None:
        """Pass a header of a stream on; a cookie, as those of other answers."""
        (self.add_header if name.lower() == "set-cookie" else replace)(name, value)

    def on_connection_close(self) -> None:
        """Note that the reader of the answer has gone."""
        self.reader_left = True
        super().on_connection_close()  # type: ignore[misc]

    def write_to_reader(self: Any, write: Any, part: Any) -> None:
        """Pass a part of the answer on, or end the stream once its reader has gone."""
        if not self.reader_left:
            write(part)
        elif self._headers_written and isinstance(part, bytes):  # of a stream, not of an answer that came as a whole
            raise httputil.HTTPInputError  # tornado closes the connection to the server behind, without a word


class GuardedProgram(Guarded):
    """In front of a program other than Jupyter."""

    def check_xsrf_cookie(self: Any) -> None:
        """Its pages have no XSRF token to show."""
        if getattr(self, "_token_authenticated", False):
            return
        if not comes_from_below(self.request.headers, self.base, self.request.method):
            raise web.HTTPError(403, "This request does not come from a page of this server.")

    def begin(self: Any) -> None:
        """Note that somebody uses the program, and lead to its first page."""
        path = self.request.path[len(self.base) :]
        if not path.startswith(tuple(self.inner["polls"])):
            self.note_use()
        if path == "/" and self.inner["url"] != "/" and "Upgrade" not in self.request.headers:
            self.redirect(self.base + self.inner["url"])

    def on_message(self: Any, message: Any) -> None:
        """Pass a WebSocket's message on."""
        self.note_use()
        super().on_message(message)  # type: ignore[misc]

    def note_use(self: Any) -> None:
        """Tell the launcher, once a second at most."""
        if time.time() - self.inner.get("noted", 0) > 1:
            self.inner["noted"] = time.time()
            os.utime(self.inner["used"])


class Front(StandaloneProxyServer):
    """The proxy of one server; its address, certificate and Hub come from JUPYTERHUB_… variables."""

    def __init__(self, inner: Any, **kwargs: Any) -> None:
        self._inner = inner
        super().__init__(**kwargs)
        # It would report activity even where there is none; the Hub's own proxy knows better.
        self.activity_interval = 0
        self.websocket_max_message_size = LONGEST_MESSAGE
        self.absolute_url = inner.get("keeps_address", True)
        self.command = ["started by the launcher"]
        if inner["socket"]:
            self.unix_socket = inner["socket"]
        else:
            self.server_port = inner["port"]

    def get_proxy_base_class(self) -> Any:
        """What answers requests."""
        base, kwargs = make_standalone_proxy(Attached, {"state": {}})
        guard = GuardedProgram if self._inner.get("program") else Guarded
        return type("Handler", (guard, base), {"inner": self._inner, "base": self.base_url}), kwargs


def main() -> None:
    """Serve until the launcher ends us."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: proxy: %(message)s")
    # There is no option for messages of the server behind; jupyter-server-proxy looks here.
    websocket._default_max_message_size = LONGEST_MESSAGE
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "alone", "front.json"), encoding="utf-8") as file:
        Front(json.load(file)).start()


if __name__ == "__main__":
    main()
