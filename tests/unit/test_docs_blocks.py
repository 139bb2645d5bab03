"""The documentation's code is code: profiles load, settings exist, commands are taken, links lead to a heading."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
from traitlets import Undefined
from traitlets.config import Config

import hpcspawner
from hpcspawner.cli.app import HPCSpawnerApp
from hpcspawner.cli.certificate import write_certificate
from hpcspawner.site.profile import find_shipped, parse

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(*languages):
    """Every block in one of these languages, with a name that says where it is."""
    for page in PAGES:
        for number, (language, body) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")), 1):
            if language in languages:
                yield pytest.param(body, id=f"{page.relative_to(ROOT)}-{number}")


# What a block that shows a part of a profile leaves out.
REST = tomllib.loads("""\
title = "Our cluster"
name = "ours"
[scheduler]
type = "slurm"
[[partitions]]
name = "compute"
max_walltime = "24h"
max_cpus = 16
max_memory = "64G"
[[partitions]]
name = "gpu-shared"
max_walltime = "24h"
max_cpus = 16
max_memory = "64G"
gpus = { v100 = 4 }
[[environments]]
name = "jupyter"
[job]
proxy = "/shared/jupyter-proxy"
""")


@pytest.mark.parametrize("body", list(blocks("toml")))
def test_a_profile_of_the_documentation_loads(body):
    shown = tomllib.loads(body)
    assert shown
    profile = parse(REST | shown, "block")
    assert profile.model_fields_set >= shown.keys()


@pytest.mark.parametrize("body", list(blocks("json")))
def test_json_of_the_documentation_is_json(body):
    assert json.loads(body)


CLASSES = {
    "JupyterHub": "jupyterhub.app",
    "Authenticator": "jupyterhub.auth",
    "Spawner": "jupyterhub.spawner",
    "HPCSpawner": "hpcspawner.spawner",
    "ConfigurableHTTPProxy": "jupyterhub.proxy",
    "PAMAuthenticator": "jupyterhub.auth",
    "EventLogger": "jupyter_events",
    "HubHeaders": "hpcspawner.pages.content_security",
    "HubLanguages": "hpcspawner.hub.languages",
}
PYTHON = list(blocks("python"))
# The others compute on a cluster, in a notebook; tests/cluster runs what they show.
SETTINGS = [one for one in PYTHON if "c." in one.values[0] and "compute-on-several-nodes" not in one.id]


@pytest.mark.parametrize("body", PYTHON)
def test_python_of_the_documentation_is_python(body):
    assert ast.parse(body.removeprefix("%%px\n")).body


def test_most_blocks_of_python_are_settings():
    assert len(SETTINGS) > 8


@pytest.mark.parametrize("body", SETTINGS)
def test_settings_of_the_documentation_are_some_that_there_are(body, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("site.toml", "comet.toml", "tscc.toml"):
        source = name if name != "site.toml" else "slurm-minimal.toml"
        (tmp_path / name).write_text(find_shipped(source).read_text())
    (tmp_path / "prometheus_token").write_text("secret\n")
    write_certificate(tmp_path, ["hub.example.org"])  # and ca.pem, its authority
    here = body.replace("/etc/jupyterhub/", f"{tmp_path}/").replace("/var/log/jupyterhub/", f"{tmp_path}/")
    config = Config()
    # `here` is the configuration's own folder in the examples.
    names = {"c": config, "get_config": lambda: config, "hpcspawner": hpcspawner, "here": tmp_path}
    exec(compile(here, "block", "exec"), names)  # the documentation's own words
    assert config
    for section, values in config.items():
        if f"c.{section}." not in body:
            continue  # configure() sets it
        known = getattr(import_module(CLASSES[section]), section).class_traits(config=True)
        for setting in values:
            assert known.get(setting, Undefined) is not Undefined, f"{section} has no {setting}"


@pytest.mark.parametrize("body", list(blocks("bash")))
def test_bash_of_the_documentation_is_bash(body):
    done = subprocess.run(["bash", "-n"], input=body, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def commands():
    """Every `hpcspawner …` of a block, as argv without redirections, with the output that follows it."""
    for block in blocks("bash", "console"):
        lines = block.values[0].replace("\\\n", " ").splitlines()
        for number, line in enumerate(lines):
            if not (found := re.search(r"(?:^|[$#&] |/)hpcspawner ([a-z].*)", line)):
                continue
            words = re.split(r" (?:>|\||&&|#) ", found[1])[0]
            after = []
            for further in lines[number + 1 :]:
                if further.startswith(("$ ", "# ")):
                    break
                after.append(further)
            expected = "\n".join(after) if line.startswith("$ ") else ""
            if words.split()[0] in HPCSpawnerApp.subcommands:
                yield pytest.param(shlex.split(words), expected, profile_of(block.id), id=f"{block.id}: {words}")


def profile_of(block):
    """The profile that the page of this block shows, or the smallest one that comes with the package."""
    page = (ROOT / block.rpartition("-")[0]).read_text(encoding="utf-8")
    whole = [body for language, body in BLOCK.findall(page) if language == "toml" and "[[partitions]]" in body]
    return whole[0] if whole else find_shipped("slurm-minimal.toml").read_text(encoding="utf-8")


COMMANDS = list(commands())


def test_the_documentation_has_commands():
    assert len(COMMANDS) > 10


@pytest.mark.parametrize(("argv", "expected", "text"), COMMANDS)
def test_every_command_of_the_documentation_has_the_options_that_it_is_given(argv, expected, text):
    module, _, name = HPCSpawnerApp.subcommands[argv[0]][0].rpartition(".")
    command = getattr(import_module(module), name)
    known = {*command.aliases, *command.flags}
    given = {word.lstrip("-").partition("=")[0] for word in argv[1:] if word.startswith("-")}
    assert given <= known


ALONE = [
    one for one in COMMANDS if one.values[0][0] in ("render", "helper", "sudoers") or "--profile-only" in one.values[0]
]


def test_some_commands_need_no_cluster():
    assert len(ALONE) >= 4


@pytest.mark.parametrize(("argv", "expected", "text"), ALONE)
def test_a_command_that_needs_no_cluster_does_what_is_shown(argv, expected, text, tmp_path):
    site = tmp_path / "site.toml"
    if argv[0] in ("helper", "sudoers"):
        # Programs that this machine may lack.
        for name in ("sbatch", "scancel", "squeue", "scontrol", "sacct"):
            (tmp_path / name).write_text("#!/bin/sh\n")
            (tmp_path / name).chmod(0o755)
        path = json.dumps([str(tmp_path), "/usr/bin", "/bin"])
        text = text.replace(
            'type = "slurm"', f'type = "slurm"\nhelper = "/usr/local/libexec/hpcspawner"\npath = {path}', 1
        )
    site.write_text(text)
    words = [str(site) if word.endswith(".toml") else word for word in argv]
    if argv[0] == "sudoers" and not any(word.startswith("--account=") for word in words):
        words.append("--account=jupyterhub")  # root, who runs the tests, is no Hub's account
    done = subprocess.run(
        [sys.executable, "-c", "from hpcspawner.cli.app import main; main()", *words],
        text=True,
        capture_output=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if expected:
        assert done.stdout.strip() == expected.strip()


def slug(heading):
    """As Sphinx and GitHub make an anchor of a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def anchors(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_heading_leads_to_one(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        other = (page.parent / target) if target else page
        assert anchor in anchors(other), f"{target}#{anchor}"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.stem)
def test_every_page_is_in_the_index(page):
    name = page.relative_to(ROOT / "docs").as_posix()
    assert name == "index.md" or f"]({name})" in (ROOT / "docs/index.md").read_text(encoding="utf-8")
