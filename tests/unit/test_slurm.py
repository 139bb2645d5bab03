"""Slurm: what we ask of its commands, and how their answers are read. The recordings' README says what made them."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from hpcspawner.programs.helper import Refusal
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.people import People
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.slurm_words import REASONS, STATES
from hpcspawner.schedulers.state import Cause, JobState, Record
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.units import Memory, Walltime, printable

RECORDED = Path(__file__).parents[1] / "recorded" / "slurm-22.05"
MARK = "5f0c9a7be1d24386"
HEADER = ("JOBID", "STATE", "EXEC_HOST", "USER", "START_TIME", "REASON", "COMMENT")
LABEL = JobLabel("hpc-alice-lab", "hs3f2a9c0b1d")
SMALL = Resources("compute", Walltime(1800))

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
    asked = dict(slurm.options(_with(changes), LABEL))
    assert {option: asked.get(option) for option in expected} == expected


def _with(changes):
    return Resources(**{"partition": "compute", "walltime": Walltime(1800), "cpus": 1} | changes)


def test_what_was_not_asked_is_left_to_slurm():
    options = dict(slurm.options(SMALL, LABEL))
    assert not {"mem", "gres", "account", "qos", "reservation", "constraint", "exclusive"} & set(options)


def test_a_whole_node_has_no_number_of_tasks():
    options = dict(slurm.options(_with({"whole_nodes": True, "cpus": 24}), LABEL))
    assert not {"ntasks-per-node", "cpus-per-task"} & set(options)


def test_every_job_has_name_tag_and_no_second_run():
    options = dict(slurm.options(SMALL, LABEL))
    assert (options["job-name"], options["comment"]) == ("hpc-alice-lab", "hs3f2a9c0b1d")
    assert options["no-requeue"] == ""


def test_the_admins_directives_come_last_so_that_they_win():
    options = slurm.options(_with({"directives": (("mem", "3G"), ("exclusive", ""))}), LABEL)
    assert options[-2:] == [("mem", "3G"), ("exclusive", "")]


def test_a_job_that_may_start_again_says_so():
    options = dict(slurm.options(_with({"requeue": True}), LABEL))
    assert options["requeue"] == ""
    assert "no-requeue" not in options


def test_a_warning_goes_to_the_script_and_only_where_one_is_asked_for():
    assert dict(slurm.options(_with({"warning_s": 300}), LABEL))["signal"] == "B:USR1@300"
    assert "signal" not in dict(slurm.options(SMALL, LABEL))


def test_a_job_that_follows_another_never_waits_for_ever():
    options = dict(slurm.options(SMALL, replace(LABEL, follows="12")))
    assert (options["dependency"], options["kill-on-invalid-dep"]) == ("afternotok:12", "yes")
    assert not {"dependency", "kill-on-invalid-dep"} & set(dict(slurm.options(SMALL, LABEL)))


@pytest.mark.parametrize("job_id", ["12,after:13", "12?after:1", "12_3", "-1", " ", "12\n"])
def test_only_a_number_is_followed(job_id):
    with pytest.raises(Refusal, match="the option dependency may not have the value"):
        submit_words(slurm, slurm.options(SMALL, replace(LABEL, follows=job_id)), ())


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
    with pytest.raises(ValueError, match="instead of a job id"):
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
    argv = slurm.query_command(MARK)
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


def test_a_recorded_job_has_tag_and_word():
    status = recorded()["42"]
    assert (status.tag, status.native_state) == ("hs3f2a9c0b1d", "RUNNING")


@pytest.mark.parametrize(
    ("printed", "starts_at"), [("1795227769", 1795227769), ("2026-11-21T05:02:49", 0), ("N/A", 0), ("", 0)]
)
def test_a_start_is_read_where_it_is_seconds_and_unknown_else(printed, starts_at):
    """What another SLURM_TIME_FORMAT makes has no zone."""
    assert slurm.query_variables == {"SLURM_TIME_FORMAT": "%s"}
    assert parsed(job(start=printed))["12"].starts_at == starts_at


def test_a_recorded_comment_is_neither_cut_nor_taken_for_a_job():
    jobs = recorded()
    assert jobs["50"].tag == "x" * 900
    assert jobs["48"].tag == "two lines 99|COMPLETED"
    assert "99" not in jobs


def test_nothing_is_said_for_what_slurm_leaves_empty():
    status = recorded()["47"]
    assert (status.host, status.starts_at, status.tag) == (None, 0, "")


def test_every_state_of_the_manual_is_in_the_table():
    assert set((RECORDED / "states.txt").read_text().split()) <= set(STATES)


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


@pytest.mark.parametrize("word", sorted(STATES))
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


HOPELESS = [
    "AccountNotAllowed",
    "Job's account not permitted to use this partition (compute allows tro100 not ddp363)",
    "Job's QOS not permitted to use this partition (compute allows normal not long)",
    "BadConstraints",
    "DependencyNeverSatisfied",
    "JobHoldMaxRequeue",
    "QOSNotAllowed",
    "ReservationDeleted",
    "launch_failed_requeued_held",
    "user env retrieval failed requeued held",
]


@pytest.mark.parametrize("reason", HOPELESS)
def test_a_job_that_can_only_wait_for_ever_is_hopeless(reason):
    status = parsed(job(state="PENDING", reason=reason))["12"]
    assert (status.state, status.hopeless) == (JobState.HELD, True)
    assert slurm.explain(reason).endswith(".")


@pytest.mark.parametrize("state", ["RESV_DEL_HOLD", "SPECIAL_EXIT"])
def test_a_state_that_only_an_administrator_ends_is_hopeless(state):
    assert parsed(job(state=state))["12"].hopeless


@pytest.mark.parametrize(
    "reason",
    [
        pytest.param("JobHeldUser", id="people release it"),
        pytest.param("JobHeldAdmin", id="an administrator releases it"),
        pytest.param("job requeued in held state", id="somebody asked for it"),
        pytest.param("InvalidAccount", id="Slurm looks for the account again"),
        pytest.param("InvalidQOS", id="Slurm looks for the QOS again"),
        pytest.param("PartitionDown", id="it comes up again"),
        pytest.param("ReqNodeNotAvail, UnavailableNodes:n1", id="the node comes back"),
        pytest.param("AssocGrpCPUMinutesLimit", id="time heals it"),
        pytest.param("PartitionTimeLimit", id="limits are changed"),
        pytest.param("Dependency", id="still open"),
        pytest.param("SomethingNew", id="not known"),
    ],
)
def test_a_job_that_may_still_start_has_hope(reason):
    assert not parsed(job(state="PENDING", reason=reason))["12"].hopeless


def test_a_reason_without_hope_does_no_harm_to_a_job_that_runs_or_has_ended():
    for state in ("RUNNING", "COMPLETING", "COMPLETED", "CANCELLED"):
        assert not parsed(job(state=state, reason="DependencyNeverSatisfied"))["12"].hopeless


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
    assert jobs["7"].tag == printable(comment.strip())
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
    assert time.perf_counter() - begun < 30


# --- how a job ended


def one(job_id, state="RUNNING", *, restarts="0", status="0"):
    """What squeue would print of this job alone."""
    fields = (job_id, state, "None", restarts, status, "n1")
    return "".join(f"{field:<20}|{MARK}" for field in fields) + "\n"


def outs(name, controller=True, accounting=True):
    files = [RECORDED / "ends" / f"{name}.{source}" for source in ("squeue", "sacct")]
    return [file.read_text() if asked else "" for file, asked in zip(files, (controller, accounting), strict=True)]


def end(name, **asked):
    texts = outs(name, **asked)
    job_id = next(re.findall(r"\d+", text)[0] for text in texts if text)
    return slurm.parse_end(job_id, texts, MARK, {0: "root", 1011: "alice"}.__getitem__)


def test_the_controller_and_the_accounting_are_both_asked():
    fields = ("JobID:20", "State:40", "Reason:250", "RestartCnt:20", "exit_code:20", "NodeList:250")
    asked = ",".join(f"{field}|{MARK}" for field in fields)
    assert slurm.end_commands("12", MARK) == [
        ["squeue", "--all", "--states=all", "--noheader", "--jobs=12", f"--Format={asked}"],
        [
            "sacct",
            "--allocations",
            "--noheader",
            "--parsable2",
            "--format=JobIDRaw,State%50,ExitCode,NodeList",
            "--jobs=12",
        ],
    ]
    with pytest.raises(ValueError, match="not the id"):
        slurm.end_commands("12,13", MARK)


def test_no_text_for_people_is_read():
    read = [slurm.query_command(MARK), slurm.runs_command("12", MARK), *slurm.end_commands("12", MARK)]
    assert slurm.details_command("12") not in read
    assert {argv[0] for argv in read} == {"squeue", "sacct"}


ENDS = [
    ("exit-0", Cause.EXITED, 0, None, "", "The job ended without an error."),
    ("exit-3", Cause.EXITED, 3, None, "", "The job ended with exit code 3."),
    ("exit-137", Cause.EXITED, 137, None, "", "The job ended with exit code 137."),
    ("signal-9", Cause.EXITED, None, 9, "", "The job was killed by signal 9 (SIGKILL)."),
    ("timeout", Cause.WALL_TIME, None, 15, "", "The job reached its wall time."),
    ("out-of-memory", Cause.OUT_OF_MEMORY, None, None, "", "more memory than it asked for"),
    ("cancelled-by-user", Cause.CANCELLED, None, 15, "alice", "The job was cancelled by alice."),
    ("cancelled-by-root", Cause.CANCELLED, None, 15, "root", "The job was cancelled by root (an administrator)."),
    ("cancelled-pending", Cause.CANCELLED, None, None, "root", "The job was cancelled by root (an administrator)."),
    ("cancelled-slow", Cause.CANCELLED, 143, None, "alice", "The job was cancelled by alice."),
    ("dependency", Cause.NOT_STARTED, None, None, "", "The follow-up job was removed"),
]


@pytest.mark.parametrize(("name", "cause", "code", "number", "by", "words"), ENDS, ids=[row[0] for row in ENDS])
def test_a_recorded_end_is_read(name, cause, code, number, by, words):
    record = end(name)
    assert (record.cause, record.exit_code, record.signal, record.cancelled_by) == (cause, code, number, by)
    assert words in record.message
    assert record.message.endswith(".")


@pytest.mark.parametrize("name", [row[0] for row in ENDS if row[0] != "dependency"])
def test_the_cause_is_found_whichever_of_the_two_knows(name):
    whole = end(name)
    without_accounting, without_controller = end(name, accounting=False), end(name, controller=False)
    assert without_accounting == replace(whole, cancelled_by="", message=without_accounting.message)
    assert (without_controller.cause, without_controller.cancelled_by) == (whole.cause, whole.cancelled_by)


@pytest.mark.parametrize("name", ["running", "requeued"])
@pytest.mark.parametrize("asked", [{}, {"accounting": False}, {"controller": False}], ids=["both", "live", "past"])
def test_a_job_that_has_not_ended_has_no_end(name, asked):
    assert end(name, **asked) is None


@pytest.mark.parametrize("word", ["COMPLETING", "RUNNING", "PENDING", "REQUEUED", "STAGE_OUT", "SOMETHING_NEW"])
def test_the_accounting_may_be_ahead_of_a_job_that_is_not_gone_yet(word):
    live, past = outs("cancelled-by-user")
    assert slurm.parse_end("40", [live.replace("CANCELLED", word), past], MARK, str) is None


def test_the_accounting_may_be_behind_a_job_that_is_gone():
    live, _ = outs("cancelled-by-user")
    record = slurm.parse_end("40", [live, "40|RUNNING|0:0|n1\n"], MARK, str)
    assert (record.cause, record.cancelled_by, record.message) == (Cause.CANCELLED, "", "The job was cancelled.")


def test_one_who_cancelled_a_job_and_whose_name_is_not_known_is_named_by_number():
    """By SSH the Hub knows the names of root and of its own users alone."""
    texts = ["", "12|CANCELLED by 4711|0:0|n1\n"]
    record = slurm.parse_end("12", texts, MARK, People(None).name_of)
    assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, "uid 4711")
    assert record.message == ("The job was cancelled by the account with uid 4711, whose name the Hub does not know.")
    record = slurm.parse_end("12", ["", "12|CANCELLED by 0|0:0|n1\n"], MARK, People(None).name_of)
    assert record.message == "The job was cancelled by root (an administrator)."


# No node of the test cluster fails for this; words of squeue(1), layout as recorded.
@pytest.mark.parametrize(
    ("word", "cause", "words"),
    [
        ("NODE_FAIL", Cause.NODE_FAILED, "Node n1 failed"),
        ("BOOT_FAIL", Cause.NODE_FAILED, "Node n1 could not be started"),
        ("PREEMPTED", Cause.PREEMPTED, "one with a higher priority"),
        ("DEADLINE", Cause.WALL_TIME, "deadline"),
    ],
)
def test_other_ends_are_told_apart(word, cause, words):
    live, _ = outs("timeout")
    for texts in ([live.replace("TIMEOUT", word), ""], ["", f"34|{word}|0:0|n1\n"]):
        record = slurm.parse_end("34", texts, MARK, str)
        assert record.cause is cause
        assert words in record.message


@pytest.mark.parametrize("nodes", ["n[1-2]", "n1,n2", "None assigned", "", "(null)"])
def test_which_of_several_nodes_failed_is_not_guessed(nodes):
    record = slurm.parse_end("12", ["", f"12|NODE_FAIL|0:0|{nodes}\n"], MARK, str)
    assert record.message == "A node of the job failed, which ended the job (NODE_FAIL)."


def test_every_final_state_has_a_cause():
    for word in ENDED:
        record = slurm.parse_end("12", ["", f"12|{word}|1:0|n1\n"], MARK, str)
        assert record.cause is not Cause.UNKNOWN
        assert record.message.endswith(".")


def test_a_script_that_could_not_be_started_is_no_signal():
    assert slurm.parse_end("12", ["", "12|FAILED|0:53|n1\n"], MARK, str).cause is Cause.NOT_STARTED


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param(["", ""], id="nothing"),
        pytest.param(["garbage", "garbage|x"], id="garbage"),
        pytest.param([one("13", "FAILED"), "13|FAILED|1:0|n1\n"], id="another job"),
        pytest.param([one("12", "FAILED") + one("12", "RUNNING"), ""], id="a job that stands twice"),
        pytest.param([one("12", "FAILED")[:-30], ""], id="cut off"),
        pytest.param(["JobId=12 JobName=x\n   JobState=FAILED ExitCode=1:0", ""], id="text for people"),
        pytest.param(["", "12|SOMETHING_NEW|1:0|n1\n"], id="unknown state"),
        pytest.param(["", "12.batch|FAILED|1:0|n1\n"], id="a step"),
    ],
)
def test_what_nobody_knows_is_no_end(texts):
    assert slurm.parse_end("12", texts, MARK, str) is None


@pytest.mark.parametrize(
    ("name", "runs"), [("running", 1), ("requeued", 1), ("exit-3", 1), ("cancelled-slow", 1), ("cancelled-pending", 1)]
)
def test_how_often_a_job_was_started_is_counted(name, runs):
    live, _ = outs(name)
    assert slurm.parse_runs(re.findall(r"\d+", live)[0], live, MARK) == runs


def test_a_second_run_counts_from_its_start():
    for word, runs in [("RUNNING", 3), ("CONFIGURING", 3), ("PENDING", 2), ("REQUEUE_HOLD", 2)]:
        assert slurm.parse_runs("12", one("12", word, restarts="2"), MARK) == runs
    assert slurm.parse_runs("12", one("12", "PENDING"), MARK) == 0


@pytest.mark.parametrize(
    "out",
    ["", one("13"), one("12", restarts="many"), one("12", restarts=""), one("12") * 2, "JobId=12 Restarts=1"],
    ids=["nothing", "another job", "no number", "an empty field", "twice", "text for people"],
)
def test_an_answer_that_does_not_count_is_no_count(out):
    with pytest.raises(ValueError, match="how often"):
        slurm.parse_runs("12", out, MARK)


def test_the_fields_of_one_job_are_framed_by_a_mark_whose_first_character_may_be_a_digit():
    argv = slurm.runs_command("12", MARK)
    widths = [field.partition(":")[2].removesuffix(f"|{MARK}") for field in argv[-1].partition("=")[2].split(",")]
    assert all(width.isdecimal() and len(width) < 4 for width in widths)


# --- who sees what


def test_a_cluster_that_hides_nothing_says_so():
    out = (RECORDED / "config.txt").read_text()
    assert slurm.parse_visibility(out, "jupyterhub")


@pytest.mark.parametrize("private", ["jobs", "cloud,jobs,usage", "usage,jobs"])
def test_private_jobs_are_seen_by_slurms_own_account_and_root_only(private):
    out = re.sub(r"(?m)^(PrivateData +=) none", rf"\1 {private}", (RECORDED / "config.txt").read_text())
    assert [slurm.parse_visibility(out, account) for account in ("jupyterhub", "slurm", "root")] == [False, True, True]


@pytest.mark.parametrize("private", ["usage", "accounts,cloud,reservations"])
def test_what_else_is_private_hides_no_jobs(private):
    out = re.sub(r"(?m)^(PrivateData +=) none", rf"\1 {private}", (RECORDED / "config.txt").read_text())
    assert slurm.parse_visibility(out, "jupyterhub")


def test_labels_that_are_private_hide_jobs():
    out = re.sub(r"(?m)^(MCSParameters +=) .*", r"\1 enforced,privatedata", (RECORDED / "config.txt").read_text())
    assert not slurm.parse_visibility(out, "jupyterhub")


@pytest.mark.parametrize("out", ["", "garbage", "SlurmUser = slurm(64030)\n"])
def test_without_an_answer_nothing_is_promised(out):
    assert not any(slurm.parse_visibility(out, account) for account in ("jupyterhub", "root", "slurm"))


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


def test_a_command_that_was_killed_is_no_answer():
    assert slurm.unreachable(Answer(-9, "", ""))


@pytest.mark.parametrize("words", ["Invalid job id specified", "Job/step already completing or completed"])
def test_a_job_that_had_ended_is_cancelled_already(words):
    assert slurm.already_gone(Answer(1, "", f"scancel: error: Kill job error on job id 12: {words}"))


# --- reasons


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("Priority", "Jobs with a higher priority are ahead of this one"),
        ("Resources", "next in line"),
        ("ReqNodeNotAvail", "down, drained or reserved"),
        ("ReqNodeNotAvail, UnavailableNodes:n[1-2]", "down, drained or reserved"),
        ("ReqNodeNotAvail, Reserved for maintenance", "a shorter wall time"),
        ("ReqNodeNotAvail, UnavailableNodes:n1 Reserved for maintenance", "maintenance that begins before"),
        ("ReqNodeNotAvail, May be reserved for other job", "reserved for another job"),
        ("AssocGrpCPUMinutesLimit", "enough computing time left"),
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
    assert len(REASONS) > 25
    assert all(text[0].isupper() and text.endswith(".") for text in REASONS.values())


# --- what users and operators write is somebody else's text


@pytest.mark.parametrize("field", ["host", "user", "reason", "comment"])
def test_no_field_of_a_listing_can_forge_a_line(field):
    status = parsed(job(**{field: "x\n[I] 200 GET /hub/admin\x1b[2J\u2028y"}))["12"]
    told = [status.host, status.owner, str(status.starts_at), status.reason, status.tag]
    assert "x [I] 200 GET /hub/admin [2J y" in told
    assert all(text.isprintable() for text in told)


def test_no_field_of_a_record_can_forge_a_line():
    record = Record(Cause.CANCELLED, "by bob\n[I] 200 GET /hub/admin", cancelled_by="bob\x1b[2J")
    assert (record.message, record.cancelled_by) == ("by bob [I] 200 GET /hub/admin", "bob [2J")


@pytest.mark.parametrize(
    ("features", "constraint"),
    [
        (("GPU_MEM:32GB",), "GPU_MEM:32GB"),
        (("a100|v100",), "a100|v100"),
        (("a100|v100", "ib"), "(a100|v100)&ib"),
        (("ib", "[rack1|rack2]"), "ib&[rack1|rack2]"),
        (("skylake", "ib"), "skylake&ib"),
    ],
)
def test_each_feature_that_was_chosen_must_hold(features, constraint):
    resources = Resources("compute", Walltime(60), features=features)
    options = Slurm().options(resources, JobLabel("jupyter", "h0123abcd"))
    assert dict(options)["constraint"] == constraint
    assert submit_words(Slurm(), options, [])


# --- what a site adds and takes away


GPU = replace(SMALL, gpus=1, gpu_type="v100", features=("skylake",))


@pytest.mark.parametrize("site", ["lscratch:10", "tmpdisk:1G,craynetwork:0", "it's #1"])
def test_a_gres_of_the_sites_does_not_lose_the_gpu(site):
    options = slurm.options(replace(GPU, directives=(("gres", site),)), LABEL)
    assert [value for name, value in options if name == "gres"] == [f"gpu:v100:1,{site}"]
    assert f"--gres=gpu:v100:1,{site}" in submit_words(slurm, options, [("gres", site)])
    alone = slurm.options(replace(SMALL, directives=(("gres", site),)), LABEL)
    assert f"--gres={site}" in submit_words(slurm, alone, [("gres", site)])


@pytest.mark.parametrize(
    "value", ["gpu:v100:1,other:1", "lscratch:100", "gpu:v100:1,lscratch:10 --uid=0", "lscratch:10,"]
)
def test_a_gres_that_is_not_the_sites_is_refused(value):
    with pytest.raises(Refusal, match="may not have the value"):
        submit_words(slurm, [("gres", value)], [("gres", "lscratch:10")])


def test_several_gres_of_the_sites_are_all_asked_for():
    directives = (("gres", "lscratch:10"), ("gres", "nvme:1"))
    options = slurm.options(replace(GPU, directives=directives), LABEL)
    assert "--gres=gpu:v100:1,lscratch:10,nvme:1" in submit_words(slurm, options, directives)


def test_a_constraint_of_the_sites_holds_beside_the_users():
    options = slurm.options(replace(GPU, directives=(("constraint", "ib|opa"),)), LABEL)
    assert "--constraint=skylake&(ib|opa)" in submit_words(slurm, options, [("constraint", "ib|opa")])


@pytest.mark.parametrize("option", ["mem", "partition", "nodes", "cpus-per-task", "gres", "constraint", "no-requeue"])
def test_an_option_that_the_site_leaves_out_is_not_given(option):
    resources = replace(GPU, memory=Memory(1024))
    assert option in dict(slurm.options(resources, LABEL))
    left = Slurm(leave_out=[option]).options(resources, LABEL)
    assert option not in dict(left)
    assert len(left) == len(slurm.options(resources, LABEL)) - 1


def test_export_is_left_out_of_the_submit_command():
    assert "--export=ALL" in Slurm().submit_command
    assert not any("export" in word for word in Slurm(leave_out=["export"]).submit_command)


def test_a_partition_for_the_form_alone_is_not_asked_for():
    assert "partition" not in dict(slurm.options(replace(SMALL, names_partition=False), LABEL))


def test_where_the_comment_is_the_sites_the_mark_is_the_name():
    named = Slurm(tag="job-name")
    options = dict(named.options(SMALL, LABEL))
    assert options["job-name"] == LABEL.tag
    assert "comment" not in options
    assert named.query_command("m")[-1].endswith("%rm%jm")
    assert Slurm().query_command("m")[-1].endswith("%rm%km")
    assert submit_words(named, list(options.items()), [])


# --- the words of commands


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: quota server: Connection refused\nsbatch: error: Batch job submission failed: Access denied",
        "sbatch: error: lua: No route to host\nsbatch: error: Batch job submission failed: Job violates a policy",
        "scancel: error: Kill job error on job id 12: Access/permission denied",
    ],
)
def test_a_final_refusal_is_one_whatever_was_said_before(words):
    assert not slurm.unreachable(Answer(1, "", words))


@pytest.mark.parametrize(
    "words",
    [
        "sbatch: error: resolve_ctls_from_dns_srv: res_nsearch error: Unknown host\nsbatch: error: fetch_config: DNS "
        "SRV lookup failed\nsbatch: error: _establish_config_source: failed to fetch config\nsbatch: fatal: Could not "
        "establish a configuration source",
        "squeue: fatal: Could not establish a configuration source",
        # What the real ones print for a file that they may not read, that is empty, cut off, or another Slurm's.
        'squeue: error: s_p_parse_file: unable to read "/opt/slurm.conf": Permission denied\nsqueue: error: '
        "ClusterName needs to be specified\nsqueue: fatal: Unable to process configuration file",
        "sbatch: error: _parse_next_key: Parsing error at unrecognized key: New\nsbatch: fatal: Unable to process "
        "configuration file",
        'sbatch: error: PluginDir: /nowhere: No such file or directory\nsbatch: error: Bad value "/nowhere" for '
        "PluginDir\nsbatch: fatal: Unable to process configuration file",
        "sbatch: error: Couldn't find the specified plugin name for auth/slurm looking at all files\nsbatch: error: "
        "cannot find auth plugin for auth/slurm\nsbatch: error: cannot create auth context for auth/slurm",
    ],
)
def test_a_command_without_its_configuration_is_not_set_up(words):
    assert "SLURM_CONF in scheduler.variables" in slurm.not_set_up(Answer(1, "", words))
    assert not slurm.not_set_up(Answer(1, "", "sbatch: error: Batch job submission failed: Invalid qos specification"))


BANNER = "*** Maintenance on Monday: a=b | c ***\n"


def test_a_notice_before_an_answer_is_skipped():
    mark = "m" * 16
    one = "".join(f"{field}|{mark}" for field in ("12", "RUNNING", "None", "0", "0", "n1"))
    assert slurm.parse_runs("12", f"{BANNER}{one}\n", mark) == 1
    line = mark + mark.join(("12", "RUNNING", "n1", "alice", "N/A", "None", "tag")) + mark
    header = mark + mark.join(("JOBID", "STATE", "EXEC_HOST", "USER", "START_TIME", "REASON", "COMMENT")) + mark
    assert slurm.parse_query(f"{BANNER}{header}\n{line}\n", mark)["12"].state is JobState.RUNNING
    record = slurm.parse_end("12", ["", f"{BANNER}12|TIMEOUT|0:0|n1\n"], mark, str)
    assert record.cause is Cause.WALL_TIME


@pytest.mark.parametrize("out", [BANNER, "", "\n", BANNER * 3])
def test_a_notice_alone_is_no_listing(out):
    with pytest.raises(ValueError, match="incomplete"):
        slurm.parse_query(out, "m" * 16)
