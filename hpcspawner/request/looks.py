"""What is asked of `programs/look.py`, and its answers judged: they come from a process of the user's."""

import json
import posixpath
import re
from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hpcspawner.language import _, joined
from hpcspawner.programs import look
from hpcspawner.request.folders import directory_of, shortened
from hpcspawner.request.images import own_environment
from hpcspawner.request.model import JobRequest, LocalAccount
from hpcspawner.sentences import recognised
from hpcspawner.site.environments import Environment
from hpcspawner.site.interfaces import Interface
from hpcspawner.site.profile import Job, SiteProfile
from hpcspawner.units import printable

# As render.py names them in bash.
_CONDA_ROOTS = ("~/miniconda3", "~/miniforge3", "~/anaconda3", "~/.conda")
_MODULE_USE = re.compile(r"module\s+use(?:\s+/[\w./+-]*)+")
# A prologue that may change which modules there are.
_MODULES_IN = re.compile(r"\b(?:module|ml|MODULEPATH|source|eval)\b|(?:^|[;&|]\s*)\.\s", re.MULTILINE)
_BLIND = _("{host}, where the Hub looks, does not have your home.")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


_Kind = TypeVar("_Kind", bound=_Answer)


class _Found(_Answer):
    path: Annotated[str, Field(max_length=look.LONGEST_PATH, pattern="^/")]
    kind: Literal["conda", "venv"]
    lacks: Annotated[list[Literal["jupyterhub", "jupyterlab", "ipykernel"]], Field(max_length=3)]


class _Environments(_Answer):
    host: Annotated[str, Field(max_length=255)]
    home: bool
    found: Annotated[list[_Found], Field(max_length=look.MOST)]


class _Problem(_Answer):
    field: Literal["environment", "image", "directory"]
    message: Annotated[str, Field(max_length=3 * look.LONGEST_PATH)]


class _Problems(_Answer):
    host: Annotated[str, Field(max_length=255)]
    home: bool
    problems: Annotated[list[_Problem], Field(max_length=look.MOST_PROBLEMS)]
    unsure: bool = False


class AnswerUnreadable(Exception):
    """What came back is no answer of the program's; the text says so."""


def find(profile: SiteProfile, user: LocalAccount) -> bytes:
    """The question for a user's own environments."""
    variables = profile.directories.variables
    return _line({"find": [directory_of(folder, user, variables) for folder in profile.own_environments.folders]})


def environments(profile: SiteProfile, user: LocalAccount, answer: str) -> dict[str, object]:
    """For the form: `environments`, each with `name` (what is filled in) and `note`, and a `message`.

    One that lies where the site allows none is left out. Raises AnswerUnreadable.
    """
    told = _read(_Environments, answer)
    entries = [
        {"name": shortened(one.path, user), "note": _note(one, profile)}
        for one in told.found
        if _is_allowed(one.path, profile, user)
    ]
    return {"environments": entries, "message": "" if told.home else _blind(told.host)}


def _is_allowed(path: str, profile: SiteProfile, user: LocalAccount) -> bool:
    if not path.isprintable():
        return False
    variables = profile.directories.variables
    try:
        found = own_environment(path, profile.own_environments, lambda text: directory_of(text, user, variables))
    except ValidationError:
        return False
    # A path with `{user}` or the like in it would be read as another one.
    return found is not None and found.name == path


def _note(one: _Found, profile: SiteProfile) -> str:
    # A Jupyter without jupyterhub may stand behind the site's proxy.
    missing = [name for name in one.lacks if name != "jupyterhub" or not profile.job.proxy]
    kind = "conda" if one.kind == "conda" else _("virtual environment")
    return _("{kind}, without {packages}", kind=kind, packages=", ".join(missing)) if missing else kind


def check(profile: SiteProfile, user: LocalAccount, request: JobRequest, fallback: Sequence[str] = ()) -> bytes:
    """The question whether a request is usable; `fallback` are folders in which the job looks for programs at last."""
    conda = directory_of(request.environment.conda or "", user, profile.directories.variables)
    image = request.image.path if request.image else ""
    paths = {"directory": request.directory, "environment": conda, "image": image}
    asked: dict[str, object] = {name: path for name, path in paths.items() if path.startswith("/")}
    if image.startswith("/"):
        asked["inside"] = _programs(request.interface, profile.job)
    # What comes later in the set-up may bring programs, and an image has its own.
    is_whole = not (request.image or request.own_setup or fallback)
    return _line(
        {"check": asked | {"set_up": set_up(profile.job, request.environment, request.interface, user.home, is_whole)}}
    )


def of_environment(profile: SiteProfile, environment: Environment, home: str) -> bytes:
    """The question whether an environment of the profile can be set up, for a user with this home."""
    conda = _in_home(environment.conda or "", home)
    told = set_up(profile.job, environment, profile.default_interface, home, not environment.image)
    return _line({"check": {"set_up": told} | ({"environment": conda} if conda.startswith("/") else {})})


def said_of_environment(answer: str) -> tuple[list[str], bool]:
    """What stands against it, and whether all of it could be looked at. Raises AnswerUnreadable."""
    told = _read(_Problems, answer)
    return [printable(one.message) for one in told.problems], not told.unsure


def set_up(job: Job, environment: Environment, interface: Interface, home: str, is_whole: bool) -> dict[str, object]:
    """What `look.py` learns of a set-up: no more than it can know without running lines of the site's own."""
    folders, rest = _prologue(job.prologue or "")
    is_known = not _MODULES_IN.search(rest)
    is_whole = is_whole and not (rest or environment.setup or "PATH" in environment.variables)
    conda = _in_home(environment.conda or "", home)
    name = "" if conda.startswith("/") else conda
    roots = [*([job.conda] if job.conda else []), *_CONDA_ROOTS] if name else []
    told = {
        "init": _in_home(job.modules_init or "", home),
        "use": [_in_home(one, home) for one in folders],
        "purge": environment.purge_modules,
        "modules": environment.modules if is_known else (),
        "path": [_in_home(one, home) for one in environment.path],
        "conda": name,
        "roots": [_in_home(one, home) for one in roots],
        "programs": _programs(interface, job) if is_whole else (),
    }
    return {name: value for name, value in told.items() if value}


def _prologue(text: str) -> tuple[list[str], str]:
    """Folders that a prologue adds for modules, and what else it does."""
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line and not line.startswith("#")]
    uses = [line.split()[2:] for line in lines if _MODULE_USE.fullmatch(line)]
    rest = [line for line in lines if not _MODULE_USE.fullmatch(line)]
    # A folder goes before those that are there.
    return [folder for folders in uses for folder in folders], "\n".join(rest)


def _programs(interface: Interface, job: Job) -> list[str]:
    """Programs of which an environment needs one; none where another program than Jupyter opens."""
    commands = [interface.command, *([interface.alone] if job.proxy else [])]
    named = [command[0] for command in commands if command]
    return named if all(posixpath.basename(one).startswith("jupyter") for one in named) else []


def _in_home(text: str, home: str) -> str:
    return home + text[1:] if text == "~" or text.startswith("~/") else text


def problems(answer: str) -> dict[str, object]:
    """For the form: `problems`, each with `field` and `message`, and a `message`. Raises AnswerUnreadable."""
    told = _read(_Problems, answer)
    host = printable(told.host)
    if not told.home:
        return {"problems": [], "message": joined([_blind(told.host), _("A start looks on the node.")])}
    listed = [{"field": one.field, "message": recognised(printable(one.message))} for one in told.problems]
    sentences = joined(str(one["message"]) for one in listed)
    good = _("Checked on {host}: directory, environment and image are usable.", host=host)
    unsure = _("{host} has no module system: a start looks for the modules on the node.", host=host)
    return {"problems": listed, "message": sentences or (joined([good, unsure]) if told.unsure else good)}


def _blind(host: str) -> str:
    return _BLIND.fill(host=printable(host))


def _line(asked: dict[str, object]) -> bytes:
    return json.dumps(asked).encode() + b"\n"


def _read(kind: type[_Kind], answer: str) -> _Kind:
    try:
        return kind.model_validate_json(answer)
    except ValidationError:
        raise AnswerUnreadable("The answer could not be read.") from None
