"""Engines on all nodes of a job, jobs that a notebook starts, and what they inherit: on the real schedulers."""

import pytest
from cluster.conftest import on_head, queue_is_empty_within
from support.faults import within
from support.hub import Kernel

SITE = """\
[job.parallel]
engines = true
jobs = true
mpi = "pmi2"
path = {path}

[[environments]]
name = "parallel"
path = ["{lab}/env-parallel/bin"]

[defaults]"""


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    with make_hub("slurm", change=("[defaults]", SITE.format(lab=lab, path=[]))) as hub:
        yield hub


ASKED = {"partition": "debug", "environment": "parallel", "cpus": 2, "memory": "1G"}

ENGINES = """\
import os, ipyparallel as ipp
cluster = ipp.Cluster(profile="hpc", n=2)
client = cluster.start_and_connect_sync(activate=False)
def seen():
    import os, socket
    return socket.gethostname(), os.environ["SLURM_JOB_ID"], sorted(n for n in os.environ if "HUB" in n or "TOKEN" in n)
hosts = client[:].apply_sync(seen)
print(len(client), {host for host, _, _ in hosts}, {job for _, job, _ in hosts} - {os.environ["SLURM_JOB_ID"]} != set(), [n for _, _, n in hosts])
"""


async def test_jobs_start_from_a_cell_and_end_with_the_server(hub):
    hub.spawn("alice", ASKED)
    kernel = Kernel(hub, "alice")
    print(
        await kernel.run("import os; print(os.environ['HPC_PARALLEL'], os.environ['PATH'], os.environ['IPYTHONDIR'])")
    )
    print(await kernel.run(ENGINES))
    print(on_head("squeue"))
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
