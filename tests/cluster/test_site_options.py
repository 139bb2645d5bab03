"""What sites add to the scheduler's commands and take away from jobs, on a real Slurm."""

import asyncio
import json
import logging
import os
import secrets
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within, shown
from cluster.test_sites import HABITS
from support.faults import Lab, within
from support.hub import server_path
from support.schedulers import PATHS

from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import OwnedJob
from hpcspawner.schedulers.state import JobState
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import SiteProfile

ALICE = LocalAccount("alice", "/home/alice")
PROFILE = {
    "title": "Test cluster",
    "partitions": [
        {"name": "compute", "max_walltime": "1h", "features": ["skylake|volta", "skylake"]},
        {"name": "anywhere", "form_only": True, "max_walltime": "1h", "max_memory": "1G"},
    ],
    "environments": [{"name": "plain"}],
}


class Site:
    """One profile's cluster, and a job of alice's with its options."""

    def __init__(self, folder, scheduler=(), **profile):
        access = {"type": "slurm", "path": PATHS["slurm"], **dict(scheduler)}
        self.profile = SiteProfile.model_validate({**PROFILE, "scheduler": access, **profile})
        self.cluster = Cluster.of(self.profile, folder, logging.getLogger("test"))

    async def submit(self, **options):
        label = JobLabel("hpc-test", f"hc0de{secrets.token_hex(5)}", "")
        request = make({"walltime": "5m", **options}, self.profile, ALICE)
        job = submission(request, self.cluster.client.scheduler, self.profile.job, label, CallHome("https://x", "t"))
        job_id = await self.cluster.client.submit("alice", replace(job, script="#!/bin/bash\nsleep 600\n"))
        return OwnedJob(job_id, "alice", label.tag, time.monotonic())

    async def reaches(self, job, state, seconds=90):
        deadline = time.monotonic() + seconds
        while (status := await self.cluster.queue.status(job, time.monotonic())).state is not state:
            assert time.monotonic() < deadline, f"after {seconds} s the job is {status}; {self.cluster.queue.error}"
            await asyncio.sleep(0.2)

    async def cancel(self, job):
        await self.cluster.client.cancel("alice", job.job_id)
        await self.reaches(job, JobState.ENDED)


async def test_a_job_is_known_by_its_name_where_the_comment_is_the_sites(tmp_path):
    comment = {"directives": [{"option": "comment", "value": "cost-centre-7"}]}
    site = Site(tmp_path, {"tag": "job-name"}, job=comment)
    job = await site.submit()
    await site.reaches(job, JobState.RUNNING)
    said = shown(job.job_id)
    assert (said["Comment"], said["JobName"]) == ("cost-centre-7", job.tag)
    await site.cancel(job)


async def test_options_that_the_site_leaves_out_are_slurms_own_choice(tmp_path):
    site = Site(tmp_path, job={"leave_out": ["mem", "export", "cpus-per-task", "ntasks-per-node"]})
    job = await site.submit(partition="anywhere", memory="64M")
    await site.reaches(job, JobState.RUNNING)
    assert shown(job.job_id)["Partition"] == "compute"
    await site.cancel(job)


async def test_features_of_the_user_and_of_the_site_hold_together(tmp_path):
    site = Site(tmp_path, job={"directives": [{"option": "constraint", "value": "skylake"}]})
    job = await site.submit(features=["skylake|volta"])
    await site.reaches(job, JobState.RUNNING)
    assert shown(job.job_id)["Features"] == "(skylake|volta)&skylake"
    await site.cancel(job)


@pytest.mark.parametrize("owner", ["bob", "alice"])
def test_a_stop_leaves_another_job_by_the_same_number_alone(make_hub, owner):
    """The numbers begin anew while the Hub is down: the ledger's is somebody's real work by then."""
    slurm = Lab(os.environ["HPC_LAB"])
    slurm.forget_jobs()
    with make_hub("slurm") as hub:
        hub.spawn("alice", {"partition": "debug"})
        (ours,) = jobs_of("alice")
        hub.stop()
        slurm.forget_jobs()
        # It waits: a node that has just ended the first job by this number refuses to run another by it for a while.
        work = ("--parsable", "--begin=now+1hour", "--output=/dev/null", "--wrap=sleep 600")
        other = on_head("sbatch", *work, user=owner).strip()
        assert other == ours
        hub.start()
        # Another user's is the end of ours at once; one of her own might be hers with another comment.
        word = "has ended" if owner == "bob" else "taken up again"
        within(60, lambda: f"job {other} {word}" in hub.log(), hub.log)
        hub.api("DELETE", server_path("alice"))
        if owner == "alice":
            within(60, lambda: f"job {other} is not cancelled" in hub.log(), hub.log)
        # Longer than a stop waits for its end.
        time.sleep(12)
        assert shown(other)["JobState"] == "PENDING"
        on_head("scancel", other)
        queue_is_empty_within(60, owner)


BY_CLIENT = """
import asyncio, json, logging, sys
from pathlib import Path
from hpcspawner.errors import SchedulerNotSetUp
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import SiteProfile

profile = SiteProfile.model_validate(json.loads(sys.argv[1]))
client = Cluster.of(profile, Path("/nowhere"), logging.getLogger()).client
try:
    asyncio.run(client.listing())
    print("listed")
except SchedulerNotSetUp as error:
    print(error.cure)
"""
HIDES = 'mount --bind "$1" /etc/slurm && shift && exec "$@"'


@pytest.mark.parametrize("named", [True, False], ids=["named", "not named"])
def test_a_configuration_elsewhere_is_found_where_the_profile_names_it(tmp_path, named):
    real = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")).parent
    elsewhere, empty = tmp_path / "elsewhere", tmp_path / "empty"
    shutil.copytree(real, elsewhere)
    empty.mkdir()
    variables = {"SLURM_CONF": str(elsewhere / "slurm.conf")} if named else {}
    access = {"type": "slurm", "path": PATHS["slurm"], "variables": variables}
    data = json.dumps({**PROFILE, "scheduler": access})
    command = ["unshare", "--mount", "sh", "-c", HIDES, "sh", str(empty), sys.executable, "-c", BY_CLIENT, data]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "listed" if named else "SLURM_CONF in scheduler.variables" in done.stdout


def test_a_hub_starts_a_server_by_a_configuration_elsewhere(make_hub, tmp_path):
    elsewhere, empty = tmp_path / "elsewhere", tmp_path / "empty"
    shutil.copytree("/etc/slurm", elsewhere)
    empty.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        # sbatch runs as the user.
        folder.chmod(folder.stat().st_mode | 0o055)
    named = f'type = "slurm"\nvariables = {{ SLURM_CONF = "{elsewhere}/slurm.conf" }}\n'
    hub = make_hub("slurm", change=('type = "slurm"\n', named), extra=HABITS)
    hub.start(prefix=["unshare", "--mount", "sh", "-c", HIDES, "sh", str(empty)])
    try:
        hub.api("POST", "/users/alice")
        hub.spawn("alice", {"partition": "debug"})
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
    finally:
        hub.__exit__(None)


@pytest.mark.parametrize("broken", ["empty", "not to be read", "of another release", "without its plugin"])
def test_a_configuration_that_slurm_can_not_use_is_for_the_admin(tmp_path, broken):
    """Waiting would not help; each of these the real squeue says in words of its own."""
    real = Path(os.environ.get("SLURM_CONF", "/etc/slurm/slurm.conf")).read_text()
    made = {
        "empty": "",
        "not to be read": None,
        "of another release": f"{real}\nOfTheNextRelease=1\n",
        "without its plugin": f"{real}\nAuthType=auth/of-the-site\n".replace("AuthType=auth/munge\n", ""),
    }[broken]
    file = tmp_path / "slurm.conf"
    if made is None:
        # Root may read every file, but no folder is one.
        file.mkdir()
    else:
        file.write_text(made)
    access = {"type": "slurm", "path": PATHS["slurm"], "variables": {"SLURM_CONF": str(file)}}
    data = json.dumps({**PROFILE, "scheduler": access})
    done = subprocess.run([sys.executable, "-c", BY_CLIENT, data], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "SLURM_CONF in scheduler.variables" in done.stdout
