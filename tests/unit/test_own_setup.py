"""The user's own set-up lines: what a site must allow, what is refused, and that they stay one word of the script."""

import subprocess

import pytest

from hpcspawner.errors import RequestError
from hpcspawner.request.form import fields
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.request.offer import offer
from hpcspawner.script.launch import Launch
from hpcspawner.script.text import quote
from hpcspawner.site.profile import parse

ALICE = LocalAccount("alice", "/home/alice")
SITE = {
    "title": "Test",
    "scheduler": {"type": "slurm"},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "environments": [{"name": "jupyter", "setup": ["module load it"]}],
}
ALLOWED = parse(SITE | {"own_setup": {"max_chars": 100}}, "site.toml")


def refused(text, profile=ALLOWED):
    with pytest.raises(RequestError) as caught:
        make({"own_setup": text}, profile, ALICE)
    (problem,) = caught.value.problems
    assert problem.field == "own_setup"
    return problem.message


def test_without_the_site_s_leave_they_are_refused_and_not_on_the_form():
    profile = parse(SITE, "site.toml")
    assert "does not accept set-up lines of your own" in refused("echo", profile)
    assert make({"own_setup": ""}, profile, ALICE).own_setup == ""
    assert "own_setup" not in [field.name for field in fields(offer(profile), {})]
    assert "own_setup" in [field.name for field in fields(offer(ALLOWED), {})]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x" * 101, "101 characters long; 100 are allowed"),
        ("a\x00b", r"control character '\x00'"),
        ("a\rb", r"control character '\r'"),
        ("\ud800", r"control character '\ud800'"),
        ("a\u2028b", "control character"),
        ("true\n#SBATCH --uid=0", "is an option for the scheduler"),
        ("true\r\n  #PBS -W group_list=wheel", "is an option for the scheduler"),
        (["true"], "must be text"),
        (7, "must be text"),
        ({"a": 1}, "must be text"),
    ],
)
def test_what_no_shell_should_get_is_refused(text, why):
    assert why in refused(text)


def test_they_are_kept_as_a_choice_and_run_last():
    request = make({"own_setup": "module load mine\r\nexport A=1\n"}, ALLOWED, ALICE)
    assert request.choices["own_setup"] == "module load mine\nexport A=1"
    assert make(request.choices, ALLOWED, ALICE).own_setup == request.own_setup
    steps = Launch.of(request, ALLOWED.job).steps()
    assert [name for _, name in steps] == ["module load it", "your own set-up lines"]


@pytest.mark.parametrize(
    "text",
    [
        "echo it's $HOME `id`",
        "cat <<END\nx\nEND",
        "'; touch escaped; '",
        "END\nhpc_launch",
        "echo \\",
        '"',
        "$(",
        "a=(",
        "é ♥",
    ],
)
def test_whatever_they_hold_is_one_word_of_the_script(text, tmp_path):
    done = subprocess.run(
        ["bash", "-c", f"printf %s {quote(text)}"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout == text
    assert list(tmp_path.iterdir()) == []
