"""The job script as a whole: compared with golden files, read as schedulers read it, and run by bash."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from jinja2 import UndefinedError
from jinja2.exceptions import SecurityError
from material import FULL, NASTY
from support.launcher import SOURCE
from support.schedulers import EVERY
from support.scripts import HOME, LABEL, SMALL_SITE, taken_apart

import hpcspawner
from hpcspawner.programs.helper import Refusal, checked_script
from hpcspawner.programs.joined import source
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.base import JobLabel, Resources
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.script import render as script_module
from hpcspawner.script.layers import StatusBar
from hpcspawner.script.render import preview, render, submission
from hpcspawner.script.text import quote, quote_path
from hpcspawner.site.profile import SiteProfile, load
from hpcspawner.units import Walltime

PROFILES = sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))
BIN = Path(__file__).parent / "bin"
# The embedded scheduler is started by its path.
HERE = f"{Path(hpcspawner.__file__).parent}/"

STATUS_FILES = StatusBar(Resources("debug", Walltime(1800)), ()).files()

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

# What only one scheduler understands: extra directives for every job, and for the partition with GPUs.
EXTRAS = {
    "slurm": ([{"option": "mail-type", "value": "NONE"}], [{"option": "gres-flags", "value": "enforce-binding"}]),
    "torque": ([{"option": "W", "value": "umask=027"}], [{"option": "V"}]),
    "openpbs": ([{"option": "W", "value": "umask=027"}], [{"option": "P", "value": "abc"}]),
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
    return render(request, EVERY[kind], profile.job, label, home)


def without_launcher(text):
    """The script with one line in the launcher's place, so that golden files show only what is theirs."""
    whole = quote(SOURCE)
    assert text.count(whole) == 1
    for content in STATUS_FILES.values():
        text = text.replace(quote(json.dumps(content))[1:-1], '"(its text)"')
    text = text.replace(whole, "'# (hpcspawner/programs/launcher stands here)'")
    for name in ("token.py", "rfc3987_syntax.py"):
        inside = quote(json.dumps(source(name))[1:-1])[1:-1]
        text = text.replace(inside, f"(hpcspawner/programs/{name} stands here)")
    return without_hash(text)


def without_hash(text):
    """Without what changes with each build of the extension for the status bar."""
    return re.sub(r"remoteEntry\.[0-9a-f]{16}\.js", "remoteEntry.(its hash).js", text)


def words(kind, options, *, profile=None, label=LABEL):
    """The words of the submit command."""
    profile = profile or site(kind)
    request = make(options, profile, LocalAccount("alice", "/home/alice"))
    job = submission(request, EVERY[kind], profile.job, label, HOME)
    return submit_words(EVERY[kind], job.options, profile.directives)


def settings_of(text):
    """What goes through the second pipe."""
    return taken_apart(text)[1]


def checked_by_bash(text):
    done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- whole scripts


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("case", REQUESTS)
def test_the_script_is_the_golden_one(golden, kind, case):
    home = replace(HOME, ca=PEM, fallback_path=("/opt/hub/bin",)) if case == "gpu" else HOME
    golden(f"{kind}/{case}.sh", without_launcher(script(kind, REQUESTS[case], home=home)))
    golden(f"{kind}/{case}.words", "".join(f"{word}\n" for word in words(kind, REQUESTS[case])[1:]).replace(HERE, ""))


@pytest.mark.parametrize("kind", EVERY)
def test_the_script_of_a_site_that_adds_nothing_is_the_golden_one(golden, kind):
    profile = SiteProfile.model_validate(SMALL_SITE | {"scheduler": {"type": kind}})
    golden(f"{kind}/bare-site.sh", without_launcher(script(kind, {}, profile=profile)))
    golden(
        f"{kind}/bare-site.words",
        "".join(f"{word}\n" for word in words(kind, {}, profile=profile)[1:]).replace(HERE, ""),
    )


@pytest.mark.parametrize("kind", EVERY)
def test_no_script_has_a_here_document(kind):
    """Bash up to 5.0 makes a file of each, for which a node's /tmp may have no room."""
    for options in REQUESTS.values():
        assert "<<" not in without_launcher(script(kind, options))


# Each layer beside each other one that changes what the launcher is given.
COMBINATIONS = {
    "modules-image": ({"modules": ["apptainer/1.4"]}, "torch", None),
    "conda-proxy": ({"modules": ["miniconda/24"], "conda": "torch"}, None, "/opt/jupyter-proxy"),
    "path-proxy": ({"path": ["~/venv/bin"], "variables": {"OMP_NUM_THREADS": "4"}}, None, "/opt/jupyter-proxy"),
    "image-proxy": ({"purge_modules": True, "setup": ["ulimit -c 0"]}, "torch", "/opt/jupyter-proxy"),
    "image-by-reference": ({}, "docker://jupyter/scipy-notebook:lab-4.0.7", None),
}


PROGRAM = {
    "name": "marimo",
    "command": ["marimo", "edit", "--port={port}", "--base-url={base_url}", "--token-password-file={folder}/secret"],
    "files": {"secret": "{secret}"},
    "headers": {"Authorization": "Bearer {secret}"},
    "polls": ["/api/usage"],
}


@pytest.mark.parametrize("image", [None, "torch"])
def test_the_script_of_a_program_other_than_jupyter_is_the_golden_one(golden, image):
    changes = {"interfaces": [PROGRAM], "defaults": {}, "job": {"proxy": "/opt/jupyter-proxy"}}
    profile = site("slurm", environments=[{"name": "it", "path": ["/opt/marimo/bin"]}], **changes)
    whole = script("slurm", {"idle_limit": "2h"} | ({"image": image} if image else {}), profile=profile)
    told = settings_of(whole)
    files = dict.fromkeys(told.pop("files"), "(its text)")
    golden(
        f"layers/program-{image or 'path'}.txt", f"{json.dumps(told | {'files': files}, indent=2, sort_keys=True)}\n"
    )


@pytest.mark.parametrize("case", COMBINATIONS)
def test_the_script_of_a_combination_of_layers_is_the_golden_one(golden, case):
    environment, image, proxy = COMBINATIONS[case]
    changes = {"environments": [{"name": "it", **environment}], "defaults": {}, "job": {"proxy": proxy}}
    profile = site("slurm", own_images={"references": ["docker://"]}, **changes)
    options = {"idle_limit": "2h"} | ({"image": image} if image else {})
    whole = script("slurm", options, profile=profile)
    told = settings_of(whole)
    shell = "".join(f"{line}\n" for line in taken_apart(whole)[0] if line.startswith("hpc_step"))
    files = dict.fromkeys(told.pop("files"), "(its text)")
    told = without_hash(json.dumps(told | {"files": files}, indent=2, sort_keys=True))
    golden(f"layers/{case}.txt", f"{told}\n\n{shell}")


# --- read by bash, shellcheck and the schedulers


@pytest.mark.parametrize("kind", EVERY)
def test_bash_and_shellcheck_find_nothing_wrong(kind, tmp_path):
    assert shutil.which("shellcheck"), "shellcheck is not on PATH; `make test` installs what the tests need"
    texts = [script(kind, options) for options in REQUESTS.values()]
    texts += [script(kind, {"directory": f"/scratch/{param.values[0]}"}) for param in NASTY]
    files = []
    for number, text in enumerate(texts):
        checked_by_bash(text)
        files.append(tmp_path / f"{number}.sh")
        # The launcher is Python in quotes: nothing in it is shell.
        files[-1].write_text(without_launcher(text))
    # Lines of the set-up are in single quotes so that they expand later.
    done = subprocess.run(["shellcheck", "--exclude=SC2016", *files], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert done.returncode == 0


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("name", NASTY)
def test_a_directory_of_any_name_arrives_as_it_is(kind, name):
    text = script(kind, {"directory": f"/scratch/{name}"})
    assert settings_of(text)["directory"] == f"/scratch/{name}"
    assert settings_of(text)["variables"]["JUPYTERHUB_ROOT_DIR"] == f"/scratch/{name}"
    assert words(kind, {"directory": f"/scratch/{name}"}) == words(kind, {}), "it reaches no option"


@pytest.mark.parametrize("kind", EVERY)
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


@pytest.mark.parametrize("kind", EVERY)
def test_no_line_is_one_that_a_scheduler_reads(kind):
    """Options are words of the submit command; a second grammar could be led astray."""
    nasty = [{"directory": f"/scratch/{param.values[0]}"} for param in NASTY]
    for options in (*REQUESTS.values(), *nasty, {"directory": "/scratch/#SBATCH --uid=0"}):
        text = script(kind, options)
        assert text.startswith("#!/bin/bash\n")
        assert checked_script(text.encode()) == text.encode()


# --- what the launcher is told


def entered(told):
    """The argv that enters the image, after the program, which is one of two."""
    first, second = told["containers"]
    assert (first[0], second[0]) == ("apptainer", "singularity")
    assert first[1:] == second[1:]
    return first[1:]


def test_the_image_is_entered_with_gpus_and_folders():
    told = settings_of(script("slurm", REQUESTS["gpu"]))
    assert entered(told) == ["exec", "--nv", "--bind=/scratch", "--bind=/scratch/it's here", "/images/torch.simg"]
    assert (told["environment"], told["image"]) == ("Science stack", "torch")


def test_without_gpus_the_image_gets_none():
    told = settings_of(script("slurm", {"image": "torch"}))
    assert entered(told) == ["exec", "--bind=/scratch", "--bind=/home/alice", "/images/torch.simg"]


@pytest.mark.parametrize("directory", ["/scratch/a:b", "/scratch/a,b"])
def test_a_directory_that_would_be_read_as_two_is_not_bound(directory):
    told = settings_of(script("slurm", {"image": "torch", "directory": directory}))
    assert entered(told) == ["exec", "--bind=/scratch", "/images/torch.simg"]


def test_the_site_may_name_what_runs_images():
    profile = site("slurm", job=FULL["job"] | {"container_command": ["singularity", "--silent"]})
    told = settings_of(script("slurm", {"image": "torch"}, profile=profile))
    assert [argv[:3] for argv in told["containers"]] == [["singularity", "--silent", "exec"]]


def test_a_variable_that_the_site_sets_gets_into_the_image():
    environment = {"name": "plain", "variables": {"PYTHONPATH": "/site/python"}}
    profile = site("slurm", environments=[environment], defaults={})
    told = settings_of(script("slurm", {"image": "torch"}, profile=profile))
    assert told["hidden"] == ["PYTHONHOME"]
    assert settings_of(script("slurm", {}, profile=profile))["hidden"] == []


@pytest.mark.parametrize(
    ("of_job", "of_image", "expected"),
    [
        (None, None, ["--nv"]),
        (["--rocm"], None, ["--rocm"]),
        (["--nv"], ["--rocm"], ["--rocm"]),
        (["--nv", "--nvccli"], None, ["--nv", "--nvccli"]),
        ([], None, []),
        (["--rocm"], [], []),
    ],
)
def test_gpus_are_given_to_an_image_as_the_site_says(of_job, of_image, expected):
    images = [one | ({} if of_image is None else {"gpu_options": of_image}) for one in FULL["images"]]
    job = FULL["job"] | ({} if of_job is None else {"gpu_options": of_job})
    told = settings_of(script("slurm", REQUESTS["gpu"], profile=site("slurm", images=images, job=job)))
    assert entered(told)[:-3] == ["exec", *expected]


def test_the_launcher_is_told_whom_to_call_and_what_to_run():
    told = settings_of(script("slurm", {"environment": "plain"}, home=replace(HOME, ca=PEM, limit_s=77, tls=True)))
    assert told == {
        "version": 3,
        "callback": "https://hub.example.org/hub/api/hpcspawner",
        "ca": PEM,
        "ticket": "TICKET-STANDS-HERE",
        "tls": True,
        "command": ["jupyterhub-singleuser"],
        "programs": ["jupyterhub-singleuser", "jupyter-lab"],
        "alone": [],
        "program": None,
        "proxy": "",
        "containers": [],
        "bind": "--bind=",
        "hidden": [],
        "environment": "plain",
        "image": "",
        "directory": "/home/alice",
        "writable": True,
        "variables": {"JUPYTERHUB_DEFAULT_URL": "/lab", "JUPYTERHUB_ROOT_DIR": "/home/alice"},
        "ports": [20000, 20100],
        "limit_s": 77,
        "idle_limit_s": None,
        "status": {
            "partition": "debug",
            "walltime_s": 1800,
            "nodes": 1,
            "cpus": 1,
            "memory": 2 << 30,
            "gpus": "",
            "reminders_s": [900, 300],
        },
        "extensions": ["hpcspawner_token"],
        "modules": "quick",
        "beside": "",
        "files": {"hpcspawner_token.py": source("token.py")} | QUICK_FILES | STATUS_FILES,
    }


IDLE_SOURCE = source("idle.py")
QUICK_FILES = {"quick/rfc3987_syntax.py": source("rfc3987_syntax.py")}


def test_a_jupyter_server_is_told_when_to_end_for_being_idle():
    told = settings_of(script("slurm", {"idle_limit": "90m"}))
    assert (told["idle_limit_s"], told["files"]["hpcspawner_idle.py"]) == (5400, IDLE_SOURCE)
    assert told["extensions"] == ["hpcspawner_idle", "hpcspawner_token"]


def test_kernels_find_the_hub_s_token_only_where_the_site_says_so():
    told = settings_of(script("slurm", {}, profile=site("slurm", job={"kernel_token": True})))
    assert (told["extensions"], told["files"]) == ([], QUICK_FILES | STATUS_FILES)


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
    assert bool(told["idle_limit_s"]) is watched


def test_the_status_bar_is_for_a_jupyter_server_whose_site_wants_it():
    other = {"name": "it", "command": ["code-server"]}
    for changes in ({"job": {"status_bar": False}}, {"interfaces": [other]}):
        profile = SiteProfile.model_validate(SMALL_SITE | changes)
        told = settings_of(script("slurm", {}, profile=profile))
        assert told["status"] is None
        assert not STATUS_FILES.keys() & told["files"].keys()


def test_a_job_shorter_than_a_reminder_is_not_reminded_at_once():
    gpus = {"partition": "gpu", "gpus": 2, "gpu_type": "v100", "walltime": "10m"}
    told = settings_of(script("slurm", gpus))["status"]
    assert (told["reminders_s"], told["gpus"]) == ([300], "2 v100")


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


def test_there_are_nine_shipped_profiles():
    names = {"comet", "hydra", "local", "rhea", "stratus", "tscc"}
    names |= {"openpbs-minimal", "slurm-minimal", "torque-minimal"}
    assert {path.stem for path in PROFILES} == names


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("case", REQUESTS)
def test_a_preview_is_what_is_submitted_without_the_programs_in_it(kind, case):
    profile = site(kind)
    request = make(REQUESTS[case], profile, LocalAccount("alice", "/home/alice"))
    shown = preview(request, EVERY[kind], profile.job, LABEL, HOME)
    real = submission(request, EVERY[kind], profile.job, LABEL, HOME)
    assert shown.options == real.options
    settings = settings_of(real.script)
    brief = settings | {"files": dict.fromkeys(settings["files"], "(its text)")}
    expected = real.script.replace(quote(SOURCE), quote("# (the launcher stands here)"))
    in_words = [quote(json.dumps(one, sort_keys=True)) for one in (settings, brief)]
    assert shown.script == expected.replace(*in_words)
    assert len(shown.script) < 20_000
    checked_by_bash(shown.script)
