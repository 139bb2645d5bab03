"""The figures. Each is a function of the lab's folder and a spawner's name, and gives what it found by name."""

import statistics
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from cluster.conftest import drained, nothing_starts, on_head
from support.hub import server_path

from benchmarks.form import form
from benchmarks.hubs import Measured, measured
from benchmarks.meters import Probe, cpu_s, until
from benchmarks.rounds import rounds

USERS = [f"u{number:03}" for number in range(1, 101)]
CALLERS = 20
WATCH_S = 20
Found = dict[str, Any]


def burst(lab: Path, spawner: str, servers: int = 30) -> Found:
    """Light servers, all asked for at once: the Hub's processor time for each."""
    with measured(lab, spawner, ["alice", *USERS]) as hub:
        _warm(hub)
        hub.loop()
        before, began = cpu_s(hub.pid), time.monotonic()
        _ask_for(hub, [(user, "") for user in USERS[:servers]])
        until(partial(_have_started, hub, servers), 300)
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
        return {"servers": servers, **_submitted(hub, servers)}


def waiting(lab: Path, spawner: str, servers: int = 1000) -> Found:
    """Servers that wait in the queue while one more comes and goes every two seconds; then kill -9, and a new start."""
    with nothing_starts(), measured(lab, spawner, ["alice", *USERS]) as hub:
        idle = _watched(hub, lambda: time.sleep(WATCH_S))
        submitted = _submitted(hub, servers)
        time.sleep(10)
        still = _watched(hub, lambda: time.sleep(2 * WATCH_S))
        busy = _watched(hub, partial(_come_and_go, hub))
        restarted = _restarted(hub, servers) if spawner == "ours" else {}
        found = {"idle": idle, "still": still, "busy": busy, "restart": restarted, "submit": submitted}
        flat = {f"{when}_{name}": value for when, part in found.items() for name, value in part.items()}
        return {"servers": servers, **flat}


def running(lab: Path, spawner: str, servers: int = 50) -> Found:
    """Kill -9 of a Hub with light servers that run, and a new start: until it answers and knows them all."""
    with measured(lab, spawner, ["alice", *USERS]) as hub:
        hub.mark()
        for first in range(0, servers, CALLERS):
            some = USERS[first : min(first + CALLERS, servers)]
            _ask_for(hub, [(user, "") for user in some])
            until(partial(_have_started, hub, first + len(some)), 300)
        time.sleep(3)
        hub.hub.kill()
        began = time.monotonic()
        hub.hub.start()
        answers_s = time.monotonic() - began
        until(lambda: _ready(hub) >= servers, 120)
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
    if spawner != "ours":
        return {}
    ours, bare = [], []
    with measured(lab, spawner, ["alice", *USERS]) as hub, drained("n2", "n3"):
        _bare_start(lab, hub)
        for number in range(pairs):
            bare.append(_bare_start(lab, hub))
            ours.append(_hub_start(hub, USERS[number]))
    return {
        "pairs": pairs,
        "ratio": round(statistics.median(ours) / statistics.median(bare), 2),
        "ours_s": [round(seconds, 2) for seconds in ours],
        "bare_s": [round(seconds, 2) for seconds in bare],
    }


def _warm(hub: Measured) -> None:
    """One server first: what is read once is not a burst's."""
    hub.mark()
    _ask_for(hub, [("alice", "")])
    until(partial(_have_started, hub, 1), 120)
    hub.mark()


def _ask_for(hub: Measured, servers: list[tuple[str, str]]) -> None:
    with ThreadPoolExecutor(CALLERS) as pool:
        for answer in pool.map(lambda server: hub.hub.api("POST", server_path(*server)), servers):
            if answer.status_code not in (201, 202):
                raise RuntimeError(f"{answer.status_code} {answer.text}")


def _submitted(hub: Measured, servers: int) -> Found:
    wanted = [(USERS[number % len(USERS)], f"s{number // len(USERS)}") for number in range(servers)]
    before, began = cpu_s(hub.pid), time.monotonic()
    _ask_for(hub, wanted)
    until(lambda: _queued() >= servers, 300, 1)
    took_s = time.monotonic() - began
    used = [after - was for after, was in zip(cpu_s(hub.pid), before, strict=True)]
    return {"wall_s": round(took_s, 1), "hub_cpu_s": round(used[0], 1), "commands_cpu_s": round(used[1], 1)}


def _have_started(hub: Measured, servers: int) -> bool:
    return hub.logged("seconds to start") >= servers


def _queued() -> int:
    return len(on_head("squeue", "--noheader", "--format=%i").split())


def _ready(hub: Measured) -> int:
    users = hub.hub.api("GET", "/users?state=ready").json()
    return sum(server["ready"] for user in users for server in user["servers"].values())


def _watched(hub: Measured, act: Callable[[], object]) -> Found:
    """The API's answers, the loop's steps and the Hub's processor time while something happens."""
    hub.loop()
    before, began = cpu_s(hub.pid)[0], time.monotonic()
    with Probe(hub) as probe:
        act()
    share = (cpu_s(hub.pid)[0] - before) / (time.monotonic() - began)
    loop = hub.loop()
    return {
        "p50_ms": probe.percentile_ms(0.5),
        "p99_ms": probe.percentile_ms(0.99),
        "cpu_percent": round(100 * share),
        **loop,
    }


def _come_and_go(hub: Measured) -> None:
    """One more server comes and goes every two seconds."""
    until_ = time.monotonic() + WATCH_S
    while time.monotonic() < until_:
        began = time.monotonic()
        hub.hub.api("POST", server_path("alice", "guest"))
        hub.hub.api("DELETE", server_path("alice", "guest"))
        until(lambda: "guest" not in hub.hub.servers("alice"), 60, 0.3)
        time.sleep(max(0, began + 2 - time.monotonic()))


def _restarted(hub: Measured, servers: int) -> Found:
    hub.hub.kill()
    hub.mark()
    listings, began = hub.listings(), time.monotonic()
    hub.hub.start()
    answers_s = time.monotonic() - began
    watched = _watched(hub, lambda: until(lambda: hub.logged("taken up again") >= servers, 400))
    return {
        "api_after_s": round(answers_s, 1),
        "all_after_s": round(time.monotonic() - began, 1),
        "listings": hub.listings() - listings,
        **watched,
    }


def _hub_start(hub: Measured, user: str) -> float:
    hub.mark()
    began = time.monotonic()
    hub.hub.api("POST", server_path(user), json={"interface": "lab", "memory": "1G"})
    until(partial(_have_started, hub, 1), 120, 0.01)
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
    "start": start,
    "submits": submits,
    "rounds": rounds,
    "form": form,
}
"""By the names that `make bench ARGS=…` takes."""
