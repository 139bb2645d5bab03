"""How jobs end, in words that all schedulers share."""

import signal

from hpcspawner.language import _
from hpcspawner.schedulers.state import Cause, Record

AT_WALL_TIME = _("The job reached its wall time.")
WALL_TIME = Record(Cause.WALL_TIME, AT_WALL_TIME)

FOLLOW_UP_REMOVED = Record(
    Cause.NOT_STARTED, _("The follow-up job was removed because the job before it finished normally.")
)

_NUMBERED = "uid "


def exited(code: int | None, number: int | None = None) -> Record:
    """The script ended by itself, or by a signal whose sender is not known."""
    if number:
        return Record(Cause.EXITED, _("The job was killed by signal {signal}.", signal=_named(number)), code, number)
    if code:
        return Record(Cause.EXITED, _("The job ended with exit code {code}.", code=code), code)
    return Record(Cause.EXITED, _("The job ended without an error."), code)


def cancelled(by: str = "", code: int | None = None, number: int | None = None) -> Record:
    """An account ended it; "" if it is not known which, `numbered` where its name is not known."""
    known = {"": _("The job was cancelled."), "root": _("The job was cancelled by root (an administrator).")}
    message = known.get(by) or _("The job was cancelled by {account}.", account=by)
    if by.startswith(_NUMBERED):
        message = _("The job was cancelled by the account with {uid}, whose name the Hub does not know.", uid=by)
    return Record(Cause.CANCELLED, message, code, number, by)


def numbered(uid: int) -> str:
    """What an account is called of which the Hub knows the number alone: one of a login node's that never used it."""
    return f"{_NUMBERED}{uid}"


def _named(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)
