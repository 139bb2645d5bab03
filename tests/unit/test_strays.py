"""Jobs that the ledger has lost: whose they are must be proven, and what can't be known again is not guessed."""

import time

import pytest
from jupyterhub import orm

from hpcspawner.hub.unknown_jobs import survey
from hpcspawner.jobs.job import now
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.record import End
from hpcspawner.schedulers.state import Cause


@pytest.fixture
def lab(hub):
    """A named server of alice's, and what she chose for it last."""
    alice = orm.User.find(hub.db, "alice")
    server = orm.Spawner(name="lab", user=alice, user_options={"partition": "gpu"})
    hub.db.add(server)
    hub.db.commit()
    return server


@pytest.fixture
def looks(desk, hub):
    """The next Hub looks; its ledger is as these tests have it."""
    return lambda: survey(hub.db, desk.kept, desk.cluster, now())


def lost(desk, server="", job_id="77", state="RUNNING", *, owner="alice", username="alice", reason="None"):
    """A job of ours, as squeue lists it, and its tag."""
    tag = desk.kept.keys.new_tag(owner, username, server)
    return f"{job_id}|{state}|{'n1' if state == 'RUNNING' else ''}|{owner}|N/A|{reason}|{tag}", tag


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("server", ["", "lab"])
async def test_a_job_in_the_queue_is_known_again_with_its_ticket(desk, looks, server, until, in_database):
    line, tag = lost(desk, server, state="PENDING")
    desk.shows(line)
    await looks()
    (row,) = desk.kept.live()
    assert (row.record.username, row.record.server, row.record.owner, row.tag, row.record.job_id) == (
        "alice",
        server,
        "alice",
        tag,
        "77",
    )
    assert row.record.choices == ({"partition": "gpu"} if server else {})
    assert desk.kept.by_ticket(desk.kept.keys.ticket(tag)) is row
    assert (row.record.wanted, row.was_lost, row.record.follows) == (True, False, "")
    await until(lambda: in_database().get(tag, {}).get("job_id") == "77")


async def test_a_job_that_runs_is_known_again_and_its_ticket_is_worth_nothing(desk, looks, caplog):
    """It was traded, in all likelihood: who reads the script must not trade it once more."""
    line, tag = lost(desk)
    desk.shows(line)
    await looks()
    (row,) = desk.kept.live()
    assert (row.record.host, row.record.port, row.was_lost) == ("n1", 0, True)
    assert "alice: job 77 is not in the ledger, which was made on" in caplog.text
    assert desk.kept.by_ticket(desk.kept.keys.ticket(tag)) is None


async def test_back_in_the_queue_it_has_a_run_to_come(desk, looks):
    line, tag = lost(desk)
    desk.shows(line)
    await looks()
    (row,) = desk.kept.live()
    await desk.kept.put_back(row)
    assert desk.kept.by_ticket(desk.kept.keys.ticket(tag)) is row
    assert not row.was_lost


async def test_where_all_jobs_are_one_accounts_each_still_finds_its_user(desk, looks, hub):
    hub.db.add(orm.User(name="jupyterhub"))
    hub.db.commit()
    desk.shows(lost(desk, owner="jupyterhub")[0])
    await looks()
    (row,) = desk.kept.live()
    assert (row.record.username, row.record.owner) == ("alice", "jupyterhub")


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(lambda desk: lost(desk, "deleted")[0], id="of a server that JupyterHub does not know"),
        pytest.param(lambda desk: lost(desk, username="bob", owner="bob")[0], id="of a user that it does not know"),
        pytest.param(lambda desk: lost(desk)[0].replace("alice", "bob"), id="with a tag that somebody else has copied"),
        pytest.param(
            lambda desk: lost(desk)[0].rpartition("|")[0] + "|" + Keys(b"x" * 32, "hub").new_tag("alice", "alice", ""),
            id="another hub's",
        ),
        pytest.param(lambda desk: lost(desk, state="COMPLETED")[0], id="one that has ended"),
    ],
)
async def test_what_is_not_proven_gets_no_row(desk, looks, line):
    desk.shows(line(desk))
    assert await looks() is not None
    assert desk.kept.live() == []
    assert desk.kept.surveyed


async def test_an_end_that_the_ledger_knows_stays_one(desk, looks):
    row = await desk.submitted("12")
    row.ended(End(Cause.STOPPED, "", time.time()))
    await desk.kept.save(row)
    desk.shows(desk.line(row))
    await looks()
    assert desk.kept.live() == []


async def test_a_follow_up_is_known_again_as_one(desk, looks):
    (second, _), (first, first_tag) = lost(desk, job_id="78", state="PENDING", reason="Dependency"), lost(desk)
    desk.shows(second, first)
    await looks()
    rows = {row.record.job_id: row for row in desk.kept.live()}
    assert (rows["77"].record.follows, rows["78"].record.follows, rows["78"].label.follows) == ("", first_tag, "77")


async def test_of_two_jobs_that_run_one_is_the_servers_and_the_other_is_left_alone(desk, looks):
    desk.shows(lost(desk)[0], lost(desk, job_id="78")[0])
    await looks()
    assert [row.record.job_id for row in desk.kept.live()] == ["77"]


async def test_a_backups_job_that_is_gone_does_not_stand_in_the_way(desk, looks):
    old = await desk.submitted("12")
    desk.shows(lost(desk)[0])
    await looks()
    (found,) = [row for row in desk.kept.live() if row is not old]
    assert (found.record.job_id, found.record.follows) == ("77", "")


async def test_a_backups_job_that_was_never_made_is_not_asked_for_again(desk, looks, until):
    old = desk.new_row(asked_at=time.time() - 3600)
    await desk.kept.open(old)
    desk.shows(lost(desk)[0])
    await looks()
    await until(lambda: old.end)
    assert [row.record.job_id for row in desk.kept.live()] == ["77"]
    assert (desk.submits, desk.cancelled) == (0, [])


async def test_without_a_listing_nothing_has_been_seen(desk, looks):
    desk.shows(lost(desk)[0])
    desk.goes_down()
    assert await looks() is None
    assert not desk.kept.surveyed
