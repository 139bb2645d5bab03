"""Which class drives which batch system."""

from collections.abc import Callable
from pathlib import Path

from hpcspawner.schedulers.base import Scheduler
from hpcspawner.schedulers.local import Local
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.torque import Torque
from hpcspawner.site.profile import Access

_MAKERS: dict[str, Callable[[Access, Path], Scheduler]] = {
    "slurm": lambda access, spool: Slurm(),
    "torque": lambda access, spool: Torque(),
    "local": lambda access, spool: Local(spool, access.slots),
}


def make_scheduler(access: Access, spool: Path) -> Scheduler:
    """The scheduler that a profile names; `spool` is the folder in which the embedded one keeps its jobs."""
    return _MAKERS[access.type](access, spool)
