"""What sites have that the test cluster has not: module systems, a maintenance, a clock that is wrong, broken nodes."""

import contextlib
import html
import os
import subprocess
from pathlib import Path

import pytest
from cluster.conftest import jobs_of, made, on_head, queue_is_empty_within
from cluster.test_bad_input import start
from support.faults import within
from support.hub import server_path

HABITS = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 0.5}'

# As OpenHPC and SUSE ship it: nothing for root, nor where a job is seen.
LMOD = """\
if [ $EUID -eq 0 ] || [ -n "$SLURM_NODELIST" ] || [ -n "$PBS_NODEFILE" ]; then
    return
fi
module() {
    case $1/$2 in
        load/jupyter) . "$MODULEPATH/$2" ;;
        *) echo "module: $* is unknown" >&2; return 1 ;;
    esac
}
"""


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@contextlib.contextmanager
def mounted_on(lab, node, folder, place):
    """Jobs on this node see a folder of ours at `place`."""
    slurmd = (lab / "run" / f"slurmd.{node}.pid").read_text().strip()
    inside = ["nsenter", f"--mount=/proc/{slurmd}/ns/mnt"]
    subprocess.run([*inside, "mount", "--bind", str(folder), place], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, "umount", place], check=True)


@contextlib.contextmanager
def hub_with(make_hub, environment="", job=""):
    """A Hub whose site has one more environment, called `site`, and these keys in [job]."""
    more = f'[job]\n{job}\n\n[[environments]]\nname = "site"\n{environment}\n\n[defaults]'
    with make_hub("slurm", change=("[defaults]", more), extra=HABITS) as hub:
        yield hub


def test_a_server_starts_by_a_module_system_that_hides_from_jobs(make_hub, lab, tmp_path):
    (tmp_path / "z00_lmod.sh").write_text(LMOD)
    (tmp_path / "zz_modules.sh").write_text(f"export MODULEPATH={lab}/modulefiles-of-test\n")
    modules = lab / "modulefiles-of-test"
    modules.mkdir(exist_ok=True)
    (modules / "jupyter").write_text(f'export PATH="{lab}/env/bin:$PATH"\n')
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/"):
            os.chmod(folder, folder.stat().st_mode | 0o055)
    environments = 'modules = ["jupyter"]\n\n[[environments]]\nname = "lines"\nsetup = ["module load jupyter"]'
    with mounted_on(lab, "n1", tmp_path, "/etc/profile.d"), hub_with(make_hub, environments) as hub:
        for environment in ("site", "lines"):
            hub.spawn("alice", {"environment": environment, "partition": "debug"})
            hub.stop_server("alice")
            queue_is_empty_within(40, "alice")


def test_a_node_without_modules_says_where_it_has_looked(make_hub):
    with hub_with(make_hub, 'modules = ["jupyter"]', 'modules_init = "/opt/nowhere"') as hub:
        _, message, _ = start(hub, {"environment": "site", "partition": "debug"})
    assert "failed at: module load jupyter (no `module` command on n1; looked in /opt/nowhere;" in message


ENVIRONMENTS = """\
modules = ["jupyter/1.0"]
purge_modules = true

[[environments]]
name = "gone"
modules = ["jupyter/1.0", "nowhere/9"]
"""


@pytest.mark.parametrize("system", ["lmod", "modules"])
async def test_a_module_is_loaded_and_one_that_is_not_there_is_named(make_hub, lab, system):
    """Debian's Lmod and Environment Modules."""
    modules = lab / "env-modules"
    job = f'modules_init = "{modules}/{system}.sh"\nprologue = "module use {modules}/modulefiles"'
    with hub_with(make_hub, ENVIRONMENTS, job) as hub:
        hub.spawn("alice", {"environment": "site", "partition": "debug"})
        said = await hub.run("alice", "import os, sys; print(os.environ['FROM_MODULE'], sys.prefix)")
        assert said == f"jupyter/1.0 {made(lab, 'env')}"
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
        _, message, _ = start(hub, {"environment": "gone", "partition": "debug"})
    told, _, log = html.unescape(message).partition("The last lines")
    assert "The set-up of the environment 'gone' on n1 failed at: module load nowhere/9" in told
    # The module system's own words.
    assert {"lmod": '"nowhere/9"', "modules": "Unable to locate a modulefile for 'nowhere/9'"}[system] in log


@contextlib.contextmanager
def maintenance(node, in_minutes):
    on_head(
        *("scontrol", "create", "reservation", "ReservationName=maintenance", f"StartTime=now+{in_minutes}minutes"),
        *("Duration=60", f"Nodes={node}", "Users=root", "Flags=MAINT"),
    )
    try:
        yield
    finally:
        on_head("scontrol", "delete", "ReservationName=maintenance")


def test_a_job_that_a_maintenance_holds_back_is_told_the_cure(make_hub):
    with hub_with(make_hub) as hub, maintenance("n1", 15):
        asked = {"partition": "debug", "walltime": "20m"}
        assert hub.api("POST", server_path("alice"), json=asked).status_code == 202
        told = ""
        for event in hub.events("alice"):
            told = event.get("job", {}).get("reason", "")
            if "maintenance" in told:
                break
        assert "With a shorter wall time it may start before the maintenance" in told
        assert "The scheduler says: ReqNodeNotAvail, Reserved for maintenance" in told
        hub.stop_server("alice")
        within(40, lambda: not jobs_of("alice"), "the job is left")
        hub.spawn("alice", asked | {"walltime": "10m"})
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")


PYTHONS = [
    pytest.param("/no/such/python3", "the node has none that runs", id="none"),
    pytest.param("/bin/false", "could not run the job's launcher", id="broken"),
]


@pytest.mark.parametrize(("python", "says"), PYTHONS)
def test_a_node_whose_python_does_not_run_is_told_with_the_log(make_hub, python, says):
    with hub_with(make_hub, job=f'python = "{python}"') as hub:
        _, message, _ = start(hub, {"partition": "debug"})
    assert says in message
    assert f"{python} (job.python of the site's profile)" in message
    assert "Its log is ~/.hpcspawner/" in message
    assert " on n1." in message


@pytest.mark.parametrize("clock", ["-20m", "-800d", "+9000d"])
def test_a_node_whose_clock_is_wrong(make_hub, lab, clock):
    """Twenty minutes matter to no certificate that is older; what does matter is told as the clock."""
    python = lab / f"python-with-clock{clock}"
    python.write_text(f'#!/bin/sh\nexec faketime -f "{clock}" python3 "$@"\n')
    python.chmod(0o755)
    asked = {"partition": "debug", "environment": "jupyter"}
    with hub_with(make_hub, job=f'python = "{python}"') as hub:
        if clock.endswith("m"):
            hub.spawn("alice", asked)
            hub.stop_server("alice")
        else:
            _, message, _ = start(hub, asked)
            assert "The node's clock is wrong, or the certificate has expired." in message
            assert "Its log is ~/.hpcspawner/" in message
        queue_is_empty_within(40, "alice")


# More of them, run by bash alone, are in the unit tests.
PROLOGUES = ["set -e\n. /no/such/file", "trap 'true' EXIT\nexit 3"]


@pytest.mark.parametrize("prologue", PROLOGUES)
def test_a_prologue_that_ends_the_script_is_named_with_the_log_s_lines(make_hub, prologue):
    with hub_with(make_hub, job=f'prologue = """\necho this was said before\n{prologue}\n"""') as hub:
        _, page, _ = start(hub, {"partition": "debug"})
    message = html.unescape(page)
    assert "failed at: the site's prologue (job.prologue), which ended the job's script with exit code" in message
    assert "this was said before" in message


async def test_a_job_with_a_tmp_of_its_own_leaves_nothing_there(make_hub, lab, tmp_path):
    """As with job_container/tmpfs: what the Hub and other jobs see at /tmp is not there."""
    private = tmp_path / "tmp"
    private.mkdir()
    private.chmod(0o1777)
    with mounted_on(lab, "n1", private, "/tmp"), hub_with(make_hub) as hub:
        hub.spawn("alice", {"partition": "debug", "environment": "jupyter"})
        assert await hub.run("alice", "open('/tmp/mine', 'w').close(); print('written')") == "written"
        assert (private / "mine").exists()
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
    assert [path.name for path in private.iterdir() if path.name.startswith("hpcspawner")] == []


def test_a_log_that_lies_in_a_node_s_tmp_is_gone_with_its_job(make_hub, lab, tmp_path):
    private = tmp_path / "tmp"
    private.mkdir()
    private.chmod(0o1777)
    job = 'log = "/proc/nowhere"\nprologue = "echo this was said before; exit 3"'
    with mounted_on(lab, "n1", private, "/tmp"), hub_with(make_hub, job=job) as hub:
        _, message, _ = start(hub, {"partition": "debug"})
        queue_is_empty_within(40, "alice")
    assert "this was said before" in message
    assert list(private.iterdir()) == []
