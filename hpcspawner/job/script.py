"""The job script: from a judged request to the text that the scheduler gets."""

import json
import posixpath
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hpcspawner.request.model import JobRequest
from hpcspawner.schedulers.base import JobLabel, Scheduler, Submission
from hpcspawner.site.profile import Environment, Image, Job

LAUNCHER_END = "HPCSPAWNER_LAUNCHER"
SETTINGS_END = "HPCSPAWNER_SETTINGS"
BIND = "--bind="


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


def submission(request: JobRequest, scheduler: Scheduler, job: Job, label: JobLabel, home: CallHome) -> Submission:
    """What the scheduler gets: options for its submit command, and the job script."""
    return Submission(tuple(scheduler.options(request.resources, label)), render(request, scheduler, job, label, home))


def render(request: JobRequest, scheduler: Scheduler, job: Job, label: JobLabel, home: CallHome) -> str:
    """The whole job script as text. It holds no option for the scheduler."""
    return (
        _templates()
        .get_template(scheduler.template)
        .render(
            label=label,
            job=job,
            log_folder=job.log,
            steps=list(_steps(request.environment)),
            uses_modules=bool(request.environment.modules or request.environment.purge_modules),
            fallback_path=home.fallback_path,
            launcher=_source("launcher"),
            settings=json.dumps(_settings(request, job, home), sort_keys=True),
            launcher_end=LAUNCHER_END,
            settings_end=SETTINGS_END,
        )
    )


def _settings(request: JobRequest, job: Job, home: CallHome) -> dict[str, object]:
    """What the launcher is told; see its own description of each key."""
    interface = request.interface
    return {
        "callback": home.url,
        "ca": home.ca,
        "ticket": home.ticket,
        "tls": home.tls,
        "command": [*interface.command, *home.arguments],
        "programs": [interface.command[0], *interface.programs],
        "wrap": _container(request, job),
        "bind": BIND,
        "environment": _described(request),
        "directory": request.directory,
        "variables": {"JUPYTERHUB_DEFAULT_URL": interface.url, "JUPYTERHUB_ROOT_DIR": request.directory},
        "ports": list(job.ports) if job.ports else None,
        "limit_s": home.limit_s,
        "idle": _idle(request),
    }


def _idle(request: JobRequest) -> dict[str, object] | None:
    """What ends an idle server, where there is a limit and the command is a Jupyter server."""
    if request.idle_limit is None or not posixpath.basename(request.interface.command[0]).startswith("jupyter"):
        return None
    return {"limit_s": request.idle_limit.seconds, "extension": _source("idle")}


def _described(request: JobRequest) -> str:
    return f"{request.environment.label}, image {request.image.label}" if request.image else request.environment.label


def _container(request: JobRequest, job: Job) -> list[str]:
    """The argv that puts a command into the image; empty without one."""
    if request.image is None:
        return []
    gpu = ["--nv"] if request.resources.gpus else []
    binds = [f"{BIND}{folder}" for folder in _binds(request.image, request.directory)]
    return [*job.container_command, "exec", *gpu, *binds, request.image.path]


def _binds(image: Image, directory: str) -> Iterator[str]:
    yield from image.binds
    # A colon would be read as "source:target".
    if ":" not in directory and "," not in directory:
        yield directory


def _steps(environment: Environment) -> Iterator[str]:
    """Lines of bash that set an environment up, each of which may fail and be named."""
    if environment.purge_modules:
        yield "module purge"
    for module in environment.modules:
        yield f"module load {shlex.quote(module)}"
    if environment.conda:
        yield f"hpc_conda {shlex.quote(environment.conda)}"
    for folder in reversed(environment.path):
        yield f'export PATH={quote_path(folder)}:"$PATH"'
    for name, value in environment.variables.items():
        yield f"export {name}={shlex.quote(value)}"
    yield from environment.setup


def quote(value: object) -> str:
    """One word of shell, whatever is in it: the filter that every value passes."""
    return shlex.quote(str(value))


def quote_path(path: str) -> str:
    """A folder as one word of shell, a leading `~` left to the node to fill in."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + (shlex.quote(path[1:]) if path[1:] else "")
    return shlex.quote(path)


@cache
def _source(name: str) -> str:
    """The text of one of the programs that travel in the script."""
    source = files("hpcspawner.job").joinpath(f"{name}.py").read_text(encoding="utf-8")
    if LAUNCHER_END in source.splitlines():
        raise ValueError(f"the source of {name} must not hold a line {LAUNCHER_END!r}")
    return source.rstrip("\n")


@cache
def _templates() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("hpcspawner.job"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(quote=quote, quote_path=quote_path)
    return environment
