"""The Hubs that are measured: ours, and one of each peer as it comes, on the lab's Slurm with the same servers."""

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cluster.conftest import on_head
from support.faults import within
from support.hub import Hub, server_path

from benchmarks.peers import SLURM_PEERS, configuration

HERE = Path(__file__).parent
USERS = [f"u{number:03}" for number in range(1, 101)]
CALLERS = 20
LIGHT_SERVER = HERE.parent / "tests" / "cluster" / "bin" / "light_server.py"

# What all have alike. `jupyterhub` reads it from a folder of its own.
EXTRA = """
import sys
sys.path.insert(0, {bench!r})
import loop_meter
loop_meter.install(c)
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 1}}
c.Authenticator.admin_users = {{"alice"}}
c.HPCSpawner.poll_interval_s = 10
"""
PROFILE = """\
title = "Benchmarks"

[scheduler]
type = "slurm"
path = ["{folder}/bin", "/usr/bin", "/bin"]

[[partitions]]
name = "compute"
max_walltime = "2d"
max_cpus = 32
max_memory = "64G"

[defaults]
memory = "100M"
walltime = "20m"
interface = "light"

[[environments]]
name = "jupyter"
path = ["{lab}/env/bin"]

[[interfaces]]
name = "light"
title = "A light server"
url = "/"
command = ["{folder}/bin/light-server"]

[[interfaces]]
name = "lab"
title = "JupyterLab"
programs = ["jupyter-lab"]
"""
# What a server that waits costs JupyterHub alone: a start that does not end.
JUPYTERHUB = """\
import asyncio

from jupyterhub.spawner import Spawner


class Waits(Spawner):
    async def start(self):
        await asyncio.Event().wait()

    async def stop(self, now=False):
        pass

    async def poll(self):
        return None


c = get_config()
c.JupyterHub.spawner_class = Waits
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 0
c.Spawner.start_timeout = 86400
"""
COUNTED = """#!/bin/sh
echo >>{folder}/seen/listings
exec /usr/bin/squeue "$@"
"""


class Measured:
    """A Hub, what it is called, and the folder with what its jobs need."""

    def __init__(self, lab: Path, name: str, server: str):
        self.lab, self.name, self.server = lab, name, server
        self.folder = _furnish(lab)
        self.log_from = 0
        self.hub = self._hub()

    def _hub(self) -> Hub:
        # JupyterHub waits for the disk on its loop, at every commit: on a shared machine that measures the others.
        place = Path(tempfile.mkdtemp(prefix="bench-hub-", dir=os.environ.get("BENCH_FOLDER", "/dev/shm")))
        extra = EXTRA.format(bench=str(HERE))
        if self.name == "jupyterhub":
            return Hub(place, "", host="10.77.0.1", config=JUPYTERHUB, extra=extra)
        if self.name in SLURM_PEERS:
            programs = self.lab / self.name / "bin"
            config = configuration(self.name, programs, self.folder, self.server)
            hub = Hub(place, "", host="10.77.0.1", config=config, extra=extra)
            hub.programs = programs
            return hub
        site = place / "site.toml"
        site.write_text(PROFILE.format(lab=self.lab, folder=self.folder), encoding="utf-8")
        return Hub(place, site, host="10.77.0.1", extra=extra)

    @property
    def pid(self) -> int:
        """Of the Hub's own process."""
        return int(self.hub.process.pid)

    def mark(self) -> None:
        """What is logged from here on counts."""
        self.log_from = self.hub.log_file.stat().st_size

    def logged(self, text: str) -> int:
        """How many lines since the mark hold this text."""
        with self.hub.log_file.open("rb") as log:
            log.seek(self.log_from)
            return log.read().decode(errors="replace").count(text)

    def listings(self) -> int:
        """How often the scheduler has been asked for its jobs."""
        return (self.folder / "seen" / "listings").stat().st_size

    def ask_for(self, servers: list[tuple[str, str]]) -> None:
        """Have these servers of users started, by so many callers at once; RuntimeError where the Hub refuses one."""
        with ThreadPoolExecutor(CALLERS) as pool:
            for answer in pool.map(lambda server: self.hub.api("POST", server_path(*server)), servers):
                if answer.status_code not in (201, 202):
                    raise RuntimeError(f"{answer.status_code} {answer.text}")

    def ready(self) -> int:
        """How many servers are ready. The Hub needs a while to say so of a thousand."""
        users = self.hub.api("GET", "/users?state=ready").json()
        return sum(server["ready"] for user in users for server in user["servers"].values())

    def phases(self) -> dict[str, float]:
        """Seconds that all starts so far have spent in each phase."""
        headers = {"Authorization": f"token {self.hub.token}"}
        text = self.hub.get("/hub/metrics", headers=headers).text
        found = re.findall(r'^hpcspawner_start_phase_seconds_sum\{.*phase="(\w+)"\} (\S+)$', text, re.MULTILINE)
        found += re.findall(r"^hpcspawner_(queue)_wait_seconds_sum\{.*\} (\S+)$", text, re.MULTILINE)
        route = r'^jupyterhub_proxy_add_duration_seconds_sum\{status="success"\} (\S+)$'
        found += [("route", seconds) for seconds in re.findall(route, text, re.MULTILINE)]
        return {phase: float(seconds) for phase, seconds in found}

    def loop(self) -> dict[str, Any]:
        """The longest steps of the Hub's loop since the last question."""
        found: dict[str, Any] = self.hub.api("GET", "/bench/loop").json()
        return found


@contextlib.contextmanager
def measured(lab: Path, name: str, users: list[str], server: str = "") -> Iterator[Measured]:
    """A Hub with these users, "ours" or a peer's; it and its jobs are gone afterwards.

    A peer starts a light server, or the one that is named.
    """
    found = Measured(lab, name, server)
    try:
        found.hub.start()
        found.hub.api("POST", "/users", json={"usernames": users})
        found.hub.token = _token(found.hub)
        yield found
    finally:
        found.hub.stop()
        shutil.rmtree(found.hub.folder)
        no_jobs(users)
        shutil.rmtree(found.folder)


def _token(hub: Hub) -> str:
    """An admin's token that JupyterHub has made itself: one that was typed costs it 12 ms for each call."""
    made = hub.api("POST", "/users/alice/tokens", json={}).json()
    return str(made["token"])


def no_jobs(users: list[str]) -> None:
    """End every job of these users."""
    for user in users:
        on_head("scancel", f"--user={user}", check=False)
    within(120, lambda: not on_head("squeue", "--noheader").strip(), "jobs are left")


def _furnish(lab: Path) -> Path:
    """A folder that users can reach: the light server, what it leaves behind, and a squeue that counts its calls."""
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=lab / "run"))
    for name, mode in (("bin", 0o755), ("orders", 0o755), ("seen", 0o777)):
        (folder / name).mkdir()
        (folder / name).chmod(mode)
    folder.chmod(0o755)
    shutil.copy(LIGHT_SERVER, folder / "bin" / "light-server")
    (folder / "bin" / "squeue").write_text(COUNTED.format(folder=folder))
    for path in (folder / "bin").iterdir():
        path.chmod(0o755)
    # batchspawner asks as the user, slurmformspawner as the Hub.
    (folder / "seen" / "listings").touch()
    (folder / "seen" / "listings").chmod(0o666)
    return folder
