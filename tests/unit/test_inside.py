"""What runs inside an image: which of two commands it becomes, and how a server without a Hub is configured."""

import json
import os
import subprocess
from types import SimpleNamespace

import pytest

from hpcspawner.programs.joined import source

SAYS = '#!/bin/sh\nprintf \'%s\\n\' "$0" "$@"\nenv\n'


@pytest.fixture
def inside(tmp_path):
    """Run the shim where only these programs are: its exit code, what it found, what the program said."""

    def run(*there, programs=("hub", "lab"), alone=(), command=("hub", "--debug"), **variables):
        folder, bin_ = tmp_path / "the folder", tmp_path / "bin"
        for one in (folder, bin_):
            one.mkdir()
        for name in there:
            (bin_ / name).write_text(SAYS)
            (bin_ / name).chmod(0o755)
        for name in ("sh", "env", "sed", "mv", "printf"):
            (bin_ / name).symlink_to(f"/usr/bin/{name}")
        (folder / "inside.sh").write_text(source("inside.sh"))
        words = [str(len(programs)), *programs, str(len(alone)), *alone, *command]
        done = subprocess.run(
            ["sh", folder / "inside.sh", *words],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": str(bin_), **variables},
        )
        assert done.stderr == ""
        return done.returncode, (folder / "inside").read_text().strip(), done.stdout.splitlines()

    return run


def test_the_command_runs_with_all_its_words(inside):
    code, found, said = inside("hub", "lab", command=("hub", "--a=it's", "", "$HOME"), JUPYTERHUB_API_TOKEN="secret")
    assert (code, found) == (0, "command")
    assert said[0].endswith("/bin/hub")
    assert said[1:4] == ["--a=it's", "", "$HOME"]
    assert "JUPYTERHUB_API_TOKEN=secret" in said


def test_where_the_command_is_missing_the_other_runs_without_the_hub_s_secrets(inside):
    secrets = {"JUPYTERHUB_API_TOKEN": "secret", "JPY_API_TOKEN": "secret", "JUPYTERHUB_HOST": "x=y\nz"}
    code, found, said = inside("lab", alone=("lab", "--x", "a b"), JUPYTER_CONFIG_PATH="/theirs", **secrets)
    assert (code, found) == (0, "alone")
    assert said[0].endswith("/bin/lab")
    assert said[1:3] == ["--x", "a b"]
    assert not [line for line in said if "JUPYTERHUB" in line or "secret" in line]
    (path,) = [line for line in said if line.startswith("JUPYTER_CONFIG_PATH=")]
    assert path.endswith("/the folder/alone:/theirs")


@pytest.mark.parametrize(
    ("there", "alone", "missing"),
    [
        pytest.param(("lab",), (), "hub", id="no proxy"),
        pytest.param((), ("lab",), "hub", id="neither"),
        pytest.param(("hub",), ("lab",), "lab", id="the Hub's, but not the interface's"),
    ],
)
def test_what_is_missing_is_named(inside, there, alone, missing):
    assert inside(*there, alone=alone)[:2] == (127, f"missing {missing}")


TOLD = {
    "socket": "/f/alone/socket",
    "port": 20000,
    "token": "SECRET",
    "base_url": "/user/alice/",
    "default_url": "/lab",
    "directory": "/home/alice",
}


def configured(folder, name, monkeypatch, **modules):
    """What the file of this name makes of a configuration."""
    (folder / "settings.json").write_text(json.dumps(TOLD))
    for module, content in modules.items():
        monkeypatch.setitem(__import__("sys").modules, module, content)
    found = SimpleNamespace(ServerApp=SimpleNamespace(), NotebookApp=SimpleNamespace())
    exec(compile(source("alone.py"), name, "exec"), {"c": found, "__file__": str(folder / name)})
    return vars(found.ServerApp), vars(found.NotebookApp)


def test_jupyter_server_listens_on_a_socket_with_a_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", f"{tmp_path}:/theirs")
    server, classic = configured(tmp_path, "jupyter_server_config.py", monkeypatch)
    assert classic == {}
    assert (server["sock"], server["token"], server["root_dir"]) == ("/f/alone/socket", "SECRET", "/home/alice")
    assert "port" not in server
    assert os.environ["JUPYTER_CONFIG_PATH"] == "/theirs", "a kernel's own Jupyter must not read it"


@pytest.mark.parametrize(("app", "sock"), [(SimpleNamespace(sock=""), True), (SimpleNamespace(), False)])
def test_the_classic_notebook_listens_where_it_can(tmp_path, monkeypatch, app, sock):
    modules = {"notebook.notebookapp": SimpleNamespace(NotebookApp=app)}
    server, classic = configured(tmp_path, "jupyter_notebook_config.py", monkeypatch, **modules)
    assert server == {}
    assert classic["token"] == "SECRET"
    assert classic.get("sock") == ("/f/alone/socket" if sock else None)
    assert (classic.get("ip"), classic.get("port")) == ((None, None) if sock else ("127.0.0.1", 20000))


def test_notebook_7_is_not_configured_twice(tmp_path, monkeypatch):
    assert configured(tmp_path, "jupyter_notebook_config.py", monkeypatch) == ({}, {})


def test_both_files_run_on_python_3_6():
    import ast

    for name in ("alone.py", "idle.py"):
        ast.parse(source(name), feature_version=(3, 6))
