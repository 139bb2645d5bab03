"""What users, profiles and schedulers say is text on every page, by the word of a browser's own parser."""

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PrefixLoader
from jupyterhub._data import DATA_FILES_PATH
from support.browser import a_page
from support.jobs import a_cluster

from hpcspawner.errors import Problem, Reason, ServerLost
from hpcspawner.pages.failure import failure
from hpcspawner.pages.history import PastJob
from hpcspawner.pages.pages import STATIC, TEMPLATES, Draft, as_hub_error, render_form
from hpcspawner.pages.site_templates import SENTENCES
from hpcspawner.request.own import Own
from hpcspawner.schedulers.standing import Member, Reservation
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.profile import SiteProfile

pytestmark = pytest.mark.both_hubs

FRAGMENTS = [
    "<script>",
    "</script>",
    "<img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "'",
    '"',
    '" onfocus="',
    "' autofocus onfocus='",
    ">",
    "<!--",
    "-->",
    "</p>",
    "</pre>",
    "</option></select>",
    "</title>",
    "<base href=//x.test>",
    "]]>",
    "`",
    "&lt;b&gt;",
    "&#60;b&#62;",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "javascript:alert(1)",
    "\\u003cb\\u003e",
    "\u2028",
]
HOSTILE = st.lists(st.sampled_from(FRAGMENTS) | st.text("<>\"'&/=a -", min_size=1, max_size=6), min_size=1, max_size=5)
HARMLESS = "word"
SITE = {
    "scheduler": {"type": "local"},
    "partitions": [{"name": "p", "max_walltime": "1h", "max_cpus": 2}],
}

# As JupyterHub makes it: its own templates can be told apart from those that stand before them.
THEIRS = str(Path(DATA_FILES_PATH) / "templates")
PAGES = Environment(
    autoescape=True,
    loader=ChoiceLoader(
        [PrefixLoader({"templates": FileSystemLoader(THEIRS)}), FileSystemLoader([str(TEMPLATES), THEIRS])]
    ),
)
PAGES.globals.update(SENTENCES)
OF_EVERY_PAGE = {
    "static_url": lambda path, **_: f"/static/{path}",
    "base_url": "/hub/",
    "hpcspawner_nonce": lambda: "n",
    "user": {"name": "alice", "json_escaped_name": "alice", "escaped_name": "alice", "spawner": {}},
}


def profile(text):
    more = {
        "title": text,
        "words": {"partition": text, "account": text},
        "interfaces": [{"name": "f", "title": text, "help": text}],
        "environments": [{"name": "e", "title": text, "help": text}],
        "images": [{"name": "i", "title": text, "help": text, "path": "/i"}],
    }
    partitions = [one | {"title": text, "help": text} for one in SITE["partitions"]]
    return SiteProfile.model_validate(SITE | more | {"partitions": partitions})


def form(text):
    values = {"partition": text, "directory": text, "walltime": text, "memory": text, "environment": text}
    problems = (Problem("directory", text), Problem("partition", text), Problem("nothing", text))
    shown = Draft(values, problems, text, saving=text, presets_url="/hub/hpcspawner/presets", own=own(text))
    # One that can be started, and one that the site no longer offers.
    shown.saved = ((text, {}), (text, {"walltime": text}))
    site = profile(text).model_copy(update={"reservation": "optional"})
    page = render_form(a_cluster(site), (), shown)
    # The address of a preset has its name, as an address writes it.
    return page.replace(f"&amp;saved={quote_plus(text)}", "&amp;saved=NAME")


def own(text):
    """A user whose accounts, QOS and reservations have such names, as if the scheduler had said so."""
    reservation = Reservation(text, 0, 9e9, partition=text, nodes=text)
    return Own("alice", Member({text: {"": (text,)}}, default=text), (reservation,))


def failed(text):
    error = as_hub_error(ServerLost(text, Reason.SERVER_FAILED, (text, text)), profile(text))
    return PAGES.get_template("not_running.html").render(
        OF_EVERY_PAGE,
        failed=True,
        failed_message=error.jupyterhub_message,
        failed_html_message=error.jupyterhub_html_message,
        exception=error,
        server_name="",
        spawn_url="/hub/spawn/alice",
    )


def not_running(text):
    choices = {"partition": text, "directory": text, "features": [text, text]}
    end = failure(text, Cause.EXITED, profile(text), choices, (text, text))
    end = replace(end, more_memory=text)
    return PAGES.get_template("not_running.html").render(
        OF_EVERY_PAGE,
        hpcspawner_last_end=lambda *_: end,
        hpcspawner_history=lambda _: [PastJob(*[text] * 8)],
        server_name="",
        spawn_url="/hub/spawn/alice",
    )


def waiting(text):
    facts = ("id", "state", "reason", "host", "starts", "details", "advice", "ahead", "since", "until")
    spawner = {"news": {"latest": dict.fromkeys(facts, text), "step": "waiting"}, "name": text}
    return PAGES.get_template("spawn_pending.html").render(
        OF_EVERY_PAGE, spawner=spawner, progress_url="/hub/progress?_xsrf=x"
    )


def error(text):
    shown = as_hub_error(ServerLost(text, Reason.SERVER_FAILED, (text,)), profile(text))
    return PAGES.get_template("error.html").render(
        OF_EVERY_PAGE,
        status_code=500,
        status_message="Internal Server Error",
        message=shown.jupyterhub_message,
        message_html=shown.jupyterhub_html_message,
    )


STRUCTURE = """
html => {
    const parsed = new DOMParser().parseFromString(html, "text/html");
    const led = ["href", "src", "action", "formaction", "srcdoc", "http-equiv", "nonce"];
    return Array.from(parsed.querySelectorAll("*"), element =>
        element.tagName + " " + Array.from(element.attributes, attribute =>
            attribute.name + (led.includes(attribute.name) ? "=" + attribute.value : "")).sort().join(" "));
}
"""


@pytest.fixture(scope="module")
def page():
    with a_page() as page:
        yield page


@pytest.mark.parametrize("render", [form, failed, not_running, waiting, error], ids=lambda render: render.__name__)
def test_no_text_becomes_an_element_or_an_attribute(page, render):
    plain = page.evaluate(STRUCTURE, render(HARMLESS))
    assert len(plain) > 10

    @settings(max_examples=60, deadline=None)
    @given(HOSTILE)
    def try_it(fragments):
        assert page.evaluate(STRUCTURE, render("".join(["x", *fragments, "x"]))) == plain

    try_it()


def test_markup_that_is_not_escaped_is_seen(page):
    """This check can fail."""
    plain = page.evaluate(STRUCTURE, "<p>word</p>")
    for fragment in ("<b>", "<img src=x>"):
        assert page.evaluate(STRUCTURE, f"<p>{fragment}</p>") != plain
    assert page.evaluate(STRUCTURE, "<p title='x' id='y'>word</p>") != plain


def test_what_the_event_stream_tells_is_text_on_the_waiting_page(page):
    text = "".join(fragment for fragment in FRAGMENTS if fragment != "<!--") + "<img src=x onerror='window.ran=1'>"
    job = dict.fromkeys(("id", "state", "reason", "host", "starts", "details"), text)
    event = {"progress": 20, "message": text, "html_message": text, "job": job}
    pages = {
        "/hub/spawn-pending/alice": ("text/html", waiting(HARMLESS)),
        "/hub/hpcspawner/static/waiting.js": ("text/javascript", (STATIC / "waiting.js").read_text(encoding="utf-8")),
        "/hub/progress": ("text/event-stream", f"data: {json.dumps(event)}\n\n"),
    }

    def answer(route):
        path = route.request.url.removeprefix("https://hub.test").partition("?")[0]
        kind, body = pages.get(path, ("text/plain", ""))
        route.fulfill(content_type=f"{kind}; charset=utf-8", body=body)

    page.route("https://hub.test/**", answer)
    page.goto("https://hub.test/hub/spawn-pending/alice")
    page.locator(".progress-log-event").first.wait_for(state="attached")
    assert page.locator("#progress-message").text_content() == text
    for key in job:
        cell = page.locator(f'[data-hpc="{key}"]')
        assert cell.text_content() == text
        assert cell.evaluate("cell => cell.childElementCount") == 0
    assert page.locator("#progress-message > *, .progress-log-event > *").count() == 0
    assert page.evaluate("window.ran") is None
