"""The Hub's pages in a real browser: their own scripts run, and nobody else's do."""

import re
import time
from html.parser import HTMLParser

import pytest
from support.browser import a_page, fill, log_in, press, press_start
from support.hub import PASSWORD

pytestmark = pytest.mark.both_hubs

ADMIN = """
scopes = ["admin-ui", "admin:users", "admin:servers", "list:groups"]
c.JupyterHub.load_roles.append({"name": "admins", "users": ["alice"], "scopes": scopes})
"""


@pytest.fixture(scope="module")
def hub(make_hub):
    with make_hub(extra=ADMIN) as running:
        yield running


@pytest.fixture(scope="module")
def page(hub):
    """One browser for all pages, logged in as an admin; `page.blocked` collects what the policy has blocked."""
    with a_page() as page:
        page.blocked = what_is_blocked(page)
        log_in(page, hub, "alice")
        yield page


def what_is_blocked(page):
    """Fills with what the policy blocks from now on."""
    found = []
    page.on("console", lambda said: found.append(said.text) if "Content Security" in said.text else None)
    return found


@pytest.fixture(autouse=True)
def nothing_is_blocked(request):
    """But what a test plants."""
    yield
    if "page" in request.fixturenames and "plant" not in request.fixturenames:
        page = request.getfixturevalue("page")
        assert page.blocked == []
        assert page.complaints == []


class Scripts(HTMLParser):
    """The attributes of all script tags."""

    def __init__(self, html):
        super().__init__()
        self.found = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        if tag == "script":
            self.found.append(dict(attrs))
        handlers = [name for name, _ in attrs if name.startswith("on")]
        assert not handlers, f"<{tag}> has {handlers}"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/hub/nothing", 404),
        ("/hub/home", 200),
        ("/hub/token", 200),
        ("/hub/admin", 200),
        ("/hub/spawn", 200),
        ("/hub/spawn?partition=long", 200),
        ("/hub/user/alice/", 424),
        ("/hub/spawn-pending/alice", 200),
        ("/hub/error/503", 200),
    ],
)
def test_every_page_allows_the_scripts_of_its_templates_alone(page, hub, path, status):
    seen = set()
    for _ in range(2):
        answer = page.request.get(hub.url + path)
        assert answer.status == status
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        (nonce,) = re.findall("'nonce-([^']{20,})'", policy["script-src"])
        scripts = Scripts(answer.text()).found
        assert scripts
        assert {script.get("nonce") for script in scripts} == {nonce}
        assert "unsafe" not in policy["script-src"]
        assert "'none'" in (policy["default-src"], policy["base-uri"], policy["frame-ancestors"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "same-origin"
        seen.add(nonce)
    assert len(seen) == 2, "a nonce that comes again is known to who has seen it"


def test_an_answer_that_is_no_page_keeps_jupyterhubs_policy(hub):
    answer = hub.api("GET", "/users")
    assert "nonce" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_the_login_page_refuses_and_lets_in(hub, page):
    with page.context.browser.new_context(ignore_https_errors=True) as context:
        visitor = context.new_page()
        blocked = what_is_blocked(visitor)
        visitor.goto(f"{hub.url}/hub/login")
        for password, then in [("wrong", ".login_error"), (PASSWORD, "#spawn_form, #start, #stop")]:
            visitor.fill("input[name=username]", "bob")
            visitor.fill("input[name=password]", password)
            visitor.click("#login_submit")
            visitor.wait_for_selector(then)
        assert blocked == []


def test_a_token_is_made_and_shown(hub, page):
    page.goto(f"{hub.url}/hub/token")
    assert not page.locator("#token-area").is_visible()
    page.fill("#token-note", "for a test")
    press(page, "#request-token-form button[type=submit]")
    page.wait_for_selector("#token-area", state="visible")
    assert len(page.locator("#token-result").inner_text()) > 20


def test_the_admin_page_lists_its_users(hub, page):
    page.goto(f"{hub.url}/hub/admin")
    page.locator("td", has_text="bob").first.wait_for(timeout=30_000)
    page.locator("tr", has_text="bob").get_by_role("button", name="Edit User").first.click()
    page.wait_for_url(re.compile("edit-user"))


def test_from_the_form_through_the_waiting_page_to_jupyterlab_and_back(hub, page):
    page.goto(f"{hub.url}/hub/spawn")
    fill(page, partition="short", walltime="10m", directory=str(hub.folder), memory="1G")
    press_start(page)
    page.wait_for_url(re.compile(r"/hub/spawn-pending/"), timeout=30_000)
    page.locator(".progress-log-event").first.wait_for(state="attached")
    page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=60_000)
    page.goto(f"{hub.url}/hub/home")
    page.locator("[data-hpc-end]").click()
    page.wait_for_selector("#start", timeout=30_000)
    deadline = time.monotonic() + 30
    while hub.servers("alice"):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    page.goto(f"{hub.url}/user/alice/")
    assert page.locator("#start").inner_text()


def test_the_theme_is_changed_by_its_button(hub, page):
    page.goto(f"{hub.url}/hub/home")
    before = page.locator("html").get_attribute("data-bs-theme")
    page.click("#dark-theme-toggle")
    assert page.locator("html").get_attribute("data-bs-theme") != before


PLANTED = {
    "inline": "<script>window.planted = true</script>",
    "handler": "<img src='/hub/nowhere.png' onerror='window.planted = true'>",
    "address": "<a id='planted' href='javascript:window.planted = true'>here</a>",
    "other host": "<script src='https://localhost:{port}/hub/planted.js'></script>",
    # Users' files have the Hub's origin, unless each user has a host name.
    "same host": "<script src='/hub/planted.js'></script>",
    "frame": "<iframe srcdoc='<script>parent.planted = true</script>'></iframe>",
    "old nonce": "<script nonce='{nonce}'>window.planted = true</script>",
}


@pytest.fixture
def plant(hub, page):
    """Open a page of the Hub with something planted in it, as sent or without the policy; whether it has run."""

    def planted(what, *, protected):
        old = re.search("nonce-([^']+)", page.request.get(f"{hub.url}/hub/home").headers["content-security-policy"])
        text = PLANTED[what].format(port=hub.port, nonce=old[1])

        def with_it(route):
            answer = route.fetch()
            headers = dict(answer.headers)
            if not protected:
                del headers["content-security-policy"]
            route.fulfill(response=answer, headers=headers, body=answer.text().replace("</nav>", f"</nav>{text}"))

        page.route("**/hub/home", with_it)
        page.route("**/planted.js", lambda route: route.fulfill(body="window.planted = true"))
        page.goto(f"{hub.url}/hub/home")
        if what == "address":
            page.click("#planted")
        page.wait_for_load_state("networkidle")
        return page.evaluate("window.planted === true")

    yield planted
    page.unroute_all()
    page.blocked.clear()


@pytest.mark.parametrize("what", PLANTED)
def test_what_somebody_plants_in_a_page_does_not_run(plant, page, what):
    assert plant(what, protected=False), "this would not run without the policy either, so it shows nothing"
    assert not plant(what, protected=True)
    assert page.blocked
