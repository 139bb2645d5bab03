"""What the status bar's two programs on the node find out by themselves."""

import os
import subprocess
import sys
import time

import pytest

from hpcspawner.programs import status_keeper, status_server


def test_a_jobs_time_begins_with_its_script():
    before = time.time()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as script:
        began = status_keeper._began(script.pid)
        script.communicate(b"\n")
    # The kernel counts in hundredths of a second.
    assert before - 0.1 < began < time.time() + 0.1
    assert status_keeper._began(script.pid) is None


def test_a_process_uses_what_its_children_use():
    alone = status_server._of_family()
    with subprocess.Popen(
        [sys.executable, "-c", "x = b'x' * (64 << 20); print(flush=True); input()"], **PIPES
    ) as child:
        child.stdout.readline()
        together = status_server._of_family()
        child.communicate(b"\n")
    assert 64 << 20 < together - alone < 200 << 20


PIPES = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}


def group(root, path, **files):
    (root / path).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / path / name.replace("_", ".", 1)).write_text(text)


def test_the_memory_of_the_innermost_group_with_a_limit_counts_without_its_cache(tmp_path):
    group(
        tmp_path,
        "job_12",
        memory_max="4294967296\n",
        memory_current="3000\n",
        memory_stat="anon 1\ninactive_file 500\n",
    )
    group(tmp_path, "job_12/step_0/user", memory_max="max\n", memory_current="70\n", memory_stat="anon 70\n")
    group(tmp_path, "job_12/step_0", memory_max="max\n", memory_current="70\n", memory_stat="anon 70\n")
    names = ("memory.max", "memory.current")
    assert status_server._counted(str(tmp_path), "/job_12/step_0/user", names) == 2500
    assert status_server._counted(str(tmp_path), "/", names) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [("/own:{here}:/site", "/own:/site"), ("{here}", None), ("/own", "/own")],
    ids=["between others", "alone", "not there"],
)
def test_kernels_and_terminals_do_not_inherit_the_folder(monkeypatch, before, after):
    monkeypatch.setenv("JUPYTER_PATH", before.format(here=status_server._HERE))
    status_server._forget_folder("JUPYTER_PATH")
    assert os.environ.get("JUPYTER_PATH") == after
