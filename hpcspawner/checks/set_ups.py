"""Checks of what environments need to be set up: modules, a Python that runs, a Jupyter. Looked at as a user would."""

import json
import pwd
from collections.abc import Iterator

from hpcspawner.checks.finding import Check, Finding, good, not_checked, warning
from hpcspawner.programs.joined import joined_look
from hpcspawner.programs.usable import MODULE_CURE
from hpcspawner.request import looks
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.process import Command, GivenUp, run
from hpcspawner.site.environments import Environment
from hpcspawner.site.profile import SiteProfile

_LIMIT_S = 60.0
_FOR_ROOT = 77
_VARIABLES = {"PATH": "/usr/local/bin:/usr/bin:/bin"}


def checks(profile: SiteProfile, client: Client, user: str) -> Iterator[Check]:
    """One, where an environment has something that can be looked at from here."""
    if any(one.modules or one.conda or one.path for one in profile.environments):
        yield Check("set-up", lambda: _all(profile, client, user))


async def _all(profile: SiteProfile, client: Client, user: str) -> list[Finding]:
    as_user = bool(user) and client.access.look
    if client.access.ssh and not as_user:
        return [not_checked("environments are on the cluster; with scheduler.look and --user=NAME they are looked at")]
    try:
        home = pwd.getpwnam(user).pw_dir if as_user else "/"
    except KeyError:
        return [not_checked(f"there is no account {user!r} on this machine")]
    found = []
    for one in profile.environments:
        if one.modules or one.conda or one.path:
            line = looks.of_environment(profile, one, home)
            answer = await client.look(user, line) if as_user else await _here(line)
            found.append(_finding(one, answer))
    return found


async def _here(line: bytes) -> str:
    """The answer to this account itself; empty where there is none."""
    try:
        answer = await run(Command(["python3", "-IS", "-c", joined_look()], line), _VARIABLES, _LIMIT_S)
    except (OSError, GivenUp):
        return ""
    return json.dumps({"root": True}) if answer.code == _FOR_ROOT else answer.out


def _finding(one: Environment, answer: str) -> Finding:
    if answer == json.dumps({"root": True}):
        return not_checked(f"{one.name}: root is no user; run this as the Hub's account")
    try:
        messages, is_sure = looks.said_of_environment(answer)
    except looks.AnswerUnreadable:
        return not_checked(f"{one.name} could not be looked at here; --submit has a node look")
    if messages:
        what = " ".join(message.removesuffix(f" {MODULE_CURE}") for message in messages)
        cure = f"correct environments ({one.name}), or install what is missing; where only nodes have it, ignore this"
        return warning(f"{one.name}: {what}", cure)
    if not is_sure:
        return not_checked(f"{one.name}: there is no module system here that says whether its modules are there")
    return good(f"{one.name}: nothing is missing for its set-up")
