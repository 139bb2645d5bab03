"""Looks at files as a user, before a job is there: own environments, and what stands against a choice.

It reads one line of JSON and prints one. `{"find": FOLDERS}` looks for conda and virtual environments below these
folders and where conda puts them; `{"check": {"directory", "environment", "image", "set_up"}}` looks at paths, and at
what the set-up of an environment needs. Each may be left out. `set_up` has `modules` that are loaded after `purge` (by
`init`, with the folders `use`), the folder or name `conda` (looked for in `roots`), folders `path` for programs, and
`programs`, of which one must be there.

It runs as the user and is one file for Python 3.6 and later with the standard library alone. It reads names, the first
bytes of images and conda's list, and stops by itself: after LIMIT_S, and at MOST environments. To find environments it
runs nothing. A check runs the site's module system and the environment's Python, as the job would, for RUN_S at most;
what was found usable and has not changed since is kept in a file of the user's own, and not run again.
"""

import errno
import json
import os
import platform
import pwd
import re
import stat
import struct
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, Union

from hpcspawner.programs.usable import (
    ENTRIES,
    KEPT,
    LIST_BYTES,
    MOST,
    Kept,
    after_modules,
    inside,
    kind_of,
    login_variables,
    marker_of,
    state_of,
    why_no_modules,
    why_not_set_up,
    why_nothing_inside,
)

LIMIT_S = 8.0
MOST_PROBLEMS = 10
LONGEST_PATH = 1000
SPACE_BYTES = 65536
# What is left when a file system counts as nearly full.
LOW_BYTES = 100 << 20
LOW_FILES = 1000

# Where conda, its distributions and people put environments, below the home.
PLACES = ("", ".conda/envs", "envs", ".virtualenvs", ".local/share/virtualenvs")
CONDAS = ("miniconda3", "miniforge3", "mambaforge", "anaconda3", "micromamba", ".local/share/mamba")
# A package, and the program that it brings.
NEEDED = (("jupyterhub", "jupyterhub-singleuser"), ("jupyterlab", "jupyter-lab"), ("ipykernel", ""))

# As a SIF file has them in its header.
SIF_MAGIC = (32, b"SIF_MAGIC")
SIF_ARCHITECTURE = slice(45, 47)
# Where its data begins, and how long that is.
SIF_DATA = slice(112, 128)
SIF_HEADER_BYTES = 128
ARCHITECTURES = {b"01": "386", b"02": "amd64", b"03": "arm", b"04": "arm64", b"05": "ppc64", b"06": "ppc64le"}
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386"}
SQUASHFS = b"hsqs"


def main() -> int:
    """Answer one question; an exit code."""
    if 0 in (os.getuid(), os.geteuid()):
        sys.stderr.write("it looks at files only for ordinary users, not for root\n")
        return 77
    asked = json.loads(sys.stdin.readline())
    home = pwd.getpwuid(os.geteuid()).pw_dir
    answer = {"host": platform.node(), "home": os.path.isdir(home)}
    if "find" in asked:
        answer["found"] = list(found(home, asked["find"], time.monotonic() + LIMIT_S))
    else:
        answer.update(checked(asked["check"], home))
    print(json.dumps(answer))
    return 0


def found(home: str, folders: "List[str]", until: float) -> "Iterator[Dict[str, Any]]":
    """The user's own environments, each once: its folder, of what kind it is, and which packages it lacks."""
    seen = {}  # type: Dict[str, bool]
    for path in candidates(home, folders):
        if time.monotonic() > until or len(seen) >= MOST:
            return
        kind = kind_of(path)
        try:
            same = os.path.realpath(path)
        except OSError:
            continue
        if kind and same not in seen and len(path) <= LONGEST_PATH:
            seen[same] = True
            yield {"path": path, "kind": kind, "lacks": lacking(path)}


def candidates(home: str, folders: "List[str]") -> "Iterator[str]":
    """Folders that may be environments: those of conda's own list, of its usual places, and of the site's folders."""
    for path in listed(os.path.join(home, ".conda", "environments.txt")):
        yield path
    for name in CONDAS:
        yield os.path.join(home, name)
        for path in inside(os.path.join(home, name, "envs")):
            yield path
    for place in [os.path.join(home, name).rstrip("/") for name in PLACES] + list(folders):
        for path in inside(place):
            yield path


def listed(path: str) -> "List[str]":
    """The lines of conda's list that are paths."""
    try:
        # A user can put a pipe there, which would hold up who opens it.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            text = file.read(LIST_BYTES) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else b""
    except OSError:
        return []
    lines = [line.strip() for line in text.decode("utf-8", "replace").split("\n")[:ENTRIES]]
    return [os.path.normpath(line) for line in lines if line.startswith("/")]


def lacking(path: str) -> "List[str]":
    """Packages that an environment needs for a server and has not; none where it sees those of another Python."""
    try:
        with open(marker_of(path), encoding="utf-8", errors="replace") as file:
            if re.search(r"(?im)^include-system-site-packages\s*=\s*true", file.read(LIST_BYTES)):
                return []
    except OSError:
        pass
    libraries = [
        os.path.join(one, "site-packages")
        for one in inside(os.path.join(path, "lib"))
        if os.path.basename(one).startswith("python3")
    ]
    return [name for name, program in NEEDED if not has(path, libraries, name, program)]


def has(path: str, libraries: "List[str]", package: str, program: str) -> bool:
    """Whether an environment has a package, or the program that it brings."""
    by_program = bool(program) and os.access(os.path.join(path, "bin", program), os.X_OK)
    return by_program or any(os.path.isdir(os.path.join(one, package)) for one in libraries)


def checked(asked: "Dict[str, Any]", home: str) -> "Dict[str, Any]":
    """What stands against a choice, and whether its modules could not be looked at here."""
    kept, set_up = Kept(os.path.join(home, KEPT)), asked.get("set_up") or {}
    missing, variables = after_modules(set_up, home)
    found = [{"field": "environment", "message": why} for why in why_no_modules(missing)]
    folder, left = asked.get("environment") or "", variables or login_variables(home)
    if not missing and (variables is not None or folder):
        # An environment in a folder needs no module to be looked at, and may need one to run.
        set_up = set_up if variables is not None else {}
        found += [{"field": "environment", "message": why} for why in why_not_set_up(set_up, folder, left, kept)]
    folders = [*(set_up.get("path") or []), *left.get("PATH", "").split(":")]
    found += problems(asked, kept, home, folders)
    kept.write()
    unsure = {"unsure": True} if variables is None else {}
    return dict(unsure, problems=found[:MOST_PROBLEMS])


def problems(asked: "Dict[str, Any]", kept: Kept, home: str, folders: "List[str]") -> "Iterator[Dict[str, str]]":
    """What stands against an image and a directory: the form's field, a sentence, and the cure in it.

    `folders` are those in which the container program is looked for.
    """
    image, directory = asked.get("image"), asked.get("directory")
    inside_of = asked.get("inside") or []
    why = (why_no_image(image, kept) or why_nothing_inside(image, inside_of, folders, kept)) if image else ""
    if why:
        yield {"field": "image", "message": why}
    for one in folders_to_write(directory, home) if directory else ():
        why = why_no_directory(one)
        if why:
            yield {"field": "directory", "message": why}


def why_no_image(path: str, kept: Kept) -> str:
    """Why an image would not start; whose path this is."""
    if not os.path.exists(path):
        return "There is no image %s on %s. Check the path." % (path, platform.node())
    if not os.access(path, os.R_OK):
        return "You may not read the image %s. Ask its owner to let you, or copy it." % path
    state = [] if os.path.isdir(path) else state_of([path])
    why = why_not_here(path) if state and not kept.has(path, state) else ""
    if not why:
        kept.keep(path, state)
    return "The image %s %s. Choose another image, or make it for these machines." % (path, why) if why else ""


def why_not_here(path: "Union[str, os.PathLike[str]]") -> str:
    """Why this machine could not run the image of this file; "" if it could, or if this process may not read it."""
    try:
        with open(os.open(str(path), os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            head = file.read(SIF_HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
    except OSError:
        return ""
    start, magic = SIF_MAGIC
    if head[start : start + len(magic)] == magic:
        made_for = ARCHITECTURES.get(head[SIF_ARCHITECTURE], "another architecture")
        here = MACHINES.get(platform.machine(), platform.machine())
        if made_for != here:
            return "is made for %s; this machine is %s" % (made_for, here)
        return "is cut short; copy it again" if len(head) == SIF_HEADER_BYTES and size < end_of(head) else ""
    # What came before SIF, such as .simg, is a squashfs, perhaps behind a line for the shell.
    return "" if SQUASHFS in head else "is no image that Apptainer knows"


def end_of(head: bytes) -> int:
    """Where the data of a SIF file ends, by its header."""
    return int(sum(struct.unpack("<qq", head[SIF_DATA])))


def folders_to_write(directory: str, home: str) -> "List[str]":
    """The folder that was chosen, and the home, where it lies elsewhere: a server keeps files of its own there."""
    try:
        return [directory] if os.stat(directory).st_dev == os.stat(home).st_dev else [directory, home]
    except OSError:
        return [directory]


def why_no_directory(path: str) -> str:
    """Why a server could not work in a folder: it can't be opened or written to, or little room is left there."""
    try:
        os.listdir(path)
    except OSError as error:
        cure = "Create it, or choose another." if error.errno == errno.ENOENT else "Choose another."
        return "The directory %s can't be opened on %s: %s. %s" % (path, platform.node(), error.strerror, cure)
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return "Nothing can be written to %s on %s: its file system is read-only there." % (path, platform.node())
    if not os.access(path, os.W_OK | os.X_OK):
        return "You may not write to the directory %s. Choose another." % path
    return why_little_room(path)


def why_little_room(path: str) -> str:
    """Why nothing more, or little, can be kept in a folder."""
    try:
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"x" * SPACE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        full = {errno.ENOSPC: "its file system is full", errno.EDQUOT: "your quota is used up"}
        why = full.get(error.errno or 0, str(error.strerror))
        return "Nothing more can be written to %s: %s. Remove files there." % (path, why)
    room = os.statvfs(path)
    left = room.f_bavail * room.f_frsize
    if left < LOW_BYTES:
        return "Only %d MB are left in %s. Remove files there." % (left >> 20, path)
    # Some file systems count no files.
    if room.f_files and room.f_favail < LOW_FILES:
        return "Only %d more files can be kept in %s. Remove files there." % (room.f_favail, path)
    return ""


if __name__ == "__main__":
    sys.exit(main())
