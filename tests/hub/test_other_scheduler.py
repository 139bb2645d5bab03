"""A scheduler of another package: installed, named in a profile, and a server started by it."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.hub import Hub

TOY = Path(__file__).parents[1] / "support" / "toy_scheduler"
PROFILE = """\
title = "This machine"

[scheduler]
type = "toy"
variables = {{ TOY_JOBS = "{folder}/jobs" }}

[job]
log = "{folder}/job-logs"

[[partitions]]
name = "short"
max_walltime = "30m"

[[interfaces]]
name = "lab"
command = ["jupyterhub-singleuser", "--allow-root"]

[[environments]]
name = "jupyter"
path = ["{jupyter}"]
"""


@pytest.fixture
def packages(tmp_path):
    """The folder that pip has installed it to, from a copy: building leaves files behind."""
    source, target = tmp_path / "source", tmp_path / "packages"
    shutil.copytree(TOY, source)
    install = ["install", "-q", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    return target


async def test_a_scheduler_of_another_package_starts_a_server(tmp_path, packages, jupyter_folder):
    (tmp_path / "jobs").mkdir()
    site = tmp_path / "site.toml"
    site.write_text(PROFILE.format(folder=tmp_path, jupyter=jupyter_folder))
    hub = Hub(tmp_path, site, users=("alice",))
    hub.packages = (str(packages),)
    with hub:
        hub.spawn("alice", {"walltime": "10m"})
        assert await hub.run("alice", "print(6 * 7)") == "42"
        assert "job 1 submitted" in hub.log()
        hub.stop_server("alice")
        assert "job 1 has ended" in hub.log()


def test_without_the_package_the_profile_names_what_there_is(tmp_path, jupyter_folder):
    site = tmp_path / "site.toml"
    site.write_text(PROFILE.format(folder=tmp_path, jupyter=jupyter_folder))
    with pytest.raises(
        RuntimeError, match="'toy' is not an installed scheduler; the installed ones are: slurm, openpbs"
    ):
        Hub(tmp_path, site).start()
