"""What names may look like, by what reads them: only what would mean something else there is refused.

All of them reach a scheduler as one word of a command, so no sign means anything to a shell. No pattern allows a blank,
a quote, a backslash or a `#`.
"""

import re
from collections.abc import Mapping

from hpcspawner.language import _
from hpcspawner.programs import helper
from hpcspawner.site.scheduler_types import rules

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

user_problem = helper.user_problem
"""Why no command may be given a user's name; "" if one may. The helper asks it too."""


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
    message = _(
        "letters, digits and the signs {signs} are allowed, {most} characters at most, beginning with a letter, a "
        "digit or one of {first}"
    )
    return message.fill(signs=" ".join(_signs(signs, kind)), most=_LONGEST, first=" ".join(first))


def _first(signs: Mapping[str, str], kind: str) -> str:
    """Signs that a name may begin with: where the scheduler reads groups, also what opens one."""
    return "_" + "".join(sign for sign in "([" if sign in _signs(signs, kind))


def _signs(signs: Mapping[str, str], kind: str) -> str:
    return signs.get(kind, DEFAULT_SIGNS[kind])
