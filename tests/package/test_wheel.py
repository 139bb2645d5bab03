"""The wheel, installed in an empty environment, brings all that a site needs and nothing that it must guess."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*argv, **kwargs):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    # From a copy of what git knows: what lies about in the checkout must not get in, and building must not touch it.
    source = folder / "source"
    source.mkdir()
    listed = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, source)
    (made,) = folder.glob("hpcspawner-*.whl")
    return made


@pytest.fixture(scope="session")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment that holds the wheel and what it asks for."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", home)
    run(home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return home / "bin" / "python"


def test_the_wheel_declares_every_requirement(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = archive.read(name).decode()
    lines = [line.split()[1] for line in metadata.splitlines() if line.startswith("Requires-Dist")]
    required = {re.split("[<>=]", line)[0] for line in lines}
    assert {"jupyterhub", "batchspawner", "traitlets", "tornado", "jinja2", "pydantic"} <= required


def test_the_wheel_holds_no_tests_and_no_examples(wheel):
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.startswith("hpcspawner")} == set()


def test_templates_and_static_files_are_there(python):
    code = """
from importlib.resources import files
for name in ["script/templates/base.sh.j2", "script/templates/setup.sh.j2",
             "script/templates/conda.sh.j2", "programs/launcher/job.py", "pages/templates/hpc_form.html",
             "pages/templates/spawn_pending.html", "pages/static/waiting.js", "nodes/proxy/public.js",
             "programs/labextension/package.json", "programs/labextension/remoteEntry.js",
             "hub/events/job.v1.yaml", "hub/events/refusal.v1.yaml", "py.typed"]:
    assert files("hpcspawner").joinpath(name).is_file(), name
"""
    run(python, "-I", "-c", code)


def test_the_profiles_are_installed_and_found(python):
    shipped = {path.name for path in (ROOT / "profiles").glob("*.toml")}
    folder = python.parents[1] / "share" / "hpcspawner" / "profiles"
    assert {path.name for path in folder.glob("*.toml")} == shipped
    code = "from hpcspawner.site.profile import find_shipped; print(find_shipped('comet.toml'))"
    found = run(python, "-I", "-c", code)
    assert Path(found.strip()) == folder / "comet.toml"


def test_a_job_script_can_be_rendered(python):
    profile = python.parents[1] / "share" / "hpcspawner" / "profiles" / "comet.toml"
    script = run(python.parent / "hpcspawner", "render", profile, "partition=debug")
    assert script.startswith("#!/bin/bash\n# ")


def test_jupyterhub_finds_the_spawner_by_its_entry_point(python):
    code = """
from importlib.metadata import entry_points
(found,) = entry_points(group="jupyterhub.spawners", name="hpc")
import batchspawner, hpcspawner
assert found.load() is hpcspawner.HPCSpawner
assert issubclass(hpcspawner.HPCSpawner, batchspawner.BatchSpawnerBase)
"""
    run(python, "-I", "-c", code)
