"""Torque: what we ask of its commands, and how their answers are read. The recordings' READMEs say what made them."""

import time
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from hpcspawner.programs.helper import Refusal
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.pbs import STATES
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.schedulers.torque import Torque
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
    with pytest.raises(ValueError, match="instead of a job id"):
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
def test_a_recorded_listing_is_read(job_id, state, host, reason):
    status = recorded(OF_TORQUE / "qstat-x.xml")[job_id]
    assert (status.state, status.host, status.reason, status.owner) == (state, host, reason, "alice")


def test_a_listing_of_torque_holds_every_job_once():
    assert list(recorded(OF_TORQUE / "qstat-x.xml")) == ["0.vm", "1.vm", "2.vm", "3.vm", "12.vm", "13.vm", "14[].vm"]


def test_the_tag_is_the_jobs_name():
    assert recorded(OF_TORQUE / "qstat-x.xml")["3.vm"].tag == "jh"
    assert recorded(OF_TORQUE / "qstat-x.xml")["3.vm"].starts_at == 1795227628


def test_jobs_that_ended_in_any_way_are_ended_and_have_no_node():
    jobs = recorded(OF_TORQUE / "qstat-x-all-completed.xml")
    assert len(jobs) == 12
    assert {(status.state, status.host) for status in jobs.values()} == {(JobState.ENDED, None)}


def test_tasks_of_an_array_keep_their_ids():
    assert set(recorded(OF_TORQUE / "qstat-tx-array.xml")) == {"14[0].vm", "14[1].vm"}


def test_special_characters_in_an_environment_do_no_harm():
    assert recorded(OF_TORQUE / "qstat-x-special-characters.xml")["24.vm"].tag == "a.b-c"


# --- any listing

MANUAL = "CEHQRTWS"


def test_every_state_of_the_manual_is_in_the_table():
    assert set(MANUAL) <= set(STATES)


@pytest.mark.parametrize("word", sorted(STATES))
def test_only_final_states_are_an_end(word):
    assert (parsed(xml(job(state=word)))["12.vm"].state is JobState.ENDED) == (word in "CFX")


@pytest.mark.parametrize("word", ["", "Z", "CR", "r", "Completed"])
def test_an_unknown_state_is_unknown_and_never_gone(word):
    assert parsed(xml(job(state=word)))["12.vm"].state is JobState.UNKNOWN


@pytest.mark.parametrize(
    ("exec_host", "host"),
    [("vm/0", "vm"), ("vm/2-3", "vm"), ("n1/2+n1/3", "n1"), ("n2/0-1+n1/0-1", "n2"), ("n1.a.org/4", "n1.a.org")],
)
def test_the_script_runs_on_the_first_node(exec_host, host):
    assert parsed(xml(job(exec_host=exec_host)))["12.vm"].host == host


def test_an_id_that_stands_twice_is_unknown():
    jobs = parsed(xml(job("7.vm", "C"), job("7.vm", "R"), job("8.vm")))
    assert jobs["7.vm"].state is JobState.UNKNOWN
    assert jobs["8.vm"].state is JobState.RUNNING


def test_one_users_control_characters_do_not_spoil_the_list_of_all():
    out = xml(job("7.vm", Variable_List="A=\x00\x01\x0b\x1b[31m\ufffe"), job("8.vm"))
    assert set(parsed(out)) == {"7.vm", "8.vm"}


FORGED = """x
</Job_Name></Job><Job><Job_Id>7.vm</Job_Id><job_state>C</job_state><Job_Owner>bob@head</Job_Owner></Job><Job><Job_Name>
Job Id: 7.vm
    job_state = C
    Job_Owner = bob@head
Job Id:\t7.vm
\tjob_state = C
"""


@pytest.mark.parametrize("name", ["Job_Name", "Variable_List", "comment", "submit_args", "Account_Name"])
def test_a_value_that_looks_like_somebody_elses_job_is_text(name):
    alices = job("7.vm", "R")
    forger = job("9.vm", **{"Job_Owner": "bob@head", name: FORGED})
    jobs = parsed(xml(alices, forger))
    assert jobs == parsed(xml(alices)) | parsed(xml(forger))
    assert (jobs["7.vm"].state, jobs["7.vm"].owner) == (JobState.RUNNING, "alice")
    assert torque.parse_end("7.vm", [xml(alices)], "", str) is None


def test_the_layout_for_people_is_no_listing_whatever_it_holds():
    for text in ("Job Id: 7.vm\n    job_state = C\n    Job_Owner = alice@head\n", FORGED):
        with pytest.raises(ValueError, match="qstat's XML"):
            parsed(text)


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
    with pytest.raises(ValueError, match="qstat's XML"):
        parsed(out)


def test_reading_takes_time_in_proportion_to_length():
    jobs = [job(f"{number}.vm", Variable_List="x" * 900) for number in range(10_000)]
    out = xml(*jobs)
    assert len(out) > 10_000_000
    begun = time.perf_counter()
    assert len(parsed(out)) == len(jobs)
    assert time.perf_counter() - begun < 30


# --- one job


def end(attributes):
    return torque.parse_end("12.vm", [xml(job(state="C", **attributes))], "", str)


def test_one_qstat_tells_how_a_job_ended_and_how_often_it_was_started():
    asked = ["qstat", "-x", "12.vm"]
    assert torque.end_commands("12.vm", "") == [torque.runs_command("12.vm", "")] == [asked]
    for command in (torque.end_commands, torque.runs_command):
        with pytest.raises(ValueError, match="not the id"):
            command("14[].vm", "")


def test_no_text_for_people_is_read():
    read = [torque.query_command(""), torque.runs_command("12.vm", ""), *torque.end_commands("12.vm", "")]
    assert all(argv[:2] == ["qstat", "-x"] for argv in read)
    assert torque.details_command("12.vm") == ["qstat", "-f", "12.vm"]


@pytest.mark.parametrize(
    ("name", "job_id", "cause", "code", "number"),
    [
        ("exit-0", "22.vm", Cause.EXITED, 0, None),
        ("exit-3", "21.vm", Cause.EXITED, 3, None),
        ("exit-137", "23.vm", Cause.EXITED, 137, 9),
        ("walltime", "19.vm", Cause.WALL_TIME, None, None),
        ("after-qdel", "1.vm", Cause.CANCELLED, None, 15),
        ("deleted-before-start", "12.vm", Cause.CANCELLED, None, None),
    ],
)
def test_a_recorded_end_is_read(name, job_id, cause, code, number):
    record = torque.parse_end(job_id, [(OF_TORQUE / f"qstat-x-{name}.xml").read_text()], "", str)
    assert (record.cause, record.exit_code, record.signal) == (cause, code, number)
    assert record.message.endswith(".")


@pytest.mark.parametrize(
    ("status", "cause", "code", "number"),
    [
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
    assert end({"start_time": "1795227628"}) is None


@pytest.mark.parametrize("state", ["R", "E", "Q", "H", "S", "Z", ""])
def test_a_job_that_has_not_ended_has_no_end(state):
    assert torque.parse_end("12.vm", [xml(job(state=state, exit_status="0"))], "", str) is None


@pytest.mark.parametrize(
    "out",
    [
        pytest.param("", id="nothing"),
        pytest.param(xml(), id="no job"),
        pytest.param(xml(job("13.vm", "C", exit_status="1")), id="another job"),
        pytest.param(xml(job(state="C", exit_status="1"), job("13.vm")), id="more than one job"),
        pytest.param(xml(job(state="C", exit_status="1"), job()), id="a job that stands twice"),
    ],
)
def test_what_nobody_knows_is_no_end(out):
    assert torque.parse_end("12.vm", [out], "", str) is None


@pytest.mark.parametrize("out", ["garbage", "Job Id: 12.vm\n    job_state = C\n    exit_status = 0\n"])
def test_text_is_no_answer_about_a_job(out):
    with pytest.raises(ValueError, match="qstat's XML"):
        torque.parse_end("12.vm", [out], "", str)
    with pytest.raises(ValueError, match="qstat's XML"):
        torque.parse_runs("12.vm", out, "")


def test_how_often_a_job_was_started_is_told():
    assert torque.parse_runs("22.vm", (OF_TORQUE / "qstat-x-exit-0.xml").read_text(), "") == 1
    assert torque.parse_runs("12.vm", xml(job(start_count="3")), "") == 3
    waiting = (OF_TORQUE / "qstat-x-waiting.xml").read_text()
    for job_id, out in [
        ("12.vm", ""),
        ("12.vm", xml(job())),
        ("12.vm", xml(job(start_count="many"))),
        ("12.vm", xml(job("1.vm", start_count="1"))),
        ("12.vm", xml(job(start_count="1"), job("2.vm"))),
        ("13.vm", waiting),
    ]:
        with pytest.raises(ValueError, match="how often"):
            torque.parse_runs(job_id, out, "")


def test_no_job_is_called_hopeless():
    assert not any(parsed(xml(job(state=word)))["12.vm"].hopeless for word in STATES)


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
        pytest.param(-9, "", "", id="killed"),
    ],
)
def test_nobody_answered(code, out, err):
    answer = Answer(code, out, err)
    assert torque.unreachable(answer)
    assert not torque.already_gone(answer)
    assert not torque.wrong_type(answer)


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


@pytest.mark.parametrize("name", ["qstat-x.err", "qsub-stdin.err"])
def test_slurms_commands_are_known_by_how_they_refuse(name):
    answer = Answer(2, "", (OF_SLURM / name).read_text())
    assert 'type = "slurm"' in torque.wrong_type(answer)
    assert not torque.already_gone(answer)


@pytest.mark.parametrize("words", ["qstat: invalid option -- 'x'\nusage: qstat [-f [-1]]", "qsub: illegal -N value"])
def test_a_refused_option_of_torques_own_is_no_sign_of_slurm(words):
    assert not torque.wrong_type(Answer(2, "", words))


@pytest.mark.parametrize(
    ("code", "err"),
    [
        pytest.param(153, "qdel: nonexistent job id: 99999", id="unknown"),
        pytest.param(170, "qdel: Request invalid for state of job MSG=invalid state for job - COMPLETE", id="complete"),
    ],
)
def test_a_job_that_had_ended_is_cancelled_already(code, err):
    assert torque.already_gone(Answer(code, "", err))


@pytest.mark.parametrize("code", [1, 153, 170])
def test_a_failure_without_a_word_is_no_end(code):
    assert not torque.already_gone(Answer(code, "", ""))


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


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("alice@head", "alice"),
        ("alice@example.org@head.cluster", "alice@example.org"),
        ("EXAMPLE\\alice@head", "EXAMPLE\\alice"),
        ("a@b@c@head", "a@b@c"),
        ("alice", "alice"),
    ],
)
def test_only_the_host_is_cut_off_an_owner(owner, name):
    job = f"<Job><Job_Id>1.h</Job_Id><Job_Owner>{owner}</Job_Owner><job_state>R</job_state></Job>"
    assert Torque().parse_query(f"<Data>{job}</Data>", "")["1.h"].owner == name


# --- what a site takes away, and the words of commands


@pytest.mark.parametrize(
    ("name", "gone"), [("mem", "mem="), ("nodes", "nodes="), ("qos", "qos="), ("advres", "advres=")]
)
def test_a_resource_that_the_site_leaves_out_is_not_asked_for(name, gone):
    resources = Resources("batch", Walltime(60), memory=Memory(64), qos="high", reservation="class", account="a")
    label = JobLabel("jupyter", "h0123abcd")
    whole, left = Torque().options(resources, label), Torque(leave_out=[name]).options(resources, label)
    assert [value for option, value in whole if (option, value) not in left] == [
        value for option, value in whole if option == "l" and value.startswith(gone)
    ]
    assert len(left) == len(whole) - 1


@pytest.mark.parametrize("option", ["q", "A", "r"])
def test_an_option_that_the_site_leaves_out_is_not_given(option):
    resources = Resources("batch", Walltime(60), account="a")
    assert option not in dict(Torque(leave_out=[option]).options(resources, JobLabel("jupyter", "h0123abcd")))


@pytest.mark.parametrize(
    ("code", "words", "cure"),
    [
        (
            168,
            "qsub: submit error (Bad UID for job execution MSG=ruserok failed validating u001/u001 from hub)",
            "submit_hosts",
        ),
        (188, "qstat: cannot connect to server (null) (errno=15034)", "PBS_DEFAULT"),
        (1, "qsub: no default server: pbs_default", "PBS_DEFAULT"),
    ],
)
def test_a_command_that_does_not_know_its_server_is_not_set_up(code, words, cure):
    assert cure in Torque().not_set_up(Answer(code, "", words))
    assert not Torque().not_set_up(Answer(172, "", "qsub: submit error (Unknown queue MSG=requested queue not found)"))


def test_a_refusal_is_one_whatever_its_words_are():
    assert not Torque().unreachable(Answer(166, "", "qsub: submit error (MSG=check: cannot connect to server quota)"))


BANNER = "*** Maintenance on Monday & Tuesday ***\n"


def test_a_notice_before_the_jobs_is_skipped():
    job = "<Job><Job_Id>1.h</Job_Id><Job_Owner>a@h</Job_Owner><job_state>R</job_state></Job>"
    assert Torque().parse_query(f"{BANNER}<Data>{job}</Data>\n", "")["1.h"].state is JobState.RUNNING


@pytest.mark.parametrize("out", [BANNER, BANNER + "<Job>", BANNER + "<x><Data></Data></x>", "<Data></Data>" + BANNER])
def test_a_notice_alone_is_no_listing(out):
    with pytest.raises(ValueError, match="qstat's XML"):
        Torque().parse_query(out, "")
