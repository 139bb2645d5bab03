"""The entries of the page about troubleshooting, and which of them explains what `hpcspawner check` finds."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BY_CHECK: Mapping[str, str] = {
    "profile": "profile",
    "commands": "command-missing",
    "version": "wrong-scheduler",
    "listing": "listing",
    "clock": "clock",
    "partitions": "partitions",
    "account": "account",
    "helper": "helper",
    "sudo rule": "sudo-rule",
    "environments": "no-jupyter",
    "images": "images",
    "files": "files",
    "set-up": "no-jupyter",
    "node names": "hub-to-node",
    "ports": "hub-to-node",
    "certificate": "certificate",
    "callback address": "callback-url",
    "job": "job",
    "Hub settings": "hub-settings",
    "TLS to nodes": "tls-to-nodes",
}
"""The entry for each check by its name."""

_FILE = "troubleshooting.md"
_ENTRY = re.compile(r"^### ([a-z-]+)\n(.*?)(?=^#{2,3} |\Z)", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")
"""A link of Markdown: its text and its target."""
_CAUSE, _CURE = "**Cause.** ", "**Cure.** "


@dataclass(frozen=True, slots=True)
class Trouble:
    """One entry; its three texts are one line of Markdown each."""

    name: str
    symptom: str
    cause: str
    cure: str


@cache
def troubles() -> Mapping[str, Trouble]:
    """Every entry by its name, in the page's order. Raises FileNotFoundError where the package is incomplete."""
    text = _page().read_text(encoding="utf-8")
    return {name: _read(name, body) for name, body in _ENTRY.findall(text)}


def _read(name: str, body: str) -> Trouble:
    symptom, cause, cure = (" ".join(one.split()) for one in body.strip().split("\n\n"))
    if not cause.startswith(_CAUSE) or not cure.startswith(_CURE):
        raise ValueError(f"the entry {name} of {_FILE} has no cause or no cure")
    return Trouble(name, symptom, cause.removeprefix(_CAUSE), cure.removeprefix(_CURE))


def _page() -> Path:
    for folder in _folders():
        if (folder / _FILE).is_file():
            return folder / _FILE
    raise FileNotFoundError(f"{_FILE} is not among the installed files; install hpcspawner anew")


def _folders() -> Iterator[Path]:
    here = Path(__file__).resolve()
    yield here.parents[1] / "docs" / "howto"  # a checkout
    # An installed package: PREFIX/lib/pythonX.Y/site-packages/hpcspawner -> PREFIX/share/hpcspawner/docs
    yield from (parent / "share" / "hpcspawner" / "docs" for parent in here.parents)


def plain(text: str) -> str:
    """A line of the page for a terminal: without the targets of links."""
    return LINK.sub(lambda match: match[1], text)
