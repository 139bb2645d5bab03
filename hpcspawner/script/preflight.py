"""What can be seen of a profile's files before any job runs: images, the proxy's environment, folders of PATH.

It looks from this machine with the rights of its own process. A file whose folder is not here either may well be on the
nodes, so nothing is said of it. What only the job can see, as the user, the launcher checks when it starts.
"""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcspawner.site.environments import Environment, Image
from hpcspawner.site.profile import SiteProfile

# As a SIF file has them in its header.
_SIF_MAGIC = (32, b"SIF_MAGIC")
_SIF_ARCHITECTURE = slice(45, 47)
_ARCHITECTURES = {b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le"}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
_SQUASHFS = b"hsqs"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that can't work: the key of the profile, what is wrong, what to do."""

    place: str
    problem: str
    cure: str


def findings(profile: SiteProfile) -> list[Finding]:
    """Everything that is wrong, as far as this machine shows it."""
    found = [*_proxy(profile.job.proxy)] if profile.job.proxy else []
    found += [one for image in profile.images for one in _image(image)]
    return found + [one for environment in profile.environments for one in _folders(environment)]


def _is_missing(path: Path) -> bool:
    """Whether a file is not there, though the folder that should hold it is."""
    return not path.exists() and path.parent.is_dir()


def _proxy(folder: str) -> Iterator[Finding]:
    make = f"make it with: python3 -m venv {folder} && {folder}/bin/pip install jupyter-server-proxy jupyterhub"
    if _is_missing(Path(folder)):
        yield Finding("job.proxy", f"there is no folder {folder} here", make)
        return
    if not Path(folder).is_dir():
        return
    if not Path(folder, "bin", "python3").exists():
        yield Finding("job.proxy", f"{folder} has no bin/python3", make)
    for package in ("jupyter_server_proxy", "jupyterhub"):
        if not any(Path(folder, "lib").glob(f"python3*/site-packages/{package}")):
            yield Finding("job.proxy", f"{folder} has no {package}", make)


def _image(image: Image) -> Iterator[Finding]:
    place, path = f"images ({image.name}).path", Path(image.path)
    if not image.path.startswith("/"):
        return
    if _is_missing(path):
        yield Finding(place, f"there is no {path} here", "correct the path, or copy the image there")
    elif path.is_file() and (why := _why_no_image(path)):
        yield Finding(place, f"{path} {why}", "make or fetch the image anew, for the nodes' architecture")


def _why_no_image(path: Path) -> str:
    """What is wrong with an image's file; empty if nothing is, or if this process may not read it."""
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


def _folders(environment: Environment) -> Iterator[Finding]:
    for folder in environment.path:
        if os.path.isabs(folder) and _is_missing(Path(folder)):
            yield Finding(f"environments ({environment.name}).path", f"there is no folder {folder} here", "correct it")
