"""The Hub's Content-Security-Policy: browsers run only the scripts in its templates.

A script tag of a template gets the nonce of the request when the template is loaded. Whatever comes into the page
later, as a value, does not have it, so a browser does not run it.
"""

import re
import secrets
from collections.abc import Iterable
from contextvars import ContextVar
from functools import partial
from urllib.parse import urlsplit

from jinja2.ext import Extension
from jupyterhub.app import JupyterHub
from jupyterhub.utils import url_path_join
from tornado.httputil import HTTPHeaders, HTTPServerRequest
from tornado.web import OutputTransform
from traitlets import Bool, Dict, List, Unicode
from traitlets.config import Configurable

_POLICY = "Content-Security-Policy"
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}
_SCRIPT = re.compile(r"<script(?=[\s>])(?![^>]*\snonce=)", re.IGNORECASE)
_ORIGIN = re.compile(r"https?://[\w.:*\[\]-]+", re.ASCII)

# Each request is answered in a task of its own, which has its own value.
_nonce: ContextVar[str] = ContextVar("hpcspawner_nonce", default="")


class HubHeaders(Configurable):
    """What the Hub's pages may do in a browser."""

    content_security_policy = Bool(
        True,
        config=True,
        help="""
        Whether the Hub's pages come with a strict Content-Security-Policy.

        Only scripts of the Hub's templates run, a site's own templates included. A policy of your own in
        `c.JupyterHub.tornado_settings["headers"]` takes its place; `{nonce}` in it stands for that of the request.
        """,
    )
    more_sources = Dict(
        value_trait=List(Unicode()),
        config=True,
        help="""
        Further sources that the policy allows, by directive: `{"img-src": ["https://www.example.org"]}`.

        For pictures of an announcement that lie elsewhere, or a login form that is sent to another host
        (`form-action`).
        """,
    )


class NonceForScripts(Extension):
    """Adds the request's nonce to each script tag that stands in a template."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """As Jinja2's own: the text of a template, before it is compiled."""
        return _SCRIPT.sub(r'<script nonce="{{ hpcspawner_nonce() }}"', source)


def install(app: JupyterHub) -> None:
    """Protect the pages of a Hub that has been put together."""
    application, wanted = app.tornado_application, HubHeaders(parent=app)
    # An admin's own policy can use the nonce too.
    for name in ("jinja2_env", "jinja2_env_sync"):
        environment = application.settings[name]
        environment.add_extension(NonceForScripts)
        environment.globals["hpcspawner_nonce"] = _nonce.get
        if environment.cache is not None:
            environment.cache.clear()
    own = HTTPHeaders(application.settings.get("headers", {}))
    application.add_transform(partial(_Protected, app, own, wanted))


class _Protected(OutputTransform):
    """One answer of the Hub."""

    def __init__(self, app: JupyterHub, own: HTTPHeaders, wanted: HubHeaders, request: HTTPServerRequest):
        super().__init__(request)
        self._app, self._own, self._wanted = app, own, wanted
        # Here, for the task that answers is made after this and takes the value with it.
        self._value = secrets.token_urlsafe(16)
        _nonce.set(self._value)

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """As tornado's own: the answer just before it is sent."""
        for name, value in _ALWAYS.items():
            headers.setdefault(name, value)
        if headers.get("Content-Type", "").startswith("text/html"):
            if _POLICY in self._own:
                headers[_POLICY] = self._own[_POLICY].replace("{nonce}", self._value)
            elif self._wanted.content_security_policy:
                headers[_POLICY] = policy(self._app, self._value, self._wanted.more_sources)
        return status_code, headers, chunk


def policy(app: JupyterHub, nonce: str, more: dict[str, list[str]]) -> str:
    """The value of the header for one answer."""
    settings = app.tornado_application.settings
    report_uri = settings.get("csp_report_uri", url_path_join(app.hub.base_url, "security/csp-report"))
    sources = {
        "default-src": ["'none'"],
        # A user's own files have the Hub's origin too, so that alone ('self') is no reason to run them. Old browsers,
        # which do not know 'strict-dynamic', need it: JupyterHub's scripts load others.
        "script-src": [f"'nonce-{nonce}'", "'strict-dynamic'", "'self'"],
        # JupyterHub hides parts of its pages by an attribute, and its admin page brings its styles in its script.
        "style-src": ["'self'", "'unsafe-inline'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "manifest-src": ["'self'"],
        "form-action": ["'self'", *_sent_on_to(app)],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "report-uri": [report_uri],
    }
    for directive, others in more.items():
        known = [source for source in sources.get(directive, []) if source != "'none'"]
        sources[directive] = [*known, *others]
    return "; ".join(" ".join([directive, *values]) for directive, values in sources.items())


def _sent_on_to(app: JupyterHub) -> Iterable[str]:
    """Where the answer to a form may send a browser: the login leads on to a server or a service of another host."""
    found = set()
    if app.subdomain_host:
        front = urlsplit(app.subdomain_host)
        found.add(f"{front.scheme}://*.{front.netloc}")
    for service in app._service_map.values():
        for url in (service.oauth_redirect_uri, service.url):
            place = urlsplit(url or "")
            found.add(f"{place.scheme}://{place.netloc}")
    return sorted(origin for origin in found if _ORIGIN.fullmatch(origin))
