"""Torque, and Slurm's commands of the same names. The recordings' READMEs say what made them."""

import time
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from hpcspawner.job.state import Cause, JobState
from hpcspawner.programs.helper import Refusal
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.rights import submit_words
from hpcspawner.schedulers.torque import _REASONS, _STATES, Torque
from hpcspawner.units import Memory, Walltime

RECORDED = Path(__file__).parents[1] / "recorded"
OF_TORQUE = RECORDED / "torque-6.1.3"
OF_SLURM = RECORDED / "slurm-torque-22.05"
LABEL = JobLabel("hpc-alice-lab", "hs3f2a9c0b1d")

torque = Torque()


def parsed(out):
    return torque.parse_query(out, "")


def recorded(path):
    return parsed(path.read_text())


def xml(*jobs):
    """What `qstat -x` would print for these attributes."""
    rows = ["".join(f"<{name}>{escape(text)}</{name}>" for name, text in job.items()) for job in jobs]
    return '<?xml version="1.0"?>\n<Data>' + "".join(f"<Job>{row}</Job>" for row in rows) + "</Data>\n"


def text(*jobs):
    """What Torque's `qstat -f` would print."""
    return "".join(
        f"Job Id: {job['Job_Id']}\n"
        + "".join(f"    {name} = {value}\n" for name, value in job.items() if name != "Job_Id")
        + "\n"
        for job in jobs
    )


def tabbed(*jobs):
    """What Slurm's `qstat -f` would print."""
    return text(*jobs).replace("Job Id: ", "Job Id:\t").replace("    ", "\t")


ALL_LAYOUTS = pytest.mark.parametrize("layout", [xml, text, tabbed])


def job(job_id="12.vm", state="R", **attributes):
    known = {"Job_Name": "hs3f2a9c0b1d", "Job_Owner": "alice@head", "exec_host": "n1/0-1"}
    return {"Job_Id": job_id, "job_state": state} | known | attributes


# --- what is asked


def asked(**changes):
    wanted = {"partition": "batch", "walltime": Walltime(129600)} | changes
    return torque.options(Resources(**wanted), LABEL)


def asked_for(**changes):
    return [value for option, value in asked(**changes) if option == "l"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "nodes=1:ppn=1", id="one core"),
        pytest.param({"cpus": 8}, "nodes=1:ppn=8", id="cores"),
        pytest.param({"cpus": None}, "nodes=1", id="cores left to Torque"),
        pytest.param({"cpus": 8, "nodes": 2}, "nodes=2:ppn=8", id="nodes"),
        pytest.param({"cpus": 4, "gpus": 2}, "nodes=1:ppn=4:gpus=2", id="GPUs"),
        pytest.param({"gpus": 2, "gpu_type": "any"}, "nodes=1:ppn=1:gpus=2", id="GPUs of no type"),
        pytest.param({"gpus": 2, "gpu_type": "k80"}, "nodes=1:ppn=1:gpus=2:k80", id="GPUs of a type"),
        pytest.param({"features": ("ib", "big")}, "nodes=1:ppn=1:ib:big", id="features"),
        pytest.param({}, "walltime=36:00:00", id="wall time in hours"),
        pytest.param({"memory": Memory(4096)}, "mem=4096mb", id="memory on one node"),
        pytest.param({"memory": Memory(4096), "nodes": 2, "cpus": 4}, "pmem=1024mb", id="memory on several nodes"),
        pytest.param({"qos": "high"}, "qos=high", id="QOS"),
        pytest.param({"reservation": "class.1"}, "advres=class.1", id="reservation"),
        pytest.param({"whole_nodes": True, "cpus": 24}, "nodes=1:ppn=24", id="all cores of a whole node"),
        pytest.param({"whole_nodes": True}, "naccesspolicy=singlejob", id="a whole node"),
    ],
)
def test_resources_become_resource_lists(changes, expected):
    assert expected in asked_for(**changes)


def test_what_was_not_asked_is_left_to_torque():
    assert asked_for() == ["nodes=1:ppn=1", "walltime=36:00:00"]
    assert "A" not in dict(asked())


def test_every_job_has_its_tag_for_a_name_and_no_second_run():
    options = dict(asked(account="ddp363"))
    assert (options["N"], options["q"], options["A"]) == ("hs3f2a9c0b1d", "batch", "ddp363")
    assert options["r"] == "n"


def test_the_admins_directives_come_last_so_that_they_win():
    assert asked(directives=(("m", "a"), ("V", "")))[-2:] == [("m", "a"), ("V", "")]


@pytest.mark.parametrize("job_id", ["12", "2.vm", "123.head.cluster.example.org", "14[].vm", "14[3].vm"])
def test_a_job_id_is_read_as_the_listing_writes_it(job_id):
    assert torque.parse_submit(f"{job_id}\n") == job_id


@pytest.mark.parametrize(
    "out", ["", "\n", "Welcome!\n12.vm\n", "12.vm\n13.vm\n", "12.vm\n\n", "vm", "12.", "12 .vm", "-1", "12.vm;id", "١٢"]
)
def test_anything_else_is_no_job_id(out):
    with pytest.raises(ValueError, match="no job id"):
        torque.parse_submit(out)


@pytest.mark.parametrize("job_id", ["", " ", "all", "-p", "12.vm 13.vm", "12.vm\n", "batch", "12;id"])
def test_only_an_id_is_cancelled_or_asked_for(job_id):
    for command in (torque.cancel_command, torque.details_command):
        with pytest.raises(ValueError, match="not the id"):
            command(job_id)


def test_a_job_that_may_start_again_says_so():
    assert dict(asked(requeue=True))["r"] == "y"


def test_no_line_of_the_script_is_an_option():
    words = torque.submit_command
    assert words[words.index("-C") + 1] == ""


def test_a_job_follows_another_by_its_whole_id():
    resources = Resources("batch", Walltime(1800))
    options = torque.options(resources, replace(LABEL, follows="12.vm"))
    assert ("W", "depend=afternotok:12.vm") in options
    assert "W" not in dict(asked())
    for wrong in ("12.vm,depend=x", "12:13", "-1", " ", "12\n"):
        with pytest.raises(Refusal, match="the option W may not have the value"):
            submit_words(torque, torque.options(resources, replace(LABEL, follows=wrong)), ())


def test_torque_has_no_warning():
    assert asked(warning_s=300) == asked()


def test_an_array_is_cancelled_but_never_asked_for_because_qstat_would_print_the_jobs_of_all():
    assert torque.cancel_command("14[].vm") == ["qdel", "14[].vm"]
    with pytest.raises(ValueError, match="not the id"):
        torque.details_command("14[].vm")
    assert torque.details_command("12.vm") == ["qstat", "-f", "12.vm"]


# --- recorded listings


@pytest.mark.parametrize("name", ["qstat-x.xml", "qstat-f.txt"])
@pytest.mark.parametrize(
    ("job_id", "state", "host", "reason"),
    [
        ("0.vm", JobState.ENDED, None, "Job started on Sat Nov 21 at 02:18"),
        ("1.vm", JobState.RUNNING, "vm", "Job started on Sat Nov 21 at 02:20"),
        ("3.vm", JobState.RUNNING, "vm", "Job started on Sat Nov 21 at 02:20"),
        ("12.vm", JobState.HELD, None, ""),
        ("13.vm", JobState.PENDING, None, "Not Running: Queue not started."),
        ("14[].vm", JobState.PENDING, None, ""),
    ],
)
def test_torques_two_layouts_say_the_same(name, job_id, state, host, reason):
    status = recorded(OF_TORQUE / name)[job_id]
    assert (status.state, status.host, status.reason, status.owner) == (state, host, reason, "alice")


@pytest.mark.parametrize("name", ["qstat-x.xml", "qstat-f.txt"])
def test_a_listing_of_torque_holds_every_job_once(name):
    assert list(recorded(OF_TORQUE / name)) == ["0.vm", "1.vm", "2.vm", "3.vm", "12.vm", "13.vm", "14[].vm"]


def test_the_tag_is_the_jobs_name():
    assert recorded(OF_TORQUE / "qstat-f.txt")["3.vm"].tag == "jh"
    assert recorded(OF_TORQUE / "qstat-x.xml")["3.vm"].starts == "1795227628"


def test_jobs_that_ended_in_any_way_are_ended_and_have_no_node():
    jobs = recorded(OF_TORQUE / "qstat-x-all-completed.xml")
    assert len(jobs) == 12
    assert {(status.state, status.host) for status in jobs.values()} == {(JobState.ENDED, None)}


def test_tasks_of_an_array_keep_their_ids():
    assert set(recorded(OF_TORQUE / "qstat-tx-array.xml")) == {"14[0].vm", "14[1].vm"}


def test_special_characters_in_an_environment_do_no_harm():
    assert recorded(OF_TORQUE / "qstat-x-special-characters.xml")["24.vm"].tag == "a.b-c"


@pytest.mark.parametrize(
    ("job_id", "state", "host", "word"),
    [
        ("42", JobState.RUNNING, "n1", "R"),
        ("43", JobState.SUSPENDED, "n1", "S"),
        ("39", JobState.ENDED, None, "C"),
        ("41", JobState.ENDED, None, "C"),
        ("46", JobState.PENDING, None, "Q"),
        ("47", JobState.PENDING, None, "Q"),
    ],
)
def test_slurms_layout_is_read(job_id, state, host, word):
    status = recorded(OF_SLURM / "qstat-f.txt")[job_id]
    assert (status.state, status.host, status.word, status.owner) == (state, host, word, "alice")


# --- any listing

MANUAL = "CEHQRTWS"


def test_every_state_of_the_manual_is_in_the_table():
    assert set(MANUAL) <= set(_STATES)


@ALL_LAYOUTS
@pytest.mark.parametrize("word", sorted(_STATES))
def test_only_final_states_are_an_end(word, layout):
    assert (parsed(layout(job(state=word)))["12.vm"].state is JobState.ENDED) == (word in "CFX")


@ALL_LAYOUTS
@pytest.mark.parametrize("word", ["", "Z", "CR", "r", "Completed"])
def test_an_unknown_state_is_unknown_and_never_gone(word, layout):
    assert parsed(layout(job(state=word)))["12.vm"].state is JobState.UNKNOWN


@ALL_LAYOUTS
@pytest.mark.parametrize(
    ("exec_host", "host"),
    [("vm/0", "vm"), ("vm/2-3", "vm"), ("n1/2+n1/3", "n1"), ("n2/0-1+n1/0-1", "n2"), ("n1.a.org/4", "n1.a.org")],
)
def test_the_script_runs_on_the_first_node(exec_host, host, layout):
    assert parsed(layout(job(exec_host=exec_host)))["12.vm"].host == host


def test_a_long_value_is_unfolded_in_the_middle_of_a_word():
    out = text(job(exec_host="node-with-a-lo\n\tng-name/0-23+node-with-ano\n\tther/0-23"))
    assert parsed(out)["12.vm"].host == "node-with-a-long-name"


@ALL_LAYOUTS
def test_an_id_that_stands_twice_is_unknown(layout):
    jobs = parsed(layout(job("7.vm", "C"), job("7.vm", "R"), job("8.vm")))
    assert jobs["7.vm"].state is JobState.UNKNOWN
    assert jobs["8.vm"].state is JobState.RUNNING


@pytest.mark.parametrize("layout", [text, tabbed])
@pytest.mark.parametrize("state", ["C", "R"])
def test_a_line_break_in_a_value_can_not_end_somebody_elses_job(layout, state):
    forger = job("9.vm", Variable_List=f"A=x\nJob Id: 7.vm\n    job_state = {state}\n    Job_Owner = bob@head")
    jobs = parsed(layout(job("7.vm", "Q", Job_Owner="bob@head"), forger))
    assert jobs["7.vm"].state is JobState.UNKNOWN
    assert jobs["9.vm"].state is JobState.RUNNING


@ALL_LAYOUTS
def test_a_line_break_in_a_value_can_not_change_what_came_before(layout):
    forger = job("9.vm", Variable_List="A=x\n    job_state = C\n    Job_Owner = bob@head\n\tJob_Name = y")
    status = parsed(layout(forger))["9.vm"]
    assert (status.state, status.owner, status.tag) == (JobState.RUNNING, "alice", "hs3f2a9c0b1d")


def test_one_users_control_characters_do_not_spoil_the_list_of_all():
    out = xml(job("7.vm", Variable_List="A=\x00\x01\x0b\x1b[31m\ufffe"), job("8.vm"))
    assert set(parsed(out)) == {"7.vm", "8.vm"}


def test_tags_in_a_value_are_text():
    out = xml(job("7.vm", Variable_List="</Variable_List></Job><Job><Job_Id>8.vm</Job_Id></Job>"))
    assert set(parsed(out)) == {"7.vm"}


@pytest.mark.parametrize("out", ["", "\n", xml()], ids=["nothing", "an empty line", "empty XML"])
def test_no_jobs_are_an_empty_listing(out):
    assert parsed(out) == {}


@pytest.mark.parametrize(
    "out",
    [
        xml(job())[:-20],
        xml(job()) * 2,
        "<html><body>Sign in</body></html>",
        '<!DOCTYPE Data [<!ENTITY a "aaaa">]><Data><Job><Job_Id>&a;</Job_Id></Job></Data>',
        "Job id            Name             User\n----------------  ----------------\n12.vm  x  alice\n",
        "the server is down for maintenance\n",
    ],
    ids=["cut off", "two documents", "another document", "entities", "the short layout", "other text"],
)
def test_an_answer_that_is_no_listing_is_not_believed(out):
    with pytest.raises(ValueError, match=r"qstat's XML|not a list of jobs"):
        parsed(out)


@ALL_LAYOUTS
def test_reading_takes_time_in_proportion_to_length(layout):
    jobs = [job(f"{number}.vm", Variable_List="x" * 900) for number in range(10_000)]
    out = layout(*jobs)
    assert len(out) > 10_000_000
    begun = time.perf_counter()
    assert len(parsed(out)) == len(jobs)
    assert time.perf_counter() - begun < 30


# --- how a job ended


def end(attributes, layout=text):
    return torque.parse_end("12.vm", [layout(job(state="C", **{"server": "vm"} | attributes))], str)


def test_one_qstat_tells_how_a_job_ended():
    assert torque.end_commands("12.vm") == [["qstat", "-f", "12.vm"]]
    with pytest.raises(ValueError, match="not the id"):
        torque.end_commands("14[].vm")


@pytest.mark.parametrize(
    ("name", "job_id", "cause", "code", "number"),
    [
        ("qstat-f-exit-0.txt", "22.vm", Cause.EXITED, 0, None),
        ("qstat-f-walltime.txt", "19.vm", Cause.WALL_TIME, None, None),
        ("qstat-f-after-qdel.txt", "1.vm", Cause.CANCELLED, None, 15),
    ],
)
def test_a_recorded_end_is_read(name, job_id, cause, code, number):
    record = torque.parse_end(job_id, [(OF_TORQUE / name).read_text()], str)
    assert (record.cause, record.exit_code, record.signal) == (cause, code, number)
    assert record.message.endswith(".")


@pytest.mark.parametrize(
    ("status", "cause", "code", "number"),
    [
        ("3", Cause.EXITED, 3, None),
        ("137", Cause.EXITED, 137, 9),
        ("265", Cause.EXITED, None, 9),
        ("128", Cause.EXITED, 128, None),
        ("255", Cause.EXITED, 255, None),
        ("-10", Cause.OUT_OF_MEMORY, None, None),
        ("-12", Cause.WALL_TIME, None, None),
        ("-3", Cause.NOT_STARTED, None, None),
    ],
)
def test_an_exit_status_has_a_meaning(status, cause, code, number):
    record = end({"exit_status": status})
    assert (record.cause, record.exit_code, record.signal) == (cause, code, number)


def test_jobs_that_never_started_are_told_apart():
    never = "Job deleted as result of dependency on job 1.vm"
    assert end({"exit_status": "271", "comment": never}).cause is Cause.NOT_STARTED
    assert end({}).cause is Cause.CANCELLED


@pytest.mark.parametrize("state", ["R", "E", "Q", "H", "S", "Z", ""])
def test_a_job_that_has_not_ended_has_no_end(state):
    assert torque.parse_end("12.vm", [text(job(state=state, exit_status="0", server="vm"))], str) is None


@pytest.mark.parametrize("out", ["", "garbage", text(job("13.vm", "C", exit_status="1"))])
def test_what_nobody_knows_is_no_end(out):
    assert torque.parse_end("12.vm", [out], str) is None


def test_slurms_qstat_tells_no_end():
    out = (OF_SLURM / "qstat-f.txt").read_text()
    assert "job_state = C" in out
    assert [torque.parse_end(job_id, [out], str) for job_id in parsed(out)] == [None] * len(parsed(out))


def test_how_often_a_job_was_started_is_told_by_torque_only():
    assert torque.parse_runs((OF_TORQUE / "qstat-f-exit-0.txt").read_text()) == 1
    for out in ("", tabbed(job()), text(job(start_count="many")), text(job("1.vm", start_count="1"), job("2.vm"))):
        with pytest.raises(ValueError, match="how often"):
            torque.parse_runs(out)


@ALL_LAYOUTS
def test_no_job_is_called_hopeless(layout):
    assert not any(parsed(layout(job(state=word)))["12.vm"].hopeless for word in _STATES)


# --- failures


@pytest.mark.parametrize(
    ("code", "out", "err"),
    [
        pytest.param(111, "", "qstat: Error (111 - Connection refused) ", id="server down"),
        pytest.param(
            111, "", "qsub: cannot connect to server vm (errno=111) Connection refused", id="qsub, server down"
        ),
        pytest.param(33, "", "qdel: cannot connect to server (null) (errno=15137)", id="trqauthd down"),
        pytest.param(162, "", "Cannot resolve specified server host 'nosuchserver'.", id="server's name unknown"),
        pytest.param(224, "", "qdel: Server could not connect to MOM 29.vm", id="node down"),
        pytest.param(1, "", "pbsnodes: cannot connect to server vm, error=111 (Connection refused)", id="by words"),
        pytest.param(8, "", "Problem loading jobs.\n", id="Slurm's qstat"),
        pytest.param(
            1, "qdel: Kill job error on job id 42: Unable to contact slurm controller\n", "", id="Slurm's qdel"
        ),
        pytest.param(1, "sbatch: error: Batch job submission failed: Socket timed out", "", id="Slurm's qsub"),
        pytest.param(-9, "", "", id="killed"),
    ],
)
def test_nobody_answered(code, out, err):
    answer = Answer(code, out, err)
    assert torque.unreachable(answer)
    assert not torque.already_gone(answer)
    assert not torque.lists_nothing(answer)


@pytest.mark.parametrize(
    ("code", "err"),
    [
        (172, "qsub: submit error (Unknown queue MSG=requested queue not found)"),
        (189, "qsub: submit error (Unknown resource type  Resource_List.nosuchres)"),
        (168, "qsub: submit error (Illegal attribute or resource value for Resource_List.walltime)"),
        (
            190,
            "qsub: submit error (Job exceeds queue resource limits MSG=cannot satisfy queue max walltime requirement)",
        ),
        (159, "qdel: Unauthorized Request  MSG=operation not permitted 26.vm"),
        (1, "qsub can not be run as root"),
    ],
)
def test_somebody_said_no(code, err):
    answer = Answer(code, "", err)
    assert not torque.unreachable(answer)
    assert not torque.already_gone(answer)


def test_the_refusal_of_slurms_qsub_is_a_refusal():
    answer = Answer(1, (OF_SLURM / "qsub-rejected.out").read_text(), "")
    assert "Invalid account" in answer.words
    assert not torque.unreachable(answer)
    assert not torque.already_gone(answer)


@pytest.mark.parametrize(
    ("code", "err"),
    [
        pytest.param(153, "qdel: nonexistent job id: 99999", id="unknown"),
        pytest.param(170, "qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE", id="complete"),
        pytest.param(1, "", id="Slurm's qdel, which says nothing"),
    ],
)
def test_a_job_that_had_ended_is_cancelled_already(code, err):
    assert torque.already_gone(Answer(code, "", err))


def test_slurms_qstat_fails_without_a_word_when_there_is_no_job():
    assert torque.lists_nothing(Answer(153, "", ""))
    assert not torque.lists_nothing(Answer(153, "", "qstat: Unknown Job Id Error 99999.vm"))
    assert not torque.lists_nothing(Answer(1, "", ""))


# --- reasons


@pytest.mark.parametrize(
    ("comment", "sentence"),
    [
        ("", ""),
        ("Job started on Sat Nov 21 at 02:20", ""),
        ("Not Running: Queue not started.", "The queue does not start jobs at the moment."),
        (
            "Not Running: Not enough of the right type of nodes are available",
            "The nodes that you asked for are busy or down.",
        ),
        ("Not Running: Something that a site says", "Something that a site says."),
        ("Job deleted as result of dependency on job 1.vm", "Job deleted as result of dependency on job 1.vm."),
    ],
)
def test_a_comment_is_explained(comment, sentence):
    assert torque.explain(comment) == sentence


def test_every_explanation_is_a_sentence():
    assert all(text[0].isupper() and text.endswith(".") for text in _REASONS.values())
