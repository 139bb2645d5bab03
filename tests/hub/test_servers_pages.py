"""The home page and the page of all servers: read from memory, for whom, without JavaScript, by axe-core's word."""

import re
import time

import pytest
from hub.conftest import PROFILE
from support.browser import a_page, log_in, look_at

CONFIG = """
c.Authenticator.admin_users = {"root-of-hub"}
c.JupyterHub.allow_named_servers = True
c.JupyterHub.load_roles.append(
    {"name": "admin-of-one", "users": ["bob"], "scopes": ["admin-ui", "read:servers!user=alice"]}
)
"""
ONE_SLOT = PROFILE.replace("slots = 2", "slots = 1")

pytestmark = pytest.mark.both_hubs


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub(profile=ONE_SLOT, extra=CONFIG) as running:
        yield running


def until(wanted, what, limit_s=90):
    """What `wanted` gives once it is true."""
    deadline = time.monotonic() + limit_s
    while not (found := wanted()):
        assert time.monotonic() < deadline, f"no {what}"
        time.sleep(0.2)
    return found


def cell(page, key, name):
    found = page.locator(f'tr[data-hpc-key="{key}"] [data-hpc-cell="{name}"]')
    return found.inner_text() if found.count() else ""


def rows(answer):
    return {one["key"]: one["cells"] for one in answer.json()["rows"]}


def test_home_shows_what_runs_and_what_waits_and_follows_it(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        hub.spawn("alice", {"walltime": "20m", "cpus": 1})
        assert hub.api("POST", "/users/alice/servers/second", json={"walltime": "10m"}).status_code in (201, 202)
        page.goto(f"{hub.url}/hub/home")
        until(lambda: "limit of running" in cell(page, "alice/second", "reason"), "reason on the page")
        assert cell(page, "alice/", "state") == "running"
        assert re.fullmatch(r"1\dm|20m", cell(page, "alice/", "time"))
        assert cell(page, "alice/", "partition") == "short"
        assert cell(page, "alice/second", "state") == "waiting"
        assert look_at(page, "home") == []
        page.locator('tr[data-hpc-key="alice/"] [data-hpc-end]').click()
        page.wait_for_url(re.compile("/hub/home"))
        page.mouse.click(5, 5)
        # No reload: the script asks and the server draws.
        until(lambda: cell(page, "alice/second", "state") == "running", "server that runs")
        page.locator('tr[data-hpc-key="alice/second"] [data-hpc-open]').click()
        page.wait_for_url(re.compile("/user/alice/second/"), timeout=60_000)
        assert page.complaints == []


def test_home_is_whole_without_javascript(hub):
    with a_page(javascript=False) as page:
        log_in(page, hub, "alice")
        hub.spawn("alice", {"walltime": "20m"})
        page.goto(f"{hub.url}/hub/home")
        assert cell(page, "alice/", "state") == "running"
        page.locator('tr[data-hpc-key="alice/"] [data-hpc-end]').click()
        page.wait_for_url(re.compile("/hub/home"))
        assert page.locator("tr[data-hpc-key]").count() == 0
    assert hub.servers("alice") == {}


def test_each_sees_what_the_scopes_allow(hub):
    hub.spawn("alice", {"walltime": "20m"})
    alice, bob, admin = (hub.log_in(name) for name in ("alice", "bob", "root-of-hub"))
    assert set(rows(alice.get(f"{hub.url}/hub/hpcspawner/servers/own"))) == {"alice/"}
    assert rows(bob.get(f"{hub.url}/hub/hpcspawner/servers/own")) == {}
    for place in ("servers", "servers/all"):
        assert alice.get(f"{hub.url}/hub/hpcspawner/{place}").status_code == 403
        assert bob.get(f"{hub.url}/hub/hpcspawner/{place}").status_code == 200
    assert "alice/" in rows(admin.get(f"{hub.url}/hub/hpcspawner/servers/all"))
    assert 'href="/hub/hpcspawner/servers"' not in alice.get(f"{hub.url}/hub/home").text
    # bob may read alice's servers and not end them: no button, and no by-way.
    seen = bob.get(f"{hub.url}/hub/hpcspawner/servers").text
    assert 'data-hpc-key="alice/"' in seen
    assert "data-hpc-end" not in seen
    token = bob.cookies.get("_xsrf", path="/hub/") or bob.cookies.get("_xsrf")
    body = {"user": "alice", "server": "", "then": "servers", "_xsrf": token}
    answer = bob.post(f"{hub.url}/hub/hpcspawner/cancel", data=body, allow_redirects=False)
    assert answer.status_code == 404
    assert hub.servers("alice")[""]["ready"]
    hub.api("POST", "/users/carol")
    assert hub.api("POST", "/users/carol/server", json={"walltime": "10m"}).status_code in (201, 202)
    until(lambda: "carol/" in rows(admin.get(f"{hub.url}/hub/hpcspawner/servers/all")), "row of carol's")
    assert "carol/" not in rows(bob.get(f"{hub.url}/hub/hpcspawner/servers/all"))


def test_the_admin_filters_and_stops(hub):
    hub.spawn("alice", {"walltime": "20m"})
    assert hub.api("POST", "/users/bob/server", json={"walltime": "10m"}).status_code in (201, 202)
    with a_page() as page:
        log_in(page, hub, "root-of-hub")
        page.goto(f"{hub.url}/hub/home")
        page.click("#hpc-nav-servers")
        until(lambda: cell(page, "bob/", "state") == "waiting", "row of bob's")
        until(lambda: "waits" in cell(page, "bob/", "time"), "place in the queue")
        state = page.locator('tr[data-hpc-key^="cluster "] [data-hpc-cell="state"]')
        assert state.inner_text() == "answers"
        jobs = page.locator('tr[data-hpc-key^="cluster "] [data-hpc-cell="jobs"]')
        until(lambda: jobs.inner_text() == "1 waiting, 1 running", "count of jobs")
        assert look_at(page, "servers") == []
        page.select_option("#hpc-state", "waiting")
        page.get_by_role("button", name="Show", exact=True).click()
        page.wait_for_url(re.compile("state=waiting"))
        assert page.locator("#hpc-found").inner_text() == "1 server"
        assert page.locator('tr[data-hpc-key="alice/"]').count() == 0
        page.get_by_role("link", name="State").click()
        assert page.locator("th[aria-sort=ascending]").inner_text().startswith("State")
        page.locator('tr[data-hpc-key="bob/"] [data-hpc-end]').click()
        page.wait_for_url(re.compile("/hub/hpcspawner/servers$"), timeout=60_000)
        until(lambda: hub.servers("bob") == {}, "end of bob's server")
        page.goto(f"{hub.url}/hub/hpcspawner/servers?state=sleeping")
        assert "choose one of waiting, starting, running, stopping" in page.content()
        assert page.complaints == []
