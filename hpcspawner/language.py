"""Sentences for researchers, which a page shows in the language of its reader.

`_("Job {id} is running", id=…)` is text in English, which logs, events and programs get, and keeps what it is made of:
the message of the catalog and its values. A page shows it by `told`, which templates do by themselves. So a sentence
may be made long before it is read, and be read in several languages.
"""

import gettext
import re
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from markupsafe import escape

SOURCE = "en"
"""The language of the sentences in the source."""
FOLDER = Path(__file__).parent / "locale"
DOMAIN = "hpcspawner"

_RANGE = re.compile(r"([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*|\*)(?:\s*;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?))?")
# More than any browser sends.
_MOST_RANGES = 50

# Each request is answered in a task of its own, which has its own value.
_language: ContextVar[str] = ContextVar("hpcspawner_language", default=SOURCE)
_folders: list[Path] = [FOLDER]


class Text(str):
    """A sentence in English that can be shown in other languages.

    `messages` are the catalog's: one, or singular and plural by `number`. `values` are filled in, and those that are a
    Text are translated too.
    """

    messages: tuple[str, ...]
    number: int
    values: Mapping[str, Any]

    def __new__(cls, messages: Sequence[str], values: Mapping[str, Any], number: int = 1) -> Self:
        """English, by the rule of English."""
        made = super().__new__(cls, _filled(messages[0 if number == 1 else -1], values))
        made.messages, made.values, made.number = tuple(messages), dict(values), number
        return made

    def __getnewargs__(self) -> tuple[Any, ...]:  # type: ignore[override]
        return self.messages, self.values, self.number

    def __html__(self) -> str:
        # Markup, which Markup.format does not escape once more.
        return escape(told(self))

    def fill(self, **values: Any) -> "Text":
        """The same with its values, for a sentence that stands in a table."""
        return Text(self.messages, {**self.values, **_kept(values)}, self.number)

    def parts(self) -> dict[str, Any]:
        """As JSON can keep it; `from_parts` makes it a Text again."""
        values = {name: one.parts() if isinstance(one, Text) else one for name, one in self.values.items()}
        return {"messages": list(self.messages), "values": values, "number": self.number}

    @classmethod
    def from_parts(cls, parts: Mapping[str, Any]) -> Self:
        """What `parts` has kept. Raises ValueError for anything else."""
        try:
            values = {
                name: cls.from_parts(one) if isinstance(one, Mapping) else one for name, one in parts["values"].items()
            }
            return cls(parts["messages"], values, parts["number"])
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise ValueError(f"not the parts of a sentence: {error!r}") from error


def _(message: str, /, **values: Any) -> Text:
    """A sentence of the catalog, with its values: text and numbers as they are, another Text in its turn."""
    return Text((message,), _kept(values))


def several(one: str, many: str, count: int, /, **values: Any) -> Text:
    """As `_`, for a sentence that depends on a number, which is filled in as `count`."""
    return Text((one, many), _kept({"count": count, **values}), count)


def joined(parts: Iterable[str], between: str = " ") -> Text:
    """Several in a row, each translated by itself; what is empty is left out."""
    found = {f"part{place}": one for place, one in enumerate(filter(None, parts))}
    return Text((between.join(f"{{{name}}}" for name in found),), found)


def sentence_of(error: Exception) -> str:
    """The text of an error as it was made: one with a Text can be told."""
    text = error.args[0] if error.args else ""
    return text if isinstance(text, Text) else str(error)


def _kept(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: one if isinstance(one, str | int) else str(one) for name, one in values.items()}


def _filled(message: str, values: Mapping[str, Any]) -> str:
    return message.format_map(_Values(values)) if values else message


class _Values(dict[str, Any]):
    """A sentence that waits for a value shows where it goes."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


def told(text: str, language: str = "") -> str:
    """A sentence in this language, by default the reader's; other text as it is."""
    if not isinstance(text, Text):
        return text
    language = language or _language.get()
    if language == SOURCE:
        return str(text)
    known = catalog(language)
    first, last = text.messages[0], text.messages[-1]
    message = known.gettext(first) if len(text.messages) == 1 else known.ngettext(first, last, text.number)
    values = {name: told(one, language) if isinstance(one, str) else one for name, one in text.values.items()}
    try:
        return _filled(message, values)
    except (AttributeError, IndexError, ValueError):
        # A site's own catalog, with other placeholders than the sentence.
        return str(text)


def all_told(value: Any) -> Any:
    """What is to become JSON, with each sentence in it in the reader's language."""
    if isinstance(value, Text):
        return told(value)
    if isinstance(value, Mapping):
        return {name: all_told(one) for name, one in value.items()}
    return [all_told(one) for one in value] if isinstance(value, list | tuple) else value


# ---- which language


def speak(language: str) -> None:
    """Answer the request that the running code serves in this language."""
    _language.set(language)


def spoken() -> str:
    """The language of the request that the running code serves."""
    return _language.get()


def wanted(accepted: str, offered: Sequence[str]) -> str:
    """Which of the languages that are offered a browser wants by its header Accept-Language (RFC 9110, 12.5.4).

    The one with the highest weight, of equals the one that it names first; the first that is offered where it wants
    none of them. `de-AT` is served by `de`.
    """
    weights: dict[str, float] = {}
    for one in accepted.split(",")[:_MOST_RANGES]:
        if match := _RANGE.fullmatch(one.strip()):
            weights.setdefault(_offered(match[1].lower(), offered), float(match[2] or 1))
    # A star stands for those that are not named; without one they are taken where none is that is.
    others = weights.pop("*", 0.0)
    weights.pop("", None)
    named = [one for one, weight in weights.items() if weight]
    rest = [one for one in offered if one not in weights]
    return max([*named, *rest, *offered], key=lambda one: weights.get(one, others))


def _offered(asked: str, offered: Sequence[str]) -> str:
    """The language offered that fits a range; "" for none."""
    fits = (one for one in offered if asked == one.lower() or asked.startswith(f"{one.lower()}-"))
    return asked if asked == "*" else next(fits, "")


# ---- catalogs


@cache
def catalog(language: str) -> gettext.NullTranslations:
    """The sentences of a language; what a folder lacks comes from the next one, and in the end it is English."""
    found = [gettext.translation(DOMAIN, str(one), [language], fallback=True) for one in _folders]
    for first, second in pairwise(found):
        first.add_fallback(second)
    return found[0]


def available() -> tuple[str, ...]:
    """The languages that there are catalogs for, the source's first."""
    there = {path.parents[1].name for folder in _folders for path in folder.glob(f"*/LC_MESSAGES/{DOMAIN}.mo")}
    return (SOURCE, *sorted(there - {SOURCE}))


def look_first_in(folder: Path) -> None:
    """Take sentences from a site's own catalogs, where they have them."""
    _folders[:] = [folder, FOLDER]
    catalog.cache_clear()
