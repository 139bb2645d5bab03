"""What becomes of a job that is waited for, and of one that is not wanted any more."""

import asyncio
import logging
from pathlib import Path

import pytest
from material import FULL

from hpcspawner.errors import Reason, ServerLost
from hpcspawner.hub import life
from hpcspawner.hub.ledger import End, Row
from hpcspawner.hub.life import Limits, _Stopwatch, cancel_until_ended, wait_until_listening
from hpcspawner.hub.pages import News
from hpcspawner.job.state import JobState
from hpcspawner.schedulers import queue as queue_module
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import SiteProfile

BIN = Path(__file__).parent / "bin"
LIMITS = Limits(poll_interval_s=0.05, start_limit_s=60)


class Desk:
    """A cluster whose squeue shows what the folder's `jobs` says, and whose scancel takes everything."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "squeue").symlink_to(BIN / "squeue")
        self.shows("")
        for name, text in [("scancel", 'echo "$1" >>"${0%/*}/cancelled"'), ("sudo", 'shift 3; exec "$@"')]:
            (folder / name).write_text(f"#!/bin/bash\n{text}\n")
            (folder / name).chmod(0o755)
        access = {"type": "slurm", "path": [str(folder), "/usr/bin", "/bin"]}
        profile = SiteProfile.model_validate({**FULL, "scheduler": access})
        self.cluster = Cluster.of(profile, folder, logging.getLogger("test"))
        self.row = Row("alice", JobLabel("jupyter", "h12"), "alice")
        self.row.submitted("12")

    def shows(self, *lines):
        new = self.folder / "jobs.new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self.folder / "jobs")

    def waits(self):
        return wait_until_listening(self.cluster, self.row, News(), LIMITS, details=False)

    @property
    def cancelled(self):
        noted = self.folder / "cancelled"
        return noted.read_text().split() if noted.exists() else []


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.setattr(queue_module, "_SHORTEST_GAP_S", 0.01)
    return Desk(tmp_path)


RUNNING = "12|RUNNING|n1|alice|2026-11-21T05:02:49|None|h12"


async def test_a_reported_port_ends_the_waiting(desk):
    desk.shows(RUNNING)
    task = asyncio.create_task(desk.waits())
    await asyncio.sleep(0.3)
    assert not task.done()
    desk.row.listening("n1", 20000)
    await asyncio.wait_for(task, 2)


async def test_the_launcher_s_own_words_tell_why_there_is_no_server(desk):
    desk.shows(RUNNING)
    task = asyncio.create_task(desk.waits())
    await asyncio.sleep(0.2)
    desk.row.ended(End("missing-program", "jupyter-lab was not found.", log=("last line",)))
    with pytest.raises(ServerLost, match=r"jupyter-lab was not found\. \(job 12\)") as caught:
        await asyncio.wait_for(task, 2)
    assert caught.value.log == ("last line",)


async def test_the_scheduler_s_words_tell_it_where_the_launcher_said_nothing(desk, monkeypatch):
    monkeypatch.setattr(life, "_LAST_WORDS_S", 0.1)
    desk.shows("12|NODE_FAIL|n1|alice|2026-11-21T05:02:49|NodeDown|h12")
    with pytest.raises(ServerLost, match=r"NODE_FAIL. A node that the job needs is down") as caught:
        await desk.waits()
    assert caught.value.reason is Reason.JOB_ENDED
    assert desk.cancelled == []


async def test_a_job_judged_by_its_absence_alone_is_cancelled_to_be_sure(desk, monkeypatch):
    monkeypatch.setattr(life, "_LAST_WORDS_S", 0.1)
    desk.shows("8|RUNNING|n1|alice|2026-11-21T05:02:49|None|of her own")
    with pytest.raises(ServerLost, match="ended before its server was up"):
        await desk.waits()
    assert desk.cancelled == ["12"]


async def test_a_job_that_can_not_be_followed_fails_with_whom_to_tell(desk, monkeypatch):
    monkeypatch.setattr(life, "_HIDDEN_S", 0.3)
    with pytest.raises(ServerLost, match=r"may not see this user's jobs. Please tell the admin") as caught:
        await asyncio.wait_for(desk.waits(), 5)
    assert caught.value.reason is Reason.NOT_SET_UP


async def test_an_outage_of_the_scheduler_ends_nothing(desk):
    (desk.folder / "down").write_text("Unable to contact slurm controller")
    task = asyncio.create_task(desk.waits())
    await asyncio.sleep(0.5)
    assert not task.done()
    task.cancel()


async def test_a_cancel_is_over_when_the_scheduler_shows_the_end(desk):
    desk.shows(RUNNING.replace("RUNNING", "CANCELLED"))
    await asyncio.wait_for(cancel_until_ended(desk.cluster, desk.row, 5), 2)
    assert desk.cancelled == ["12"]


async def test_a_cancel_of_a_hidden_job_is_over_when_it_was_taken(desk):
    await asyncio.wait_for(cancel_until_ended(desk.cluster, desk.row, 5), 2)
    assert desk.cancelled == ["12"]


async def test_a_stop_that_is_not_confirmed_returns_in_time_and_goes_on_behind(desk, monkeypatch):
    monkeypatch.setattr(life, "_FIRST_LOOKS_S", 0.2)
    desk.shows(RUNNING)
    await asyncio.wait_for(cancel_until_ended(desk.cluster, desk.row, 0.3), 2)
    assert desk.row.being_cancelled
    await asyncio.sleep(2)
    assert len(desk.cancelled) >= 2, "it is cancelled again until it has ended"
    desk.shows(RUNNING.replace("RUNNING", "CANCELLED"))
    while life._background:
        await asyncio.sleep(0.05)


def test_the_start_limit_counts_only_what_was_seen_running(monkeypatch):
    clock = iter([0, 10, 500, 510, 600, 605])
    monkeypatch.setattr(life, "now", lambda: next(clock))
    watch = _Stopwatch()
    run, wait, unknown = JobState.RUNNING, JobState.PENDING, JobState.UNKNOWN
    assert [watch.seconds(state) for state in (run, run, unknown, run, wait, run)] == [0, 10, 10, 10, 0, 0]
