"""A launch: the server's command, and the layers that it starts in.

A new kind of layer is a class in `layers.py` and a line in `_layers` here.
"""

import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from hpcspawner.request.model import JobRequest
from hpcspawner.script.layers import (
    AuthProxy,
    Beside,
    Conda,
    Container,
    IdleEnd,
    Layer,
    Modules,
    NoToken,
    OwnSetUp,
    Path,
    Program,
    QuickImports,
    SetUp,
    StatusBar,
    Step,
)
from hpcspawner.script.settings import CallHome, LauncherSettings
from hpcspawner.site.environments import Environment, Image
from hpcspawner.site.interfaces import Interface
from hpcspawner.site.profile import Job

CONTAINER_COMMANDS = (("apptainer",), ("singularity",))
"""What runs an image where the profile names nothing: the first of them that the node has."""


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
    if _is_jupyter(request.interface):
        yield QuickImports()
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
