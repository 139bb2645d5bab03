"""The locks hold what setup.cfg asks for, in versions that it allows, with hashes, and name no place to fetch from."""

import configparser
import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "requirements"
LOCKS = sorted(FOLDER.glob("*.lock"))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LINE = re.compile(r"(?P<requirement>[a-z0-9-]+==[^ ]+( ; .+?)?)(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)")
NPM = (FOLDER / "proxy-npm", ROOT / "labextension")


def words(text):
    """Requirements of a text, one a line."""
    lines = [line.partition("#")[0].strip() for line in text.splitlines()]
    others = [
        (FOLDER / line.removeprefix("-r ")).read_text(encoding="utf-8") for line in lines if line.startswith("-r ")
    ]
    own = [Requirement(line) for line in lines if line and not line.startswith("-r ")]
    return own + [one for other in others for one in words(other)]


def asked_for(name):
    """What a lock must hold."""
    if not name.startswith("test"):
        return words((FOLDER / f"{name}.in").read_text(encoding="utf-8"))
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    older = (FOLDER / "jupyterhub-5.5.in").read_text(encoding="utf-8") if name == "test-5.5" else ""
    return [
        *words(setup["options"]["install_requires"]),
        *words(extras["test"].replace("%(demo)s", extras["demo"])),
        *words("\n".join(build)),
        *words(older),
    ]


def locked(lock):
    """The lines of a lock, each with its hashes."""
    text = lock.read_text(encoding="utf-8").replace(" \\\n    ", " ")
    return [LINE.fullmatch(line) or line for line in text.splitlines() if line and not line.startswith("#")]


def on(python):
    """This machine, with that Python."""
    return {**default_environment(), "python_version": python, "python_full_version": f"{python}.9"}


def versions(lock, python):
    """The version of each package that that Python gets here, by name; two of them would be a contradiction."""
    found = {}
    for line in locked(lock):
        one = Requirement(line["requirement"])
        if one.marker is None or one.marker.evaluate(on(python)):
            assert one.name not in found
            found[one.name] = str(one.specifier).removeprefix("==")
    return found


def test_there_is_a_lock_for_each_environment():
    assert [lock.stem for lock in LOCKS] == [
        "docs",
        "lab-batchspawner",
        "lab-classic",
        "lab-env",
        "lab-parallel",
        "lab-programs",
        "lab-proxy",
        "node",
        "test-5.5",
        "test",
    ]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_line_of_a_lock_is_one_version_with_its_hashes(lock):
    assert [line for line in locked(lock) if isinstance(line, str)] == []


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_holds_what_is_asked_for(lock, python):
    found = versions(lock, python)
    for asked in asked_for(lock.stem):
        if asked.marker and not asked.marker.evaluate(on(python)):
            continue
        name = canonicalize_name(asked.name)
        assert name in found, f"{lock.name} lacks {name} for Python {python}: type `make lock`"
        assert asked.specifier.contains(found[name]), f"{lock.name} has {name} {found[name]}, not {asked}: `make lock`"


@pytest.mark.parametrize("folder", NPM, ids=lambda folder: folder.name)
def test_what_comes_from_npm_is_locked_with_hashes(folder):
    asked = json.loads((folder / "package.json").read_text(encoding="utf-8"))
    packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    locked = packages.pop("")
    for kind in ("dependencies", "devDependencies"):
        assert locked.get(kind) == asked.get(kind)
        assert {f"node_modules/{name}" for name in asked.get(kind, ())} <= set(packages)
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package, name


@pytest.mark.parametrize(
    "file",
    [*LOCKS, *(folder / name for folder in NPM for name in ("package.json", "package-lock.json"))],
    ids=lambda file: file.name,
)
def test_no_lock_says_where_to_fetch_from(file):
    assert "://" not in file.read_text(encoding="utf-8")


def test_the_lock_of_the_docs_is_made_of_their_extra():
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert set(map(str, words(setup["options.extras_require"]["docs"]))) == set(map(str, asked_for("docs")))
