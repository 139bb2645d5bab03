"""What the scheduler's own submit command finds in a job: each option by its name and value, whatever users type."""

import itertools
import json
import os
import random
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import parse_qs, urlencode

import pytest
from attack.options import Bodies, soup
from cluster.conftest import on_head
from cluster.conftest import profile as offered
from support.schedulers import HAS_TORQUE, attributes, torque

from hpcspawner.errors import RequestError
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.schedulers.torque import Torque
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import load

SEED = 20261126
COUNT = int(os.environ.get("GRAMMAR_JOBS", "4000"))
"""Jobs that are looked at; as many bodies again, and more, are refused by the gate."""
ALICE = LocalAccount("alice", "/home/alice")
LABEL = JobLabel("jupyter-alice", "h3f2a9c0b1d4e55")
HOME = CallHome("https://hub.example.org/hub/api/hpcspawner", "ticket")
# As root, which need not become alice: nothing is submitted.
TEST = ("-vvv", "--test-only")


def site_of(scheduler, lab, folder):
    text = offered(scheduler, lab, gpus="v100" if scheduler == "slurm" else "any")
    site = folder / f"{scheduler}.toml"
    site.write_text('reservation = "optional"\n' + text, encoding="utf-8")
    return load(site)


@pytest.fixture(scope="module")
def profile(lab, tmp_path_factory):
    return site_of("slurm", lab, tmp_path_factory.mktemp("site"))


def bodies(profile):
    """Options with hostile texts in every field, as each door hands them on, for ever."""
    chance = random.Random(SEED)
    for number, body in enumerate(Bodies(SEED, profile, hostility=0.3)):
        if chance.random() < 0.8:
            body["directory"] = f"/scratch/{soup(chance)}"
        for name in ("account", "reservation"):
            if chance.random() < 0.1:
                body[name] = soup(chance)
        yield _DOORS[number % len(_DOORS)](body)


def by_form(body):
    return read(_as_form(body))


def by_link(body):
    return read(parse_qs(urlencode(_as_form(body), doseq=True), keep_blank_values=True))


def by_rest(body):
    return json.loads(json.dumps(body))


_DOORS = (by_form, by_link, by_rest)


def _as_form(body):
    texts = {name: value if isinstance(value, list) else [value] for name, value in body.items()}
    return {
        str(name).encode("utf-8", "replace").decode(): [
            (one if isinstance(one, str) else json.dumps(one)).encode("utf-8", "replace").decode() for one in values
        ]
        for name, values in texts.items()
    }


def accepted(profile, count):
    """Requests that the gate lets through, and how many bodies it refused for them."""
    requests, refused = [], 0
    for body in bodies(profile):
        try:
            requests.append(make(body, profile, ALICE))
        except RequestError:
            refused += 1
        if len(requests) == count:
            return requests, refused
    raise AssertionError("the supply has no end")


# What sbatch says that it has found, between these two lines.
_FOUND = re.compile(r"sbatch: defined options\nsbatch: [- ]+\n(.*?)sbatch: [- ]+\nsbatch: end of defined", re.DOTALL)


def found_by_sbatch(words, script):
    done = subprocess.run(
        [*words, *TEST],
        input=script,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"PATH": "/usr/bin:/bin"},
    )
    match = _FOUND.search(done.stderr)
    assert match, f"sbatch could not read it: {done.stderr[-500:]}"
    pairs = [line.removeprefix("sbatch: ").split(":", 1) for line in match[1].splitlines()]
    # Newer releases write gres/gpu.
    return {name.strip(): value.strip().replace("gres/", "gres:") for name, value in pairs}


def wanted_of_slurm(request):
    """What the request asks for, in sbatch's words; by the documentation of sbatch, not by our own code."""
    asked = request.resources
    size = {
        "ntasks-per-node": asked.cpus if asked.nodes > 1 else 1,
        "cpus-per-task": 1 if asked.nodes > 1 else asked.cpus,
    }
    gpus = ":".join(filter(None, ("gres:gpu", asked.gpu_type, str(asked.gpus)))) if asked.gpus else None
    options = {
        "account": asked.account,
        "qos": asked.qos,
        "reservation": asked.reservation,
        "constraint": "&".join(asked.features) or None,
        "gres": gpus,
        "mem": _memory(asked.memory.mib) if asked.memory else None,
        "nodes": asked.nodes,
        "partition": asked.partition,
        "time": _time(asked.walltime.seconds),
        "signal": "B:USR1@300" if asked.warning_s else None,
        **size,
    }
    fixed = {
        "chdir": "/",
        "comment": LABEL.tag,
        "export": "ALL",
        "ignore-pbs": "set",
        "job-name": LABEL.name,
        "no-requeue": "no-requeue",
        "output": "/dev/null",
        "parsable": "set",
        "test-only": "set",
        "verbose": "3",
    }
    return fixed | {name: str(value) for name, value in options.items() if value is not None}


def _memory(mib):
    units = itertools.takewhile(lambda unit: mib % 1024**unit == 0, range(1, 4))
    power = max(units, default=0)
    return f"{mib // 1024**power}{('', 'G', 'T', 'P')[power]}"


def _time(seconds):
    """Slurm counts in minutes, and rounds up."""
    minutes = -(-seconds // 60)
    days, rest = divmod(minutes, 24 * 60)
    return f"{f'{days}-' if days else ''}{rest // 60:02}:{rest % 60:02}:00"


def test_sbatch_finds_what_was_asked_for_and_nothing_else(profile):
    requests, refused = accepted(profile, COUNT)
    assert refused > COUNT / 10, "a gate that refuses nothing shows nothing"
    scheduler = Slurm()

    def look(request):
        job = submission(request, scheduler, profile.job, LABEL, HOME)
        words = submit_words(scheduler, job.options, profile.directives)
        return found_by_sbatch(words, job.script), request

    with ThreadPoolExecutor(4) as pool:
        for found, request in pool.map(look, requests):
            assert found == wanted_of_slurm(request), request.directory
    hostile = sum(bool(set("'\"\\#") & set(request.directory)) for request in requests)
    print(f"{len(requests)} jobs read by sbatch, {hostile} of them with quotes, backslashes or # in their folder")
    assert hostile > COUNT / 3


def test_a_script_with_an_option_would_be_seen(profile):
    """The examination itself: sbatch says what it finds in a script, and it is not what was asked for."""
    request = make({}, profile, ALICE)
    job = submission(request, Slurm(), profile.job, LABEL, HOME)
    words = submit_words(Slurm(), job.options, profile.directives)
    spoiled = job.script.replace(
        "#!/bin/bash\n",
        "#!/bin/bash\n#SBATCH --chdir='/x\\'\"'\"'\" --wckey=bob --x=\\'\n".replace("--x", "--comment"),
        1,
    )
    found = found_by_sbatch(words, spoiled)
    assert found != wanted_of_slurm(request)
    assert found["wckey"] == "bob"


if HAS_TORQUE:
    # One number for each job: the server keeps them all until they are looked at.
    TORQUE_COUNT = COUNT // 4

    def test_torque_finds_what_was_asked_for_and_nothing_else(lab, tmp_path):
        profile, scheduler = site_of("torque", lab, tmp_path), Torque()
        requests, refused = accepted(profile, TORQUE_COUNT)
        assert refused > TORQUE_COUNT / 10

        def submit(request):
            job = submission(request, scheduler, profile.job, LABEL, HOME)
            _, *words = submit_words(scheduler, job.options, profile.directives)
            # Held, so that none runs; the option is not one of a job's.
            argv = ["runuser", "-u", ALICE.name, "--", torque("qsub"), "-h", *words]
            done = subprocess.run(argv, input=job.script, capture_output=True, text=True, check=False, cwd="/")
            assert done.returncode == 0, f"{words} {done.stderr}"
            return done.stdout.strip()

        try:
            with ThreadPoolExecutor(4) as pool:
                ids = list(pool.map(submit, requests))
            jobs = attributes(on_head(torque("qstat"), "-x"))
            for job_id, request in zip(ids, requests, strict=True):
                assert found_by_torque(jobs[job_id]) == wanted_of_torque(request), request.directory
        finally:
            on_head("runuser", "-u", ALICE.name, "--", torque("qdel"), "all", check=False)

    def test_a_script_with_an_option_is_read_by_torque_only_without_its_c(lab, tmp_path):
        """The examination itself: without `-C ""` the server has what the script says."""
        profile, scheduler = site_of("torque", lab, tmp_path), Torque()
        request = make({}, profile, ALICE)
        job = submission(request, scheduler, profile.job, LABEL, HOME)
        _, *words = submit_words(scheduler, job.options, profile.directives)
        spoiled = job.script.replace("#!/bin/bash\n", "#!/bin/bash\n#PBS -A bob\n", 1)
        at = words.index("-C")
        for argv, agrees in ((words, True), (words[:at] + words[at + 2 :], False)):
            line = ["runuser", "-u", ALICE.name, "--", torque("qsub"), "-h", *argv]
            job_id = on_head(*line, stdin=spoiled).strip()
            found = found_by_torque(attributes(on_head(torque("qstat"), "-x", job_id))[job_id])
            on_head("runuser", "-u", ALICE.name, "--", torque("qdel"), job_id)
            assert (found == wanted_of_torque(request)) is agrees


# What the server adds to every job by itself.
_TORQUES_OWN = {
    *("Checkpoint", "Hold_Types", "Job_Owner", "Keep_Files", "Priority", "Resource_List", "Variable_List", "server"),
    *("ctime", "egroup", "etime", "euser", "fault_tolerant", "init_work_dir", "job_radix", "job_state", "mtime"),
    *("qtime", "queue_rank", "queue_type", "request_version", "submit_args", "submit_host", "substate", "Job_Id"),
    *("Resource_List.nodect", "Resource_List.neednodes", "Error_Path", "comment"),
}


def found_by_torque(record):
    variables = {text.partition("=")[0] for text in record["Variable_List"].split(",") if "=" in text}
    assert all(name.startswith("PBS_O_") for name in variables), variables
    return {name: value for name, value in record.items() if name not in _TORQUES_OWN}


def wanted_of_torque(request):
    """What the request asks for, in the words of `qstat -x`; by Torque's documentation, not by our own code."""
    asked = request.resources
    gpus = [f"gpus={asked.gpus}", *([asked.gpu_type] if asked.gpu_type else [])] if asked.gpus else []
    hours, rest = divmod(asked.walltime.seconds, 3600)
    options = {
        "Account_Name": asked.account,
        "Resource_List.nodes": ":".join([str(asked.nodes), f"ppn={asked.cpus}", *gpus, *asked.features]),
        "Resource_List.walltime": f"{hours:02}:{rest // 60:02}:{rest % 60:02}",
        "Resource_List.qos": asked.qos,
        "Resource_List.advres": asked.reservation,
        "Resource_List.mem": f"{asked.memory.mib}mb" if asked.memory and asked.nodes == 1 else None,
        "Resource_List.pmem": f"{asked.memory.mib // asked.cpus}mb" if asked.memory and asked.nodes > 1 else None,
        "queue": asked.partition,
    }
    fixed = {
        "Job_Name": LABEL.tag,
        "Join_Path": "oe",
        "Mail_Points": "n",
        "Output_Path": "head:/dev/null",
        "Rerunable": "False",
        "Shell_Path_List": "/bin/bash",
    }
    return fixed | {name: value for name, value in options.items() if value is not None}
