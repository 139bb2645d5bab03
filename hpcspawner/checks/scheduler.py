"""Checks of the scheduler's commands: there, of the right release, answering, and in time."""

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator

from hpcspawner.checks.finding import Check, Finding, good, not_checked, warning, wrong
from hpcspawner.errors import SchedulerError
from hpcspawner.schedulers.commands import Client

# A listing that takes longer is asked for less often, so users read older news.
_SLOW_S = 2.0
_SKEW_S = 5.0
_MOST_SKEW_S = 120.0


def checks(client: Client) -> Iterator[Check]:
    """All that can be seen of the commands from the Hub's machine."""
    yield Check("commands", lambda: _commands(client))
    yield Check("version", lambda: _version(client))
    yield Check("listing", lambda: _listing(client))
    yield Check("clock", lambda: _clock(client))


def _commands(client: Client) -> Iterable[Finding]:
    if client.access.ssh:
        yield not_checked("the commands are on the login nodes; run check there, with a profile without scheduler.ssh")
        return
    if client.access.api:
        yield not_checked("no commands are needed: the Hub asks slurmrestd")
        return
    scheduler = client.scheduler
    needed = [scheduler.submit_command[0], scheduler.cancel_words[0], scheduler.query_command("0")[0]]
    further = [scheduler.details_command("1")[0], *(argv[0] for argv in scheduler.end_commands("1", "0"))]
    further += [argv[0] for argv in [scheduler.visibility_command()] if argv]
    path = os.pathsep.join(client.access.path)
    missing = False
    for program in dict.fromkeys([*needed, *further]):
        if shutil.which(program, path=path):
            continue
        missing = True
        cure = "install it on the Hub's machine, or add its folder to scheduler.path"
        if program in needed:
            yield wrong(f"{program} was not found", cure)
        else:
            yield warning(f"{program} was not found, so the Hub can say less of jobs that have ended", cure)
    if not missing:
        yield good(f"{', '.join(dict.fromkeys([*needed, *further]))} found")


async def _version(client: Client) -> list[Finding]:
    reader = client.scheduler.inventory
    if client.access.ssh or client.access.api:
        return [not_checked("the commands are on the login nodes" if client.access.ssh else "slurmrestd is asked")]
    if reader is None:
        return [not_checked(f"{client.scheduler.name} has no release of its own")]
    answer = await client.answer(reader.version_command)
    text = answer.message
    if cure := client.scheduler.wrong_type(answer):
        return [wrong(f"these are not the commands of {client.scheduler.name}: {text[:100]!r}", cure)]
    found = re.search(r"\d+(?:\.\d+)+", text, re.ASCII)
    if answer.code or not found:
        return [
            warning(f"the release could not be read: {text[:100]!r}", "check that these are the scheduler's commands")
        ]
    release = tuple(int(part) for part in found[0].split("."))
    if reader.oldest and release < reader.oldest:
        oldest = ".".join(map(str, reader.oldest))
        return [
            warning(f"{client.scheduler.title} {found[0]} is older than {oldest}", "hpcspawner is not tested with it")
        ]
    return [good(f"{client.scheduler.title} {found[0]}")]


async def _listing(client: Client) -> list[Finding]:
    began = time.monotonic()
    listing = await client.listing()
    took = time.monotonic() - began
    said = f"{len(listing.jobs)} jobs listed in {took:.2f} s"
    if took > _SLOW_S:
        cure = (
            "the Hub asks less often then, and users read older news; look at the controller's load (sdiag, or the "
            "server's log)"
        )
        found = [warning(f"{said}, which is slow", cure)]
    else:
        found = [good(said)]
    if not client.access.has_nodes or await client.sees_all():
        return found
    if not client.scheduler.visibility_command():
        return [*found, not_checked("the scheduler does not say whether the Hub sees all users' jobs")]
    cure = (
        f"let the Hub's account, {client.own_account}, see all jobs (operator of Slurm, query_other_jobs of PBS), or "
        "print the sudo rule with --list; until then the Hub proves the end of a job more slowly"
    )
    return [*found, warning("the scheduler does not promise to show the Hub every user's jobs", cure)]


async def _clock(client: Client) -> list[Finding]:
    reader = client.scheduler.inventory
    if reader is None or not reader.clock_command:
        return [not_checked("the scheduler does not tell its time; --submit compares with a node's")]
    try:
        before = time.time()
        theirs = reader.parse_clock(await client.output(reader.clock_command))
        after = time.time()
        # It was asked in between, and tells whole seconds.
        return [skew(min(0.0, theirs + 1 - before) or max(0.0, theirs - after), "the controller")]
    except (SchedulerError, ValueError) as error:
        return [not_checked(f"the controller's clock can't be asked ({error})")]


def skew(seconds: float, whose: str) -> Finding:
    """How far a clock is ahead of this machine's; `whose` names it."""
    if abs(seconds) <= _SKEW_S:
        return good(f"the clocks of the Hub and {whose} agree")
    way = "ahead of" if seconds > 0 else "behind"
    what = f"the clock of {whose} is {abs(seconds):.0f} s {way} the Hub's"
    cure = "run chrony or ntpd on both machines; certificates and times on the pages depend on it"
    return wrong(what, cure) if abs(seconds) > _MOST_SKEW_S else warning(what, cure)
