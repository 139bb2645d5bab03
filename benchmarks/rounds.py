"""How long a round of housekeeping holds up the loop: 10,000 rows, in this process, without a Hub or a scheduler."""

import asyncio
import logging
import tempfile
import time
import types
from pathlib import Path
from typing import Any

from hpcspawner.hub.housekeeping import Housekeeping, HousekeepingLimits
from hpcspawner.hub.users import Users
from hpcspawner.jobs.events import Outside
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.ledger import Ledger
from hpcspawner.jobs.table import Store
from hpcspawner.schedulers.cluster import Cluster, Clusters
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.site.profile import find_shipped, load

SERVERS_PER_USER = 10


def rounds(_lab: Path, spawner: str, servers: int = 10_000) -> dict[str, Any]:
    """One round over servers that wait, one listing of them compared with the ledger, and a stir of one."""
    return asyncio.run(_measured(servers)) if spawner == "ours" else {}


async def _measured(servers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys(b"s" * 32, "hub")
        log = logging.getLogger()
        clusters = Clusters([Cluster.of(load(find_shipped("slurm-minimal.toml")), Path(folder), log)], _no_more)
        ledger = Ledger(Store(f"sqlite:///{folder}/ledger", keys.hub, log), keys, log, clusters, Outside(bool, ()))
        try:
            keeper, jobs = await _filled(ledger, servers)
            one = ledger.live()[:1]
            return {
                "servers": servers,
                **await _longest("round", lambda: keeper._look_at(ledger.live())),
                **await _longest("listing", lambda: keeper._reapers[0].look(jobs)),
                **await _longest("stir", lambda: keeper._look_at(one)),
            }
        finally:
            ledger.close()


def _no_more(_profile: Any) -> Cluster:
    raise RuntimeError("no cluster is retired here")


async def _filled(ledger: Ledger, servers: int) -> tuple[Housekeeping, dict[str, JobStatus]]:
    """Housekeeping of a Hub with these servers, which all wait, and what a listing shows of them."""
    users: dict[str, Any] = {}
    jobs = {}
    for number in range(servers):
        name, server = f"u{number // SERVERS_PER_USER}", f"s{number % SERVERS_PER_USER}"
        job = ledger.new_job((name, server), name, ledger.clusters.default)
        job.submitted(str(number))
        ledger._index(job)
        jobs[job.record.job_id] = JobStatus(JobState.PENDING, owner=name, tag=job.tag)
        user = users.setdefault(name, types.SimpleNamespace(spawners={}))
        user.spawners[server] = types.SimpleNamespace(job=job, ready=False, unpolled=False)
    app: Any = types.SimpleNamespace(log=logging.getLogger(), users={}, db=None)
    keeper = Housekeeping(app, ledger, HousekeepingLimits(60, 300, dry_run=True), app.log)
    known: Any = Users(app)
    known.find = users.get
    keeper._users = known
    return keeper, jobs


async def _longest(name: str, work: Any) -> dict[str, float]:
    """The longest time for which others had no turn, and that of all the work, in milliseconds of the processor."""
    task, pauses, began = asyncio.create_task(work()), [0.0], time.thread_time()
    while not task.done():
        since = time.thread_time()
        await asyncio.sleep(0)
        pauses.append(time.thread_time() - since)
    await task
    return {
        f"{name}_pause_cpu_ms": round(1000 * max(pauses), 2),
        f"{name}_cpu_ms": round(1000 * (time.thread_time() - began), 2),
    }
