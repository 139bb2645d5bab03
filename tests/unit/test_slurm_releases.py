"""What each release of Slurm has printed is read alike. The recordings' READMEs say what made them."""

import re
from pathlib import Path

import pytest

from hpcspawner.schedulers import slurm_facts
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.nodes import NodeState
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.slurm_inventory import SlurmInventory
from hpcspawner.schedulers.slurm_words import STATES
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.units import Memory, Walltime

RECORDED = Path(__file__).parents[1] / "recorded"
MARK = "5f0c9a7be1d24386"
ENDS = {
    "exit-0": (Cause.EXITED, "The job ended without an error."),
    "exit-3": (Cause.EXITED, "The job ended with exit code 3."),
    "signal-9": (Cause.EXITED, "The job was killed by signal 9 (SIGKILL)."),
    "timeout": (Cause.WALL_TIME, "The job reached its wall time."),
    "out-of-memory": (Cause.OUT_OF_MEMORY, "more memory than it asked for"),
    "cancelled-by-user": (Cause.CANCELLED, "The job was cancelled by alice."),
    "cancelled-by-root": (Cause.CANCELLED, "The job was cancelled by root (an administrator)."),
    "dependency": (Cause.NOT_STARTED, "The follow-up job was removed"),
}

slurm = Slurm()


@pytest.fixture(params=["slurm-22.05", "slurm-24.11", "slurm-26.05"])
def release(request):
    """The folder with one release's answers."""
    return RECORDED / request.param


@pytest.fixture(params=["slurm-24.11", "slurm-26.05"])
def newer(request):
    """A release of which more was recorded."""
    return RECORDED / request.param


def of_job(release, name):
    return [(release / "ends" / f"{name}.{source}").read_text() for source in ("squeue", "sacct")]


def job_id(release, name):
    return re.search(r"\d+", of_job(release, name)[0])[0]


@pytest.mark.parametrize("name", ENDS)
def test_how_a_job_ended_is_read(release, name):
    record = slurm.parse_end(job_id(release, name), of_job(release, name), MARK, lambda uid: "alice" if uid else "root")
    cause, words = ENDS[name]
    assert record.cause is cause
    assert words in record.message


@pytest.mark.parametrize(("name", "runs"), [("running", 1), ("requeued", 1), ("exit-3", 1), ("dependency", 1)])
def test_how_often_a_job_was_started_is_counted(release, name, runs):
    live, _ = of_job(release, name)
    assert slurm.parse_runs(job_id(release, name), live, MARK) == runs


@pytest.mark.parametrize("name", ["running", "requeued"])
def test_a_job_that_has_not_ended_has_no_end(release, name):
    assert slurm.parse_end(job_id(release, name), of_job(release, name), MARK, str) is None


def test_partitions_are_read(release):
    outs = dict.fromkeys(("nodes", "accounts", "qos"), "")
    outs |= {"partitions": (release / "sinfo.txt").read_text(), "rules": (release / "partitions.txt").read_text()}
    found = SlurmInventory().parse(outs)
    assert [(one.name, one.is_default, one.is_up, one.max_walltime) for one in found.partitions] == [
        ("debug", False, True, Walltime(1800)),
        ("compute", True, True, Walltime(2 * 86400)),
        ("gpu-shared", False, True, Walltime(86400)),
    ]
    gpu = found.partition("gpu-shared")
    assert (gpu.cpus, gpu.memory, gpu.gpus, gpu.features) == (16, Memory(32000), {"v100": 4}, ("volta",))


def test_a_cluster_that_hides_nothing_says_so(release):
    assert slurm.parse_visibility((release / "config.txt").read_text(), "hub")


def test_the_controllers_clock_is_read(release):
    assert SlurmInventory().parse_clock((release / "sdiag.txt").read_text()) > 1_600_000_000


def test_every_state_of_the_manual_is_in_the_table(release):
    assert set((release / "states.txt").read_text().split()) <= set(STATES)


def test_accounts_and_qos_are_read(newer):
    outs = {"partitions": (newer / "sinfo.txt").read_text(), "nodes": "", "rules": ""}
    outs |= {name: (newer / f"{name}.txt").read_text() for name in ("accounts", "qos")}
    found = SlurmInventory().parse(outs)
    assert found.accounts == ("ddp363", "root", "tro100")
    assert found.qos == ("debug", "gpu-limited", "normal", "single")


def test_jobs_of_all_kinds_are_listed(newer):
    jobs = slurm.parse_query((newer / "squeue.txt").read_text(), MARK)
    by_tag = {job.tag: job for job in jobs.values()}
    assert (by_tag["hrunning"].state, by_tag["hrunning"].host, by_tag["hrunning"].owner) == (
        JobState.RUNNING,
        "n1",
        "alice",
    )
    assert by_tag["hrunning"].starts_at > 1_600_000_000
    assert (by_tag["hgpu"].state, by_tag["hgpu"].host) == (JobState.RUNNING, "n3")
    (held,) = [job for job in jobs.values() if job.tag.startswith("two") and job.tag.endswith("lines | x")]
    assert held.state is JobState.HELD
    by_reason = {job.reason: job.state for job in jobs.values()}
    assert by_reason["BeginTime"] is JobState.PENDING
    ended = [jobs[job_id(newer, name)].state for name in ENDS if name != "timeout"]
    assert ended == [JobState.ENDED] * 7
    # One line for a waiting array.
    assert [name for name in jobs if name.endswith("_[0-2]")]


def test_nodes_and_what_is_idle_there_are_read(newer):
    first, second, third = slurm_facts.parse_nodes((newer / "nodes.txt").read_text())
    assert (first.partitions, first.cores, first.idle_cores) == (("debug", "compute"), 64, 62)
    assert (second.state, second.idle_cores, second.idle_memory) == (NodeState.FREE, 64, 128000)
    assert (third.gpus, third.idle_gpus) == ({"v100": 4}, {"v100": 0})


def test_waiting_jobs_and_open_partitions_are_read(newer):
    waiting = slurm_facts.parse_waiting((newer / "waiting.txt").read_text())
    assert waiting["gpu-shared"].count == 1
    assert waiting["compute"].count == 4
    assert slurm_facts.parse_open((newer / "open.txt").read_text()) == dict.fromkeys(
        ("debug", "compute", "gpu-shared"), True
    )


def test_an_estimate_is_a_time_or_why_not(newer):
    assert slurm.parse_estimate(Answer(0, "", (newer / "estimate.err").read_text())).at.year == 2026
    refused = slurm.parse_estimate(Answer(1, "", (newer / "estimate-refused.err").read_text()))
    assert refused.refusal == "Requested node configuration is not available"
