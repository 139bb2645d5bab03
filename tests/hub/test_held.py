"""A Hub that starts again while jobs wait: their servers are held, and started when their jobs run."""

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.faults import within
from support.hub import server_path

pytestmark = pytest.mark.both_hubs

OPTIONS = {"walltime": "10m"}
EAGER = """
c.HPCSpawner.housekeeping_interval_s = 1
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.5}
"""


async def test_servers_that_wait_are_held_shown_cancelled_and_started(make_hub):
    with make_hub(extra=EAGER) as hub:
        # All slots are taken, so what comes next waits.
        hub.spawn("bob", OPTIONS)
        hub.spawn("bob", OPTIONS, name="other")
        for name in ("stays", "goes"):
            hub.api("POST", server_path("alice", name), json=OPTIONS)
            within(30, lambda name=name: f"alice:{name}: job " in hub.log(), hub.log)
        jobs = dict(re.findall(r"alice:(\w+): job (\d+) submitted", hub.log()))
        began = hub.log_file.stat().st_size

        def said():
            return hub.log_file.read_text(errors="replace")[began:]

        hub.kill()
        hub.start()
        for name, job in jobs.items():
            within(30, lambda name=name, job=job: f"alice:{name}: job {job} taken up again" in said(), said)
        assert {name: one["pending"] for name, one in hub.servers("alice").items()} == dict.fromkeys(jobs, "spawn")
        page = hub.log_in("alice").get(f"{hub.url}/hub/spawn-pending/alice/stays", timeout=30).text
        assert f'<td data-hpc="id">{jobs["stays"]}</td>' in page
        assert "taking up job" not in said(), "JupyterHub has started none of them"
        assert hub.api("POST", server_path("alice", "stays"), json=OPTIONS).status_code == 202, "it is starting already"

        hub.stop_server("alice", "goes")
        within(30, lambda: f"job {jobs['goes']} has ended" in said(), said)
        assert set(hub.servers("alice")) == {"stays"}

        with ThreadPoolExecutor(1) as reader:
            events = reader.submit(lambda: list(hub.events("alice", "stays")))
            hub.stop_server("bob")
            assert hub.wait_ready("alice", "stays")["ready"]
            told = events.result(60)
        assert [event.get("job", {}).get("state") for event in told if "job" in event] == ["pending", "running"]
        assert told[-1]["ready"], "who had the page open before the start sees it through"
        assert said().count(f"job {jobs['stays']} taken up again") == 1
        assert await hub.run("alice", "print(6 * 7)", name="stays") == "42"
        assert len(re.findall(r"alice:stays: job \d+ submitted", hub.log())) == 1
