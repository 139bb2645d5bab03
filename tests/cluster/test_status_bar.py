"""The job in JupyterLab and Notebook, in an environment and an image that know nothing of us: time, warning, renew."""

import re

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within, shown
from support.browser import a_page, log_in
from support.faults import within
from support.hub import require

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


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    require("apptainer", path=f"{lab}/apptainer/bin")
    with make_hub("slurm", change=("[defaults]", SITE.format(lab=lab))) as hub:
        yield hub


@pytest.fixture
def page(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        yield page


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


def pressed(page, label):
    page.locator(WARNING, has_text="The time of this job ends").get_by_role("button", name=label).click()


def followers(job_id):
    return [one for one in jobs_of("alice") if f"afternotok:{job_id}" in shown(one).get("Dependency", "")]


def test_lab_and_notebook_count_down_warn_and_renew(hub, page, tmp_path):
    hub.spawn("alice", {"partition": "gpu-shared", "gpus": 2, "memory": "2G", "walltime": "5m"})
    (job_id,) = jobs_of("alice")

    page.goto(f"{hub.url}/user/alice/lab?reset")
    counts_down(page)
    said = page.locator(BAR).inner_text()
    for fact in ("Test cluster", "gpu-shared", "n3", "2 GPUs", "of 2.0 GB", f"job {job_id}"):
        assert fact in said
    page.screenshot(path=tmp_path / "lab.png")
    pressed(page, "Renew")
    page.locator(WARNING, has_text="a new job takes over").wait_for(timeout=60_000)
    within(60, lambda: len(followers(job_id)) == 1, "no job follows")
    page.screenshot(path=tmp_path / "renewed.png")

    page.goto(f"{hub.url}/user/alice/tree")
    counts_down(page)
    page.screenshot(path=tmp_path / "notebook.png")
    # What has been asked for can't be asked for again.
    warning = page.locator(WARNING, has_text="A new job takes over")
    warning.wait_for(timeout=60_000)
    assert warning.get_by_role("button", name="Renew").count() == 0
    page.locator(BAR).click()
    page.screenshot(path=tmp_path / "dialog.png")
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    page.get_by_role("dialog").get_by_role("button", name="Stop").click()
    page.wait_for_url(re.compile("/hub/home"), timeout=60_000)
    within(60, lambda: hub.servers("alice") == {}, "the server did not stop")
    queue_is_empty_within(40, "alice")


def test_an_image_that_knows_no_hub_shows_its_job_and_the_schedulers_warning(hub, page, tmp_path):
    hub.spawn("alice", {"partition": "debug", "environment": "images", "image": "lab", "walltime": "20m"})
    (job_id,) = jobs_of("alice")
    page.goto(f"{hub.url}/user/alice/lab?reset")
    page.locator(BAR, has_text="min left").wait_for(timeout=60_000)
    assert page.locator(WARNING).count() == 0
    on_head("scancel", "--batch", "--signal=USR1", job_id, user="alice")
    page.locator(WARNING, has_text="The time of this job ends in").wait_for(timeout=60_000)
    page.screenshot(path=tmp_path / "image.png")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
