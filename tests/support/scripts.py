"""Job scripts of the smallest site, run by bash with a stand-in for the launcher's Python."""

import json
import os
import shlex
import signal
import subprocess
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.local import Local
from hpcspawner.script.render import render
from hpcspawner.script.settings import CallHome
from hpcspawner.script.text import quote
from hpcspawner.site.profile import SiteProfile
from support.launcher import SOURCE

BIN = Path(__file__).parents[1] / "unit" / "bin"
LABEL = JobLabel("jupyter-alice", "h3f2a9c0b1d4e55")
HOME = CallHome("https://hub.example.org/hub/api/hpcspawner", "TICKET-STANDS-HERE")
SMALL_SITE = {
    "title": "Smallest",
    "scheduler": {"type": "local"},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "environments": [{"name": "plain"}],
}


def with_setup(*lines, job=None, **environment):
    """The smallest site with one environment that is set up by these lines."""
    return SMALL_SITE | {"environments": [{"name": "plain", "setup": lines, **environment}], "job": job or {}}


def small_script(options, profile, **call_home):
    """The job script of the embedded scheduler for alice."""
    profile = SiteProfile.model_validate(profile)
    request = make(options, profile, LocalAccount("alice", "/home/alice"))
    return render(request, Local(Path("/var/lib/hub/spool"), 2), profile.job, LABEL, replace(HOME, **call_home))


def taken_apart(text):
    """The lines of a script that are shell, and the launcher's settings. Each of both must be one word of bash."""
    whole = quote(SOURCE)
    assert text.count(whole) == 1, "the launcher does not stand in the script once"
    # Not splitlines: neither bash nor a scheduler ends a line at a form feed or at a Unicode separator.
    lines = text.replace(whole, "LAUNCHER").split("\n")
    before, after = "  exec 3< <(printf '%s\\n' LAUNCHER) 4< <(printf '%s\\n' ", ")"
    places = [number for number, line in enumerate(lines) if line.startswith(before)]
    assert len(places) == 1, "the settings do not stand in the script once"
    line = lines.pop(places[0])
    assert line.endswith(after)
    (settings,) = shlex.split(line[len(before) : -len(after)])
    return lines, json.loads(settings)


class Run:
    """One job script under way, with a stand-in for the launcher's Python."""

    def __init__(self, folder, text, does="", home=True, variables=None, within=()):
        self.folder = folder
        self.record = folder / "record"
        self.home = folder / "the home"
        self.record.mkdir()
        if home:
            self.home.mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(BIN / "launcher-python")
        self.file = folder / "job.sh"
        self.file.write_text(text, encoding="utf-8")
        self.does = does
        self.variables = variables or {}
        self.within = within
        self.process = self.again()

    def again(self):
        """Run the script as the scheduler does, the first time or another."""
        return subprocess.Popen(
            [*self.within, "bash", str(self.file)],
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "HOME": str(self.home),
                "HPC_LOCAL_JOBID": "12",
                "HPC_TEST_RECORD": str(self.record),
                "HPC_TEST_DOES": self.does,
                "LC_ALL": "C",
                "SUDO_USER": "hub",
                **self.variables,
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
        )

    def ends(self):
        return self.process.wait(20)

    def recorded(self, name):
        return (self.record / name).read_text(encoding="utf-8")

    def environment(self):
        pairs = self.recorded("environment").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    def wait_until_ready(self):
        self.wait_until(self.record / "ready")

    def wait_until(self, file, text=""):
        """Wait until a file is there and holds a text."""
        deadline = time.monotonic() + 10
        while not file.exists() or text not in file.read_text():
            assert time.monotonic() < deadline, f"{file.name} did not come"
            time.sleep(0.01)

    @property
    def log(self):
        return self.home / ".hpcspawner" / LABEL.log("12")


@contextmanager
def job_runs(folder):
    """A function that starts a job script in `folder`; what still runs at the end is killed."""
    runs = []

    def start(options=None, *, profile=SMALL_SITE, does="", home=True, variables=None, within=(), **call_home):
        text = small_script(options or {}, profile, **call_home)
        runs.append(Run(folder, text, does, home, variables or {}, within))
        return runs[-1]

    yield start
    for one in runs:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()
