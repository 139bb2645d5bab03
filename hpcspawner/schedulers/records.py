"""How jobs end, in words that all schedulers share."""

import signal

from hpcspawner.schedulers.state import Cause, Record

WALL_TIME = Record(Cause.WALL_TIME, "The job reached its wall time.")

FOLLOW_UP_REMOVED = Record(
    Cause.NOT_STARTED, "The follow-up job was removed because the job before it finished normally."
)

_NUMBERED = "uid "


def exited(code: int | None, number: int | None = None) -> Record:
    """The script ended by itself, or by a signal whose sender is not known."""
    if number:
        return Record(Cause.EXITED, f"The job was killed by signal {_named(number)}.", code, number)
    if code:
        return Record(Cause.EXITED, f"The job ended with exit code {code}.", code)
    return Record(Cause.EXITED, "The job ended without an error.", code)


def cancelled(by: str = "", code: int | None = None, number: int | None = None) -> Record:
    """An account ended it; "" if it is not known which, `numbered` where its name is not known."""
    who = {"": "", "root": " by root (an administrator)"}.get(by, f" by {by}")
    if by.startswith(_NUMBERED):
        who = f" by the account with {by}, whose name the Hub does not know"
    return Record(Cause.CANCELLED, f"The job was cancelled{who}.", code, number, by)


def numbered(uid: int) -> str:
    """What an account is called of which the Hub knows the number alone: one of a login node's that never used it."""
    return f"{_NUMBERED}{uid}"


def _named(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
