"""The real cluster: its own head and nodes in network namespaces. These tests run on its head."""

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from support.hub import Hub, require
from support.schedulers import HAS_OPENPBS, HAS_TORQUE, PATHS, SCHEDULERS, attributes, openpbs, openpbs_jobs, torque

PROFILE = """\
title = "Test cluster"

[scheduler]
type = "{scheduler}"
path = {path}

[[partitions]]
name = "debug"
max_walltime = "30m"
max_cpus = 4
max_memory = "4G"

[[partitions]]
name = "compute"
max_walltime = "2d"
max_nodes = 2
max_cpus = 32
max_memory = "64G"
features = ["skylake"]
qos = ["normal", "debug"]

[[partitions]]
name = "gpu-shared"
max_walltime = "1d"
max_cpus = 16
max_memory = "16G"
gpus = {{ {gpus} = 4 }}

[defaults]
partition = "compute"
memory = "1G"
environment = "jupyter"

[[images]]
name = "torch"
path = "/images/torch.simg"

[[environments]]
name = "modules"
modules = ["anaconda/3"]

[[environments]]
name = "jupyter"
path = ["{lab}/env/bin"]

[[environments]]
name = "bare"
title = "Python without Jupyter"
path = ["{lab}/env-bare/bin"]

[[environments]]
name = "broken"
title = "Broken modules"
setup = ["echo the module system is away", "false"]
"""


NODES = ("n1", "n2", "n3")


def profile(scheduler, lab, gpus="any"):
    """What these tests' Hubs offer."""
    text = PROFILE.format(scheduler=scheduler, path=json.dumps(PATHS[scheduler]), lab=lab, gpus=gpus)
    return text.replace('qos = ["normal", "debug"]\n', "") if scheduler == "openpbs" else text


@pytest.fixture(scope="session")
def lab():
    """The cluster's folder; `tests/cluster/lab/up` makes it and `tests/run` enters its head."""
    folder = os.environ.get("HPC_LAB")
    assert folder, "these tests run on the test cluster's head: use `make test` or `tests/run cluster`"
    for program in ("sbatch", "squeue", "sudo", *([torque("qsub"), openpbs("qsub")] if HAS_TORQUE else [])):
        require(program)
    return Path(folder)


@pytest.fixture(scope="session")
def head(lab):
    """Run a command on the head, as a user if one is named."""
    return on_head


def on_head(*argv, user=None, check=True, stdin=None):
    prefix = ["sudo", "-n", "-u", user] if user else []
    done = subprocess.run([*prefix, *argv], capture_output=True, text=True, input=stdin, check=False, cwd="/")
    if check:
        assert done.returncode == 0, f"{argv}: {done.stdout} {done.stderr}"
    return done.stdout


def jobs_of(user):
    """Ids of the user's jobs that are not over, as squeue and qstat show them."""
    of_slurm = on_head("squeue", "--noheader", f"--user={user}", "--format=%i").split()
    return [*of_slurm, *torque_jobs_of(user), *openpbs_jobs_of(user)]


def torque_jobs_of(user):
    if not HAS_TORQUE:
        return []
    jobs = attributes(on_head(torque("qstat"), "-x"))
    return [job_id for job_id, job in jobs.items() if job["euser"] == user and job["job_state"] != "C"]


def openpbs_jobs_of(user):
    if not HAS_OPENPBS:
        return []
    jobs = openpbs_jobs(on_head(openpbs("qstat"), "-f", "-F", "json"))
    return [job_id for job_id, job in jobs.items() if job["Job_Owner"].partition("@")[0] == user]


def shown(job_id):
    """What `scontrol show job` or qstat says, as pairs; the ids of Torque and OpenPBS name the server."""
    if job_id.endswith(".openpbs"):
        return openpbs_jobs(on_head(openpbs("qstat"), "-x", "-f", "-F", "json", job_id))[job_id]
    if "." in job_id:
        return attributes(on_head(torque("qstat"), "-x", job_id))[job_id]
    words = on_head("scontrol", "show", "job", job_id).split()
    record = dict(word.split("=", 1) for word in words if "=" in word)
    if "TresPerNode" in record:
        # As newer Slurms write it.
        record["TresPerNode"] = record["TresPerNode"].replace("gres:", "gres/")
    # Newer Slurms tell what was given from what was asked.
    given, asked = record.get("AllocTRES", "(null)"), record.get("ReqTRES", "")
    return {"TRES": asked if given == "(null)" else given} | record


def script_of(job_id):
    """The job script as the scheduler keeps it, for root to read."""
    if "." in job_id:
        return Path(f"/var/spool/torque/server_priv/jobs/{job_id}.SC").read_text()
    return on_head("scontrol", "write", "batch_script", job_id, "-")


def queue_is_empty_within(seconds, *users):
    """How long it took until no job of these users was left; fails when it takes longer."""
    began = time.monotonic()
    while any(jobs_of(user) for user in users):
        assert time.monotonic() - began < seconds, f"jobs are left: {[jobs_of(user) for user in users]}"
        time.sleep(0.2)
    return time.monotonic() - began


@pytest.fixture(autouse=True)
def nothing_left(lab):
    """Every test begins and ends with an empty queue."""
    cancel_all()
    queue_is_empty_within(30, "alice", "bob")
    yield
    left = {user: jobs_of(user) for user in ("alice", "bob") if jobs_of(user)}
    cancel_all()
    assert not left, f"jobs were left behind: {left}"


@contextlib.contextmanager
def drained(*nodes):
    """These nodes take no new job; afterwards they do again. Torque's queues have no nodes of their own: all are."""
    on_head("scontrol", "update", f"nodename={','.join(nodes)}", "state=drain", "reason=test")
    if HAS_TORQUE:
        on_head(torque("pbsnodes"), "-o", *NODES)
    try:
        yield
    finally:
        if HAS_TORQUE:
            on_head(torque("pbsnodes"), "-c", *NODES)
        _wake(nodes)


@contextlib.contextmanager
def reserved(name, **words):
    """A reservation for an hour from now."""
    given = {"StartTime": "now", "Duration": "60"} | words
    on_head("scontrol", "create", "reservation", f"ReservationName={name}", *(f"{k}={v}" for k, v in given.items()))
    try:
        yield
    finally:
        on_head("scontrol", "delete", f"reservationname={name}")


@contextlib.contextmanager
def nothing_starts():
    """No job starts, however much is free. (A Torque whose nodes are offline refuses jobs that want GPUs.)"""
    on_head("scontrol", "update", f"nodename={','.join(NODES)}", "state=drain", "reason=test")
    scheduling("False")
    try:
        yield
    finally:
        scheduling("True")
        _wake(NODES)


def scheduling(word):
    if HAS_TORQUE:
        on_head(torque("qmgr"), "-c", f"set server scheduling = {word}")


def _wake(nodes):
    began = time.monotonic()
    while not _usable(nodes):
        assert time.monotonic() - began < 60, on_head("sinfo", "-N")
        # Refused for a node that is not drained (any more); what counts is the state in the end.
        on_head("scontrol", "update", f"nodename={','.join(nodes)}", "state=resume", check=False)
        time.sleep(0.3)


def _usable(nodes):
    states = dict(line.split() for line in on_head("sinfo", "-hN", "-o", "%N %T").splitlines())
    return all(states[node] in ("idle", "mixed", "allocated") for node in nodes)


def cancel_all():
    # Of several --user, scancel heeds the last one only.
    for user in ("alice", "bob"):
        on_head("scancel", f"--user={user}", check=False)
        for job_id in torque_jobs_of(user):
            on_head(torque("qdel"), job_id, check=False)
        for job_id in openpbs_jobs_of(user):
            on_head(openpbs("qdel"), job_id, check=False)


def made(lab, name):
    """Where an environment of the lab was made: labs beside the first use its own."""
    return str((lab / name).resolve())


@pytest.fixture(scope="session")
def make_hub(lab, tmp_path_factory):
    """A Hub on the head for one scheduler."""

    def make(scheduler, change=("", ""), **kwargs):
        folder = tmp_path_factory.mktemp(f"hub-{scheduler}")
        gpus = "v100" if scheduler == "slurm" else "any"
        site = folder / "site.toml"
        text = profile(scheduler, lab, gpus)
        site.write_text(text.replace(*change) if change[0] else text, encoding="utf-8")
        return Hub(folder, site, host="10.77.0.1", users=("alice", "bob"), **kwargs)

    return make


@pytest.fixture(scope="module", params=SCHEDULERS)
def scheduler(request):
    return request.param


@pytest.fixture(scope="module")
def running_hub(make_hub, scheduler):
    with make_hub(scheduler) as running:
        yield running


@pytest.fixture
def hub(running_hub, nothing_left):
    yield running_hub
    # After a failed test the next one must not meet its server.
    running_hub.stop_servers()


def pytest_sessionfinish():
    """Keep what the drills found."""
    from cluster.drills import record

    if record.rows:
        record.save()
