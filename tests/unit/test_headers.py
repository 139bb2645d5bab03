"""The pages' policy, and how the scripts of templates come by their nonce; a real browser is in tests/hub."""

import re
from types import SimpleNamespace

import pytest
from jinja2 import DictLoader, Environment
from tornado.httputil import HTTPHeaders
from tornado.web import Application
from traitlets.config import Config

from hpcspawner.pages import content_security
from hpcspawner.pages.pages import TEMPLATES


@pytest.fixture
def app(hub):
    hub.tornado_application = Application(**hub.tornado_settings)
    return hub


def directives(app, more=None):
    parts = content_security.policy(app, "n", more or {}).split("; ")
    return {name: sources.split() for name, _, sources in (part.partition(" ") for part in parts)}


@pytest.mark.parametrize(
    ("source", "sent"),
    [
        pytest.param("<script>a</script>", '<script nonce="n">a</script>', id="inline"),
        pytest.param("<SCRIPT src=x></SCRIPT>", '<script nonce="n" src=x></SCRIPT>', id="with a source"),
        pytest.param("<script\n  src=x>", '<script nonce="n"\n  src=x>', id="over two lines"),
        pytest.param('<script nonce="theirs">', '<script nonce="theirs">', id="with a nonce of its own"),
        pytest.param("<scripts><b>script</b>", "<scripts><b>script</b>", id="something else"),
        pytest.param("{{ value }}", "&lt;script&gt;", id="a value"),
        pytest.param("{{ value | safe }}", "<script>", id="a value that is not escaped"),
    ],
)
def test_a_script_tag_has_the_nonce_only_where_it_stands_in_the_template(source, sent):
    pages = Environment(
        autoescape=True, loader=DictLoader({"page": source}), extensions=[content_security.NonceForScripts]
    )
    assert pages.get_template("page").render(hpcspawner_nonce=lambda: "n", value="<script>") == sent


async def test_templates_that_were_loaded_before_are_loaded_again(app):
    pages = app.tornado_application.settings["jinja2_env_sync"]
    before = pages.get_template("404.html")
    content_security.install(app)
    assert pages.get_template("404.html") is not before


async def test_a_login_may_lead_on_to_hosts_of_users_and_services_and_nowhere_else(app):
    assert directives(app)["form-action"] == ["'self'"]
    app.subdomain_host = "https://hub.example.org:8443"
    for name, redirect, url in [
        ("outside", "https://grafana.example.org/oauth", ""),
        ("inside", "/services/inside/oauth_callback", "http://127.0.0.1:9000"),
        ("odd", "https://x.test;script-src *", "javascript:alert(1)"),
    ]:
        app._service_map[name] = SimpleNamespace(oauth_redirect_uri=redirect, url=url)
    assert directives(app)["form-action"] == [
        "'self'",
        "http://127.0.0.1:9000",
        "https://*.hub.example.org:8443",
        "https://grafana.example.org",
    ]


async def test_a_site_may_allow_more(app):
    more = {"img-src": ["https://www.example.org"], "base-uri": ["'self'"], "frame-src": ["https://x.example.org"]}
    allowed = directives(app, more)
    assert allowed["img-src"] == ["'self'", "data:", "https://www.example.org"]
    assert allowed["base-uri"] == ["'self'"], "with 'none' beside it a source would not count"
    assert allowed["frame-src"] == ["https://x.example.org"]
    assert allowed["script-src"] == directives(app)["script-src"]


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        pytest.param("text/html; charset=UTF-8", {}, "default-src 'none'; script-src 'nonce-", id="a page"),
        pytest.param("application/json", {}, "theirs", id="no page"),
        pytest.param("text/html", {"content_security_policy": False}, "theirs", id="switched off"),
    ],
)
async def test_only_pages_get_the_policy_and_every_answer_the_rest(app, kind, config, expected):
    app.config.merge(Config({"HubHeaders": config}))
    content_security.install(app)
    (transform,) = app.tornado_application.transforms
    answer = HTTPHeaders({"Content-Type": kind, "Content-Security-Policy": "theirs", "Referrer-Policy": "origin"})
    _, sent, _ = transform(None).transform_first_chunk(200, answer, b"", True)
    assert sent["Content-Security-Policy"].startswith(expected)
    assert sent["X-Content-Type-Options"] == "nosniff"
    assert sent["Referrer-Policy"] == "origin", "what is set is left"


async def test_an_admins_own_policy_takes_the_place_of_ours_and_can_use_the_nonce(app):
    app.tornado_application.settings["headers"] = {"content-security-policy": "script-src 'nonce-{nonce}'"}
    content_security.install(app)
    (transform,) = app.tornado_application.transforms
    answer = HTTPHeaders({"Content-Type": "text/html"})
    _, sent, _ = transform(None).transform_first_chunk(200, answer, b"", True)
    nonce = app.tornado_application.settings["jinja2_env"].globals["hpcspawner_nonce"]()
    assert len(nonce) > 20
    assert sent["Content-Security-Policy"] == f"script-src 'nonce-{nonce}'"


@pytest.mark.parametrize("path", sorted(TEMPLATES.glob("*.html")), ids=lambda path: path.name)
def test_our_templates_hold_no_script_and_no_handler(path):
    text = path.read_text(encoding="utf-8")
    assert re.findall(r"<script(?![^>]*\ssrc=)", text) == []
    assert re.findall(r"\son\w+\s*=|javascript:|\sstyle=", text) == []
