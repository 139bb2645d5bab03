"""The end of a job that is not wanted any more, or that has ended by itself: asked for, confirmed, recorded."""

import asyncio
import sqlite3
import time

import pytest
from jupyterhub import orm
from sqlalchemy import text
from support.jobs import put

from hpcspawner.jobs import stop, submit
from hpcspawner.jobs.causes import RENEWED_AFTER
from hpcspawner.jobs.record import End, Report
from hpcspawner.jobs.stop import end_job, finish, has_ended
from hpcspawner.jobs.submit import obtain
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.state import Cause, JobState, JobStatus

RUN = "run-" + "r" * 30
ABSENT = JobStatus(JobState.ENDED)
LISTED = JobStatus(JobState.ENDED, native_state="TIMEOUT")


@pytest.fixture
def end(desk):
    """Ends a job; within some seconds, or fails."""

    def ends(row, limit_s=5):
        return asyncio.wait_for(end_job(row, limit_s), 20)

    return ends


@pytest.fixture
async def running(desk):
    """A row whose job squeue shows running."""
    row = await desk.submitted()
    desk.shows(desk.line(row))
    return row


@pytest.fixture
def with_token(hub, kept):
    """Gives a row's server its token, and asks whether that is valid."""

    class Tokens:
        def give(self, row):
            user = hub.users[orm.User.find(hub.db, "alice")]
            user.new_api_token(kept.keys.token(row.tag), note=f"Server at /user/alice/{row.record.server}")

        def valid(self, row):
            return orm.APIToken.find(hub.db, kept.keys.token(row.tag)) is not None

    return Tokens()


# --- ending


async def test_a_stop_is_over_when_the_scheduler_shows_the_end(desk, running, end, in_database):
    await end(running)
    assert desk.cancelled == ["12"]
    assert (running.end.cause, running.end.message) == (Cause.STOPPED, "The server was stopped.")
    assert desk.kept.live() == []
    assert in_database()[running.tag]["cause"] == "stopped"
    assert desk.kept.wake.is_set()


async def test_that_nobody_wants_it_is_committed_while_the_scheduler_is_away(desk, running, end, in_database):
    """A Hub that ends in the middle of a stop goes on with it, and does not take the job up again."""
    desk.goes_down()
    desk.order("no-cancel", "scancel: error: Unable to contact slurm controller")
    await end(running, 0.5)
    assert running.end is None
    assert in_database()[running.tag]["wanted"] is False


async def test_the_token_is_worthless_at_once(desk, running, end, with_token):
    with_token.give(running)
    desk.order("stubborn")
    await end(running, 0.5)
    assert running.end is None
    assert not with_token.valid(running)


async def test_a_hidden_job_has_ended_when_the_cancel_was_taken(desk, end):
    desk.hides_jobs()
    row = await desk.submitted()
    await end(row)
    assert row.end.cause is Cause.STOPPED
    assert desk.cancelled == ["12"]


async def test_a_stop_that_is_not_confirmed_returns_in_time_and_goes_on_behind(desk, running, end, monkeypatch, until):
    monkeypatch.setattr(stop, "_FIRST_LOOKS_S", 0.2)
    desk.order("stubborn")
    before = time.monotonic()
    await end(running, 0.3)
    assert time.monotonic() - before < 15
    assert running.end is None
    assert desk.kept.live() == [running]
    await until(lambda: len(desk.cancelled) >= 2)
    desk.revoke_order("stubborn")
    await until(lambda: running.end)
    assert running.end.cause is Cause.STOPPED


@pytest.mark.parametrize(
    "break_it",
    [
        pytest.param(lambda desk: desk.order("no-cancel", "scancel: error: Unable to contact"), id="away"),
        pytest.param(lambda desk: desk.order("no-cancel", "scancel: error: Access/permission denied"), id="refused"),
        pytest.param(lambda desk: desk.revoke_order("scancel"), id="no command"),
        pytest.param(lambda desk: desk.revoke_order("squeue"), id="no listing"),
        pytest.param(lambda desk: desk.goes_down(), id="no controller"),
        pytest.param(lambda desk: (desk.folder / "sudo").unlink(), id="no sudo"),
    ],
)
async def test_an_end_never_raises(desk, running, end, break_it):
    desk.order("stubborn")
    break_it(desk)
    assert await end(running, 0.5) is None
    assert running.end is None
    # It is still tried.
    assert not running.tasks["end"].done()
    running.tasks["end"].cancel()


async def test_a_cancel_that_failed_is_tried_again(desk, running, end, monkeypatch, until):
    monkeypatch.setattr(stop, "_FIRST_LOOKS_S", 0.2)
    desk.order("no-cancel", "scancel: error: Unable to contact slurm controller")
    await end(running, 0.3)
    await until(lambda: desk.cancelled)
    desk.revoke_order("no-cancel")
    await until(lambda: running.end)
    assert len(desk.cancelled) == 2


async def test_a_job_that_ended_before_its_cancel_is_no_trouble(desk, running, end):
    desk.order("no-cancel", "scancel: error: Kill job error on job id 12: Job/step already completing or completed")
    desk.shows(desk.line(running, "COMPLETED"))
    await end(running)
    assert running.end.cause is Cause.STOPPED


async def test_several_who_stop_one_server_cancel_it_once(desk, running, end):
    await asyncio.gather(*(end(running) for _ in range(4)))
    assert desk.cancelled == ["12"]


async def test_a_job_that_has_ended_is_not_cancelled_again(desk, running, end):
    await finish(running, LISTED)
    await end(running)
    assert desk.cancelled == []


async def test_who_waits_no_time_at_all_has_the_job_ended_behind(desk, running, end, until):
    """As `stop_limit_s = 0` asks for, and `_finish` for follow-ups."""
    await end(running, 0)
    await until(lambda: running.end, 2)


async def test_a_cancelled_caller_leaves_the_end_to_be_seen_to(desk, running, end, until):
    desk.order("stubborn")
    task = asyncio.create_task(end(running))
    await until(lambda: desk.cancelled)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    desk.shows(desk.line(running, "CANCELLED"))
    await until(lambda: running.end)


async def test_without_a_limit_it_returns_when_the_job_has_ended(desk, running, end, until):
    desk.order("stubborn")
    task = asyncio.create_task(end(running, None))
    await until(lambda: desk.cancelled)
    await asyncio.wait([task], timeout=0.5)
    assert not task.done()
    desk.shows(desk.line(running, "CANCELLED"))
    await task
    assert running.end


async def test_a_follow_up_goes_before_the_job_that_it_follows(desk, running, end):
    """It would start when the other one is cancelled."""
    follower = await desk.submitted("13", follows=running)
    desk.shows(desk.line(running), desk.line(follower, "PENDING", reason="Dependency"))
    await end(running)
    assert desk.cancelled == ["13", "12"]
    assert follower.end.at <= running.end.at
    assert desk.kept.live() == []


async def test_a_job_is_not_cancelled_while_its_follow_up_may_still_start(desk, running, end, monkeypatch, until):
    monkeypatch.setattr(stop, "_FIRST_LOOKS_S", 0.2)
    follower = await desk.submitted("13", follows=running)
    desk.shows(desk.line(running), desk.line(follower, "PENDING", reason="Dependency"))
    desk.order("stubborn")
    await end(running, 1)
    assert set(desk.cancelled) == {"13"}
    desk.revoke_order("stubborn")
    await until(lambda: running.end)


ANOTHERS = [
    pytest.param("bob", "", id="another user's job"),
    pytest.param("bob", "hother12345", id="another user's job of another Hub"),
    pytest.param("alice", "", id="a job of the same user"),
    pytest.param("alice", "hother12345", id="another server of the same user"),
]


def by_its_number(row, owner, tag, state="RUNNING"):
    return f"{row.record.job_id}|{state}|n1|{owner}|2026-11-21T05:02:49|None|{tag}"


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SUSPENDED", "COMPLETING"])
@pytest.mark.parametrize(("owner", "tag"), ANOTHERS)
async def test_a_number_that_is_another_jobs_by_now_is_not_cancelled(desk, running, end, owner, tag, state):
    """Numbers that began anew: it is somebody's real work."""
    desk.shows(by_its_number(running, owner, tag, state))
    await end(running, 1)
    assert desk.cancelled == []


async def test_a_job_whose_number_another_user_has_is_over(desk, running, end):
    desk.records("12", "OUT_OF_MEMORY")
    desk.shows(by_its_number(running, "bob", ""))
    await end(running)
    assert running.end.cause is Cause.STOPPED
    assert desk.cancelled == []


async def test_what_the_scheduler_remembers_of_another_job_by_this_number_is_not_our_end(desk, running):
    desk.records("12", "OUT_OF_MEMORY")
    desk.shows(by_its_number(running, "bob", "", "OUT_OF_MEMORY"))
    assert await has_ended(running)
    assert running.end.cause is Cause.UNKNOWN
    assert desk.cancelled == []


async def test_our_job_is_cancelled_as_soon_as_the_listing_agrees(desk, running, end, monkeypatch, until):
    """Its owner's name is not known for a while, or the mark is put back."""
    monkeypatch.setattr(stop, "_FIRST_LOOKS_S", 0.2)
    desk.shows(by_its_number(running, "alice", ""))
    await end(running, 0.3)
    assert (desk.cancelled, running.end) == ([], None)
    desk.shows(desk.line(running))
    await until(lambda: running.end)
    assert desk.cancelled == ["12"]


@pytest.mark.parametrize(("owner", "tag"), ANOTHERS)
async def test_a_job_that_was_judged_absent_is_not_cancelled_where_its_number_is_anothers(desk, running, owner, tag):
    desk.shows(by_its_number(running, owner, tag))
    await finish(running, ABSENT)
    assert desk.cancelled == []


async def test_where_jobs_are_hidden_their_owner_is_asked_before_a_cancel(desk, end):
    """By the owner's own listing, which shows the user's other job by this number."""
    row = await desk.submitted()
    desk.hides_jobs()
    desk.shows_only_to("alice", by_its_number(row, "alice", ""))
    await end(row, 1)
    assert desk.cancelled == []


# --- a submit that is not over


async def test_a_submit_that_is_under_way_is_waited_for_and_its_job_cancelled(desk, end, until):
    row = desk.new_row()
    desk.order("hold")
    start = asyncio.create_task(obtain(row, lambda _: Submission((("comment", row.tag),), "true"), desk.say))
    await until(lambda: desk.submits)
    stopping = asyncio.create_task(end(row))
    await asyncio.sleep(0.2)
    assert desk.cancelled == []
    desk.revoke_order("hold")
    await stopping
    await start
    assert (row.record.job_id, desk.cancelled) == ("12", ["12"])
    assert row.end.cause is Cause.STOPPED


async def asked_for(desk, reopened):
    """A row whose Hub has ended between the intent and the scheduler's answer."""
    await desk.kept.open(desk.new_row(asked_at=time.time() - 3600))
    desk.kept = reopened()
    return desk.kept.live()[0]


async def test_a_job_that_an_earlier_hub_asked_for_is_found_and_cancelled(desk, reopened, end):
    row = await asked_for(desk, reopened)
    put(row, job_id="12")
    line = desk.line(row)
    put(row, job_id="")
    desk.shows(line)
    await end(row)
    assert desk.cancelled == ["12"]
    assert row.end.cause is Cause.STOPPED


async def test_a_row_that_never_got_a_job_is_closed_without_a_cancel(desk, reopened, end):
    row = await asked_for(desk, reopened)
    await end(row)
    assert desk.cancelled == []
    assert row.end.cause is Cause.STOPPED
    assert desk.kept.live() == []


async def test_where_jobs_are_hidden_a_row_without_a_job_is_closed_in_the_end(desk, reopened, end, monkeypatch):
    """Should its job turn up all the same, it bears our tag, and the housekeeping cancels it."""
    monkeypatch.setattr(submit, "_HIDDEN_S", 0.3)
    desk.hides_jobs()
    row = await asked_for(desk, reopened)
    await end(row)
    assert row.end


async def test_a_row_that_was_refused_keeps_the_schedulers_words(desk, end):
    row = desk.new_row()
    refusal = End(Cause.NOT_STARTED, "Invalid qos specification", time.time())
    row.ended(refusal)
    await end(row)
    assert row.end == refusal
    assert desk.cancelled == []


# --- finishing


@pytest.mark.parametrize(
    ("state", "ended"),
    [("RUNNING", False), ("PENDING", False), ("COMPLETING", False), ("TIMEOUT", True), ("CANCELLED", True)],
)
async def test_a_job_has_ended_by_proof_alone(desk, running, state, ended):
    desk.shows(desk.line(running, state))
    assert await has_ended(running) is ended
    assert bool(running.end) is ended


async def test_a_hub_that_has_just_started_proves_an_absence_too(desk, running):
    """Two listings begun after its start."""
    desk.shows()
    assert await has_ended(running)


async def test_nothing_has_ended_while_the_scheduler_is_away(desk, running):
    desk.goes_down()
    assert not await has_ended(running)
    assert running.end is None


async def test_an_end_is_recorded_once(desk, running, in_database):
    desk.records("12", "TIMEOUT")
    ends = await asyncio.gather(*(finish(running, LISTED) for _ in range(4)))
    again = await finish(running, ABSENT)
    assert set((*ends, again)) == {running.end}
    assert (again.cause, again.message) == (Cause.WALL_TIME, "The job reached its wall time.")
    assert in_database()[running.tag]["cause"] == "wall-time"
    assert desk.kept.live() == []
    assert desk.kept.wake.is_set()


async def test_those_who_look_after_the_job_are_told(desk, running):
    told = []
    running.on_report = lambda: told.append(running.end.cause)
    running.changed.clear()
    await finish(running, LISTED)
    assert told == [Cause.UNKNOWN]
    assert running.changed.is_set()


async def test_the_launchers_last_words_are_waited_for(desk, running):
    running.open(RUN, 1, "n1", "key")
    running.port = 20000
    task = asyncio.create_task(finish(running, LISTED))
    await asyncio.sleep(0.1)
    running.reported(Report("idle", "Nobody used it for 1 h.", 0))
    assert (await task).cause is Cause.IDLE


async def test_a_launcher_that_says_nothing_is_not_waited_for_long(desk, running):
    running.open(RUN, 1, "n1", "key")
    assert (await asyncio.wait_for(finish(running, LISTED), 15)).cause is Cause.UNKNOWN


@pytest.mark.parametrize(
    ("status", "cancels"),
    [pytest.param(LISTED, [], id="listed as ended"), pytest.param(ABSENT, ["12"], id="absent")],
)
async def test_a_job_judged_by_its_absence_is_cancelled_to_be_sure(desk, running, status, cancels):
    await finish(running, status)
    assert desk.cancelled == cancels


async def test_a_finish_whose_cancel_fails_is_one_all_the_same(desk, running):
    desk.order("no-cancel", "scancel: error: Unable to contact slurm controller")
    assert (await finish(running, ABSENT)).cause is Cause.UNKNOWN


async def test_why_the_hub_gave_the_job_up_outlives_the_stop(desk, running, end):
    running.hub_verdict = End(Cause.NOT_STARTED, "Job 12 will not start.", time.time())
    await end(running)
    assert running.end == running.hub_verdict


@pytest.mark.parametrize(
    ("state", "cause"),
    [
        ("TIMEOUT", Cause.WALL_TIME),
        ("NODE_FAIL", Cause.NODE_FAILED),
        ("PREEMPTED", Cause.PREEMPTED),
        ("OUT_OF_MEMORY", Cause.OUT_OF_MEMORY),
        ("COMPLETED", Cause.EXITED),
        ("CANCELLED", Cause.CANCELLED),
    ],
)
async def test_a_follow_up_lives_on_only_after_what_nobody_wanted(desk, running, until, state, cause):
    follower = await desk.submitted("13", follows=running)
    desk.shows(desk.line(running, state), desk.line(follower, "PENDING", reason="Dependency"))
    desk.records("12", state)
    end = await finish(running, JobStatus(JobState.ENDED, native_state=state))
    assert end.cause is cause
    if cause in RENEWED_AFTER:
        await asyncio.sleep(0.3)
        assert (follower.record.wanted, desk.cancelled) == (True, [])
    else:
        await until(lambda: not follower.record.wanted)


async def test_that_a_follow_up_is_not_needed_is_committed_before_its_parent_is_closed(desk, running, in_database):
    """A Hub that ends in between must not take it up."""
    follower = await desk.submitted("13", follows=running)
    desk.goes_down()
    desk.records("12", "COMPLETED")
    await finish(running, JobStatus(JobState.ENDED, native_state="COMPLETED"))
    committed = in_database()
    assert committed[running.tag]["ended_at"]
    assert committed[follower.tag]["wanted"] is False


async def test_a_follow_up_that_is_not_needed_is_cancelled(desk, running, until):
    follower = await desk.submitted("13", follows=running)
    desk.shows(desk.line(running, "COMPLETED"), desk.line(follower, "PENDING", reason="Dependency"))
    desk.records("12", "COMPLETED")
    await finish(running, JobStatus(JobState.ENDED, native_state="COMPLETED"))
    await until(lambda: follower.end)
    assert desk.cancelled == ["13"]


async def test_the_token_goes_with_the_job(desk, running, with_token):
    with_token.give(running)
    await finish(running, LISTED)
    assert not with_token.valid(running)


async def test_the_end_is_recorded_when_the_hubs_database_is_locked_for_a_while(
    desk, running, with_token, hub, tmp_path
):
    """And the Hub's session, which all its pages share, works afterwards."""
    with_token.give(running)
    hub.db.execute(text("PRAGMA busy_timeout = 10"))
    hub.db.commit()
    other = sqlite3.connect(tmp_path / "jupyterhub.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    task = asyncio.create_task(finish(running, LISTED))
    await asyncio.sleep(0.5)
    assert not task.done()
    other.rollback()
    other.close()
    await asyncio.wait_for(task, 10)
    assert not with_token.valid(running)
    assert orm.User.find(hub.db, "alice")


async def test_a_server_whose_user_was_deleted_ends_as_well(desk, running, end, hub):
    hub.db.delete(orm.User.find(hub.db, "alice"))
    hub.db.commit()
    await end(running)
    assert running.end
