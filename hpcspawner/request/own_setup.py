"""The user's own lines of bash, which a site may allow: they run in the job as the user, never on the Hub."""

import re

from hpcspawner.language import _
from hpcspawner.programs.helper import DIRECTIVE
from hpcspawner.units import shown

# All control characters but the line break and the tabulator, and halves of characters that no file can hold.
_REFUSED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def why_refused(value: object, most: int) -> str:
    """What is wrong with such lines; empty if nothing is. `most` is how many characters the site allows."""
    if not most:
        return _("This site does not accept set-up lines of your own; leave it empty.")
    if not isinstance(value, str):
        return _("Own set-up must be text, not {value}.", value=shown(value, 80))
    text = as_lines(value)
    if len(text) > most:
        return _("Own set-up is {count} characters long; {most} are allowed.", count=len(text), most=most)
    if found := _REFUSED.search(text):
        message = _("Own set-up contains the control character {character}; line breaks and tabs are allowed.")
        return message.fill(character=repr(found.group()))
    if option := DIRECTIVE.search(text.encode()):
        line = shown(option.group().decode(errors="replace"))
        message = _("Own set-up: {line} is an option for the scheduler, which takes none from here; remove the line.")
        return message.fill(line=line)
    return ""


def as_lines(text: str) -> str:
    """The lines as bash reads them; a form sends carriage returns too."""
    return text.replace("\r\n", "\n").strip("\n")
