"""Runs on the compute node beside a server: starts engines on the job's nodes, and lets notebooks start further jobs.

It makes a folder that all nodes see, writes variables for the server, and waits. When it is ended, it ends the engines,
cancels the jobs that notebooks have started, and removes the folder. It travels in the job script with `further.py`,
both for Python 3.6 and later, with the standard library alone.
"""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

OURS = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, OURS)
from further import SUBMIT, Further, filled, say  # noqa: E402 - it travels beside this one

VARIABLES = "variables.json"
CONTROLLER_S = 60
OLD_S = 60 * 86400
# As `mkdtemp` names them; what each holds besides proves that it is ours, for users may have folders of such names.
OUR_NAME = re.compile("parallel-[0-9A-Za-z]*-[a-z0-9_]{8}")
OUR_FILES = ("environment.sh", "enter", "ipython")
NODE = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
ANY_NET = "192.0.2.1"  # an address that nobody has: a route to it goes by the node's own network

ENTER = """\
#!/bin/bash
# Runs a program in the environment of the server.
. {environment} && exec "$@"
"""

REMOTE = """\
#!/bin/bash
# As ssh would be called: options, then a host, then a command. The host runs it by the scheduler.
while [ "${1#-}" != "$1" ]; do shift; done
host=$1
shift
exec %s /bin/bash -c "$*"
"""


def address():
    """This node's address in the cluster's network, as other nodes reach it."""
    with contextlib.suppress(OSError):
        found = socket.gethostbyname(NODE)
        if not found.startswith("127."):
            return found
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((ANY_NET, 9))
        return probe.getsockname()[0]
    return NODE


class Shared:
    """A folder that all nodes see, for its owner alone."""

    def __init__(self, place, job):
        place = os.path.expanduser(place)
        os.makedirs(place, 0o700, exist_ok=True)
        self._forget_old(place)
        self.path = tempfile.mkdtemp(prefix="parallel-%s-" % job, dir=place)

    def write(self, name, text, mode=0o600):
        """Make a file; return its path."""
        path = self.folder(os.path.dirname(name), os.path.basename(name))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
        return path

    def folder(self, *names):
        """The path of these names below; all but the last are made."""
        path = os.path.join(self.path, *names)
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        return path

    def _forget_old(self, place):
        """Remove what servers left that could not tidy up."""
        for name in os.listdir(place):
            path = os.path.join(place, name)
            with contextlib.suppress(OSError):
                ours = OUR_NAME.fullmatch(name) and all(os.path.exists(os.path.join(path, one)) for one in OUR_FILES)
                if ours and time.time() - os.stat(path).st_mtime > OLD_S:
                    shutil.rmtree(path, ignore_errors=True)


class Profiles:
    """IPYTHONDIR for the server: the user's own, seen through links, and ipyparallel's profiles beside it."""

    def __init__(self, shared):
        self._own = os.environ.get("IPYTHONDIR") or os.path.expanduser("~/.ipython")
        self.path = os.path.dirname(shared.folder("ipython", ""))
        # IPython would make it at the first kernel; without it the history would go with the server.
        os.makedirs(os.path.join(self._own, "profile_default"), 0o755, exist_ok=True)
        self._links = set(os.listdir(self._own))
        for name in self._links:
            os.symlink(os.path.join(self._own, name), os.path.join(self.path, name))
        self._ours = set()

    def add(self, shared, name, configurations):
        """Make a profile unless the user has one of this name; return its folder, or None."""
        if "profile_" + name in self._links:
            say("you have an ipyparallel profile %s of your own, which is used" % name)
            return None
        self._ours.add("profile_" + name)
        for file, text in configurations.items():
            shared.write("ipython/profile_%s/%s" % (name, file), text)
        return os.path.join(self.path, "profile_" + name)

    def bring_home(self):
        """Keep what the user has made there."""
        for name in set(os.listdir(self.path)) - self._links - self._ours:
            with contextlib.suppress(OSError):
                shutil.move(os.path.join(self.path, name), os.path.join(self._own, name))


class Parallel(Further):
    """Engines and jobs of one server."""

    def __init__(self, settings):
        self.settings = settings
        self.backend = settings["backend"]
        job = os.environ.get("HPC_JOB", "")
        number = "".join(c for c in job.partition(".")[0] if c.isalnum())
        # 15 characters are what Torque takes.
        self.name = ("hpc-%s" % number)[:15]
        self.shared = Shared(settings["folder"], number)
        self.address = address()
        self.environment = self.shared.write("environment.sh", own("environment.sh"))
        self.enter = self.shared.write("enter", ENTER.format(environment=shlex.quote(self.environment)), 0o700)
        self.log = os.path.dirname(self.shared.folder("log", ""))
        self.profiles = Profiles(self.shared)
        self.running = []

    # ---- what the server gets

    def variables(self):
        """Variables for the server."""
        path = os.environ.get("PATH", os.defpath)
        found = {"IPYTHONDIR": self.profiles.path, "HPC_PARALLEL": self.shared.path}
        if self.settings["jobs"]:
            for name in self.backend["commands"]:
                self.shared.write("bin/" + name, SUBMIT, 0o700)
            path = os.pathsep.join([os.path.join(self.shared.path, "bin"), path, *self.settings["path"]])
            found.update(PATH=path, DASK_CONFIG=self._dask())
            self.profiles.add(self.shared, "hpc", self._hpc())
        return found

    # ---- engines in this job

    def start_engines(self):
        """Start a controller here, and an engine on each core of the job."""
        profile = self.profiles.add(self.shared, "job", {"ipcontroller_config.py": self._controller()})
        if profile is None:
            return
        python = [self.enter, "python3"]
        self._run([*python, "-m", "ipyparallel.controller", "--profile-dir=" + profile], "controller")
        with_mpi = self._succeeds([*python, "-c", "import mpi4py"])
        engine = [*python, "-m", "ipyparallel.engine", "--profile-dir=" + profile]
        if not self._appears(os.path.join(profile, "security", "ipcontroller-engine.json")):
            say("ipyparallel's controller did not start; no engine is started. See %s/controller.log" % self.log)
            return
        self._run(self._spread(engine, with_mpi), "engines")

    def _spread(self, engine, with_mpi):
        """The argv that starts an engine on each core, where it can in one MPI world."""
        backend, nodes = self.backend, allocated()
        count = sum(cores for _, cores in nodes)
        if not backend["select"]:
            words = filled(backend["spread"], n=count)
            if with_mpi:
                kind = self.settings["mpi"]
                words += filled([backend["mpi"]], mpi=kind) if kind else []
                engine = [*engine, "--mpi"]
            return [*words, *engine]
        launcher = self._mpiexec(nodes, count) if with_mpi else None
        return [*launcher, *engine, "--mpi"] if launcher else [*backend["spread"], *engine]

    def _mpiexec(self, nodes, count):
        """The argv of the environment's own mpiexec, which reaches the other nodes by the scheduler; None without."""
        said = self._said([self.enter, "mpiexec", "--version"])
        remote = self.backend["remote"]
        if not said or not remote or not shutil.which(remote[0], path=self._path()):
            return None
        hosts = self.shared.write("hosts", "".join("%s:%d\n" % node for node in nodes))
        words = " ".join('"$host"' if word == "{host}" else shlex.quote(word) for word in remote)
        shell = self.shared.write("remote", REMOTE % words, 0o700)
        if "Open MPI" in said or "OpenRTE" in said:
            slots = self.shared.write("hosts", "".join("%s slots=%d\n" % node for node in nodes))
            agent = ["--mca", "plm_rsh_agent", shell, "--hostfile", slots]
            return [self.enter, "mpiexec", *agent, "-n", str(count)]
        return [self.enter, "mpiexec", "-launcher", "ssh", "-launcher-exec", shell, "-f", hosts, "-n", str(count)]

    def _run(self, argv, name):
        """Start a program that lives as long as the server."""
        with open(self.shared.folder("log", name + ".log"), "ab") as log:
            variables = dict(os.environ, PATH=self._path(), IPYTHONDIR=self.profiles.path)
            for secret in [one for one in variables if one.startswith(("JUPYTERHUB_", "JPY_"))]:
                del variables[secret]
            one = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=variables)
        self.running.append(one)

    def _appears(self, path):
        deadline = time.monotonic() + CONTROLLER_S
        while not os.path.exists(path) and time.monotonic() < deadline and self.running[-1].poll() is None:
            time.sleep(0.1)
        return os.path.exists(path)

    # ---- the end

    def end(self):
        """End the engines and the jobs, and leave nothing behind."""
        for one in self.running:
            with contextlib.suppress(OSError):
                one.terminate()
        if self.settings["jobs"]:
            self._cancel()
        deadline = time.monotonic() + 5
        for one in reversed(self.running):
            try:
                one.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                one.kill()
        self.profiles.bring_home()
        shutil.rmtree(self.shared.path, ignore_errors=True)


def allocated():
    """The nodes of this job, the first one first, and how many cores it has on each."""
    file = os.environ.get("PBS_NODEFILE")
    if file:
        with open(file) as lines:
            names = [line.strip() for line in lines if line.strip()]
        return [(name, names.count(name)) for name in sorted(set(names), key=names.index)]
    counts = []
    # Such as "4(x2),1": two nodes with four, one with one.
    for part in os.environ.get("SLURM_JOB_CPUS_PER_NODE", "1").split(","):
        cores, _, times = part.partition("(x")
        counts += [int(cores)] * int(times.rstrip(")") or 1)
    return [("", cores) for cores in counts]


def own(name):
    """The text of a file beside this one."""
    with open(os.path.join(OURS, name), encoding="utf-8") as file:
        return file.read()


def main():
    """Work until a signal comes."""
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(wake)
    parallel = Parallel(json.loads(own("parallel.json")))
    try:
        new = os.path.join(OURS, VARIABLES + ".new")
        with open(new, "w") as file:
            json.dump(parallel.variables(), file)
        os.rename(new, os.path.join(OURS, VARIABLES))
        if parallel.settings["engines"]:
            parallel.start_engines()
        os.read(ended, 1)
    finally:
        parallel.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
