"""What opens in the browser: Jupyter, or any other web program behind a proxy that asks the Hub."""

import re
from collections.abc import Iterable, Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator

from hpcspawner.site.fields import Frozen, Line, Name, Value, Variable

PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
"""A placeholder as it stands in a word of a command."""
LISTENS = ("socket", "port")
"""A program listens on one of these; a command that has one of them is another program's than Jupyter's."""
IN_COMMAND = (*LISTENS, "base_url", "folder")
IN_TEXTS = (*IN_COMMAND, "secret")
"""What may stand in variables, headers and files. Words of a command are for everyone on the node to read."""

FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
FileText = Annotated[str, Field(max_length=10_000)]
Polled = Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]{0,200}$")]


class Interface(Frozen):
    """What opens in the browser."""

    name: Name
    title: Line | None = None
    help: Line | None = None
    url: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]{0,200}$", description="Page shown first.")] = "/lab"
    command: Annotated[tuple[Line, ...], Field(min_length=1)] = ("jupyterhub-singleuser",)
    programs: Annotated[tuple[Line, ...], Field(description="Programs that must be found, besides the command.")] = ()
    alone: Annotated[
        tuple[Line, ...], Field(description="Jupyter command without a Hub, for where the command is missing.")
    ] = ()
    variables: Annotated[dict[Variable, Value], Field(description="Variables for another program.")] = {}
    files: Annotated[dict[FileName, FileText], Field(description="Files for another program, in its folder.")] = {}
    headers: Annotated[dict[HeaderName, Value], Field(description="What the proxy adds to each request.")] = {}
    polls: Annotated[
        tuple[Polled, ...], Field(description="Beginnings of paths that an open page asks for by itself.")
    ] = ()

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name

    @property
    def is_program(self) -> bool:
        """Whether the command is that of another program, which knows no Hub."""
        return any(word in LISTENS for word in _placeholders(self.command))

    @property
    def first_page(self) -> str:
        """The page shown first, below the server's address."""
        return "/" if self.is_program and "url" not in self.model_fields_set else self.url

    @property
    def keeps_address(self) -> bool:
        """Whether the program serves its pages below the server's own address; else the proxy takes that away."""
        return "base_url" in _placeholders((*self.command, *self.variables.values(), *self.files.values()))

    @model_validator(mode="after")
    def _is_one_or_the_other(self) -> Self:
        problems = list(self._program_mistakes() if self.is_program else self._mistakes())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _mistakes(self) -> Iterator[str]:
        """Keys that mean something for another program alone."""
        for word in _placeholders(self.command):
            why = "it has neither {socket} nor {port}" if word in IN_TEXTS else f"there is no {{{word}}}"
            yield f"command: a command with placeholders must say where the program listens, and {why}"
        for key in ("variables", "files", "headers", "polls"):
            if getattr(self, key):
                yield f"{key}: only for a command with {{socket}} or {{port}}"

    def _program_mistakes(self) -> Iterator[str]:
        if all(word in _placeholders(self.command) for word in LISTENS):
            yield "command: it has both {socket} and {port}; the program listens on one of them"
        if self.alone:
            yield "alone: only for Jupyter, not for a command with {socket} or {port}"
        yield from _unknown("command", self.command, IN_COMMAND)
        for key in ("variables", "files", "headers"):
            yield from _unknown(key, getattr(self, key).values(), IN_TEXTS)


def _placeholders(texts: Iterable[str]) -> list[str]:
    return [word for text in texts for word in PLACEHOLDER.findall(text)]


def _unknown(key: str, texts: Iterable[str], known: tuple[str, ...]) -> Iterator[str]:
    for word in _placeholders(texts):
        if word == "secret" and word not in known:
            yield f"{key}: {{secret}} would stand in the list of processes; write it into variables or files"
        elif word not in known:
            yield f"{key}: {{{word}}} is not a placeholder here; use {', '.join(f'{{{one}}}' for one in known)}"


DEFAULT_INTERFACES = (
    Interface(name="lab", title="JupyterLab", url="/lab", programs=("jupyter-lab",), alone=("jupyter-lab",)),
    Interface(
        name="notebook",
        title="Jupyter Notebook",
        url="/tree",
        programs=("jupyter-notebook",),
        alone=("jupyter-notebook",),
    ),
)
"""What a site offers that names none."""
