"""A field of users, each at another stage of a server's life, so that one fault meets them all."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from cluster.drills.ground import CPUS, GPUS, WANTS_GPUS, Ground, queue
from support.faults import within

EARLY = "submit under way, job made before the Hub is back"
LATE = "submit under way, job made after the Hub is back"
ALIVE = ("waiting", "starting", "running", "stopping")
"""The stages at which the job has an id."""
STAGES = ("before the submit", EARLY, LATE, "job made, its id not told", *ALIVE)

# What holds a server back at its stage; the seat is taken when the Hub has come so far.
_ORDERS = {
    "before the submit": "submit-never",
    EARLY: "submit-before",
    LATE: "submit-before",
    "job made, its id not told": "submit-after",
    "starting": "serve-after",
    "stopping": "cancel-before",
}


@dataclass(eq=False)
class Seat:
    """One user at one stage, and what is to come of it: a server that is `ready`, or one that is `gone`."""

    ground: Ground
    user: str
    stage: str
    ends: str = "ready"
    options: dict = field(default_factory=dict)
    during: str = ""
    seconds: float = 0.0
    told: dict = field(default_factory=dict)
    undo: Callable[[], None] = lambda: None

    def __str__(self):
        return f"{self.user} ({self.ground.scheduler}, {self.stage})"


def seats(ground, *stages, **options):
    """A seat for each of these stages, or for all there are."""
    found = []
    for user, stage in zip(ground.users, STAGES, strict=False):
        wanted = {"partition": "gpu-shared", **WANTS_GPUS[ground.scheduler]} if stage == "waiting" else {}
        ends = "gone" if stage == "stopping" else "ready"
        if not stages or stage in stages:
            found.append(Seat(ground, user, stage, ends, {**wanted, **options}))
    return found


class Field:
    """Seats of one Hub or of several that meet the same fault."""

    def __init__(self, taken):
        self.seats = taken
        self.grounds = list(dict.fromkeys(seat.ground for seat in taken))

    def __iter__(self):
        return iter(self.seats)

    def at(self, stage):
        """The seats at a stage."""
        return [seat for seat in self.seats if seat.stage == stage]

    # Into position.

    def take_places(self):
        """Bring every seat to its stage."""
        for ground in self.grounds:
            ground.begin()
        self._each(take_place)
        return self

    # Out of it.

    def release(self, *stages):
        """Let these seats go on, or all."""
        for seat in self.seats:
            if not stages or seat.stage in stages:
                seat.ground.release(*(f"{order}-{seat.user}" for order in _ORDERS.values()))
                if seat.stage == "waiting":
                    seat.ground.free(_wanted(seat))

    def note_what_is_seen(self, *stages):
        """Read what each user at these stages sees now, or everybody."""
        self._each(lambda seat: _note(seat) if not stages or seat.stage in stages else None)

    def settle(self, limit_s, *taken):
        """Wait, without any visit, until these seats (all) have what they are to have; note the seconds that took."""
        began = time.monotonic()
        waiting = list(taken or self.seats)
        while waiting and time.monotonic() - began < limit_s:
            for seat, wrong in wrong_with(*waiting).items():
                if not wrong:
                    seat.seconds = time.monotonic() - began
                    waiting.remove(seat)
            time.sleep(0.3)
        self._right(wrong_with(*waiting), f"after {limit_s} s: ")

    def check(self):
        """All that has to hold in the end, for everybody at once."""
        self._right(wrong_with(*self.seats), "in the end: ")
        for seat in self.seats:
            seat.ground.never_two_at_once(seat.user)

    def _right(self, found, when):
        wrong = [f"{seat}: {words}" for seat, words in found.items() if words]
        logs = [f"--- {ground.scheduler}\n{ground.log()}" for ground in self.grounds]
        assert not wrong, when + "\n".join([*wrong, *logs])

    def _each(self, act):
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(act, self.seats))


def take_place(seat):
    """Bring one seat to its stage."""
    ground, user = seat.ground, seat.user
    if seat.stage == "waiting":
        ground.fill(_wanted(seat))
    if seat.stage in _ORDERS:
        ground.order(f"{_ORDERS[seat.stage]}-{user}")
    ground.start(user, **seat.options)
    within(60, lambda: _is_there(seat), lambda: f"{seat} never got there:\n{ground.log()}")
    if seat.stage == "stopping":
        ground.stop(user)
        within(20, lambda: ground.calls("cancel", user), f"{seat} is not being stopped")


def _is_there(seat):
    ground, user = seat.ground, seat.user
    jobs = queue().get(user, [])
    match seat.stage:
        case "waiting":
            return [state for _, state in jobs] == ["PENDING"] and f"job {jobs[0][0]} " in ground.log()
        case "starting":
            return ground.waits(user)
        case "running" | "stopping":
            server = ground.server(user)
            return server and server["ready"] and ground.whoami(user)
        case "job made, its id not told":
            return len(jobs) == 1
    return ground.calls("submit", user)


def _note(seat):
    seat.during = seat.ground.sees(seat.user)


def _wanted(seat):
    return GPUS if set(seat.options) & {"gpus", "features"} else CPUS


def wrong_with(*taken):
    """Why these seats do not have yet what they are to have; empty for those that have."""
    jobs = queue()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda seat: _wrong_with(seat, jobs.get(seat.user, [])), taken))
    return dict(zip(taken, found, strict=True))


def _wrong_with(seat, jobs):
    ground, user = seat.ground, seat.user
    server = ground.server(user)
    state = server and {name: server[name] for name in ("ready", "pending")}
    if seat.ends == "gone":
        if jobs or server is not None:
            return f"jobs {jobs}, server {state}"
        token = ground.token(user)
        return "" if token in ("none", "revoked") else f"its token is {token}"
    if len(jobs) != 1 or server is None or not server["ready"]:
        return f"jobs {jobs}, server {state}"
    answer = ground.whoami(user)
    if answer is None or answer["job"] != jobs[0][0]:
        return f"job {jobs[0][0]}, but the server says {answer}"
    return "" if answer["token_ok"] else "the server's token is not valid"
