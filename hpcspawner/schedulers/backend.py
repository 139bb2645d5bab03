"""How programs on a node start further jobs, and processes on all nodes of their own: words, not processes.

The words go to the node as data; `programs/parallel.py` fills in `{name}`, `{user}`, `{n}`, `{host}` and `{log}`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hpcspawner.units import Memory

Pairs = Sequence[tuple[str, str]]

_SLURM_OF_SERVER = frozenset(
    {
        *("job-name", "comment", "nodes", "exclusive", "ntasks-per-node", "cpus-per-task", "mem", "gres"),
        *("requeue", "no-requeue", "signal", "dependency", "kill-on-invalid-dep", "output", "error"),
    }
)
_PBS_OF_SERVER = ("N", "r", "W", "o", "e", "j")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """What one scheduler needs for jobs that a notebook starts, and for engines in the notebook's own job.

    kind: ipyparallel's and dask-jobqueue's word for the scheduler, "slurm" or "pbs".
    queue, account, walltime: what those libraries have a keyword for; "" for none.
    prefix: what stands before an option in a job's script.
    chosen: the same three as options.
    options: further options of every job.
    name, log: options with `{name}` and `{log}`, a folder.
    tasks: options that ask for `{n}` tasks of one core, in the words of a Python format string.
    worker: the option that asks for one worker with all its cores and memory, where dask-jobqueue can't make it itself.
    start: words before a program that start it once for each of the `{n}` tasks.
    spread: words that start a program `{n}` times in the notebook's own job; `mpi` goes among them.
    mpi: the word that names the kind of MPI, with `{mpi}`.
    remote: words that run a command on another node of the notebook's own job, for mpiexec; empty: `spread` does MPI.
    cancel: the argv that ends all jobs called `{name}`.
    select: the argv that lists their ids, which `cancel` then takes; empty: it takes none.
    commands: names of commands that start something.
    """

    kind: str
    queue: str
    account: str
    walltime: str
    prefix: str
    chosen: tuple[str, ...]
    options: tuple[str, ...]
    name: str
    log: tuple[str, ...]
    tasks: tuple[str, ...]
    worker: str
    start: tuple[str, ...]
    spread: tuple[str, ...]
    mpi: str
    remote: tuple[str, ...]
    cancel: tuple[str, ...]
    select: tuple[str, ...]
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Size:
    """What one node of a further job may have."""

    cores: int
    memory: Memory

    @property
    def of_core(self) -> int:
        """MiB of memory for each core."""
        return max(self.memory.mib // self.cores, 1)


def of_slurm(pairs: Pairs, size: Size) -> Backend:
    """By sbatch and srun; `pairs` are the options of the notebook's own job."""
    named = _named(pairs, "partition", "account", "time")
    return Backend(
        kind="slurm",
        queue=named["partition"],
        account=named["account"],
        walltime=named["time"],
        prefix="#SBATCH --",
        chosen=tuple(f"{option}={value}" for option, value in named.items() if value),
        options=tuple(
            f"{option}={value}" if value else option
            for option, value in pairs
            if option not in _SLURM_OF_SERVER and option not in named
        ),
        name="job-name={name}",
        log=("output={log}/%j.log",),
        tasks=("ntasks={n}", "cpus-per-task=1", f"mem-per-cpu={size.of_core}M"),
        worker="",
        start=("srun", "--ntasks={n}", "--cpus-per-task=1"),
        # With --overlap, so that the user's own steps have room beside them.
        spread=("srun", "--overlap", "--quiet", "--kill-on-bad-exit=0", "--ntasks={n}", "--cpus-per-task=1"),
        mpi="--mpi={mpi}",
        remote=(),
        cancel=("scancel", "--quiet", "--user={user}", "--name={name}"),
        select=(),
        commands=("sbatch", "salloc", "srun"),
    )


def of_pbs(pairs: Pairs, tasks: str, worker: str, remote: tuple[str, ...]) -> Backend:
    """By qsub and pbsdsh; `tasks` and `worker` are values of `-l`."""
    named = _named(pairs, "q", "A")
    walltime = next((value for option, value in pairs if option == "l" and value.startswith("walltime=")), "")
    chosen = [f"{option} {value}" for option, value in (*named.items(), ("l", walltime)) if value]
    return Backend(
        kind="pbs",
        queue=named["q"],
        account=named["A"],
        walltime=walltime.partition("=")[2],
        prefix="#PBS -",
        chosen=tuple(chosen),
        options=tuple(_pbs_options(pairs)),
        name="N {name}",
        log=("j oe", "o {log}/"),
        tasks=(f"l {tasks}",),
        worker=worker,
        start=("pbsdsh", "--"),
        spread=("pbsdsh", "--"),
        mpi="",
        remote=remote,
        cancel=("qdel",),
        select=("qselect", "-u", "{user}", "-N", "{name}"),
        commands=("qsub", "pbsdsh"),
    )


def _pbs_options(pairs: Pairs) -> Iterable[str]:
    """The site's own, and resources that are about no size."""
    for option, value in pairs:
        if option == "l" and value.startswith(("qos=", "advres=")):
            yield f"l {value}"
        elif option not in (*_PBS_OF_SERVER, "l", "q", "A"):
            yield f"{option} {value}".rstrip()


def _named(pairs: Pairs, *options: str) -> dict[str, str]:
    """The last value of each option, "" where there is none."""
    return {name: next((value for option, value in reversed(pairs) if option == name), "") for name in options}
