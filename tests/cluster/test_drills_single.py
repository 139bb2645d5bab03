"""Faults that meet one server: its job is cancelled, stopped, requeued or out of time, its node has no room.

They do not disturb each other, so all run at once; each test then waits for its own.
"""

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cluster.conftest import jobs_of, on_head
from cluster.drills.field import Field, Seat, take_place
from cluster.drills.ground import CPUS, Ground
from cluster.drills.record import record
from support.faults import within

MORE = """
[limits]
renewals = 2
warning = "30s"

[job]
requeue = true
"""
USERS = tuple(f"u{number:03}" for number in (*range(1, 7), *range(11, 19)))
DRILLS = {}


def drill(stage, fault, *, ends="gone", told="", **options):
    """Register a drill: what is done to a server at a stage, what is to come of it, what the user must be told."""

    def register(act):
        DRILLS[act.__name__] = (act, stage, fault, ends, told, options)
        return act

    return register


@drill("running", "job cancelled by an admin", told="cancelled")
def cancelled_while_running(ground, seat):
    on_head("scancel", *jobs_of(seat.user))
    return 30


@drill("waiting", "job cancelled by an admin", partition="gpu-shared", gpus=1, told="cancelled")
def cancelled_while_waiting(ground, seat):
    on_head("scancel", *jobs_of(seat.user))
    return 30


@drill("waiting", "job held by an admin, then released", ends="ready", partition="gpu-shared", cpus=8)
def held(ground, seat):
    (job,) = jobs_of(seat.user)
    on_head("scontrol", "hold", job)
    within(20, lambda: "hold" in ground.news(seat.user), lambda: f"not told: {ground.news(seat.user)}")
    seat.during = ground.news(seat.user)
    ground.free(CPUS)
    on_head("scontrol", "release", job)
    return 60


@drill("running", "scontrol suspend, resume after 20 s", ends="ready")
def suspended(ground, seat):
    (job,) = jobs_of(seat.user)
    on_head("scontrol", "suspend", job)
    time.sleep(20)
    # It has not ended, so nobody may have given it up.
    assert ground.server(seat.user)["ready"]
    assert jobs_of(seat.user) == [job]
    on_head("scontrol", "resume", job)
    return 30


@drill("running", "scontrol requeue", ends="ready")
def requeued(ground, seat):
    (job,) = jobs_of(seat.user)
    on_head("scontrol", "requeue", job)
    within(30, lambda: "pending" in ground.jobs(seat.user), "the job was not requeued")
    # Slurm leaves it waiting for two minutes.
    on_head("scontrol", "update", f"jobid={job}", "starttime=now")
    within(60, lambda: len(ground.facts(seat.user)) == 2, "the server did not start again")
    return 60


@drill("running", "wall time of 1 min reached", walltime="1m", told="wall time")
def out_of_time(ground, seat):
    within(150, lambda: not jobs_of(seat.user), "Slurm does not end it")
    return 30


@drill("running", "wall time of 1 min reached, to be renewed", ends="ready", walltime="1m", renewals=1)
def renewed(ground, seat):
    within(150, lambda: len(ground.facts(seat.user)) == 2, "no second job has begun")
    return 60


@drill("running", "memory limit hit", told="memory")
def out_of_memory(ground, seat):
    ground.order(f"eat-{seat.user}", "300")
    return 30


@drill("starting", "server program exits at once", told="exit code 3.*told to end at once")
def exits_at_once(ground, seat):
    ground.order(f"exit-{seat.user}", "3")
    # It may be so fast that the answer has it already.
    ground.start(seat.user, may=(201, 202, 500))
    return 40


@drill("running", "server program exits", told="exit code 5.*told to end with 5")
def exits_later(ground, seat):
    ground.order(f"quit-{seat.user}", "5")
    return 30


@drill("starting", "home is full", partition="debug", interface="lab", memory="1G", told="No space left|is full")
def home_full(ground, seat):
    return _start_where_home_is("full", ground, seat)


@drill("starting", "home is read-only", partition="debug", interface="lab", memory="1G", told="Read-only")
def home_read_only(ground, seat):
    return _start_where_home_is("read-only", ground, seat)


def _start_where_home_is(how, ground, seat):
    undone = contextlib.ExitStack()
    undone.enter_context(ground.lab.home_is("n1", seat.user, how))
    seat.undo = undone.close
    ground.start(seat.user, **seat.options)
    return 60


@pytest.fixture(scope="module")
def ground(lab, tmp_path_factory):
    with Ground(lab, tmp_path_factory.mktemp("drills-single"), "slurm", USERS, more=MORE) as ground:
        yield ground


@pytest.fixture(scope="module")
def running_drills(ground, request):
    """Those that were selected, all at once."""
    names = {item.callspec.params["name"] for item in request.session.items if item.module is request.module}
    ground.begin()
    with ThreadPoolExecutor(len(DRILLS)) as pool:
        yield {
            name: pool.submit(_run, ground, user, name)
            for name, user in zip(DRILLS, USERS, strict=False)
            if name in names
        }


def _run(ground, user, name):
    act, stage, fault, ends, told, options = DRILLS[name]
    seat = Seat(ground, user, stage, options=options)
    field = Field([seat])
    if stage != "starting":
        take_place(seat)
    seat.ends = ends
    try:
        limit_s = act(ground, seat)
        field.settle(limit_s)
        field.check()
        record(seat, fault, limit_s, told=told)
    finally:
        seat.undo()


@pytest.mark.parametrize("name", DRILLS)
def test_one_server_in_trouble(name, running_drills):
    running_drills[name].result(300)
