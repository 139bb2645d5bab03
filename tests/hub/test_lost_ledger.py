"""A Hub whose ledger is gone, old, damaged or of a newer version when it starts."""

import contextlib
import re
import shutil
import sqlite3
import time

import pytest
from support.faults import within
from support.hub import server_path

pytestmark = pytest.mark.both_hubs

EAGER = """
c.HPCSpawner.housekeeping_interval_s = 1
c.HPCSpawner.orphan_grace_s = 1
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.5}
"""
OPTIONS = {"walltime": "10m"}


@pytest.fixture
def hub(make_hub):
    with make_hub(extra=EAGER) as hub:
        yield hub


def ledger_of(hub):
    return hub.folder / "hpcspawner.sqlite"


def change(file, sql):
    with contextlib.closing(sqlite3.connect(file)) as database:
        found = database.execute(sql).fetchall()
        database.commit()
    return found


def jobs(hub):
    """The newest job of each server that has one which lives, by the ledger."""
    rows = change(ledger_of(hub), "SELECT username, server, job_id FROM hpcspawner_jobs WHERE ended_at IS NULL")
    return {(username, server): job_id for username, server, job_id in rows}


def restarted(hub, *, without=(), before=lambda: None):
    """The Hub ends, files of it are removed, it starts again, and housekeeping has had time to do what it would."""
    hub.stop()
    for file in without:
        file.unlink()
    before()
    began = hub.log_file.stat().st_size
    hub.start()
    time.sleep(5)
    return lambda: hub.log_file.read_text(errors="replace")[began:]


async def test_running_servers_are_taken_up_again_when_the_ledger_is_gone(hub):
    hub.spawn("alice", {**OPTIONS, "directory": str(hub.folder)})
    before = jobs(hub)
    log = restarted(hub, without=[ledger_of(hub)])
    assert hub.wait_ready("alice")["ready"]
    assert await hub.run("alice", "print(6 * 7)") == "42"
    assert jobs(hub) == before
    assert re.search(r"alice: took job \d+ from JupyterHub's own database, because the ledger, made on ", log())
    assert "cancelled" not in log()


def test_a_ledger_from_a_backup_counts_as_far_as_it_goes(hub):
    shutil.copy(ledger_of(hub), hub.folder / "backup")
    hub.spawn("alice", OPTIONS)
    before = jobs(hub)
    restarted(hub, before=lambda: shutil.copy(hub.folder / "backup", ledger_of(hub)))
    assert hub.wait_ready("alice")["ready"]
    assert jobs(hub) == before


def test_jobs_that_wait_are_taken_up_again_and_start(hub):
    for user in ("bob", "carol"):
        hub.api("POST", f"/users/{user}")
        hub.spawn(user, OPTIONS)
    hub.api("POST", server_path("alice", "lab-2"), json=OPTIONS)
    within(20, lambda: jobs(hub).get(("alice", "lab-2")), hub.log)
    before = jobs(hub)
    log = restarted(hub, without=[ledger_of(hub)])
    within(20, lambda: len(jobs(hub)) == 3, hub.log)
    assert jobs(hub) == before
    assert re.search(
        r"alice:lab-2: job \d+ is not in the ledger, which was made on .*; the Hub takes it up "
        r"again",
        log(),
    )
    hub.stop_server("bob")
    assert hub.wait_ready("alice", "lab-2")["ready"]
    assert jobs(hub)["alice", "lab-2"] == before["alice", "lab-2"]


def test_a_job_that_can_not_be_reached_any_more_is_kept_told_and_can_be_stopped(hub):
    """JupyterHub's own database is from before too, so nobody knows where the server listens."""
    hub.spawn("alice", OPTIONS)
    before = jobs(hub)

    def forget():
        change(hub.folder / "hub.sqlite", "UPDATE spawners SET state = '{}', server_id = NULL")

    restarted(hub, without=[ledger_of(hub)], before=forget)
    assert jobs(hub) == before
    assert hub.servers("alice")[""]["pending"] == "spawn"
    answer = hub.log_in("alice").get(f"{hub.url}/hub/spawn-pending/alice", timeout=30)
    assert "Your server is starting" in answer.text
    said = next(event["message"] for event in hub.events("alice") if "lost its record of the job" in event["message"])
    assert "The job runs until its wall time ends. To end it now, press Cancel" in said
    hub.stop_server("alice")
    within(30, lambda: jobs(hub) == {}, hub.log)


def cut(file):
    file.write_bytes(file.read_bytes()[:1000])


def newer(file):
    change(file, "UPDATE hpcspawner_schema SET version = 99")


def no_json(file):
    change(file, "UPDATE hpcspawner_jobs SET choices = '{'")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        pytest.param(cut, r"is damaged: .* Move it away and start the Hub again", id="cut off"),
        pytest.param(no_json, r"is damaged: .* Move it away and start the Hub again", id="no JSON"),
        pytest.param(newer, r"was written by a newer version of hpcspawner .*\. Install that version", id="newer"),
    ],
)
def test_a_hub_stops_with_one_line_where_its_ledger_can_not_be_used(hub, spoil, words):
    hub.spawn("alice", OPTIONS)
    hub.stop()
    file = ledger_of(hub)
    shutil.copy(file, hub.folder / "good")
    spoil(file)
    began = hub.log_file.stat().st_size
    with pytest.raises(RuntimeError, match="the Hub ended at its start"):
        hub.start()
    log = hub.log_file.read_text(errors="replace")[began:]
    assert re.search(
        rf"hpcspawner: The ledger {file} {words}.* The Hub stops\. \(more: hpcspawner explain ledger-unusable\)$",
        log,
        re.MULTILINE,
    )
    assert log.count("The Hub stops.") == 1
    assert "Traceback" not in log
    hub.stop()
    # Which is what the line says.
    shutil.move(file, hub.folder / "bad")
    hub.start()
    assert hub.wait_ready("alice")["ready"]
