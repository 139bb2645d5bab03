"""What the first bytes of an image say: whether it is one, and for which processor it is made."""

import platform
from pathlib import Path

# As a SIF file has them in its header.
_SIF_MAGIC = (32, b"SIF_MAGIC")
_SIF_ARCHITECTURE = slice(45, 47)
_ARCHITECTURES = {b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le"}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
_SQUASHFS = b"hsqs"


def why_not_here(path: Path) -> str:
    """Why this machine could not run the image of this file; "" if it could, or if this process may not read it."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError:
        return ""
    start, magic = _SIF_MAGIC
    if head[start : start + len(magic)] == magic:
        made_for = _ARCHITECTURES.get(head[_SIF_ARCHITECTURE], "another architecture")
        here = _MACHINES.get(platform.machine(), platform.machine())
        return "" if made_for == here else f"is made for {made_for}; this machine is {here}"
    # What came before SIF, such as .simg, is a squashfs, perhaps behind a line for the shell.
    return "" if _SQUASHFS in head else "is no image that Apptainer knows"
