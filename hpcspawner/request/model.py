"""What one researcher asked for, judged and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpcspawner.schedulers.base import Resources
from hpcspawner.site.environments import Environment, Image
from hpcspawner.site.interfaces import Interface
from hpcspawner.units import Walltime

Choice = str | int | bool | list[str]


@dataclass(frozen=True, slots=True)
class LocalAccount:
    """The account on the cluster that a job runs under; `group` is the name of its primary group, or the number."""

    name: str
    home: str
    group: str = ""


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request that the site offers.

    `directory` is where the server starts, `choices` are the options that make this same request again.

    `own_setup` holds the user's own lines of bash, empty for none.

    `queue_limit` is how long the job may wait, `idle_limit` how long the server may be idle (None: for ever),
    `renewals` how many times at most it may start again when its wall time ends.
    """

    resources: Resources
    directory: str
    environment: Environment
    image: Image | None
    interface: Interface
    own_setup: str
    details: bool
    queue_limit: Walltime
    idle_limit: Walltime | None
    renewals: int
    choices: Mapping[str, Choice] = field(default_factory=dict)
