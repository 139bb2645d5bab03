"""The home page and the page of all servers on real schedulers: what runs and what waits there, Open and Stop."""

import re

import pytest
from cluster.conftest import drained, jobs_of, on_head, queue_is_empty_within
from support.browser import a_page, log_in, look_at
from support.faults import within

ROLES = """
c.JupyterHub.allow_named_servers = True
c.JupyterHub.load_roles += [
    {"name": "operator", "users": ["bob"], "scopes": ["admin-ui", "admin:servers", "access:servers"]},
]
"""


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub("slurm", extra=ROLES) as running:
        yield running


def cell(page, key, name):
    found = page.locator(f'tr[data-hpc-key="{key}"] [data-hpc-cell="{name}"]')
    return found.inner_text() if found.count() else ""


def one_that_runs_and_one_that_waits(hub):
    """Alice's default server runs on n3; her second waits, for its partition's nodes take no job."""
    hub.spawn("alice", {"partition": "gpu-shared", "gpus": 2, "walltime": "20m"})
    assert hub.api("POST", "/users/alice/servers/second", json={"walltime": "10m"}).status_code in (201, 202)


def test_home_shows_the_node_and_why_a_server_waits_and_opens_and_stops(hub):
    with drained("n1", "n2"), a_page() as page:
        log_in(page, hub, "alice")
        one_that_runs_and_one_that_waits(hub)
        page.goto(f"{hub.url}/hub/home")
        within(
            60, lambda: cell(page, "alice/second", "state") == "waiting", "the second server is not shown as waiting"
        )
        assert (cell(page, "alice/", "state"), cell(page, "alice/", "node")) == ("running", "n3")
        assert (cell(page, "alice/", "partition"), cell(page, "alice/", "gpus")) == ("gpu-shared", "2")
        assert re.fullmatch(r"1\dm|20m", cell(page, "alice/", "time"))
        assert cell(page, "alice/second", "partition") == "compute"
        # The scheduler's own reason, in words.
        within(60, lambda: "drained" in cell(page, "alice/second", "reason").lower(), "the reason is not shown")
        # Each is stopped in one place.
        assert page.locator("text=/^(stop|cancel)/i >> visible=true").count() == 2
        assert look_at(page, "home-slurm") == []
        page.locator('tr[data-hpc-key="alice/second"] [data-hpc-end]').click()
        page.wait_for_url(re.compile("/hub/home"))
        assert page.locator('tr[data-hpc-key="alice/second"]').count() == 0
        within(60, lambda: len(jobs_of("alice")) == 1, "the job that was cancelled is still there")
        page.locator('tr[data-hpc-key="alice/"] [data-hpc-open]').click()
        page.wait_for_url(re.compile("/user/alice/"), timeout=60_000)
        page.goto(f"{hub.url}/hub/home")
        page.locator('tr[data-hpc-key="alice/"] [data-hpc-end]').click()
        page.wait_for_url(re.compile("/hub/home"))
        queue_is_empty_within(60, "alice")
        assert page.complaints == []


def test_the_admin_sees_all_of_it_and_stops_a_server_of_another_s(hub):
    with drained("n1", "n2"), a_page() as page:
        one_that_runs_and_one_that_waits(hub)
        log_in(page, hub, "bob")
        page.goto(f"{hub.url}/hub/hpcspawner/servers")
        within(
            60, lambda: cell(page, "alice/second", "state") == "waiting", "the second server is not shown as waiting"
        )
        assert (cell(page, "alice/", "node"), cell(page, "alice/", "gpus")) == ("n3", "2")
        assert cell(page, "alice/", "job_id") in jobs_of("alice")
        state = page.locator('tr[data-hpc-key^="cluster "] [data-hpc-cell="state"]')
        assert state.inner_text() == "answers"
        jobs = page.locator('tr[data-hpc-key^="cluster "] [data-hpc-cell="jobs"]')
        within(60, lambda: jobs.inner_text() == "1 waiting, 1 running", "the cluster's count of jobs")
        assert look_at(page, "servers-slurm") == []
        for key, left in (("alice/second", 1), ("alice/", 0)):
            page.locator(f'tr[data-hpc-key="{key}"] [data-hpc-end]').click()
            page.wait_for_url(re.compile("/hub/hpcspawner/servers"))
            within(90, lambda left=left: len(jobs_of("alice")) == left, f"the job of {key} is still there")
            page.goto(f"{hub.url}/hub/hpcspawner/servers")
        assert page.complaints == []
    assert on_head("squeue", "--noheader", "--user=alice") == ""
