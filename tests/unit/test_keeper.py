"""Housekeeping as far as it needs no running Hub: what is cancelled, what is closed, and what is left alone.

That servers are taken up again is seen on real clusters, in `tests/cluster/drills`.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
import types

import pytest
from jupyterhub import orm
from sqlalchemy import event
from tornado import web
from tornado.web import Application

from hpcspawner.hub import housekeeping as module
from hpcspawner.hub import take_up
from hpcspawner.hub.housekeeping import Housekeeping, HousekeepingLimits
from hpcspawner.hub.users import Users
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.record import End
from hpcspawner.jobs.tasks import Slices
from hpcspawner.schedulers.state import Cause
from hpcspawner.spawner import HPCSpawner

HABITS = HousekeepingLimits(interval_s=0.1, orphan_grace_s=0.0, dry_run=False)


@pytest.fixture
def housekeeping(desk, hub, monkeypatch):
    """Keeps house for the length of a block."""
    monkeypatch.setattr(module, "_SOON_S", 0.1)

    @contextlib.asynccontextmanager
    async def keep(interval_s=HABITS.interval_s, grace_s=0.0, *, dry_run=False):
        habits = HousekeepingLimits(interval_s, grace_s, dry_run)
        task = asyncio.create_task(Housekeeping(hub, desk.kept, habits, logging.getLogger("test")).run())
        yield task
        assert not task.done(), "housekeeping has ended by itself"
        await desk.closes()
        task.cancel()

    return keep


def stray(desk, job_id="77", *, owner="alice", server="gone", tag=None, state="RUNNING"):
    tag = desk.kept.keys.new_tag(owner, owner, server) if tag is None else tag
    return f"{job_id}|{state}|n1|{owner}|N/A|None|{tag}"


async def some_rounds(desk, count=4):
    seen = len(desk._noted("ends"))
    async with asyncio.timeout(20):
        while len(desk._noted("ends")) < seen + count:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


def test_the_hub_can_start_a_server_that_no_web_request_has_asked_for():
    """JupyterHub does so from a handler; tornado refuses to make one of a request that lacks what HTTP asks for."""
    hub = types.SimpleNamespace(base_url="/hub/", server=types.SimpleNamespace(base_url="/hub/"))
    app = types.SimpleNamespace(hub=hub, tornado_application=Application([], hub=hub, log=logging.getLogger()))
    assert take_up._Inside(app).request.host == "localhost"


async def test_a_job_that_ends_while_it_is_taken_up_is_not_replaced_by_another(desk):
    """Its user has not asked for one: a node may fail between the look of housekeeping and the start that follows."""
    row = await desk.submitted("12")
    desk.shows(desk.line(row, "NODE_FAIL"))
    judged = []

    class Starting:
        cluster, ledger, name = desk.cluster, desk.kept, row.record.server
        user = types.SimpleNamespace(name=row.record.username)
        handler = types.SimpleNamespace(takes_up=True)
        _kept, _check_taken_up = HPCSpawner._kept, HPCSpawner._check_taken_up

        async def _judge_or_defaults(self, options):
            judged.append(options)

        def _keep_choices(self, options):
            pass

    with pytest.raises(web.HTTPError) as caught:
        await HPCSpawner.accept(Starting(), row.record.choices)
    assert row.end is not None
    assert row.end.message in caught.value.jupyterhub_message
    assert judged == []
    Starting.handler = types.SimpleNamespace()
    await HPCSpawner.accept(Starting(), {})
    assert judged == [{}], "a user may ask for another"


# --- servers of the Hub that nobody looks after


@pytest.fixture
async def forsaken(desk, monkeypatch):
    """A server that JupyterHub has let go of half: between a cancelled start and its stop, or for good."""
    row, left = await desk.submitted("12"), asyncio.Event()

    async def leave():
        left.set()

    spawner = types.SimpleNamespace(job=row, ready=True, unpolled=True, leave=leave, left=left)
    monkeypatch.setattr(Housekeeping, "_spawner", lambda self, row: spawner)
    desk.shows(desk.line(row))
    return spawner


async def test_a_server_is_not_taken_away_between_a_cancelled_start_and_its_stop(desk, housekeeping, forsaken):
    """Else JupyterHub finds no server to stop, and the job that its user has cancelled is taken up again."""
    async with housekeeping():
        await asyncio.sleep(0.5)
    assert not forsaken.left.is_set()


async def test_a_server_that_stays_unattended_is_let_go_of(desk, housekeeping, forsaken, until, monkeypatch):
    monkeypatch.setattr(module, "_STOP_COMES_S", 0.3)
    async with housekeeping():
        await until(forsaken.left.is_set)


# --- follow-ups


@pytest.fixture
async def ready(desk, monkeypatch):
    """A server that works and may start again; what housekeeping has asked of it is counted."""
    row = await desk.submitted("12", renewals=1, port=20000, host="n1")
    asked = []

    async def renew():
        asked.append(row.tag)

    spawner = types.SimpleNamespace(job=row, ready=True, unpolled=False, renew=renew, asked=asked)
    monkeypatch.setattr(Housekeeping, "_spawner", lambda self, other: spawner)
    desk.shows(desk.line(row))
    return spawner


def block(hub):
    hub.authenticator.blocked_users = {"alice"}


def remove(hub):
    hub.db.delete(orm.User.find(hub.db, "alice"))
    hub.db.commit()


async def test_a_server_that_may_start_again_gets_its_follow_up(housekeeping, ready, until):
    async with housekeeping():
        await until(lambda: ready.asked)


@pytest.mark.parametrize("turn_away", [block, remove])
async def test_no_follow_up_is_asked_for_a_user_who_was_blocked_or_removed(desk, hub, housekeeping, ready, turn_away):
    turn_away(hub)
    async with housekeeping():
        await some_rounds(desk)
    assert ready.asked == []
    assert desk.cancelled == [], "what runs is its user's until an admin stops it"


@pytest.mark.parametrize("turn_away", [block, remove])
async def test_a_follow_up_in_the_queue_ends_when_its_user_is_blocked(desk, hub, housekeeping, ready, until, turn_away):
    follower = await desk.submitted("13", follows=ready.job)
    desk.shows(desk.line(ready.job), desk.line(follower, "PENDING", reason="Dependency"))
    async with housekeeping():
        await some_rounds(desk, 2)
        assert desk.cancelled == []
        turn_away(hub)
        await until(lambda: desk.cancelled)
    assert set(desk.cancelled) == {"13"}


# --- jobs that no server wants: the ledger knows that they should have ended


async def unwanted(desk, job_id="77", state="RUNNING"):
    """A job whose row was closed, as squeue lists it: it turned up after its server was stopped."""
    row = await desk.submitted(job_id)
    row.ended(End(Cause.STOPPED, "", time.time()))
    await desk.kept.save(row)
    return desk.line(row, state)


@pytest.mark.parametrize("state", ["RUNNING", "PENDING"])
async def test_a_job_that_no_server_wants_is_cancelled(desk, housekeeping, until, caplog, state):
    desk.shows(await unwanted(desk, state=state))
    async with housekeeping():
        await until(lambda: desk.cancelled)
        assert desk.cancelled[0] == "77"
        await some_rounds(desk)
    # It has ended; nobody cancels it again.
    assert len(desk.cancelled) <= 2
    assert "job 77 of alice is cancelled: no server needs it" in caplog.text


async def test_it_is_cancelled_by_the_next_hub_too(desk, housekeeping, until, reopened):
    desk.shows(await unwanted(desk))
    desk.kept = reopened()
    async with housekeeping():
        await until(lambda: desk.cancelled)


async def test_it_is_left_alone_for_a_time_of_grace(desk, housekeeping, until):
    desk.shows(await unwanted(desk))
    begun = time.monotonic()
    async with housekeeping(grace_s=1.5):
        await until(lambda: desk.cancelled)
    assert time.monotonic() - begun >= 1.5


async def test_the_grace_is_each_jobs_own(desk, housekeeping, until):
    first, second = await unwanted(desk, "77"), await unwanted(desk, "78")
    desk.shows(first)
    async with housekeeping(grace_s=1.5):
        await some_rounds(desk, 2)
        desk.shows(first, second)
        await until(lambda: desk.cancelled)
        assert set(desk.cancelled) == {"77"}


async def test_a_cancel_that_fails_is_tried_in_the_next_round(desk, housekeeping, until):
    desk.shows(await unwanted(desk))
    desk.order("no-cancel", "scancel: error: Unable to contact slurm controller")
    async with housekeeping():
        await until(lambda: len(desk.cancelled) >= 2)
        desk.revoke_order("no-cancel")
        await until(lambda: "CANCELLED" in (desk.folder / "jobs").read_text())


async def test_a_dry_run_only_tells(desk, housekeeping, caplog):
    desk.shows(await unwanted(desk))
    async with housekeeping(dry_run=True):
        await some_rounds(desk)
    assert desk.cancelled == []
    assert "job 77 of alice would be cancelled: no server needs it" in caplog.text


async def test_a_round_cancels_three_at_most_and_the_next_one_goes_on(desk, housekeeping, until):
    desk.shows(*[await unwanted(desk, str(number)) for number in range(70, 78)])
    async with housekeeping(interval_s=3600):
        await until(lambda: len(desk.cancelled) == 3)
        await asyncio.sleep(0.5)
        assert len(desk.cancelled) == 3
        desk.kept.wake.set()
        await until(lambda: len(set(desk.cancelled)) >= 6)


# --- jobs that the ledger does not know


@pytest.mark.parametrize("state", ["RUNNING", "PENDING", "SUSPENDED"])
async def test_a_job_that_was_there_before_the_hub_is_kept_and_named_once(desk, housekeeping, caplog, state):
    """The ledger may be a new one, or from a backup: then it knows nothing of jobs that users work in."""
    known = [await desk.submitted(str(number)) for number in range(10, 16)]
    for row in known:
        row.tasks["start"] = asyncio.create_task(asyncio.sleep(60))
    desk.shows(stray(desk, state=state), *map(desk.line, known))
    async with housekeeping():
        await some_rounds(desk)
    assert desk.cancelled == []
    assert caplog.text.count("job 77 of alice has a tag of this Hub, but the ledger, made on") == 1
    assert "The Hub leaves it alone. To cancel it: scancel 77" in caplog.text
    for row in known:
        row.tasks["start"].cancel()


@pytest.mark.parametrize(("known", "ends"), [(6, True), (1, False)], ids=["one of seven", "one of two"])
async def test_one_that_comes_later_is_cancelled_where_most_are_known(desk, housekeeping, until, known, ends):
    """The ledger was there all the time, and would know it."""
    rows = [await desk.submitted(str(number)) for number in range(10, 10 + known)]
    for row in rows:
        row.tasks["start"] = asyncio.create_task(asyncio.sleep(60))
    desk.shows(*map(desk.line, rows))
    async with housekeeping():
        await some_rounds(desk, 2)
        desk.shows(stray(desk), *map(desk.line, rows))
        if ends:
            await until(lambda: desk.cancelled)
        else:
            await some_rounds(desk)
    assert set(desk.cancelled) == ({"77"} if ends else set())
    for row in rows:
        row.tasks["start"].cancel()


async def test_the_mark_of_a_row_on_a_job_with_another_number_is_no_reason_where_its_own_is_not_listed(
    desk, housekeeping, caplog
):
    """A scheduler whose host was renamed writes other numbers."""
    row = await desk.submitted("12")
    row.tasks["start"] = asyncio.create_task(asyncio.sleep(60))
    desk.shows(desk.line(row, job_id="13"))
    async with housekeeping():
        await some_rounds(desk)
    assert desk.cancelled == []
    assert "job 13 of alice has a tag of this Hub" in caplog.text
    row.tasks["start"].cancel()


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(lambda desk: stray(desk, tag=""), id="no tag"),
        pytest.param(lambda desk: stray(desk, tag="my comment"), id="a user's own words"),
        pytest.param(lambda desk: stray(desk, tag="h23456789abcdef"), id="as ours look"),
        pytest.param(
            lambda desk: stray(desk, tag=Keys(b"s" * 32, "other").new_tag("alice", "alice", "")),
            id="another hub's, same secret",
        ),
        pytest.param(
            lambda desk: stray(desk, tag=Keys(b"x" * 32, "hub").new_tag("alice", "alice", "")), id="another hub's"
        ),
        pytest.param(
            lambda desk: stray(desk, owner="bob", tag=desk.kept.keys.new_tag("alice", "alice", "")),
            id="a tag that bob has copied",
        ),
        pytest.param(lambda desk: stray(desk, state="COMPLETED"), id="one that has ended"),
    ],
)
async def test_what_is_not_ours_is_left_alone(desk, housekeeping, line):
    desk.shows(line(desk))
    async with housekeeping():
        await some_rounds(desk)
    assert desk.cancelled == []


async def test_a_second_job_with_a_rows_tag_is_cancelled_and_the_rows_own_is_not(desk, housekeeping, until):
    row = await desk.submitted("12")
    # Nothing is done with it for as long as something is under way.
    row.tasks["start"] = asyncio.create_task(asyncio.sleep(60))
    desk.shows(desk.line(row), desk.line(row, job_id="13"))
    async with housekeeping():
        await until(lambda: desk.cancelled)
        await some_rounds(desk)
    assert set(desk.cancelled) == {"13"}
    row.tasks["start"].cancel()


async def test_a_job_whose_submit_is_under_way_is_left_alone(desk, housekeeping):
    row = desk.new_row(asked_at=time.time())
    await desk.kept.open(row)
    row.tasks["submit"] = asyncio.create_task(asyncio.sleep(60))
    desk.shows(desk.line(row, job_id="12"))
    async with housekeeping():
        await some_rounds(desk)
    assert desk.cancelled == []
    row.tasks["submit"].cancel()


async def test_an_outage_cancels_nothing_and_is_survived(desk, housekeeping, until):
    desk.shows(await unwanted(desk))
    desk.goes_down()
    async with housekeeping():
        await until(lambda: len(desk._noted("calls")) > 4)
        assert desk.cancelled == []
        desk.comes_up()
        await until(lambda: desk.cancelled)


# --- jobs that the ledger knows


async def test_a_stop_that_an_earlier_hub_began_is_finished(desk, housekeeping, until, reopened):
    row = await desk.submitted("12", wanted=False)
    desk.shows(desk.line(row))
    desk.kept = reopened()
    (row,) = desk.kept.live()
    async with housekeeping(interval_s=60):
        await until(lambda: row.end)
    assert row.end.cause is Cause.STOPPED
    assert desk.cancelled == ["12"]


async def test_a_job_that_ended_while_no_hub_looked_is_closed_with_its_cause(desk, housekeeping, until):
    row = await desk.submitted("12")
    desk.shows(desk.line(row, "TIMEOUT"))
    desk.records("12", "TIMEOUT")
    async with housekeeping(interval_s=60):
        await until(lambda: row.end)
    assert row.end.cause is Cause.WALL_TIME
    assert desk.cancelled == []


async def test_somebody_who_comes_back_within_the_grace_finds_the_job(desk, housekeeping, hub):
    row = await desk.submitted("12")
    desk.shows(desk.line(row))
    hub.authenticator.blocked_users.add("alice")
    async with housekeeping(grace_s=60):
        await some_rounds(desk)
    assert (row.record.wanted, desk.cancelled) == (True, [])


async def test_the_job_of_a_named_server_that_was_deleted_is_ended(desk, housekeeping, until):
    row = await desk.submitted("12", "lab")
    desk.shows(desk.line(row))
    async with housekeeping():
        await until(lambda: row.end)
    assert desk.cancelled == ["12"]


@pytest.mark.parametrize("how", ["deleted", "blocked"])
async def test_the_job_of_somebody_who_may_have_no_server_any_more_is_ended(
    desk, housekeeping, until, hub, how, caplog
):
    row = await desk.submitted("12")
    desk.shows(desk.line(row))
    if how == "deleted":
        hub.db.delete(orm.User.find(hub.db, "alice"))
        hub.db.commit()
    else:
        hub.authenticator.blocked_users.add("alice")
    async with housekeeping():
        await until(lambda: row.end)
    assert desk.cancelled == ["12"]
    assert "the Hub no longer has this server; ending job 12" in caplog.text


async def test_a_follow_up_waits_in_the_queue_as_long_as_its_parent_is_there(desk, housekeeping):
    parent = await desk.submitted("12")
    parent.tasks["start"] = asyncio.create_task(asyncio.sleep(60))
    follower = await desk.submitted("13", follows=parent)
    desk.shows(desk.line(parent), desk.line(follower, "PENDING", reason="Dependency"))
    async with housekeeping():
        await some_rounds(desk)
    assert (follower.record.wanted, desk.cancelled) == (True, [])
    parent.tasks["start"].cancel()


async def test_a_follow_up_whose_submit_was_cut_off_is_cleared_away(desk, housekeeping, until):
    parent = await desk.submitted("12")
    parent.tasks["start"] = asyncio.create_task(asyncio.sleep(60))
    follower = desk.new_row(follows=parent, asked_at=time.time() - 3600)
    await desk.kept.open(follower)
    desk.shows(desk.line(parent), desk.line(follower, "PENDING", job_id="13"))
    async with housekeeping():
        await until(lambda: follower.end)
    assert desk.cancelled == ["13"]
    assert parent.record.wanted
    parent.tasks["start"].cancel()


# --- the rounds


async def test_what_ended_long_ago_is_dropped(desk, housekeeping, until, in_database):
    row = await desk.submitted("12")
    row.ended(End(Cause.IDLE, "", time.time() - 99 * 24 * 3600))
    await desk.kept.save(row)
    assert row.tag in in_database()
    async with housekeeping():
        await until(lambda: row.tag not in in_database())


async def test_the_ledger_may_ask_for_a_round_before_its_time(desk, housekeeping, until):
    async with housekeeping(interval_s=3600):
        await some_rounds(desk, 1)
        row = await desk.submitted("12", wanted=False)
        desk.shows(desk.line(row, "CANCELLED"))
        desk.kept.wake.set()
        await until(lambda: row.end)


async def test_a_round_that_fails_is_told_and_the_next_one_comes(desk, housekeeping, until, ledger_file, caplog):
    other = sqlite3.connect(ledger_file)
    other.execute("ALTER TABLE hpcspawner_jobs RENAME TO away")
    other.commit()
    async with housekeeping():
        await until(lambda: "housekeeping failed; housekeeping tries again in the next round" in caplog.text)
        other.execute("ALTER TABLE away RENAME TO hpcspawner_jobs")
        other.commit()
        other.close()
        row = await desk.submitted("12", wanted=False)
        desk.shows(desk.line(row, "CANCELLED"))
        desk.kept.wake.set()
        await until(lambda: row.end)


# --- what a look costs


@pytest.fixture
def questions(hub):
    """What JupyterHub's database is asked."""
    asked = []
    engine = hub.db.get_bind()
    event.listen(engine, "before_cursor_execute", lambda _c, _k, statement, *_: asked.append(statement))
    return asked


async def busy_rows(desk, count, **fields):
    """Jobs of one user's servers of which each waits for something, so that nothing is to be done with them."""
    rows = [await desk.submitted(str(number), f"s{number}", **fields) for number in range(count)]
    desk.shows(*map(desk.line, rows))
    return rows


async def test_a_stir_looks_at_the_job_that_it_names_and_at_no_other(desk, housekeeping, until, monkeypatch):
    seen = []

    async def see_to(_self, row):
        seen.append(row.tag)
        return True

    monkeypatch.setattr(Housekeeping, "_see_to", see_to)
    rows = await busy_rows(desk, 20)
    async with housekeeping(interval_s=3600):
        await until(lambda: len(seen) == len(rows))
        seen.clear()
        desk.kept.wake.set(rows[3].tag, rows[7].tag)
        await until(lambda: seen)
        await asyncio.sleep(0.1)
        assert seen == [rows[3].tag, rows[7].tag]


async def test_a_look_at_many_servers_asks_the_database_for_each_user_once(desk, hub, questions, monkeypatch):
    """With as many questions as servers, each look held up the Hub for seconds."""
    # What others commit between two slices is read again, which is no matter here.
    monkeypatch.setattr(module, "Slices", lambda: Slices(60.0))
    await busy_rows(desk, 50, follows=await desk.submitted("99"))
    keeper = Housekeeping(hub, desk.kept, HABITS, logging.getLogger("test"))
    await keeper._look_at(desk.kept.live())
    # For its number, and whether it has still its name.
    assert len([one for one in questions if "FROM users" in one]) == 2
    questions.clear()
    await keeper._look_at(desk.kept.live())
    assert questions == []
    for row in desk.kept.live():
        row.ended(End(Cause.STOPPED, "", time.time()))


async def test_a_user_who_is_deleted_renamed_or_made_again_is_noticed(hub):
    users = Users(hub)
    first = users.find("alice")
    assert users.find("alice") is first
    first.orm_user.name = "alicia"
    hub.db.commit()
    assert users.find("alice") is None
    assert users.find("alicia") is first
    hub.users.delete(first)
    assert users.find("alicia") is None
    hub.db.add(orm.User(name="alicia"))
    hub.db.commit()
    assert users.find("alicia") not in (None, first)


# --- the line of jobs to be taken up


class Line(take_up.TakingUp):
    """Notes whom it takes up, and takes as long as it is told."""

    def __init__(self, *args):
        super().__init__(*args)
        self.begun, self.go_on = [], asyncio.Event()

    async def _adopt(self, row):
        self.begun.append(row.record.job_id)
        await self.go_on.wait()
        if row.record.job_id == "3":
            raise web.HTTPError(503)


@pytest.fixture
def line(desk, hub):
    return Line(hub, Users(hub), 3600.0)


async def test_a_few_are_taken_up_at_once_and_one_that_runs_before_those_that_wait(desk, line, until):
    rows = await busy_rows(desk, 6)
    for row in rows:
        line.add(row)
    await until(lambda: line.begun == ["0", "1"])
    line.first([rows[5].tag, "of another"])
    line.go_on.set()
    await until(lambda: len(line.begun) == 6)
    assert line.begun[2] == "5"


async def test_one_that_could_not_be_taken_up_has_its_next_turn_later(desk, line, until):
    rows = await busy_rows(desk, 4)
    line.go_on.set()
    for row in rows:
        line.add(row)
    await until(lambda: len(line.begun) == 4 and not line._workers)
    for row in rows:
        line.add(row)
    await until(lambda: len(line.begun) == 7)
    assert line.begun.count("3") == 1


async def test_one_that_is_in_the_line_is_there_once(desk, line, until):
    rows = await busy_rows(desk, 4)
    for row in rows * 3:
        line.add(row)
    line.go_on.set()
    await until(lambda: not line._workers)
    assert sorted(line.begun) == ["0", "1", "2", "3"]


async def test_many_that_wait_are_found_in_one_listing(desk, hub, until, monkeypatch):
    """A thousand starts of which each wants a listing of its own took minutes, and the controller's time."""
    started = []

    class Inside:
        def __init__(self, _app, seen_after, _counts):
            self.seen_after = seen_after

        async def spawn_single_user(self, user, server, **_):
            started.append((server, self.seen_after))

    monkeypatch.setattr(take_up, "_Inside", Inside)
    counted, count = [], hub.users.count_active_users
    monkeypatch.setattr(hub.users, "count_active_users", lambda: counted.append(1) or count())
    taking_up = take_up.TakingUp(hub, Users(hub), 3600.0)
    for row in await busy_rows(desk, 30):
        taking_up.add(row)
    await until(lambda: len(started) == 30)
    assert len(desk._noted("calls")) <= 2
    assert len({seen_after for _, seen_after in started}) == 1
    assert len(counted) < 30
