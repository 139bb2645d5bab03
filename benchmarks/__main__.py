"""`python -m benchmarks [FIGURE[:SERVERS]…]`, on the lab's head: a line of JSON for each figure, then one table."""

import json
import os
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cluster.conftest import on_head

from benchmarks.figures import FIGURES
from benchmarks.peers import SLURM_PEERS

SPAWNERS = ("ours", *SLURM_PEERS, "moss", "jupyterhub")
# These ask the scheduler for each waiting server twice a second: a thousand would measure the machine.
MOST_OF_PEERS = 100
SETS = {
    "all": [
        *("burst", "morning", "waiting:10", "waiting:100", "waiting:1000", "running", "crowd", "start", "submits"),
        *("memory", "rounds", "form"),
    ],
    "quick": [
        *(
            "burst:5",
            "morning:10",
            "waiting:20",
            "running:5",
            "crowd:20",
            "start:1",
            "submits:20",
            "memory:20",
            "rounds:1000",
        ),
        "form:10",
    ],
}
"""What `all`, which is also what is measured without a word, and `quick` stand for."""


def main() -> None:
    """Measure, one after the other, each with every spawner in turn."""
    lab, rows = Path(os.environ["HPC_LAB"]), []
    spawners = os.environ.get("BENCH_SPAWNERS", " ".join(SPAWNERS)).split()
    where = machine(lab)
    print(json.dumps({"figure": "machine", **where}), flush=True)
    for name, servers in asked_for(sys.argv[1:] or ["all"]):
        for spawner in spawners:
            found = measured(lab, name, spawner, servers)
            if not found:
                continue  # a figure that only one of them has
            line = {"figure": name, "spawner": spawner, "load": round(os.getloadavg()[0], 1), **found}
            print(json.dumps(line), flush=True)
            label = f"{name}:{servers}" if servers else name
            rows += [(label, spawner, key, value) for key, value in found.items() if not isinstance(value, list)]
    for name, value in where.items():
        print(f"{name:16} {value}")
    for row in rows:
        print("{:14} {:16} {:32} {}".format(*map(str, row)))


def asked_for(words: list[str]) -> list[tuple[str, int]]:
    """Figures and how many servers, 0 for each one's own number. Ends the program for a word that is no figure."""
    pairs = []
    for word in [one for given in words for one in SETS.get(given, [given])]:
        name, _, servers = word.partition(":")
        if name not in FIGURES or not re.fullmatch(r"[1-9]\d{0,4}|", servers):
            known = ", ".join([*SETS, *FIGURES])
            sys.exit(f"{word!r} is no figure: write one of {known}, and a number after a colon, as in waiting:100")
        pairs.append((name, int(servers or 0)))
    return pairs


def measured(lab: Path, name: str, spawner: str, servers: int) -> dict[str, Any]:
    """One figure of one spawner."""
    if name == "large-site" and not os.environ.get("LAB_NODES"):
        sys.exit("the figure large-site needs a lab of its own: benchmarks/run large-site")
    if (spawner == "moss" and name != "form") or (spawner == "jupyterhub" and name != "memory"):
        return {}  # the one starts and waits as batchspawner, of which it is one; the other starts nothing
    if spawner in SLURM_PEERS and name in ("waiting", "submits", "memory"):
        servers = min(servers or MOST_OF_PEERS, MOST_OF_PEERS)
    return FIGURES[name](lab, spawner, *([servers] if servers else []))


def machine(lab: Path) -> dict[str, str]:
    """Where all this was measured."""
    peers = [lab / name for name in (*SLURM_PEERS, "moss")]
    model = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processor": f"{os.cpu_count()} cores, {model[1] if model else platform.machine()}",
        "load at first": " ".join(f"{load:.1f}" for load in os.getloadavg()),
        "python": platform.python_version(),
        "jupyterhub": version("jupyterhub"),
        **dict(_first_package(peer) for peer in peers if peer.exists()),
        "slurm": on_head("squeue", "--version").split()[-1],
    }


def _first_package(environment: Path) -> tuple[str, str]:
    """Name and version of what an environment was made for."""
    name, _, number = (environment / ".versions").read_text().split()[0].partition("==")
    return name, number


main()
