"""A Hub of an earlier revision starts servers; today's takes over, with a ledger that it has upgraded."""

import sqlite3
import tarfile
import time
from pathlib import Path

import pytest
from support.hub import server_path

# The package as it was at revision 6b53f49, the last one whose ledger had no version (`git archive`).
EARLIER = Path(__file__).parent / "hpcspawner-6b53f49.tar.gz"


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(EARLIER) as files:
        files.extractall(folder, filter="data")
    return folder


def columns(file):
    with sqlite3.connect(file) as database:
        return {row[1] for row in database.execute("PRAGMA table_info(hpcspawner_jobs)")}


async def test_what_an_earlier_hub_started_runs_and_waits_on_under_this_one(make_hub, earlier):
    hub = make_hub()
    hub.packages = (str(earlier),)
    with hub:
        hub.spawn("alice", {"partition": "short"})
        hub.spawn("alice", {"partition": "short"}, name="second")
        # Both slots are taken, so this one waits.
        assert hub.api("POST", server_path("bob"), json={"partition": "short"}).status_code in (201, 202)
        started = await hub.run("alice", "import os; print(os.getpid())")
        ledger = hub.folder / "hpcspawner.sqlite"
        deadline = time.monotonic() + 60
        while len(jobs(ledger)) < 3:
            assert time.monotonic() < deadline, hub.log()
            time.sleep(0.2)
        before = jobs(ledger)
        assert "waits_since" in columns(ledger)

        hub.kill()
        hub.packages = ()
        hub.start()
        hub.wait_ready("alice")
        hub.wait_ready("alice", "second")
        assert jobs(ledger) == before, "every job of before is there, and no other"
        assert {"cluster", "submitted_at", "started_at"} <= columns(ledger)
        assert await hub.run("alice", "import os; print(os.getppid() != 1)") == "True"
        assert started
        hub.stop_server("alice", "second")
        hub.wait_ready("bob")
        assert await hub.run("bob", "print(6 * 7)") == "42"
        hub.stop_servers()


def jobs(ledger):
    """Tags and ids of the jobs that were submitted and have not ended."""
    with sqlite3.connect(ledger) as database:
        query = "SELECT tag, job_id FROM hpcspawner_jobs WHERE ended_at IS NULL AND job_id != ''"
        return set(database.execute(query))
