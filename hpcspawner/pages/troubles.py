"""The page about troubleshooting as HTML, from the same entries as `hpcspawner explain`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from markupsafe import Markup, escape

from hpcspawner.troubles import LINK, troubles

_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True)
class ShownTrouble:
    """One entry as HTML; `name` is its anchor."""

    name: str
    symptom: Markup
    cause: Markup
    cure: Markup


@cache
def shown_troubles() -> Sequence[ShownTrouble]:
    """Every entry, in the page's order."""
    return [ShownTrouble(one.name, *map(as_html, (one.symptom, one.cause, one.cure))) for one in troubles().values()]


def as_html(text: str) -> Markup:
    """A line of Markdown with code and links. Of links, those to another entry stay; the other pages are not here."""
    linked = LINK.sub(_link, str(escape(text)))
    return Markup(_CODE.sub(r"<code>\1</code>", linked))  # noqa: S704 - escaped above


def _link(match: re.Match[str]) -> str:
    return f'<a href="{match[2]}">{match[1]}</a>' if match[2].startswith("#") else match[1]
