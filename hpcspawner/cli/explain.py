"""`hpcspawner explain`: an entry of the page about troubleshooting."""

import difflib
import textwrap
from collections.abc import Iterator

from hpcspawner.cli.command import Command
from hpcspawner.troubles import Trouble, plain, troubles

_WIDTH = 100


class Explain(Command):
    """Print what a message means and what to do about it, by the name that the message ends with.

    Without a name it lists all of them.
    """

    name = "hpcspawner explain"
    description = __doc__
    examples = """
hpcspawner explain sudo-rule
hpcspawner explain
"""

    def start(self) -> None:
        """Print entries; exit code 2 for a name that there is not."""
        known = troubles()
        if not self.extra_args:
            for one in known.values():
                print(f"{one.name:<24}{textwrap.shorten(plain(one.symptom), _WIDTH - 24, placeholder=' …')}")
        for name in self.extra_args:
            if name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                self.usage(f"there is no entry {name!r}.{hint} `hpcspawner explain` lists all of them")
        print(
            *("\n".join(_lines(known[name])) for name in self.extra_args),
            sep="\n\n",
            end="\n" if self.extra_args else "",
        )


def _lines(one: Trouble) -> Iterator[str]:
    yield one.name
    for title, text in (("", one.symptom), ("Cause", one.cause), ("Cure", one.cure)):
        yield textwrap.fill(f"{title}: {plain(text)}" if title else plain(text), _WIDTH, subsequent_indent="  ")
