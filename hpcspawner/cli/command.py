"""What all subcommands share: a mistyped option is refused, with the nearest one that there is."""

import difflib
import sys
from typing import Any, NoReturn

from traitlets.config import Application

# Of every traitlets application.
_COMMON = ("help", "help-all", "h", "version", "config", "log-level", "debug", "show-config", "show-config-json")


class Command(Application):
    """A subcommand of `hpcspawner`."""

    def parse_command_line(self, argv: Any = None) -> None:
        """Refuse options that there are not; traitlets alone would pass over them with a warning."""
        for word in sys.argv[1:] if argv is None else argv:
            if word == "--":
                break
            name = word.lstrip("-").partition("=")[0]
            known = [*self.aliases, *self.flags, *_COMMON]
            names = [one for names in known for one in (names if isinstance(names, tuple) else (names,))]
            # `--Class.trait=…` is checked by traitlets.
            if word.startswith("-") and word != "-" and name not in names and "." not in name:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f" Did you mean --{near[0]}?" if near else ""
                ours = ", ".join(f"--{one}" for one in names if one not in _COMMON)
                self.usage(f"there is no option {word.partition('=')[0]!r}.{hint} The options are: {ours or 'none'}")
        super().parse_command_line(argv)

    def usage(self, message: str) -> NoReturn:
        """End with a message and the exit code for bad usage."""
        print(f"{self.name}: {message}", file=sys.stderr)
        raise SystemExit(2)
