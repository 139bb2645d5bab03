"""The job in JupyterLab and Notebook, in an environment and an image that know nothing of us: time, warning, renew."""

import re
from pathlib import Path

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within, shown
from support.browser import a_page, enter
from support.faults import within
from support.hub import require, server_path

SITE = """\
[limits]
renewals = 1
warning = false

[job]
proxy = "{lab}/env-proxy"
reminders = ["4m 50s"]

[[environments]]
name = "images"
path = ["{lab}/apptainer/bin"]

[[images]]
name = "lab"
path = "{lab}/images/lab"

[defaults]"""
BAR = "#hpcspawner-job button"
WARNING = ".Toastify__toast"
ENDS = "The time of this job ends"


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    require("apptainer", path=f"{lab}/apptainer/bin")
    with make_hub("slurm", change=("[defaults]", SITE.format(lab=lab))) as hub:
        yield hub


@pytest.fixture
def servers(hub):
    """alice's two, started side by side: the ids of their jobs by the servers' names."""
    asked = {
        "": {"partition": "gpu-shared", "gpus": 2, "memory": "2G", "walltime": "5m"},
        "image": {"partition": "debug", "environment": "images", "image": "lab", "walltime": "20m"},
    }
    for name, options in asked.items():
        assert hub.api("POST", server_path("alice", name), json=options).status_code in (201, 202)
    for name in asked:
        hub.wait_ready("alice", name)
    return {shown(job_id)["Partition"]: job_id for job_id in jobs_of("alice")}


@pytest.fixture
def document():
    """An empty file in alice's home."""
    path = Path("/home/alice/status-bar.txt")
    on_head("sh", "-c", f": >{path}", user="alice")
    yield path
    path.unlink()


def seconds_left(page):
    """As the bar says, below ten minutes."""
    bar = page.locator(BAR)
    bar.wait_for(timeout=60_000)
    minutes, seconds = re.match(r"(\d+):(\d\d) min left", bar.inner_text()).groups()
    return 60 * int(minutes) + int(seconds)


def counts_down(page):
    first = seconds_left(page)
    page.wait_for_function(f"document.querySelector('{BAR}').innerText.slice(0, 4) < '{first // 60}:{first % 60:02d}'")
    assert seconds_left(page) < first < 300


def press(page, label):
    page.locator(WARNING, has_text=ENDS).get_by_role("button", name=label).click()


def followers(job_id):
    return [one for one in jobs_of("alice") if f"afternotok:{job_id}" in shown(one).get("Dependency", "")]


def test_a_notebook_shows_its_job_and_its_user_renews_it_saves_and_stops(hub, servers, document, tmp_path):
    with a_page() as page:
        page.goto(f"{hub.url}/hub/login?next=/hub/home")
        enter(page, "alice")
        page.wait_for_url(re.compile("/hub/home"))
        in_an_image(page, hub, servers["debug"])
        page.screenshot(path=tmp_path / "image.png")
        in_lab(page, hub, servers["gpu-shared"], document)
        page.screenshot(path=tmp_path / "lab.png")
        in_notebook(page, hub, tmp_path / "notebook.png")
    hub.stop_server("alice", "image")
    queue_is_empty_within(40, "alice")


def in_an_image(page, hub, job_id):
    """The scheduler's own warning."""
    page.goto(f"{hub.url}/user/alice/image/lab?reset")
    page.locator(BAR, has_text="min left \u00b7 Test cluster \u00b7 debug \u00b7 n1").wait_for(timeout=60_000)
    assert page.locator(WARNING, has_text=ENDS).count() == 0
    on_head("scancel", "--batch", "--signal=USR1", job_id, user="alice")
    page.locator(WARNING, has_text=ENDS).wait_for(timeout=60_000)


def in_lab(page, hub, job_id, document):
    """The site's own reminder."""
    page.goto(f"{hub.url}/user/alice/lab/tree/{document.name}?reset")
    counts_down(page)
    said = page.locator(BAR).inner_text()
    for fact in ("Test cluster", "gpu-shared", "n3", "2 GPUs", "of 2.0 GB", f"job {job_id}"):
        assert fact in said
    page.locator(".cm-content").click()
    page.keyboard.type("kept")
    press(page, "Save all")
    within(60, lambda: document.read_text() == "kept", "nothing was saved")
    press(page, "Renew")
    page.locator(WARNING, has_text="a new job takes over").wait_for(timeout=60_000)
    within(60, lambda: len(followers(job_id)) == 1, "no job follows")


def in_notebook(page, hub, picture):
    page.goto(f"{hub.url}/user/alice/tree")
    counts_down(page)
    # What has been asked for can't be asked for again.
    warning = page.locator(WARNING, has_text="A new job takes over")
    warning.wait_for(timeout=60_000)
    assert warning.get_by_role("button", name="Renew").count() == 0
    page.locator(BAR).click()
    page.get_by_role("dialog").get_by_text("The job of this server").wait_for()
    page.screenshot(path=picture)
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    page.get_by_role("dialog", name="Stop this server?").get_by_role("button", name="Stop").click()
    page.wait_for_url(re.compile("/hub/home"), timeout=60_000)
    within(60, lambda: "" not in hub.servers("alice"), "the server did not stop")
