"""What jupyterhub-moss's form costs its Hub: `moss_form.py SINFO PARTITIONS GPU_TYPES ROUNDS`, in its own environment.

SINFO is a command that prints what sinfo would of a cluster of that size. A line of JSON is printed.
"""

import asyncio
import json
import statistics
import sys
import time
import types

from jupyterhub_moss import MOSlurmSpawner


def spawner(sinfo, partitions, gpu_types):
    """One with these partitions, as its README.md configures them; its command for what is free is SINFO."""
    found = MOSlurmSpawner(
        slurm_info_cmd=sinfo,
        exec_prefix="",
        partitions={
            f"p{one}": {
                "description": f"Partition {one}",
                "architecture": "x86_64",
                "gpu": f"gpu:t{one % gpu_types}:{{}}",
                "simple": True,
                "jupyter_environments": {
                    f"env{number}": {
                        "description": f"env{number}",
                        "path": f"/opt/env{number}/bin",
                        "add_to_path": True,
                    }
                    for number in range(20)
                },
                "max_ngpus": 8,
                "max_nprocs": 64,
                "max_runtime": 86400,
            }
            for one in range(partitions)
        },
    )
    found.user = types.SimpleNamespace(settings={"template_path": []}, name="alice")
    found.get_env = lambda: {"PATH": "/usr/bin:/bin"}
    found.handler = types.SimpleNamespace(hub=types.SimpleNamespace(base_url="/hub/"))
    return found


async def main(sinfo, partitions, gpu_types, rounds):
    """Draw the form again and again, as for one user after the other."""
    one = spawner(sinfo, partitions, gpu_types)
    text = await one.options_form(one)
    cpu, wall = [], []
    for _ in range(rounds):
        began, used = time.monotonic(), time.process_time()
        text = await one.options_form(one)
        cpu.append(1000 * (time.process_time() - used))
        wall.append(1000 * (time.monotonic() - began))
    found = {
        "partitions": partitions,
        "form_p50_cpu_ms": round(statistics.median(cpu), 1),
        "form_p99_cpu_ms": round(statistics.quantiles(cpu, n=100)[98], 1),
        "form_p50_ms": round(statistics.median(wall), 1),
        "form_p99_ms": round(statistics.quantiles(wall, n=100)[98], 1),
        "form_kib": len(text.encode()) // 1024,
        "commands_per_form": 1,
    }
    print(json.dumps(found))


asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
