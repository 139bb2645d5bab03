"""When Python looks through a Hub's whole memory: once it has grown. Each in a process of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
BOUND_MIB = 128
PROGRAM = """
    import asyncio, gc, logging
    from hpcspawner.hub import garbage

    garbage._LOOK_S, garbage._SETTLES_S = 0.01, {settles_s}

    class Server:
        def __init__(self):
            self.itself, self.holds = self, bytearray(100_000)

    async def ends(servers):
        # They have been there for long when they end.
        gc.collect(0)
        gc.collect(1)
        servers.clear()
        await asyncio.sleep(0.05)

    async def main():
        garbage.leave_alone_what_stays()
        task = asyncio.create_task(garbage.collect_as_memory_grows(logging.getLogger()))
        await asyncio.sleep(0.05)
        before, first = gc.get_stats()[2]["collections"], garbage.resident_bytes()
        {work}
        print(gc.get_stats()[2]["collections"] - before, (garbage.resident_bytes() - first) // 2**20)

    asyncio.run(main())
"""


def looks_and_growth(work, settles_s=0.0):
    """How often all was looked through, and by how many MiB the process has grown."""
    program = textwrap.dedent(PROGRAM.format(work=work, settles_s=settles_s))
    argv = [sys.executable, "-c", program]
    out = subprocess.run(argv, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, timeout=120).stdout
    return tuple(map(int, out.split()))


def test_many_new_objects_alone_are_no_reason_to_look():
    looks, growth = looks_and_growth("kept = [[] for _ in range(400_000)]; await asyncio.sleep(0.05)")
    assert looks == 0
    assert growth < BOUND_MIB


def test_what_a_start_reads_is_not_looked_through():
    kept = "kept = [Server() for _ in range(2_000)]; await asyncio.sleep(0.05)"
    looks, growth = looks_and_growth(kept, settles_s=3600)
    assert looks == 0
    assert growth > BOUND_MIB


def test_one_look_that_fails_is_not_the_last():
    """As of a process that may open no more files."""
    fails = "import pathlib; garbage._MEMORY, there = pathlib.Path('/none'), garbage._MEMORY; await asyncio.sleep(0.05)"
    again = "garbage._MEMORY = there; [await ends([Server() for _ in range(100)]) for _ in range(20)]"
    looks, _growth = looks_and_growth(f"{fails}; {again}")
    assert looks >= 1


def test_what_servers_leave_behind_is_bounded():
    """Four hundred and fifty megabytes of them."""
    looks, growth = looks_and_growth("[await ends([Server() for _ in range(100)]) for _ in range(45)]")
    assert looks >= 2
    assert growth < 2 * BOUND_MIB
