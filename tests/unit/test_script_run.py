"""The job script run by bash, with a stand-in for the launcher's Python."""

import json
import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from support.launcher import SOURCE
from support.scripts import SMALL_SITE, job_runs, with_setup

from hpcspawner.jobs.keys import Keys
from hpcspawner.schedulers.base import JobLabel


@pytest.fixture
def run(tmp_path):
    with job_runs(tmp_path) as start:
        yield start


def test_the_launcher_gets_its_source_and_its_settings(run):
    job = run({"directory": "/scratch/it's {{ 7 * 7 }}"})
    assert job.ends() == 0
    assert job.recorded("launcher") == SOURCE + "\n"
    told = json.loads(job.recorded("settings"))
    assert (told["ticket"], told["directory"]) == ("TICKET-STANDS-HERE", "/scratch/it's {{ 7 * 7 }}")


def test_the_log_lies_in_the_home_and_is_for_its_owner_alone(run):
    job = run()
    assert job.ends() == 0
    assert (job.log.stat().st_mode & 0o777, job.log.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert job.recorded("log") == str(job.log)
    text = job.log.read_text()
    assert text.startswith("hpcspawner: job 12 on ")
    assert "the launcher's words" in text


def test_the_log_goes_elsewhere_where_its_folder_can_not_be_made(run):
    job = run(profile=SMALL_SITE | {"job": {"log": "/proc/no/such"}})
    assert job.ends() == 0
    log = Path(job.recorded("log"))
    try:
        assert log.stat().st_mode & 0o777 == 0o600
        assert "the launcher's words" in log.read_text()
    finally:
        log.unlink()


def test_old_logs_of_ours_are_removed_and_nothing_else(run, tmp_path):
    folder = tmp_path / "the home" / ".hpcspawner"
    (folder / "deeper").mkdir(parents=True)
    tag, old = "sabcdefghijklmn", 20
    files = {
        f"jupyter-1-{tag}.log": ("hpcspawner: job 1 on n1, today\nand so on\n", old),
        f"jupyter-lab-2.head-{tag}.log": ("hpcspawner: job 2.head on n1, today\n", old),
        f"jupyter-3-{tag}.log": ("hpcspawner: job 3 on n1, today\n", 10),
        f"deeper/jupyter-4-{tag}.log": ("hpcspawner: job 4 on n1, today\n", old),
        # The user's own: by their names, by what is in them, or by both.
        "jupyter-notes.log": ("notes\n", old),
        "jupyter-5.log": ("hpcspawner: job 5 on n1, today\n", old),
        "jupyter-best-of-6.log": ("hpcspawner: job 6 on n1, today\n", old),
        f"jupyter-7-{tag}.log": ("my notes on job 7 on n1\n", old),
        f"jupyter-8-{tag}.log": ("hpcspawner: job 88 on n1, today\n", old),
        f"jupyter-9-{tag}.log": ("", old),
        f"mine-10-{tag}.log": ("hpcspawner: job 10 on n1, today\n", old),
        f"jupyter-11-{tag}.log\njupyter-1.log": ("hpcspawner: job 11 on n1, today\n", old),
    }
    for name, (text, days) in files.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    job = run(home=False)
    assert job.ends() == 0
    gone = [name for name in files if not (folder / name).exists()]
    assert gone == [f"jupyter-1-{tag}.log", f"jupyter-lab-2.head-{tag}.log"]


def test_the_logs_of_two_clusters_in_one_home_have_two_names():
    """Each cluster, and each Hub, has a job with this number; the tag is one Hub's alone."""
    names = {
        JobLabel("jupyter", Keys(secret, "hub").new_tag("alice", "alice", "")).log("12") for secret in (b"a", b"b")
    }
    assert len(names) == 2


@pytest.mark.parametrize("code", [0, 3, 127])
def test_the_launchers_exit_code_is_the_jobs(run, code):
    assert run(does=f"exit {code}").ends() == code


def test_sigterm_is_for_the_launcher_and_its_exit_code_comes_back(run):
    job = run(does="while :; do sleep 0.1; done", profile=with_setup(job={"epilogue": "echo the epilogue"}))
    job.wait_until_ready()
    # To the shell alone, as Slurm's scancel --batch does it.
    job.process.send_signal(signal.SIGTERM)
    assert job.ends() == 43
    text = job.log.read_text()
    assert "the launcher got SIGTERM" in text
    assert text.endswith("the epilogue\n")


def test_a_launcher_that_takes_its_time_to_end_is_waited_for(run):
    does = "trap 'sleep 0.4; exit 44' TERM; while :; do sleep 0.1; done"
    job = run(does=does)
    job.wait_until_ready()
    time.sleep(0.1)
    for _ in range(3):
        job.process.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    assert job.ends() == 44


# A bash could not do it: what is ignored when it starts it can't trap.
WAITS_FOR_WARNINGS = """
import signal, sys
signal.signal(signal.SIGUSR1, lambda *_: print("the launcher got SIGUSR1", flush=True))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(43))
print("the launcher waits", flush=True)
while True:
    signal.pause()
"""


def test_a_warning_is_for_the_launcher_and_ends_nothing(run):
    job = run(does=f"exec {shlex.quote(sys.executable)} -c {shlex.quote(WAITS_FOR_WARNINGS)}")
    job.wait_until(job.log, "the launcher waits")
    job.process.send_signal(signal.SIGUSR1)
    job.process.send_signal(signal.SIGUSR2)
    job.wait_until(job.log, "the launcher got SIGUSR1")
    assert job.process.poll() is None
    job.process.send_signal(signal.SIGTERM)
    assert job.ends() == 43


def test_a_warning_before_the_launcher_is_there_ends_nothing(run):
    job = run(profile=with_setup(job={"prologue": "kill -USR1 $$; kill -USR2 $$"}))
    assert job.ends() == 0
    assert "the launcher's words" in job.log.read_text()


def test_a_launcher_that_has_only_begun_is_not_ended_by_a_warning(run):
    """Until it has handlers of its own, as while Python starts."""
    job = run(does="kill -USR1 $$; echo lives on")
    assert job.ends() == 0
    assert "lives on" in job.log.read_text()


def test_the_launcher_is_told_the_job_s_id(run):
    job = run()
    assert job.ends() == 0
    assert job.environment()["HPC_JOB"] == "12"


def test_a_job_that_is_run_again_keeps_its_first_log(run):
    """A scheduler runs the same script with the same id on another node."""
    job = run()
    assert job.ends() == 0
    first = job.log.read_text()
    again = job.again()
    assert again.wait(20) == 0
    text = job.log.read_text()
    assert text.startswith(first)
    assert text.count("hpcspawner: job 12 on ") == 2


def test_prologue_and_epilogue_run_around_the_server(run):
    job = run(does="exit 7", profile=with_setup(job={"prologue": "echo the prologue", "epilogue": "echo the epilogue"}))
    assert job.ends() == 7
    lines = job.log.read_text().splitlines()
    assert lines[1:] == ["the prologue", "the launcher's words", "the epilogue"]


def test_a_set_up_that_works_is_in_force_for_the_launcher(run):
    profile = with_setup(
        "export FROM_SETUP='two words'", path=["~/bin", "/opt/it's here/bin"], variables={"FROM_PROFILE": "$HOME `id`"}
    )
    job = run(profile=profile)
    assert job.ends() == 0
    assert job.recorded("setup-failed") == ""
    environment = job.environment()
    assert (environment["FROM_SETUP"], environment["FROM_PROFILE"]) == ("two words", "$HOME `id`")
    assert environment["PATH"].startswith(f"{job.home}/bin:/opt/it's here/bin:{job.folder}/bin:")


@pytest.mark.parametrize(
    ("lines", "failed"),
    [
        pytest.param(["false", "echo not reached"], "false", id="the first of two"),
        pytest.param(["true", "no-such-command --with 'it'"], "no-such-command --with 'it'", id="a missing command"),
        pytest.param(["echo $(("], "echo $((", id="a syntax error"),
        pytest.param(["(exit 5)"], "(exit 5)", id="any exit code"),
    ],
)
def test_the_first_line_of_the_set_up_that_fails_is_remembered(run, lines, failed):
    job = run(profile=with_setup(*lines))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == failed
    assert "not reached" not in job.log.read_text()


NODE = os.uname().nodename
LOOKED_FOR_MODULE = (
    "looked in /etc/profile.d/*.sh and the usual places of Lmod and Environment Modules in /usr/share and /opt;"
    " job.modules_init of the site's profile names the file to read"
)


def test_a_missing_module_system_is_a_set_up_that_failed(run):
    job = run(profile=with_setup(modules=["anaconda/3"]))
    assert job.ends() == 0
    assert (
        job.recorded("setup-failed") == f"module load anaconda/3 (no `module` command on {NODE}; {LOOKED_FOR_MODULE})"
    )


def test_a_conda_that_is_missing_is_a_set_up_that_failed(run):
    job = run(profile=with_setup(conda="my env"))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == (
        f"the conda environment my env (no conda on {NODE}: looked on the PATH, in CONDA_EXE, ~/miniconda3,"
        " ~/miniforge3, ~/anaconda3, ~/.conda; job.conda of the site's profile names the folder of another conda)"
    )


def test_the_fallback_path_comes_last(run):
    job = run(fallback_path=("/opt/hub/bin", "/opt/it's here"), profile=with_setup(path=["/opt/site/bin"]))
    assert job.ends() == 0
    path = job.environment()["PATH"]
    assert path.startswith("/opt/site/bin:")
    assert path.endswith(":/opt/hub/bin:/opt/it's here")


def test_what_the_submit_left_behind_is_not_for_the_notebook(run):
    job = run()
    assert job.ends() == 0
    assert not {"LC_ALL", "SUDO_USER"} & set(job.environment())
    assert job.environment()["HOME"] == str(job.home)
    assert job.environment()["USER"]


def test_an_environment_that_hides_python_does_not_hide_the_launchers(run):
    job = run(profile=with_setup("export PATH=/nowhere"))
    assert job.ends() == 0
    assert job.recorded("launcher") == SOURCE + "\n"


def test_a_node_without_python_says_so(run):
    job = run(profile=SMALL_SITE | {"job": {"python": "python3.no-such"}})
    assert job.ends() == 127
    assert "no Python on this node; the site profile's job.python names the one to use" in job.log.read_text()
