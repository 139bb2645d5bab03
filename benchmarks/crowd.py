"""A Hub with a thousand servers that run and more that wait, which one machine can't hold: a scheduler and a node that
stand in for them.

The Hub, its proxy, TLS to the servers and what a launcher says are real; no job runs.
"""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.hubs import USERS, Measured, measured
from benchmarks.meters import Probe, cpu_s, until

NODE = "n1"
AFTER_S = 20
WAITING_SHARE = 5
"""For so many servers that run, one waits."""

# They are run as the user, in a folder that all may write to. The listing's fields stand as `%i` to `%k` are asked for.
SBATCH = """#!/bin/sh
cd {folder} || exit
tag=$(printf '%s\\n' "$@" | sed -n 's/^--comment=//p')
exec 9>lock
flock 9
id=$(($(wc -l <jobs) + 1))
cat >scripts/new
if [ -e full ]; then
    echo "$id|PENDING||$(id -un)|N/A|Resources|$tag" >>jobs
else
    mv scripts/new "scripts/$id"
    echo "$id|RUNNING|{node}|$(id -un)|$(date +%s)|None|$tag" >>jobs
fi
chmod a+rw jobs lock 2>/dev/null
echo "$id"
"""
SQUEUE = """#!/bin/sh
cd {folder} || exit
echo >>seen/listings
for word; do case $word in --format=*) mark=${{word#--format=}} mark=${{mark%%%*}};; esac; done
printf '%s\\n' 'JOBID|STATE|EXEC_HOST|USER|START_TIME|REASON|COMMENT' | cat - jobs |
    sed "s/|/$mark/g; s/^/$mark/; s/\\$/$mark/"
"""


def crowd(lab: Path, spawner: str, servers: int = 1000) -> dict[str, Any]:
    """Kill -9 of a Hub with servers that run and a fifth as many that wait, and a new start until it knows them all."""
    if spawner != "ours":
        return {}
    more = max(1, servers // WAITING_SHARE)
    with measured(lab, spawner, ["alice", *USERS]) as hub, _stand_ins(lab, hub.folder):
        began = time.monotonic()
        names = [(USERS[number % len(USERS)], f"s{number // len(USERS)}") for number in range(servers + more)]
        hub.ask_for(names[:servers])
        until(lambda: hub.ready() >= servers, 600, 2)
        started_s = time.monotonic() - began
        (hub.folder / "full").touch()
        hub.ask_for(names[servers:])
        until(lambda: _jobs(hub) >= servers + more, 300, 1)
        hub.hub.kill()
        hub.mark()
        listings, began = hub.listings(), time.monotonic()
        hub.hub.start()
        answers_s = time.monotonic() - began
        used = cpu_s(hub.pid)[0]
        until(lambda: hub.ready() >= servers and hub.logged("taken up again") >= more, 300, 0.5)
        ready_s = time.monotonic() - began
        asked = hub.listings() - listings
        first = hub.loop()
        with Probe(hub) as probe:
            time.sleep(AFTER_S)
        after = hub.loop()
        return {
            "servers": servers,
            "waiting": more,
            "all_started_s": round(started_s, 1),
            "api_after_s": round(answers_s, 1),
            "hub_cpu_s_until_then": round(used, 2),
            "all_known_after_s": round(ready_s, 1),
            "listings_until_then": asked,
            "api_p50_ms_after": probe.percentile_ms(0.5),
            "api_p99_ms_after": probe.percentile_ms(0.99),
            **{f"{name}_until_then": value for name, value in first.items()},
            **{f"{name}_after": value for name, value in after.items()},
        }


def _jobs(hub: Measured) -> int:
    return (hub.folder / "jobs").read_text().count("\n")


@contextlib.contextmanager
def _stand_ins(lab: Path, folder: Path) -> Iterator[None]:
    """Commands of a scheduler that has every job run at once, and the node where they run."""
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", "#!/bin/sh\n")):
        path = folder / "bin" / name
        path.write_text(text.format(folder=folder, node=NODE))
        path.chmod(0o755)
    (folder / "scripts").mkdir()
    for path in (folder, folder / "scripts"):
        path.chmod(0o777)
    for name in ("jobs", "lock"):
        (folder / name).touch()
        (folder / name).chmod(0o666)
    program = Path(__file__).with_name("stand_in_node.py")
    node = subprocess.Popen([lab / NODE, sys.executable, program, folder])
    try:
        yield
    finally:
        node.terminate()
        node.wait()
