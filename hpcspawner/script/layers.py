"""The layers that a server starts in.

A layer is one thing that a server may need around it, such as modules or a container image. It says which lines of bash
set it up, which argv puts a command into it, which files the node needs for it, and what must be found.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from hpcspawner.programs.joined import source
from hpcspawner.schedulers.base import Resources
from hpcspawner.script import parallel
from hpcspawner.script.settings import BIND, LauncherSettings
from hpcspawner.script.text import quote, quote_path
from hpcspawner.site.environments import Image
from hpcspawner.site.interfaces import Interface
from hpcspawner.units import Walltime

HIDDEN_FROM_IMAGES = ("PYTHONHOME", "PYTHONPATH")
"""Variables by which the node's own Python and modules would mislead the image's."""

Step = tuple[str, str]
"""A line of bash that may fail, and what people call it."""


@dataclass(frozen=True, slots=True)
class Layer:
    """What a layer may say; one that says nothing changes nothing."""

    def steps(self) -> Iterator[Step]:
        """Lines of bash that set it up on the node, in order."""
        yield from ()

    def files(self) -> Mapping[str, str]:
        """Programs that the launcher needs for it, by file name."""
        return {}

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """What the launcher is given because of it: argv prefix, binds, what to look for."""
        return settings


@dataclass(frozen=True, slots=True)
class Modules(Layer):
    """Modules of the site."""

    names: tuple[str, ...]
    purge: bool = False

    def steps(self) -> Iterator[Step]:
        """`module purge` if wanted, then one `module load` for each."""
        for line in (*(["module purge"] if self.purge else []), *(f"module load {quote(one)}" for one in self.names)):
            yield line, line


@dataclass(frozen=True, slots=True)
class Path(Layer):
    """Folders in front of PATH, such as a virtual environment's `bin`."""

    folders: tuple[str, ...]

    def steps(self) -> Iterator[Step]:
        """The first of the folders is put in front last."""
        for folder in reversed(self.folders):
            yield (line := f'export PATH={quote_path(folder)}:"$PATH"'), line


@dataclass(frozen=True, slots=True)
class Conda(Layer):
    """A conda environment, by name or folder."""

    name: str

    def steps(self) -> Iterator[Step]:
        """The template `conda.sh.j2` has the function that activates it."""
        yield f"hpc_conda {quote(self.name)}", f"the conda environment {self.name}"


@dataclass(frozen=True, slots=True)
class SetUp(Layer):
    """The site's own variables and lines of bash."""

    variables: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()

    def steps(self) -> Iterator[Step]:
        """Variables first: a line may use them."""
        for name, value in self.variables.items():
            yield (line := f"export {name}={quote(value)}"), line
        for line in self.lines:
            yield line, line


@dataclass(frozen=True, slots=True)
class OwnSetUp(Layer):
    """The user's own lines of bash, run as one: they may have loops and functions."""

    text: str

    def steps(self) -> Iterator[Step]:
        """The shell reads the text as it stands; what is wrong in it ends there."""
        if self.text:
            yield self.text, "your own set-up lines"


@dataclass(frozen=True, slots=True)
class Container(Layer):
    """An image of Apptainer or Singularity, which is entered once for a start."""

    image: Image
    commands: tuple[tuple[str, ...], ...]
    options: tuple[str, ...]
    variables: frozenset[str] = frozenset()

    def files(self) -> Mapping[str, str]:
        """What looks for the programs inside and becomes the server."""
        return {"inside.sh": source("inside.sh")}

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """The argv that enters the image; variables of the set-up that the site names itself are let in."""
        inside = [*self.options, *(f"{BIND}{folder}" for folder in self._binds(settings.directory)), self.image.path]
        return replace(
            settings,
            image=self.image.label,
            containers=tuple((*command, "exec", *inside) for command in self.commands),
            hidden=tuple(name for name in HIDDEN_FROM_IMAGES if name not in self.variables),
        )

    def _binds(self, directory: str) -> Iterator[str]:
        yield from self.image.binds
        # A colon would be read as "source:target".
        if ":" not in directory and "," not in directory:
            yield directory


@dataclass(frozen=True, slots=True)
class AuthProxy(Layer):
    """A proxy that asks the Hub, in front of a Jupyter server that knows none.

    `folder` is an environment with jupyter-server-proxy on the node, `command` starts the server behind it.
    """

    folder: str
    command: tuple[str, ...]

    def files(self) -> Mapping[str, str]:
        """The proxy, and the configuration of the server behind it, as jupyter_server and Notebook 6 look for it."""
        configuration = source("alone.py")
        return {
            "inside.sh": source("inside.sh"),
            "front.py": source("front.py"),
            "alone/jupyter_server_config.py": configuration,
            "alone/jupyter_notebook_config.py": configuration,
        }

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """Both are used only where the interface's own command is not found."""
        return replace(settings, proxy=self.folder, alone=self.command)


@dataclass(frozen=True, slots=True)
class Program(Layer):
    """A server other than Jupyter, which knows no Hub, behind the proxy in `folder`.

    The launcher gets `variables`, `headers` (which the proxy adds to each request) and `files` (for the program's
    folder), each with placeholders; `url`, the page shown first; `keeps_address`, whether the program serves its pages
    below the server's own address; `polls`, beginnings of paths that an open page asks for by itself.
    """

    folder: str
    interface: Interface
    idle_limit_s: int | None

    def files(self) -> Mapping[str, str]:
        """The proxy, and what starts the program in an image."""
        return {"inside.sh": source("inside.sh"), "front.py": source("front.py")}

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """The program in place of a server that knows the Hub."""
        program = {
            "variables": dict(self.interface.variables),
            "headers": dict(self.interface.headers),
            "files": dict(self.interface.files),
            "url": self.interface.first_page,
            "keeps_address": self.interface.keeps_address,
            "polls": list(self.interface.polls),
        }
        return replace(settings, proxy=self.folder, program=program, idle_limit_s=self.idle_limit_s)


@dataclass(frozen=True, slots=True)
class IdleEnd(Layer):
    """The extension by which an idle Jupyter server ends itself."""

    limit_s: int

    def files(self) -> Mapping[str, str]:
        """The extension."""
        return {"hpcspawner_idle.py": source("idle.py")}

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """The limit."""
        extensions = (*settings.extensions, "hpcspawner_idle")
        return replace(settings, idle_limit_s=self.limit_s, extensions=extensions)


@dataclass(frozen=True, slots=True)
class QuickImports(Layer):
    """A module that spares the server's start a second; for a server that has extensions of ours."""

    def files(self) -> Mapping[str, str]:
        """The module, by the name of the package that it stands for."""
        return {"quick/rfc3987_syntax.py": source("rfc3987_syntax.py")}

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """Where it lies."""
        return replace(settings, modules="quick")


@dataclass(frozen=True, slots=True)
class NoToken(Layer):
    """The extension that keeps the Hub's token from kernels and terminals."""

    def files(self) -> Mapping[str, str]:
        """The extension."""
        return {"hpcspawner_token.py": source("token.py")}

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """Its name."""
        return replace(settings, extensions=(*settings.extensions, "hpcspawner_token"))


@dataclass(frozen=True, slots=True)
class Beside(Layer):
    """The program that starts engines, and lets notebooks start jobs; `texts` are its files."""

    texts: Mapping[str, str]

    def files(self) -> Mapping[str, str]:
        """The program in its two parts, and its files."""
        return {name: source(name) for name in parallel.PROGRAMS} | dict(self.texts)

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """Its name."""
        return replace(settings, beside=parallel.PROGRAMS[0])


@dataclass(frozen=True, slots=True)
class StatusBar(Layer):
    """The job in the status bar of JupyterLab and Notebook: what was asked for, and how long before its end to warn."""

    resources: Resources
    reminders: tuple[Walltime, ...]

    def files(self) -> Mapping[str, str]:
        """The launcher's part, the extension of the server and that of the page, as Jupyter looks for them."""
        built = json.loads(source("labextension/package.json"))
        page = "status/labextensions/hpcspawner"
        enabled = {"ServerApp": {"jpserver_extensions": {"hpcspawner_status": True}}}
        return {
            "status_keeper.py": source("status_keeper.py"),
            "status/hpcspawner_status.py": source("status_server.py"),
            "status/jupyter_server_config.py": source("status_config.py"),
            "status/jupyter_server_config.d/hpcspawner_status.json": json.dumps(enabled),
            f"{page}/package.json": source("labextension/package.json"),
            f"{page}/{built['jupyterlab']['_build']['load']}": source("labextension/remoteEntry.js"),
        }

    def settings(self, settings: LauncherSettings) -> LauncherSettings:
        """The facts of the request; `memory` is in bytes, and a reminder as long as the job says nothing."""
        asked = self.resources
        facts = {
            "partition": asked.partition,
            "walltime_s": asked.walltime.seconds,
            "nodes": asked.nodes,
            "cpus": None if asked.whole_nodes else asked.cpus,
            "memory": asked.memory.mib << 20 if asked.memory else None,
            "gpus": self._gpus(),
            "reminders_s": [one.seconds for one in self.reminders if one < asked.walltime],
        }
        return replace(settings, status=facts)

    def _gpus(self) -> str:
        count, kind = self.resources.gpus, self.resources.gpu_type
        if not count:
            return ""
        return f"{count} {kind}" if kind else f"{count} GPU{'s' if count > 1 else ''}"
