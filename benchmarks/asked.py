"""What a Hub asks its scheduler while something happens: its commands, and the calls that the scheduler has served."""

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator

from cluster.conftest import on_head

from benchmarks.hubs import Measured
from benchmarks.steps import Found

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "sacct", "sacctmgr")
COUNTED = """#!/bin/sh
echo >>{folder}/seen/{name}
{listings}
exec /usr/bin/{name} "$@"
"""
# What the nodes' daemons send, and what asks for these numbers.
NOT_THE_HUB = re.compile(r"MESSAGE_|REQUEST_(STATS_INFO|COMPLETE_BATCH_SCRIPT|STEP_COMPLETE|PING)")
RPC = re.compile(r"^\t(\w+)\s+\(\s*\d+\) count:(\d+)\s+ave_time:\d+\s+total_time:(\d+)$", re.MULTILINE)


def count_commands(hub: Measured) -> None:
    """As `hubs` counts squeue, but every command."""
    for name in COMMANDS:
        seen = hub.folder / "seen" / name
        seen.touch()
        seen.chmod(0o666)
        listings = f"echo >>{hub.folder}/seen/listings" if name == "squeue" else ""
        path = hub.folder / "bin" / name
        path.write_text(COUNTED.format(folder=hub.folder, name=name, listings=listings))
        path.chmod(0o755)


def _commands(hub: Measured) -> dict[str, int]:
    return {name: (hub.folder / "seen" / name).stat().st_size for name in COMMANDS}


@contextlib.contextmanager
def asked(hub: Measured, found: dict[str, Found], name: str) -> Iterator[None]:
    """Adds the Hub's commands to what was found, and what the scheduler did for them by its own count."""
    commands, rpcs, began = _commands(hub), _rpcs(), time.monotonic()
    yield
    took_s = time.monotonic() - began
    ran = {key: count - commands[key] for key, count in _commands(hub).items() if count > commands[key]}
    served = [
        (key, count - rpcs.get(key, (0, 0))[0], us - rpcs.get(key, (0, 0))[1]) for key, (count, us) in _rpcs().items()
    ]
    counted = [one for one in served if one[1] and not NOT_THE_HUB.match(one[0])]
    found[name] |= {
        "commands_per_s": round(sum(ran.values()) / took_s, 2),
        "rpcs_per_s": round(sum(count for _, count, _ in counted) / took_s, 2),
        "rpc_ms_per_s": round(sum(us for *_, us in counted) / 1000 / took_s, 2),
        "commands": [f"{key} {count}" for key, count in ran.items()],
        "rpcs": [f"{key} {count}, {us / 1000 / count:.1f} ms each" for key, count, us in counted],
    }
    # Beside the line in the end, which comes after half an hour if nothing fails.
    print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)


def _rpcs() -> dict[str, tuple[int, int]]:
    """Calls that the scheduler has served, and the microseconds that they took, by type and by user."""
    text = on_head("sdiag").partition("statistics by message type")[2].partition("statistics by user")[0]
    return {name: (int(count), int(total)) for name, count, total in RPC.findall(text)}
