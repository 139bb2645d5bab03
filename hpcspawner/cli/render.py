"""`hpcspawner render`: the job script that a request makes, without a Hub and without a scheduler."""

import contextlib
import getpass
import pwd
import shlex
import sys
from pathlib import Path
from typing import Any

from traitlets import Unicode

from hpcspawner.cli.command import Command
from hpcspawner.errors import AccountRefused, Problem, ProfileError, RequestError
from hpcspawner.request.accounts import refusal
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.request.options import OPTIONS
from hpcspawner.request.presets import load
from hpcspawner.schedulers import sudo
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome


class Render(Command):
    """Print the job script that a request makes, and on standard error the command that would submit it.

    The ticket in the script is a stand-in.

    hpcspawner render site.toml partition=debug walltime=30m
    """

    name = "hpcspawner render"
    description = __doc__
    user = Unicode(config=True, help="Account that the job is for. Default: your own.")
    aliases = {"user": "Render.user"}

    def start(self) -> None:
        """Print the script; exit code 1 where the request is refused, 2 where the usage is wrong."""
        path, options = self._words()
        user = self.user or getpass.getuser()
        try:
            profile = load(path)
            self._check_account(profile.scheduler.min_uid)
            request = make(options, profile, LocalAccount(user, f"/home/{user}", user))
        except (ProfileError, RequestError) as error:
            print(f"hpcspawner render: {error.explained}", file=sys.stderr)
            return self.exit(1)
        home = CallHome("https://hub.example.org/hub/api/hpcspawner", "A-TICKET-STANDS-HERE")
        scheduler = make_scheduler(profile.scheduler, Path("hpcspawner-spool"), profile.job.leave_out)
        job = submission(request, scheduler, profile.job, JobLabel("jupyter", "k0000example"), home)
        # Apart from the script, which may go into a file.
        print("$", shlex.join(sudo.submit_words(scheduler, job.options, profile.directives)), file=sys.stderr)
        print(job.script, end="")
        return None

    def _check_account(self, min_uid: int) -> None:
        """Refuse what a Hub refuses, where the account is named and is known on this machine."""
        with contextlib.suppress(KeyError):
            if why := self.user and refusal(pwd.getpwnam(self.user), min_uid):
                raise AccountRefused([Problem("user", why)])

    def _words(self) -> tuple[str, dict[str, Any]]:
        words = self.extra_args
        if not words or any("=" not in word for word in words[1:]):
            print(f"usage: hpcspawner render PROFILE [OPTION=VALUE …]; options: {', '.join(OPTIONS)}", file=sys.stderr)
            self.exit(2)
        return words[0], dict(word.split("=", 1) for word in words[1:])
