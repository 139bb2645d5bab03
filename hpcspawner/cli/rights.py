"""`hpcspawner helper`, `sudoers` and `authorized-key`: what a Hub needs that is not root, or not on the cluster."""

import getpass
import sys
from abc import abstractmethod
from pathlib import Path
from typing import NoReturn

from traitlets import Bool, Unicode

from hpcspawner.cli.command import Command
from hpcspawner.errors import ProfileError, SchedulerNotSetUp, more
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.schedulers.sudo import RightsError, authorized_key, program, sudoers
from hpcspawner.site.profile import SiteProfile, load


class _Printer(Command):
    """Prints something that is made from one profile."""

    def start(self) -> None:
        """Print it; exit code 1 where the profile does not allow it, 2 where the usage is wrong."""
        if len(self.extra_args) != 1:
            self._fail("name one profile, such as: " + self.example, 2)
        try:
            profile = load(self.extra_args[0])
            if not profile.scheduler.helper:
                self._fail(
                    f"{self.extra_args[0]} names no helper; add this line to its table [scheduler]: "
                    'helper = "/usr/local/libexec/hpcspawner"'
                )
            print(self.text(profile), end="")
        except SchedulerNotSetUp as error:
            self._fail(f"{error} Run this on the Hub's machine; {error.cure}{more(error.entry)}")
        except ProfileError as error:
            self._fail(error.explained)
        except RightsError as error:
            self._fail(f"{error}{more('sudo-rule')}")

    @abstractmethod
    def text(self, profile: SiteProfile) -> str:
        """What is to be printed."""

    def _fail(self, words: str, code: int = 1) -> NoReturn:
        print(f"{self.name}: {words}", file=sys.stderr)
        raise SystemExit(code)


class Helper(_Printer):
    """Print the program that the Hub runs as its users, for the place that scheduler.helper names.

    hpcspawner helper site.toml > hpcspawner-helper
    """

    name = "hpcspawner helper"
    description = __doc__
    example = "hpcspawner helper site.toml"
    python = Unicode("/usr/bin/python3", config=True, help="Python 3.6 or later that every user may run.")
    aliases = {"python": "Helper.python"}

    def text(self, profile: SiteProfile) -> str:
        """The helper, with the site's commands in it."""
        return program(
            profile, make_scheduler(profile.scheduler, Path("hpcspawner-spool"), profile.job.leave_out), self.python
        )


class Sudoers(_Printer):
    """Print the lines of sudoers that let the Hub's account run the helper as the members of a group.

    hpcspawner sudoers site.toml --group=hpcusers --account=jupyterhub
    """

    name = "hpcspawner sudoers"
    description = __doc__
    example = "hpcspawner sudoers site.toml --group=hpcusers"
    group = Unicode(config=True, help="Group whose members may use the Hub.")
    account = Unicode(
        config=True,
        help="Account that the Hub runs as, or has on the login nodes. Default: the one in scheduler.ssh, or your own.",
    )
    listing = Bool(config=True, help="Let the Hub list a user's jobs as that user.")
    aliases = {"group": "Sudoers.group", "account": "Sudoers.account"}
    sudo_rs = Bool(config=True, help="Write the rule for sudo-rs, which has fewer settings.")
    flags = {
        "sudo-rs": (
            {"Sudoers": {"sudo_rs": True}},
            "For sudo-rs (Ubuntu's sudo since 25.10), which has fewer settings.",
        ),
        "list": (
            {"Sudoers": {"listing": True}},
            "Also allow the Hub to list a user's jobs as that user, where the scheduler hides them from the Hub's "
            "account.",
        ),
    }

    def text(self, profile: SiteProfile) -> str:
        """Lines for a file in /etc/sudoers.d."""
        if not self.group:
            self._fail("name the group whose members may use the Hub: --group=GROUP", 2)
        # The rule is for the machine with the helper: a login node, where the Hub reaches it by SSH.
        login_nodes = profile.scheduler.login_nodes
        account = self.account or (login_nodes[0].account if login_nodes else getpass.getuser())
        access = profile.scheduler
        scheduler = make_scheduler(access, Path("/nowhere"), profile.job.leave_out)
        asks = {"listing": self.listing, "estimate": bool(scheduler.estimate_words)}
        return sudoers(access, account, self.group, sudo_rs=self.sudo_rs, **asks)


class AuthorizedKey(_Printer):
    """Print the line of authorized_keys that forces the Hub's SSH key to the helper, for the members of a group.

    hpcspawner authorized-key site.toml --key=/etc/jupyterhub/ssh/id_ed25519.pub --group=hpcusers
    """

    name = "hpcspawner authorized-key"
    description = __doc__
    example = "hpcspawner authorized-key site.toml --key=id_ed25519.pub --group=hpcusers"
    group = Unicode(config=True, help="Group whose members may use the Hub.")
    key = Unicode(config=True, help="File with the Hub's public key. Default: scheduler.ssh_key with .pub behind it.")
    aliases = {"group": "AuthorizedKey.group", "key": "AuthorizedKey.key"}

    def text(self, profile: SiteProfile) -> str:
        """A line for the authorized_keys of the Hub's account on the login nodes."""
        if not self.group:
            self._fail("name the group whose members may use the Hub: --group=GROUP", 2)
        path = self.key or f"{profile.scheduler.ssh_key}.pub"
        try:
            public_key = Path(path).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            self._fail(f"the public key {path} can't be read: {error}; name the file that ends with .pub: --key=FILE")
        return authorized_key(profile.scheduler, public_key, self.group)
