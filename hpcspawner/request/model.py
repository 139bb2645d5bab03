"""What one researcher asked for, judged and frozen."""

from collections.abc import Mapping
from dataclasses import dataclass

from hpcspawner.schedulers.base import Resources
from hpcspawner.site.profile import Environment, Image, Interface

Choice = str | int | bool | list[str]


@dataclass(frozen=True, slots=True)
class LocalAccount:
    """The account on the cluster that a job runs under."""

    name: str
    home: str


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A request that the site offers. `choices` are the options that make this same request again."""

    resources: Resources
    environment: Environment
    image: Image | None
    interface: Interface
    details: bool
    choices: Mapping[str, Choice]
