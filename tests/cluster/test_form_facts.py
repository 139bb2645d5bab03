"""The form on the real cluster: what is free, by partition and GPU type; when a request could start; presets."""

import contextlib
import re
import time

import pytest
from cluster.conftest import drained, jobs_of, on_head, reserved, shown
from support.browser import a_page, log_in, look_at, unfold
from support.faults import within
from support.hub import server_path

PRESETS = """\
[[presets]]
name = "quick"
title = "Quick look"
options = { partition = "debug", walltime = "10m", cpus = 1 }

[[presets]]
name = "gpu"
title = "Two GPUs"
options = { partition = "gpu-shared", gpus = 2, walltime = "1h" }

[defaults]
"""


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub("slurm", change=("[defaults]\n", PRESETS)) as running:
        yield running


@contextlib.contextmanager
def a_job(*options):
    """A job of bob's that the Hub knows nothing of."""
    job_id = on_head("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap=sleep 600", user="bob").strip()
    try:
        yield job_id
    finally:
        on_head("scancel", job_id)
        within(60, lambda: job_id not in jobs_of("bob"), f"job {job_id} is still listed")


def free_until(session, hub, partition, **wanted):
    """What is free there, once it is as wanted."""
    deadline = time.monotonic() + 60
    while True:
        answer = session.get(f"{hub.url}/hub/hpcspawner/facts", timeout=10)
        assert answer.status_code == 200, answer.text
        row = answer.json()["partitions"][partition]
        if {key: row[key] for key in wanted} == wanted:
            return row
        assert time.monotonic() < deadline, f"{row} {answer.json()} {hub.log()[-2000:]}"
        time.sleep(0.5)


def test_the_facts_are_the_cluster_s_own(hub):
    session = hub.log_in("alice")
    free_until(session, hub, "gpu-shared", gpus="v100: 4 of 4", cores="16 of 16", waiting="0", open=True)
    with a_job("--partition=gpu-shared", "--gres=gpu:v100:3", "--cpus-per-task=2", "--mem=1G", "--time=5"):
        free_until(session, hub, "gpu-shared", gpus="v100: 1 of 4", cores="14 of 16", nodes="1 partly used")
        with a_job("--partition=gpu-shared", "--gres=gpu:2", "--mem=1G", "--time=5"):
            free_until(session, hub, "gpu-shared", waiting="1")
    free_until(session, hub, "gpu-shared", gpus="v100: 4 of 4", waiting="0")
    on_head("scontrol", "update", "nodename=n2", "state=drain", "reason=test")
    try:
        free_until(session, hub, "compute", nodes="1 free, 1 down", cores="64 of 64")
    finally:
        on_head("scontrol", "update", "nodename=n2", "state=resume")
    on_head("scontrol", "update", "partitionname=debug", "state=down")
    try:
        free_until(session, hub, "debug", open=False)
    finally:
        on_head("scontrol", "update", "partitionname=debug", "state=up")
    free_until(session, hub, "compute", nodes="2 free")


def test_reserved_and_down_nodes_are_not_free(hub):
    session = hub.log_in("alice")
    with reserved("upkeep", Users="root", Nodes="n1"):
        free_until(session, hub, "compute", nodes="1 free, 1 reserved")
    free_until(session, hub, "compute", nodes="2 free")
    on_head("scontrol", "update", "nodename=n2", "state=down", "reason=test")
    try:
        free_until(session, hub, "compute", nodes="1 free, 1 down", cores="64 of 64")
    finally:
        on_head("scontrol", "update", "nodename=n2", "state=resume")
    free_until(session, hub, "compute", nodes="2 free", cores="128 of 128")


def test_nobody_who_is_not_logged_in_asks(hub):
    assert hub.get("/hub/hpcspawner/facts", allow_redirects=False).status_code in (302, 403)


def test_a_card_starts_what_it_says_and_the_next_form_has_the_last_choice_first(hub):
    with drained("n1", "n2", "n3"), a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        card = page.locator('[data-hpc-card="gpu"]')
        assert "gpu-shared · 1h · 1 core · 1G · 2 GPUs" in card.inner_text()
        card.get_by_role("button", name="Start").click()
        page.wait_for_selector('[data-hpc="id"]:not(:empty)', state="attached")
        record = shown(page.locator('[data-hpc="id"]').text_content().strip())
        assert (record["Partition"], record["TimeLimit"]) == ("gpu-shared", "01:00:00")
        assert "gres/gpu=2" in record["TRES"]
        hub.stop_server("alice")
        page.goto(f"{hub.url}/hub/spawn")
        first = page.locator("[data-hpc-card]").first
        assert first.get_attribute("data-hpc-card") == "last"
        assert "gpu-shared · 1h" in first.inner_text()
        assert page.complaints == []


def test_limits_follow_the_partition_and_the_scheduler_says_when_it_could_start(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        unfold(page)
        page.select_option("#hpc-partition", "debug")
        assert page.locator("#hpc-gpus").is_disabled()
        assert page.locator("#hpc-gpus-help").inner_text() == "debug has no GPUs."
        page.fill("#hpc-walltime", "31m")
        assert "at most 30m" in page.locator("#hpc-walltime-error").inner_text()
        page.click("#hpc-start")
        assert page.evaluate("document.activeElement.id") == "hpc-walltime"
        page.select_option("#hpc-partition", "gpu-shared")
        assert page.locator("#hpc-walltime-error").count() == 0
        assert page.locator("#hpc-gpus").is_enabled()
        page.fill("#hpc-gpus", "2")
        page.click("#hpc-when")
        page.locator("#hpc-answer", has_text="It could start now").wait_for()
        with a_job("--partition=gpu-shared", "--gres=gpu:v100:4", "--mem=1G", "--time=20"):
            page.wait_for_timeout(3500)
            page.click("#hpc-when")
            page.locator("#hpc-answer", has_text=re.compile(r"It could start at \d\d:\d\d")).wait_for()
        page.locator('[data-hpc-free="gpu-shared"] [data-hpc-now="gpus"]', has_text="of 4").wait_for()
        assert look_at(page, "form") == []
        assert page.complaints == []
    assert hub.api("GET", server_path("alice").rpartition("/")[0]).json()["server"] is None
