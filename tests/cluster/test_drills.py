"""One fault meets servers at every stage of their lives: the Hub goes, the scheduler goes, lies or hangs, a node goes.

Everybody is released afterwards and must have what they asked for: exactly one job behind the server's own address, or
none at all.
"""

import contextlib
import time
from pathlib import Path

import pytest
from cluster.drills.field import ALIVE, Field, Seat, seats
from cluster.drills.ground import USERS, Ground
from cluster.drills.record import record
from support.faults import SilentUserDatabase, locked, within

both = pytest.mark.parametrize("ground", ["slurm", "torque"], indirect=True)
# What is below Torque's commands here is Slurm, so a second time would tell nothing new.
slurm = pytest.mark.parametrize("ground", ["slurm"], indirect=True)


@pytest.fixture(scope="module")
def ground(request, lab, tmp_path_factory):
    with Ground(lab, tmp_path_factory.mktemp(f"drills-{request.param}"), request.param) as ground:
        yield ground


@pytest.fixture(autouse=True)
def cleared(ground):
    yield
    if ground.hub.process.poll() is not None:
        ground.hub.start()
    ground.clear()


def note(field, fault, limit_s, **patterns):
    """All that must hold in the end, and a row for each seat."""
    field.check()
    for seat in field:
        record(field.ground, seat, fault, limit_s, **patterns)


@both
@pytest.mark.parametrize(("fault", "end"), [("Hub killed", "kill"), ("Hub told to end", "terminate")])
def test_the_hub_goes_and_everybody_gets_what_they_asked_for(ground, fault, end):
    field = Field(ground, seats()).take_places()
    getattr(ground.hub, end)()
    field.release("before the submit", "submit under way, job made before the Hub is back")
    time.sleep(2)
    ground.hub.start()
    for seat in field:
        if seat.ends == "ready":
            within(15, lambda user=seat.user: ground.server(user), lambda seat=seat: f"{seat} is lost:\n{ground.log()}")
    field.note_what_is_seen()
    field.release()
    field.settle(40)
    # A job that nobody wants would show up by now.
    time.sleep(3)
    note(field, fault, 40)


@both
def test_the_controller_is_away_for_a_minute(ground):
    field = Field(ground, seats(*ALIVE)).take_places()
    running = field.at("running").user
    with ground.lab.controller_stopped():
        ends = time.monotonic() + 60
        time.sleep(20)
        assert ground.server(running)["ready"]
        assert ground.whoami(running)
        time.sleep(25)
        field.note_what_is_seen()
        time.sleep(max(0, ends - time.monotonic()))
    field.release()
    field.settle(40)
    note(field, "slurmctld stopped for 60 s", 40)


@both
def test_the_controller_hangs(ground):
    field = Field(ground, seats(*ALIVE)).take_places()
    with ground.lab.controller_hangs():
        time.sleep(20)
        field.note_what_is_seen()
    field.release()
    field.settle(40)
    note(field, "slurmctld hangs for 20 s", 40)


@both
def test_a_server_asked_for_while_the_controller_hangs_makes_one_job_or_none(ground):
    field = Field(ground, [Seat("u011", "asked for meanwhile", ends="gone")])
    ground.begin()
    with ground.lab.controller_hangs():
        ground.start("u011", may=(201, 202, 503))
        # The command is given up after 8 s; the controller has the request all the same, and will heed it.
        within(20, lambda: ground.server("u011") is None, "the start is not given up")
    field.settle(60)
    time.sleep(5)
    note(field, "slurmctld hangs for 20 s", 60, told="did not answer")


@both
@pytest.mark.parametrize("what", ["garbage", "nothing", "100MB"])
def test_the_listing_is_not_to_be_believed(ground, what):
    field = Field(ground, seats(*ALIVE)).take_places()
    verb = "squeue" if ground.scheduler == "slurm" else "qstat"
    ground.order(f"list-{what}")
    before = ground.calls(verb)
    time.sleep(10)
    assert ground.calls(verb) > before, "the stand-in was not asked"
    field.note_what_is_seen()
    ground.release(f"list-{what}")
    field.release()
    field.settle(30)
    note(field, f"the listing prints {what}", 30)


@both
def test_a_cancel_that_fails_three_times(ground):
    field = Field(ground, seats("running")).take_places()
    (seat,) = field
    ground.order(f"cancel-fails-{seat.user}", "3")
    ground.stop(seat.user)
    seat.ends, seat.stage = "gone", "stopping"
    field.settle(60)
    assert (ground.orders / f"cancel-fails-{seat.user}").read_text().strip() == "0"
    note(field, "cancel fails three times", 60, log="{user}.* could not be cancelled yet")


@slurm
def test_the_databases_are_locked_for_ten_seconds(ground):
    field = Field(ground, seats(*ALIVE)).take_places()
    with locked(ground.hub.folder / "hpcspawner.sqlite", ground.hub.folder / "hub.sqlite"):
        time.sleep(2)
        # What comes meanwhile waits, or is tried again.
        field.release("starting", "waiting")
        time.sleep(8)
    field.release("stopping")
    field.settle(40)
    note(field, "databases locked for 10 s", 40)


@slurm
def test_the_user_database_does_not_answer_when_the_hub_starts(ground):
    field = Field(ground, seats(*ALIVE)).take_places()
    ground.hub.kill()
    silent = SilentUserDatabase(ground.folder, USERS)
    ground.hub.start(prefix=silent.prefix)
    time.sleep(20)
    for seat in field:
        if seat.ends == "ready":
            assert ground.server(seat.user), f"{seat} is lost:\n{ground.log()}"
    field.note_what_is_seen()
    silent.heal(ground.hub.process.pid)
    field.release()
    field.settle(60)
    note(field, "user database silent when the Hub starts", 60)


@slurm
def test_a_nodes_network_is_cut(ground):
    briefly = [Seat(seat.user, seat.stage, seat.ends, {"partition": "debug"}) for seat in seats(*ALIVE[1:])]
    for_good = [
        Seat("u001", "starting", "gone", {"partition": "gpu-shared"}),
        Seat("u002", "running", "gone", {"partition": "gpu-shared"}),
    ]
    field = Field(ground, briefly + for_good).take_places()
    with contextlib.ExitStack() as cables:
        cables.enter_context(ground.lab.cut("n3"))
        with ground.lab.cut("n1"):
            time.sleep(30)
            field.note_what_is_seen()
        field.release(*ALIVE)
        field.settle(40, *briefly)
        field.settle(90, *for_good)
        for seat in briefly:
            record(ground, seat, "node's network cut for 30 s", 40)
        for seat in for_good:
            record(ground, seat, "node's network cut for good", 90, told="node")
        for seat in for_good:
            seat.pids = [fact["pid"] for fact in ground.facts(seat.user)]
    # What still runs there ends when the node is back.
    for seat in for_good:
        within(60, lambda seat=seat: not _alive(seat.pids), f"{seat} still runs")
    field.check()


def _alive(pids):
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@slurm
def test_a_nodes_daemon_is_killed(ground):
    field = Field(
        ground, [Seat(seat.user, seat.stage, seat.ends, {"partition": "debug"}) for seat in seats(*ALIVE[1:])]
    )
    field.take_places()
    with ground.lab.node_daemon_killed("n1"):
        time.sleep(20)
        field.note_what_is_seen()
    field.release()
    field.settle(40)
    note(field, "slurmd killed for 20 s", 40)
