"""What slurmformspawner's form costs its Hub: `slurm_form.py FOLDER ROUNDS`, in its own environment.

PATH has commands that print what Slurm would of a cluster of that size and leave a byte in FOLDER/asked for each call.
A line of JSON is printed.
"""

import json
import statistics
import sys
import time
import types
from pathlib import Path
from typing import Any

from slurmformspawner import SlurmFormSpawner
from slurmformspawner.slurm import SlurmAPI
from traitlets.config import Config

PRESETS = 6


def configured() -> Config:
    """As its README.md has it, with a choice of partitions, which it locks as it comes."""
    config = Config()
    config.SbatchForm.partition = {"lock": False}
    config.SlurmFormSpawner.profile_args = {
        f"s{one}": {"name": f"Preset {one}", "params": {"partition": f"p{one}", "runtime": 2}} for one in range(PRESETS)
    }
    return config


def spawners(users: int) -> list[SlurmFormSpawner]:
    """One for each user, as a Hub has them: made once, while it draws the form at each visit."""
    config = configured()
    return [
        SlurmFormSpawner(
            config=config,
            user=types.SimpleNamespace(name=f"u{one}", settings={}),
            orm_spawner=types.SimpleNamespace(name="", server=None, user_options={}),
        )
        for one in range(users)
    ]


def drawn(prefix: str, visitors: list[SlurmFormSpawner], asked: Path) -> dict[str, Any]:
    """The form of one user after the other."""
    cpu, wall, before = [], [], calls(asked)
    for visitor in visitors:
        began, used = time.monotonic(), time.process_time()
        text = visitor.options_form
        cpu.append(1000 * (time.process_time() - used))
        wall.append(1000 * (time.monotonic() - began))
    return {
        f"{prefix}_p50_cpu_ms": round(statistics.median(cpu), 1),
        f"{prefix}_p99_cpu_ms": round(statistics.quantiles(cpu, n=100)[98], 1),
        f"{prefix}_p50_ms": round(statistics.median(wall), 1),
        f"{prefix}_p99_ms": round(statistics.quantiles(wall, n=100)[98], 1),
        f"{prefix}_kib": len(text.encode()) // 1024,
        f"{prefix}_commands": round((calls(asked) - before) / len(visitors), 2),
    }


def calls(asked: Path) -> int:
    """How many commands have run."""
    return asked.stat().st_size


def main(folder: Path, rounds: int) -> None:
    """The facts of all nodes, which are kept for five minutes; each user's first form in that time, and the next."""
    asked = folder / "asked"
    api = SlurmAPI.instance(configured())
    began, used = time.monotonic(), time.thread_time()
    # It waits for the command on the Hub's loop, so all of this is one pause.
    nodes = len(api.get_node_info()["cpu"])
    found = {
        "nodes": nodes,
        "facts_pause_ms": round(1000 * (time.monotonic() - began), 1),
        "facts_pause_cpu_ms": round(1000 * (time.thread_time() - used), 1),
    }
    api.get_reservations()
    # Accounts are kept of so many users.
    visitors = spawners(min(rounds, api.acct_cache_size))
    print(json.dumps(found | drawn("form", visitors, asked) | drawn("again", visitors, asked)))


main(Path(sys.argv[1]), int(sys.argv[2]))
