"""Which class drives which batch system."""

from collections.abc import Callable, Collection
from pathlib import Path

from hpcspawner.schedulers.base import Scheduler
from hpcspawner.schedulers.local import Local
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.torque import Torque
from hpcspawner.site.profile import Access

_MAKERS: dict[str, Callable[[Access, Path, Collection[str]], Scheduler]] = {
    "slurm": lambda access, spool, leave_out: Slurm(leave_out, access.tag),
    "torque": lambda access, spool, leave_out: Torque(leave_out),
    "local": lambda access, spool, leave_out: Local(spool, access.slots),
}


def make_scheduler(access: Access, spool: Path, leave_out: Collection[str] = ()) -> Scheduler:
    """The scheduler that a profile names.

    `spool` is the folder in which the embedded one keeps its jobs, `leave_out` are options that jobs do not get.
    """
    return _MAKERS[access.type](access, spool, leave_out)
