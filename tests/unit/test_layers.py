"""The order of the rooms, and rules that no linter knows."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hpcspawner
from hpcspawner.programs import launcher
from hpcspawner.programs.joined import joined_launcher
from hpcspawner.site import scheduler_types

PACKAGE = Path(hpcspawner.__file__).parent
ORDER = [
    "_version",
    "language",
    "sentences",
    "errors",
    "troubles",
    "units",
    "programs",
    "site",
    "schedulers",
    "request",
    "script",
    "jobs",
    "nodes",
    "checks",
    "pages",
    "hub",
    "spawner",
    "cli",
]
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def dotted(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def place(module):
    """Index of the room that holds this module."""
    return ORDER.index(module.split(".")[0])


def imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports in full"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name.removeprefix("hpcspawner.") for name in names if name.startswith("hpcspawner."))


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_module_imports_only_what_comes_before_it(path):
    for module in imported(path):
        assert place(module) <= place(dotted(path)), f"{dotted(path)} reaches up to {module}"


def test_nothing_below_the_hub_needs_jupyterhub():
    rooms = ["site.profile", "schedulers.cluster", "request.form", "request.gate", "script.render"]
    code = f"""
import sys
sys.modules["jupyterhub"] = sys.modules["batchspawner"] = sys.modules["tornado"] = None
import importlib, hpcspawner
for room in {rooms!r}:
    importlib.import_module("hpcspawner." + room)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# The profile names the schedulers; the demo is for one of them.
OTHERS = [path for path in MODULES if dotted(path).split(".")[0] not in ("schedulers", "cli", "site")]


@pytest.mark.parametrize("path", OTHERS, ids=dotted)
def test_no_scheduler_is_named_outside_its_room(path):
    compared = [
        node
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Compare)
        for side in [node.left, *node.comparators]
        if isinstance(side, ast.Constant) and side.value in scheduler_types.BUILT_IN
    ]
    assert not compared


TESTS = sorted((Path(__file__).parents[1]).rglob("*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_the_message_of_an_assert_is_text(path):
    # `assert a, b` where `assert a == b` was meant can never fail.
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assert) and node.msg is not None:
            text = isinstance(node.msg, ast.JoinedStr | ast.Call | ast.Attribute | ast.BinOp | ast.Name) or (
                isinstance(node.msg, ast.Constant) and isinstance(node.msg.value, str)
            )
            assert text, f"{path}:{node.lineno}"


LAUNCHER = PACKAGE / "programs" / "launcher"


def test_the_launcher_is_joined_of_all_its_parts_and_no_name_of_one_hides_another_s():
    assert sorted(launcher.PARTS) == sorted(path.stem for path in LAUNCHER.glob("*.py") if path.stem != "__init__")
    text = joined_launcher()
    names = [name for node in ast.parse(text).body for name in bound(node)]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    assert "hpcspawner.programs" not in text.partition('"""\n\n')[2]


def bound(node):
    """Names that a statement at the top of a module binds, but for imports."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    return [target.id for target in node.targets] if isinstance(node, ast.Assign) else []


@pytest.mark.parametrize("part", launcher.PARTS)
def test_a_part_of_the_launcher_imports_from_those_before_it(part):
    before = launcher.PARTS[: launcher.PARTS.index(part)]
    for module in imported(LAUNCHER / f"{part}.py"):
        assert module.split(".")[:2] == ["programs", "launcher"], f"{part} imports {module}"
        assert module.split(".")[2] in before, f"{part} imports from {module}"
