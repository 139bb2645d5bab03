"""A launch: the server's command, and the layers that it starts in. And what the launcher on the node is given of it.

A layer is one thing that a server may need around it, such as modules or a container image. It says which lines of bash
set it up, which argv puts a command into it, which files the node needs for it, and what must be found. A new kind of
layer is a class here and a line in `_layers`.
"""

import json
import posixpath
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any, Self

from hpcspawner.request.model import JobRequest
from hpcspawner.schedulers.base import Resources
from hpcspawner.script import parallel
from hpcspawner.site.environments import Environment, Image
from hpcspawner.site.interfaces import Interface
from hpcspawner.site.profile import Job
from hpcspawner.units import Walltime

SETTINGS_VERSION = 2
BIND = "--bind="
CONTAINER_COMMANDS = (("apptainer",), ("singularity",))
"""What runs an image where the profile names nothing: the first of them that the node has."""
HIDDEN_FROM_IMAGES = ("PYTHONHOME", "PYTHONPATH")
"""Variables by which the node's own Python and modules would mislead the image's."""

Step = tuple[str, str]
"""A line of bash that may fail, and what people call it."""


@dataclass(frozen=True, slots=True)
class CallHome:
    """How the job reaches the Hub. The ticket is the one secret in a script, and worthless once used.

    `url` is the public https address of the Hub's endpoints, `ca` the PEM text of the authority to trust (None: the
    node's own store), `limit_s` how many seconds the launcher may take from its start to a listening server,
    `fallback_path` folders at the end of PATH, `arguments` the Hub's own for the server's command, `tls` whether the
    server speaks TLS with a key that the launcher makes.
    """

    url: str
    ticket: str
    ca: str | None = None
    limit_s: int = 300
    fallback_path: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherSettings:
    """All that `programs/launcher.py` is given, as one JSON object with these keys; it reads it in `read_settings`.

    A launcher refuses settings of another version, or with other keys.

    callback, ca, ticket, tls: as in `CallHome`.
    command: argv of the server, which takes its address and its users from JUPYTERHUB_… variables; with a `program`,
        its argv, with placeholders.
    programs: what must be found where the server runs; the first is the command's own.
    alone: argv of the server to start where the command is not found but this is; empty: none. The environment of
        `proxy` then stands in front of it.
    program: a server other than Jupyter, see `Program`; None: the command knows the Hub. `proxy` stands in front of it.
    proxy: folder of an environment with jupyter-server-proxy, on the node itself; empty: none.
    containers: argv that put a command into the image, each ending in the image; the first whose program the node has
        is used. Empty without an image.
    bind: what stands before a folder in an argument that makes it visible in the image.
    hidden: names of variables that the server does not get.
    environment, image: what people call them; `image` is empty without one.
    directory: absolute path of the folder that the server starts in.
    writable: whether the user must be able to write there.
    variables: for the server, by name.
    ports: the first and the last that a server may listen on; None: any.
    limit_s: seconds from the launcher's start to a listening server.
    idle_limit_s: seconds after which an idle server ends by itself; None: never.
    status: what the server's status bar shows of the job (`StatusBar`); None: nothing.
    extensions: names of Jupyter extensions among the files.
    beside: name of a program among the files that runs beside the server, and writes variables for it as JSON into
        the file `variables.json`; empty: none.
    files: texts for a folder on the node that only the user can enter, by file name.
    """

    version: int = SETTINGS_VERSION
    callback: str
    ca: str | None
    ticket: str
    tls: bool
    command: tuple[str, ...]
    programs: tuple[str, ...]
    alone: tuple[str, ...]
    program: Mapping[str, Any] | None = None
    proxy: str
    containers: tuple[tuple[str, ...], ...]
    bind: str = BIND
    hidden: tuple[str, ...]
    environment: str
    image: str
    directory: str
    writable: bool
    variables: Mapping[str, str]
    ports: tuple[int, int] | None
    limit_s: int
    idle_limit_s: int | None
    status: Mapping[str, object] | None
    extensions: tuple[str, ...] = ()
    beside: str = ""
    files: Mapping[str, str]

    def text(self) -> str:
        """The JSON that the launcher reads."""
        return json.dumps(asdict(self), sort_keys=True)


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


@dataclass(frozen=True, slots=True)
class Launch:
    """A server's command and its layers, from the outermost to the innermost.

    `programs` must be found where the server runs; `variables` are for the server.
    """

    command: tuple[str, ...]
    programs: tuple[str, ...]
    variables: Mapping[str, str]
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, request: JobRequest, job: Job, arguments: tuple[str, ...] = ()) -> Self:
        """The launch that a request asks for; `arguments` are the Hub's own for the command."""
        interface = request.interface
        return cls(
            # The Hub's own are options of Jupyter.
            command=interface.command if interface.is_program else (*interface.command, *arguments),
            programs=(interface.command[0], *interface.programs),
            variables={"JUPYTERHUB_DEFAULT_URL": interface.first_page, "JUPYTERHUB_ROOT_DIR": request.directory},
            layers=tuple(_layers(request, job)),
        )

    def beside(self, texts: Mapping[str, str]) -> Self:
        """The same launch with the program beside the server; without its texts nothing changes."""
        return replace(self, layers=(*self.layers, Beside(texts))) if texts else self

    def steps(self) -> list[Step]:
        """The lines of bash that set all layers up, in order."""
        return [step for layer in self.layers for step in layer.steps()]

    def settings(self, request: JobRequest, job: Job, home: CallHome) -> LauncherSettings:
        """What the launcher is given."""
        settings = LauncherSettings(
            callback=home.url,
            ca=home.ca,
            ticket=home.ticket,
            tls=home.tls,
            command=self.command,
            programs=self.programs,
            alone=(),
            proxy="",
            containers=(),
            hidden=(),
            environment=request.environment.label,
            image="",
            directory=request.directory,
            writable=job.writable_directory,
            variables=self.variables,
            ports=job.ports,
            limit_s=home.limit_s,
            idle_limit_s=None,
            status=None,
            files={name: text for layer in self.layers for name, text in layer.files().items()},
        )
        for layer in self.layers:
            settings = layer.settings(settings)
        return settings


def _layers(request: JobRequest, job: Job) -> Iterator[Layer]:
    yield from _environment(request.environment)
    yield OwnSetUp(request.own_setup)
    if request.image:
        yield _container(request, request.image, job)
    idle_limit_s = request.idle_limit.seconds if request.idle_limit is not None else None
    if job.proxy and request.interface.is_program:
        yield Program(job.proxy, request.interface, idle_limit_s)
    elif job.proxy and request.interface.alone:
        yield AuthProxy(job.proxy, request.interface.alone)
    if idle_limit_s is not None and _is_jupyter(request.interface):
        yield IdleEnd(idle_limit_s)
    if not job.kernel_token and _is_jupyter(request.interface):
        yield NoToken()
    if job.status_bar and _is_jupyter(request.interface):
        yield StatusBar(request.resources, job.reminders)


def _environment(environment: Environment) -> Iterator[Layer]:
    # Modules and folders may be needed to find conda.
    yield Modules(environment.modules, environment.purge_modules)
    yield Path(environment.path)
    if environment.conda:
        yield Conda(environment.conda)
    yield SetUp(environment.variables, environment.setup)


def _container(request: JobRequest, image: Image, job: Job) -> Container:
    gpu = job.gpu_options if image.gpu_options is None else image.gpu_options
    return Container(
        image,
        (job.container_command,) if job.container_command else CONTAINER_COMMANDS,
        gpu if request.resources.gpus else (),
        frozenset(request.environment.variables),
    )


def _is_jupyter(interface: Interface) -> bool:
    return not interface.is_program and posixpath.basename(interface.command[0]).startswith("jupyter")


def quote(value: object) -> str:
    """One word of shell, whatever is in it: the filter that every value passes."""
    return shlex.quote(str(value))


def quote_path(path: str) -> str:
    """A folder as one word of shell, a leading `~` left to the node to fill in."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + (shlex.quote(path[1:]) if path[1:] else "")
    return shlex.quote(path)


@cache
def source(name: str) -> str:
    """The text of one of the programs that travel in the script."""
    return files("hpcspawner.programs").joinpath(name).read_text(encoding="utf-8").rstrip("\n")
