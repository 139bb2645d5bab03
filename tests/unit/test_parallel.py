"""Engines and further jobs: what is sent to the node; the program there, with stand-ins for commands."""

import importlib
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from support.schedulers import EVERY
from support.scripts import HOME, LABEL, SMALL_SITE, taken_apart

import hpcspawner.programs
from hpcspawner.errors import ProfileError
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.backend import Size
from hpcspawner.script.render import render
from hpcspawner.site.profile import SiteProfile, parse
from hpcspawner.units import Memory

PROGRAMS = Path(hpcspawner.programs.__file__).parent
PARTITION = {"name": "debug", "max_walltime": "30m", "max_nodes": 2, "max_cpus": 8, "max_memory": "8G"}


def site(kind, **parallel):
    return SMALL_SITE | {
        "scheduler": {"type": kind},
        "partitions": [PARTITION],
        "environments": [{"name": "plain", "path": ["/opt/it's here/bin"]}],
        "job": {"parallel": parallel},
    }


def told(kind, options=None, **parallel):
    """What the launcher is given."""
    profile = SiteProfile.model_validate(site(kind, **parallel))
    request = make(options or {}, profile, LocalAccount("alice", "/home/alice"))
    return taken_apart(render(request, EVERY[kind], profile.job, LABEL, HOME))[1]


def settings(kind, options=None, **parallel):
    return json.loads(told(kind, options, **parallel)["files"]["parallel.json"])


@pytest.mark.parametrize("kind", ["slurm", "torque", "openpbs"])
def test_nothing_is_sent_until_the_profile_says_so(kind):
    assert told(kind)["beside"] == ""
    assert told(kind, jobs=True)["beside"] == "parallel.py"


def test_a_server_in_an_image_goes_without():
    profile = site("slurm", jobs=True) | {"images": [{"name": "it", "path": "/images/it.sif"}]}
    profile = SiteProfile.model_validate(profile)
    request = make({"image": "it"}, profile, LocalAccount("alice", "/home/alice"))
    assert taken_apart(render(request, EVERY["slurm"], profile.job, LABEL, HOME))[1]["beside"] == ""


def test_engines_are_for_jobs_of_several_nodes():
    assert settings("slurm", {"nodes": 2}, engines=True)["engines"] is True
    assert settings("slurm", {"nodes": 1}, engines=True)["engines"] is False


def test_a_scheduler_without_nodes_is_refused():
    with pytest.raises(ProfileError, match="'local' has no nodes and no queue for further jobs"):
        parse(site("local", jobs=True), "site.toml")


def test_a_partition_of_a_name_that_means_something_else_is_refused():
    with pytest.raises(ProfileError, match=r"job\.parallel\.partition"):
        parse(site("slurm", jobs=True, partition="a b"), "site.toml")


def test_further_jobs_are_like_the_server_s_but_for_what_is_its_own():
    chosen = {"account": "ddp363", "cpus": 4, "memory": "4G", "walltime": "10m"}
    said = settings("slurm", chosen, jobs=True)
    backend = said["backend"]
    assert (backend["queue"], backend["account"], backend["walltime"]) == ("debug", "ddp363", "00:10:00")
    assert backend["options"] == []
    assert backend["tasks"] == ["ntasks={n}", "cpus-per-task=1", "mem-per-cpu=1024M"]
    assert (said["cores"], said["memory_mib"]) == (4, 4096)
    other = settings("slurm", chosen, jobs=True, partition="big", walltime="2h", cores=16, memory="32G")
    assert (other["backend"]["queue"], other["backend"]["walltime"]) == ("big", "02:00:00")
    assert (other["cores"], other["memory_mib"]) == (16, 32768)


@pytest.mark.parametrize(("n", "words"), [(3, "nodes=1:ppn=3,pmem=512mb"), (9, "nodes=3:ppn=4,pmem=512mb")])
def test_torque_s_nodes_are_filled_one_after_the_other(n, words):
    resources = make({}, SiteProfile.model_validate(site("torque")), LocalAccount("alice", "/home/alice")).resources
    (tasks,) = EVERY["torque"].backend(resources, Size(4, Memory(2048))).tasks
    # As ipyparallel reads it: a format string whose fields are expressions.
    assert eval(f"f{tasks!r}", {"n": n}) == f"l {words}"


# ---- the program on the node


class Beside:
    """The program under way, in a home of its own; the scheduler's commands write down what they were asked."""

    def __init__(self, folder, said):
        self.home, self.job = folder / "home", folder / "job"
        self.asked = folder / "asked"
        commands = folder / "bin"
        for made in (self.home / ".ipython" / "profile_default", self.home / ".config" / "dask", self.job, commands):
            made.mkdir(parents=True, exist_ok=True)
        (self.home / ".config" / "dask" / "own.yaml").write_text("{}")
        for name in ("scancel", "sbatch", "qdel", "qselect"):
            (commands / name).write_text(
                f'#!/bin/sh\necho "{name} $*" "$JUPYTERHUB_X$KEPT" >>{self.asked}\necho 7.s 8.s\n'
            )
            (commands / name).chmod(0o755)
        for name in ("parallel.py", "further.py"):
            (self.job / name).write_text((PROGRAMS / name).read_text())
        (self.job / "parallel.json").write_text(json.dumps(said | {"folder": "~/shared"}))
        (self.job / "environment.sh").write_text("export FROM_SET_UP=1\n")
        self.variables = {"HOME": str(self.home), "PATH": f"{commands}:/usr/bin:/bin", "HPC_JOB": "12.head"}
        self.process = subprocess.Popen([sys.executable, "-I", self.job / "parallel.py"], env=self.variables)
        self.told = json.loads(self._written())

    def _written(self):
        file, deadline = self.job / "variables.json", time.monotonic() + 20
        while not file.exists():
            assert time.monotonic() < deadline, "the program wrote no variables"
            time.sleep(0.01)
        return file.read_text()

    @property
    def shared(self):
        return Path(self.told["HPC_PARALLEL"])

    def end(self):
        self.process.terminate()
        return self.process.wait(20)


@pytest.fixture
def beside(tmp_path):
    running = []

    def start(kind, **parallel):
        running.append(Beside(tmp_path, settings(kind, {"cpus": 2}, **parallel)))
        return running[-1]

    yield start
    for one in running:
        one.process.kill()
        one.process.wait()


def test_the_home_keeps_what_it_had_and_gets_what_the_user_made(beside):
    run = beside("slurm", jobs=True)
    profiles = Path(run.told["IPYTHONDIR"])
    assert run.shared.parent == run.home / "shared"
    assert run.shared.stat().st_mode & 0o777 == 0o700
    assert (profiles / "profile_default").resolve() == run.home / ".ipython" / "profile_default"
    assert (Path(run.told["DASK_CONFIG"]) / "10-own.yaml").resolve() == run.home / ".config" / "dask" / "own.yaml"
    (profiles / "profile_mine").mkdir()
    assert run.end() == 0
    assert not run.shared.exists()
    assert sorted(os.listdir(run.home / ".ipython")) == ["profile_default", "profile_mine"]


@pytest.mark.parametrize(
    ("kind", "asked"),
    [
        pytest.param("slurm", ["scancel --quiet --user={user} --name=hpc-12"], id="slurm"),
        pytest.param("torque", ["qselect -u {user} -N hpc-12", "qdel 7.s 8.s"], id="torque"),
    ],
)
def test_the_jobs_are_cancelled_by_their_name(beside, kind, asked):
    run = beside(kind, jobs=True)
    assert run.end() == 0
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert [line.strip() for line in run.asked.read_text().splitlines()] == [one.format(user=user) for one in asked]


def test_a_submit_passes_no_variable_of_the_hub_s_on(beside):
    run = beside("slurm", jobs=True)
    found = run.variables | run.told | {"JUPYTERHUB_X": "hub's", "KEPT": "kept"}
    subprocess.run(["sbatch", "it's mine"], env=found, check=True)
    assert run.asked.read_text() == "sbatch it's mine kept\n"


def test_dask_s_scheduler_takes_no_connection_without_a_certificate(beside):
    run = beside("openpbs", jobs=True)
    (file,) = Path(run.told["DASK_CONFIG"]).glob("00-*")
    said = json.loads(file.read_text())
    workers = said["jobqueue"]["pbs"]
    assert workers["scheduler-options"]["protocol"] == "tls://"
    assert workers["resource-spec"] == "select=1:ncpus=2:mem=4096mb"
    assert "BEGIN CERTIFICATE" in Path(said["distributed"]["comm"]["tls"]["ca-file"]).read_text()


def test_a_profile_of_the_user_s_own_is_used(beside, tmp_path):
    (tmp_path / "home" / ".ipython" / "profile_hpc").mkdir(parents=True)
    run = beside("slurm", jobs=True)
    hpc = Path(run.told["IPYTHONDIR"]) / "profile_hpc"
    assert hpc.resolve() == run.home / ".ipython" / "profile_hpc"


def test_what_each_scheduler_says_is_complete():
    resources = make({}, SiteProfile.model_validate(site("slurm")), LocalAccount("alice", "/home/alice")).resources
    for kind in ("slurm", "torque", "openpbs"):
        said = asdict(EVERY[kind].backend(resources, Size(1, Memory(1024))))
        assert {name for name, value in said.items() if "{name}" in str(value)} >= {"name"}
        assert said["cancel"], kind
        assert "{log}" in str(said["log"])


def test_only_folders_that_are_surely_ours_are_removed_when_they_are_old(tmp_path, monkeypatch):
    """The site may name a folder in which users keep their own."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    parallel = importlib.import_module("parallel")
    names = ("parallel-7-abcdefgh", "parallel-8-abcdefgh", "parallel-2024-datasets", "parallel-results")
    for name in names:
        (tmp_path / name).mkdir()
    for name in ("parallel-7-abcdefgh", "parallel-results"):
        (tmp_path / name / "ipython").mkdir()
        for file in ("environment.sh", "enter"):
            (tmp_path / name / file).touch()
    for name in names:
        os.utime(tmp_path / name, (0, 0))
    parallel.Shared(str(tmp_path), "9")
    left = {path.name for path in tmp_path.iterdir()}
    assert set(names) - left == {"parallel-7-abcdefgh"}
