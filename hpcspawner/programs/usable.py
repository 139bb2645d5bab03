"""What the set-up of an environment needs, looked at as the user: modules, the environment's Python, its Jupyter.

A part of look.py, with which it is joined to one program.
"""

import json
import os
import platform
import pwd
import stat
import subprocess
import tempfile
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

MOST = 50
ENTRIES = 500  # looked at in one folder
LIST_BYTES = 65536
RUN_S = 8
KEPT = ".cache/hpcspawner/usable.json"
KEPT_S = 86400.0

PACKAGES = {"jupyterhub-singleuser": "jupyterhub", "jupyter-lab": "jupyterlab", "jupyter-notebook": "notebook"}
CONTAINERS = ("apptainer", "singularity")
# Inside an image, whose shell may be any: whether one of these words is a program there.
NO_PROGRAM = 47
FIND_PROGRAMS = 'for one; do command -v "$one" >/dev/null 2>&1 && exit 0; done; exit %d' % NO_PROGRAM
# Exits with this where a package is not there; the packages are not imported, which would take seconds.
NO_PACKAGE = 3
FIND_PACKAGES = "import importlib.util as u, sys; sys.exit(%d * any(not u.find_spec(n) for n in sys.argv[1:]))"

MODULE_CURE = "Choose another environment, and tell those who run this cluster."
# What may bring the command `module`, as words of bash: the files of a login, then those of module systems.
MODULE_FILES = (
    "/etc/profile.d/*.sh /usr/share/{lmod/lmod,Modules,modules}/init/bash"
    " /opt/{ohpc/admin/lmod/lmod,lmod/lmod,apps/lmod/lmod}/init/bash"
)
# Its words: a file to read in place of MODULE_FILES or nothing, then `use=FOLDER`, `purge` or `load=MODULE`. It answers
# with the modules that there are not, `module-system` where there is none, `ready`, and the environment that it leaves,
# each ended by a null byte.
LOAD = """
hpc_words=("$@")
exec 3>&1 >/dev/null 2>&1 </dev/null
pathmunge() {
  case ":$PATH:" in *":$1:"*) ;; *) if [ "${2-}" = after ]; then PATH=$PATH:$1; else PATH=$1:$PATH; fi ;; esac
}
if [ -n "$1" ]; then hpc_files=("$1"); else hpc_files=(%s); fi
for hpc_file in "${hpc_files[@]}"; do
  case $hpc_file in /etc/profile.d/*) ;; *) if type module; then break; fi ;; esac
  if [ -r "$hpc_file" ]; then . "$hpc_file"; fi
done
hpc_is_loaded() {
  case ":${LOADEDMODULES-}:" in *":$1:"* | *":$1/"*) return 0 ;; esac
  return 1
}
hpc_is_there() {
  local line
  if module is-avail "$1" || hpc_is_loaded "$1"; then return 0; fi
  while read -r line; do
    case $line in "$1" | "$1/"* | "$1("*) return 0 ;; esac
  done < <(module -t avail "$1" 2>&1)
  return 1
}
if ! type module; then printf 'module-system\\0' >&3; hpc_words=(); fi
for hpc_word in "${hpc_words[@]:1}"; do
  case $hpc_word in
    use=*) module use "${hpc_word#use=}" ;;
    purge) module purge ;;
    load=*)
      hpc_word=${hpc_word#load=}
      module load "$hpc_word" && continue
      hpc_is_there "$hpc_word" || printf 'missing %%s\\0' "$hpc_word" >&3
      ;;
  esac
done
printf 'ready\\0' >&3
env -0 >&3
"""


class Kept:
    """What was found usable, by the state in which its files were: a file in the user's home, for the user alone."""

    def __init__(self, path: str):
        """What was kept; nothing where the file is another's or can't be read."""
        self.path, self.changed = path, False
        self.entries = {}  # type: Dict[str, List[Any]]
        try:
            with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb") as file:
                status = os.fstat(file.fileno())
                if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
                    found = json.loads(file.read(LIST_BYTES).decode("utf-8"))
                    self.entries = {str(key): list(value) for key, value in found.items()}
        except (OSError, ValueError, AttributeError, TypeError):
            pass

    def has(self, key: str, state: "List[Any]") -> bool:
        """Whether this was usable in this state, not long ago."""
        entry = self.entries.get(key, [])
        # A clock that was set back makes nothing younger.
        is_new = len(entry) == 2 and isinstance(entry[1], (int, float)) and 0 <= time.time() - entry[1] < KEPT_S
        return bool(state) and is_new and entry[0] == state

    def keep(self, key: str, state: "List[Any]") -> None:
        """It is usable in this state."""
        if state:
            self.entries[key] = [state, time.time()]
            self.changed = True

    def write(self) -> None:
        """Keep the newest; a home without room has no need of it."""
        if not self.changed:
            return
        newest = list(self.entries.items())[-MOST:]
        folder = os.path.dirname(self.path)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            # Of mode 0600 by itself; another's link in the place of the old one is replaced.
            number, new = tempfile.mkstemp(dir=folder)
        except OSError:
            return
        try:
            with open(number, "w", encoding="utf-8") as file:
                json.dump(dict(newest), file)
            os.replace(new, self.path)
        except OSError:
            os.unlink(new)


def state_of(paths: "List[str]") -> "List[Any]":
    """What changes when one of these files does; empty where one is not there."""
    try:
        found = [os.stat(path) for path in paths]
    except OSError:
        return []
    return [[one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns] for one in found]


def run(argv: "List[str]", variables: "Dict[str, str]") -> "Tuple[Optional[int], bytes]":
    """Run a program for RUN_S at most: its exit code, None where it took too long or can't be run; what it said."""
    with tempfile.TemporaryFile() as said:
        try:
            # This ends all that it has started, also when its caller has gone.
            code = subprocess.call(
                ["timeout", "-s", "KILL", str(RUN_S), *argv],
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                env=variables,
                cwd="/",
            )
        except OSError:
            return None, b""
        said.seek(0)
        return (None if code in (-9, 137) else code), said.read(16 * LIST_BYTES)


def login_variables(home: str) -> "Dict[str, str]":
    """What a program finds in its environment before any set-up."""
    name = pwd.getpwuid(os.geteuid()).pw_name
    path = "/usr/local/bin:/usr/bin:/bin"
    return {"HOME": home, "USER": name, "LOGNAME": name, "PATH": path, "LANG": "C.UTF-8", "SHELL": "/bin/bash"}


def after_modules(set_up: "Dict[str, Any]", home: str) -> "Tuple[List[str], Optional[Dict[str, str]]]":
    """Modules that there are not, and the environment that they leave; None where that can't be known here."""
    names = set_up.get("modules") or []
    variables = login_variables(home)
    if not names:
        return [], variables
    words = ["use=" + one for one in set_up.get("use") or []] + ["purge"] * bool(set_up.get("purge"))
    words += ["load=" + one for one in names]
    bash = ["bash", "--noprofile", "--norc", "-c", LOAD % MODULE_FILES, "look", set_up.get("init") or "", *words]
    code, said = run(bash, variables)
    lines = said.decode("utf-8", "surrogateescape").split("\0")
    if code is None or "ready" not in lines or "module-system" in lines:
        return [], None
    told, left = lines[: lines.index("ready")], lines[lines.index("ready") + 1 :]
    missing = [one[len("missing ") :] for one in told if one.startswith("missing ")]
    return missing, dict(one.split("=", 1) for one in left if "=" in one)  # type: ignore[misc]


def why_no_modules(missing: "List[str]") -> "Iterator[str]":
    """Sentences about modules that there are not."""
    for name in missing:
        yield "There is no module %s on %s. %s" % (name, platform.node(), MODULE_CURE)


def why_not_set_up(set_up: "Dict[str, Any]", folder: str, variables: "Dict[str, str]", kept: Kept) -> "Iterator[str]":
    """Why an environment would not start a server, once its modules have left these variables."""
    folder = folder or prefix_of(set_up, variables)
    why = why_no_environment(folder) or why_not_running(folder, set_up, variables, kept) if folder else ""
    if why:
        yield why


def prefix_of(set_up: "Dict[str, Any]", variables: "Dict[str, str]") -> str:
    """The folder of the environment that a set-up activates; empty where that is not sure."""
    name = set_up.get("conda") or ""
    if not name:
        # A virtual environment's `bin` in the PATH.
        folders = [os.path.dirname(one.rstrip("/")) for one in set_up.get("path") or []]
        return next((one for one in folders if kind_of(one)), "")
    programs = [os.path.join(one, "conda") for one in variables.get("PATH", "").split(":")]
    roots = [os.path.dirname(os.path.dirname(os.path.realpath(one))) for one in programs if os.access(one, os.X_OK)]
    places = [os.path.join(one, "envs", name) for one in roots + list(set_up.get("roots") or [])]
    return next((one for one in places if os.path.isdir(os.path.join(one, "bin"))), "")


def why_no_environment(path: str) -> str:
    """Why an environment would not start a server."""
    if not os.path.isdir(path):
        return "There is no environment in %s on %s. Make it again, or choose another." % (path, platform.node())
    if not os.access(python_of(path), os.X_OK):
        return "The environment %s has no Python that runs (%s). Make it again." % (path, python_of(path))
    return ""


def why_not_running(path: str, set_up: "Dict[str, Any]", variables: "Dict[str, str]", kept: Kept) -> str:
    """Why an environment's Python or Jupyter does not run."""
    folders = [os.path.join(path, "bin"), *(set_up.get("path") or []), *variables.get("PATH", "").split(":")]
    wanted = set_up.get("programs") or []
    there = [os.path.join(one, name) for name in wanted for one in folders if is_program(os.path.join(one, name))]
    if wanted and not there:
        package = PACKAGES.get(wanted[0])
        advice = " Add the package %s to that environment, with pip or conda." % package if package else ""
        return "%s was not found in %s.%s" % (wanted[0], path, advice)
    program = there[0] if there and os.path.dirname(there[0]) == folders[0] else ""
    state = state_of([python_of(path), *marks_of(path), *([program] if program else [])])
    key = json.dumps([path, program, set_up.get("modules"), set_up.get("use"), set_up.get("init")])
    if kept.has(key, state):
        return ""
    variables = dict(variables, PATH=":".join(folders), CONDA_PREFIX=path)
    why = why_no_python(path, program, variables)
    if not why:
        kept.keep(key, state)
    return why


def why_no_python(path: str, program: str, variables: "Dict[str, str]") -> str:
    """Why an environment's Python does not run, or that of its program does not find the program's package."""
    package = PACKAGES.get(os.path.basename(program), "")
    # The program's Python may be another; a shell may stand there too, where the path is long.
    python = interpreter_of(program) if package else ""
    asks = python if os.path.basename(python).startswith("python") else ""
    runs = [[python_of(path), "-c", FIND_PACKAGES % NO_PACKAGE, *([package] if asks == python_of(path) else [])]]
    runs += [[asks, "-c", FIND_PACKAGES % NO_PACKAGE, package]] if asks not in ("", python_of(path)) else []
    for argv in runs:
        code, said = run(argv, variables)
        if code == NO_PACKAGE and argv[-1] == package:
            lacks = "The environment %s has %s, and its Python can't find the package %s. Install it again there."
            return lacks % (path, os.path.basename(program), package)
        if code is None:
            return "The Python of the environment %s did not answer on %s within %d s." % (path, platform.node(), RUN_S)
        if code:
            last = said.decode("utf-8", "replace").strip().split("\n")[-1][:200].strip() or "exit code %d" % code
            does_not = "The Python of the environment %s does not run on %s: %s. Make it again."
            return does_not % (path, platform.node(), last)
    return ""


def why_nothing_inside(image: str, programs: "List[str]", folders: "List[str]", kept: Kept) -> str:
    """Why an image would start no server: it has none of these programs. Empty where it can't be entered here."""
    there = [os.path.join(folder, name) for name in CONTAINERS for folder in folders]
    container = next((one for one in there if is_program(one)), "")
    places = [os.path.join(image, one) for one in ("bin", "usr/bin", "usr/local/bin", "opt/conda/bin")]
    state, key = state_of([image, *filter(os.path.isdir, places)]), json.dumps([image, programs])
    if not programs or not container or kept.has(key, state):
        return ""
    words = ["/bin/sh", "-c", FIND_PROGRAMS, "look", *programs]
    variables = dict(login_variables("/"), PATH=":".join(folders))
    code, _ = run([container, "exec", "--containall", "--cleanenv", image, *words], variables)
    if code == 0:
        kept.keep(key, state)
    has_none = "The image %s has no %s. Choose another image, or add it there."
    return has_none % (image, " or ".join(programs)) if code == NO_PROGRAM else ""


def is_program(path: str) -> bool:
    """Whether this can be run: a file, and where it names an interpreter, that is there."""
    interpreter = interpreter_of(path)
    there = not interpreter or os.path.exists(interpreter)
    return os.path.isfile(path) and os.access(path, os.X_OK) and there


def interpreter_of(path: str) -> str:
    """The program that the first line of a script names; empty for none."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            first = file.readline(300).decode("utf-8", "replace")
    except OSError:
        return ""
    words = first[2:].split() if first.startswith("#!") else []
    return words[0] if words else ""


def marks_of(path: str) -> "List[str]":
    """Files and folders of an environment that change when its packages do."""
    places = [os.path.join(path, "conda-meta", "history"), marker_of(path)]
    places += [os.path.join(one, "site-packages") for one in inside(os.path.join(path, "lib"))]
    return [one for one in places if os.path.exists(one)]


def inside(folder: str) -> "List[str]":
    """What lies in a folder, by name; nothing where it can't be read."""
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                names.append(entry.name)
                if len(names) >= ENTRIES:
                    break
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(names)]


def kind_of(path: str) -> str:
    """`conda` or `venv`; empty for what is no environment with a Python."""
    kinds = (("conda", os.path.isdir(os.path.join(path, "conda-meta"))), ("venv", os.path.isfile(marker_of(path))))
    return next((kind for kind, there in kinds if there and os.access(python_of(path), os.X_OK)), "")


def marker_of(path: str) -> str:
    """The file that makes a folder a virtual environment."""
    return os.path.join(path, "pyvenv.cfg")


def python_of(path: str) -> str:
    """Where an environment has its Python."""
    return os.path.join(path, "bin", "python")
