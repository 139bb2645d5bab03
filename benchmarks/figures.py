"""The figures. Each is a function of the lab's folder and a spawner's name, and gives what it found by name."""

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cluster.conftest import nothing_starts

from benchmarks.asked import asked, count_commands
from benchmarks.crowd import crowd
from benchmarks.form import form
from benchmarks.hubs import CALLERS, USERS, Measured, measured
from benchmarks.large_site import large_site
from benchmarks.meters import cpu_s, have_started, memory_kib, until
from benchmarks.rounds import rounds
from benchmarks.starts import start
from benchmarks.steps import WATCH_S, Found, come_and_go, queued, restarted, server, submitted, watched

MORNING_S = 10
# Of six listings one more or less is a sixth.
STILL_S = 60


def burst(lab: Path, spawner: str, servers: int = 30) -> Found:
    """Light servers, all asked for at once: the Hub's processor time for each."""
    with measured(lab, spawner, ["alice", *USERS]) as hub:
        _warm(hub)
        hub.loop()
        before, began = cpu_s(hub.pid), time.monotonic()
        hub.ask_for([(user, "") for user in USERS[:servers]])
        until(partial(have_started, hub, servers), 300)
        took_s = time.monotonic() - began
        time.sleep(3)
        used = [after - was for after, was in zip(cpu_s(hub.pid), before, strict=True)]
        loop = hub.loop()
        return {
            "servers": servers,
            "hub_cpu_s_per_start": round(used[0] / servers, 3),
            "commands_cpu_s_per_start": round(used[1] / servers, 3),
            "wall_s": round(took_s, 1),
            **loop,
        }


def submits(lab: Path, spawner: str, servers: int = 1000) -> Found:
    """Servers asked for by twenty callers, while no job starts."""
    with nothing_starts(), measured(lab, spawner, ["alice", *USERS]) as hub:
        return {"servers": servers, **submitted(hub, servers)}


def waiting(lab: Path, spawner: str, servers: int = 1000) -> Found:
    """Servers that wait in the queue while one more comes and goes every two seconds; then kill -9, and a new start."""
    with nothing_starts(), measured(lab, spawner, ["alice", *USERS]) as hub:
        count_commands(hub)
        found = {"idle": watched(hub, lambda: time.sleep(WATCH_S))}
        light = memory_kib(hub.pid)
        found["submit"] = submitted(hub, servers)
        time.sleep(10)
        found["submit"]["memory_kib_per_server"] = round((memory_kib(hub.pid) - light) / servers, 1)
        for name, act in (("still", lambda: time.sleep(STILL_S)), ("busy", partial(come_and_go, hub))):
            with asked(hub, found, name):
                found[name] = watched(hub, act)
        if spawner == "ours":
            found["restart"] = restarted(hub, servers)
        flat = {f"{when}_{name}": value for when, part in found.items() for name, value in part.items()}
        return {"servers": servers, **flat}


def memory(lab: Path, spawner: str, servers: int = 500) -> Found:
    """What each server that waits adds to the Hub's memory; of JupyterHub alone, its starts do not end."""
    with nothing_starts(), measured(lab, spawner, ["alice", *USERS]) as hub:
        light = memory_kib(hub.pid)
        hub.ask_for([server(number) for number in range(servers)])
        until(lambda: spawner == "jupyterhub" or queued() >= servers, 300, 1)
        time.sleep(10)
        return {"servers": servers, "kib_per_server": round((memory_kib(hub.pid) - light) / servers, 1)}


def running(lab: Path, spawner: str, servers: int = 50) -> Found:
    """Kill -9 of a Hub with light servers that run, and a new start: until it answers and knows them all."""
    with measured(lab, spawner, ["alice", *USERS]) as hub:
        hub.mark()
        for first in range(0, servers, CALLERS):
            some = USERS[first : min(first + CALLERS, servers)]
            hub.ask_for([(user, "") for user in some])
            until(partial(have_started, hub, first + len(some)), 300)
        time.sleep(3)
        hub.hub.kill()
        began = time.monotonic()
        hub.hub.start()
        answers_s = time.monotonic() - began
        until(lambda: hub.ready() >= servers, 120)
        used = cpu_s(hub.pid)[0]
        loop = hub.loop()
        return {
            "servers": servers,
            "api_after_s": round(answers_s, 1),
            "all_ready_after_s": round(time.monotonic() - began, 1),
            "hub_cpu_s": round(used, 2),
            **loop,
        }


def morning(lab: Path, spawner: str, servers: int = 200) -> Found:
    """Servers asked for evenly within ten seconds, two for each user, while no job starts: until all are submitted."""
    with nothing_starts(), measured(lab, spawner, ["alice", *USERS]) as hub:
        idle = watched(hub, lambda: time.sleep(WATCH_S))
        hub.mark()
        began = time.monotonic()
        arrival = watched(hub, partial(_arrive, hub, servers))
        return {
            "servers": servers,
            "asked_within_s": MORNING_S,
            "all_submitted_s": round(time.monotonic() - began, 1),
            "failed": hub.logged("failed to start"),
            "idle_p99_ms": idle["p99_ms"],
            **arrival,
        }


def _arrive(hub: Measured, servers: int) -> None:
    began = time.monotonic()
    with ThreadPoolExecutor(CALLERS) as pool:
        asked = []
        for number in range(servers):
            time.sleep(max(0.0, began + number * MORNING_S / servers - time.monotonic()))
            asked.append(pool.submit(hub.ask_for, [server(number)]))
        for one in asked:
            one.result()
    until(lambda: queued() >= servers, 300, 0.2)


def _warm(hub: Measured) -> None:
    """One server first: what is read once is not a burst's."""
    hub.mark()
    hub.ask_for([("alice", "")])
    until(partial(have_started, hub, 1), 120)
    hub.mark()


FIGURES = {
    "burst": burst,
    "waiting": waiting,
    "running": running,
    "crowd": crowd,
    "start": start,
    "submits": submits,
    "memory": memory,
    "morning": morning,
    "rounds": rounds,
    "form": form,
    "large-site": large_site,
}
"""By the names that `make bench ARGS=…` takes."""
