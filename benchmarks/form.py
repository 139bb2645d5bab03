"""What the form costs the Hub at a small and at a huge site, and the facts that it shows; without a Hub."""

import asyncio
import gc
import json
import logging
import resource
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from hpcspawner.hub import garbage
from hpcspawner.pages.pages import Draft, render_form
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import parse

GPU_TYPES = 20
NODES_PER_PARTITION = 50
ENVIRONMENTS = 20
PRESETS = 6
JOBS = 50_000
ROUNDS = 200
NODE = (
    "NodeName=n{number} Arch=x86_64 CoresPerSocket=32 CPUAlloc={used} CPUEfctv=64 CPUTot=64 CPULoad=1.0"
    " AvailableFeatures=avx512 ActiveFeatures=avx512 Gres=gpu:t{kind}:8(S:0-1)"
    " NodeAddr=n{number} NodeHostName=n{number}"
    " Version=22.05.8 OS=Linux 5.10 #1 SMP RealMemory=257000 AllocMem=128000 FreeMem=100000 Sockets=2 Boards=1"
    " State=MIXED ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=p{partition}"
    " BootTime=2026-11-01T00:00:00 SlurmdStartTime=2026-11-01T00:00:00 LastBusyTime=2026-11-01T00:00:00"
    " GresUsed=gpu:t{kind}:3(IDX:0-2) CfgTRES=cpu=64 AllocTRES= CapWatts=n/a CurrentWatts=0"
)

# Waiting jobs, or the listing in the layout that is asked for: each of its letters is replaced in 50,000 lines.
SQUEUE = r"""
for word; do case $word in *PENDING*) {waiting};; --format=*) format=${{word#--format=}};; esac; done
exec awk -v format="$format" -v jobs={jobs} 'BEGIN {{
    head = format; gsub(/%[a-zA-Z]/, "NAME", head); print head
    gsub(/%T/, "RUNNING", format); gsub(/%B/, "n17", format); gsub(/%u/, "alice", format); gsub(/%r/, "None", format)
    gsub(/%S/, "1764200000", format); gsub(/%[jk]/, "a comment of twenty-five.", format)
    for (one = 1; one <= jobs; one++) {{ line = format; sub(/%i/, one, line); print line }}
}}'"""


def form(lab: Path, spawner: str, partitions: int = 200) -> dict[str, Any]:
    """The form and its facts at a site with so many partitions, fifty nodes in each, twenty GPU types, 50,000 jobs."""
    if spawner == "ours":
        return asyncio.run(_measured(partitions))
    peers = {"moss": _of_moss, "slurmformspawner": _of_slurmformspawner}
    return peers[spawner](lab, partitions) if spawner in peers else {}


def _of_moss(lab: Path, partitions: int) -> dict[str, Any]:
    """jupyterhub-moss's form of the same site, in its own environment; it asks sinfo for each."""
    with tempfile.TemporaryDirectory() as name:
        lines = [
            f"p{one} 10/40/0/{NODES_PER_PARTITION} 64 640/2560/0/3200 gpu:t{one % GPU_TYPES}:8 257000 1-00:00:00"
            for one in range(partitions)
        ]
        _program(Path(name), "sinfo", _printed(Path(name), "partitions", lines))
        program = Path(__file__).with_name("moss_form.py")
        argv = [lab / "moss/bin/python", program, f"{name}/sinfo", *map(str, (partitions, GPU_TYPES, ROUNDS))]
        found: dict[str, Any] = json.loads(subprocess.check_output(argv))
        return found


def _of_slurmformspawner(lab: Path, partitions: int) -> dict[str, Any]:
    """slurmformspawner's form of the same site, in its own environment; it asks scontrol and sacctmgr, with a cache."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        told = json.dumps({"nodes": [_as_json(one, partitions) for one in _nodes(partitions)]}, indent=2)
        none = _printed(folder, "reservations", ['{"reservations": []}'])
        counted = f"echo >>'{folder}/asked'\n"
        nodes = _printed(folder, "nodes", [told])
        _program(folder, "scontrol", f'{counted}case "$*" in *res*) {none};; esac\n{nodes}')
        _program(folder, "sacctmgr", counted + _printed(folder, "accounts", ["physics", "chemistry"]))
        program = Path(__file__).with_name("slurm_form.py")
        argv = [lab / "slurmformspawner/bin/python", program, name, str(ROUNDS)]
        path = {"PATH": f"{name}:/usr/bin:/bin"}
        found: dict[str, Any] = json.loads(subprocess.check_output(argv, env=path))
        return {"partitions": partitions, **found}


async def _measured(partitions: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _programs(folder, partitions)
        profile = parse(_profile(folder, partitions), "huge")
        cluster = Cluster.of(profile, folder, logging.getLogger())
        # As in a Hub.
        garbage.leave_alone_what_stays()
        collecting = asyncio.create_task(garbage.collect_as_memory_grows(logging.getLogger()))
        await asyncio.sleep(0)
        found = {"partitions": partitions, "nodes": partitions * NODES_PER_PARTITION, "jobs_listed": JOBS}
        for label, work in (("facts", cluster.board.fresh()), ("listing", cluster.client.listing())):
            found |= await _pauses(label, work)
        facts = await cluster.board.fresh()
        collecting.cancel()
        return found | _drawn(cluster, facts)


def _drawn(cluster: Cluster, facts: Any) -> dict[str, Any]:
    """The form again and again, as for one user after the other."""
    last = {"partition": "p1", "gpus": 1, "walltime": "2h"}
    times = []
    # As in a Hub: its templates are compiled at the first page, and what is there from the start is no garbage.
    text = render_form(cluster, [cluster], Draft(last, last=last), facts)
    gc.freeze()
    for _ in range(ROUNDS):
        began = time.thread_time()
        text = render_form(cluster, [cluster], Draft(last, last=last), facts)
        times.append(1000 * (time.thread_time() - began))
    cuts = statistics.quantiles(times, n=100)
    return {
        "form_p50_cpu_ms": round(statistics.median(times), 1),
        "form_p99_cpu_ms": round(cuts[98], 1),
        "form_kib": len(text.encode()) // 1024,
        "most_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


async def _pauses(name: str, work: Any) -> dict[str, float]:
    """The longest time for which the loop gave others no turn, and the processor's for it, in milliseconds."""
    task, longest, used = asyncio.ensure_future(work), 0.0, 0.0
    began = time.process_time()
    while not task.done():
        wall, cpu = time.monotonic(), time.thread_time()
        await asyncio.sleep(0)
        longest, used = max(longest, time.monotonic() - wall), max(used, time.thread_time() - cpu)
    await task
    return {
        f"{name}_pause_ms": round(1000 * longest, 1),
        f"{name}_pause_cpu_ms": round(1000 * used, 1),
        f"{name}_cpu_ms": round(1000 * (time.process_time() - began)),
    }


def _programs(folder: Path, partitions: int) -> None:
    """Commands of a scheduler that print what a real one of this size would, as fast as a disk."""
    told = [
        NODE.format(number=one, used=one % 65, kind=one % GPU_TYPES, partition=one % partitions)
        for one in _nodes(partitions)
    ]
    _program(folder, "scontrol", _printed(folder, "nodes", told))
    _program(folder, "sinfo", _printed(folder, "open", [f"p{one}|up" for one in range(partitions)]))
    waiting = [f"{one}|p{one % partitions}|{one % 9999}" for one in range(JOBS)]
    _program(folder, "squeue", SQUEUE.format(jobs=JOBS, waiting=_printed(folder, "waiting", waiting)))


def _nodes(partitions: int) -> range:
    return range(partitions * NODES_PER_PARTITION)


def _as_json(number: int, partitions: int) -> dict[str, Any]:
    """The same node with the fields that `scontrol --json show node` of Slurm 24.11 prints."""
    kind = f"gpu:t{number % GPU_TYPES}"
    moment = {"set": True, "infinite": False, "number": 1793491200}
    numbers = {"boards": 1, "cores": 32, "cpu_load": 100, "cpus": 64, "effective_cpus": 64, "port": 6818}
    numbers |= {"specialized_cores": 0, "cpu_binding": 0, "specialized_memory": 0, "res_cores_per_gpu": 0, "weight": 1}
    numbers |= {"real_memory": 257000, "alloc_memory": 128000, "sockets": 2, "threads": 1, "temporary_disk": 0}
    numbers |= {"alloc_cpus": number % 65, "alloc_idle_cpus": 64 - number % 65}
    empty = ("burstbuffer_network_address", "cluster_name", "specialized_cpus", "extra", "gpu_spec", "instance_id")
    empty += ("instance_type", "mcs_label", "owner", "comment", "reason", "reason_set_by_user", "reservation")
    moments = ("boot_time", "free_mem", "last_busy", "reason_changed_at", "resume_after", "slurmd_start_time")
    return {
        **numbers,
        **dict.fromkeys(empty, ""),
        **dict.fromkeys(moments, moment),
        **dict.fromkeys(("name", "address", "hostname"), f"n{number}"),
        "features": ["avx512"],
        "active_features": ["avx512"],
        "energy": {
            **dict.fromkeys(("average_watts", "base_consumed_energy", "consumed_energy", "last_collected"), 0),
            "current_watts": moment,
            "previous_consumed_energy": 0,
        },
        "external_sensors": {},
        "power": {},
        "gres": f"{kind}:8(S:0-1)",
        "gres_drained": "N/A",
        "gres_used": f"{kind}:3(IDX:0-2)",
        "next_state_after_reboot": ["INVALID"],
        "state": ["MIXED"],
        "architecture": "x86_64",
        "operating_system": "Linux 5.10 #1 SMP",
        "partitions": [f"p{number % partitions}"],
        "tres": "cpu=64,mem=257000M,billing=64,gres/gpu=8",
        "tres_used": f"cpu={number % 65},mem=128000M,gres/gpu=3",
        "tres_weighted": 0.0,
        "version": "24.11.5",
    }


def _printed(folder: Path, name: str, lines: list[str]) -> str:
    """The line of shell that prints them."""
    file = folder / f"{name}.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"exec cat '{file}'"


def _program(folder: Path, name: str, line: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def _profile(folder: Path, partitions: int) -> dict[str, Any]:
    gpus = {f"t{one}": 8 for one in range(GPU_TYPES)}
    return {
        "title": "Huge",
        "scheduler": {"type": "slurm", "path": [str(folder), "/usr/bin", "/bin"]},
        "partitions": [
            {"name": f"p{one}", "max_walltime": "24h", "max_cpus": 64, "max_memory": "256G", "gpus": gpus}
            for one in range(partitions)
        ],
        "environments": [{"name": f"env{one}", "path": [f"/opt/env{one}/bin"]} for one in range(ENVIRONMENTS)],
        "presets": [
            {"name": f"s{one}", "title": f"Preset {one}", "options": {"partition": f"p{one}", "walltime": "2h"}}
            for one in range(PRESETS)
        ],
    }
