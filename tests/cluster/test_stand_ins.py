"""The stand-ins do what they are told, and else what the real commands do."""

import os
import subprocess
import time

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within
from cluster.drills.ground import furnish

SCRIPT = "#!/bin/bash\nsleep 60\n"
SUBMIT = ("sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--mem=10M")


@pytest.fixture
def folder(lab):
    made = furnish(lab)
    yield made
    subprocess.run(["rm", "-rf", str(made)], check=True)
    on_head("scancel", "--user=alice")
    queue_is_empty_within(40, "alice")


def call(folder, *argv, user="alice"):
    command = ["sudo", "-n", "-u", user, str(folder / "bin" / argv[0]), *argv[1:]]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def order(folder, name, text=""):
    (folder / "orders" / name).write_text(text)
    (folder / "orders" / name).chmod(0o666)


def test_without_orders_they_are_the_real_commands(folder):
    job, _ = call(folder, *SUBMIT).communicate(SCRIPT, 20)
    assert jobs_of("alice") == [job.strip()]
    listed, _ = call(folder, "squeue", "--noheader", "--format=%i", "--user=alice").communicate(timeout=20)
    assert listed == job
    assert call(folder, "scancel", job.strip()).wait(20) == 0
    assert (folder / "orders" / "calls").read_text().splitlines() == [
        f"sbatch alice {' '.join(SUBMIT[1:])}",
        "squeue alice --noheader --format=%i --user=alice",
        f"scancel alice {job.strip()}",
    ]


def test_a_submit_may_take_effect_late(folder):
    order(folder, "submit-before-alice")
    late = call(folder, *SUBMIT)
    late.stdin.write(SCRIPT)
    late.stdin.close()
    time.sleep(1)
    assert late.poll() is None
    assert jobs_of("alice") == []
    (folder / "orders" / "submit-before-alice").unlink()
    assert late.wait(20) == 0
    assert len(jobs_of("alice")) == 1


def test_a_job_may_be_there_before_its_id_is_told(folder):
    order(folder, "submit-after-alice")
    late = call(folder, *SUBMIT)
    late.stdin.write(SCRIPT)
    late.stdin.close()
    time.sleep(1)
    assert late.poll() is None
    assert len(jobs_of("alice")) == 1
    (folder / "orders" / "submit-after-alice").unlink()
    assert late.stdout.read().split() == jobs_of("alice")
    assert late.wait(20) == 0


def test_a_submit_may_come_to_nothing(folder):
    order(folder, "submit-never-alice")
    never = call(folder, *SUBMIT)
    time.sleep(1)
    (folder / "orders" / "submit-never-alice").unlink()
    never.communicate(SCRIPT, 20)
    assert never.returncode == 1
    assert jobs_of("alice") == []


def test_what_waits_when_a_drill_is_over_does_nothing(folder):
    order(folder, "submit-before-alice")
    late = call(folder, *SUBMIT)
    time.sleep(0.5)
    os.rename(folder, f"{folder}-gone")
    late.communicate(SCRIPT, 20)
    assert late.returncode == 1
    os.rename(f"{folder}-gone", folder)
    assert jobs_of("alice") == []


def test_a_cancel_fails_as_often_as_it_is_told(folder):
    order(folder, "cancel-fails-alice", "3\n")
    assert [call(folder, "scancel", "999999999").wait(20) for _ in range(3)] == [1, 1, 1]
    *_, error = call(folder, "scancel", "999999999").communicate(timeout=20)
    assert "told to fail" not in error


@pytest.mark.parametrize(
    ("what", "size"),
    [("garbage", 3000), ("nothing", 0), ("100MB", 100 * 1024 * 1024)],
)
def test_a_listing_is_what_it_is_told_to_be(folder, what, size):
    order(folder, f"list-{what}")
    for command in (("squeue", "--all"), ("qstat", "-x")):
        counted = subprocess.run([str(folder / "bin" / command[0]), *command[1:]], capture_output=True, check=True)
        assert len(counted.stdout) == size
