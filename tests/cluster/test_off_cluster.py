"""A Hub that reaches its cluster by SSH alone: a real sshd, one key, and the helper that the key is forced to."""

import asyncio
import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from cluster.conftest import profile, queue_is_empty_within
from support.login_nodes import ACCOUNT, HOST, LoginNode, make_key, nothing_is_left
from support.rights import accounts, mounted, must, write

from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.site.profile import load

# Of its own: another lab's tests may have theirs at the same time, and all labs share the machine's accounts.
GROUP = "hpcremote"
HELPER = "/usr/local/libexec/hpcspawner"
OPTIONS = (("partition", "debug"), ("mem", "16M"), ("job-name", "away"), ("comment", "k0000away0000000"))


class Place:
    """What the admins of the Hub and of the cluster prepare: two login nodes, the key, the helper, the rule."""

    def __init__(self, folder, lab):
        self.folder = folder
        self.key = folder / "id"
        make_key(self.key)
        self.nodes = [LoginNode(folder / f"login{port}", port, folder / "authorized_keys") for port in (22, 2222)]
        self.known_hosts = folder / "known_hosts"
        write(self.known_hosts, "".join(node.known_host for node in self.nodes), 0o644)
        self.site = folder / "site.toml"
        ours = (
            'type = "slurm"\n'
            f'helper = "{HELPER}"\nssh = {json.dumps([node.address for node in self.nodes])}\n'
            f'ssh_key = "{self.key}"\nssh_known_hosts = "{self.known_hosts}"\ncommand_timeout_s = 5\n'
        )
        rule = '\n[users]\nstrip_domain = ["example.org"]\n'
        write(self.site, profile("slurm", lab).replace('type = "slurm"\n', ours) + rule, 0o644)

    def printed(self, *words):
        return must(str(Path(sys.executable).parent / "hpcspawner"), *map(str, words))

    def install(self):
        write(Path(HELPER), self.printed("helper", self.site), 0o755)
        rule = Path("/etc/sudoers.d/hpcspawner")
        write(rule, self.printed("sudoers", self.site, f"--group={GROUP}"), 0o440)
        must("visudo", "--check", "--strict", f"--file={rule}")
        line = self.printed("authorized-key", self.site, f"--key={self.key}.pub", f"--group={GROUP}")
        write(self.folder / "authorized_keys", line, 0o644)

    def ssh(self, *words, options=()):
        """Exit code, output and error output of OpenSSH's client with the Hub's key."""
        argv = ["ssh", "-F", "none", "-i", str(self.key), "-o", f"UserKnownHostsFile={self.known_hosts}"]
        argv += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", *options]
        done = subprocess.run(
            [*argv, f"{ACCOUNT}@{HOST}", *words], capture_output=True, text=True, check=False, input="", timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    def cluster(self):
        return Cluster.of(load(self.site), Path("/nowhere"), logging.getLogger("test"))


@pytest.fixture(scope="module")
def place(lab):
    folder = Path(tempfile.mkdtemp(prefix="hpcspawner-", dir="/run"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.enter_context(accounts(ACCOUNT, GROUP, "/bin/sh"))
        for name in ("/etc/sudoers.d", str(Path(HELPER).parent)):
            stack.enter_context(mounted(name, "-t", "tmpfs", "-o", "mode=755", "tmpfs"))
        place = Place(folder, lab)
        place.install()
        stack.callback(nothing_is_left)
        for node in place.nodes:
            node.start()
            stack.callback(node.stop)
        yield place


def job(tag="k0000away0000000"):
    return Submission((*OPTIONS[:-1], ("comment", tag)), "#!/bin/bash\nsleep 600\n")


# --- what it can do


def test_a_job_is_submitted_listed_and_cancelled_on_a_login_node(place):
    async def life():
        cluster = place.cluster()
        client = cluster.client
        job_id = await client.submit("alice", job())
        while (one := (await client.listing()).jobs[job_id]).state is not JobState.RUNNING:
            await asyncio.sleep(0.3)
        assert (one.owner, one.tag) == ("alice", "k0000away0000000")
        assert await client.sees_all()
        assert await client.runs(job_id) == 1
        assert f"JobId={job_id} " in await client.details(job_id)
        assert await client.record(job_id) is None
        assert not await client.is_unknown(job_id)
        assert await client.is_unknown("99999999")
        await client.cancel("alice", job_id)
        await client.cancel("alice", job_id)
        while (record := await client.record(job_id)) is None:
            await asyncio.sleep(0.3)
        assert record.cause is Cause.CANCELLED

    asyncio.run(life())
    queue_is_empty_within(40, "alice")
