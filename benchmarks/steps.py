"""What several figures do: ask for servers, watch the Hub meanwhile, let one come and go, kill the Hub and start it."""

import time
from collections.abc import Callable
from typing import Any

from cluster.conftest import on_head
from support.hub import server_path

from benchmarks.hubs import USERS, Measured
from benchmarks.meters import Probe, cpu_s, until

WATCH_S = 20
Found = dict[str, Any]


def server(number: int) -> tuple[str, str]:
    """User and name of the server with this number."""
    return USERS[number % len(USERS)], f"s{number // len(USERS)}"


def queued() -> int:
    """How many jobs the scheduler has, of all users."""
    return len(on_head("squeue", "--noheader", "--format=%i").split())


def watched(hub: Measured, act: Callable[[], object]) -> Found:
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


def come_and_go(hub: Measured) -> None:
    """One more server comes and goes every two seconds."""
    until_ = time.monotonic() + WATCH_S
    while time.monotonic() < until_:
        began = time.monotonic()
        hub.hub.api("POST", server_path("alice", "guest"))
        hub.hub.api("DELETE", server_path("alice", "guest"))
        until(lambda: "guest" not in hub.hub.servers("alice"), 60, 0.3)
        time.sleep(max(0, began + 2 - time.monotonic()))


def submitted(hub: Measured, servers: int, limit_s: float = 300) -> Found:
    """Ask for so many servers by twenty callers, until their jobs are in the queue."""
    there, before, began = queued(), cpu_s(hub.pid), time.monotonic()
    hub.ask_for([server(number) for number in range(servers)])
    until(lambda: queued() - there >= servers, limit_s, 1)
    took_s = time.monotonic() - began
    used = [after - was for after, was in zip(cpu_s(hub.pid), before, strict=True)]
    return {"wall_s": round(took_s, 1), "hub_cpu_s": round(used[0], 1), "commands_cpu_s": round(used[1], 1)}


def restarted(hub: Measured, servers: int) -> Found:
    """Kill -9 and a new start: until the API answers, and until all these servers are taken up again."""
    hub.hub.kill()
    hub.mark()
    listings, began = hub.listings(), time.monotonic()
    # JupyterHub alone reads ten thousand servers for 40 s, on a busy machine for minutes.
    hub.hub.start(limit_s=900)
    answers_s = time.monotonic() - began
    taken_up = watched(hub, lambda: until(lambda: hub.logged("taken up again") >= servers, 900))
    return {
        "api_after_s": round(answers_s, 1),
        "all_after_s": round(time.monotonic() - began, 1),
        "listings": hub.listings() - listings,
        **taken_up,
    }
