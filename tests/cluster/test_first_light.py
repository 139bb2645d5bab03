"""From a request to a kernel on a compute node, through the HTTPS proxy, and nothing left behind."""

import pytest
from cluster.conftest import drained, jobs_of, queue_is_empty_within, shown
from support.hub import server_path

pytestmark = pytest.mark.both_hubs

# The scheduler's record of the job; of its value, a part.
RECORDS = {
    "slurm": {
        "BatchHost": "{host}",
        "TimeLimit": "00:30:00",
        "Partition": "compute",
        "Account": "ddp363",
        "WorkDir": "/",
        "NumCPUs": "1",
        "TRES": "mem=1G",
        "UserId": "alice(",
    },
    "torque": {
        "exec_host": "{host}/",
        "Resource_List.walltime": "00:30:00",
        "queue": "compute",
        "Account_Name": "ddp363",
        "Resource_List.nodes": "1:ppn=1",
        "Resource_List.mem": "1024mb",
        "Job_Owner": "alice@head",
    },
}


def _agrees(record, wanted, host):
    assert host in ("n1", "n2", "n3")
    assert [name for name, part in wanted.items() if part.format(host=host) not in record[name]] == []


WHERE = "import socket, os; print(socket.gethostname(), os.getcwd())"


OURS = """
import os, rfc3987_syntax
print(os.environ.get("PYTHONPATH"), "site-packages" in rfc3987_syntax.__file__)
"""


async def test_a_kernel_answers_from_a_compute_node(hub, scheduler):
    options = {"partition": "compute", "cpus": 1, "memory": "1G", "walltime": "30m", "account": "ddp363"}
    hub.spawn("alice", options)
    (job_id,) = jobs_of("alice")
    record = shown(job_id)
    host, directory = (await hub.run("alice", WHERE)).split()
    assert directory == "/home/alice"
    assert await hub.run("alice", OURS) == "None True", "a kernel finds no folder and no module of ours"
    _agrees(record, RECORDS[scheduler], host)
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_gpus_are_visible_to_the_kernel(hub, scheduler):
    hub.spawn("alice", {"partition": "gpu-shared", "gpus": 2})
    visible = await hub.run("alice", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    assert len(visible.split(",")) == 2
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_two_users_have_servers_at_the_same_time(hub, scheduler):
    for user in ("alice", "bob"):
        account = "ddp363" if user == "alice" else "tro100"
        hub.spawn(user, {"partition": "debug", "account": account})
    hosts = [(await hub.run(user, WHERE)).split() for user in ("alice", "bob")]
    assert [folder for _, folder in hosts] == ["/home/alice", "/home/bob"]
    # Slurm's partition has one node, which they share.
    assert scheduler == "torque" or [host for host, _ in hosts] == ["n1", "n1"]
    for user in ("alice", "bob"):
        hub.stop_server(user)
    queue_is_empty_within(40, "alice", "bob")


async def test_a_named_server_runs_beside_the_default_one(hub):
    hub.spawn("alice", {"partition": "debug"})
    hub.spawn("alice", {"partition": "compute"}, name="second")
    assert (await hub.run("alice", WHERE, name="second")).startswith("n")
    assert len(jobs_of("alice")) == 2
    hub.stop_server("alice", "second")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


WAITS = {"slurm": "down, drained or reserved", "torque": "busy or down"}


def test_a_waiting_server_says_why_and_can_be_cancelled(hub, scheduler):
    with drained("n1"):
        assert hub.api("POST", server_path("alice"), json={"partition": "debug", "details": True}).status_code == 202
        for event in hub.events("alice"):
            job = event.get("job", {})
            # The scheduler may first say that it has not looked yet. Only the newest event keeps the record.
            told = WAITS[scheduler] in job.get("reason", "")
            if told and "details" in job:
                break
        assert job["state"] == "pending"
        assert job["id"] in job["details"]
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
