"""Sentences of programs that run elsewhere, recognised: the list against their sources, and hostile text."""

import ast
import re
import time
from pathlib import Path

import pytest

from hpcspawner import sentences
from hpcspawner.language import Text, told
from hpcspawner.programs import look, usable
from hpcspawner.programs.launcher import job, node, server, start
from hpcspawner.sentences import LAUNCHER, LOOK, recognised

SOURCES = (start, job, node, server, look, usable)
# Into the job's log only, or parts of sentences that are listed whole.
NO_SENTENCES = {
    "the environment '' on ",
    " This often means that the server used more memory than the job asked for.",
    " Add the package  to that environment, with pip or conda.",
    "between  and  ",
    "No port on  is free for the server: .",
    " was not found in .",
    "was ended by ",
    "ended with exit code ",
    "  on .",
    " or ",
    "gave no answer within %.1f s",
    "another version",
    'for one; do command -v "$one" >/dev/null 2>&1 && exit 0; done; exit ',
    "The image  . Choose another image, or make it for these machines.",
    "import importlib.util as u, sys; sys.exit( * any(not u.find_spec(n) for n in sys.argv[1:]))",
    "No kernels(?: or terminals)? for (\\d+) seconds; shutting down",
}


def texts(module):
    """What a program may say: its text with spaces in it, but for what goes into its log and docstrings."""
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    left_out = set()
    for one in ast.walk(tree):
        if isinstance(one, ast.Call) and getattr(one.func, "id", "") in ("say", "compile", "run_command"):
            left_out |= {id(part) for part in ast.walk(one)}
        if isinstance(one, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(one):
            left_out.add(id(one.body[0].value))
    for one in ast.walk(tree):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and id(one) not in left_out:
            shape = re.sub(r"%[sd]", "", one.value)
            # A program in a program has line breaks, a list of names no sign.
            if "\n" not in shape and re.search(r"[a-z]{2} [a-z]", shape) and not shape.startswith("version callback"):
                yield shape


def shapes():
    return "\n".join(re.sub(r"\{\w+\}", "", text.messages[0]) for text in (*LAUNCHER, *LOOK))


@pytest.mark.parametrize("module", SOURCES, ids=lambda module: module.__name__.rpartition(".")[2])
def test_each_sentence_of_the_programs_is_known(module):
    missing = [text for text in texts(module) if text not in shapes() and text not in NO_SENTENCES]
    assert not missing


@pytest.mark.parametrize(
    ("text", "german"),
    [
        (
            "The directory /scratch/alice can't be opened on n1: No such file or directory. "
            "Create it, or choose another directory.",
            "/scratch/alice",
        ),
        ("jupyter-lab was not found in the environment 'old' on n1.", "old"),
        ("JupyterLab was ended by SIGKILL on n1.", "SIGKILL"),
    ],
)
def test_a_sentence_is_recognised_with_its_values_and_parts(text, german):
    found = recognised(text)
    assert isinstance(found, Text)
    assert found == text
    shown = told(found, "de")
    assert shown != text
    assert german in shown
    assert not any(word in shown.split() for word in ("was", "the", "Create"))


@pytest.mark.parametrize("text", [one.messages[0] for one in (*LAUNCHER, *LOOK)])
def test_each_sentence_is_recognised_as_itself(text):
    filled = re.sub(r"\{(\w+)\}", r"<\1>", text)
    found = recognised(filled)
    assert found == filled
    assert isinstance(found, Text)
    assert re.sub(r"\{(\w+)\}", r"<\1>", found.messages[0]) == filled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Something else.",
        "{node}",
        "The server was idle for {time} and shut down.",
        "The set-up of {place.__class__} failed at: {0} %s",
        "The set-up of  failed at: ",
        " on  is free for the server: ." * 30,
    ],
)
def test_any_text_stays_the_text_that_it_is(text):
    found = recognised(text)
    assert found == text
    assert text == "" or told(found, "de")
    assert all(value in text for value in getattr(found, "values", {}).values())


def test_text_that_nearly_fits_is_not_looked_at_for_long():
    # By a pattern that may go back this would take minutes.
    text = "The directory x can't be opened on " + ": . on " * 2000
    began = time.process_time()
    assert recognised(text) == text
    assert sentences._recognised(text, 3) == text
    assert time.process_time() - began < 20
