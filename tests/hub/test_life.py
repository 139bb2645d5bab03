"""A server from the form to a cell that runs, and every way in which it can fail to start."""

import json
import re
import subprocess
import time

import pytest
from support.browser import a_page, fill, log_in, press_start, run_cell
from support.hub import server_path
from support.scripts import taken_apart

pytestmark = pytest.mark.both_hubs


def processes_of(hub):
    """Command lines that name the Hub's folder."""
    listed = subprocess.run(["ps", "axww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(hub.folder) in line]


def test_from_the_form_to_a_cell_and_back(make_hub):
    with make_hub() as hub:
        with a_page() as page:
            log_in(page, hub, "alice")
            page.goto(f"{hub.url}/hub/spawn")
            fill(page, partition="short", walltime="10m", directory=str(hub.folder), memory="1G")
            press_start(page)
            page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=60_000)
            assert run_cell(page, "print(6 * 7)") == "42"
            page.goto(f"{hub.url}/hub/home")
            page.locator("[data-hpc-end]").click()
            page.wait_for_selector("#start", timeout=30_000)
            assert page.complaints == []
        deadline = time.monotonic() + 60
        while any("singleuser" in line or "spool.py" in line for line in processes_of(hub)):
            assert time.monotonic() < deadline, processes_of(hub)
            time.sleep(0.2)
    assert processes_of(hub) == []


def test_the_waiting_page_tells_the_job_and_why_it_waits(hub):
    for user in ("bob", "carol"):
        hub.api("POST", f"/users/{user}")
        hub.spawn(user, {"walltime": "10m"})
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        press_start(page)
        page.wait_for_url(re.compile("/hub/spawn-pending/alice"))
        page.wait_for_selector("text=This machine has reached its limit of running servers")
        assert page.locator('[data-hpc="state"]').inner_text() == "pending"
        assert page.locator('[data-hpc="id"]').inner_text().isdigit()
        told = page.locator(".progress-log-event").count()
        page.wait_for_timeout(3500)
        assert page.locator(".progress-log-event").count() == told, "nothing changed, so nothing is told"
        hub.stop_server("bob")
        page.wait_for_url(re.compile("/user/alice/lab"), timeout=60_000)
        assert page.complaints == []


def test_the_waiting_page_cancels(hub):
    for user in ("bob", "carol"):
        hub.api("POST", f"/users/{user}")
        hub.spawn(user, {"walltime": "10m"})
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        press_start(page)
        page.wait_for_selector('[data-hpc="state"]:has-text("pending")')
        page.click("#hpc-cancel")
        page.wait_for_url(re.compile("/hub/home"), timeout=30_000)
    assert hub.servers("alice") == {}


def failed(hub, user, options):
    """The last event of a start that fails, and how many seconds it took."""
    began = time.monotonic()
    answer = hub.api("POST", server_path(user), json=options)
    assert answer.status_code in (201, 202, 500), answer.text
    if answer.status_code == 500:
        return answer.json()["message"], time.monotonic() - began
    *_, last = hub.events(user)
    assert last.get("failed"), f"{last}"
    return last.get("html_message") or last["message"], time.monotonic() - began


def test_an_environment_without_jupyter_is_named(hub):
    message, seconds = failed(hub, "alice", {"environment": "without"})
    assert "jupyterhub-singleuser was not found in the environment" in message
    assert "Python without Jupyter" in message
    assert seconds < 60
    assert hub.servers("alice") == {}


def test_a_directory_that_is_not_there_is_named(hub):
    message, _ = failed(hub, "alice", {"directory": "/nowhere/at all"})
    assert "The directory /nowhere/at all can't be opened" in message


def test_a_set_up_line_that_fails_is_named(hub):
    message, seconds = failed(hub, "alice", {"environment": "broken"})
    assert "module load nothing/1.0" in message
    assert seconds < 60


def test_the_failed_page_shows_the_reason_the_log_and_a_way_back(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, environment="without", walltime="3m")
        press_start(page)
        page.wait_for_selector("text=was not found in the environment", timeout=30_000)
        page.wait_for_selector("#start", timeout=30_000)
        assert "this environment has no Jupyter" in page.locator(".hpc-log").inner_text()
        page.click("text=Change and try again")
        page.wait_for_url(re.compile("/hub/spawn"))
        assert page.locator("#hpc-walltime").input_value() == "3m"
        assert page.locator("#hpc-environment").input_value() == "without"


def test_a_server_that_dies_is_noticed(hub):
    hub.spawn("alice", {"walltime": "10m"})
    (line,) = [line for line in processes_of(hub) if "spool.py run" in line]
    supervisor = line.split()[0]
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", supervisor], capture_output=True, text=True, check=True)
    subprocess.run(["kill", "-TERM", children.stdout.strip()], check=True)
    # The Hub polls every 30 s; the launcher's own report is what makes it look at once.
    deadline = time.monotonic() + 15
    while hub.servers("alice"):
        assert time.monotonic() < deadline, hub.log()
        time.sleep(0.5)


def test_no_secret_is_logged_or_left_in_the_script(hub):
    hub.spawn("alice", {"walltime": "10m"})
    path = max((hub.folder / "spool").glob("*.sh"), key=lambda path: int(path.stem))
    script = path.read_text()
    _, settings = taken_apart(script)
    ticket = settings["ticket"]
    assert ticket not in hub.log()
    # The files are programs, one of which knows the names of secrets.
    assert "JUPYTERHUB_API_TOKEN" not in json.dumps({**settings, "files": {}})
    # The ticket is spent: whoever reads the script later gets nothing for it.
    answer = hub.post("/hub/api/hpcspawner/ticket", {"ticket": ticket, "run": "x" * 32, "job": path.stem})
    assert answer.status_code == 403


async def test_a_running_server_outlives_the_hub(make_hub):
    with make_hub() as hub:
        hub.spawn("alice", {"walltime": "10m", "directory": str(hub.folder)})
        hub.stop()
        hub.start()
        assert hub.wait_ready("alice")["ready"]
        assert await hub.run("alice", "print(6 * 7)") == "42"
        hub.stop_server("alice")
        deadline = time.monotonic() + 10
        while any("singleuser" in line or "spool.py" in line for line in processes_of(hub)):
            assert time.monotonic() < deadline, processes_of(hub)
            time.sleep(0.2)
