"""The Hub's own record of jobs fails: its file is lost or an old one, or there is no room to write it."""

import contextlib
import shutil
import subprocess

import pytest
from cluster.drills.field import Field, Seat, seats, take_place
from cluster.drills.ground import Ground
from cluster.drills.record import record
from support.faults import within

USERS = tuple(f"u{number:03}" for number in range(21, 29))
REFUSED = "The Hub can't write its record of jobs at the moment, so it submitted no job"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A file system of its own for the ledger, as small as it may be."""
    folder = tmp_path_factory.mktemp("small")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture(scope="module")
def ground(lab, tmp_path_factory, small):
    extra = f'c.HPCSpawner.ledger_url = "sqlite:///{small}/hpcspawner.sqlite"\n'
    with Ground(lab, tmp_path_factory.mktemp("drills-ledger"), "slurm", USERS, extra=extra) as ground:
        yield ground


@pytest.fixture(autouse=True)
def cleared(ground):
    yield
    ground.clear()


@contextlib.contextmanager
def full(folder):
    """No byte more goes into this file system."""
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"x" * 512):
                pass
        yield
    finally:
        filler.unlink()


def note(field, fault, limit_s):
    field.check()
    for seat in field:
        record(seat, fault, limit_s)


@pytest.mark.parametrize(
    ("fault", "backup"),
    [
        pytest.param("ledger gone when the Hub starts", False, id="gone"),
        pytest.param("ledger from an old backup when the Hub starts", True, id="backup"),
    ],
)
def test_the_ledger_is_lost_and_everybody_keeps_what_they_have(ground, small, fault, backup):
    file, copy = small / "hpcspawner.sqlite", ground.hub.folder / "backup.sqlite"
    shutil.copy(file, copy)
    field = Field(seats(ground, "waiting", "starting", "running"))
    # Its launcher has traded its ticket and its server does not listen yet, so none can reach it.
    (starting,) = field.at("starting")
    starting.ends = "gone"
    field.take_places()
    before = {seat.user: ground.jobs(seat.user) for seat in field}
    ground.hub.kill()
    file.unlink()
    if backup:
        shutil.copy(copy, file)
    ground.hub.start()
    within(30, lambda: all(ground.server(seat.user) for seat in field), ground.log)
    # The grace of a job that the ledger does not know is over.
    within(30, lambda: "which was made on" in ground.log(), ground.log)
    assert {seat.user: ground.jobs(seat.user) for seat in field} == before
    field.note_what_is_seen()
    field.release()
    field.settle(60)
    assert "is cancelled" not in ground.log()
    note(field, fault, 60)


def test_there_is_no_room_for_the_ledger(ground, small):
    running, stopping, late = [
        Seat(ground, user, stage, ends)
        for user, stage, ends in zip(
            USERS, ("running", "stopping", "asked for meanwhile"), ("ready", "gone", "ready"), strict=False
        )
    ]
    field = Field([running, stopping, late])
    ground.begin()
    for seat in (running, stopping):
        take_place(seat)
    with full(small):
        ground.start(late.user, may=(201, 202, 500, 503))
        within(30, lambda: REFUSED in ground.page(late.user), lambda: f"{ground.page(late.user)}\n{ground.log()}")
        ground.release(f"cancel-before-{stopping.user}")
        within(30, lambda: ground.jobs(stopping.user) == "none", "a full disk keeps a job from being cancelled")
        assert ground.whoami(running.user)
        assert ground.server(running.user)["ready"]
        assert ground.jobs(late.user) == "none"
        field.note_what_is_seen()
    ground.start(late.user)
    field.release()
    field.settle(60)
    note(field, "no room left for the ledger", 60)
    # What could not be written while there was no room is written now.
    ground.hub.kill()
    ground.hub.start()
    field.settle(40)
    field.check()
