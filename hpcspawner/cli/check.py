"""`hpcspawner check`: read profiles and say what is wrong with them."""

import sys

from traitlets.config import Application

from hpcspawner.errors import ProfileError
from hpcspawner.request.presets import load


class Check(Application):
    """Check site profiles; every mistake is named with its place and its cure.

    hpcspawner check site.toml [more.toml …]
    """

    name = "hpcspawner check"
    description = __doc__

    def start(self) -> None:
        """Check every file named; exit code 1 if any has a mistake."""
        if not self.extra_args:
            print("hpcspawner check: name at least one profile, such as: hpcspawner check site.toml", file=sys.stderr)
            self.exit(2)
        # A list, not a generator: every file is checked, also after a bad one.
        if not all([_check(path) for path in self.extra_args]):
            self.exit(1)


def _check(path: str) -> bool:
    try:
        profile = load(path)
    except ProfileError as error:
        print(error, file=sys.stderr)
        return False
    names = ", ".join(partition.name for partition in profile.partitions)
    print(f"{path}: good. {profile.title} ({profile.scheduler.type}): {names}")
    return True
