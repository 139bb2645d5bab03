"""Folders as people write them, and as the node knows them."""

import posixpath
from collections.abc import Mapping

from hpcspawner.request.model import LocalAccount
from hpcspawner.site.fields import VARIABLE


def directory_of(text: str, user: LocalAccount, variables: Mapping[str, str]) -> str:
    """A folder as an absolute path: `~`, a variable of the site at the start and placeholders replaced."""
    if match := VARIABLE.match(text):
        text = variables.get(match[1] or match[2], match[0]) + text[match.end() :]
    text = text.replace("{user}", user.name).replace("{home}", user.home).replace("{group}", user.group)
    if text == "~" or text.startswith("~/"):
        text = user.home + text[1:]
    return posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else text


def shortened(path: str, user: LocalAccount) -> str:
    """A folder as people write it: `~` for the home."""
    return "~" + path[len(user.home) :] if f"{path}/".startswith(f"{user.home}/") else path
