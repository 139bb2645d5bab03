"""A real sshd on the lab's head as a login node, as many as a test wants, and the Hub's key for them."""

import os
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from support.faults import within

ACCOUNT = "hpclogin"
"""The Hub's account on the login nodes, as `support.rights.accounts` makes it."""
HOST = "10.77.0.1"
_CONFIG = """\
ListenAddress {host}:{port}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {keys}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
AllowUsers {account}
"""


def make_key(path):
    """A key pair without a passphrase; the text of its public half."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return Path(f"{path}.pub").read_text(encoding="ascii")


class LoginNode:
    """One sshd. `keys` is the authorized_keys of the Hub's account, which all nodes have in common.

    `further` are lines of its configuration.
    """

    def __init__(self, folder, port, keys, account=ACCOUNT, further=""):
        self.folder, self.port, self.account = folder, port, account
        folder.mkdir()
        self.public_key = make_key(folder / "host_key")
        text = _CONFIG.format(host=HOST, port=port, folder=folder, keys=keys, account=account)
        (folder / "sshd_config").write_text(text + further, encoding="ascii")
        self.process = None

    @property
    def address(self):
        """As scheduler.ssh has it."""
        return f"{self.account}@{HOST}:{self.port}"

    @property
    def known_host(self):
        """Its line of known_hosts."""
        return f"[{HOST}]:{self.port} {self.public_key}" if self.port != 22 else f"{HOST} {self.public_key}"

    def start(self):
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        argv = ["/usr/sbin/sshd", "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, start_new_session=True)
        within(20, self.answers, "sshd does not answer")

    def answers(self):
        with suppress(OSError), socket.create_connection((HOST, self.port), timeout=5) as connection:
            return connection.recv(4) == b"SSH-"
        return False

    def log(self):
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def connections(self):
        """Ids of sshd's own processes that serve connections: for each one that is root's and one that is not."""
        found, new = [], [self.process.pid]
        while new:
            # Newer releases have programs of their own for a connection: sshd-session, sshd-auth.
            argv = ["pgrep", "--parent", ",".join(map(str, new)), "--exact", "sshd(-session|-auth)?"]
            new = [int(word) for word in subprocess.run(argv, capture_output=True, check=False).stdout.split()]
            found += new
        return found

    def cut(self):
        """End every connection; new ones are welcome. What runs in them is told by the end of its input alone."""
        for pid in self.connections():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self):
        """The node dies: nothing listens, and no connection is left."""
        if self.process is not None:
            # One that came after the count would outlive its node.
            self.process.send_signal(signal.SIGSTOP)
            self.cut()
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)
            self.process.wait(20)
            self.process = None


def nothing_is_left(account=ACCOUNT):
    """Wait until the Hub's account has no process on the login nodes, so that it can be removed."""
    argv = ["ps", "-o", "pid,ppid,etime,args", "--user", account, "--no-headers"]

    def left():
        return subprocess.run(argv, capture_output=True, check=False, text=True).stdout

    within(60, lambda: not left(), lambda: f"sessions are left:\n{left()}")
