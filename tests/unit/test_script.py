"""The job script as a whole: compared with golden files, read as schedulers read it, and run by bash."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError
from material import FULL, NASTY

import hpcspawner
from hpcspawner.job import launcher
from hpcspawner.job import script as script_module
from hpcspawner.job.script import LAUNCHER_END, SETTINGS_END, CallHome, quote, quote_path, render, submission
from hpcspawner.programs.helper import Refusal, checked_script
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.local import Local
from hpcspawner.schedulers.registry import make_scheduler
from hpcspawner.schedulers.rights import submit_words
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.torque import Torque
from hpcspawner.site.profile import SiteProfile, load

SOURCE = Path(launcher.__file__).read_text(encoding="utf-8")
PROFILES = sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))
BIN = Path(__file__).parent / "bin"
# The embedded scheduler is started by its path.
HERE = f"{Path(hpcspawner.__file__).parent}/"

SCHEDULERS = {"slurm": Slurm(), "torque": Torque(), "local": Local(Path("/var/lib/hub/spool"), 2)}
LABEL = JobLabel("jupyter-alice", "h3f2a9c0b1d4e55")
HOME = CallHome("https://hub.example.org/hub/api/hpcspawner", "TICKET-STANDS-HERE")
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

# What only one scheduler understands: extra directives for every job, and for the partition with GPUs.
EXTRAS = {
    "slurm": ([{"option": "mail-type", "value": "NONE"}], [{"option": "gres-flags", "value": "enforce-binding"}]),
    "torque": ([{"option": "W", "value": "umask=027"}], [{"option": "V"}]),
    "local": ([], []),
}

REQUESTS = {
    "smallest": {"environment": "plain"},
    "gpu": {
        "partition": "gpu",
        "account": "ddp363",
        "reservation": "class",
        "environment": "science",
        "image": "torch",
        "interface": "notebook",
        "walltime": "1d",
        "cpus": 8,
        "memory": "16G",
        "gpus": 2,
        "gpu_type": "a100",
        "directory": "/scratch/it's here",
    },
    "whole-node": {"partition": "compute", "walltime": "1d 12h", "environment": "plain"},
}

SMALL_SITE = {
    "title": "Smallest",
    "scheduler": {"type": "local"},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "environments": [{"name": "plain"}],
}


def site(kind, **changes):
    """The full profile in the words of one scheduler."""
    everywhere, gpu = EXTRAS[kind]
    partitions = [one | ({"directives": gpu} if one["name"] == "gpu" else {}) for one in FULL["partitions"]]
    job = FULL["job"] | {"directives": everywhere}
    return SiteProfile.model_validate(
        FULL | {"scheduler": {"type": kind}, "partitions": partitions, "job": job} | changes
    )


def script(kind, options, *, profile=None, label=LABEL, home=HOME):
    profile = profile or site(kind)
    request = make(options, profile, LocalAccount("alice", "/home/alice"))
    return render(request, SCHEDULERS[kind], profile.job, label, home)


def without_launcher(text):
    """The script with one line in the launcher's place, so that golden files show only what is theirs."""
    assert text.count(SOURCE) == 1
    return text.replace(SOURCE, "# (hpcspawner/job/launcher.py stands here)\n")


def words(kind, options, *, profile=None, label=LABEL):
    """The words of the submit command."""
    profile = profile or site(kind)
    request = make(options, profile, LocalAccount("alice", "/home/alice"))
    job = submission(request, SCHEDULERS[kind], profile.job, label, HOME)
    return submit_words(SCHEDULERS[kind], job.options, profile.directives)


def settings_of(text):
    """What stands in the second here-document."""
    lines = text.splitlines()
    assert lines.count(SETTINGS_END) == 1
    return json.loads(lines[lines.index(SETTINGS_END) - 1])


def checked_by_bash(text):
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- whole scripts


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("case", REQUESTS)
def test_the_script_is_the_golden_one(golden, kind, case):
    home = replace(HOME, ca=PEM, fallback_path=("/opt/hub/bin",)) if case == "gpu" else HOME
    golden(f"{kind}/{case}.sh", without_launcher(script(kind, REQUESTS[case], home=home)))
    golden(f"{kind}/{case}.words", "".join(f"{word}\n" for word in words(kind, REQUESTS[case])[1:]).replace(HERE, ""))


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_the_script_of_a_site_that_adds_nothing_is_the_golden_one(golden, kind):
    profile = SiteProfile.model_validate(SMALL_SITE | {"scheduler": {"type": kind}})
    golden(f"{kind}/bare-site.sh", without_launcher(script(kind, {}, profile=profile)))
    golden(
        f"{kind}/bare-site.words",
        "".join(f"{word}\n" for word in words(kind, {}, profile=profile)[1:]).replace(HERE, ""),
    )


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_the_launcher_travels_whole(kind):
    text = script(kind, {})
    body = text.partition(f"3<<'{LAUNCHER_END}' 4<<'{SETTINGS_END}' &\n")[2].partition(f"\n{LAUNCHER_END}\n")[0]
    assert body + "\n" == SOURCE


def test_no_line_ends_a_here_document_early():
    nasty = [param.values[0] for param in NASTY]
    for kind in SCHEDULERS:
        for name in [*nasty, SETTINGS_END, LAUNCHER_END]:
            lines = script(kind, {"directory": f"/scratch/{name}"}).splitlines()
            assert (lines.count(LAUNCHER_END), lines.count(SETTINGS_END)) == (1, 1)
            assert lines.index(LAUNCHER_END) < lines.index(SETTINGS_END)
    assert not {LAUNCHER_END, SETTINGS_END} & set(SOURCE.splitlines())


# --- read by bash, shellcheck and the schedulers


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_bash_and_shellcheck_find_nothing_wrong(kind, tmp_path):
    assert shutil.which("shellcheck"), "shellcheck is not on PATH; `make test` installs what the tests need"
    texts = [script(kind, options) for options in REQUESTS.values()]
    texts += [script(kind, {"directory": f"/scratch/{param.values[0]}"}) for param in NASTY]
    files = []
    for number, text in enumerate(texts):
        checked_by_bash(text)
        files.append(tmp_path / f"{number}.sh")
        # The launcher is Python in a here-document: nothing in it is shell.
        files[-1].write_text(without_launcher(text))
    # Lines of the set-up are in single quotes so that they expand later.
    done = subprocess.run(["shellcheck", "--exclude=SC2016", *files], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("name", NASTY)
def test_a_directory_of_any_name_arrives_as_it_is(kind, name):
    text = script(kind, {"directory": f"/scratch/{name}"})
    assert settings_of(text)["directory"] == f"/scratch/{name}"
    assert settings_of(text)["variables"]["JUPYTERHUB_ROOT_DIR"] == f"/scratch/{name}"
    assert words(kind, {"directory": f"/scratch/{name}"}) == words(kind, {}), "it reaches no option"


@pytest.mark.parametrize("kind", SCHEDULERS)
@pytest.mark.parametrize("name", NASTY)
def test_a_job_of_another_name_is_not_submitted(kind, name):
    with pytest.raises(Refusal, match="may not have the value"):
        words(kind, {}, label=JobLabel(name, name))


@pytest.mark.parametrize("kind", ["slurm", "torque"])
@pytest.mark.parametrize("name", NASTY)
def test_a_directive_of_the_site_arrives_as_it_is(kind, name):
    extra = {"directives": [{"option": "x", "value": name}]}
    found = words(kind, {}, profile=site(kind, job=extra))
    assert found[-2:] == ["-x", name] if kind == "torque" else found[-1] == f"--x={name}"


@pytest.mark.parametrize("kind", ["slurm", "torque"])
def test_a_directive_without_a_value_is_an_option_alone(kind):
    extra = {"directives": [{"option": "x"}]}
    assert words(kind, {}, profile=site(kind, job=extra))[-1] == {"slurm": "--x", "torque": "-x"}[kind]


def test_an_account_arrives():
    assert "--account=tro100" in words("slurm", {"account": "tro100"})
    found = words("torque", {"account": "tro100"})
    assert found[found.index("-A") + 1] == "tro100"


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_no_line_is_one_that_a_scheduler_reads(kind):
    """Options are words of the submit command; a second grammar could be led astray."""
    nasty = [{"directory": f"/scratch/{param.values[0]}"} for param in NASTY]
    for options in (*REQUESTS.values(), *nasty, {"directory": "/scratch/#SBATCH --uid=0"}):
        text = script(kind, options)
        assert text.startswith("#!/bin/bash\n")
        assert checked_script(text.encode()) == text.encode()


# --- what the launcher is told


def test_the_image_is_entered_with_gpus_and_folders():
    told = settings_of(script("slurm", REQUESTS["gpu"]))
    assert told["wrap"] == [
        "apptainer",
        "exec",
        "--nv",
        "--bind=/scratch",
        "--bind=/scratch/it's here",
        "/images/torch.simg",
    ]
    assert told["environment"] == "Science stack, image torch"


def test_without_gpus_the_image_gets_none():
    told = settings_of(script("slurm", {"image": "torch"}))
    assert told["wrap"] == ["apptainer", "exec", "--bind=/scratch", "--bind=/home/alice", "/images/torch.simg"]


@pytest.mark.parametrize("directory", ["/scratch/a:b", "/scratch/a,b"])
def test_a_directory_that_would_be_read_as_two_is_not_bound(directory):
    told = settings_of(script("slurm", {"image": "torch", "directory": directory}))
    assert told["wrap"] == ["apptainer", "exec", "--bind=/scratch", "/images/torch.simg"]


def test_the_launcher_is_told_whom_to_call_and_what_to_run():
    told = settings_of(script("slurm", {"environment": "plain"}, home=replace(HOME, ca=PEM, limit_s=77, tls=True)))
    assert told == {
        "callback": "https://hub.example.org/hub/api/hpcspawner",
        "ca": PEM,
        "ticket": "TICKET-STANDS-HERE",
        "tls": True,
        "command": ["jupyterhub-singleuser"],
        "programs": ["jupyterhub-singleuser", "jupyter-lab"],
        "wrap": [],
        "bind": "--bind=",
        "environment": "plain",
        "directory": "/home/alice",
        "variables": {"JUPYTERHUB_DEFAULT_URL": "/lab", "JUPYTERHUB_ROOT_DIR": "/home/alice"},
        "ports": [20000, 20100],
        "limit_s": 77,
        "idle": None,
    }


IDLE_SOURCE = Path(launcher.__file__).with_name("idle.py").read_text(encoding="utf-8").rstrip("\n")


def test_a_jupyter_server_is_told_when_to_end_for_being_idle():
    told = settings_of(script("slurm", {"idle_limit": "90m"}))
    assert told["idle"] == {"limit_s": 5400, "extension": IDLE_SOURCE}


@pytest.mark.parametrize(
    ("command", "watched"),
    [
        pytest.param("jupyter-lab", True, id="jupyter-lab"),
        pytest.param("/opt/env/bin/jupyterhub-singleuser", True, id="a path"),
        pytest.param("/opt/jupyter/bin/code-server", False, id="another program"),
    ],
)
def test_only_a_jupyter_server_can_be_ended_for_being_idle(command, watched):
    interface = {"name": "it", "command": [command]}
    told = settings_of(script("slurm", {"idle_limit": "2h"}, profile=site("slurm", interfaces=[interface])))
    assert bool(told["idle"]) is watched


def test_the_hubs_own_arguments_follow_the_command():
    told = settings_of(script("slurm", {}, home=replace(HOME, arguments=("--debug", "--x=it's"))))
    assert told["command"] == ["jupyterhub-singleuser", "--debug", "--x=it's"]
    assert told["programs"] == ["jupyterhub-singleuser", "jupyter-lab"]


# --- templates and quoting


@pytest.mark.parametrize(
    "text", ["#SBATCH --time={{ nothing }}", "{% if nothing %}{% endif %}", "{{ nothing | quote }}"]
)
def test_an_undefined_name_in_a_template_is_an_error(text):
    """Rendered as nothing, a directive would lose its value."""
    with pytest.raises(UndefinedError):
        script_module._templates().from_string(text).render()


def test_a_template_reaches_no_further_than_its_values():
    with pytest.raises(SecurityError):
        script_module._templates().from_string("{{ label.__class__.__mro__ }}").render(label=LABEL)


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("filter_", [quote, quote_path])
def test_a_quoted_value_is_one_word_to_bash(filter_, text):
    shown = subprocess.run(["bash", "-c", f"printf %s {filter_(text)}"], capture_output=True, text=True, check=True)
    assert shown.stdout == text


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("~", "/home/al ice", id="home itself"),
        pytest.param("~/.hpc spawner", "/home/al ice/.hpc spawner", id="in the home"),
        pytest.param("~/$(id)", "/home/al ice/$(id)", id="in the home, with a command"),
        pytest.param("~alice/x", "~alice/x", id="somebody's home is not looked up"),
        pytest.param("/a/~", "/a/~", id="a tilde elsewhere"),
    ],
)
def test_a_leading_tilde_is_left_to_the_node(path, expected):
    shown = subprocess.run(
        ["bash", "-c", f"printf %s {quote_path(path)}"],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": "/home/al ice"},
    )
    assert shown.stdout == expected


# --- shipped profiles


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_every_partition_of_a_shipped_profile_makes_a_script(path):
    profile = load(path)
    scheduler = make_scheduler(profile.scheduler, Path("/var/lib/hub/spool"))
    asked = [{}, *({"partition": one.name} for one in profile.partitions)]
    asked += [{"environment": one.name} for one in profile.environments]
    asked += [{"image": one.name} for one in profile.images]
    for options in asked:
        request = make(options, profile, LocalAccount("alice", "/home/alice"))
        checked_by_bash(render(request, scheduler, profile.job, LABEL, HOME))


def test_there_are_eight_shipped_profiles():
    names = {"comet", "hydra", "local", "rhea", "slurm-minimal", "stratus", "torque-minimal", "tscc"}
    assert {path.stem for path in PROFILES} == names


# --- run by bash


class Run:
    """One job script under way, with a stand-in for the launcher's Python."""

    def __init__(self, folder, text, does="", home=True):
        self.folder = folder
        self.record = folder / "record"
        self.home = folder / "the home"
        self.record.mkdir()
        if home:
            self.home.mkdir()
        (folder / "bin").mkdir()
        (folder / "bin" / "python3").symlink_to(BIN / "launcher-python")
        self.file = folder / "job.sh"
        self.file.write_text(text, encoding="utf-8")
        self.does = does
        self.process = self.again()

    def again(self):
        """Run the script as the scheduler does, the first time or another."""
        return subprocess.Popen(
            ["bash", str(self.file)],
            env={
                "PATH": f"{self.folder}/bin:/usr/bin:/bin",
                "HOME": str(self.home),
                "HPC_LOCAL_JOBID": "12",
                "HPC_TEST_RECORD": str(self.record),
                "HPC_TEST_DOES": self.does,
                "LC_ALL": "C",
                "SUDO_USER": "hub",
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=self.folder,
        )

    def ends(self):
        return self.process.wait(20)

    def recorded(self, name):
        return (self.record / name).read_text(encoding="utf-8")

    def environment(self):
        pairs = self.recorded("environment").split("\0")
        return dict(pair.split("=", 1) for pair in pairs if pair)

    def wait_until_ready(self):
        self.wait_until(self.record / "ready")

    def wait_until(self, file, text=""):
        """Wait until a file is there and holds a text."""
        deadline = time.monotonic() + 10
        while not file.exists() or text not in file.read_text():
            assert time.monotonic() < deadline, f"{file.name} did not come"
            time.sleep(0.01)

    @property
    def log(self):
        return self.home / ".hpcspawner" / "jupyter-alice-12.log"


@pytest.fixture
def run(tmp_path):
    runs = []

    def start(options=None, *, profile=SMALL_SITE, does="", home=True, **call_home):
        text = script(
            "local", options or {}, profile=SiteProfile.model_validate(profile), home=replace(HOME, **call_home)
        )
        runs.append(Run(tmp_path, text, does, home))
        return runs[-1]

    yield start
    for one in runs:
        if one.process.poll() is None:
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def with_setup(*lines, job=None, **environment):
    """The smallest site with one environment that is set up by these lines."""
    return SMALL_SITE | {"environments": [{"name": "plain", "setup": lines, **environment}], "job": job or {}}


def test_the_launcher_gets_its_source_and_its_settings(run):
    job = run({"directory": "/scratch/it's {{ 7 * 7 }}"})
    assert job.ends() == 0
    assert job.recorded("launcher") == SOURCE
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
    names = ["jupyter-1.log", "jupyter-lab-2.log", "mine.log", "notes.txt", "deeper/jupyter-3.log", "jupyter-4.log"]
    for name in names:
        (folder / name).write_text("")
        days = 10 if name == "jupyter-4.log" else 20
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    job = run(home=False)
    assert job.ends() == 0
    assert [name for name in names if not (folder / name).exists()] == ["jupyter-1.log", "jupyter-lab-2.log"]


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


def test_a_missing_module_system_is_a_set_up_that_failed(run):
    job = run(profile=with_setup(modules=["anaconda/3"]))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == "module load anaconda/3"


def test_a_conda_that_is_missing_is_a_set_up_that_failed(run):
    job = run(profile=with_setup(conda="my env"))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == "hpc_conda 'my env'"


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
    assert job.recorded("launcher") == SOURCE


def test_a_node_without_python_says_so(run):
    job = run(profile=SMALL_SITE | {"job": {"python": "python3.no-such"}})
    assert job.ends() == 127
    assert "no Python on this node; the site profile's job.python names the one to use" in job.log.read_text()
