"""Which schedulers there are, and what a profile may say of each.

This is the one table of schedulers: profiles, the Hub, tests, fuzzers and docs read it. Other packages add to it by the
entry point group `hpcspawner.schedulers`. Classes are loaded by name, when a profile asks for one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

GROUP = "hpcspawner.schedulers"
BUILT_IN: Mapping[str, str] = {
    "slurm": "hpcspawner.schedulers.slurm:Slurm",
    "openpbs": "hpcspawner.schedulers.openpbs:OpenPBS",
    "torque": "hpcspawner.schedulers.torque:Torque",
    "local": "hpcspawner.schedulers.local:Local",
}
"""The value of `scheduler.type` in a profile, and the class that drives that scheduler."""

BY_API: Mapping[str, str] = {"slurm": "hpcspawner.schedulers.slurm_api:SlurmApi"}
"""The class where a profile names a REST service in `scheduler.api`."""


@dataclass(frozen=True, slots=True)
class ProfileRules:
    """What a profile may say of one scheduler.

    `signs` has, for each kind of name, the signs that it may have besides letters and digits (else those of
    `names.DEFAULT_SIGNS`); `refused` has options that a site can't add to jobs, with what to write instead;
    `may_leave_out` are the Hub's own options that a job can do without; `tags` are the options that may have the Hub's
    mark, the default first; `missing` has kinds of names that this scheduler does not have, with what to do instead.
    With `on_hub` the jobs run on the Hub's machine, as the Hub's own account.
    """

    signs: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    may_leave_out: tuple[str, ...] = ()
    tags: tuple[str, ...] = ("comment",)
    on_hub: bool = False
    missing: Mapping[str, str] = field(default_factory=dict)

    def why_refused(self, option: str, value: str, tag: str) -> str:
        """What to do in place of a directive that would change what the Hub needs of a job; "" for all others.

        `tag` is the option that has the Hub's mark.
        """
        return self.refused.get(option, "")


def known() -> tuple[str, ...]:
    """Every name that `scheduler.type` may have here."""
    return (*BUILT_IN, *sorted(name for name in _entries() if name not in BUILT_IN))


def find(name: str, by_api: bool = False) -> Any:
    """The class that drives the scheduler of this name, `by_api` its REST service where it has one that we know.

    ValueError with what there is, or why it can't be loaded.
    """
    entry = EntryPoint(name, BY_API[name], GROUP) if by_api and name in BY_API else _entries().get(name)
    if entry is None:
        raise ValueError(f"{name[:60]!r} is not an installed scheduler; the installed ones are: {', '.join(known())}")
    try:
        return entry.load()
    except Exception as error:
        raise ValueError(f"the package of {name!r} can't be loaded ({entry.value}): {error!r}") from error


def rules(name: str, by_api: bool = False) -> ProfileRules:
    """What a profile may say of this scheduler."""
    found: ProfileRules = find(name, by_api).rules
    return found


@cache
def _entries() -> dict[str, EntryPoint]:
    """Ours come last: no other package takes their place."""
    ours = (EntryPoint(name, value, GROUP) for name, value in BUILT_IN.items())
    return {entry.name: entry for entry in (*entry_points(group=GROUP), *ours)}
