"""A server that nobody works in ends by itself, though its page is left open in a real browser."""

import re
import time

import pytest
from support.browser import a_page, log_in, unfold
from support.faults import within
from support.hub import server_path

# Far longer than a page takes to come; what the page itself asks for is no work.
LIMIT_S = 30


@pytest.fixture
def page_of_a_server(hub):
    """JupyterLab's page of a server with an idle limit; how often the page has asked for kernels is counted."""
    with a_page() as page:
        log_in(page, hub, "alice")
        hub.spawn("alice", {"idle_limit": f"{LIMIT_S}s", "interface": "lab"})
        page.asked = 0
        page.on("request", lambda request: setattr(page, "asked", page.asked + ("/api/kernels?" in request.url)))
        page.goto(f"{hub.url}/user/alice/lab?reset")
        page.locator(".jp-LauncherCard").first.wait_for(timeout=60_000)
        yield page


def open_a_notebook(page):
    page.locator(".jp-LauncherCard", has_text="Python 3").first.click()
    page.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for(timeout=60_000)


def open_a_terminal(page):
    page.locator(".jp-LauncherCard", has_text="Terminal").first.click()
    page.locator(".jp-Terminal .xterm").wait_for(timeout=60_000)
    page.wait_for_timeout(2000)


def open_nothing(page):
    """The page alone."""


def stays(page, hub, seconds):
    """Leave the page open; whether the server is still there after this time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        page.wait_for_timeout(1000)
        if not hub.servers("alice"):
            return False
    return True


@pytest.mark.parametrize("does", [open_a_notebook, open_a_terminal, open_nothing])
def test_a_server_ends_though_its_page_is_open(hub, page_of_a_server, does):
    does(page_of_a_server)
    began, asked = time.monotonic(), page_of_a_server.asked
    assert not stays(page_of_a_server, hub, LIMIT_S + 90)
    if does is not open_nothing:  # its page may have been long in coming
        assert time.monotonic() - began > LIMIT_S / 2
        assert page_of_a_server.asked > asked, "the page asked on, and that did not count"
    assert f"The server was idle for {LIMIT_S}s and shut down." in hub.log()


def test_a_cell_that_runs_keeps_the_server(hub, page_of_a_server):
    page = page_of_a_server
    open_a_notebook(page)
    page.locator(".jp-Notebook .jp-Cell .cm-content").first.click()
    page.keyboard.type("import time; time.sleep(1000)")
    page.locator('[data-command="notebook:run-cell-and-select-next"], [data-jp-item-name="run"] button').first.click()
    page.locator(".jp-StatusBar-TextItem", has_text="| Busy").wait_for(timeout=30_000)
    assert stays(page, hub, 2 * LIMIT_S)
    page.locator('[data-command="notebook:interrupt-kernel"], [data-jp-item-name="interrupt"] button').first.click()
    page.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for(timeout=30_000)
    assert not stays(page, hub, LIMIT_S + 90)


def test_a_program_in_a_terminal_keeps_the_server(hub, page_of_a_server):
    page = page_of_a_server
    open_a_terminal(page)
    page.locator(".jp-Terminal").click()
    page.keyboard.type("sleep 1000\n")
    assert stays(page, hub, 2 * LIMIT_S)


def test_the_form_asks_for_limits_where_somebody_looks_for_them(hub):
    with a_page() as page:
        log_in(page, hub, "bob")
        page.goto(f"{hub.url}/hub/spawn")
        unfold(page)
        field = page.locator("#hpc-idle_limit")
        assert not field.is_visible()
        page.get_by_text("More: how long to wait, when to stop").click()
        assert field.is_visible()
        field.fill("a while")
        page.click("#hpc-start")
        page.locator("#hpc-idle_limit-error").wait_for()
        assert re.search("write '90m'", page.locator("#hpc-idle_limit-error").inner_text())
        assert field.is_visible(), "what is wrong is not folded away"
        assert page.complaints == []


# As docs/howto/limits.md has it.
CULLER = """
c.JupyterHub.services.append({
    "name": "idle-culler",
    "command": [
        sys.executable, "-m", "jupyterhub_idle_culler", "--timeout=1", "--cull-every=2",
        "--ssl-enabled=true", "--internal-certs-location=internal-ssl",
    ],
})
c.JupyterHub.load_roles.append({
    "name": "idle-culler",
    "services": ["idle-culler"],
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
})
"""


@pytest.mark.both_hubs
def test_jupyterhub_s_own_culler_ends_servers_with_tls_to_the_nodes(make_hub):
    with make_hub(extra=f"import sys\n{CULLER}") as hub:
        hub.api("POST", server_path("alice"), json={"walltime": "10m"})
        within(60, lambda: "alice: job 1 has ended (stopped)" in hub.log(), hub.log)
        assert "Culling server" in hub.log()
        assert hub.servers("alice") == {}
