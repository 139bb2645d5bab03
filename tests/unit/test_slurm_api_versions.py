"""What slurmrestd answers, read alike from each release of Slurm. The recordings' READMEs say what made them."""

import json
from pathlib import Path

import pytest

from hpcspawner.schedulers import rest
from hpcspawner.schedulers import slurm_api_versions as versions
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.facts import sum_up
from hpcspawner.schedulers.nodes import NodeState
from hpcspawner.schedulers.slurm_api import SlurmApi
from hpcspawner.schedulers.state import Cause, JobState

RECORDED = Path(__file__).parent.parent / "recorded"
RELEASES = sorted(path.name for path in RECORDED.glob("slurmrestd-*"))
slurm = SlurmApi(environment={"PATH": "/usr/bin:/bin"})


def test_there_are_recordings_of_old_and_new_releases():
    assert len(RELEASES) >= 2


@pytest.fixture(params=RELEASES)
def recorded(request):
    return lambda name: (RECORDED / request.param / f"{name}.json").read_text()


def job_id(text):
    return str(json.loads(text)["jobs"][0]["job_id"])


@pytest.mark.parametrize(
    ("name", "state", "host", "reason"),
    [
        ("held", JobState.HELD, None, "JobHeldUser"),
        ("running", JobState.RUNNING, "n1", ""),
        ("failed", JobState.ENDED, None, "NonZeroExitCode"),
        ("cancelled", JobState.ENDED, None, ""),
    ],
)
def test_a_job_in_a_listing(recorded, name, state, host, reason):
    ((found, status),) = slurm.parse_query(recorded(name), "").items()
    assert found == job_id(recorded(name))
    assert (status.state, status.host, status.reason) == (state, host, reason)
    assert (status.owner, status.tag) == ("alice", "hctag")
    assert (status.starts_at > 1.7e9) is (name != "held")


def test_a_job_that_was_submitted_and_waits(recorded):
    assert slurm.parse_submit(recorded("held-submit")) == job_id(recorded("held"))
    waiting = slurm.parse_waiting(recorded("held"), "")
    assert (waiting["compute"].count, waiting["compute"].order) == (1, (job_id(recorded("held")),))


def test_runs_are_counted(recorded):
    for name, runs in (("running", 1), ("held", 0)):
        assert slurm.parse_runs(job_id(recorded(name)), recorded(name), "") == runs


def test_how_a_job_ended(recorded):
    for name, cause, code, message in (
        ("failed", Cause.EXITED, 3, "The job ended with exit code 3."),
        ("cancelled", Cause.CANCELLED, None, "The job was cancelled by alice."),
    ):
        outs = [recorded(name), recorded(f"{name}-accounted")]
        end = slurm.parse_end(job_id(recorded(name)), outs, "", str)
        assert (end.cause, end.exit_code, end.message, end.node) == (cause, code, message, "n1")


def test_a_job_that_runs_has_not_ended(recorded):
    assert slurm.parse_end(job_id(recorded("running")), [recorded("running"), ""], "", str) is None


@pytest.mark.parametrize(
    ("name", "unreachable", "gone"),
    [
        ("refused", False, False),
        ("unknown-job", False, True),
        ("not-yours", False, False),
        ("bad-token", True, False),
        ("bad-token-submit", True, False),
    ],
)
def test_only_a_refusal_by_number_is_a_refusal(recorded, name, unreachable, gone):
    errors = rest._errors(recorded(name))
    assert errors, recorded(name)
    answer = Answer(1, recorded(name), errors)
    assert slurm.unreachable(answer) is unreachable
    assert slurm.already_gone(answer) is gone


def test_newer_releases_have_the_error_of_a_cancel_beside_the_job():
    text = (RECORDED / "slurmrestd-24.11/unknown-cancel.json").read_text()
    assert slurm.already_gone(Answer(1, text, rest._errors(text)))


def test_nodes_and_partitions(recorded):
    nodes = list(slurm.parse_nodes(recorded("nodes"), ""))
    assert {node.state for node in nodes} <= {NodeState.FREE, NodeState.PARTLY}
    free = sum_up(nodes, ())
    assert (free["compute"].cores, free["gpu-shared"].gpus) == (128, {"v100": 4})
    assert slurm.parse_open(recorded("partitions"), "") == {"debug": True, "compute": True, "gpu-shared": True}


def test_what_people_are_shown_of_a_job_is_short(recorded):
    minutes = versions.count(json.loads(recorded("running"))["jobs"][0], "time_limit")
    shown = json.loads(slurm.shortened(recorded("running")))[0]
    assert (shown["time_limit"], shown["nodes"], "job_resources" in shown) == (minutes, "n1", False)
    assert slurm.shortened("no JSON") == "no JSON"


@pytest.mark.parametrize(
    ("value", "state"),
    [
        (["RUNNING"], "RUNNING"),
        (["RUNNING", "CONFIGURING"], "CONFIGURING"),
        (["CANCELLED", "COMPLETING"], "COMPLETING"),
        (["PENDING", "REQUEUE_HOLD"], "REQUEUE_HOLD"),
        (["COMPLETED", "SOMETHING_NEW"], "COMPLETED"),
        ("RUNNING", "RUNNING"),
        ([], ""),
        (None, ""),
    ],
)
def test_a_state_with_what_hides_it(value, state):
    assert versions.state({"job_state": value}, "job_state") == state


@pytest.mark.parametrize(
    "value", [[7], [["RUNNING"]], [{}], {"set": True}, {"set": 1, "infinite": 0, "number": []}, 1.5]
)
def test_values_of_another_shape_are_text_or_nothing(value):
    row = {"x": value}
    assert isinstance(versions.state(row, "x"), str)
    assert isinstance(versions.text(row, "x"), str)
    assert versions.count(row, "x") == 0
    assert isinstance(versions.exit_code(value), str)
