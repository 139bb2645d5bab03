"""A check as a value: what was looked at, what was found, what to do about it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, more
from hpcspawner.troubles import BY_CHECK
from hpcspawner.units import printable

# Above every time limit of a command; a check that takes longer hangs.
_LIMIT_S = 900.0


class Outcome(StrEnum):
    """What a check has found."""

    GOOD = "ok"
    WARNING = "warning"
    """It works, and not as well as it could, or not for long."""
    WRONG = "wrong"
    """Users will meet it."""
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check has found: `what` is a sentence or a part of one, `cure` what to do, "" where there is nothing.

    `entry` is the one of the page about troubleshooting; `run_all` fills in that of the check.
    """

    outcome: Outcome
    what: str
    cure: str = ""
    entry: str = ""

    @property
    def ok(self) -> bool:
        """Whether there is nothing to do."""
        return self.outcome in (Outcome.GOOD, Outcome.NOT_CHECKED)

    @property
    def text(self) -> str:
        """Both on one line."""
        return printable(f"{self.what.rstrip('.')}. {self.cure[:1].upper()}{self.cure[1:]}" if self.cure else self.what)

    @property
    def explained(self) -> str:
        """The same, and where it is explained."""
        return f"{self.text}{more(self.entry) if self.entry and not self.ok else ''}"


def good(what: str) -> Finding:
    """Nothing to do."""
    return Finding(Outcome.GOOD, what)


def warning(what: str, cure: str, entry: str = "") -> Finding:
    """It works for now."""
    return Finding(Outcome.WARNING, what, cure, entry)


def wrong(what: str, cure: str, entry: str = "") -> Finding:
    """Users will meet it."""
    return Finding(Outcome.WRONG, what, cure, entry)


def not_checked(what: str) -> Finding:
    """Could not be looked at from here; `what` says why."""
    return Finding(Outcome.NOT_CHECKED, what)


def of_error(error: SchedulerError) -> Finding:
    """What a command of the scheduler said, and the cure."""
    said = error.words if error.words not in str(error) else ""
    what = " ".join(
        filter(None, [str(error), error.command and f"Command: {error.command}.", said and f"It said: {said}"])
    )
    if isinstance(error, SchedulerNotSetUp):
        return wrong(what, error.cure, error.entry)
    return wrong(what, "run the command by hand under the Hub's account; the scheduler or the network may be down")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at; `run` yields one finding or several, at once or awaited."""

    name: str
    run: Callable[[], Iterable[Finding] | Awaitable[Iterable[Finding]]]


Checked = tuple[str, Finding]


async def run_all(checks: Iterable[Check]) -> AsyncIterator[Checked]:
    """Run the checks one after the other: the name of each with every finding. Raises nothing."""
    for check in checks:
        for finding in await _findings(check):
            yield check.name, replace(finding, entry=finding.entry or BY_CHECK.get(check.name, ""))


async def _findings(check: Check) -> list[Finding]:
    try:
        async with asyncio.timeout(_LIMIT_S):
            # Off the loop: files and names may lie on a network that hangs.
            found: Any = await asyncio.to_thread(_begun, check)
            return list(found if isinstance(found, list) else await found)
    except SchedulerError as error:
        return [of_error(error)]
    except TimeoutError:
        return [
            wrong(f"the check did not end within {_LIMIT_S:g} s", "look for a file system or a name server that hangs")
        ]
    except Exception as error:
        return [wrong(f"the check itself failed: {error!r}", "report this as a bug of hpcspawner")]


def _begun(check: Check) -> Any:
    found = check.run()
    return found if isinstance(found, Awaitable) else list(found)


def lines(checked: Iterable[Checked]) -> Iterator[str]:
    """One line for each finding, for people."""
    for name, finding in checked:
        yield f"{finding.outcome.value:<12} {name}: {finding.explained}"


def as_data(checked: Iterable[Checked]) -> list[dict[str, str]]:
    """The same for programs."""
    return [
        {
            "check": name,
            "outcome": one.outcome.value,
            "what": printable(one.what),
            "cure": printable(one.cure),
            "entry": "" if one.ok else one.entry,
        }
        for name, one in checked
    ]
