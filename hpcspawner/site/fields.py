"""The kinds of value that a profile has: lines, names, folders, times, sizes."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from hpcspawner.units import Memory, Walltime, shown

VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})(?=/|$)", re.ASCII)
"""A variable at the start of a folder, as shells write it: `$SCRATCH` or `${SCRATCH}`."""


def _one_line(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("control characters and line breaks are not allowed here")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("write an absolute path")
    return text


def _image(text: str) -> str:
    if not (text.startswith("/") or REFERENCE.fullmatch(text)):
        raise ValueError("write an absolute path, or a reference such as 'docker://…', 'oras://…', 'oci-archive:/…'")
    return text


def _absolute_or_home(text: str) -> str:
    if not re.match(r"(/|~/|~$)", text):
        raise ValueError("write an absolute path, or one that begins with '~/'")
    return text


def _rule(text: str) -> str:
    return text if re.match(r"\{home\}(/|$)", text) else _absolute_or_home(text)


def _folder(text: str) -> str:
    return text if VARIABLE.match(text) else _rule(text)


def _walltime_or_false(value: object) -> Walltime | None:
    try:
        return None if value is False else Walltime.parse(value)
    except ValueError as error:
        raise ValueError(f"{error}; false switches it off") from None


def _modules(line: str) -> str:
    for word in line.split():
        if not _MODULE.fullmatch(word):
            raise ValueError(
                f"{shown(word)} is not a module name: it begins with '-' or contains a quote, '$', '`', ';' or '&'"
            )
    return line


def _one_by_one(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for line in lines for word in line.split())


# Module names have signs of many kinds (`python@3.10`, `+mpi`, `~cuda`, `.hidden/1`); the job script quotes them.
_MODULE = re.compile(r"(?!-)[A-Za-z0-9_.~@+:=%,^!*/-]{1,256}")

REFERENCE = re.compile(
    r"(docker|oras|library|shub|https)://[A-Za-z0-9][A-Za-z0-9._/:@+-]*|(oci-archive|docker-archive|oci):/[^\x00-\x1f]*"
)
"""An image that is no file of its own; Apptainer fetches or converts it."""

Line = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
SchedulerName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line)]
"""A name that the scheduler gave; what may stand in it differs from one to the other, see `_names_there`."""
Value = Annotated[str, Field(max_length=500), AfterValidator(_one_line)]
Module = Annotated[Line, AfterValidator(_modules)]
"""One module, or several in a line as `module load` takes them."""
Modules = Annotated[tuple[Module, ...], AfterValidator(_one_by_one)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
PathText = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_absolute)]
ImagePath = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_image)]
# Signs that mean nothing in sudoers.
HelperPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,63}){1,10}$")]
HomePath = Annotated[
    str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_absolute_or_home)
]
FolderRule = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_folder)]
HomeRule = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_rule)]
Script = Annotated[str, Field(max_length=20_000)]
WalltimeText = Annotated[Walltime, PlainValidator(Walltime.parse)]
WalltimeOrFalse = Annotated[Walltime | None, PlainValidator(_walltime_or_false)]
MemoryText = Annotated[Memory, PlainValidator(Memory.parse)]
Count = Annotated[int, Field(ge=1, le=100_000, strict=True)]


class Frozen(BaseModel):
    """A part of a profile: unchangeable, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)
