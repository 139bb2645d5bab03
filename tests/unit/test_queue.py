"""One listing for all, and what is concluded from it: a real client, and a squeue that counts its calls."""

import asyncio
import logging
import os
import pwd
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from hpcspawner.schedulers import queue as queue_module
from hpcspawner.schedulers.commands import Client, Listing
from hpcspawner.schedulers.queue import NOT_OURS, NOT_VISIBLE, TAKEN, Found, OwnedJob, Queue, judge
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.site.profile import Access

ME = pwd.getpwuid(os.geteuid()).pw_name
BIN = Path(__file__).parent / "bin"
RECORDED = Path(__file__).parents[1] / "recorded" / "slurm-22.05"
MARK = "5f0c9a7be1d24386"  # of the recording

JOB = OwnedJob("12", "alice", "tag", submitted_at=100.0)
RUNNING = JobStatus(JobState.RUNNING, host="n1", owner="alice", tag="tag")
GONE = JobStatus(JobState.ENDED)
NOT_KNOWN = JobStatus(JobState.UNKNOWN)


def listing(begun_at, **jobs):
    return Listing(begun_at, {"13": RUNNING, **{name.lstrip("_"): status for name, status in jobs.items()}})


# --- judging


@pytest.mark.parametrize(
    ("newest", "previous", "expected"),
    [
        pytest.param(None, None, NOT_KNOWN, id="never an answer"),
        pytest.param(listing(101, _12=RUNNING), None, RUNNING, id="listed"),
        pytest.param(listing(99, _12=RUNNING), None, RUNNING, id="listed before the submit was recorded"),
        pytest.param(listing(101), None, NOT_KNOWN, id="absent from the only listing"),
        pytest.param(listing(102), listing(101), GONE, id="absent from two"),
        pytest.param(listing(102), listing(101, _12=RUNNING), NOT_KNOWN, id="absent from the newer one only"),
        pytest.param(listing(102, _12=RUNNING), listing(101), RUNNING, id="absent from the older one only"),
        pytest.param(listing(99), listing(98), NOT_KNOWN, id="both older than the submit"),
        pytest.param(listing(101), listing(99), NOT_KNOWN, id="one older than the submit"),
        pytest.param(listing(101), listing(100), NOT_KNOWN, id="one begun at the moment of the submit"),
        pytest.param(Listing(102, {}), Listing(101, {}), GONE, id="no jobs at all, twice"),
    ],
)
def test_gone_needs_two_listings_younger_than_the_submit(newest, previous, expected):
    assert judge(JOB, newest, previous) == expected


@pytest.mark.parametrize("state", [state for state in JobState])
def test_a_state_that_the_scheduler_tells_is_taken(state):
    status = JobStatus(state, owner="alice", tag="tag")
    assert judge(JOB, listing(101, _12=status), None) == status


@pytest.mark.parametrize(
    ("owner", "tag"),
    [
        pytest.param("bob", "tag", id="another owner"),
        pytest.param("alice", "other", id="another tag"),
        pytest.param("", "tag", id="no owner"),
        pytest.param("alice", "", id="no tag"),
        pytest.param("alice", "tag2", id="a longer tag"),
        pytest.param("Alice", "tag", id="another spelling"),
    ],
)
@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.ENDED])
def test_a_job_whose_owner_or_tag_do_not_agree_is_not_believed(owner, tag, state):
    """Neither that it runs (it would get our environment) nor that ours ended so."""
    found = JobStatus(state, host="n1", owner=owner, tag=tag)
    judged = judge(JOB, listing(102, _12=found), listing(101, _12=found))
    # Of two jobs by one number the older is gone; and this one has ended as well.
    gone = state is JobState.ENDED and owner == "alice"
    assert (judged.state, judged.host) == (JobState.ENDED if gone else JobState.UNKNOWN, None)
    assert judged.reason == (TAKEN if gone else NOT_OURS)


def test_what_ended_before_our_job_was_submitted_says_nothing_of_it():
    found = JobStatus(JobState.ENDED, owner="alice", tag="other")
    assert judge(JOB, listing(JOB.submitted_at - 1, _12=found), None).state is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("owner", "tag", "reason"),
    [
        pytest.param("bob", "other", TAKEN, id="another user's job"),
        pytest.param("bob", "", TAKEN, id="another user's job without a mark"),
        pytest.param("bob", "tag", NOT_OURS, id="our mark"),
        pytest.param("alice", "other", NOT_OURS, id="our owner, who may have changed the mark"),
        pytest.param("nobody", "", NOT_OURS, id="a user database that does not answer"),
        pytest.param("1000", "", NOT_OURS, id="a number for an owner"),
        pytest.param("", "", NOT_OURS, id="no owner"),
    ],
)
def test_a_number_that_is_another_users_job_by_now_is_the_end_of_ours(owner, tag, reason):
    """Numbers begin anew where a scheduler has lost its state; by two listings, as every absence."""
    found = JobStatus(JobState.RUNNING, host="n1", owner=owner, tag=tag)
    judged = judge(JOB, listing(102, _12=found), listing(101, _12=found))
    assert (judged.state, judged.reason) == (JobState.ENDED if reason == TAKEN else JobState.UNKNOWN, reason)
    assert judge(JOB, listing(102, _12=found), None).state is JobState.UNKNOWN
    ours = JobStatus(JobState.RUNNING, owner="alice", tag="tag")
    assert judge(JOB, listing(102, _12=found), listing(101, _12=ours)).state is JobState.UNKNOWN


# --- asking


class Desk:
    """A queue whose squeue does as this folder says."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "squeue").symlink_to(BIN / "squeue")
        self.lists()
        access = Access(type="slurm", path=(str(folder),), command_timeout_s=5)
        self.queue = Queue(Client(Slurm(), access, logging.getLogger("test")))

    def lists(self, *jobs):
        new = self.folder / "jobs.new"
        new.write_text("".join(f"{job}\n" for job in jobs))
        new.replace(self.folder / "jobs")

    def says_who_sees_what(self, private="none"):
        """A scontrol that prints the configuration of a cluster that keeps this private."""
        config = (
            (RECORDED / "config.txt").read_text().replace("PrivateData             = none", f"PrivateData = {private}")
        )
        (self.folder / "config").write_text(config)
        scontrol = self.folder / "scontrol"
        scontrol.write_text('#!/bin/bash\nPATH=/usr/bin\necho >>"$0.calls"\ncat "$(dirname "$0")/config"\n')
        scontrol.chmod(0o755)

    def goes_down(self):
        (self.folder / "down").write_text("slurm_load_jobs error: Unable to contact slurm controller\n")

    def comes_up(self):
        (self.folder / "down").unlink()

    def takes(self, seconds):
        (self.folder / "delay").write_text(str(seconds))

    @property
    def calls(self):
        file = self.folder / "calls"
        return len(file.read_text().splitlines()) if file.exists() else 0

    async def called(self, times):
        deadline = time.monotonic() + 5
        while self.calls < times:
            assert time.monotonic() < deadline, f"squeue was called {self.calls} times, not {times}"
            await asyncio.sleep(0.01)


@pytest.fixture
def patient_desk(tmp_path):
    return Desk(tmp_path)


@pytest.fixture
def desk(patient_desk, monkeypatch):
    """The same with a shorter pause between two listings, for the tests' time."""
    monkeypatch.setattr(queue_module, "_SHORTEST_GAP_S", 0.1)
    return patient_desk


def job(number, submitted_at=0.0):
    return OwnedJob(str(number), "alice", f"tag{number}", submitted_at)


def line(number, state="RUNNING", host="n1"):
    return f"{number}|{state}|{host}|alice|2026-11-21T05:02:49|None|tag{number}"


def test_the_stand_in_prints_what_a_real_squeue_printed(desk):
    recorded = (RECORDED / "squeue.txt").read_text().splitlines()
    # All but one job, whose comment has a line break in it.
    header, *rows = [text for text in recorded if text.endswith(MARK) and text.startswith(MARK) and "|" not in text]
    desk.lists(*("|".join(row.split(MARK)[1:-1]) for row in rows))
    argv = Slurm().query_command(MARK)
    printed = subprocess.run([desk.folder / "squeue", *argv[1:]], capture_output=True, text=True, check=True).stdout
    assert len(rows) > 5
    assert printed.splitlines() == [header, *rows]


async def test_two_hundred_at_once_cost_one_listing(desk):
    desk.lists(*(line(number) for number in range(200)))
    desk.takes(0.2)
    now = time.monotonic()
    found = await asyncio.gather(*(desk.queue.status(job(number), now) for number in range(200)))
    assert [status.tag for status in found] == [f"tag{number}" for number in range(200)]
    assert {status.state for status in found} == {JobState.RUNNING}
    assert desk.calls == 1


async def test_memory_answers_where_it_is_fresh_enough(desk):
    desk.lists(line(12))
    before = time.monotonic()
    await desk.queue.status(job(12), before)
    begun = time.monotonic()
    for _ in range(1000):
        assert (await desk.queue.status(job(12), before)).state is JobState.RUNNING
    assert time.monotonic() - begun < 30
    assert desk.calls == 1


async def test_a_listing_under_way_is_too_old_for_a_job_submitted_meanwhile(desk):
    """Its answer can't hold the new job: whoever took it for one would call the job gone."""
    desk.takes(0.2)
    early = asyncio.create_task(desk.queue.status(job(11), time.monotonic()))
    await desk.called(1)
    submitted_at = time.monotonic()
    desk.lists(line(12, "PENDING", "n/a"))
    status = await desk.queue.status(job(12, submitted_at), submitted_at)
    assert status.state is JobState.PENDING
    assert (await early).state is JobState.UNKNOWN
    assert desk.calls == 2


OF_ALICE = "8|COMPLETED|n1|alice|2026-11-21T05:02:49|None|"
"""A job of the same owner, which shows that the Hub's account sees hers."""
OTHERS = "7|RUNNING|n1|bob|2026-11-21T05:02:49|None|"
"""A job of somebody else, which shows that the Hub's account sees more than its own."""


async def test_a_job_that_is_absent_is_gone_with_the_second_listing_only(desk):
    desk.lists(OF_ALICE)
    states = [(await desk.queue.status(job(12), time.monotonic())).state for _ in range(3)]
    assert states == [JobState.UNKNOWN, JobState.ENDED, JobState.ENDED]
    assert desk.calls == 3


async def test_absence_proves_nothing_where_the_jobs_of_others_may_be_hidden(desk):
    """As Slurm does it with PrivateData=jobs: the listing is good, and empty."""
    states = [await desk.queue.status(job(12), time.monotonic()) for _ in range(3)]
    assert {status.state for status in states} == {JobState.UNKNOWN}
    assert states[-1].reason == NOT_VISIBLE


async def test_jobs_that_the_hub_itself_owns_are_never_hidden(desk):
    own = OwnedJob("12", ME, "tag12", 0.0)
    states = [(await desk.queue.status(own, time.monotonic())).state for _ in range(2)]
    assert states == [JobState.UNKNOWN, JobState.ENDED]


async def test_who_has_once_seen_the_jobs_of_others_sees_them_still(desk):
    desk.lists(line(12))
    states = [(await desk.queue.status(job(12), time.monotonic())).state]
    desk.lists()
    states += [(await desk.queue.status(job(12), time.monotonic())).state for _ in range(2)]
    assert states == [JobState.RUNNING, JobState.UNKNOWN, JobState.ENDED]


async def test_seeing_the_jobs_of_one_does_not_prove_that_another_s_are_seen(desk):
    desk.lists(OTHERS)
    states = [(await desk.queue.status(job(12), time.monotonic())).state for _ in range(3)]
    assert states == [JobState.UNKNOWN] * 3


async def test_all_jobs_with_one_owner_and_tag_are_found(desk):
    desk.lists(OTHERS, line(12), line(13), line(13).replace("13|RUNNING", "14|COMPLETED"))
    assert await desk.queue.search("alice", "tag13", time.monotonic()) == Found(("13", "14"), proven=True)
    assert await desk.queue.search("bob", "tag13", 0.0) == Found((), proven=True)
    for owner, tag in (("alice", "tag1"), ("alice", "")):
        assert await desk.queue.search(owner, tag, 0.0) == Found((), proven=True)


async def test_where_jobs_may_be_hidden_none_found_proves_nothing(desk):
    desk.lists(OTHERS)
    assert await desk.queue.search("alice", "tag12", time.monotonic()) == Found((), proven=False)
    assert await desk.queue.search(ME, "tag12", time.monotonic()) == Found((), proven=True)


async def test_without_a_listing_nothing_is_found_and_nothing_proven(desk):
    desk.lists(line(12))
    assert (await desk.queue.search("alice", "tag12", time.monotonic())).proven
    desk.goes_down()
    assert await desk.queue.search("alice", "tag12", time.monotonic()) == Found((), proven=False)
    assert await desk.queue.search("alice", "tag99", time.monotonic()) == Found((), proven=False)


async def test_where_slurm_hides_nothing_absence_is_proven_of_those_never_seen(desk):
    desk.says_who_sees_what()
    assert await desk.queue.search("alice", "tag12", time.monotonic()) == Found((), proven=True)
    states = [(await desk.queue.status(job(12), time.monotonic())).state for _ in range(2)]
    assert states[-1] is JobState.ENDED
    assert len((desk.folder / "scontrol.calls").read_text().splitlines()) == 1


async def test_where_slurm_hides_jobs_absence_is_not_proven(desk):
    desk.says_who_sees_what("jobs,usage")
    if ME != "root":
        assert not (await desk.queue.search("alice", "tag12", time.monotonic())).proven
    desk.queue.client.own_account = "jupyterhub"
    desk.queue._visibility_due = 0.0
    assert await desk.queue.search("alice", "tag12", time.monotonic()) == Found((), proven=False)


async def test_a_promise_that_was_taken_back_is_believed_no_longer_than_its_time(desk):
    desk.says_who_sees_what()
    desk.queue.client.own_account = "jupyterhub"
    assert (await desk.queue.search("alice", "tag12", time.monotonic())).proven
    desk.says_who_sees_what("jobs")
    desk.queue._visibility_due = 0.0
    assert not (await desk.queue.search("alice", "tag12", time.monotonic())).proven


async def test_the_jobs_that_are_ours_are_those_that_have_not_ended(desk):
    desk.lists(OTHERS, line(12), line(13, "COMPLETED"), line(14, "PENDING"), line(15, "COMPLETING"))
    found = await desk.queue.ours(lambda owner, tag: owner == "alice" and tag.startswith("tag"), time.monotonic())
    assert set(found) == {"12", "14", "15"}
    assert found["12"].state is JobState.RUNNING
    desk.goes_down()
    assert await desk.queue.ours(lambda owner, tag: True, time.monotonic()) is None


async def test_a_listing_that_hangs_leaves_everything_unknown(desk):
    desk.lists(line(12))
    assert (await desk.queue.status(job(12), time.monotonic())).state is JobState.RUNNING
    desk.takes(60)
    desk.queue.client.access = Access(type="slurm", path=(str(desk.folder),), command_timeout_s=1)
    states = [(await desk.queue.status(job(number), time.monotonic())).state for number in (12, 13)]
    assert states == [JobState.UNKNOWN] * 2
    assert await desk.queue.ours(lambda owner, tag: True, time.monotonic()) is None


async def test_an_end_that_is_listed_needs_no_proof(desk):
    desk.lists(line(12, "COMPLETED", ""))
    assert (await desk.queue.status(job(12), time.monotonic())).state is JobState.ENDED


async def test_listings_have_a_second_between_them(patient_desk):
    patient_desk.lists(line(12))
    begun = time.monotonic()
    await patient_desk.queue.status(job(12), time.monotonic())
    await asyncio.gather(*(patient_desk.queue.status(job(12), time.monotonic()) for _ in range(50)))
    assert 1.0 <= time.monotonic() - begun < 30
    assert patient_desk.calls == 2


async def test_the_first_three_follow_one_another_for_those_who_ask_at_once(patient_desk):
    patient_desk.lists(line(12))
    begun = time.monotonic()
    for _ in range(5):
        ask = partial(patient_desk.queue.status, job(12), time.monotonic(), at_once=True)
        await asyncio.gather(*(ask() for _ in range(50)))
    assert 2.0 <= time.monotonic() - begun < 30
    assert patient_desk.calls == 5


@pytest.mark.parametrize("gap", [1.0, 5.0], ids=["quick", "slow"])
def test_three_at_once_cost_as_many_gaps_afterwards_and_a_slow_scheduler_gets_none(patient_desk, gap):
    """By a clock of the test's own: when listings begin that are always wanted."""
    seconds = [0.0]
    queue = Queue(patient_desk.queue.client, lambda: seconds[0])
    begun = []
    for _ in range(6):
        seconds[0] += queue._pause_s(gap, at_once=True)
        queue._begins(gap)
        begun.append(seconds[0])
    assert begun == ([0, 0, 0, 1, 2, 3] if gap == 1 else [0, 5, 10, 15, 20, 25])
    seconds[0] += 10 * gap
    queue._begins(gap)
    assert queue._pause_s(gap, at_once=True) == (0 if gap == 1 else 5), "after a time without one"


async def test_listings_that_follow_one_another_at_once_are_one_proof_of_absence(patient_desk):
    patient_desk.lists(OF_ALICE)
    ask = partial(patient_desk.queue.status, job(12), at_once=True)
    states = [(await ask(after=time.monotonic())).state for _ in range(3)]
    assert states == [JobState.UNKNOWN] * 3
    # The first of the burst and one a gap after it.
    states = [(await patient_desk.queue.status(job(12), time.monotonic())).state for _ in range(2)]
    assert states[-1] is JobState.ENDED
    newest, previous = patient_desk.queue._newest, patient_desk.queue._previous
    assert newest.begun_at - previous.begun_at >= 0.9


async def test_a_slow_scheduler_is_left_in_peace_for_longer(desk):
    desk.takes(0.5)
    for _ in range(2):
        await desk.queue.status(job(12), time.monotonic())
    (desk.folder / "delay").unlink()
    begun = time.monotonic()
    await desk.queue.status(job(12), time.monotonic())
    # Five times as long as it took, from one start to the next.
    assert 1.9 <= time.monotonic() - begun < 30


async def test_one_slow_answer_is_no_slow_scheduler(desk):
    """As of a controller that has been away: the answer comes when it is back, and news must not wait after that."""
    await desk.queue.status(job(12), time.monotonic())
    desk.takes(2)
    await desk.queue.status(job(12), time.monotonic())
    (desk.folder / "delay").unlink()
    begun = time.monotonic()
    await desk.queue.status(job(12), time.monotonic())
    assert time.monotonic() - begun < 5, "five times as long as it took would be ten seconds, eight more than it took"


async def test_a_scheduler_that_is_down_makes_nothing_gone_and_comes_back(desk):
    desk.lists(line(12))
    assert (await desk.queue.status(job(12), time.monotonic())).state is JobState.RUNNING
    desk.goes_down()
    for _ in range(2):
        status = await desk.queue.status(job(12), time.monotonic())
        assert (status.state, status.reason) == (JobState.UNKNOWN, "The scheduler is not answering.")
    assert "Unable to contact" in desk.queue.error.words
    desk.comes_up()
    assert (await desk.queue.status(job(12), time.monotonic())).state is JobState.RUNNING
    assert desk.queue.error is None


async def test_a_scheduler_that_was_never_up_answers_nobody_and_nobody_waits_for_ever(desk):
    desk.goes_down()
    found = await asyncio.gather(*(desk.queue.status(job(number), time.monotonic()) for number in range(50)))
    assert {status.state for status in found} == {JobState.UNKNOWN}
    assert desk.calls == 1


async def test_an_older_answer_is_still_good_for_those_who_ask_for_no_newer_one(desk):
    desk.lists(line(12))
    before = time.monotonic()
    await desk.queue.status(job(12), before)
    desk.goes_down()
    await desk.queue.status(job(12), time.monotonic())
    assert (await desk.queue.status(job(12), before)).state is JobState.RUNNING
    assert desk.calls == 2


async def test_failures_between_two_listings_prove_nothing(desk):
    desk.lists(OF_ALICE)
    states = [(await desk.queue.status(job(12), time.monotonic())).state]
    desk.goes_down()
    states.append((await desk.queue.status(job(12), time.monotonic())).state)
    desk.comes_up()
    states.append((await desk.queue.status(job(12), time.monotonic())).state)
    assert states == [JobState.UNKNOWN, JobState.UNKNOWN, JobState.ENDED]


async def test_one_who_gives_up_takes_the_answer_from_nobody(desk):
    desk.lists(line(12))
    desk.takes(0.3)
    now = time.monotonic()
    tasks = [asyncio.create_task(desk.queue.status(job(12), now)) for _ in range(5)]
    await desk.called(1)
    tasks[0].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert {status.state for status in found[1:]} == {JobState.RUNNING}
    assert desk.calls == 1


async def test_all_who_give_up_leave_a_queue_that_works(desk):
    desk.lists(line(12))
    desk.takes(0.2)
    tasks = [asyncio.create_task(desk.queue.status(job(12), time.monotonic())) for _ in range(3)]
    await desk.called(1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (await desk.queue.status(job(12), time.monotonic())).state is JobState.RUNNING


async def test_a_listing_that_breaks_off_is_not_believed(desk):
    desk.lists(line(12))
    assert (await desk.queue.status(job(12), time.monotonic())).state is JobState.RUNNING
    (desk.folder / "squeue").rename(desk.folder / "whole")
    # It ends in the middle of the one job's line.
    (desk.folder / "squeue").write_text('#!/bin/bash\nPATH=/usr/bin\n"$(dirname "$0")/whole" "$@" | head -c -20\n')
    (desk.folder / "squeue").chmod(0o755)
    states = [(await desk.queue.status(job(12), time.monotonic())).state for _ in range(3)]
    assert states == [JobState.UNKNOWN] * 3
