"""A field of users, each at another stage of a server's life, so that one fault meets them all."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cluster.conftest import jobs_of
from cluster.drills.ground import CPUS, GPUS
from support.faults import within


@dataclass
class Seat:
    """One user at one stage, and what is to come of it: a server that is `ready`, or one that is `gone`."""

    user: str
    stage: str
    ends: str = "ready"
    options: dict = field(default_factory=dict)
    during: str = ""
    seconds: float = 0.0
    pids: list = field(default_factory=list)
    undo: Callable[[], None] = lambda: None


def seats(*names):
    """The named seats of the whole field, or all."""
    every = [
        Seat("u011", "before the submit"),
        Seat("u012", "submit under way, job made before the Hub is back"),
        Seat("u018", "submit under way, job made after the Hub is back"),
        Seat("u013", "job made, its id not told"),
        Seat("u014", "waiting", options={"partition": "gpu-shared", "gpus": 1}),
        Seat("u015", "starting"),
        Seat("u016", "running"),
        Seat("u017", "stopping", ends="gone"),
    ]
    return [seat for seat in every if not names or seat.stage in names]


ALIVE = ("waiting", "starting", "running", "stopping")
"""The stages at which the job has an id."""


def _wanted(seat):
    return GPUS if "gpus" in seat.options else CPUS


class Field:
    """Seats on a ground."""

    def __init__(self, ground, taken):
        self.ground, self.seats = ground, taken

    def __iter__(self):
        return iter(self.seats)

    def at(self, stage):
        """The seat at a stage."""
        return next(seat for seat in self.seats if seat.stage == stage)

    # Into position.

    def take_places(self):
        """Bring every seat to its stage."""
        self.ground.begin()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.take_place, self.seats))
        return self

    def take_place(self, seat):
        """Bring one seat to its stage."""
        user, ground = seat.user, self.ground
        verb, arrive = {
            "before the submit": ("submit-never", self._asked),
            "submit under way, job made before the Hub is back": ("submit-before", self._asked),
            "submit under way, job made after the Hub is back": ("submit-before", self._asked),
            "job made, its id not told": ("submit-after", self._has_job),
            "waiting": ("", self._waits),
            "starting": ("serve-after", lambda seat: ground.waits(seat.user)),
            "running": ("", self._ready),
            "stopping": ("cancel-before", self._ready),
        }[seat.stage]
        if seat.stage == "waiting":
            ground.fill(_wanted(seat))
        if verb:
            ground.order(f"{verb}-{user}")
        ground.start(user, **seat.options)
        within(40, lambda: arrive(seat), lambda: f"{user} never got to {seat.stage!r}:\n{ground.log()}")
        if seat.stage == "stopping":
            ground.stop(user)
            cancel = "scancel" if ground.scheduler == "slurm" else "qdel"
            within(20, lambda: ground.calls(cancel, user), f"{user} is not being stopped")

    def _asked(self, seat):
        return self.ground.calls("sbatch" if self.ground.scheduler == "slurm" else "qsub", seat.user)

    def _has_job(self, seat):
        return len(jobs_of(seat.user)) == 1

    def _waits(self, seat):
        waits = f"job {jobs_of(seat.user)[0]} " if jobs_of(seat.user) else "no job yet"
        return "pending" in self.ground.jobs(seat.user) and waits in self.ground.log()

    def _ready(self, seat):
        server = self.ground.server(seat.user)
        return server and server["ready"] and self.ground.whoami(seat.user)

    # Out of it.

    def release(self, *stages):
        """Let these seats go on, or all."""
        for seat in self.seats:
            if not stages or seat.stage in stages:
                verbs = ("submit-never", "submit-before", "submit-after", "serve-after", "cancel-before")
                self.ground.release(*(f"{verb}-{seat.user}" for verb in verbs))
                if seat.stage == "waiting":
                    self.ground.free(_wanted(seat))

    def note_what_is_seen(self):
        """Read what each user sees now."""
        with ThreadPoolExecutor(8) as pool:
            for seat, seen in zip(
                self.seats, pool.map(lambda seat: self.ground.sees(seat.user), self.seats), strict=True
            ):
                seat.during = seen

    def settle(self, limit_s, *taken):
        """Wait, without any visit, until these seats (all) have what they are to have; note the seconds that took."""
        began = time.monotonic()
        open_ones = list(taken or self.seats)
        while open_ones and time.monotonic() - began < limit_s:
            with ThreadPoolExecutor(4) as pool:
                done = list(pool.map(self._is_settled, open_ones))
            for seat, settled in zip(list(open_ones), done, strict=True):
                if settled:
                    seat.seconds = time.monotonic() - began
                    open_ones.remove(seat)
            time.sleep(0.3)
        report = [f"{seat.user} ({seat.stage}): {self.wrong_with(seat)}" for seat in open_ones]
        assert not open_ones, "\n".join([f"after {limit_s} s:", *report, self.ground.log()])

    def _is_settled(self, seat):
        return not self.wrong_with(seat)

    def wrong_with(self, seat):
        """Why this seat does not have yet what it is to have; empty when it has."""
        user, ground = seat.user, self.ground
        jobs, server = jobs_of(user), ground.server(user)
        if seat.ends == "gone":
            if jobs or server is not None:
                return f"jobs {jobs}, server {server}"
            token = ground.token(user)
            return "" if token in ("none", "revoked") else f"its token is {token}"
        if len(jobs) != 1:
            return f"jobs {jobs}, server {server}"
        if server is None or not server["ready"]:
            return f"server {server}"
        answer = ground.whoami(user)
        if answer is None or answer["job"] != jobs[0]:
            return f"job {jobs[0]}, but the server says {answer}"
        return "" if answer["token_ok"] else "the server's token is not valid"

    def check(self):
        """All that has to hold in the end, for everybody at once."""
        wrong = {seat.user: self.wrong_with(seat) for seat in self.seats}
        assert not any(wrong.values()), f"{wrong}\n{self.ground.log()}"
        for seat in self.seats:
            self.ground.never_two_at_once(seat.user)
