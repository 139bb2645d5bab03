"""A real OpenPBS from the form to a cell, its options, its ends, and a Hub that is killed.

The contract has been asked of it besides; where there is none (no PBS_PROGRAMS), its recorded answers are tried.
"""

import contextlib
import re
import time

import pytest
from cluster.conftest import jobs_of, on_head, openpbs_jobs_of, queue_is_empty_within, shown
from support.browser import a_page, fill, log_in, press_start, run_cell
from support.faults import within
from support.hub import server_path
from support.schedulers import HAS_OPENPBS, openpbs

# A REST start is answered at once, also where the job waits.
QUICK = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}'
WHERE = "import os, socket; print(socket.gethostname(), os.getcwd())"

if HAS_OPENPBS:

    @pytest.fixture(scope="module")
    def running_hub(make_hub):
        with make_hub("openpbs", extra=QUICK, change=("[defaults]", "[job]\nrequeue = true\n\n[defaults]")) as running:
            yield running

    @contextlib.contextmanager
    def nothing_starts():
        """No job starts, however much is free."""
        on_head(openpbs("qmgr"), "-c", "set server scheduling = False")
        try:
            yield
        finally:
            on_head(openpbs("qmgr"), "-c", "set server scheduling = True")

    def test_from_the_form_to_a_cell_and_back(hub):
        with a_page() as page:
            log_in(page, hub, "alice")
            page.goto(f"{hub.url}/hub/spawn")
            fill(page, partition="compute", walltime="20m", memory="2G", account="ddp363")
            press_start(page)
            page.wait_for_url(re.compile(r"/user/alice/lab"), timeout=90_000)
            host, folder = run_cell(page, WHERE).split()
            (job_id,) = openpbs_jobs_of("alice")
            record = shown(job_id)
            assert record["exec_host"] == f"{host}/0"
            assert folder == "/home/alice"
            assert (record["Resource_List"]["select"], record["Account_Name"]) == ("1:ncpus=1:mem=2048mb", "ddp363")
            page.goto(f"{hub.url}/hub/home")
            page.locator("[data-hpc-end]").click()
            page.wait_for_selector("#start", timeout=30_000)
            assert page.complaints == []
        queue_is_empty_within(40, "alice")

    ASKED = [
        ({"partition": "debug", "walltime": "10m"}, {"queue": "debug"}, {"walltime": "00:10:00"}),
        ({"walltime": "1d 2h", "account": "tro100"}, {"Account_Name": "tro100"}, {"walltime": "26:00:00"}),
        ({"partition": "gpu-shared", "gpus": 3}, {}, {"select": "1:ncpus=1:mem=1024mb:ngpus=3", "ngpus": 3}),
        (
            {"nodes": 2, "cpus": 4},
            {"Rerunable": "True"},
            {"select": "2:ncpus=4:mpiprocs=4:ompthreads=1:mem=1024mb", "place": "scatter"},
        ),
        ({"features": ["skylake"]}, {}, {"select": "1:ncpus=1:mem=1024mb:skylake=True"}),
    ]

    @pytest.mark.parametrize(("options", "of_job", "resources"), ASKED)
    def test_the_option_reaches_the_scheduler(hub, options, of_job, resources):
        with nothing_starts():
            assert hub.api("POST", server_path("alice"), json=options).status_code in (201, 202)
            within(10, lambda: jobs_of("alice"), hub.log)
            record = shown(jobs_of("alice")[0])
            hub.stop_server("alice")
        assert {name: record[name] for name in of_job} == of_job
        assert {name: record["Resource_List"][name] for name in resources} == resources

    async def test_two_nodes_are_the_kernel_s(hub):
        hub.spawn("alice", {"nodes": 2, "cpus": 2})
        lines = await hub.run("alice", "import os; print(open(os.environ['PBS_NODEFILE']).read())")
        hosts = lines.split()
        assert len(hosts) == 4
        assert len(set(hosts)) == 2
        assert (await hub.run("alice", WHERE)).split()[0] == hosts[0]
        hub.stop_server("alice")

    def test_gpus_are_counted_and_who_waits_for_one_is_told(hub):
        hub.spawn("alice", {"partition": "gpu-shared", "gpus": 3})
        assert shown(jobs_of("alice")[0])["exec_host"].startswith("n3/")
        asked = {"partition": "gpu-shared", "gpus": 2, "queue_limit": "60s"}
        assert hub.api("POST", server_path("bob"), json=asked).status_code == 202
        deadline = time.monotonic() + 60
        for event in hub.events("bob"):
            if "Other jobs are using what you asked for (ngpus)" in event.get("job", {}).get("reason", ""):
                break
            assert time.monotonic() < deadline, str(event)
        hub.stop_server("alice")
        # What was taken is free now.
        hub.wait_ready("bob", timeout_s=60)
        hub.stop_server("bob")

    def test_what_no_node_has_fails_at_once(hub):
        on_head(openpbs("qmgr"), "-c", "set node n3 resources_available.ngpus = 2")
        try:
            asked = {"partition": "gpu-shared", "gpus": 4, "queue_limit": "40s"}
            assert hub.api("POST", server_path("alice"), json=asked).ok
            # It may have failed before JupyterHub answered.
            within(40, lambda: not hub.servers("alice"), hub.log)
        finally:
            on_head(openpbs("qmgr"), "-c", "set node n3 resources_available.ngpus = 4")
        assert "so it will not start" in hub.log_in("alice").get(f"{hub.url}/hub/spawn", timeout=30).text
        queue_is_empty_within(40, "alice")

    async def test_a_job_that_is_put_back_is_a_server_again(hub):
        hub.spawn("alice")
        (job_id,) = jobs_of("alice")
        on_head(openpbs("qrerun"), job_id)
        within(60, lambda: shown(job_id)["run_count"] == 2, "the job was not started again")
        within(60, lambda: hub.log().count(f"job {job_id}") and _answers(hub, "alice"), hub.log)
        assert (await hub.run("alice", WHERE)).startswith("n")
        assert jobs_of("alice") == [job_id]
        hub.stop_server("alice")

    def _answers(hub, user):
        """Whether the user's server takes a call through the proxy."""
        server = hub.servers(user).get("")
        if not server or not server["ready"]:
            return False
        made = hub.api("POST", f"/users/{user}/tokens", json={"scopes": [f"access:servers!user={user}"]})
        token = {"Authorization": f"token {made.json()['token']}"}
        return hub.get(f"/user/{user}/api/status", headers=token).ok

    ENDS = [
        ("qdel", "The job was cancelled by root (an administrator)."),
        ("walltime", "The job reached its wall time."),
    ]

    @pytest.mark.parametrize(("how", "words"), ENDS, ids=[how for how, _ in ENDS])
    def test_an_end_has_its_cause(hub, how, words):
        hub.spawn("alice")
        (job_id,) = jobs_of("alice")
        if how == "qdel":
            on_head(openpbs("qdel"), job_id)
        else:
            on_head(openpbs("qalter"), "-l", "walltime=5", job_id)
        within(120, lambda: not hub.servers("alice"), hub.log)
        page = hub.log_in("alice").get(f"{hub.url}/hub/spawn", timeout=30).text
        assert words in page
        queue_is_empty_within(40, "alice")

    def test_a_killed_hub_finds_its_jobs_again(hub):
        hub.spawn("alice")
        with nothing_starts():
            assert hub.api("POST", server_path("bob"), json={"queue_limit": "1h"}).status_code == 202
            within(10, lambda: jobs_of("bob"), hub.log)
            before = {user: jobs_of(user) for user in ("alice", "bob")}
            hub.kill()
            hub.start()
            hub.wait_ready("alice", timeout_s=60)
            assert {user: jobs_of(user) for user in ("alice", "bob")} == before
        hub.wait_ready("bob", timeout_s=60)
        assert {user: jobs_of(user) for user in ("alice", "bob")} == before
        for user in ("alice", "bob"):
            hub.stop_server(user)
        began = time.monotonic()
        while jobs_of("alice") or jobs_of("bob"):
            assert time.monotonic() - began < 40
            time.sleep(0.2)
