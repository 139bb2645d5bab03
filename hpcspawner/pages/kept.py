"""Texts that many pages have in common: made and told once for each object that they are of, and language."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from hpcspawner.language import all_told, spoken

_MOST = 40

Of = TypeVar("Of")


class KeptTexts(Generic[Of]):
    """Calls a function for an object that does not change, and keeps what it has made, told in the reader's language.

    `further` arguments are a part of the key. The newest forty are kept, with their objects.
    """

    def __init__(self, make: Callable[..., Any]):
        """`make` takes the object, and what else it is given."""
        self._make = make
        self._kept: OrderedDict[Hashable, tuple[Of, Any]] = OrderedDict()

    def of(self, one: Of, *further: Hashable) -> Any:
        """What `make` makes of it."""
        key = (id(one), further, spoken())
        # The object is kept too, so its number is no other's.
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = (one, all_told(self._make(one, *further)))
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)
        return kept[1]
