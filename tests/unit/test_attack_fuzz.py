"""A short turn of the fuzzer at every door; `tests/attack/run` gives it longer ones."""

import importlib.util
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SECONDS = os.environ.get("ATTACK_SECONDS", "10")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None and (platform.system(), platform.machine()) != ("Linux", "x86_64"),
    reason="atheris, the fuzzer, is there for Linux on x86_64 alone",
)

PLANTED = """
import atheris
from attack import doors

@atheris.instrument_func
def planted(data):
    if data[:1] == b"h" and data[1:2] == b"p" and data[2:3] == b"c" and data[3:4] == b"!":
        raise RuntimeError("the planted fault")

doors.DOORS["units"] = planted
from attack import fuzz
from pathlib import Path
import sys
fuzz.FOUND = Path(sys.argv.pop())
fuzz.main()
"""


def fuzz(*argv):
    """The fuzzer in a process of its own, which it ends itself; its result and its words."""
    return subprocess.run(
        [sys.executable, *argv],
        cwd=TESTS.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=1200 + int(SECONDS),
        check=False,
    )


def test_the_fuzzer_finds_nothing_at_any_door():
    done = fuzz("-m", "attack.fuzz", f"--seconds={SECONDS}", "--seed=1")
    assert done.returncode == 0, f"{done.stdout[-5000:]}"
    assert "stat::number_of_executed_units" in done.stdout


def test_the_fuzzer_finds_what_random_bytes_would_not(tmp_path):
    """Four bytes, one behind the other, of which only the coverage tells that they are right."""
    done = fuzz("-c", PLANTED, "units", "--runs=500000", "--seconds=300", "--seed=1", str(tmp_path))
    assert done.returncode != 0
    assert "the planted fault" in done.stdout
    assert [file.read_bytes()[:4] for file in (tmp_path / "units").iterdir()] == [b"hpc!"]
