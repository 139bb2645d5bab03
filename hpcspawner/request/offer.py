"""What a site offers, as values: the limits that the gate judges by, the form draws and the browser gets."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from hpcspawner.language import Text, _
from hpcspawner.request.own import NOT_KNOWN, Own
from hpcspawner.site.profile import ANY_GPU, Partition, SiteProfile
from hpcspawner.units import Memory, Walltime


@dataclass(frozen=True, slots=True)
class Counts:
    """A whole number from `low` to `high`; `default` lies within them."""

    low: int
    high: int
    default: int

    @property
    def refusal(self) -> Text:
        """What to say of a number beyond them, once `option` and `asked` are filled in."""
        if self.low < self.high:
            message = _("{option}: you asked for {asked}; allowed here: {low} to {high}.")
            return message.fill(low=self.low, high=self.high)
        return _("{option}: you asked for {asked}; allowed here: only {count}.").fill(count=self.low)


@dataclass(frozen=True, slots=True)
class UpTo:
    """A time or an amount of memory up to `high` (None: no limit); without a choice it is `default`.

    With `endless` a user may also write "never".
    """

    high: Any
    default: Any
    endless: bool = False


@dataclass(frozen=True, slots=True)
class Names:
    """One of `names`, or several of them for a list. With `typed` and no names, any name that the scheduler takes."""

    names: tuple[str, ...] = ()
    default: str | None = None
    required: bool = False
    typed: bool = False


Limit = Counts | UpTo | Names


def _counts(low: int, high: int, default: int) -> Counts:
    return Counts(low, high, max(low, min(default, high)))


def _up_to(high: Any, default: Any, *, endless: bool = False) -> UpTo:
    return UpTo(high, default if default is None or high is None else min(default, high), endless)


@dataclass(frozen=True, slots=True)
class Place:
    """What may be chosen in one partition: a limit for each option that it has, by name.

    An option without a limit can't be chosen here. Of a partition that gives whole nodes, cpus and memory are those of
    a node; what fits is taken without a word.
    """

    partition: Partition
    limits: Mapping[str, Limit]

    def counts(self, name: str) -> Counts:
        """The limit of an option that is a whole number."""
        return _of_kind(self.limits[name], Counts)

    def up_to(self, name: str) -> UpTo:
        """The limit of a time or an amount."""
        return _of_kind(self.limits[name], UpTo)

    def names(self, name: str) -> Names:
        """The names that may be chosen."""
        return _of_kind(self.limits.get(name, Names()), Names)

    def gpus_of(self, kind: str | None) -> Counts:
        """How many GPUs of this type; of any type for None."""
        limit, partition = self.counts("gpus"), self.partition
        most = partition.gpus.get(kind, limit.high) if kind else limit.high
        return _counts(limit.low, most, limit.default)


_Kind = TypeVar("_Kind", Counts, UpTo, Names)


def _of_kind(limit: Limit, kind: type[_Kind]) -> _Kind:
    if not isinstance(limit, kind):
        raise TypeError(f"{limit} is no {kind.__name__}")
    return limit


# One for each cluster of a Hub; a program that makes profile after profile keeps no more than this.
_MOST_KEPT = 64
_kept: dict[int, "Offer"] = {}


@dataclass(frozen=True)
class Offer:
    """What one cluster offers: `limits` are those of the whole site, `places` what each partition allows, in order.

    `own` is what the scheduler lets one user choose of it.
    """

    profile: SiteProfile
    limits: Mapping[str, Limit] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    own: Own = NOT_KNOWN

    def counts(self, name: str) -> Counts:
        """A limit of the site that is a whole number."""
        return _of_kind(self.limits[name], Counts)

    def up_to(self, name: str) -> UpTo:
        """A limit of the site that is a time."""
        return _of_kind(self.limits[name], UpTo)

    def place(self, partition: Partition) -> Place:
        """What this partition allows."""
        return next(one for one in self.places if one.partition is partition)

    def accounts(self, place: Place) -> Names:
        """The accounts that the user may choose in a place that has the option."""
        limit, member = place.names("account"), self.own.member
        if member is None:
            return limit
        listed = limit.names or tuple(sorted(member.accounts))
        names = tuple(one for one in listed if not self.own.no_account(one, place.partition))
        default = limit.default
        if default is not None and self.own.no_account(default, place.partition):
            default = names[0] if names else None
        return replace(limit, names=names, default=default, typed=False)

    @cached_property
    def as_json(self) -> str:
        """The same for a browser, as `as_data` has it."""
        return json.dumps(as_data(self), separators=(",", ":"))

    def most(self, name: str) -> Any:
        """The most of an option in any partition; None where one has no limit, or where none has the option."""
        limits = [one.limits[name] for one in self.places if name in one.limits]
        highest = [one.high for one in limits if isinstance(one, Counts | UpTo)]
        return None if not highest or None in highest else max(highest)

    def names(self, name: str) -> tuple[str, ...]:
        """Every name that some partition offers for an option, each once."""
        return tuple(dict.fromkeys(one for place in self.places for one in place.names(name).names))


def offer(profile: SiteProfile, own: Own = NOT_KNOWN) -> Offer:
    """What this site offers: made once, for every form and every request asks for it."""
    known = _kept.get(id(profile))
    if known is None or known.profile is not profile:
        if len(_kept) >= _MOST_KEPT:
            _kept.clear()
        known = _kept[id(profile)] = _offer(profile)
    return known if own is NOT_KNOWN else replace(known, own=own)


def _offer(profile: SiteProfile) -> Offer:
    limits, chosen = profile.limits, profile.defaults
    return Offer(
        profile,
        {
            "queue_limit": _up_to(limits.queue, profile.default_queue_limit),
            "idle_limit": _up_to(limits.idle, profile.default_idle_limit, endless=limits.idle is None),
            "renewals": _counts(0, limits.renewals, chosen.renewals),
            **({"reservation": Names(typed=True)} if profile.reservation != "hidden" else {}),
        },
        tuple(place(profile, partition) for partition in profile.partitions),
    )


def place(profile: SiteProfile, partition: Partition) -> Place:
    """What a partition of this site allows."""
    chosen = profile.defaults
    limits: dict[str, Limit] = {
        "walltime": _up_to(partition.max_walltime, chosen.walltime),
        "nodes": _counts(1, partition.max_nodes, chosen.nodes),
        "cpus": _counts(1, partition.max_cpus, chosen.cpus),
        "memory": _up_to(partition.max_memory, chosen.memory),
        "qos": Names(partition.qos),
        "features": Names(partition.features),
    }
    if partition.gpus:
        limits["gpus"] = _counts(partition.min_gpus, partition.max_gpus, chosen.gpus)
        limits["gpu_type"] = Names(tuple(partition.gpus))
    if profile.account != "hidden":
        limits["account"] = _accounts(profile, partition)
    return Place(partition, limits)


def _accounts(profile: SiteProfile, partition: Partition) -> Names:
    offered = partition.accounts or profile.accounts
    default = profile.defaults.account
    if offered and default not in offered:
        # Where only some accounts may be charged, the user's own default might be another one.
        default = offered[0] if partition.accounts else None
    return Names(offered, default, required=profile.account == "required" and default is None, typed=not offered)


def as_data(offered: Offer) -> dict[str, Any]:
    """The same for a browser: texts, numbers and lists. The rules are the gate's; a page only shows them early."""
    return {
        "partitions": {one.partition.name: _data_of(one) for one in offered.places},
        "default": offered.profile.default_partition.name,
    }


def _data_of(one: Place) -> dict[str, Any]:
    partition = one.partition
    data: dict[str, Any] = {"label": partition.label, "whole": partition.whole_nodes}
    for name, limit in one.limits.items():
        if isinstance(limit, Counts):
            data[name] = [limit.low, limit.high, limit.default]
        elif isinstance(limit, UpTo):
            data[name] = [_size(limit.high), str(limit.high or ""), str(limit.default or "")]
        else:
            data[name] = {"names": _typed(name, limit.names), "default": limit.default, "typed": limit.typed}
    if partition.gpus:
        data["gpus_of"] = dict(partition.gpus)
    return data


def _typed(name: str, names: Sequence[str]) -> list[str]:
    """The names in a list; GPUs of any type are what an empty choice means."""
    return [one for one in names if not (name == "gpu_type" and one == ANY_GPU)]


def _size(limit: Walltime | Memory | None) -> int | None:
    """Seconds, or MiB."""
    if limit is None:
        return None
    return limit.seconds if isinstance(limit, Walltime) else limit.mib
