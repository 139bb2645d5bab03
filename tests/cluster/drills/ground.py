"""Where drills take place: a Hub on the head whose users' servers are light, and commands that do as they are told."""

import contextlib
import itertools
import json
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from cluster.conftest import on_head
from support.faults import Lab, within
from support.hub import Hub, server_path
from support.schedulers import HAS_TORQUE, attributes, torque

BIN = Path(__file__).parents[1] / "bin"
COMMANDS = {"slurm": ("sbatch", "squeue", "scancel"), "torque": ("qsub", "qstat", "qdel")}
VERBS = ("submit", "list", "cancel")
# Torque 6.1.3's server can't read a running job with GPUs again when it is started anew: there it is the node's cores.
GPUS = ("u020", {"slurm": ("--gres=gpu:4",), "torque": ("-l", "nodes=1:ppn=16:volta")})
WANTS_GPUS = {"slurm": {"gpus": 1}, "torque": {"features": ["volta"]}}
CPUS = ("u019", {"slurm": ("--cpus-per-task=14",)})
"""What keeps a job on `gpu-shared` waiting that wants a GPU, and one that wants many CPUs: who has it, how much."""

PROFILE = """\
title = "Drills"

[scheduler]
type = "{scheduler}"
path = ["{folder}/bin", "/usr/local/bin", "/usr/bin", "/bin"]
command_timeout_s = 15

[[partitions]]
name = "debug"
max_walltime = "30m"
max_cpus = 4
max_memory = "4G"

[[partitions]]
name = "compute"
max_walltime = "2d"
max_cpus = 32
max_memory = "64G"

[[partitions]]
name = "gpu-shared"
max_walltime = "1d"
max_cpus = 16
max_memory = "16G"
gpus = {{ {gpus} = 4 }}
features = ["volta"]

[defaults]
partition = "compute"
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
{more}
"""
EXTRA = """
# Nobody who asks for a server waits long for the answer that it is being started.
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.5}
c.HPCSpawner.stop_limit_s = 5
c.HPCSpawner.housekeeping_interval_s = 5
c.HPCSpawner.orphan_grace_s = 5
"""


_filling = threading.Lock()


class Ground:
    """A Hub, its stand-ins and their orders, the faults of the cluster, and what can be seen of each user's server."""

    def __init__(self, lab, folder, scheduler, users, *, more="", extra=""):
        self.lab, self.scheduler, self.users = Lab(lab), scheduler, users
        self.folder = furnish(lab)
        self.orders, self.seen = self.folder / "orders", self.folder / "seen"
        site = Path(folder) / "site.toml"
        words = {"lab": lab, "folder": self.folder, "gpus": "v100" if scheduler == "slurm" else "any"}
        site.write_text(PROFILE.format(scheduler=scheduler, more=more, **words), encoding="utf-8")
        self.hub = Hub(folder, site, host="10.77.0.1", users=users, extra=EXTRA + extra)
        self.began = 0.0
        self._log_from = 0

    def __enter__(self):
        self.hub.__enter__()
        return self

    def __exit__(self, *error):
        try:
            self.clear()
        finally:
            self.hub.__exit__(*error)
            shutil.rmtree(self.folder)

    # Orders.

    def order(self, name, text=""):
        """Tell the stand-ins or the light servers something; see `bin/`."""
        path = self.orders / name
        path.write_text(f"{text}\n")
        path.chmod(0o666)

    def release(self, *names):
        """Take orders back."""
        for name in names:
            (self.orders / name).unlink(missing_ok=True)

    def calls(self, verb, user=""):
        """How often the command that submits, lists or cancels was called in this drill, by a user if one is named."""
        command = COMMANDS[self.scheduler][VERBS.index(verb)]
        calls = (self.orders / "calls").read_text()
        return len(re.findall(rf"^{command} {user or '[a-z0-9]+'} ", calls, re.MULTILINE))

    # One drill after the other.

    def begin(self):
        """From here on, the log, the accounting and what is called belong to the drill."""
        (self.orders / "calls").write_text("")
        self.began = time.time()
        self._log_from = self.hub.log_file.stat().st_size
        for path in self.seen.iterdir():
            path.unlink()

    def log(self):
        """What the Hub has logged since the drill began."""
        with self.hub.log_file.open("rb") as log:
            log.seek(self._log_from)
            lines = log.read().decode(errors="replace").splitlines()
        # Not the lines about our own looking.
        return "\n".join(line for line in lines if " JupyterHub log:" not in line or "WARNING" in line)

    def clear(self):
        """Nothing of the last drill is left: neither orders nor servers nor jobs."""
        for path in self.orders.iterdir():
            if path.name != "calls":
                path.unlink()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(self._clear, self.users))
        users = {*self.users, GPUS[0], CPUS[0]}
        for user in users & set(queue()):
            cancel_all_of(user)
        within(40, lambda: not users & set(queue()), "jobs of the last drill do not end")

    def _clear(self, user):
        if self.server(user):
            with contextlib.suppress(AssertionError, requests.RequestException):
                self.hub.stop_server(user)

    def fill(self, what):
        """Somebody has all of the GPUs, or most of the CPUs beside them."""
        user, sizes = what
        with _filling:
            if not self._jobs(user):
                if self.scheduler == "slurm":
                    size = ("--partition=gpu-shared", "--mem=100M", "--time=30", *sizes["slurm"])
                    on_head("sbatch", "--chdir=/", "--output=/dev/null", *size, "--wrap=sleep 1800", user=user)
                else:
                    argv = [torque("qsub"), "-q", "gpu-shared", "-j", "oe", "-o", "/dev/null", *sizes["torque"]]
                    on_head(*argv, user=user, stdin="sleep 1800\n")
                within(20, lambda: self._jobs(user) == ["RUNNING"], f"{what} can't be had")

    def _jobs(self, user):
        """The states of the user's jobs in this scheduler."""
        return [state for job, state in queue().get(user, []) if ("." in job) == (self.scheduler == "torque")]

    def free(self, what):
        """They are free again. A pbs_server that has just come back takes a cancel that then has no effect."""

        def is_free():
            cancel_all_of(what[0], self.scheduler)
            return not self._jobs(what[0])

        within(40, is_free, f"{what} can't be freed")

    # What can be seen.

    def servers(self, user):
        """The user's active servers; none while the Hub does not answer."""
        with contextlib.suppress(requests.RequestException, ValueError, KeyError):
            return self.hub.servers(user)
        return {}

    def server(self, user):
        """The user's default server as the Hub's API shows it, or None."""
        return self.servers(user).get("")

    def start(self, user, may=(201, 202), **options):
        """Ask for a server, as a program would."""
        answer = self.hub.api("POST", server_path(user), json=options)
        assert answer.status_code in may, f"{user}: {answer.status_code} {answer.text}"

    def stop(self, user):
        """Ask for its end."""
        answer = self.hub.api("DELETE", server_path(user))
        assert answer.status_code in (202, 204), f"{user}: {answer.status_code} {answer.text}"

    def whoami(self, user):
        """What the user's server says of itself through the proxy, or None."""
        with contextlib.suppress(requests.RequestException, ValueError):
            answer = self.hub.get(f"/user/{user}/whoami", allow_redirects=False)
            return answer.json() if answer.ok else None
        return None

    def waits(self, user):
        """Whether a light server has begun and was told not to listen yet."""
        return (self.seen / f"{user}-waits").exists()

    def facts(self, user):
        """What each of the user's servers that listened knew of itself, in order."""
        found = [json.loads(path.read_text()) for path in self.seen.glob(f"{user}-*.json")]
        return sorted(found, key=lambda fact: fact["started"])

    def jobs(self, user):
        """The user's jobs in words, such as `1 running`."""
        states = [state for _, state in queue().get(user, [])]
        count = {state: states.count(state) for state in sorted(states)}
        return ", ".join(f"{number} {state.lower()}" for state, number in count.items()) or "none"

    def token(self, user):
        """What the token that the user's last server had is worth, and whether any is left over."""
        facts = self.facts(user)
        left = len(self.tokens(user))
        if not facts:
            return "not handed out" if left else "none"
        headers = {"Authorization": f"token {facts[-1]['token']}"}
        good = self.hub.get("/hub/api/user", headers=headers).ok
        return "valid" if good else "revoked" if not left else f"revoked, but {left} left over"

    def tokens(self, user):
        """The user's API tokens, as the Hub's API shows them."""
        return self.hub.api("GET", f"/users/{user}/tokens").json()["api_tokens"]

    def answers(self):
        """Whether the Hub is there."""
        with contextlib.suppress(requests.RequestException):
            return self.hub.get("/hub/health").ok
        return False

    def sees(self, user):
        """What the user sees: the answer of the server, the news of a start, or the Hub's page."""
        server = self.server(user)
        if server is None:
            return self.page(user)
        if server["ready"]:
            answer = self.whoami(user)
            return "the server answers" if answer else "the server does not answer"
        if server["pending"] == "spawn":
            return self.news(user)
        return f"pending {server['pending']}"

    def news(self, user):
        """The newest message of the waiting page."""
        said = ""
        headers = {"Authorization": f"token {self.hub.token}"}
        url = f"{self.hub.url}/hub/api{server_path(user)}/progress"
        ca = self.hub.folder / "ca.pem"
        with (
            contextlib.suppress(requests.RequestException),
            requests.get(url, headers=headers, verify=ca, stream=True, timeout=(10, 2)) as answer,
        ):
            for line in answer.iter_lines(decode_unicode=True):
                if line.startswith("data:"):
                    said = json.loads(line.removeprefix("data:")).get("message", said)
        return said

    def page(self, user):
        """The words of the Hub's page for a server that does not run, as its owner sees it who looks again."""
        # Who has only seen the waiting page has its address.
        address = f"user/{user}/" if self.facts(user) else f"spawn-pending/{user}"
        answer = self.hub.log_in(user).get(f"{self.hub.url}/hub/{address}", timeout=30)
        words = text_of(answer.text[max(0, answer.text.find("<h1")) :].partition("<script")[0])
        return words.removesuffix("Error The error OK").strip()

    def live_rows(self):
        """The ledger's rows of jobs that have not ended: (owner, job id)."""
        with contextlib.closing(sqlite3.connect(self.hub.folder / "hpcspawner.sqlite", timeout=10)) as ledger:
            return ledger.execute("SELECT username, job_id FROM hpcspawner_jobs WHERE ended_at IS NULL").fetchall()

    def never_two_at_once(self, user):
        """By the accounting, jobs of the user's server that the drill has seen did not run side by side."""
        runs = sorted(self._runs(user) if self.scheduler == "slurm" else self._runs_of_torque(user))
        for (_, end, one), (begin, _, other) in itertools.pairwise(runs):
            assert end <= begin, f"{user}: jobs {one} and {other} ran at the same time: {runs}"

    def _runs(self, user):
        fields = "--format=JobID,Submit,Start,End"
        since = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(self.began))
        table = on_head("sacct", "-nPXD", f"--user={user}", f"--starttime={since}", fields)
        for line in table.splitlines():
            job, submitted, start, end = line.split("|")
            if submitted >= since and start[:1].isdigit() and start != end:
                yield start, end if end[:1].isdigit() else "9", job

    def _runs_of_torque(self, user):
        for job, facts in attributes(on_head(torque("qstat"), "-x")).items():
            if facts["euser"] == user and int(facts["ctime"]) >= self.began and facts.get("start_time"):
                # Seconds since 1970, all of the same length.
                yield facts["start_time"], facts.get("comp_time", "9" * 10), job


def queue():
    """Jobs that are not over, by user: (id, state)."""
    found = {}
    for line in on_head("squeue", "--noheader", "--format=%u %i %T").splitlines():
        user, job, state = line.split()
        found.setdefault(user, []).append((job, state))
    for job, facts in attributes(on_head(torque("qstat"), "-x")).items() if HAS_TORQUE else ():
        if facts["job_state"] != "C":
            found.setdefault(facts["euser"], []).append((job, WORDS[facts["job_state"]]))
    return found


WORDS = {"Q": "PENDING", "H": "PENDING", "W": "PENDING", "T": "PENDING", "R": "RUNNING", "E": "COMPLETING"}
"""Torque's states in Slurm's words."""


def cancel_all_of(user, scheduler=""):
    """End the user's jobs, those of one scheduler or all."""
    if scheduler != "torque":
        on_head("scancel", f"--user={user}", check=False)
    if scheduler != "slurm":
        for job, _ in queue().get(user, []):
            if "." in job:
                on_head(torque("qdel"), job, check=False)


def furnish(lab):
    """A folder with the stand-ins, their orders, and what the light servers leave behind."""
    # Users must reach it, and pytest's folders are root's alone.
    folder = Path(tempfile.mkdtemp(prefix="drills-", dir=Path(lab) / "run"))
    folder.chmod(0o755)
    (folder / "bin").mkdir(mode=0o755)
    for name in (*COMMANDS["slurm"], *COMMANDS["torque"]):
        shutil.copy(BIN / "stand-in", folder / "bin" / name)
    shutil.copy(BIN / "light_server.py", folder / "bin" / "light-server")
    for name in ("orders", "seen"):
        (folder / name).mkdir()
        (folder / name).chmod(0o777)
    (folder / "orders" / "calls").touch()
    (folder / "orders" / "calls").chmod(0o666)
    return folder


def text_of(html):
    """A page's words in one line."""
    html = re.sub(r"<(script|style|noscript)\b.*?</\1>", " ", html, flags=re.DOTALL)
    html = re.sub(r"<[^>]*>", " ", html)
    for entity, letter in (
        ("&#39;", "'"),
        ("&#34;", '"'),
        ("&quot;", '"'),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ):
        html = html.replace(entity, letter)
    return " ".join(html.split())
