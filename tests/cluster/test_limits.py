"""Jobs that wait too long, that will never start, and that nobody wants, on the real Slurm."""

import contextlib
import hashlib
import time

import pytest
from cluster.conftest import drained, jobs_of, on_head, queue_is_empty_within
from support.faults import within
from support.hub import server_path

from hpcspawner.hub.keys import Keys

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
        assert "has waited in the queue for 5s" in fails_with(hub, "alice")
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


def stray(hub, user, secret=None):
    """A job of this user with a tag that the ledger does not have: made with the Hub's own secret, or another."""
    address = f"{hub.url}/hub/api/hpcspawner"
    kept = bytes.fromhex((hub.folder / "hpcspawner_secret").read_text().strip())
    tag = Keys(secret or kept, hashlib.sha256(address.encode()).hexdigest()).new_tag(user)
    argv = ["sbatch", "--parsable", f"--comment={tag}", "--time=5", "--mem=10M", "--output=/dev/null"]
    return on_head(*argv, user=user, stdin="#!/bin/bash\nsleep 200\n").strip()


def test_a_job_of_this_hub_that_nobody_wants_is_cancelled_and_another_hub_s_is_not(hub):
    ours, other = stray(hub, "alice"), stray(hub, "bob", secret=b"another Hub's" * 3)
    time.sleep(3)
    assert jobs_of("alice") == [ours], "a time of grace comes first"
    queue_is_empty_within(40, "alice")
    assert jobs_of("bob") == [other]
    assert f"job {ours} of alice is cancelled: no server wants it" in hub.log()
    on_head("scancel", other)
    queue_is_empty_within(40, "bob")


def test_a_dry_run_only_tells(make_hub):
    with make_hub("slurm", extra=HABITS.format(dry_run=True)) as hub:
        ours = stray(hub, "alice")
        deadline = time.monotonic() + 30
        while f"job {ours} of alice would be cancelled" not in hub.log():
            assert time.monotonic() < deadline, hub.log()
            time.sleep(0.5)
        assert jobs_of("alice") == [ours]
    on_head("scancel", ours)
    queue_is_empty_within(40, "alice")
