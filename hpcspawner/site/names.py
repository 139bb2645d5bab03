"""What names may look like, by what reads them: only what would mean something else there is refused.

All of them reach a scheduler as one word of a command, so no sign means anything to a shell. No pattern allows a blank,
a quote, a backslash or a `#`.
"""

import re
from collections.abc import Mapping

from hpcspawner.site.scheduler_types import rules

_LETTERS = "letters, digits and the signs"
WIDE = "_.+-@:/%=~^"
# A list's comma, and what a scheduler may read as a choice, begin another name.
NARROW = "_.-"
DEFAULT_SIGNS = {
    "partition": WIDE,
    "account": WIDE,
    "qos": WIDE,
    "reservation": WIDE,
    "feature": NARROW,
    "gpu type": NARROW,
}
"""By kind of name: the signs besides ASCII letters and digits. See `_first` for the first character."""
_LONGEST = 128
KINDS = tuple(DEFAULT_SIGNS)

_NOT_IN_A_USERS_NAME = re.compile(r"""[/:;&|<>(){}\[\]*?"$`]""")
# sudo's ways to write a number, a group, a netgroup and a negation; an option's first sign.
_NOT_FIRST_OF_A_USERS_NAME = "-#%+!"
_LONGEST_USER = 256


def pattern(signs: Mapping[str, str], kind: str, longest: int = _LONGEST) -> str:
    """An ASCII pattern for the whole of a name of this kind. `signs` are those of the scheduler's `ProfileRules`."""
    first = re.escape(_first(signs, kind))
    return rf"[A-Za-z0-9{first}][A-Za-z0-9{re.escape(_signs(signs, kind))}]{{0,{longest - 1}}}"


def is_name(text: str, scheduler: str, kind: str) -> bool:
    """Whether the text may be a name of this kind there. `scheduler` is the profile's `scheduler.type`."""
    return re.compile(pattern(rules(scheduler).signs, kind), re.ASCII).fullmatch(text) is not None


def allowed(scheduler: str, kind: str) -> str:
    """What such a name is made of, as the end of a sentence."""
    signs = rules(scheduler).signs
    first = _first(signs, kind)
    return (
        f"{_LETTERS} {' '.join(_signs(signs, kind))} are allowed, {_LONGEST} characters at most, "
        f"beginning with a letter, a digit or {' or '.join(first)}"
    )


def _first(signs: Mapping[str, str], kind: str) -> str:
    """Signs that a name may begin with: where the scheduler reads groups, also what opens one."""
    return "_" + "".join(sign for sign in "([" if sign in _signs(signs, kind))


def _signs(signs: Mapping[str, str], kind: str) -> str:
    return signs.get(kind, DEFAULT_SIGNS[kind])


def user_problem(name: str) -> str:
    """Why no command may be given this user's name, as the end of a sentence; "" if one may.

    It is a name of the user database, so all is allowed that sudo, the scheduler and a shell read as that name alone.
    """
    if not name or len(name) > _LONGEST_USER:
        return f"it has {len(name)} characters, and 1 to {_LONGEST_USER} are allowed"
    if not name.isprintable() or name != name.strip():
        return "it begins or ends with a blank, or contains a control character"
    if name[0] in _NOT_FIRST_OF_A_USERS_NAME:
        return f"it begins with {name[0]!r}, which sudo does not read as part of a name"
    if found := _NOT_IN_A_USERS_NAME.search(name):
        return f"it contains {found[0]!r}, which is not allowed in a user name"
    return ""
