"""The module that stands for `rfc3987_syntax`, in a Python with the real jsonschema and its grammar."""

import os
import subprocess
import sys

import pytest

from hpcspawner.programs.joined import source

HAS_GRAMMAR = "rfc3987_syntax.syntax_helpers"


@pytest.fixture
def run(tmp_path):
    """Runs a program in a Python that looks first in a folder with our module alone; its output."""
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "rfc3987_syntax.py").write_text(source("rfc3987_syntax.py"))

    def run(program, *options):
        argv = [sys.executable, *options, "-c", f"import sys\n{program}"]
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "quick")}
        return subprocess.check_output(argv, text=True, env=environment, cwd=tmp_path).strip()

    return run


def test_jupyters_modules_are_loaded_without_the_grammar(run):
    assert run(f"import jupyter_events; print({HAS_GRAMMAR!r} in sys.modules, 'lark' in sys.modules)") == "False False"


@pytest.mark.parametrize(("value", "is_one"), [("http://ex\u00e4mple.org/\u00fc", True), ("no iri at all", False)])
def test_the_check_is_made_by_the_package_itself_when_it_is_asked_for(run, value, is_one):
    program = (
        "import jsonschema\n"
        "checker = jsonschema.Draft202012Validator.FORMAT_CHECKER\n"
        f"print(checker.conforms({value!r}, 'iri'), checker.conforms({value!r}, 'iri'), {HAS_GRAMMAR!r} in sys.modules)"
    )
    assert run(program) == f"{is_one} {is_one} True"


@pytest.mark.parametrize(
    "use",
    [
        "import rfc3987_syntax; print(rfc3987_syntax.syntax_parser.__module__)",
        "from rfc3987_syntax import syntax_parser; print(syntax_parser.__module__)",
        "import rfc3987_syntax.syntax_helpers as s; print(s.syntax_parser.__module__)",
    ],
    ids=["attribute", "from", "its own module"],
)
def test_all_else_that_the_package_has_is_there(run, use):
    assert run(use).startswith("lark")


def test_a_name_that_it_does_not_have_is_an_attribute_error(run):
    assert run("import rfc3987_syntax as r; print(hasattr(r, 'nothing'), hasattr(r, '__wrapped__'))") == "False False"


def test_where_the_package_is_not_installed_neither_are_we(run):
    program = "try:\n import rfc3987_syntax\nexcept ImportError as error:\n print(error)"
    assert run(program, "-S") == "No module named 'rfc3987_syntax'"
