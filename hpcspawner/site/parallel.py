"""What a site lets notebooks do in parallel."""

from typing import Annotated

from pydantic import Field

from hpcspawner.site.fields import Count, Frozen, HomePath, MemoryText, Name, PathText, SchedulerName, WalltimeText


class Parallel(Frozen):
    """Engines and jobs beside a server; off unless one of the two is switched on."""

    engines: Annotated[
        bool, Field(description="In a job of several nodes ipyparallel starts with the server (profile `job`).")
    ] = False
    jobs: Annotated[
        bool, Field(description="Notebooks start further jobs by ipyparallel (profile `hpc`) and dask-jobqueue.")
    ] = False
    mpi: Annotated[Name | None, Field(description="Slurm's kind of MPI for engines, such as `pmi2` or `pmix`.")] = None
    folder: Annotated[
        HomePath | None, Field(description="Where a server's own folder is made that all nodes see; none: job.log.")
    ] = None
    path: Annotated[
        tuple[PathText, ...], Field(description="Folders with the scheduler's commands on the nodes, for jobs.")
    ] = ()
    partition: Annotated[SchedulerName | None, Field(description="Of further jobs; none: the server's.")] = None
    walltime: Annotated[WalltimeText | None, Field(description="Of further jobs; none: the server's.")] = None
    cores: Annotated[Count | None, Field(description="Cores of a node for further jobs; none: the server's.")] = None
    memory: Annotated[
        MemoryText | None, Field(description="Memory of such a node; none: the server's, else 2G per core.")
    ] = None

    def __bool__(self) -> bool:
        return self.engines or self.jobs
