"""The command `hpcspawner`: the pipeline stopped early, and a demo of all of it."""

import difflib
import os
import sys
from typing import Any

from traitlets.config import Application

from hpcspawner._version import __version__


class HPCSpawnerApp(Application):
    """Open a Jupyter notebook on a supercomputer."""

    name = "hpcspawner"
    version = __version__
    description = __doc__
    # By name: each is loaded when it is asked for, and with it what it needs.
    subcommands = {
        "init": (
            "hpcspawner.cli.init.Init",
            "Print a profile for this cluster, or for another batch spawner's settings.",
        ),
        "check": (
            "hpcspawner.cli.check.Check",
            "Check profiles, commands, rights and the Hub's settings, with a cure for each.",
        ),
        "render": ("hpcspawner.cli.render.Render", "Print the job script for a request."),
        "helper": ("hpcspawner.cli.rights.Helper", "Print the helper program that the Hub runs as its users."),
        "sudoers": (
            "hpcspawner.cli.rights.Sudoers",
            "Print the sudoers lines that let the Hub's account run the helper.",
        ),
        "authorized-key": (
            "hpcspawner.cli.rights.AuthorizedKey",
            "Print the line that forces the Hub's SSH key to the helper.",
        ),
        "explain": ("hpcspawner.cli.explain.Explain", "Print what a message means and what to do about it."),
        "jobs": ("hpcspawner.cli.jobs.Jobs", "List the Hub's jobs, and cancel those that no server needs."),
        "demo": ("hpcspawner.cli.demo.Demo", "Start a Hub with HTTPS on this machine to try it out."),
    }

    def start(self) -> None:
        """Run the subcommand, or say which there are."""
        if self.subapp is not None:
            return self.subapp.start()
        words = [word for word in self.extra_args if not word.startswith("-")]
        if words:
            near = difflib.get_close_matches(words[0], self.subcommands, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            self.exit_with(f"There is no command {words[0]!r}.{hint} The commands are: {', '.join(self.subcommands)}.")
        self.print_help()
        return self.exit(2)

    def exit_with(self, message: str) -> None:
        """End with a message and the exit code for bad usage."""
        print(f"hpcspawner: {message}", file=sys.stderr)
        self.exit(2)


def main(argv: list[str] | None = None) -> Any:
    """Entry point of the console script."""
    try:
        return HPCSpawnerApp.launch_instance(argv)
    except BrokenPipeError:
        # Whoever reads has read enough, as `head` does; Python would complain when it closes its output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return sys.exit(1)
