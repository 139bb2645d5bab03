"""The user's own lines of bash, which a site may allow: they run in the job as the user, never on the Hub."""

import re

from hpcspawner.programs.helper import DIRECTIVE
from hpcspawner.units import shown

# All control characters but the line break and the tabulator, and halves of characters that no file can hold.
_REFUSED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def why_refused(value: object, most: int) -> str:
    """What is wrong with such lines; empty if nothing is. `most` is how many characters the site allows."""
    if not most:
        return "This site does not accept set-up lines of your own; leave it empty."
    if not isinstance(value, str):
        return f"Own set-up must be text, not {shown(value, 80)}."
    text = as_lines(value)
    if len(text) > most:
        return f"Own set-up is {len(text)} characters long; {most} are allowed."
    if found := _REFUSED.search(text):
        return f"Own set-up contains the control character {found.group()!r}; line breaks and tabs are allowed."
    if option := DIRECTIVE.search(text.encode()):
        line = shown(option.group().decode(errors="replace"))
        return f"Own set-up: {line} is an option for the scheduler, which takes none from here; remove the line."
    return ""


def as_lines(text: str) -> str:
    """The lines as bash reads them; a form sends carriage returns too."""
    return text.replace("\r\n", "\n").strip("\n")
