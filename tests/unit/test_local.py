"""The embedded scheduler, with real processes: what the Hub asks, and what its program does."""

import fcntl
import json
import os
import shlex
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest

from hpcspawner.programs import spool as program
from hpcspawner.programs.helper import Refusal
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.local import Local
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.units import Walltime

ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C"}
MARK = "5f0c9a7be1d24386"


# Not for a time: a busy machine takes longer than any.
UNTIL_GO = "while [ ! -e go ]; do sleep 0.05; done"


class Desk:
    """One spool folder, asked as the Hub asks."""

    def __init__(self, folder, slots=2):
        self.scheduler = Local(folder / "spool", slots)
        self.folder = folder

    def run(self, argv, stdin=""):
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=ENVIRONMENT, cwd="/", check=False, timeout=30
        )
        return Answer(done.returncode, done.stdout, done.stderr)

    def script(self, *lines):
        return "\n".join(["#!/bin/bash", f"cd {shlex.quote(str(self.folder))}", *lines, ""])

    def submit_words(self, walltime=600, tag="hs3f2a9c0b1d", follows=""):
        options = [("tag", tag), ("walltime", str(walltime)), *([("follows", follows)] if follows else [])]
        return submit_words(self.scheduler, options, ())

    def submit(self, *lines, **options):
        answer = self.run(self.submit_words(**options), self.script(*lines))
        assert answer.code == 0, answer.message
        return self.scheduler.parse_submit(answer.out)

    def go(self):
        """Let a job that waits for it go on."""
        (self.folder / "go").touch()

    def list(self):
        argv = self.scheduler.query_command(MARK)
        answer = self.run(argv)
        assert answer.code == 0, answer.message
        return self.scheduler.parse_query(answer.out, MARK)

    def cancel(self, job_id):
        return self.run(self.scheduler.cancel_command(job_id))

    def details(self, job_id):
        return json.loads(self.run(self.scheduler.details_command(job_id)).out)

    def record(self, job_id):
        [argv] = self.scheduler.end_commands(job_id, MARK)
        return self.scheduler.parse_end(job_id, [self.run(argv).out], MARK, str)

    def wait_until(self, condition, seconds=60.0):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := condition():
                return found
            time.sleep(0.03)
        raise AssertionError(f"not within {seconds} s; the jobs are {self.list()}")

    def wait_for(self, job_id, state, seconds=60.0):
        return self.wait_until(lambda: status if (status := self.list()[job_id]).state is state else None, seconds)

    def text(self, name):
        return self.wait_until(lambda: file.read_text() if (file := self.folder / name).exists() else "").strip()


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path)
    yield desk
    files = (tmp_path / "spool").glob("[0-9]*.json")
    running = [file.stem for file in files if json.loads(file.read_text())["state"] != "ended"]
    for job_id in running:
        desk.cancel(job_id)
    for job_id in running:
        desk.wait_for(job_id, JobState.ENDED)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


# --- a job's life


def test_a_job_runs_and_ends(desk):
    job_id = desk.submit(UNTIL_GO)
    status = desk.list()[job_id]
    assert (status.state, status.host, status.tag) == (JobState.RUNNING, "127.0.0.1", "hs3f2a9c0b1d")
    assert status.owner
    assert time.time() - 60 < status.starts_at <= time.time()
    desk.go()
    status = desk.wait_for(job_id, JobState.ENDED)
    assert (status.host, status.reason) == (None, "exit code 0")


def test_the_exit_code_is_kept(desk):
    job_id = desk.submit("exit 3")
    assert desk.wait_for(job_id, JobState.ENDED).reason == "exit code 3"
    assert desk.details(job_id)["exit"] == 3


def test_a_signal_is_told(desk):
    job_id = desk.submit("kill -9 $$")
    assert desk.wait_for(job_id, JobState.ENDED).reason == "killed by signal 9"


def test_a_job_has_an_environment_of_its_own(desk):
    desk.submit("env | sort > environment; echo $OLDPWD > folder; umask > umask")
    assert desk.text("umask") == "0022"
    assert desk.text("folder") == "/"
    names = {line.partition("=")[0] for line in desk.text("environment").splitlines()}
    wanted = {"HPC_LOCAL_JOBID", "HPC_LOCAL_SPOOL", "HOME", "LANG", "USER", "LOGNAME", "SHELL", "PATH"}
    assert wanted <= names
    assert names <= wanted | {"PWD", "SHLVL", "_", "OLDPWD"}


def test_a_script_that_is_not_ascii_arrives_byte_for_byte(desk):
    argv = desk.submit_words()
    script = desk.script("printf %s 'ä\udcff' > bytes").encode("utf-8", "surrogateescape")
    subprocess.run(argv, input=script, env=ENVIRONMENT, check=True, capture_output=True)
    desk.wait_until((desk.folder / "bytes").exists)
    desk.wait_until(lambda: (desk.folder / "bytes").read_bytes() == "ä".encode() + b"\xff")


def test_nothing_of_a_job_survives_it(desk):
    job_id = desk.submit("setsid sleep 60 & echo $! > pid", "sleep 0.1")
    desk.wait_for(job_id, JobState.ENDED)
    assert not is_alive(int(desk.text("pid")))


def test_the_script_is_removed_when_the_job_ends_and_nobody_else_can_read_the_folder(desk):
    job_id = desk.submit(UNTIL_GO)
    spool = desk.scheduler.spool
    assert (spool / f"{job_id}.sh").exists()
    assert {path.stat().st_mode & 0o077 for path in [spool, *spool.iterdir()]} == {0}
    desk.go()
    desk.wait_for(job_id, JobState.ENDED)
    assert not (spool / f"{job_id}.sh").exists()


# --- slots


def test_a_job_waits_for_a_slot_and_starts_when_one_is_free(tmp_path):
    desk = Desk(tmp_path, slots=1)
    first, second = desk.submit(UNTIL_GO), desk.submit("echo > started")
    status = desk.list()[second]
    assert (status.state, status.reason, status.host) == (JobState.PENDING, "Slots", None)
    assert desk.scheduler.explain(status.reason).endswith(".")
    assert not (tmp_path / "started").exists()
    desk.go()
    # Nobody asks from here on: the first starts the second when it ends.
    desk.wait_until((tmp_path / "started").exists)
    desk.wait_for(first, JobState.ENDED)
    desk.wait_for(second, JobState.ENDED)


def test_twenty_submits_at_once_get_twenty_ids_and_never_more_slots_than_there_are(tmp_path):
    desk = Desk(tmp_path, slots=3)
    script = desk.script("printf + >> log", "sleep 0.05", "printf -- - >> log")
    argv = desk.submit_words()
    submits = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        for _ in range(20)
    ]
    ids = [submit.communicate(script)[0].strip() for submit in submits]
    assert sorted(map(int, ids)) == list(range(1, 21))
    desk.wait_until(lambda: all(status.state is JobState.ENDED for status in desk.list().values()))
    log = (tmp_path / "log").read_text()
    running = [log[:end].count("+") - log[:end].count("-") for end in range(len(log) + 1)]
    assert log.count("+") == 20
    assert 1 <= max(running) <= 3


def test_an_id_is_never_given_twice(desk):
    first = desk.submit("true")
    desk.wait_for(first, JobState.ENDED)
    (desk.scheduler.spool / f"{first}.json").unlink()
    assert desk.submit("true") == str(int(first) + 1)


# --- ends


def test_a_waiting_job_is_cancelled(tmp_path):
    desk = Desk(tmp_path, slots=1)
    first, second = desk.submit("exec sleep 60"), desk.submit("echo > started")
    assert desk.cancel(second).code == 0
    status = desk.list()[second]
    assert (status.state, status.reason) == (JobState.ENDED, "cancelled")
    assert desk.cancel(first).code == 0
    assert desk.wait_for(first, JobState.ENDED).reason == "cancelled"
    assert not (tmp_path / "started").exists()


def test_a_cancel_right_after_the_submit_is_not_lost(desk):
    job_id = desk.submit("exec sleep 60")
    assert desk.cancel(job_id).code == 0
    assert desk.wait_for(job_id, JobState.ENDED).reason == "cancelled"


def test_a_cancelled_job_may_clean_up_and_is_neither_running_nor_gone_meanwhile(desk):
    job_id = desk.submit(f"trap '{UNTIL_GO}; echo done > cleaned; exit 0' TERM", "echo > ready", "sleep 60 & wait")
    desk.wait_until((desk.folder / "ready").exists)
    assert desk.cancel(job_id).code == 0
    assert desk.list()[job_id].state is JobState.UNKNOWN
    desk.go()
    assert desk.wait_for(job_id, JobState.ENDED).reason == "cancelled"
    assert desk.text("cleaned") == "done"
    assert desk.cancel(job_id).code == 0


def test_jobs_that_ignore_sigterm_are_killed_after_a_cancel_and_at_the_end_of_their_time(desk):
    stubborn = ("trap '' TERM", "echo $$ > $HPC_LOCAL_JOBID.pid", "while :; do sleep 0.2; done")
    late, cancelled = desk.submit(*stubborn, walltime=1), desk.submit(*stubborn)
    pids = [int(desk.text(f"{job_id}.pid")) for job_id in (late, cancelled)]
    begun = time.monotonic()
    desk.cancel(cancelled)
    assert desk.wait_for(cancelled, JobState.ENDED).reason == "cancelled"
    assert time.monotonic() - begun > program.KILL_WAIT_S - 0.5
    assert desk.wait_for(late, JobState.ENDED).reason == "walltime"
    assert not any(is_alive(pid) for pid in pids)


# --- one job after another


@pytest.mark.parametrize("ends", ["exit 3", "kill -9 $$", "exec sleep 60"], ids=["exit code", "signal", "cancelled"])
def test_a_job_starts_after_one_that_ended_badly(desk, ends):
    first = desk.submit(UNTIL_GO, ends)
    second = desk.submit("echo > started", follows=first)
    status = desk.list()[second]
    assert (status.state, status.reason) == (JobState.PENDING, "Follows")
    desk.go()
    assert desk.scheduler.explain(status.reason).endswith(".")
    if "sleep" in ends:
        desk.cancel(first)
    # Nobody asks from here on: the first starts the second when it ends.
    desk.wait_until((desk.folder / "started").exists)
    assert desk.wait_for(second, JobState.ENDED).reason == "exit code 0"


def test_a_job_is_dropped_after_one_that_ended_well(desk):
    first = desk.submit(UNTIL_GO)
    second = desk.submit("echo > started", follows=first)
    third = desk.submit("echo > started-too", follows=second)
    desk.go()
    assert desk.wait_for(second, JobState.ENDED).reason == "dropped"
    assert desk.record(second).cause is Cause.NOT_STARTED
    assert not (desk.folder / "started").exists()
    # A job that was dropped did not end well.
    assert desk.wait_for(third, JobState.ENDED).reason == "exit code 0"


def test_a_job_that_follows_one_that_nobody_knows_starts(desk):
    job_id = desk.submit("true", follows="99")
    assert desk.wait_for(job_id, JobState.ENDED).reason == "exit code 0"


def test_a_job_that_follows_takes_no_slot_and_may_be_cancelled(tmp_path):
    desk = Desk(tmp_path, slots=1)
    first = desk.submit("exec sleep 60")
    second = desk.submit("echo > started", follows=first)
    assert desk.cancel(second).code == 0
    assert desk.list()[second].reason == "cancelled"
    desk.cancel(first)
    desk.wait_for(first, JobState.ENDED)
    assert not (tmp_path / "started").exists()


# --- how a job ended


@pytest.mark.parametrize(
    ("line", "walltime", "cause", "code", "number"),
    [
        ("exit 0", 60, Cause.EXITED, 0, None),
        ("exit 3", 60, Cause.EXITED, 3, None),
        ("kill -9 $$", 60, Cause.EXITED, None, 9),
        ("exec sleep 60", 4, Cause.WALL_TIME, None, 15),
    ],
)
def test_how_a_job_ended_is_told(desk, line, walltime, cause, code, number):
    job_id = desk.submit(UNTIL_GO, line, walltime=walltime)
    assert desk.record(job_id) is None
    desk.go()
    desk.wait_for(job_id, JobState.ENDED)
    record = desk.record(job_id)
    assert (record.cause, record.exit_code, record.signal) == (cause, code, number)
    assert record.message.endswith(".")


def test_a_cancelled_and_a_lost_job_are_told_apart(desk):
    cancelled, lost = desk.submit("exec sleep 60"), desk.submit("exec sleep 60")
    desk.cancel(cancelled)
    os.kill(desk.details(lost)["supervisor"][0], signal.SIGKILL)
    desk.wait_for(cancelled, JobState.ENDED)
    desk.wait_for(lost, JobState.ENDED)
    assert [desk.record(job_id).cause for job_id in (cancelled, lost)] == [Cause.CANCELLED, Cause.NODE_FAILED]


def test_an_unknown_job_has_no_end(desk):
    assert desk.record("99") is None
    assert local.parse_runs("12", "", MARK) == 1


def test_an_unknown_job_is_said_to_be_gone(desk):
    answer = desk.cancel("99")
    assert answer.code == program.UNKNOWN_JOB
    assert desk.scheduler.already_gone(answer)
    assert not desk.scheduler.unreachable(answer)


def test_a_job_that_ended_is_listed_for_five_minutes(desk):
    job_id = desk.submit("true")
    desk.wait_for(job_id, JobState.ENDED)
    file = desk.scheduler.spool / f"{job_id}.json"
    known = json.loads(file.read_text())
    file.write_text(json.dumps(known | {"ended": time.time() - 290}))
    assert job_id in desk.list()
    file.write_text(json.dumps(known | {"ended": time.time() - 310}))
    assert job_id not in desk.list()
    assert not file.exists()


# --- what goes wrong


def test_a_job_survives_the_death_of_all_that_submitted_it(desk):
    argv = shlex.join(desk.submit_words())
    parent = subprocess.Popen(
        ["bash", "-c", f"{argv}; echo; sleep 60"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        start_new_session=True,
    )
    parent.stdin.write(desk.script(UNTIL_GO, "echo > finished"))
    parent.stdin.close()
    job_id = parent.stdout.readline().strip()
    os.killpg(parent.pid, signal.SIGKILL)
    # Its output ends with it: no job holds the pipe.
    assert parent.stdout.read().strip() == ""
    parent.wait()
    assert desk.list()[job_id].state is JobState.RUNNING
    desk.go()
    assert desk.wait_for(job_id, JobState.ENDED).reason == "exit code 0"
    assert (desk.folder / "finished").exists()


def test_a_job_whose_supervisor_was_killed_is_lost_and_leaves_nothing_behind(desk):
    job_id = desk.submit("setsid sleep 60 & echo $! > pid", "sleep 60")
    pid = int(desk.text("pid"))
    os.kill(desk.details(job_id)["supervisor"][0], signal.SIGKILL)
    assert desk.wait_for(job_id, JobState.ENDED).reason == "lost"
    assert not is_alive(pid)


@pytest.mark.parametrize("part", [1, 2], ids=["start time", "boot"])
def test_a_process_with_the_supervisors_number_is_not_taken_for_it(tmp_path, part):
    desk = Desk(tmp_path)
    job_id = desk.submit("exec sleep 60")
    file = desk.scheduler.spool / f"{job_id}.json"
    known = json.loads(file.read_text())
    supervisor = known["supervisor"]
    known["supervisor"] = [supervisor[0], *("another" if at == part else supervisor[at] for at in (1, 2))]
    file.write_text(json.dumps(known))
    assert desk.list()[job_id].reason == "lost"
    desk.wait_until(lambda: not is_alive(supervisor[0]))


def test_a_lost_job_makes_room_for_the_next(tmp_path):
    desk = Desk(tmp_path, slots=1)
    first, second = desk.submit("exec sleep 60"), desk.submit("echo > started")
    os.kill(desk.details(first)["supervisor"][0], signal.SIGKILL)
    desk.wait_for(second, JobState.ENDED)
    assert (tmp_path / "started").exists()


def test_a_folder_that_stays_locked_is_no_answer_and_stops_nobody_for_ever(tmp_path):
    spool = program.Spool(str(tmp_path))
    with (tmp_path / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(program.SpoolError) as raised, spool.locked(patience_s=0.1):
            pass
    assert raised.value.code == program.BUSY
    assert Local(tmp_path, 1).unreachable(Answer(program.BUSY, "", str(raised.value)))
    # The client gives a command 30 s.
    assert program.LOCK_PATIENCE_S < 30


FULL_DISK = ("prlimit", "--fsize=0")


def test_a_full_disk_refuses_a_job_and_leaves_nothing_of_it(desk):
    answer = desk.run([*FULL_DISK, *desk.submit_words()], desk.script("true"))
    assert answer.code == program.IO_ERROR
    assert "large" in answer.message
    assert desk.list() == {}
    assert {path.name for path in desk.scheduler.spool.iterdir()} <= {"lock", "last-id"}


def test_a_full_disk_hides_no_job_and_no_end(tmp_path):
    desk = Desk(tmp_path, slots=1)
    lost, waiting = desk.submit("exec sleep 60"), desk.submit("echo > started")
    os.kill(desk.details(lost)["supervisor"][0], signal.SIGKILL)
    answer = desk.run([*FULL_DISK, *desk.scheduler.query_command(MARK)])
    jobs = desk.scheduler.parse_query(answer.out, MARK)
    assert (jobs[lost].state, jobs[waiting].state) == (JobState.ENDED, JobState.PENDING)
    # With room again, the next listing starts it, and starts it once.
    desk.wait_for(waiting, JobState.ENDED)
    assert (tmp_path / "started").exists()


def test_a_folder_that_cannot_be_made_is_an_error_with_words(tmp_path):
    (tmp_path / "spool").write_text("not a folder")
    desk = Desk(tmp_path)
    answer = desk.run(desk.scheduler.query_command(MARK))
    assert answer.code == program.IO_ERROR
    assert "spool" in answer.message
    assert not desk.scheduler.already_gone(answer)


def test_an_empty_script_is_refused(desk):
    answer = desk.run(desk.submit_words(), " \n")
    assert answer.code == program.BAD_SCRIPT
    assert "empty" in answer.message
    assert desk.list() == {}


# --- what the Hub asks and reads

local = Local(Path("/var/lib/hub/spool"), 2)


def test_values_arrive_as_they_were_given(desk):
    resources = Resources("here", Walltime(5400), cpus=3)
    label = JobLabel("jupyter-a.b_c", "hs3f2a9c0b1d")
    answer = desk.run(submit_words(desk.scheduler, desk.scheduler.options(resources, label), ()), desk.script("true"))
    job = desk.details(answer.out.strip())
    assert {name: job[name] for name in ("name", "tag", "walltime", "cpus", "follows")} == {
        "name": "jupyter-a.b_c",
        "tag": "hs3f2a9c0b1d",
        "walltime": 5400,
        "cpus": 3,
        "follows": "",
    }


def test_a_job_follows_only_a_number():
    resources = Resources("here", Walltime(60))
    assert ("follows", "12") in local.options(resources, JobLabel("a", "b", "12"))
    assert "follows" not in dict(local.options(resources, JobLabel("a", "b")))
    with pytest.raises(Refusal, match="the option follows may not have the value"):
        submit_words(local, local.options(resources, JobLabel("a", "hs3f2a9c0b1d", "12\n#HPC x=y")), ())


def test_commands_need_nothing_but_an_interpreter_without_site_packages():
    argv = list(local.submit_command)
    assert argv[1:4] == ["-I", "-S", program.__file__]
    assert argv[4:] == ["submit", "--spool", "/var/lib/hub/spool", "--slots", "2"]
    assert local.cancel_command("12")[4:6] == ["cancel", "12"]


@pytest.mark.parametrize("job_id", ["", "1.2", "../1", "-1", "12\n", "1 2"])
def test_only_a_number_is_cancelled_or_asked_for(job_id):
    for command in (local.cancel_command, local.details_command):
        with pytest.raises(ValueError, match="not the id"):
            command(job_id)


@pytest.mark.parametrize("out", ["", "x", "12\n13\n", "Welcome\n12\n", "12\n\n"])
def test_anything_else_is_no_job_id(out):
    with pytest.raises(ValueError, match="no job id"):
        local.parse_submit(out)


@pytest.mark.parametrize("out", ["", "[", "{}x", '[{"id": 1}]', "[1]", '{"a": 1}', "null"])
def test_an_answer_that_is_no_list_is_not_believed(out):
    with pytest.raises(ValueError):  # noqa: PT011 - json's own words, or ours
        local.parse_query(out, MARK)


def test_a_state_that_is_not_known_is_unknown_and_never_gone():
    row = {"id": "1", "state": "new", "host": None, "reason": "", "owner": "a", "tag": "t", "starts_at": 0}
    assert local.parse_query(json.dumps([row]), MARK)["1"].state is JobState.UNKNOWN


# --- a spool that somebody else has a hand in


def test_a_spool_that_is_a_link_is_refused_and_what_it_leads_to_is_left_alone(tmp_path):
    """A Hub that is root must not shut a folder of root's to which somebody has put a link."""
    target = tmp_path / "etc"
    target.mkdir(mode=0o755)
    spool = tmp_path / "spool"
    spool.symlink_to(target)
    argv = Local(spool, slots=1).query_command("0" * 16)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 77
    assert f"{spool} is a symbolic link; name the folder itself" in done.stderr
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert list(target.iterdir()) == []
