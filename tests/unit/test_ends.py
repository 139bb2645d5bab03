"""Why a job ended: who is believed, and in which order."""

import time
from dataclasses import replace

import pytest
from support.jobs import a_job

from hpcspawner.jobs.causes import RENEWED_AFTER, explain_end
from hpcspawner.jobs.record import End, Report
from hpcspawner.programs.launcher import codes
from hpcspawner.schedulers.records import exited
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site.profile import Job

ABSENT = JobStatus(JobState.ENDED)
LISTED = JobStatus(JobState.ENDED, native_state="TIMEOUT")
WALL_TIME = Record(Cause.WALL_TIME, "The job reached its wall time.")
MEMORY = Record(Cause.OUT_OF_MEMORY, "The job used more memory than it asked for.", signal=9)
NODE = Record(Cause.NODE_FAILED, "Node n1 failed.")
CANCELLED = Record(Cause.CANCELLED, "The job was cancelled by root (an administrator).", cancelled_by="root")
EXITED = Record(Cause.EXITED, "The job ended with exit code 11.", 11)
LOG = " Its log is ~/.hpcspawner/jupyter-12-h1.log."
JOB = Job(python="python3.9")
NOT_KNOWN = Record(Cause.UNKNOWN, "The job failed; Slurm's reason is not known.")

SIGNALLED = Report("signalled", "It was ended by SIGTERM.", signal=15)
KILLED = Report("server-exited", "It was killed.", exit_code=137)
KILLED_BY_NUMBER = Report("server-exited", "It was killed.", signal=9)
IDLE = Report("idle", "Nobody used it for 1 h.", exit_code=0)
EXIT = Report("server-exited", "It ended with exit code 3.", exit_code=3)
MISSING = Report("missing-program", "jupyter-lab was not found.", exit_code=1)


def a_row(report=None, **fields):
    return a_job(job_id="12", report=report, **fields)


@pytest.mark.parametrize(
    ("report", "port", "record", "status", "cause", "message"),
    [
        pytest.param(IDLE, 1, EXITED, LISTED, Cause.IDLE, IDLE.message, id="idle"),
        pytest.param(IDLE, 1, WALL_TIME, LISTED, Cause.IDLE, IDLE.message, id="idle, and the scheduler was late"),
        pytest.param(EXIT, 1, EXITED, LISTED, Cause.EXITED, EXIT.message, id="the server ended"),
        pytest.param(EXIT, 0, EXITED, LISTED, Cause.NOT_STARTED, EXIT.message, id="before it listened"),
        pytest.param(EXIT, 1, None, ABSENT, Cause.EXITED, EXIT.message, id="the launcher alone knows"),
        pytest.param(MISSING, 0, EXITED, LISTED, Cause.NOT_STARTED, MISSING.message, id="it never began"),
        pytest.param(
            Report("no-port", ""), 0, None, ABSENT, Cause.NOT_STARTED, "The server ended (no-port).", id="no words"
        ),
        pytest.param(SIGNALLED, 1, WALL_TIME, LISTED, Cause.WALL_TIME, WALL_TIME.message, id="killed: wall time"),
        pytest.param(SIGNALLED, 1, CANCELLED, LISTED, Cause.CANCELLED, CANCELLED.message, id="killed: by whom"),
        pytest.param(KILLED, 1, MEMORY, LISTED, Cause.OUT_OF_MEMORY, MEMORY.message, id="killed: memory"),
        pytest.param(KILLED_BY_NUMBER, 1, MEMORY, LISTED, Cause.OUT_OF_MEMORY, MEMORY.message, id="by its signal"),
        pytest.param(SIGNALLED, 1, None, LISTED, Cause.EXITED, SIGNALLED.message, id="killed: no record"),
        pytest.param(SIGNALLED, 1, NOT_KNOWN, LISTED, Cause.EXITED, SIGNALLED.message, id="killed: a useless record"),
        pytest.param(KILLED, 1, EXITED, LISTED, Cause.EXITED, KILLED.message, id="killed: the record says less"),
        pytest.param(None, 1, WALL_TIME, LISTED, Cause.WALL_TIME, WALL_TIME.message, id="no report: wall time"),
        pytest.param(None, 1, NODE, ABSENT, Cause.NODE_FAILED, NODE.message, id="no report: its node"),
        pytest.param(None, 1, EXITED, LISTED, Cause.EXITED, EXITED.message + LOG, id="no report: exit code"),
        pytest.param(
            None,
            1,
            None,
            LISTED,
            Cause.UNKNOWN,
            "The job ended. The scheduler says: TIMEOUT." + LOG,
            id="nothing but the listing's word",
        ),
        pytest.param(
            None,
            1,
            None,
            ABSENT,
            Cause.UNKNOWN,
            "The job has ended, and the scheduler no longer has a record of why." + LOG,
            id="nothing at all",
        ),
    ],
)
def test_who_knows_best_is_believed(report, port, record, status, cause, message):
    end = explain_end(a_row(report, port=port), record, status, JOB)
    assert (end.cause, end.message) == (cause, message)


@pytest.mark.parametrize("report", [None, IDLE, SIGNALLED])
@pytest.mark.parametrize("record", [None, WALL_TIME, CANCELLED])
def test_a_server_that_nobody_wants_was_stopped_whatever_else_is_told(report, record):
    end = explain_end(a_row(report, wanted=False), record, LISTED, JOB)
    assert (end.cause, end.message) == (Cause.STOPPED, "The server was stopped.")


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("report", [None, IDLE])
def test_why_the_hub_gave_a_job_up_is_the_last_word(wanted, report):
    """The scheduler would only say that it was cancelled."""
    verdict = End(Cause.NOT_STARTED, "Job 12 will not start.", 1.0)
    assert explain_end(a_row(report, wanted=wanted, hub_verdict=verdict), CANCELLED, LISTED, JOB) is verdict


@pytest.mark.parametrize(
    ("report", "record", "code"),
    [
        pytest.param(EXIT, EXITED, 3, id="the launcher's"),
        pytest.param(SIGNALLED, EXITED, 11, id="the record's where it has none"),
        pytest.param(IDLE, EXITED, 0, id="zero is one"),
        pytest.param(None, EXITED, 11, id="the record's"),
        pytest.param(None, WALL_TIME, None, id="none"),
        pytest.param(None, None, None, id="nobody knows"),
    ],
)
def test_the_exit_code_is_the_servers_where_it_is_known(report, record, code):
    assert explain_end(a_row(report, port=1), record, LISTED, JOB).exit_code == code


def test_an_end_has_its_time():
    before = time.time()
    assert before <= explain_end(a_row(), None, LISTED, JOB).at <= time.time()


@pytest.mark.parametrize(
    ("report", "record", "tells"),
    [
        pytest.param(EXIT, None, True, id="an exit"),
        pytest.param(KILLED, MEMORY, True, id="memory"),
        pytest.param(MISSING, None, True, id="never began"),
        pytest.param(IDLE, None, False, id="idle"),
        pytest.param(SIGNALLED, WALL_TIME, False, id="wall time"),
        pytest.param(SIGNALLED, NODE, False, id="its node"),
    ],
)
def test_the_last_lines_are_kept_where_they_may_explain_the_end(report, record, tells):
    end = explain_end(a_row(replace(report, log=("one", "two")), port=1), record, LISTED, JOB)
    assert end.log == (("one", "two") if tells else ())


@pytest.mark.parametrize(
    ("ran_s", "report", "record", "cause"),
    [
        pytest.param(1800, None, None, Cause.WALL_TIME, id="as long as it was given"),
        pytest.param(1795, SIGNALLED, None, Cause.WALL_TIME, id="killed when it was over"),
        pytest.param(1000, None, None, Cause.UNKNOWN, id="not as long"),
        pytest.param(1000, SIGNALLED, None, Cause.EXITED, id="killed before"),
        pytest.param(1800, SIGNALLED, NODE, Cause.NODE_FAILED, id="the scheduler knows better"),
        pytest.param(1800, IDLE, None, Cause.IDLE, id="the launcher knows better"),
    ],
)
def test_the_wall_time_explains_what_nobody_else_does(ran_s, report, record, cause):
    row = a_row(report, port=1, choices={"walltime": "30m"}, started_at=time.time() - ran_s)
    assert explain_end(row, record, ABSENT, JOB).cause is cause


@pytest.mark.parametrize("choices", [{}, {"walltime": None}, {"walltime": "30:00"}])
def test_a_wall_time_that_is_not_known_explains_nothing(choices):
    assert explain_end(a_row(choices=choices, started_at=1.0), None, ABSENT, JOB).cause is Cause.UNKNOWN


def test_a_job_that_never_called_home_has_no_time_that_was_up():
    assert explain_end(a_row(choices={"walltime": "30m"}), None, ABSENT, JOB).cause is Cause.UNKNOWN


def test_a_follow_up_takes_over_only_after_what_nobody_wanted():
    """Not after an idle or stopped server, nor after one that would only fail again."""
    assert {cause.value for cause in RENEWED_AFTER} == {"wall-time", "node-failed", "preempted"}


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (codes.BROKEN_CODE, "python3.9 (job.python of the site's profile), could not run the job's launcher"),
        (codes.REFUSED_CODE, "called the Hub and was refused"),
        (codes.UNTRUSTED_CODE, "the node does not know the authority"),
        (codes.UNANSWERED_CODE, "got no answer"),
        (codes.SETTINGS_CODE, "could not use what the Hub wrote into its script"),
        (codes.WRONG_NAME_CODE, "the certificate names another host"),
        (codes.WRONG_TIME_CODE, "The node's clock is wrong"),
        (codes.NOT_RUN_CODE, "can't be executed there"),
        (codes.NO_PYTHON_CODE, "the node has none that runs"),
    ],
)
def test_each_code_of_the_launcher_is_a_sentence_with_the_log_and_the_node(code, says):
    end = explain_end(a_row(), replace(exited(code), node="n3"), LISTED, JOB)
    assert (end.cause, end.exit_code) == (Cause.NOT_STARTED, code)
    assert says in end.message
    assert end.message.endswith(
        f" The job ended with exit code {code}. Its log is ~/.hpcspawner/jupyter-12-h1.log on n3."
    )


def test_a_job_that_was_refused_because_its_record_was_lost_says_so():
    end = explain_end(a_row(inherited=True), replace(exited(codes.REFUSED_CODE), node="n3"), LISTED, JOB)
    assert end.message.startswith("The Hub had lost its record of this job and refused its calls. The job ended with")


def test_every_code_of_the_launcher_has_a_sentence():
    for code in {value for name, value in vars(codes).items() if name.endswith("_CODE")}:
        assert explain_end(a_row(), exited(code), LISTED, JOB).cause is Cause.NOT_STARTED


@pytest.mark.parametrize("code", [2, 11, 42, 130])
def test_another_exit_code_is_told_with_the_log_and_the_node(code):
    end = explain_end(a_row(host="n2"), exited(code), LISTED, JOB)
    assert (end.cause, end.message) == (
        Cause.EXITED,
        f"The job ended with exit code {code}. Its log is ~/.hpcspawner/jupyter-12-h1.log on n2.",
    )


@pytest.mark.parametrize("code", [1, 3, 4, 127])
def test_an_exit_code_of_a_server_is_not_taken_for_the_launchers(code):
    """The job had its environment; the report of the server's end was lost."""
    end = explain_end(a_row(port=1, report_key_hash="x"), exited(code), LISTED, JOB)
    assert end.cause is Cause.EXITED
    assert end.message.startswith(f"The job ended with exit code {code}.")
