"""OpenPBS: what we ask of its commands, and how their answers are read. The recordings' README says what made them."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from hpcspawner.errors import ProfileError
from hpcspawner.programs.helper import Refusal
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.openpbs import OpenPBS
from hpcspawner.schedulers.pbs import STATES
from hpcspawner.schedulers.records import FOLLOW_UP_REMOVED
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.site.profile import find_shipped, load
from hpcspawner.units import Memory, Walltime

RECORDED = Path(__file__).parents[1] / "recorded" / "openpbs-23.06"
LABEL = JobLabel("hpc-alice-lab", "hs3f2a9c0b1d")

openpbs = OpenPBS()


def recorded(name):
    return (RECORDED / f"{name}.json").read_text()


def parsed(out):
    return openpbs.parse_query(out, "")


def answer(**jobs):
    """What `qstat -f -F json` would print."""
    return json.dumps({"timestamp": 1, "pbs_version": "23.06.06", "pbs_server": "vm", "Jobs": jobs})


def job(state="R", **attributes):
    known = {"Job_Name": "hs3f2a9c0b1d", "Job_Owner": "alice@head", "exec_host": "n1/0", "substate": 42}
    return {"job_state": state} | known | attributes


def of_one(**attributes):
    return parsed(answer(**{"12.vm": job(**attributes)}))["12.vm"]


# --- what is asked


def asked(**changes):
    wanted = {"partition": "batch", "walltime": Walltime(129600)} | changes
    return openpbs.options(Resources(**wanted), LABEL)


def asked_for(**changes):
    return [value for option, value in asked(**changes) if option == "l"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({}, "select=1:ncpus=1", id="one core"),
        pytest.param({"cpus": None}, "select=1", id="cores left to PBS"),
        pytest.param({"cpus": 8, "memory": Memory(4096)}, "select=1:ncpus=8:mem=4096mb", id="memory"),
        pytest.param({"cpus": 8, "nodes": 2}, "select=2:ncpus=8:mpiprocs=8:ompthreads=1", id="nodes"),
        pytest.param({"gpus": 2, "gpu_type": "any"}, "select=1:ncpus=1:ngpus=2", id="GPUs of no type"),
        pytest.param({"gpus": 2, "gpu_type": "a100"}, "select=1:ncpus=1:ngpus=2:gpu_type=a100", id="GPUs of a type"),
        pytest.param({"features": ("ib", "cpu=milan")}, "select=1:ncpus=1:ib=True:cpu=milan", id="features"),
        pytest.param({}, "walltime=36:00:00", id="wall time in hours"),
        pytest.param({"nodes": 2}, "place=scatter", id="chunks on different nodes"),
        pytest.param({"whole_nodes": True}, "place=pack:exclhost", id="a whole node"),
        pytest.param({"whole_nodes": True, "nodes": 3}, "place=scatter:exclhost", id="whole nodes"),
    ],
)
def test_resources_become_chunks(changes, expected):
    assert expected in asked_for(**changes)


def test_what_was_not_asked_is_left_to_pbs():
    assert asked_for() == ["select=1:ncpus=1", "walltime=36:00:00"]
    assert "A" not in dict(asked())


def test_a_reservation_is_a_queue():
    assert dict(asked())["q"] == "batch"
    assert dict(asked(reservation="R12"))["q"] == "R12"


def test_options_can_be_left_out_by_name_and_by_resource():
    bare = OpenPBS(["place", "r", "q"])
    options = bare.options(Resources(partition="batch", walltime=Walltime(3600), nodes=2), LABEL)
    assert [name for name, _ in options] == ["N", "l", "l"]
    assert not any(value.startswith("place") for _, value in options)


def test_every_option_that_the_hub_makes_is_allowed():
    wanted = {"nodes": 2, "cpus": 8, "memory": Memory(64), "gpus": 2, "gpu_type": "a100", "features": ("ib", "a=b.c")}
    more = {"account": "ddp363", "reservation": "R1", "whole_nodes": True, "requeue": True}
    label = JobLabel("name", "hs3f2a9c0b1d", follows="12.vm")
    options = openpbs.options(Resources("batch", Walltime(60), **wanted, **more), label)
    assert submit_words(openpbs, options, [])[len(openpbs.submit_command) :][-2:] == ["-W", "depend=afternotok:12.vm"]


@pytest.mark.parametrize(
    "value",
    [
        "select=1:ncpus=1+1:ncpus=2",
        "select=1:ncpus=1:x=a b",
        "select=1:ncpus=1:host=n1,walltime=1",
        "select=1:ncpus=1\n",
        "place=free",
        "walltime=1:2:3",
        "software=x",
    ],
)
def test_other_resources_are_refused(value):
    with pytest.raises(Refusal, match="may not have the value"):
        submit_words(openpbs, [("l", value)], [])


def test_no_line_of_the_script_is_an_option_and_no_process_stays_behind():
    words = openpbs.submit_command
    assert words[words.index("-C") + 1] == ""
    assert "-f" in words


# --- the listing


@pytest.mark.parametrize(
    ("name", "job_id", "state", "hopeless"),
    [
        ("running", "0.vm", JobState.RUNNING, False),
        ("stopped-queue", "7.vm", JobState.PENDING, False),
        ("too-big", "5.vm", JobState.PENDING, True),
        ("held", "6.vm", JobState.HELD, False),
        ("after-qdel", "0.vm", JobState.ENDED, False),
    ],
)
def test_a_recorded_job_is_read(name, job_id, state, hopeless):
    status = parsed(recorded(name))[job_id]
    assert (status.state, status.owner, status.tag) == (state, "alice", "jupyterhub-singleuser")
    assert status.host == ("vm" if state is JobState.RUNNING else None)
    assert status.hopeless is hopeless


def test_no_jobs_are_an_empty_listing():
    assert parsed(recorded("no-jobs")) == {}


@pytest.mark.parametrize("word", sorted(STATES))
def test_only_final_states_are_an_end(word):
    assert (of_one(state=word).state is JobState.ENDED) == (word in "CFX")


@pytest.mark.parametrize("word", ["", "Z", "r", 7, None, ["R"]])
def test_an_unknown_state_is_unknown_and_never_gone(word):
    assert of_one(state=word).state is JobState.UNKNOWN


def test_a_job_whose_nodes_are_being_set_up_waits():
    assert of_one(substate=71).state is JobState.PENDING
    assert of_one(substate=41).state is JobState.RUNNING


@pytest.mark.parametrize(
    ("exec_host", "host"),
    [("vm/0", "vm"), ("n1/2*4", "n1"), ("n2/0*2+n1/0*2", "n2"), ("n1.a.org/4", "n1.a.org"), (None, None), (12, "12")],
)
def test_the_script_runs_on_the_first_node(exec_host, host):
    assert of_one(exec_host=exec_host).host == host


def test_arrays_are_no_jobs_of_ours():
    assert parsed(answer(**{"12[].vm": job("B"), "12[3].vm": job(), "13.vm": job()})).keys() == {"13.vm"}


FORGED = '"}, "7.vm": {"job_state": "F", "Job_Owner": "bob@head"}, "9.vm": {"x": "\nJob Id: 7.vm\n    job_state = F\n'


@pytest.mark.parametrize("name", ["Job_Name", "comment", "Account_Name", "Submit_arguments"])
def test_a_value_that_looks_like_another_job_is_text(name):
    ours, forger = job(), job(**{"Job_Owner": "bob@head", name: FORGED})
    jobs = parsed(answer(**{"7.vm": ours, "9.vm": forger}))
    assert set(jobs) == {"7.vm", "9.vm"}
    assert jobs["7.vm"] == parsed(answer(**{"7.vm": ours}))["7.vm"]


@pytest.mark.parametrize(
    ("attributes", "starts_at"),
    [
        ({"stime": "Sat Nov 21 02:36:24 2026"}, 1795228584),
        ({"estimated": {"start_time": "Sat Nov 21 02:36:24 2026"}}, 1795228584),
        ({"estimated": {"start_time": 1795228584}}, 1795228584),
        ({"stime": "yesterday"}, 0),
        ({}, 0),
    ],
)
def test_a_time_is_read_as_utc_whatever_the_hubs_zone_is(attributes, starts_at, monkeypatch):
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert parsed(answer(**{"7.vm": job(**attributes)}))["7.vm"].starts_at == starts_at
        assert openpbs.query_variables == {"TZ": "UTC"}
    finally:
        monkeypatch.undo()
        time.tzset()


def test_one_users_control_characters_do_not_spoil_the_list_of_all():
    out = answer(**{"7.vm": job(Variable_List={"A": "MARK"})}).replace("MARK", "\x01\t\n")
    assert set(parsed(out)) == {"7.vm"}


@pytest.mark.parametrize(
    "out",
    [
        "",
        answer(**{"7.vm": job()})[:-20],
        "[]",
        "{}",
        answer(**{"7.vm": "R"}),
        '{"pbs_server": "vm", "Jobs": []}',
        "<Data></Data>",
        "Job id            Name\n7.vm   x\n",
        '{"a":' * 100_000,
    ],
    ids=["nothing", "cut off", "a list", "no server", "no table", "no jobs", "XML", "the short layout", "too deep"],
)
def test_an_answer_that_is_no_listing_is_not_believed(out):
    with pytest.raises(ValueError, match=r"."):
        parsed(out)


def test_a_notice_may_stand_before_the_listing():
    assert set(parsed("Maintenance on Monday\n" + answer(**{"7.vm": job()}))) == {"7.vm"}


def test_reading_takes_time_in_proportion_to_length():
    jobs = {f"{number}.vm": job(Variable_List={"A": "x" * 900}) for number in range(10_000)}
    begun = time.perf_counter()
    assert len(parsed(answer(**jobs))) == len(jobs)
    assert time.perf_counter() - begun < 30


# --- one job


def end(**attributes):
    return openpbs.parse_end("12.vm", [answer(**{"12.vm": job("F", **attributes)})], "", str)


def test_a_recorded_end_is_read():
    record = openpbs.parse_end("8.vm", [recorded("exit-3")], "", str)
    assert (record.cause, record.exit_code, record.node) == (Cause.EXITED, 3, "vm")
    record = openpbs.parse_end("0.vm", [recorded("after-qdel")], "", str)
    assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, "alice")


@pytest.mark.parametrize(
    ("status", "cause", "code", "number"),
    [
        (0, Cause.EXITED, 0, None),
        (137, Cause.EXITED, 137, 9),
        (265, Cause.EXITED, None, 9),
        (-27, Cause.OUT_OF_MEMORY, None, None),
        (-29, Cause.WALL_TIME, None, None),
        (-3, Cause.NOT_STARTED, None, None),
    ],
)
def test_an_exit_status_is_a_cause(status, cause, code, number):
    record = end(Exit_status=status, substate=93, stime="x")
    assert (record.cause, record.exit_code, record.signal) == (cause, code, number)
    assert record.message.endswith(".")


@pytest.mark.parametrize(
    ("comment", "by"),
    [
        ("Job run at Thu Nov 26 at 19:48 on (n1:ncpus=1) and terminated by root@head", "root"),
        ("Not Running: Queue not started.", ""),
        ("and terminated by bob@head, they say", ""),
    ],
)
def test_a_cancelled_job_says_by_whom_where_pbs_does(comment, by):
    record = end(substate=91, comment=comment)
    assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, by)


def test_a_follow_up_whose_condition_did_not_come_true_was_removed():
    assert end(substate=92, depend="afternotok:11.vm@vm") is FOLLOW_UP_REMOVED


@pytest.mark.parametrize("outs", [[""], [recorded("running")], [recorded("no-jobs")]], ids=["failed", "other", "none"])
def test_without_a_record_nothing_is_said(outs):
    assert openpbs.parse_end("12.vm", outs, "", str) is None


def test_how_often_a_job_was_started_is_read():
    assert openpbs.parse_runs("0.vm", recorded("running"), "") == 1
    for job_id, name in (("7.vm", "stopped-queue"), ("1.vm", "running")):
        with pytest.raises(ValueError, match="does not say"):
            openpbs.parse_runs(job_id, recorded(name), "")


@pytest.mark.parametrize("job_id", ["", "-x", "12[].vm", "12.vm 13.vm", "batch"])
def test_only_a_single_job_is_asked_for(job_id):
    for command in (openpbs.details_command, lambda one: openpbs.runs_command(one, "")):
        with pytest.raises(ValueError, match="not the id"):
            command(job_id)


@pytest.mark.parametrize(("shown", "sees"), [("True", True), ("False", False), (None, False)])
def test_jobs_of_all_are_shown_where_the_server_says_so(shown, sees):
    server = {} if shown is None else {"query_other_jobs": shown}
    out = json.dumps({"pbs_server": "vm", "Server": {"vm": server}})
    assert openpbs.parse_visibility(out, "jupyterhub") is sees


def test_without_an_answer_nothing_is_promised():
    assert not openpbs.parse_visibility(recorded("no-jobs"), "root")


# --- what a failure means


@pytest.mark.parametrize(
    ("code", "err", "away"),
    [
        (255, "Connection refused\nqstat: cannot connect to server vm (errno=15010)", True),
        (162, "Connection refused\nqsub: cannot connect to server vm (errno=15010)", True),
        (255, "auth: Unable to authenticate connection (vm:15001)\nqsub: cannot connect to server vm (errno=-1)", True),
        (-9, "", True),
        (170, "qsub: Unknown queue", False),
        (188, "qsub: Job violates queue and/or server resource limits", False),
        (169, "qsub: cannot connect to server, says a hook", False),
        (1, "qsub: illegal -N value", False),
    ],
)
def test_a_server_that_is_away_is_told_from_a_refusal(code, err, away):
    assert openpbs.unreachable(Answer(code, "", err)) is away


@pytest.mark.parametrize(
    ("code", "err", "gone"),
    [
        (153, "qdel: Unknown Job Id 9.vm", True),
        (35, "qdel: Job has finished 0.vm", True),
        (153, "", False),
        (159, "qdel: Unauthorized Request  36.vm", False),
        (255, "qdel: cannot connect to server", False),
    ],
)
def test_a_job_that_has_ended_is_known_by_the_servers_word(code, err, gone):
    assert openpbs.already_gone(Answer(code, "", err)) is gone


def test_commands_without_a_configuration_say_what_to_do():
    words = "pbsconf error: pbs conf variables not found: PBS_SERVER\nqstat: cannot connect to server  (errno=0)"
    assert "PBS_CONF_FILE" in openpbs.not_set_up(Answer(255, "", words))
    assert openpbs.not_set_up(Answer(170, "", "qsub: Unknown queue")) == ""


@pytest.mark.parametrize(
    "err", ["/opt/torque/bin/qstat: invalid option -- 'F'\nusage:", "Unknown option: F\nUsage:\n    qstat [-f]"]
)
def test_the_commands_of_others_are_refused(err):
    assert "scheduler.path" in openpbs.wrong_type(Answer(2, "", err))
    assert openpbs.wrong_type(Answer(255, "", err)) == ""


# --- reasons


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("Not Running: Queue not started.", "The queue does not start jobs at the moment."),
        ("Not Running: Insufficient amount of resource: ngpus ", "Other jobs are using what you asked for (ngpus)."),
        (
            "Not Running: Insufficient amount of resource: mem (R: 2gb A: 1gb T: 4gb)",
            "Other jobs are using what you asked for (mem).",
        ),
        ("Not Running: Not enough free nodes available", "Other jobs are using the nodes that you need."),
        (
            "Not Running: User has reached queue debug running job limit.",
            "You have reached the limit of running jobs that one user may have in this queue.",
        ),
        ("Not Running: would exceed user bob's limit", "would exceed user bob's limit."),
        ("Job run at Sat Nov 21 at 02:36 on (vm:ncpus=1)", ""),
        ("", ""),
    ],
)
def test_a_comment_becomes_a_sentence(reason, sentence):
    assert openpbs.explain(reason) == sentence


def test_a_job_that_can_never_run_says_so():
    said = openpbs.explain(parsed(recorded("too-big"))["5.vm"].reason)
    assert said.startswith("No node has what the job asks for, so it will not start.")
    assert "ncpus (R: 6336 A: 2 T: 2)" in said


# --- the warning


def warned(seconds, warning_s):
    lines = openpbs.script_lines(Resources("batch", Walltime(seconds), warning_s=warning_s))
    script = f"trap '' USR1\n{lines}\ntrap 'echo warned; exit' USR1\nwhile :; do {{ sleep 0.05; }}; done"
    return subprocess.Popen(["bash", "-c", script], stdout=subprocess.PIPE, text=True)


def test_the_script_warns_before_the_wall_time_ends():
    with warned(301, 300) as process:
        assert process.stdout.read() == "warned\n"


def test_a_script_that_is_not_to_warn_starts_no_clock():
    assert "\nhpc_left=0\n" in openpbs.script_lines(Resources("batch", Walltime(600)))


def test_a_profile_with_a_qos_is_told_what_there_is_instead(tmp_path):
    site = tmp_path / "site.toml"
    text = find_shipped("openpbs-minimal.toml").read_text().replace("max_cpus", 'qos = ["high"]\nmax_cpus')
    site.write_text(text)
    with pytest.raises(ProfileError, match="PBS has no QOS"):
        load(site)
