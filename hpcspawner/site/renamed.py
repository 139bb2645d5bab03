"""Names that have changed: the old ones still work, with a warning, until the second minor release after that."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Renamed:
    """The new name, and the release that has it first."""

    new: str
    since: str


SETTINGS: Mapping[str, Renamed] = {
    "site": Renamed("sites", "0.1.0"),
}
"""Settings of HPCSpawner by their old names. What is a list now takes what was one value."""

KEYS: Mapping[str, Renamed] = {}
"""Keys of a profile by their old paths, such as `limits.queue_time`; the new one is a path too."""


def told(old: str, to: Renamed) -> str:
    """What to say of an old name that is used."""
    return f"{old} is called {to.new} since hpcspawner {to.since}; write the new name, for the old one will go"


def with_new_keys(data: dict[str, Any], keys: Mapping[str, Renamed] | None = None) -> dict[str, Any]:
    """A profile's data with each old key under its new name, and a FutureWarning for each.

    Where both are there the old one stays, and is refused as a key that there is not.
    """
    for old, to in (KEYS if keys is None else keys).items():
        table, name = _table(data, old)
        other, new = _table(data, to.new, make=table is not None and name in table)
        if table is None or other is None or name not in table or new in other:
            continue
        other[new] = table.pop(name)
        warnings.warn(told(old, to), FutureWarning, stacklevel=3)
    return data


def _table(data: dict[str, Any], path: str, *, make: bool = False) -> tuple[dict[str, Any] | None, str]:
    """The table that holds a key of this path, None where there is none; and the key's name in it."""
    *tables, name = path.split(".")
    inside: Any = data
    for one in tables:
        inside = inside.setdefault(one, {}) if make else inside.get(one)
        if not isinstance(inside, dict):
            return None, name
    return inside, name
