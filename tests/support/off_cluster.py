"""The cluster of a Hub that reaches it by SSH alone, and the Hub's machine: fixtures of the tests that import them."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import load
from support.entrance import Entrance, ground
from support.hub import example
from support.login_nodes import ACCOUNT, HOST
from support.rights import must

# Of its own: another lab's tests may have theirs at the same time, and all labs share the machine's accounts.
GROUP = "hpcremote"
USER = "alice@example.org"
"""As JupyterHub has her from a login service; the cluster calls her alice."""
HELPER = "/usr/local/libexec/hpcspawner"


class Place:
    """What the admins of the Hub and of the cluster prepare: two login nodes, the key, the helper, the rule."""

    def __init__(self, folder, lab):
        self.folder = folder
        self.entrance = Entrance(folder, (22, 2222), ACCOUNT)
        self.key, self.nodes, self.known_hosts = self.entrance.key, self.entrance.nodes, self.entrance.known_hosts
        self.hub = folder / "hub"
        self.hub.mkdir(mode=0o700)
        addresses = ", ".join(f'"{node.address}"' for node in self.nodes)
        changes = {
            '"hpclogin@login1.example.org", "hpclogin@login2.example.org"': addresses,
            "/etc/jupyterhub/ssh/id": str(self.key),
            "/etc/jupyterhub/ssh/known_hosts": str(self.known_hosts),
            f'helper = "{HELPER}"': f'helper = "{HELPER}"\ncommand_timeout_s = 5\nlook = true',
            "[defaults]": '[own_environments]\nfolders = ["{home}"]\n\n[defaults]',
            "/opt/jupyter/bin": f"{lab}/env/bin",
        }
        self.config = example("off-cluster", self.hub, changes)
        self.site = self.hub / "site.toml"

    def printed(self, *words):
        return must(str(Path(sys.executable).parent / "hpcspawner"), *map(str, words))

    def install(self):
        self.entrance.install(
            self.printed("helper", self.site),
            self.printed("sudoers", self.site, f"--group={GROUP}"),
            self.printed("authorized-key", self.site, f"--key={self.key}.pub", f"--group={GROUP}"),
        )

    def ssh(self, *words, options=(), shared=False):
        """Exit code, output and error output of OpenSSH's client with the Hub's key; connections may be `shared`."""
        if shared:
            options = (
                "-T",
                "-o",
                "ControlMaster=auto",
                "-o",
                f"ControlPath={self.folder}/ssh",
                "-o",
                "ControlPersist=9",
            )
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
    with ground(ACCOUNT, GROUP) as folder:
        place = Place(folder, lab)
        place.install()
        with place.entrance.started():
            yield place


@pytest.fixture(scope="module")
def elsewhere():
    """The machine of the Hub: a network of its own, no users, no homes, no Slurm, no sudo."""
    name, host = f"away{os.getpid()}", "10.77.0.2"
    must("ip", "netns", "add", name)
    try:
        must("ip", "link", "add", "vaway", "type", "veth", "peer", "name", "eth0", "netns", name)
        must("ip", "link", "set", "vaway", "master", "br0", "up")
        for words in ("addr add 10.77.0.2/24 dev eth0", "link set lo up", "link set eth0 up"):
            must("ip", "-n", name, *words.split())
        yield host, [f"--net=/run/netns/{name}"]
    finally:
        must("ip", "netns", "del", name)


BARE = """
for program in sbatch squeue scancel scontrol sacct srun sinfo sudo munge; do
    [ ! -e /usr/bin/$program ] || mount --bind /dev/null /usr/bin/$program
done
printf 'root:x:0:0::/:/bin/sh\\n' >"$0/passwd" && mount --bind "$0/passwd" /etc/passwd
printf 'root:x:0:\\n' >"$0/group" && mount --bind "$0/group" /etc/group
for folder in /home /etc/slurm /run/munge /etc/sudoers.d /usr/local/libexec; do
    mount -t tmpfs tmpfs "$folder"
done
exec "$@"
"""
"""Hides in a mount namespace of its own what a Hub off the cluster does not have."""
