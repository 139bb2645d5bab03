"""What the Hub may do as its users: the helper program for one site, and the lines of sudoers that allow it."""

import re
import shlex
import shutil
from collections.abc import Sequence
from os import pathsep
from pathlib import Path
from pprint import pformat
from typing import Any

from hpcspawner.errors import SchedulerNotSetUp
from hpcspawner.programs import helper
from hpcspawner.schedulers.base import Scheduler
from hpcspawner.site.profile import Access, SiteProfile

MARK = r"[0-9a-f]{16}"
"""What the mark of a listing looks like."""

SUBMIT, CANCEL, LIST = helper.VERBS
# The Hub gives up at its own limit; the helper's own counts where the Hub can't tell it any more.
_GRACE_S = 1.0
_SITE_LINE = "SITE: Dict[str, Any] = {}\n"
_ANY_JOB = "1"


class RightsError(Exception):
    """What was asked makes no rule that is safe; the text says what is allowed."""


def rules(scheduler: Scheduler, directives: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What `helper.option_words` checks options by. `directives` are the pairs that the site adds to its jobs."""
    return {
        "options": dict(scheduler.option_patterns),
        "long_options": scheduler.long_options,
        "directives": [list(pair) for pair in dict.fromkeys(directives)],
    }


def submit_words(
    scheduler: Scheduler, options: Sequence[tuple[str, str]], directives: Sequence[tuple[str, str]]
) -> list[str]:
    """The submit command with these options, each checked; `helper.Refusal` where one is not allowed."""
    return [*scheduler.submit_command, *helper.option_words(list(options), rules(scheduler, directives))]


def program(profile: SiteProfile, scheduler: Scheduler, python: str) -> str:
    """The helper's text for this site, to be installed at `scheduler.helper`. Commands must be on this machine."""
    access = profile.scheduler
    cancel = [helper.GIVEN if part == _ANY_JOB else part for part in scheduler.cancel_command(_ANY_JOB)]
    site = {
        SUBMIT: found(access, scheduler.submit_command),
        CANCEL: found(access, cancel),
        LIST: found(access, scheduler.query_command(helper.GIVEN)),
        "given": {CANCEL: scheduler.job_id_pattern, LIST: MARK},
        **rules(scheduler, profile.directives),
        "min_uid": access.min_uid,
        "path": pathsep.join(access.path),
        "limit_s": access.command_timeout_s + _GRACE_S,
    }
    text = Path(helper.__file__).read_text(encoding="utf-8")
    if text.count(_SITE_LINE) != 1 or not text.startswith("#!"):
        raise RuntimeError(f"{helper.__file__} is not the program that was expected")
    if not re.fullmatch(r"/[A-Za-z0-9._+/-]{1,100}", python):
        raise RightsError(f"{python!r} can't be the first line of a program; give the full path of a Python")
    _, _, rest = text.replace(_SITE_LINE, f"SITE: Dict[str, Any] = {pformat(site, width=118)}\n").partition("\n")
    return f"#!{python} -IS\n{rest}"


def found(access: Access, argv: Sequence[str]) -> list[str]:
    """The same argv with the program's full path, as sudo's rules want it."""
    path = shutil.which(argv[0], path=pathsep.join(access.path))
    if path is None:
        raise SchedulerNotSetUp(
            f"The command {argv[0]!r} was not found on the Hub.",
            shlex.join(argv),
            f"not found in {', '.join(access.path)}",
            f"install it on the Hub's machine, or add its folder to scheduler.path (now {list(access.path)})",
        )
    return [path, *argv[1:]]


# An account that a rule is for; in sudoers a word in capitals is the name of a list, ALL is everybody.
_ACCOUNT = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
_GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
# Groups that give more than an ordinary account has on some system: root by a rule of sudo's or by a daemon that obeys
# them, devices and memory, files of the system, passwords and logs.
_POWERFUL_GROUPS = frozenset(
    [
        *("root", "sudo", "sudoers", "wheel", "admin", "staff", "operator", "munge", "slurm", "torque"),
        *("docker", "podman", "incus", "incus-admin", "lxc", "lxd", "kvm", "libvirt", "libvirt-qemu"),
        *("disk", "kmem", "mem", "tape", "tty", "video", "input"),
        *("adm", "backup", "bin", "daemon", "shadow", "src", "sys", "systemd-journal", "utmp"),
    ]
)

_SUDOERS = """\
# The account {account} may submit and cancel{also} jobs as any member of the group {group}, and nothing else:
# never as root, with no other words, with nothing of its own environment. Install it with mode 0440 as a file of
# /etc/sudoers.d without a dot in its name, and the helper, owned by root, at {helper}.
Cmnd_Alias {alias} = {commands}
# No logs of input: job scripts hold a ticket.
Defaults!{alias} env_reset, !setenv, !env_keep, !env_check, !requiretty, !log_input, !log_output
{account} ALL = (%{group}, !root, !#0) NOPASSWD: NOSETENV: {alias}
"""


def sudoers(access: Access, account: str, group: str, *, listing: bool) -> str:
    """Lines for /etc/sudoers.d that let `account` run the helper as the members of `group`, and nothing else.

    `listing` also allows to ask for a user's jobs as that user, for sites that hide them from others.
    """
    if not access.prefix or Path(access.prefix[0]).name != "sudo":
        raise RightsError(
            f"scheduler.command_prefix is {list(access.prefix)}, so sudo is not asked; "
            'leave it out, or write ["sudo", "-n", "-u", "{user}"]'
        )
    if not _ACCOUNT.fullmatch(account) or account == "root":
        raise RightsError(f"{account!r} can't be the Hub's account: name an account in lower case, and not root")
    helper_path = str(access.helper)
    names = [SUBMIT, CANCEL, LIST] if listing else [SUBMIT, CANCEL]
    return _SUDOERS.format(
        account=account,
        group=_checked_group(group),
        also=" and list" if listing else "",
        helper=helper_path,
        alias=_alias(helper_path),
        commands=", \\\n    ".join(f"{helper_path} {name}" for name in names),
    )


def _checked_group(group: str) -> str:
    """The users' group, unless it is no group's name or one whose members have rights of their own."""
    if not _GROUP.fullmatch(group):
        raise RightsError(f"{group!r} can't be the users' group: name a group of letters, digits, '.', '_' and '-'")
    if group.lower() in _POWERFUL_GROUPS:
        raise RightsError(
            f"{group!r} can't be the users' group: its members can become root or read what is not theirs, and through "
            "them so could the Hub. Make a group for the Hub's users alone, such as hpcusers"
        )
    return group


def _alias(path: str) -> str:
    """A name of its own for each helper, so that the rules of several sites can stand side by side."""
    return re.sub(r"[^A-Z0-9]", "_", f"HPC_{Path(path).name}".upper())
