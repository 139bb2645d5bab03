"""Jobs that wait too long, that will never start, and that nobody wants, on the real Slurm."""

import contextlib
import hashlib
import sqlite3
import time

import pytest
from cluster.conftest import drained, jobs_of, on_head, queue_is_empty_within
from support.faults import within
from support.hub import server_path

from hpcspawner.jobs.keys import Keys

# A start that waits in the queue answers at once, as with JupyterHub's own 10 s it would not.
HABITS = """
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0.5}}
c.HPCSpawner.housekeeping_interval_s = 2
c.HPCSpawner.orphan_grace_s = 6
c.HPCSpawner.reaper_dry_run = {dry_run}
"""


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub("slurm", extra=HABITS.format(dry_run=False)) as running:
        yield running


def fails_with(hub, user):
    """The words of a start that is under way, once it has failed."""
    *_, last = hub.events(user)
    assert last.get("failed"), f"{last}"
    return last["message"]


def test_a_job_that_waits_longer_than_its_user_would_is_cancelled(hub):
    with drained("n1", "n2"):
        began = time.monotonic()
        assert hub.api("POST", server_path("alice"), json={"queue_limit": "5s"}).status_code == 202
        assert "was cancelled after waiting 5s in the queue" in fails_with(hub, "alice")
        assert time.monotonic() - began < 60
        queue_is_empty_within(40, "alice")


@contextlib.contextmanager
def closed_to_alice():
    on_head("scontrol", "update", "partitionname=compute", "AllowAccounts=tro100")
    try:
        yield
    finally:
        on_head("scontrol", "update", "partitionname=compute", "AllowAccounts=ALL")


def test_a_job_that_will_never_start_fails_at_once_with_the_scheduler_s_words(hub):
    with contextlib.ExitStack() as later:
        with drained("n1", "n2"):
            choices = {"account": "ddp363", "queue_limit": "60s"}
            # JupyterHub answers 201 where the last start has failed, for it looks at that one.
            assert hub.api("POST", server_path("alice"), json=choices).ok
            within(10, lambda: jobs_of("alice"), "no job was submitted")
            later.enter_context(closed_to_alice())
        # Only now does Slurm look at the account: nodes that take no job come first.
        message = fails_with(hub, "alice")
    assert "will not start. The scheduler says: Job's account not permitted to use this partition" in message
    queue_is_empty_within(40, "alice")


def stray(user, tag):
    """A job of this user with this tag."""
    argv = ["sbatch", "--parsable", f"--comment={tag}", "--time=5", "--mem=10M", "--output=/dev/null"]
    return on_head(*argv, user=user, stdin="#!/bin/bash\nsleep 200\n").strip()


def tag_of_a_stopped_server(hub, user):
    """The tag of a job whose row has ended: one that turns up with it, as after a slow submit, is not wanted."""
    hub.spawn(user, {"walltime": "10m"})
    hub.stop_server(user)
    queue_is_empty_within(40, user)
    with contextlib.closing(sqlite3.connect(hub.folder / "hpcspawner.sqlite", timeout=10)) as ledger:
        wanted = "SELECT tag FROM hpcspawner_jobs WHERE username = ? AND ended_at > 0 ORDER BY ended_at DESC"
        return ledger.execute(wanted, (user,)).fetchone()[0]


def test_a_job_that_no_server_wants_is_cancelled_and_those_that_are_not_known_are_not(hub):
    ours = stray("alice", tag_of_a_stopped_server(hub, "alice"))
    address = hashlib.sha256(f"{hub.url}/hub/api/hpcspawner".encode()).hexdigest()
    secret = bytes.fromhex((hub.folder / "hpcspawner_secret").read_text().strip())
    # With a tag of this Hub's that its ledger does not know, and with one of another Hub's.
    unknown = stray("bob", Keys(secret, address).new_tag("bob", "bob", "deleted"))
    other = stray("bob", Keys(b"another Hub's" * 3, address).new_tag("bob", "bob", ""))
    time.sleep(3)
    assert jobs_of("alice") == [ours], "a time of grace comes first"
    queue_is_empty_within(40, "alice")
    assert f"job {ours} of alice is cancelled: no server needs it" in hub.log()
    assert sorted(jobs_of("bob")) == sorted([unknown, other])
    assert f"job {unknown} of bob has a tag of this Hub" in hub.log()
    assert f"job {other} " not in hub.log()
    on_head("scancel", unknown, other)
    queue_is_empty_within(40, "bob")


def test_a_dry_run_only_tells(make_hub):
    with make_hub("slurm", extra=HABITS.format(dry_run=True)) as hub:
        ours = stray("alice", tag_of_a_stopped_server(hub, "alice"))
        deadline = time.monotonic() + 30
        while f"job {ours} of alice would be cancelled" not in hub.log():
            assert time.monotonic() < deadline, hub.log()
            time.sleep(0.5)
        assert jobs_of("alice") == [ours]
    on_head("scancel", ours)
    queue_is_empty_within(40, "alice")
