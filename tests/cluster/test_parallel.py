"""Engines on all nodes of a job, jobs that a notebook starts, and what they inherit: on the real schedulers."""

import json
from pathlib import Path

import pytest
from cluster.conftest import jobs_of, made, queue_is_empty_within
from support.faults import within
from support.hub import Kernel
from support.schedulers import IN_LAB, PATHS

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

BACKEND = """\
import os, ipyparallel as ipp
cluster = ipp.Cluster(profile="hpc", n=2, log_level=40)
engines = cluster.start_and_connect_sync(activate=False)
def seen():
    import os, sys
    job = os.environ.get("SLURM_JOB_ID") or os.environ["PBS_JOBID"]
    return job, sys.prefix, sorted(name for name in os.environ if name.startswith(("JUPYTERHUB", "JPY", "HPC")))
import json
print("seen", json.dumps(engines[:].apply_sync(seen)))
"""

DASK = """\
from dask_jobqueue import PBSCluster, SLURMCluster
from distributed import Client
workers = {cluster}()
workers.scale(jobs=1)
dask = Client(workers)
dask.wait_for_workers(1, timeout=120)
def where():
    import os
    return os.environ.get("SLURM_JOB_ID") or os.environ["PBS_JOBID"]
print(workers.scheduler_address.partition(":")[0], dask.submit(where).result(timeout=60))
"""

# A terminal's shell is one of a login.
STEPS = """\
import subprocess
def says(line):
    done = subprocess.run(["bash", "-lc", line], capture_output=True, text=True, timeout=60)
    return (done.stdout + done.stderr).split()
token = "env | grep -c -e JUPYTERHUB_API_TOKEN -e JPY_API_TOKEN"
print(sorted(says("srun --overlap -n2 -N2 hostname")), says("srun --overlap -N1 -n1 " + token), says(token))
print(says("sbatch --parsable --wait -p debug -t1 --mem=16 -o ~/token-count --wrap '" + token + "'; cat ~/token-count"))
"""

MARK = """\
import os, sys
print(os.environ["HPC_PARALLEL"], os.path.isdir(os.path.expanduser("~/.ipython/profile_hpc")))
open(os.environ["IPYTHONDIR"] + "/made-by-user", "w").close()
"""


@pytest.fixture(scope="module", params=IN_LAB)
def scheduler(request):
    return request.param


@pytest.fixture(scope="module")
def running_hub(make_hub, lab, scheduler):
    site = SITE.format(lab=lab, path=PATHS[scheduler][:1])
    with make_hub(scheduler, change=("[defaults]", site)) as hub:
        yield hub


async def test_a_notebook_computes_on_its_nodes_and_in_jobs_that_end_with_it(hub, lab, scheduler):
    hub.spawn("alice", ASKED)
    kernel = Kernel(hub, "alice")
    assert await kernel.run(ALLREDUCE) == str([(10, 4, "n1"), (10, 4, "n1"), (10, 4, "n2"), (10, 4, "n2")])
    if scheduler == "slurm":
        steps = (await kernel.run(STEPS)).splitlines()
        assert steps[0] == "['n1', 'n2'] ['0'] ['0']"
        assert steps[1].endswith("'0']")
    await starts_jobs(kernel, lab, "SLURMCluster" if scheduler == "slurm" else "PBSCluster")
    folder, in_home = (await kernel.run(MARK)).split()
    assert (in_home, Path(folder).stat().st_mode & 0o777) == ("False", 0o700)
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
    kept = Path("/home/alice/.ipython/made-by-user")
    # OpenPBS kills what is left of a job two seconds after it has asked it to end; a later start removes the folder.
    if scheduler != "openpbs":
        within(30, lambda: not Path(folder).exists(), f"{folder} is left")
        assert kept.exists(), "what the user has made in IPYTHONDIR is gone"
    kept.unlink(missing_ok=True)


async def starts_jobs(kernel, lab, cluster):
    """Engines and a worker in jobs of their own, which have nothing of the Hub's."""
    printed = await kernel.run(BACKEND)
    engines = json.loads(printed.rpartition("seen ")[2])
    protocol, worker = (await kernel.run(DASK.format(cluster=cluster))).split()
    assert protocol == "tls"
    assert [engine[1:] for engine in engines] == [[made(lab, "env-parallel"), []]] * 2
    jobs = {engine[0] for engine in engines} | {worker}
    assert len(jobs) == 2
    assert jobs < set(jobs_of("alice")), "they are not in the scheduler's list, beside the server's own"
