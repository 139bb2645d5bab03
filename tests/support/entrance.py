"""How a Hub elsewhere is let in by SSH, as the admins set it up: a key, login nodes, the helper, the rule for sudo."""

import contextlib
import shutil
import tempfile
from pathlib import Path

from hpcspawner.schedulers import sudo
from hpcspawner.schedulers.factory import make_scheduler
from support.login_nodes import LoginNode, make_key, nothing_is_left
from support.rights import accounts, mounted, must, write

LIBEXEC = Path("/usr/local/libexec")
SUDOERS = Path("/etc/sudoers.d")


class Entrance:
    """One key of the Hub's, and the login nodes that let it in, one for each of the ports."""

    def __init__(self, folder, ports, account, helper="hpcspawner"):
        self.folder, self.helper, self.account = folder, LIBEXEC / helper, account
        self.key, self.keys = folder / "id", folder / "authorized_keys"
        self.public_key = make_key(self.key)
        self.nodes = [LoginNode(folder / f"login{port}", port, self.keys, account) for port in ports]
        self.known_hosts = folder / "known_hosts"
        write(self.known_hosts, "".join(node.known_host for node in self.nodes), 0o644)

    @property
    def access(self):
        """What a profile's `scheduler` says of it."""
        return {
            "ssh": [node.address for node in self.nodes],
            "ssh_key": str(self.key),
            "ssh_known_hosts": str(self.known_hosts),
            "helper": str(self.helper),
        }

    def install(self, helper, rule, line):
        """What hpcspawner prints for the login nodes."""
        write(self.helper, helper, 0o755)
        path = SUDOERS / self.helper.name
        write(path, rule, 0o440)
        must("visudo", "--check", "--strict", f"--file={path}")
        write(self.keys, line, 0o644)

    def install_for(self, profile, group, *, listing=False):
        """The same for a profile that is no file."""
        access = profile.scheduler
        scheduler = make_scheduler(access, Path("/nowhere"), profile.job.leave_out)
        self.install(
            sudo.program(profile, scheduler, "/usr/bin/python3"),
            sudo.sudoers(access, self.account, group, listing=listing, estimate=bool(scheduler.estimate_words)),
            sudo.authorized_key(access, self.public_key, group),
        )

    @contextlib.contextmanager
    def started(self):
        """All its login nodes, until the end."""
        with contextlib.ExitStack() as stack:
            for node in self.nodes:
                node.start()
                stack.callback(node.stop)
            yield self


@contextlib.contextmanager
def ground(account, group, members=("alice",)):
    """A folder that the login nodes' accounts can read, the account, the group, and folders for the admins' files."""
    folder = Path(tempfile.mkdtemp(prefix="hpcspawner-", dir="/run"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.enter_context(accounts(account, group, "/bin/sh", members))
        stack.callback(nothing_is_left, account)
        for name in (SUDOERS, LIBEXEC):
            stack.enter_context(mounted(name, "-t", "tmpfs", "-o", "mode=755", "tmpfs"))
        yield folder
