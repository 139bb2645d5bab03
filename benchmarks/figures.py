"""The figures. Each is a function of the lab's folder and a spawner's name, and gives what it found by name."""

import statistics
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from cluster.conftest import drained, nothing_starts, on_head
from support.hub import server_path

from benchmarks.crowd import crowd
from benchmarks.emulated import emulated
from benchmarks.form import form
from benchmarks.hubs import CALLERS, Measured, measured
from benchmarks.meters import cpu_s, memory_kib, until
from benchmarks.rounds import rounds
from benchmarks.steps import (
    USERS,
    WATCH_S,
    Found,
    come_and_go,
    have_started,
    queued,
    restarted,
    server,
    submitted,
    watched,
)

MORNING_S = 10


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
        idle = watched(hub, lambda: time.sleep(WATCH_S))
        light = memory_kib(hub.pid)
        submit = submitted(hub, servers)
        time.sleep(10)
        submit["memory_kib_per_server"] = round((memory_kib(hub.pid) - light) / servers, 1)
        commands, began = hub.listings(), time.monotonic()
        still = watched(hub, lambda: time.sleep(2 * WATCH_S))
        still["commands_per_s"] = round((hub.listings() - commands) / (time.monotonic() - began), 2)
        busy = watched(hub, partial(come_and_go, hub))
        restart = restarted(hub, servers) if spawner == "ours" else {}
        found = {"idle": idle, "still": still, "busy": busy, "restart": restart, "submit": submit}
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


def start(lab: Path, spawner: str, pairs: int = 5) -> Found:
    """From the click to the open JupyterLab, and from a bare `sbatch` of `jupyter lab` to its answer, in turn."""
    by_hub, bare = [], []
    with measured(lab, spawner, ["alice", *USERS], server="jupyterhub-singleuser") as hub, drained("n2", "n3"):
        _bare_start(lab, hub)
        for number in range(pairs):
            bare.append(_bare_start(lab, hub))
            by_hub.append(_hub_start(hub, USERS[number]))
        phases = hub.phases() if spawner == "ours" else {}
    return {
        "pairs": pairs,
        "ratio": round(statistics.median(by_hub) / statistics.median(bare), 2),
        "median_s": round(statistics.median(by_hub), 2),
        "bare_median_s": round(statistics.median(bare), 2),
        **{f"{phase}_s": round(seconds / pairs, 2) for phase, seconds in phases.items()},
        "by_hub_s": [round(seconds, 2) for seconds in by_hub],
        "bare_s": [round(seconds, 2) for seconds in bare],
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


def _hub_start(hub: Measured, user: str) -> float:
    hub.mark()
    began = time.monotonic()
    hub.hub.api("POST", server_path(user), json={"interface": "lab", "memory": "1G"})
    until(partial(have_started, hub, 1), 120, 0.01)
    took_s = time.monotonic() - began
    hub.hub.stop_server(user)
    return took_s


def _bare_start(lab: Path, hub: Measured) -> float:
    """As somebody without a Hub would: a job, and a look whether it answers."""
    port = 30000 + time.monotonic_ns() % 20000
    command = f"exec {lab}/env/bin/jupyter-lab --no-browser --ip=0.0.0.0 --port={port} --ServerApp.token= 2>/dev/null"
    size = ("--mem=1G", "--time=10", "--chdir=/home/alice", "--output=/dev/null", "--parsable")
    began = time.monotonic()
    job = on_head("sbatch", *size, f"--wrap={command}", user="alice").strip()
    until(lambda: _answers(port), 120, 0.02)
    took_s = time.monotonic() - began
    on_head("scancel", job)
    until(lambda: not on_head("squeue", "--noheader", "--user=alice").strip(), 60)
    return took_s


def _answers(port: int) -> bool:
    argv = ["curl", "-sf", "--noproxy", "*", "-m", "5", "-o", "/dev/null", f"http://10.77.0.11:{port}/api"]
    return subprocess.run(argv, check=False).returncode == 0


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
    "emulated": emulated,
}
"""By the names that `make bench ARGS=…` takes."""
