"""From a request to a kernel on a compute node, through the HTTPS proxy, and nothing left behind."""

import re

import pytest
from cluster.conftest import drained, on_head, queue_is_empty_within, shown
from support.hub import server_path

pytestmark = pytest.mark.both_hubs

WHERE = "import socket, os; print(socket.gethostname(), os.getcwd())"


async def test_a_kernel_answers_from_a_compute_node(hub, scheduler):
    options = {"partition": "compute", "cpus": 1, "memory": "1G", "walltime": "30m", "account": "ddp363"}
    hub.spawn("alice", options)
    (job_id,) = on_head("squeue", "--noheader", "--user=alice", "--format=%i").split()
    record = shown(job_id)
    host, directory = (await hub.run("alice", WHERE)).split()
    assert re.fullmatch("n[12]", host)
    assert record["BatchHost"] == host
    assert directory == "/home/alice"
    assert record["TimeLimit"] == "00:30:00"
    assert record["Partition"] == "compute"
    assert record["Account"] == "ddp363"
    assert record["WorkDir"] == "/home/alice"
    assert record["NumCPUs"] == "1"
    assert "mem=1G" in record["TRES"]
    assert record["UserId"].startswith("alice(")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_gpus_are_visible_to_the_kernel(hub, scheduler):
    hub.spawn("alice", {"partition": "gpu-shared", "gpus": 2})
    visible = await hub.run("alice", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
    assert len(visible.split(",")) == 2
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_two_users_share_a_node(hub):
    for user in ("alice", "bob"):
        account = "ddp363" if user == "alice" else "tro100"
        hub.spawn(user, {"partition": "debug", "account": account})
    hosts = [(await hub.run(user, WHERE)).split() for user in ("alice", "bob")]
    assert hosts == [["n1", "/home/alice"], ["n1", "/home/bob"]]
    for user in ("alice", "bob"):
        hub.stop_server(user)
    queue_is_empty_within(40, "alice", "bob")


async def test_a_named_server_runs_beside_the_default_one(hub):
    hub.spawn("alice", {"partition": "debug"})
    hub.spawn("alice", {"partition": "compute"}, name="second")
    assert (await hub.run("alice", WHERE, name="second")).startswith("n")
    assert len(on_head("squeue", "--noheader", "--user=alice", "--format=%i").split()) == 2
    hub.stop_server("alice", "second")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


def test_a_waiting_server_says_why_and_can_be_cancelled(hub, scheduler):
    with drained("n1"):
        assert hub.api("POST", server_path("alice"), json={"partition": "debug", "details": True}).status_code == 202
        for event in hub.events("alice"):
            job = event.get("job", {})
            # Slurm may first say that it has not looked yet; Slurm's own qstat never tells why a job waits. Only the
            # newest event keeps the record.
            told = "down, drained or reserved" in job.get("reason", "") or scheduler == "torque"
            if told and "details" in job:
                break
        assert job["state"] == "pending"
        assert job["id"] in job["details"]
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
