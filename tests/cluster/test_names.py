"""Accounts with names as directory services have them: the whole life of a job and of a server, on real schedulers."""

import asyncio
import logging
import secrets
import subprocess
import time
from dataclasses import replace
from urllib.parse import quote

import pytest
from cluster.conftest import jobs_of, queue_is_empty_within
from support.faults import accounts_stay
from support.schedulers import PATHS, SCHEDULERS

from hpcspawner.request import accounts
from hpcspawner.request.gate import make
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import OwnedJob
from hpcspawner.schedulers.state import JobState
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import SiteProfile

ACCOUNT = "abc@v100"
NAMES = {
    # slurmdbd keeps names in lower case, unless its configuration says otherwise, and loses a backslash.
    "slurm": ["alice@example.org", "20231234", "ann.doe", "2456789x", "a" * 32],
    # Torque itself takes no name with an `@` or of more than 31 letters.
    "torque": ["EXAMPLE\\alice", "20231234", "Ann.Doe", "2456789x", "o'brien", "a" * 31],
}
PEOPLE = [*dict.fromkeys(name for names in NAMES.values() for name in names)]
# JupyterHub writes a user's name in lower case.
LOGINS = {"slurm": ["bob@example.org", "20231235"], "torque": ["example\\bob", "20231235"]}
BY_LOGIN = [*dict.fromkeys(name for names in LOGINS.values() for name in names)]
PROFILE = {
    "title": "Test cluster",
    "partitions": [{"name": "compute", "max_walltime": "1h"}],
    "environments": [{"name": "plain"}],
    "account": "required",
}


def tried(*argv):
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def sacctmgr(*words):
    # Its exit code is 1 also where there was nothing to do.
    tried("sacctmgr", "-iQ", *words)


@pytest.fixture(scope="module")
def people(lab):
    names = [*PEOPLE, *BY_LOGIN]
    with accounts_stay():
        for name in names:
            tried("userdel", name)
            made = tried("useradd", "--badname", "--user-group", "--create-home", "--home-dir", home(name), name)
            if made.returncode:
                # No group may be called so.
                made = tried("useradd", "--badname", "-N", "--create-home", "--home-dir", home(name), name)
            assert made.returncode == 0, made.stderr
    sacctmgr("add", "account", ACCOUNT)
    for name in names:
        sacctmgr("add", "user", name, f"account={ACCOUNT}")
    yield
    for name in names:
        sacctmgr("delete", "user", name)
    sacctmgr("delete", "account", ACCOUNT)
    with accounts_stay():
        for name in names:
            tried("userdel", "--remove", name)


def home(name):
    return f"/home/names-{[*PEOPLE, *BY_LOGIN].index(name)}"


@pytest.mark.parametrize(("scheduler", "name"), [(one, name) for one in SCHEDULERS for name in NAMES[one]])
async def test_a_job_of_any_account_is_submitted_seen_and_cancelled(people, tmp_path, scheduler, name):
    profile = SiteProfile.model_validate({**PROFILE, "scheduler": {"type": scheduler, "path": PATHS[scheduler]}})
    cluster = Cluster.of(profile, tmp_path, logging.getLogger("test"))
    account = accounts.of_user(name, 1000)
    assert account.name == name
    label = JobLabel("hpc-test", f"hc0de{secrets.token_hex(5)}", "")
    request = make({"account": ACCOUNT}, profile, account)
    job = submission(request, cluster.client.scheduler, profile.job, label, CallHome("https://x", "t"))
    job_id = await cluster.client.submit(name, replace(job, script="#!/bin/bash\nsleep 600\n"))
    owned = OwnedJob(job_id, name, label.tag, time.monotonic())
    try:
        await reaches(cluster, owned, JobState.RUNNING)
    finally:
        await cluster.client.cancel(name, job_id)
    await reaches(cluster, owned, JobState.ENDED)


async def reaches(cluster, job, state, seconds=90):
    deadline = time.monotonic() + seconds
    while (status := await cluster.queue.status(job, time.monotonic())).state is not state:
        assert time.monotonic() < deadline, f"after {seconds} s the job is {status}; {cluster.queue.error}"
        await asyncio.sleep(0.2)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_server_of_any_account_lives_and_ends(people, make_hub, scheduler):
    """Form of the log's name, the ledger, the event and the address are the user's."""
    with make_hub(scheduler, ("[defaults]\n", f'[defaults]\naccount = "{ACCOUNT}"\n')) as hub:
        for name in LOGINS[scheduler]:
            user = quote(name, safe="")
            hub.api("POST", f"/users/{user}")
            server = hub.spawn(user, {"partition": "debug"})
            assert server["ready"]
            assert jobs_of(name)
            hub.stop_server(user)
            queue_is_empty_within(60, name)
