"""One fault meets servers at every stage of their lives: the Hub goes, the scheduler goes, lies or hangs, a node goes.

Everybody is released afterwards and must have what they asked for: exactly one job behind the server's own address, or
none at all. A Hub for Slurm and one for Torque meet each fault together, which costs the time of one.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cluster.conftest import on_head
from cluster.drills.field import ALIVE, EARLY, LATE, Field, Seat, seats
from cluster.drills.ground import Ground
from cluster.drills.record import record
from support.faults import SilentUserDatabase, locked, within
from support.schedulers import SCHEDULERS

USERS = {"slurm": (*range(11, 19), 29, 30), "torque": (*range(21, 29), 9, 10)}
"""Eight seats, then two who have had no job before that the scheduler could remember."""


@pytest.fixture(scope="module")
def both(lab, tmp_path_factory):
    """A Hub for each scheduler."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                Ground(lab, tmp_path_factory.mktemp(name), name, tuple(f"u{number:03}" for number in numbers))
            )
            for name, numbers in USERS.items()
            if name in SCHEDULERS
        ]


@pytest.fixture
def slurm(both):
    """Where it is the nodes or the Hub itself that fails, Torque would tell nothing new."""
    return both[0]


@pytest.fixture(autouse=True)
def cleared(both):
    yield
    for ground in both:
        if ground.hub.process.poll() is not None:
            ground.hub.start()
        ground.clear()


def field_of(grounds, *stages):
    return Field([seat for ground in grounds for seat in seats(ground, *stages)])


def note(field, fault, limit_s, **patterns):
    """All that must hold in the end, and a row for each seat."""
    field.check()
    for seat in field:
        record(seat, fault, limit_s, **patterns)


def nobody_is_lost(field, limit_s):
    """Whoever is to have a server has one, or one that starts, though nobody has asked again."""
    for seat in field:
        if seat.ends == "ready":
            within(
                limit_s,
                lambda seat=seat: seat.ground.server(seat.user),
                lambda seat=seat: f"{seat} is lost:\n{seat.ground.log()}",
            )


@pytest.mark.both_hubs
@pytest.mark.parametrize(
    ("fault", "end", "newcomer"), [("Hub killed", "kill", 8), ("Hub told to end", "terminate", 9)], ids=["kill", "term"]
)
def test_the_hub_goes_and_everybody_gets_what_they_asked_for(both, fault, end, newcomer):
    field = field_of(both)
    for seat in field.at("before the submit"):
        seat.user = seat.ground.users[newcomer]
    field.take_places()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda ground: getattr(ground.hub, end)(), both))
        field.release("before the submit", EARLY)
        time.sleep(2)
        list(pool.map(lambda ground: ground.hub.start(), both))
    nobody_is_lost(field, 15)
    # The others are on their way, and what they see changes by the second.
    field.note_what_is_seen(LATE, *ALIVE)
    field.release()
    field.settle(40)
    # A job that nobody wants would show up by now.
    time.sleep(3)
    note(field, fault, 40)


def test_the_controller_is_away_for_a_minute(both):
    field = field_of(both, *ALIVE).take_places()
    with both[0].lab.controller_stopped():
        ends = time.monotonic() + 60
        time.sleep(20)
        for seat in field.at("running"):
            assert seat.ground.server(seat.user)["ready"]
            assert seat.ground.whoami(seat.user)
        time.sleep(20)
        field.note_what_is_seen()
        time.sleep(max(0, ends - time.monotonic()))
    field.release()
    field.settle(40)
    note(field, "the scheduler's server is away for 60 s", 40)


def test_the_controller_hangs_and_a_server_asked_for_meanwhile_gets_one_job(both):
    field = field_of(both, *ALIVE).take_places()
    late = [Seat(ground, ground.users[0], "asked for meanwhile") for ground in both]
    everybody = Field([*field, *late])
    with both[0].lab.controller_hangs():
        for seat in late:
            seat.ground.start(seat.user)
        time.sleep(25)
        everybody.note_what_is_seen()
    # The submit was given up after 15 s, but the controller had it all the same and heeds it now.
    everybody.release()
    everybody.settle(60)
    time.sleep(3)
    note(everybody, "the scheduler's server hangs for 25 s", 60)


def test_the_listing_is_not_to_be_believed(both):
    field = field_of(both, *ALIVE).take_places()
    for what in ("garbage", "nothing", "100MB"):
        with ordered(both, f"list-{what}"):
            time.sleep(10)
            field.note_what_is_seen()
        for seat in field:
            seat.told = {**seat.told, what: seat.during}
        nobody_is_lost(field, 1)
    # Not only what is there is to last: the last fault still holds when somebody's job begins to run.
    with ordered(both, "list-garbage"):
        field.release()
        time.sleep(3)
    field.settle(30)
    field.check()
    for what in ("garbage", "nothing", "100MB"):
        for seat in field:
            seat.during = seat.told[what]
            record(seat, f"the listing prints {what}", 30)


@contextlib.contextmanager
def ordered(grounds, name):
    """An order to each Hub's commands, which must have been asked meanwhile."""
    before = [ground.calls("list") for ground in grounds]
    for ground in grounds:
        ground.order(name)
    try:
        yield
        assert all(ground.calls("list") > count for ground, count in zip(grounds, before, strict=True))
    finally:
        for ground in grounds:
            ground.release(name)


def test_a_cancel_that_fails_three_times(both):
    field = field_of(both, "running").take_places()
    for seat in field:
        seat.ground.order(f"cancel-fails-{seat.user}", "3")
        seat.ground.stop(seat.user)
        seat.ends, seat.stage = "gone", "stopping"
    field.settle(60)
    for seat in field:
        assert (seat.ground.orders / f"cancel-fails-{seat.user}").read_text().strip() == "0"
    note(field, "cancel fails three times", 60, log="{user}.* could not be cancelled yet")


def test_the_databases_are_locked_for_ten_seconds(slurm):
    field = field_of([slurm], *ALIVE).take_places()
    with locked(slurm.hub.folder / "hpcspawner.sqlite", slurm.hub.folder / "hub.sqlite"):
        time.sleep(2)
        # What comes meanwhile waits, or is tried again.
        field.release("starting", "waiting")
        time.sleep(8)
    field.release("stopping")
    field.settle(40)
    note(field, "databases locked for 10 s", 40)


def test_the_user_database_does_not_answer_when_the_hub_starts(slurm):
    field = field_of([slurm], *ALIVE).take_places()
    slurm.hub.kill()
    silent = SilentUserDatabase(slurm.folder, slurm.users)
    slurm.hub.start(prefix=silent.prefix)
    time.sleep(20)
    nobody_is_lost(field, 1)
    field.note_what_is_seen()
    silent.heal(slurm.hub.process.pid)
    field.release()
    field.settle(60)
    note(field, "user database silent when the Hub starts", 60)


def test_a_nodes_network_is_cut(slurm):
    briefly = seats(slurm, *ALIVE[1:], partition="debug")
    for_good = [
        Seat(slurm, slurm.users[0], "starting", "gone", {"partition": "gpu-shared"}),
        Seat(slurm, slurm.users[1], "running", "gone", {"partition": "gpu-shared"}),
    ]
    field = Field([*briefly, *for_good]).take_places()
    with slurm.lab.cut("n3"):
        with slurm.lab.cut("n1"):
            # Looking takes its time as well, and Slurm gives a silent node up after 75 s.
            again = time.monotonic() + 30
            time.sleep(12)
            field.note_what_is_seen()
            time.sleep(max(0, again - time.monotonic()))
        field.release()
        # Slurm asks a node that was silent once in 25 s, and repeats what it wanted there once in 30 s.
        field.settle(90, *briefly)
        for seat in briefly:
            record(seat, "node's network cut for 30 s", 90)
        field.settle(180, *for_good)
        for seat in for_good:
            record(seat, "node's network cut for good", 180, told="node")
    # What still runs there ends when the node has registered again, which Slurm may leave for later.
    on_head("scontrol", "reconfigure")
    lost = [fact["pid"] for seat in for_good for fact in slurm.facts(seat.user)]
    within(600, lambda: not any(Path(f"/proc/{pid}").exists() for pid in lost), f"servers still run on n3: {lost}")
    field.check()


def test_a_nodes_daemon_is_killed(slurm):
    field = Field(seats(slurm, *ALIVE[1:], partition="debug")).take_places()
    with slurm.lab.node_daemon_killed("n1"):
        time.sleep(20)
        field.note_what_is_seen()
    field.release()
    field.settle(40)
    note(field, "slurmd killed for 20 s", 40)
