"""`python -m benchmarks [FIGURE[:SERVERS]…]`, on the lab's head: one table, and a line of JSON for each figure."""

import json
import os
import sys
from pathlib import Path

from benchmarks.figures import FIGURES

SPAWNERS = ("ours", "batchspawner")
# batchspawner asks the scheduler for each waiting server twice a second: a thousand would measure the machine.
MOST_OF_BATCHSPAWNER = 100


def main() -> None:
    """Measure, one after the other, each with both spawners in turn."""
    lab, rows = Path(os.environ["HPC_LAB"]), []
    spawners = os.environ.get("BENCH_SPAWNERS", " ".join(SPAWNERS)).split()
    for word in sys.argv[1:] or FIGURES:
        name, _, servers = word.partition(":")
        for spawner in spawners:
            size = [int(servers)] if servers else []
            if spawner != "ours" and name in ("waiting", "submits"):
                size = [min([*size, MOST_OF_BATCHSPAWNER])]
            found = FIGURES[name](lab, spawner, *size)
            print(json.dumps({"figure": name, "spawner": spawner, **found}), flush=True)
            rows += [(name, spawner, key, value) for key, value in found.items() if key.rpartition("_")[2] != "steps"]
    for row in rows:
        print("{:10} {:14} {:32} {}".format(*map(str, row)))


main()
