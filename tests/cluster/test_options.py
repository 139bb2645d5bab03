"""Every option reaches the scheduler; what it was is read from the scheduler's own record of the job."""

import time

import pytest
from cluster.conftest import jobs_of, nothing_starts, on_head, script_of, shown
from support.hub import server_path

ASKED = [
    pytest.param({"partition": "debug"}, {"Partition": "debug"}, {"queue": "debug"}, id="partition -p"),
    pytest.param({"account": "tro100"}, {"Account": "tro100"}, {"Account_Name": "tro100"}, id="account -A"),
    pytest.param(
        {"walltime": "1h 30m"}, {"TimeLimit": "01:30:00"}, {"Resource_List.walltime": "01:30:00"}, id="wall time -t"
    ),
    pytest.param(
        {"walltime": "1d 2h"},
        {"TimeLimit": "1-02:00:00"},
        {"Resource_List.walltime": "26:00:00"},
        id="wall time of days -t",
    ),
    pytest.param(
        {"partition": "gpu-shared", "gpus": 3},
        {"TRES": "gres/gpu=3"},
        {"Resource_List.nodes": "1:ppn=1:gpus=3"},
        id="gpus -g",
    ),
    pytest.param({"nodes": 2}, {"NumNodes": "2-2"}, {"Resource_List.nodes": "2:ppn=1"}, id="nodes"),
    pytest.param({"cpus": 4}, {"NumCPUs": "4"}, {"Resource_List.nodes": "1:ppn=4"}, id="cpus"),
    pytest.param({"memory": "3G"}, {"TRES": "mem=3G"}, {"Resource_List.mem": "3072mb"}, id="memory"),
    pytest.param(
        {"features": ["skylake"]},
        {"Features": "skylake"},
        {"Resource_List.nodes": "1:ppn=1:skylake"},
        id="node features",
    ),
]
SLURM_ONLY = [
    pytest.param({"qos": "debug", "walltime": "10m"}, {"QOS": "debug"}, id="qos"),
    pytest.param(
        {"partition": "gpu-shared", "gpu_type": "v100", "gpus": 2}, {"TresPerNode": "gres/gpu:v100:2"}, id="gpu type"
    ),
]


def submitted(hub, options, look=shown):
    """What `look` finds of the job that these options make, the scheduler's record by default; it is cancelled."""
    answer = hub.api("POST", server_path("alice"), json=options)
    assert answer.status_code in (201, 202), answer.text
    try:
        deadline = time.monotonic() + 10
        while not jobs_of("alice"):
            assert time.monotonic() < deadline, hub.log()
            time.sleep(0.1)
        return look(jobs_of("alice")[0])
    finally:
        hub.stop_server("alice")


@pytest.fixture(scope="module", autouse=True)
def all_wait(lab):
    """Jobs wait: what was asked is all that matters here."""
    with nothing_starts():
        yield


def agrees(record, wanted):
    return {
        name: record[name] if name != "TRES" or value not in record[name] else value for name, value in wanted.items()
    }


@pytest.mark.parametrize(("options", "of_slurm", "of_torque"), ASKED)
def test_the_option_reaches_the_scheduler(hub, scheduler, options, of_slurm, of_torque):
    wanted = of_slurm if scheduler == "slurm" else of_torque
    assert agrees(submitted(hub, options), wanted) == wanted


@pytest.mark.parametrize(
    ("options", "line"),
    [
        pytest.param({"directory": "/tmp"}, '"directory": "/tmp"', id="directory -d"),
        pytest.param({"directory": "/tmp/two & more"}, '"directory": "/tmp/two & more"', id="directory with blanks"),
        pytest.param({"environment": "modules"}, "hpc_step 'module load anaconda/3'", id="environment -b"),
        pytest.param({"image": "torch"}, '"/images/torch.simg"]', id="image -i"),
        pytest.param({"interface": "notebook"}, '"JUPYTERHUB_DEFAULT_URL": "/tree"', id="interface -s"),
        pytest.param({"interface": "lab"}, '"JUPYTERHUB_DEFAULT_URL": "/lab"', id="other interface -s"),
    ],
)
def test_the_option_reaches_the_script_that_the_scheduler_keeps(hub, options, line):
    script = submitted(hub, options, look=script_of)
    assert line in script


# The Hub answers a REST start after 10 s where the job still waits; here every job does.
QUICK = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}'


@pytest.fixture(scope="module")
def running_hub(make_hub, scheduler):
    with make_hub(scheduler, extra=QUICK) as running:
        yield running


@pytest.fixture(scope="module")
def slurm_hub(make_hub):
    """For what Torque does not know, or is not asked."""
    with make_hub("slurm", extra=QUICK, change=('title = "Test', 'reservation = "optional"\ntitle = "Test')) as running:
        yield running


@pytest.mark.parametrize(("options", "wanted"), SLURM_ONLY)
def test_the_option_reaches_slurm(slurm_hub, options, wanted):
    assert agrees(submitted(slurm_hub, options), wanted) == wanted


def test_a_reservation_reaches_slurm(slurm_hub):
    on_head(
        *("scontrol", "create", "reservation", "ReservationName=class", "StartTime=now", "Duration=60"),
        *("Users=alice", "Nodes=n2", "Flags=ignore_jobs,maint"),
    )
    try:
        assert submitted(slurm_hub, {"reservation": "class"})["Reservation"] == "class"
    finally:
        on_head("scontrol", "delete", "ReservationName=class")
