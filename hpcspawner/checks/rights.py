"""Checks of what the Hub's account may do as its users: enough, and no more."""

import os
import pwd
import shlex
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hpcspawner.checks.finding import Check, Finding, good, not_checked, warning, wrong
from hpcspawner.errors import SchedulerNotSetUp
from hpcspawner.request.accounts import refusal
from hpcspawner.schedulers import sudo
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.process import Command, GivenUp, run
from hpcspawner.schedulers.rest import read_key
from hpcspawner.site.profile import Access, SiteProfile

_LIMIT_S = 20.0
_ROOT = 0
# What no user needs and every intruder wants.
_TOO_MUCH = "/bin/sh"


def checks(profile: SiteProfile, client: Client, user: str) -> Iterator[Check]:
    """`user` is somebody who will use the Hub, "" where nobody was named."""
    yield Check("account", lambda: _account(profile.scheduler, user))
    yield Check("helper", lambda: _helper(profile, client))
    yield Check("sudo rule", lambda: _rule(client, user))


def _account(access: Access, user: str) -> Iterable[Finding]:
    if not user:
        yield not_checked("name one of the Hub's users: --user=NAME")
        return
    try:
        entry = pwd.getpwnam(user)
    except (KeyError, ValueError):
        yield wrong(
            f"there is no account {user!r} on this machine",
            "make the cluster's accounts known here, by sssd or nslcd for instance; `getent passwd` must show them",
        )
        return
    if why := refusal(entry, access.min_uid):
        yield wrong(why, "use another account, or change scheduler.min_uid")
        return
    yield good(f"{user} has uid {entry.pw_uid}, and the Hub may submit jobs for it")


def _helper(profile: SiteProfile, client: Client) -> Iterable[Finding]:
    access = profile.scheduler
    if access.api:
        yield from _key(str(access.api_key_file))
        return
    if not access.prefix:
        yield warning("all users' jobs run as the Hub's own account", "set scheduler.command_prefix for separate users")
        return
    if not access.helper:
        if os.geteuid():
            cure = "name a helper in the profile (scheduler.helper): see docs/howto/least-privilege.md"
            yield warning("there is no helper, so the sudo rule has to allow the scheduler's commands themselves", cure)
        else:
            yield warning("the Hub would run as root", "run it as an ordinary account with a helper (scheduler.helper)")
        return
    if access.ssh:
        yield not_checked("the helper is on the login nodes; run check there, with a profile without scheduler.ssh")
        return
    path = Path(access.helper)
    if not path.exists():
        yield wrong(f"{path} is not there", _install(path))
        return
    yield from _protected(path) or [good(f"{path} can be changed by root alone")]
    yield from _current(profile, client, path)


def _key(path: str) -> Iterable[Finding]:
    """By this key the Hub can act as every user of the cluster."""
    try:
        read_key(path)
    except (OSError, ValueError) as error:
        cure = "let the file belong to the Hub's account, with mode 0400"
        yield wrong(f"the key for Slurm's tokens can't be used: {error}", cure)
    else:
        yield good(f"{path} can be read by the Hub's account alone, which needs no helper")


def _install(path: Path) -> str:
    return f"as root: hpcspawner helper SITE.toml > helper && install -D -m 0755 helper {path}"


def _protected(path: Path) -> list[Finding]:
    """Who can change the program, or put another in its place, can become every user of the Hub."""
    found = []
    for place in (path, *path.parents):
        status = place.stat()
        if status.st_uid not in (0, _ROOT):
            found.append(wrong(f"{place} belongs to uid {status.st_uid}, not to root", f"chown root:root {place}"))
        if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
            found.append(wrong(f"{place} can be changed by others than root", f"chmod go-w {place}"))
    if not path.stat().st_mode & 0o001:
        found.append(wrong(f"users can't run {path}", f"chmod 0755 {path}"))
    return found


def _current(profile: SiteProfile, client: Client, path: Path) -> Iterator[Finding]:
    text = path.read_text(encoding="utf-8", errors="replace")
    python = text.partition("\n")[0].removeprefix("#!").split(" ")[0]
    if not shutil.which(python):
        yield wrong(
            f"{python}, which runs {path}, is not there", f"install it, or name another: --python=… ({_install(path)})"
        )
        return
    try:
        now = sudo.program(profile, client.scheduler, python)
    except SchedulerNotSetUp as error:
        yield not_checked(f"whether {path} is up to date: {error}")
        return
    if text == now:
        yield good("it is what `hpcspawner helper` prints for this profile")
    else:
        yield wrong(f"{path} was made for another profile or by another release", _install(path))


async def _rule(client: Client, user: str) -> list[Finding]:
    access = client.access
    if access.api:
        return [not_checked("the Hub asks slurmrestd with tokens, so no rule is needed")]
    if not access.prefix:
        return [not_checked("jobs run as the Hub's own account, so no rule is needed")]
    if Path(access.prefix[0]).name not in ("sudo", "sudo-rs"):
        return [not_checked(f"{access.prefix[0]} is the site's own way to act for users")]
    if shutil.which(access.prefix[0], path=os.pathsep.join(access.path)) is None:
        return [wrong(f"{access.prefix[0]} was not found", "install sudo, or add its folder to scheduler.path")]
    found = []
    if user:
        found += await _may(client, user)
    if os.geteuid() == 0:
        return [
            *found,
            not_checked("root needs no rule; run this as the Hub's account to see whether its rule is right"),
        ]
    return [*found, *await _may_not(client, user)]


async def _may(client: Client, user: str) -> list[Finding]:
    """Whether the Hub may do what it has to."""
    scheduler, helper = client.scheduler, client.access.helper
    programs = [scheduler.submit_command[0], scheduler.cancel_words[0]]
    wanted = [[str(helper), verb] for verb in (sudo.SUBMIT, sudo.CANCEL)] if helper else None
    variables = [f"{name}={value}" for name, value in client.access.variables.items()]
    before = sudo.found(client.access, ["env", *variables]) if variables else []
    commands = wanted or [[*before, *sudo.found(client.access, [program])] for program in programs]
    for words in commands:
        if said := await _refused(client, user, words):
            return [wrong(f"the Hub may not run {shlex.join(words)} as {user}: {said}", client.cure())]
    return [good(f"the Hub may submit and cancel jobs as {user}")]


async def _may_not(client: Client, user: str) -> list[Finding]:
    """Whether it may do more."""
    cure = f"let the rule allow the helper alone; {client.cure()}"
    tries: list[tuple[str, Sequence[str]]] = [("root", [_TOO_MUCH])]
    if user:
        tries.append((user, [_TOO_MUCH]))
    if client.access.helper:
        tries += [("root", [str(client.access.helper), sudo.SUBMIT])]
    for account, words in tries:
        if not await _refused(client, account, words):
            what = f"the Hub may run {shlex.join(words)} as {account}, so the Hub can do all that {account} can"
            return [wrong(what, cure)]
    return [good("the Hub's account may run no shell as root or as a user")]


async def _refused(client: Client, user: str, words: Sequence[str]) -> str:
    """What sudo says where it would not run this as the user; "" where it would. Runs nothing."""
    access = client.access
    program = shutil.which(access.prefix[0], path=os.pathsep.join(access.path)) or access.prefix[0]
    environment = {**access.variables, "PATH": os.pathsep.join(access.path), "LC_ALL": "C"}
    try:
        answer = await run(Command([program, "-n", "-l", "-u", user, "--", *words]), environment, _LIMIT_S)
    except (GivenUp, OSError) as error:
        return str(error)
    return (answer.message or "not in the rule") if answer.code else ""
