"""Words of bash."""

import shlex


def quote(value: object) -> str:
    """One word of shell, whatever is in it: the filter that every value passes."""
    return shlex.quote(str(value))


def quote_path(path: str) -> str:
    """A folder as one word of shell, a leading `~` left to the node to fill in."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + (shlex.quote(path[1:]) if path[1:] else "")
    return shlex.quote(path)
