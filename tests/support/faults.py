"""Faults of the real cluster, each undone by itself: of the controller, a node's daemon or network, a home, a database.

They need root on the cluster's head, where the tests run. Only processes that the lab has started are touched, by id.
"""

import contextlib
import fcntl
import os
import signal
import socket
import sqlite3
import subprocess
import time
from pathlib import Path

from support.schedulers import HAS_TORQUE, torque

PBS_SERVER = "/opt/torque/sbin/pbs_server"


class Lab:
    """The cluster's folder: where its daemons' ids are and how to start them again."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def pid(self, daemon):
        """The id of `slurmctld` or of `slurmd.n1`, as its daemon wrote it down."""
        pid = int((self.folder / "run" / f"{daemon}.pid").read_text())
        # Newer Slurms' daemons are called slurmd-wlm once they have been reconfigured.
        name = Path(f"/proc/{pid}/comm").read_text().strip().removesuffix("-wlm")
        assert name == daemon.split(".")[0], f"{daemon} is not {pid} but {name}"
        return pid

    def on(self, host, *argv):
        """Run a command on a host of the lab."""
        # A daemon keeps what it inherits, so pipes would never come to an end.
        done = subprocess.run(
            [str(self.folder / ("h" if host == "head" else host)), *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            cwd="/",
        )
        assert done.returncode == 0, f"{argv} on {host}: exit code {done.returncode}"

    def end(self, daemon, number=signal.SIGTERM):
        """End a daemon and wait until it is gone."""
        pid = self.pid(daemon)
        os.kill(pid, number)
        within(30, lambda: not _lives(pid), f"{daemon} does not end")

    def controllers_answer(self):
        asked = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=60, cwd="/")
        return "is UP" in asked.stdout and (not HAS_TORQUE or _succeeds(torque("qstat"), "-B"))

    @contextlib.contextmanager
    def controller_stopped(self):
        """No slurmctld, no pbs_server: who calls is refused at once. They come back with what they knew."""
        self.end("slurmctld")
        if HAS_TORQUE:
            # By SIGTERM it goes on answering for up to a minute; by SIGKILL it may not be able to read its jobs again.
            pid = self.pid("pbs_server")
            self.on("head", torque("qterm"), "-t", "quick")
            within(60, lambda: not _lives(pid), "pbs_server does not end")
        try:
            yield
        finally:
            self.on("head", "slurmctld")
            within(90, self._controllers_are_back, "slurmctld or pbs_server does not answer again")

    def forget_jobs(self):
        """A slurmctld that has lost all its state: it knows no job, and its ids begin anew."""
        self.end("slurmctld")
        for file in (self.folder / "spool" / "ctld").iterdir():
            if file.is_file():
                file.unlink()
        self.on("head", "slurmctld")
        within(90, self.controllers_answer, "slurmctld does not answer again")
        within(90, self._nodes_are_idle, "the nodes do not come back")

    def _nodes_are_idle(self):
        asked = ["sinfo", "--noheader", "--Node", "--format=%T"]
        states = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60, cwd="/").stdout
        return set(states.split()) == {"idle"}

    def _controllers_are_back(self):
        """Whether both answer. Torque's is started as a service manager would: again, where it has ended by itself."""
        pidfile = self.folder / "run" / "pbs_server.pid"
        if HAS_TORQUE and not _lives(int(pidfile.read_text().strip("\0\n"))):
            start = 'setsid "$0" -F >/dev/null 2>&1 & echo $! >"$1"'
            self.on("head", "bash", "-c", start, PBS_SERVER, str(pidfile))
        return self.controllers_answer()

    @contextlib.contextmanager
    def controller_hangs(self):
        """A slurmctld and a pbs_server that take calls and answer none."""
        pids = [self.pid(name) for name in ("slurmctld", *(["pbs_server"] if HAS_TORQUE else []))]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
            within(60, self.controllers_answer, "slurmctld or pbs_server does not answer again")

    @contextlib.contextmanager
    def node_daemon_killed(self, node):
        """No slurmd on this node; its jobs' own processes live on."""
        self.end(f"slurmd.{node}", signal.SIGKILL)
        try:
            yield
        finally:
            self.on(node, "slurmd", "-N", node)
            within(60, lambda: usable(node), f"{node} does not come back")

    @contextlib.contextmanager
    def cut(self, node):
        """This node's cable is out."""
        link = f"v{node[1:]}"
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        try:
            yield
        finally:
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
            within(90, lambda: usable(node), f"{node} does not come back")

    @contextlib.contextmanager
    def home_is(self, node, user, how):
        """On this node the user's home is "full" or "read-only", for jobs that start now."""
        inside = ["nsenter", f"--target={self.pid(f'slurmd.{node}')}", "--mount"]
        home = f"/home/{user}"
        if how == "full":
            options = f"size=64k,mode=755,uid={_uid(home)},gid={_uid(home)}"
            subprocess.run([*inside, "mount", "-t", "tmpfs", "-o", options, "tmpfs", home], check=True)
            # Until it takes nothing more; that this fails is the point.
            subprocess.run(
                [*inside, "sh", "-c", f"head -c 1M /dev/zero >{home}/all-of-it"], check=False, stderr=subprocess.DEVNULL
            )
        else:
            subprocess.run([*inside, "mount", "--bind", home, home], check=True)
            subprocess.run([*inside, "mount", "-o", "remount,bind,ro", home], check=True)
        try:
            yield
        finally:
            # A job that still ends there keeps it busy; lazily it goes when the job does.
            subprocess.run([*inside, "umount", "--lazy", home], check=True)


@contextlib.contextmanager
def accounts_stay():
    """No test of another suite changes the machine's accounts meanwhile.

    A file that takes the place of /etc/passwd takes away what somebody has mounted on it, in every namespace.
    """
    with open("/run/hpcspawner-tests.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class SilentUserDatabase:
    """A user database that knows some users no more and lets everybody wait, for one process and what it starts.

    The process is started with `prefix` before its command, and `heal` brings the users back. The C library asks the
    socket of a name service daemon first, and waits 5 s for an answer.
    """

    _HIDE = 'mount --bind "$1" /etc/passwd && mount --bind "$2" /run/nscd && shift 2 && exec "$@"'

    def __init__(self, folder, users):
        folder = Path(folder)
        self._held = contextlib.ExitStack()
        self._held.enter_context(accounts_stay())
        entries = Path("/etc/passwd").read_text().splitlines(keepends=True)
        (folder / "passwd").write_text("".join(line for line in entries if line.split(":")[0] not in users))
        (folder / "nscd").mkdir()
        (folder / "nscd").chmod(0o755)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(folder / "nscd" / "socket"))
        (folder / "nscd" / "socket").chmod(0o666)
        self._socket.listen(1000)
        Path("/run/nscd").mkdir(exist_ok=True)
        hide = ["sh", "-c", self._HIDE, "-", str(folder / "passwd"), str(folder / "nscd")]
        self.prefix = ["unshare", "--mount", "--propagation", "private", *hide]

    def heal(self, pid):
        """Let the process see the users again."""
        inside = ["nsenter", f"--target={pid}", "--mount"]
        for place in ("/run/nscd", "/etc/passwd"):
            subprocess.run([*inside, "umount", place], check=True)
        self._socket.close()
        self._held.close()


@contextlib.contextmanager
def locked(*databases):
    """Somebody else holds these SQLite files and lets nobody in, not even to read."""
    with contextlib.ExitStack() as stack:
        for path in databases:
            connection = stack.enter_context(
                contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None))
            )
            connection.execute("BEGIN EXCLUSIVE")
            stack.callback(connection.execute, "ROLLBACK")
        yield


def _succeeds(*argv):
    return subprocess.run(argv, capture_output=True, check=False, timeout=60, cwd="/").returncode == 0


def usable(node):
    """Whether the node takes jobs; a node that the controller had given up on is woken."""
    state = subprocess.run(
        ["sinfo", "-hN", "-n", node, "-o", "%T"], capture_output=True, text=True, check=False, cwd="/"
    )
    words = set(state.stdout.split())
    if words and words <= {"idle", "mixed", "allocated", "completing"}:
        return True
    subprocess.run(
        ["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True, check=False, cwd="/"
    )
    return False


def within(seconds, condition, complaint):
    """Wait until `condition()` holds; how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, f"{complaint() if callable(complaint) else complaint} ({seconds} s)"
        time.sleep(0.2)
    return time.monotonic() - began


def _lives(pid):
    try:
        # A zombie has ended, whoever should have noticed.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def _uid(path):
    return Path(path).stat().st_uid
