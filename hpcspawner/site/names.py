"""What names may look like, by what reads them: only what would mean something else there is refused.

All of them reach a scheduler as one word of a command, so no sign means anything to a shell. No pattern allows a blank,
a quote, a backslash or a `#`.
"""

import re

_LETTERS = "letters, digits and the signs"
# By scheduler and kind: the signs besides ASCII letters and digits. The first character is one of those, or of _FIRST.
_WIDE = "_.+-@:/%=~^"
_SIGNS = {
    "slurm": {
        "partition": _WIDE,
        "account": _WIDE,
        "qos": _WIDE,
        "reservation": _WIDE,
        # sbatch(1), --constraint: and, or, groups and counts of nodes.
        "feature": _WIDE + "|&()[]*",
        # A colon ends the type in `gpu:TYPE:COUNT`, a comma begins another resource.
        "gpu type": "_.+-@/%~",
    },
    "torque": {
        # `queue@server` names another server.
        "partition": "_.+-:/%=~^",
        "account": _WIDE,
        # A comma or a colon begins another resource.
        "qos": "_.+-@",
        "reservation": "_.+-@",
        # A `+` begins another request for nodes, a colon another property.
        "feature": "_.-",
        "gpu type": "_.-",
    },
}
_FIRST = {"feature": "_(["}
_LONGEST = 128
KINDS = tuple(_SIGNS["slurm"])

_NOT_IN_A_USERS_NAME = re.compile(r"""[/:;&|<>(){}\[\]*?"$`]""")
# sudo's ways to write a number, a group, a netgroup and a negation; an option's first sign.
_NOT_FIRST_OF_A_USERS_NAME = "-#%+!"
_LONGEST_USER = 256


def pattern(scheduler: str, kind: str, longest: int = _LONGEST) -> str:
    """An ASCII pattern for the whole of a name of this kind. `scheduler` is the profile's `scheduler.type`."""
    first = re.escape(_FIRST.get(kind, "_"))
    return rf"[A-Za-z0-9{first}][A-Za-z0-9{re.escape(_signs(scheduler, kind))}]{{0,{longest - 1}}}"


def is_name(text: str, scheduler: str, kind: str) -> bool:
    """Whether the text may be a name of this kind there."""
    return re.compile(pattern(scheduler, kind), re.ASCII).fullmatch(text) is not None


def allowed(scheduler: str, kind: str) -> str:
    """What such a name is made of, as the end of a sentence."""
    first = _FIRST.get(kind, "_")
    return (
        f"{_LETTERS} {' '.join(_signs(scheduler, kind))} are allowed, {_LONGEST} characters at most, beginning with a "
        f"letter, a digit or {' or '.join(first)}"
    )


def _signs(scheduler: str, kind: str) -> str:
    # The embedded scheduler is given none of them.
    return _SIGNS.get(scheduler, _SIGNS["slurm"])[kind]


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
