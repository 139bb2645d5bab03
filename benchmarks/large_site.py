"""A big site: a thousand nodes that a job fills, thousands of others' jobs, and as many servers of ours that wait.

Runs on a lab of its own (`LAB_NODES=1000 tests/cluster/lab/up`), as `benchmarks/run` makes it.
"""

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from cluster.conftest import on_head

from benchmarks.asked import asked, count_commands
from benchmarks.hubs import USERS, Measured, measured
from benchmarks.meters import have_started, memory_kib, until
from benchmarks.steps import WATCH_S, Found, come_and_go, restarted, submitted, watched

STILL_S = 60
OTHERS = 6000
# One core on each of these nodes is what is let go in the end.
HOLES = 20
CORES = 64
OURS = "compute"
EVERYBODY = "batch"
# As one with a form open has his browser ask, but more often: the Hub itself must ask the scheduler no more for it.
LOOK_EVERY_S = 1


def large_site(lab: Path, spawner: str, servers: int = 10_000) -> Found:
    """Servers that wait on a full cluster: still, with facts, as one comes and goes, after kill -9; some start."""
    if spawner != "ours":
        return {}
    _open("up")
    with measured(lab, spawner, ["alice", *USERS]) as hub, _full():
        count_commands(hub)
        found = {"idle": watched(hub, lambda: time.sleep(WATCH_S))}
        light = memory_kib(hub.pid)
        with asked(hub, found, "submit"):
            found["submit"] = submitted(hub, servers, 3600)
        time.sleep(10)
        memory = round((memory_kib(hub.pid) - light) / servers, 1)
        for name, act in (
            ("still", lambda: time.sleep(STILL_S)),
            ("facts", partial(_look_at_facts, hub, found)),
            ("busy", partial(come_and_go, hub)),
        ):
            with asked(hub, found, name):
                found[name] = watched(hub, act)
        with asked(hub, found, "restart"):
            found["restart"] = restarted(hub, servers)
        found["start"] = _started(hub)
        found["one"] = _by_hand()
        flat = {f"{when}_{key}": value for when, part in found.items() for key, value in part.items()}
        return {"servers": servers, "others": OTHERS, "memory_kib_per_server": memory, **flat}


# ---- the cluster


@contextlib.contextmanager
def _full() -> Iterator[None]:
    """Every core is taken and others' jobs wait; afterwards nothing of that is left, and no job of ours starts."""
    try:
        plain = f"--nodes={HOLES} --nodelist=e[0001-{HOLES:04}] --mem-per-cpu=1000"
        all_nodes = int(on_head("sinfo", "--noheader", f"--partition={EVERYBODY}", "--format=%D"))
        _sleeps(f"--exclusive --nodes={all_nodes - HOLES} --nodelist=e[{HOLES + 1:04}-{all_nodes:04}]")
        _sleeps(f"{plain} --ntasks={HOLES * (CORES - 1)} --ntasks-per-node={CORES - 1}")
        _sleeps(f"{plain} --ntasks={HOLES} --ntasks-per-node=1 --job-name=hole")
        until(lambda: on_head("sinfo", "--noheader", "--format=%C").split("/")[1] == "0", 120, 1)
        # Four at once; most sites have arrays among them, of which a listing shows one line.
        one = f"sbatch --quiet --partition={EVERYBODY} --time=600 --exclusive --chdir=/ --output=/dev/null --wrap=:"
        script = f"seq {OTHERS - 1000} | xargs -P 4 -I@ sh -c '{one} --nodes=$((@ % 8 + 1))'; {one} --array=1-1000"
        on_head("sh", "-c", script, user="bob")
        yield
    finally:
        # Else all that wait would start, on this one machine.
        _open("down")
        on_head("scancel", "--user=bob", check=False)


def _open(state: str) -> None:
    on_head("scontrol", "update", f"partitionname={OURS}", f"state={state}")


def _sleeps(size: str) -> None:
    argv = ["sbatch", f"--partition={EVERYBODY}", "--time=2-0", "--chdir=/", "--output=/dev/null", "--wrap=sleep 2d"]
    on_head(*argv, *size.split(), user="bob")


# ---- what somebody looks at


def _look_at_facts(hub: Measured, found: dict[str, Found]) -> None:
    """As somebody's open form does; the last answer tells what it showed."""
    session = hub.hub.log_in(USERS[0])
    until_ = time.monotonic() + STILL_S
    while time.monotonic() < until_:
        answer = session.get(f"{hub.hub.url}/hub/hpcspawner/facts", timeout=30)
        answer.raise_for_status()
        found["shown"] = answer.json()["partitions"][OURS]
        time.sleep(LOOK_EVERY_S)


def _by_hand() -> dict[str, Any]:
    """What a listing and the facts of all nodes take without a Hub."""
    took = {}
    for name, argv in (
        ("listing", ["squeue", "--all", "--states=all", "--format=%i|%T|%B|%u|%S|%r|%k"]),
        ("nodes", ["scontrol", "--all", "--details", "--oneliner", "show", "node"]),
        ("waiting", ["squeue", "--all", "--noheader", "--states=PENDING", "--format=%i|%P|%Q"]),
    ):
        began = time.monotonic()
        lines = on_head(*argv).count("\n")
        took |= {f"{name}_s": round(time.monotonic() - began, 2), f"{name}_lines": lines}
    return took


# ---- starts


def _started(hub: Measured) -> Found:
    """A core on each of twenty nodes is let go; seconds until servers run there, and from their starts to ready."""
    hub.mark()
    before, released = hub.phases(), time.time()
    on_head("scancel", "--user=bob", "--name=hole")
    watch = watched(hub, lambda: until(partial(have_started, hub, HOLES), 300))
    ready = time.time()
    # One more than there is room for would mean that this is no full cluster.
    rows = on_head("squeue", "--noheader", f"--partition={OURS}", "--states=RUNNING", "--format=%S|%N")
    starts, nodes = zip(*(row.split("|") for row in rows.split()), strict=True)
    first, last = (time.mktime(time.strptime(pick(starts), "%Y-%m-%dT%H:%M:%S")) for pick in (min, max))
    phases = {name: seconds - before.get(name, 0.0) for name, seconds in hub.phases().items()}
    return {
        "servers": len(starts),
        "nodes": len(set(nodes)),
        "scheduler_s": round(last - released, 1),
        "all_ready_after_first_s": round(ready - first, 1),
        "all_ready_after_last_s": round(ready - last, 1),
        **{f"{name}_mean_s": round(seconds / HOLES, 2) for name, seconds in phases.items()},
        **watch,
    }
