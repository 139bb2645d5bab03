"""One cluster as the Hub holds it: its profile, its commands and its queue."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.queue import Queue
from hpcspawner.schedulers.registry import make_scheduler
from hpcspawner.site.profile import SiteProfile


@dataclass(frozen=True, slots=True)
class Cluster:
    """What all spawners of one site share."""

    profile: SiteProfile
    client: Client
    queue: Queue

    @classmethod
    def of(cls, profile: SiteProfile, spool: Path, log: logging.Logger) -> Self:
        """Put the parts together; starts nothing. `spool` is the folder of the embedded scheduler."""
        client = Client(
            make_scheduler(profile.scheduler, spool, profile.job.leave_out), profile.scheduler, log, profile.directives
        )
        return cls(profile, client, Queue(client))
