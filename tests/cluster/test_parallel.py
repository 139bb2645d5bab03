"""Engines on all nodes of a job, jobs that a notebook starts, and what they inherit: on the real schedulers."""

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within
from support.hub import Kernel
from support.schedulers import HAS_TORQUE, PATHS

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


KINDS = ["slurm", "torque"] if HAS_TORQUE else ["slurm"]


@pytest.fixture(scope="module", params=KINDS)
def scheduler(request):
    return request.param


@pytest.fixture(scope="module")
def running_hub(make_hub, lab, scheduler):
    site = SITE.format(lab=lab, path=PATHS[scheduler][:1])
    if scheduler != "slurm":
        site = site.replace("jobs = true", "jobs = false")
    with make_hub(scheduler, change=("[defaults]", site)) as hub:
        yield hub


ASKED = {"partition": "compute", "nodes": 2, "environment": "parallel", "cpus": 2, "memory": "1G"}

ALLREDUCE = """\
import ipyparallel as ipp
client = ipp.Client(profile="job")
client.wait_for_engines(4, interactive=False, timeout=120)
def reduced():
    from mpi4py import MPI
    import socket
    world = MPI.COMM_WORLD
    return world.allreduce(world.rank + 1), world.size, socket.gethostname()
answers = client[:].apply_sync(reduced)
print(sorted(answers))
"""
REDUCED = "[(10, 4, 'n1'), (10, 4, 'n1'), (10, 4, 'n2'), (10, 4, 'n2')]"

BACKEND = """\
import os, ipyparallel as ipp
cluster = ipp.Cluster(profile="hpc", n=2)
engines = cluster.start_and_connect_sync(activate=False)
def seen():
    import os
    return os.environ["SLURM_JOB_ID"], sorted(name for name in os.environ if "JUPYTERHUB" in name or "TOKEN" in name)
print(*engines[:].apply_sync(seen), "its own", os.environ["SLURM_JOB_ID"])
"""

DASK = """\
from dask_jobqueue import SLURMCluster
from distributed import Client
workers = SLURMCluster()
workers.scale(jobs=1)
dask = Client(workers)
dask.wait_for_workers(1, timeout=120)
def where():
    import os
    return os.environ["SLURM_JOB_ID"]
print(workers.scheduler_address.split(":")[0], dask.submit(where).result(timeout=60))
"""

STEPS = """\
import os, subprocess
def says(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).split()
print(sorted(says("srun", "--overlap", "-n2", "-N2", "hostname")))
print(says("bash", "-lc", "srun --overlap -n1 env | grep -c JUPYTERHUB_API_TOKEN"))
"""


async def test_engines_on_all_nodes_are_one_mpi_world(hub):
    hub.spawn("alice", ASKED)
    assert await hub.run("alice", ALLREDUCE) == REDUCED
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_a_notebook_computes_on_all_its_nodes_and_in_jobs_that_end_with_it(hub):
    hub.spawn("alice", ASKED)
    kernel = Kernel(hub, "alice")
    print(await kernel.run(ALLREDUCE))
    print(await kernel.run(STEPS))
    print(await kernel.run(BACKEND))
    print(await kernel.run(DASK))
    print(on_head("squeue"))
    assert len(jobs_of("alice")) == 3
    name = await kernel.run("import os; print(os.environ['HPC_PARALLEL'])")
    import shutil
    import glob

    print(open(name + "/ipython/profile_hpc/engines.sh").read())
    print(open(name + "/dask/00-hpcspawner.yaml").read())
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
