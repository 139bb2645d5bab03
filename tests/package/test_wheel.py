"""The wheel, installed in an empty environment, brings all that a site needs and nothing that it must guess."""

import email
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from support.wheel import build

import hpcspawner

ROOT = Path(__file__).parents[2]


def run(*argv, **kwargs):
    done = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    return build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def wheel(built):
    (made,) = built.glob("hpcspawner-*.whl")
    return made


@pytest.fixture(scope="session")
def sdist(built):
    (made,) = built.glob("hpcspawner-*.tar.gz")
    return made


@pytest.fixture(scope="session")
def metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return email.message_from_string(archive.read(name).decode())


@pytest.fixture(scope="session")
def python(wheel, tmp_path_factory):
    """The interpreter of a new environment that holds the wheel and what it asks for."""
    home = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", home)
    run(home / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel)
    return home / "bin" / "python"


def test_an_index_would_take_both(wheel, sdist):
    assert run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist).count("PASSED") == 2


def test_the_version_stands_in_one_place(metadata, wheel, sdist, python):
    assert metadata["Version"] == hpcspawner.__version__
    assert f"hpcspawner-{hpcspawner.__version__}-" in wheel.name
    assert sdist.name == f"hpcspawner-{hpcspawner.__version__}.tar.gz"
    assert run(python.parent / "hpcspawner", "--version").strip() == hpcspawner.__version__
    assert f"\n## {hpcspawner.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_pythons_that_are_named_are_those_that_the_tests_run_on(metadata):
    named = [line.rpartition(" ")[2] for line in metadata.get_all("Classifier") if ":: Python :: 3." in line]
    assert named == ["{}.{}".format(*sys.version_info)]


def test_the_source_distribution_has_the_package_and_none_of_its_tests(sdist, wheel):
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()} - {""}
    with zipfile.ZipFile(wheel) as archive:
        modules = {name for name in archive.namelist() if name.startswith("hpcspawner/")}
    assert modules <= inside
    assert {"README.md", "LICENSE", "setup.cfg", "pyproject.toml", "docs/howto/troubleshooting.md"} <= inside
    assert {f"profiles/{path.name}" for path in (ROOT / "profiles").glob("*.toml")} <= inside
    tops = {name.partition("/")[0] for name in inside}
    assert tops == {
        *("PKG-INFO", "README.md", "LICENSE", "setup.cfg", "pyproject.toml", "hpcspawner", "hpcspawner.egg-info"),
        *("docs", "profiles"),
    }


def test_the_wheel_has_every_file_of_the_package(wheel):
    listed = run("git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "hpcspawner").split()
    with zipfile.ZipFile(wheel) as archive:
        assert {name for name in listed if (ROOT / name).is_file()} <= set(archive.namelist())


def test_a_message_is_explained_without_the_sources(python):
    said = run(python.parent / "hpcspawner", "explain", "sudo-rule")
    assert "Cure: Install what `hpcspawner sudoers` prints" in said


def test_the_wheel_declares_every_requirement(metadata):
    required = {re.split("[<>= ;]", line)[0] for line in metadata.get_all("Requires-Dist")}
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
