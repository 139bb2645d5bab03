"""What the launcher's companion on the node (`programs/parallel.py`) gets: settings, and how a node is set up."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

from hpcspawner.request.model import JobRequest
from hpcspawner.schedulers.backend import Size
from hpcspawner.schedulers.base import Resources, Scheduler
from hpcspawner.site.parallel import Parallel
from hpcspawner.site.profile import Job
from hpcspawner.units import Memory

PROGRAMS = ("parallel.py", "further.py")
"""What runs beside the server, and what it imports."""
_MIB_OF_CORE = 2048


def files(request: JobRequest, scheduler: Scheduler, job: Job, set_up: str) -> Mapping[str, str]:
    """Texts for the launcher's folder, by file name; `set_up` is what a shell reads to be set up as the server's is."""
    site = job.parallel
    size = _size(request.resources, site)
    backend = scheduler.backend(_like(request.resources, site), size)
    if not backend:
        return {}
    settings = {
        "engines": site.engines and request.resources.nodes > 1,
        "jobs": site.jobs,
        "mpi": site.mpi or "",
        "folder": site.folder or job.log,
        "path": site.path,
        "cores": size.cores,
        "memory_mib": size.memory.mib,
        "backend": asdict(backend),
    }
    return {"parallel.json": json.dumps(settings, sort_keys=True), "environment.sh": set_up}


def _like(resources: Resources, site: Parallel) -> Resources:
    """As the server's, on one node and without what is the server's alone."""
    return replace(
        resources,
        partition=site.partition or resources.partition,
        names_partition=resources.names_partition or bool(site.partition),
        walltime=site.walltime or resources.walltime,
        nodes=1,
        gpus=0,
        warning_s=0,
        requeue=False,
    )


def _size(resources: Resources, site: Parallel) -> Size:
    cores = site.cores or resources.cpus or 1
    return Size(cores, site.memory or resources.memory or Memory(cores * _MIB_OF_CORE))
