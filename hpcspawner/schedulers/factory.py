"""From a profile to the scheduler that it names; `site/scheduler_types.py` has the table."""

from collections.abc import Collection
from pathlib import Path

from hpcspawner.schedulers.base import Scheduler
from hpcspawner.site import scheduler_types
from hpcspawner.site.profile import Access


def make_scheduler(access: Access, spool: Path, leave_out: Collection[str] = ()) -> Scheduler:
    """The scheduler that a profile names.

    `spool` is the folder in which the embedded one keeps its jobs, `leave_out` are options that jobs do not get.
    """
    made: Scheduler = scheduler_types.find(access.type, bool(access.api)).from_profile(access, spool, leave_out)
    return made
