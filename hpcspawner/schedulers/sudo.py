"""What the Hub may do as its users: the helper program for one site, and the lines of sudoers that allow it."""

import grp
import pwd
import re
import shlex
import shutil
from collections.abc import Sequence
from os import pathsep
from pathlib import Path
from pprint import pformat
from typing import Any
from urllib.parse import quote

from hpcspawner.errors import SchedulerNotSetUp
from hpcspawner.language import _
from hpcspawner.programs import helper
from hpcspawner.programs.joined import joined_look
from hpcspawner.schedulers.base import Scheduler
from hpcspawner.schedulers.questions import questions
from hpcspawner.site import names
from hpcspawner.site.profile import Access, SiteProfile

MARK = r"[0-9a-f]{16}"
"""What the mark of a listing looks like."""

SUBMIT, CANCEL, LIST = helper.VERBS
ESTIMATE, LOOK = helper.ESTIMATE, helper.LOOK
# The Hub stops the command at its own limit. The helper's limit counts after the Hub has ended.
_GRACE_S = 1.0
_SITE_LINE = "SITE: Dict[str, Any] = {}\n"


class RightsError(Exception):
    """What was asked makes no rule that is safe; the text says what is allowed."""


def rules(scheduler: Scheduler, directives: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """What `helper.option_words` checks options by. `directives` are the pairs that the site adds to its jobs."""
    return {
        "options": {**scheduler.option_patterns, **_joined_patterns(scheduler, directives)},
        "long_options": scheduler.long_options,
        "directives": [list(pair) for pair in dict.fromkeys(directives)],
    }


def _joined_patterns(scheduler: Scheduler, directives: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Patterns of options whose values of the Hub and of the site go into one."""
    patterns = {}
    for option, sign in scheduler.joined_options.items():
        theirs = "|".join(re.escape(value) for name, value in dict.fromkeys(directives) if name == option and value)
        if theirs:
            ours = scheduler.option_patterns[option]
            patterns[option] = f"(?:{ours}|{theirs})(?:{re.escape(sign)}(?:{theirs}))*"
    return patterns


def submit_words(
    scheduler: Scheduler, options: Sequence[tuple[str, str]], directives: Sequence[tuple[str, str]]
) -> list[str]:
    """The submit command with these options, each checked; `helper.Refusal` where one is not allowed."""
    return [*scheduler.submit_command, *helper.option_words(list(options), rules(scheduler, directives))]


def program(profile: SiteProfile, scheduler: Scheduler, python: str) -> str:
    """The helper's text for this site, to be installed at `scheduler.helper`. Commands must be on this machine."""
    access = profile.scheduler

    def there(argv: Sequence[str]) -> list[str]:
        # The login node's folders are not this machine's; there the helper finds a name in the same path.
        return list(argv) if access.ssh else found(access, argv)

    site = {
        SUBMIT: there(scheduler.submit_command),
        CANCEL: there(scheduler.cancel_words),
        LIST: there(scheduler.query_command(helper.GIVEN)),
        "given": {CANCEL: scheduler.job_id_pattern, LIST: MARK},
        **rules(scheduler, profile.directives),
        "min_uid": access.min_uid,
        "path": pathsep.join(access.path),
        "variables": dict(access.variables),
        "limit_s": access.command_timeout_s + _GRACE_S,
        **_of_estimates(scheduler),
        **({LOOK: joined_look()} if access.look else {}),
        **(served(access, scheduler) if access.ssh else {}),
    }
    text = Path(helper.__file__).read_text(encoding="utf-8")
    if text.count(_SITE_LINE) != 1 or not text.startswith("#!"):
        raise RuntimeError(f"{helper.__file__} is not the expected program")
    if not re.fullmatch(r"/[A-Za-z0-9._+/-]{1,100}", python):
        raise RightsError(f"{python!r} can't stand in the first line of a program; give the full path of a Python")
    _, _, rest = text.replace(_SITE_LINE, f"SITE: Dict[str, Any] = {pformat(site, width=118)}\n").partition("\n")
    return f"#!{python} -IS\n{rest}"


def _of_estimates(scheduler: Scheduler) -> dict[str, Any]:
    """The words that make the submit command tell when a job could start, and what makes it print times as numbers."""
    if not scheduler.estimate_words:
        return {}
    return {ESTIMATE: list(scheduler.estimate_words), "times": dict(scheduler.query_variables)}


def served(access: Access, scheduler: Scheduler) -> dict[str, Any]:
    """What `serve` needs: the questions that a Hub elsewhere may ask, each with the kinds of its words."""
    return {
        "helper": str(access.helper),
        "prefix": list(access.prefix),
        "words": {"job": scheduler.job_id_pattern, "mark": MARK},
        "questions": {
            verb: [list(one.kinds), one.template, dict(one.variables)] for verb, one in questions(scheduler).items()
        },
    }


def found(access: Access, argv: Sequence[str]) -> list[str]:
    """The same argv with the program's full path, as sudo's rules want it."""
    path = shutil.which(argv[0], path=pathsep.join(access.path))
    if path is None:
        raise SchedulerNotSetUp(
            _("The command {command} was not found on the Hub.", command=repr(argv[0])),
            shlex.join(argv),
            f"not found in {', '.join(access.path)}",
            f"install it on the Hub's machine, or add its folder to scheduler.path (now {list(access.path)})",
            "command-missing",
        )
    return [path, *argv[1:]]


def authorized_key(access: Access, public_key: str, group: str) -> str:
    """The line of authorized_keys that forces the Hub's key to the helper, for the members of one group.

    `public_key` is the text of the file `ssh-keygen` wrote. Raises RightsError where no safe line can be made.
    """
    if not access.ssh:
        raise RightsError('the profile names no login node; write scheduler.ssh, such as ["hub@login1"]')
    match = _PUBLIC_KEY.fullmatch(public_key.strip())
    if not match:
        raise RightsError(
            "this is no public key of OpenSSH in one line, such as 'ssh-ed25519 AAAA… hub'; name the file that ends "
            "with .pub"
        )
    word = quote(_checked_group(group), safe="")
    return f'restrict,command="{access.helper} {helper.SERVE} {word}" {match[1]} {match[2]} hpcspawner\n'


_PUBLIC_KEY = re.compile(r"((?:ssh|ecdsa|sk-ssh|sk-ecdsa)-[a-z0-9@.-]{1,60}) ([A-Za-z0-9+/]{40,3000}={0,3})(?: .*)?")
# In sudoers a word in capitals is the name of a list, ALL is everybody.
_LIST_NAME = re.compile(r"[A-Z][A-Z0-9_]*")
_PLAIN = re.compile(r"[^A-Za-z0-9_.-]")
_NUMBER = re.compile(r"#(\d{1,10})", re.ASCII)
# Groups with lower numbers are the system's.
_FIRST_GROUP = 1000
# Groups that give more than an ordinary account has on some system: root by a rule of sudo's or by a daemon that obeys
# them, devices and memory, files of the system, passwords and logs.
_POWERFUL_GROUPS = frozenset(
    [
        *("root", "sudo", "sudoers", "wheel", "admin", "staff", "operator", "munge", "slurm", "torque"),
        *("docker", "podman", "incus", "incus-admin", "lxc", "lxd", "kvm", "libvirt", "libvirt-qemu"),
        *("disk", "kmem", "mem", "tape", "tty", "video", "input"),
        *("domain admins", "enterprise admins", "schema admins", "administrators"),
        *("adm", "backup", "bin", "daemon", "shadow", "src", "sys", "systemd-journal", "utmp"),
    ]
)

_SUDOERS = """\
# The account {account} may submit and cancel{also} jobs{estimate}{look} as any member of the group {group},
# and nothing else: never as root, with no other words, with nothing of its own environment. Install it with mode 0440
# as a file of /etc/sudoers.d without a dot in its name, and the helper, owned by root, at {helper}.
Cmnd_Alias {alias} = {commands}
# No logs of input: job scripts hold a ticket.
Defaults!{alias} env_reset, !env_keep, !env_check{further}
{account} ALL = (%{group}, !root, !#0) NOPASSWD: NOSETENV: {alias}
"""


# What the visudo of sudo-rs refuses as unknown. sudo-rs always resets the environment, and NOSETENV does the rest.
_OF_SUDO_ALONE = ", !setenv, !requiretty, !log_input, !log_output"


def sudoers(
    access: Access, account: str, group: str, *, listing: bool, estimate: bool = False, sudo_rs: bool = False
) -> str:
    """Lines for /etc/sudoers.d that let `account` run the helper as the members of `group`, and nothing else.

    `group` is a name as the user database has it, or `#` and a number. `listing` also allows to ask
    for a user's jobs as that user, for sites that hide them from others, and `estimate` when a job could start. For
    `sudo_rs`, names that its releases read differently are written as their numbers.
    """
    program_name = Path(access.prefix[0]).name if access.prefix else ""
    if program_name not in ("sudo", "sudo-rs"):
        raise RightsError(
            f"scheduler.command_prefix is {list(access.prefix)}, so sudo is not asked; "
            'leave it out, or write ["sudo", "-n", "-u", "{user}"]'
        )
    if names.user_problem(account) or "," in account or _LIST_NAME.fullmatch(account) or account == "root":
        raise RightsError(
            f"{account!r} can't be the Hub's account: name an account of the user database, not root and not in "
            "capitals alone, which sudo reads as the name of a list"
        )
    helper_path = str(access.helper)
    verbs = [
        SUBMIT,
        CANCEL,
        *([LIST] if listing else []),
        *([ESTIMATE] if estimate else []),
        *([LOOK] if access.look else []),
    ]
    sudo_rs = sudo_rs or program_name == "sudo-rs"
    written = _in_sudo_rs if sudo_rs else _in_sudoers
    return _SUDOERS.format(
        account=written(account, "account"),
        group=written(_checked_group(group), "group"),
        further="" if sudo_rs else _OF_SUDO_ALONE,
        also=" and list" if listing else "",
        estimate=", ask when one could start" if estimate else "",
        look=", and look at files," if access.look else "",
        helper=helper_path,
        alias=_alias(helper_path),
        commands=", \\\n    ".join(f"{helper_path} {verb}" for verb in verbs),
    )


def _checked_group(group: str) -> str:
    """The users' group, unless it is no group's name or its members have rights of their own."""
    if number := _NUMBER.fullmatch(group):
        if int(number[1]) < _FIRST_GROUP:
            raise RightsError(
                f"{group!r} can't be the users' group: numbers below {_FIRST_GROUP} are groups of the system"
            )
        _refuse_powerful(_group_name(int(number[1])), group)
        return group
    # With a comma, two were meant.
    if names.user_problem(group) or "," in group or group.startswith("\\"):
        raise RightsError(
            f"{group!r} can't be the users' group: name a group of the user database, such as hpcusers, 'domain users' "
            "or hpc@EXAMPLE.ORG, or write '#' and its number"
        )
    _refuse_powerful(group, group)
    return group


def _refuse_powerful(name: str, asked: str) -> None:
    # A directory service may put its domain before a name or behind it.
    bare = name.rpartition("\\")[2].partition("@")[0].strip().lower()
    if bare in _POWERFUL_GROUPS:
        raise RightsError(
            f"{asked!r} can't be the users' group: its members can become root or read other users' files, and "
            f"through them so could the Hub. Make a group only for the Hub's users, such as hpcusers"
        )


def _group_name(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return ""


def _in_sudoers(name: str, _kind: str = "") -> str:
    """A name with each sign that sudoers(5) might read as its own marked as a part of it; a number as it is."""
    if _NUMBER.fullmatch(name):
        return name
    return _PLAIN.sub(lambda sign: f"\\{sign[0]}" if sign[0].isascii() else sign[0], name)


def _in_sudo_rs(name: str, kind: str) -> str:
    """A plain name as it is, else its number: no way to write `a@b` or `a b` means that name to all releases."""
    if _NUMBER.fullmatch(name) or not _PLAIN.search(name):
        return name
    try:
        return f"#{grp.getgrnam(name).gr_gid if kind == 'group' else pwd.getpwnam(name).pw_uid}"
    except KeyError:
        raise RightsError(
            f"sudo-rs needs the number of {name!r}, and this machine has no {kind} of that name; "
            f"write '#' and the number in its place"
        ) from None


def _alias(path: str) -> str:
    """A name of its own for each helper, so that the rules of several sites can stand side by side."""
    return re.sub(r"[^A-Z0-9]", "_", f"HPC_{Path(path).name}".upper())
