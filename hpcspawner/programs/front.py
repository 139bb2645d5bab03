"""Stands in front of a Jupyter server that knows no Hub: lets through who may use it, as the Hub says.

It is jupyter-server-proxy's standalone mode, run by an environment of the site on the node, with what is missing there:
WebSockets are authenticated too, requests by cookie must come from the server's own pages, the Hub's secrets stay here,
and the server behind gets a secret of its own with each request. `front.json` beside it says where that is.
"""

import json
import logging
import os
from typing import Any
from urllib.parse import parse_qsl, urlencode

from jupyter_server_proxy.handlers import SuperviseAndProxyHandler
from jupyter_server_proxy.standalone.app import StandaloneProxyServer
from jupyter_server_proxy.standalone.proxy import make_standalone_proxy
from jupyterhub.services.auth import HubOAuthenticated
from tornado import web

_HUBS_COOKIES = ("jupyterhub-", "_xsrf")


class Attached(SuperviseAndProxyHandler):
    """The server behind runs already."""

    async def ensure_process(self) -> None:
        """Start nothing."""


def without_hubs(cookies: str) -> str:
    """A Cookie header without what is between the browser and the Hub."""
    kept = [one.strip() for one in cookies.split(";") if not one.strip().startswith(_HUBS_COOKIES)]
    return "; ".join(kept)


def guarded(base: Any, token: str) -> Any:
    """The handler `base`, which asks the Hub about every request, and passes it on with the server's own token."""

    class Guarded(base):
        check_xsrf_cookie = HubOAuthenticated.check_xsrf_cookie

        def prepare(self) -> None:
            # Others are sent to the log-in or refused where they are passed on.
            if "Upgrade" in self.request.headers and not self.current_user:
                raise web.HTTPError(403)
            if self.current_user:
                _ = self.xsrf_token  # sets the cookie for the pages' own requests
                left = [pair for pair in parse_qsl(self.request.query, keep_blank_values=True) if pair[0] != "token"]
                if "token=" in self.request.query:
                    self.request.query = urlencode(left)

        def proxy_request_headers(self) -> Any:
            headers = super().proxy_request_headers()
            headers["Authorization"] = "token " + token
            headers["Cookie"] = without_hubs(headers.get("Cookie", ""))
            return headers

        def add_header(self, name: str, value: str) -> None:
            if not (name.lower() == "set-cookie" and value.startswith("_xsrf=")):
                super().add_header(name, value)

    return Guarded


class Front(StandaloneProxyServer):
    """The proxy of one server; its address, certificate and Hub come from JUPYTERHUB_… variables."""

    def __init__(self, settings: Any, **kwargs: Any) -> None:
        self._token = settings["token"]
        super().__init__(**kwargs)
        # It would report activity even where there is none; the Hub's own proxy knows better.
        self.activity_interval = 0
        self.absolute_url = True
        self.command = ["started by the launcher"]
        if settings["on_socket"]:
            self.unix_socket = settings["socket"]
        else:
            self.server_port = settings["port"]

    def get_proxy_base_class(self) -> Any:
        """What answers requests."""
        base, kwargs = make_standalone_proxy(Attached, {"state": {}})
        return guarded(base, self._token), kwargs


def main() -> None:
    """Serve until the launcher ends us."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: proxy: %(message)s")
    with open(
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "alone", "front.json"), encoding="utf-8"
    ) as file:
        Front(json.load(file)).start()


if __name__ == "__main__":
    main()
