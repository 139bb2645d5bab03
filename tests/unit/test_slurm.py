"""Slurm: what we ask of its commands, and how their answers are read. The recordings' README says what made them."""

import time
from pathlib import Path

import pytest

from hpcspawner.job.state import JobState
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.slurm import _REASONS, _STATES, Slurm
from hpcspawner.units import Memory, Walltime

RECORDED = Path(__file__).parents[1] / "recorded" / "slurm-22.05"
MARK = "5f0c9a7be1d24386"
HEADER = ("JOBID", "STATE", "EXEC_HOST", "USER", "START_TIME", "REASON", "COMMENT")
LABEL = JobLabel("hpc-alice-lab", "hs3f2a9c0b1d")
SMALL = Resources("compute", Walltime(1800), "/home/alice")

slurm = Slurm()


def listing(*jobs):
    """What squeue would print for these rows of fields."""
    return "".join(f"{MARK}{MARK.join(job)}{MARK}\n" for job in (HEADER, *jobs))


def job(job_id="12", state="RUNNING", **fields):
    known = {"host": "n1", "user": "alice", "start": "2026-11-21T05:02:49", "reason": "None", "comment": "tag"}
    return (job_id, state, *(known | fields).values())


def parsed(*jobs):
    return slurm.parse_query(listing(*jobs), MARK)


def recorded():
    return slurm.parse_query((RECORDED / "squeue.txt").read_text(), MARK)


# --- what is asked


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, {"nodes": "1", "ntasks-per-node": "1", "cpus-per-task": "1"}, id="one core"),
        pytest.param({"cpus": 8}, {"ntasks-per-node": "1", "cpus-per-task": "8"}, id="threads on one node"),
        pytest.param({"cpus": 8, "nodes": 2}, {"ntasks-per-node": "8", "cpus-per-task": "1"}, id="tasks on two nodes"),
        pytest.param({"memory": Memory(65536)}, {"mem": "65536M"}, id="memory per node"),
        pytest.param({"whole_nodes": True, "cpus": 24}, {"exclusive": "", "mem": "0"}, id="a whole node"),
        pytest.param({"whole_nodes": True, "memory": Memory(64)}, {"mem": "64M"}, id="a whole node, memory given"),
        pytest.param({"gpus": 2, "gpu_type": "v100"}, {"gres": "gpu:v100:2"}, id="GPUs of a type"),
        pytest.param({"gpus": 2, "gpu_type": "any"}, {"gres": "gpu:2"}, id="GPUs of no type"),
        pytest.param({"gpus": 1}, {"gres": "gpu:1"}, id="GPUs, type not given"),
        pytest.param({"features": ("a", "b")}, {"constraint": "a&b"}, id="all features"),
        pytest.param({"account": "ddp363", "qos": "q"}, {"account": "ddp363", "qos": "q"}, id="account and QOS"),
        pytest.param({"reservation": "class"}, {"reservation": "class"}, id="reservation"),
        pytest.param({"walltime": Walltime(129600)}, {"time": "1-12:00:00"}, id="more than a day"),
    ],
)
def test_resources_become_options_of_sbatch(changes, expected):
    asked = dict(slurm.directives(_with(changes), LABEL))
    assert {option: asked.get(option) for option in expected} == expected


def _with(changes):
    return Resources(
        **{"partition": "compute", "walltime": Walltime(1800), "directory": "/home/alice", "cpus": 1} | changes
    )


def test_what_was_not_asked_is_left_to_slurm():
    options = dict(slurm.directives(SMALL, LABEL))
    assert not {"mem", "gres", "account", "qos", "reservation", "constraint", "exclusive"} & set(options)


def test_a_whole_node_has_no_number_of_tasks():
    options = dict(slurm.directives(_with({"whole_nodes": True, "cpus": 24}), LABEL))
    assert not {"ntasks-per-node", "cpus-per-task"} & set(options)


def test_every_job_has_name_tag_and_no_second_run():
    options = dict(slurm.directives(SMALL, LABEL))
    assert (options["job-name"], options["comment"]) == ("hpc-alice-lab", "hs3f2a9c0b1d")
    assert options["no-requeue"] == ""
    assert options["output"] == "/dev/null"


def test_the_admins_directives_come_last_so_that_they_win():
    directives = slurm.directives(_with({"directives": (("mem", "3G"), ("exclusive", ""))}), LABEL)
    assert directives[-2:] == [("mem", "3G"), ("exclusive", "")]


def test_a_folder_that_only_the_node_can_name_is_left_to_the_script():
    assert "chdir" not in dict(slurm.directives(_with({"directory": "~/work"}), LABEL))


def test_the_script_goes_to_standard_input():
    assert slurm.submit_commands() == [["sbatch", "--parsable"]]


@pytest.mark.parametrize(
    ("out", "job_id"), [("12\n", "12"), ("12", "12"), ("4294967295\n", "4294967295"), ("7;lab\n", "7")]
)
def test_a_job_id_is_read(out, job_id):
    assert slurm.parse_submit(out) == job_id


@pytest.mark.parametrize(
    "out",
    ["", "\n", "Submitted batch job 12\n", "12\n13\n", "12\n\n", "Welcome!\n12\n", "12;", "12;a b", "-1", "١٢", "12 "],
)
def test_anything_else_is_no_job_id(out):
    with pytest.raises(ValueError, match="no job id"):
        slurm.parse_submit(out)


@pytest.mark.parametrize("job_id", ["", "12[]", "12_3", "-1", "--help", "12 13", "12\n", "*", "١٢"])
def test_only_a_number_is_cancelled_or_asked_for(job_id):
    for command in (slurm.cancel_command, slurm.details_command):
        with pytest.raises(ValueError, match="not the id"):
            command(job_id)


def test_a_job_is_cancelled_and_described_by_its_number():
    assert slurm.cancel_command("12") == ["scancel", "12"]
    assert slurm.details_command("12") == ["scontrol", "show", "job", "12"]


# --- the listing


def test_one_listing_holds_all_jobs_and_asks_for_what_was_recorded():
    [argv] = slurm.query_commands(MARK)
    assert argv[:3] == ["squeue", "--all", "--states=all"]
    assert argv[3] == f"--format={MARK}%i{MARK}%T{MARK}%B{MARK}%u{MARK}%S{MARK}%r{MARK}%k{MARK}"


@pytest.mark.parametrize(
    ("job_id", "state", "host", "reason"),
    [
        ("42", JobState.RUNNING, "n1", ""),
        ("43", JobState.SUSPENDED, "n1", ""),
        ("44", JobState.UNKNOWN, "n1", ""),
        ("39", JobState.ENDED, None, ""),
        ("40", JobState.ENDED, None, "NonZeroExitCode"),
        ("41", JobState.ENDED, None, "TimeLimit"),
        ("46", JobState.PENDING, None, "Dependency"),
        ("48", JobState.PENDING, None, "BeginTime"),
        ("52", JobState.PENDING, None, "PartitionTimeLimit"),
        ("47", JobState.HELD, None, "JobHeldUser"),
        ("51", JobState.HELD, None, "JobHeldAdmin"),
        ("49_[0-2]", JobState.HELD, None, "JobHeldUser"),
    ],
)
def test_a_recorded_listing_is_read(job_id, state, host, reason):
    status = recorded()[job_id]
    assert (status.state, status.host, status.reason, status.owner) == (state, host, reason, "alice")


def test_a_recorded_job_has_tag_start_and_word():
    status = recorded()["42"]
    assert (status.tag, status.starts, status.word) == ("hs3f2a9c0b1d", "2026-11-21T05:02:49", "RUNNING")


def test_a_recorded_comment_is_neither_cut_nor_taken_for_a_job():
    jobs = recorded()
    assert jobs["50"].tag == "x" * 900
    assert jobs["48"].tag == "two\nlines 99|COMPLETED"
    assert "99" not in jobs


def test_nothing_is_said_for_what_slurm_leaves_empty():
    status = recorded()["47"]
    assert (status.host, status.starts, status.tag) == (None, "", "")


def test_every_state_of_the_manual_is_in_the_table():
    assert set((RECORDED / "states.txt").read_text().split()) <= set(_STATES)


ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
}


@pytest.mark.parametrize("word", sorted(_STATES))
def test_only_final_states_are_an_end(word):
    assert (parsed(job(state=word))["12"].state is JobState.ENDED) == (word in ENDED)


@pytest.mark.parametrize("word", ["", "SOMETHING_NEW", "running", "RUNNING,COMPLETING", "CANCELLED by 1001"])
def test_an_unknown_state_is_unknown_and_never_gone(word):
    assert parsed(job(state=word))["12"].state is JobState.UNKNOWN


def test_a_job_that_completes_still_names_its_node():
    assert parsed(job(state="COMPLETING"))["12"].host == "n1"


@pytest.mark.parametrize(
    ("reason", "state"),
    [
        ("Priority", JobState.PENDING),
        ("Resources", JobState.PENDING),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", JobState.PENDING),
        ("QOSMaxGRESPerUser", JobState.PENDING),
        ("JobHeldUser", JobState.HELD),
        ("JobHeldAdmin", JobState.HELD),
        ("BadConstraints", JobState.HELD),
        ("DependencyNeverSatisfied", JobState.HELD),
        ("launch failed requeued held", JobState.HELD),
        ("launch_failed_requeued_held", JobState.HELD),
        ("job requeued in held state", JobState.HELD),
        ("user env retrieval failed requeued held", JobState.HELD),
    ],
)
def test_a_job_that_needs_somebody_to_act_is_held(reason, state):
    assert parsed(job(state="PENDING", reason=reason))["12"].state is state


def test_a_reason_to_hold_does_not_hold_a_job_that_runs():
    assert parsed(job(state="RUNNING", reason="JobHeldUser"))["12"].state is JobState.RUNNING


@pytest.mark.parametrize(
    "comment",
    [
        "\n99|COMPLETED|n1|root|None|N/A|hs",
        f"x\n{MARK[:-1]}99{MARK[:-1]}COMPLETED",
        "\x0b99\x1c\x85\u2028",
        "%i%T",
        "||||||",
    ],
    ids=["line break", "guessed mark", "other line breaks", "format", "separators"],
)
def test_a_comment_can_hold_anything_and_forges_nothing(comment):
    jobs = parsed(job("7", comment=comment), job("8"))
    assert set(jobs) == {"7", "8"}
    assert jobs["7"].tag == comment.strip()
    assert jobs["8"].state is JobState.RUNNING


def test_an_id_that_stands_twice_is_unknown():
    jobs = parsed(job("7", "COMPLETED"), job("7", "RUNNING"), job("8"))
    assert jobs["7"].state is JobState.UNKNOWN
    assert jobs["8"].state is JobState.RUNNING


def test_headers_of_several_clusters_and_other_lines_are_passed_over():
    assert set(slurm.parse_query("CLUSTER: lab\n" + listing(job("7")) + "CLUSTER: two\n", MARK)) == {"7"}


def test_no_jobs_are_an_empty_listing():
    assert slurm.parse_query(listing(), MARK) == {}


@pytest.mark.parametrize(
    "out",
    ["", "\n", "slurm is down for maintenance\n", listing(job())[:-30], listing(job()).replace(f"{MARK}n1", "")],
    ids=["nothing", "an empty line", "other text", "cut off", "a field missing"],
)
def test_an_answer_that_is_no_whole_listing_is_not_believed(out):
    with pytest.raises(ValueError, match="incomplete"):
        slurm.parse_query(out, MARK)


def test_reading_takes_time_in_proportion_to_length():
    jobs = [job(str(number), comment="x" * 200) for number in range(30_000)]
    out = listing(*jobs)
    assert len(out) > 10_000_000
    begun = time.perf_counter()
    assert len(slurm.parse_query(out, MARK)) == len(jobs)
    assert time.perf_counter() - begun < 5


# --- failures


@pytest.mark.parametrize(
    "words",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)",
        "scancel: error: Kill job error on job id 42: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
        "slurm_load_jobs error: Zero Bytes were transmitted or received",
        "slurm_load_jobs error: Insane message length",
        "slurm_load_jobs error: Protocol authentication error",
        "slurm_load_jobs error: Slurm backup controller in standby mode",
        "squeue: error: If munged is up, restart with --num-threads=10",
        "squeue: error: Munge encode failed: Failed to access socket",
        "squeue: fatal: Unable to process configuration file",
        "squeue: error: _open_persist_conn: Connection refused",
    ],
)
def test_nobody_answered(words):
    assert slurm.unreachable(Answer(1, "", words))
    assert slurm.unreachable(Answer(1, "", f"squeue: error: something first\n{words}\n"))
    assert not slurm.already_gone(Answer(1, "", words))


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified",
        "sbatch: error: Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)",
        "sbatch: error: QOSMaxSubmitJobPerUserLimit",
        "scancel: error: Kill job error on job id 8: Access/permission denied",
        "",
    ],
)
def test_somebody_said_no(words):
    assert not slurm.unreachable(Answer(1, "", words))
    assert not slurm.already_gone(Answer(1, "", words))
    assert not slurm.misunderstood(Answer(1, "", words))


def test_a_command_that_was_killed_is_no_answer():
    assert slurm.unreachable(Answer(-9, "", ""))


@pytest.mark.parametrize("words", ["Invalid job id specified", "Job/step already completing or completed"])
def test_a_job_that_had_ended_is_cancelled_already(words):
    assert slurm.already_gone(Answer(1, "", f"scancel: error: Kill job error on job id 12: {words}"))


# --- reasons


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("Priority", "Other jobs come first"),
        ("Resources", "next in line"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "down, drained or reserved"),
        ("AssocGrpCPUMinutesLimit", "used up its computing time"),
        ("QOSMaxGRESPerUser", "GPUs"),
        ("AssocGrpBBMinutes", "(AssocGrpBBMinutes)."),
        ("QOSMaxBillingPerNode", "(QOSMaxBillingPerNode)."),
        ("MaxBBPerAccount", "(MaxBBPerAccount)."),
        ("launch_failed_requeued_held", "could not be started"),
        ("SomethingNew", "SomethingNew"),
    ],
)
def test_a_reason_is_explained(reason, part):
    assert part in slurm.explain(reason)


@pytest.mark.parametrize("reason", ["", "None", "(null)", "N/A"])
def test_without_a_reason_nothing_is_said(reason):
    assert slurm.explain(reason) == ""


def test_every_explanation_is_a_sentence():
    assert len(_REASONS) > 25
    assert all(text[0].isupper() and text.endswith(".") for text in _REASONS.values())
