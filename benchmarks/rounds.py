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
from hpcspawner.jobs.ledger import Ledger, close_ledger, open_ledger
from hpcspawner.schedulers.state import JobState, JobStatus

SERVERS_PER_USER = 10


def rounds(_lab: Path, spawner: str, servers: int = 10_000) -> dict[str, Any]:
    """One round over servers that wait, one listing of them compared with the ledger, and a stir of one."""
    return asyncio.run(_measured(servers)) if spawner == "ours" else {}


async def _measured(servers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        keys = Keys(b"s" * 32, "hub")
        ledger = open_ledger(f"sqlite:///{folder}/ledger", lambda: keys, logging.getLogger(), Outside(bool, ()))
        try:
            keeper, jobs = await _filled(ledger, servers)
            one = ledger.live()[:1]
            return {
                "servers": servers,
                **await _longest("round", lambda: keeper._look_at(ledger.live())),
                **await _longest("listing", lambda: keeper._reaper.look(jobs)),
                **await _longest("stir", lambda: keeper._look_at(one)),
            }
        finally:
            close_ledger()


async def _filled(ledger: Ledger, servers: int) -> tuple[Housekeeping, dict[str, JobStatus]]:
    """Housekeeping of a Hub with these servers, which all wait, and what a listing shows of them."""
    users: dict[str, Any] = {}
    jobs = {}
    for number in range(servers):
        name, server = f"u{number // SERVERS_PER_USER}", f"s{number % SERVERS_PER_USER}"
        row = ledger.new_row(name, server, name)
        row.submitted(str(number))
        ledger._index(row)
        jobs[row.job_id] = JobStatus(JobState.PENDING, owner=name, tag=row.tag)
        user = users.setdefault(name, types.SimpleNamespace(spawners={}))
        user.spawners[server] = types.SimpleNamespace(row=row, ready=False, unpolled=False)
    cluster: Any = types.SimpleNamespace(client=types.SimpleNamespace(log=logging.getLogger()))
    app: Any = types.SimpleNamespace(log=logging.getLogger(), users={}, db=None)
    keeper = Housekeeping(app, cluster, HousekeepingLimits(60, 300, dry_run=True), app.log)
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
