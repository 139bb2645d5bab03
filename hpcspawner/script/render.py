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

from hpcspawner.programs.launcher import NO_PYTHON_CODE
from hpcspawner.request.model import JobRequest
from hpcspawner.schedulers.base import JobLabel, Scheduler, Submission
from hpcspawner.site.profile import Environment, Image, Job

BIND = "--bind="
MODULE_FILES = (
    "/etc/profile.d/*.sh /usr/share/{lmod/lmod,Modules,modules}/init/bash"
    " /opt/{ohpc/admin/lmod/lmod,lmod/lmod,apps/lmod/lmod}/init/bash"
)
"""What may bring the command `module`, as words of bash: the files of a login, then those of module systems."""
MODULE_PLACES = "/etc/profile.d/*.sh and the usual places of Lmod and Environment Modules in /usr/share and /opt"
CONDA_ROOTS = '"$HOME"/{miniconda3,miniforge3,anaconda3,.conda}'
"""Where users have conda in their homes, as words of bash."""
CONDA_PLACES = "~/miniconda3, ~/miniforge3, ~/anaconda3, ~/.conda"


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
        .get_template("base.sh.j2")
        .render(
            job_variable=scheduler.job_variable,
            scheduler_lines=scheduler.script_lines(request.resources),
            label=label,
            job=job,
            log_folder=job.log,
            environment=request.environment,
            steps=list(_steps(request.environment)),
            modules_init=quote_path(job.modules_init) if job.modules_init else MODULE_FILES,
            modules_looked=job.modules_init or MODULE_PLACES,
            conda_looked=f"{job.conda}, {CONDA_PLACES}" if job.conda else CONDA_PLACES,
            conda_roots=f"{quote_path(job.conda)} {CONDA_ROOTS}" if job.conda else CONDA_ROOTS,
            umask=job.umask,
            fallback_path=home.fallback_path,
            no_python_code=NO_PYTHON_CODE,
            launcher=_source("launcher"),
            settings=json.dumps(_settings(request, job, home), sort_keys=True),
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
    options = job.gpu_options if request.image.gpu_options is None else request.image.gpu_options
    gpu = options if request.resources.gpus else ()
    binds = [f"{BIND}{folder}" for folder in _binds(request.image, request.directory)]
    return [*job.container_command, "exec", *gpu, *binds, request.image.path]


def _binds(image: Image, directory: str) -> Iterator[str]:
    yield from image.binds
    # A colon would be read as "source:target".
    if ":" not in directory and "," not in directory:
        yield directory


def _steps(environment: Environment) -> Iterator[tuple[str, str]]:
    """Lines of bash that set an environment up, each of which may fail, and what people call them."""
    for line in _lines(environment):
        yield line, line
    if environment.conda:
        yield f"hpc_conda {quote(environment.conda)}", f"the conda environment {environment.conda}"
    for name, value in environment.variables.items():
        yield (line := f"export {name}={quote(value)}"), line
    for line in environment.setup:
        yield line, line


def _lines(environment: Environment) -> Iterator[str]:
    """What may be needed to find conda."""
    if environment.purge_modules:
        yield "module purge"
    for module in environment.modules:
        yield f"module load {quote(module)}"
    for folder in reversed(environment.path):
        yield f'export PATH={quote_path(folder)}:"$PATH"'


def log_path(folder: str, label: JobLabel, job_id: str) -> str:
    """Where the script keeps the job's log, on its node; the template says the same in bash."""
    return f"{folder}/{label.log(job_id)}"


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
    return files("hpcspawner.programs").joinpath(f"{name}.py").read_text(encoding="utf-8").rstrip("\n")


@cache
def _templates() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=PackageLoader("hpcspawner.script"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(quote=quote, quote_path=quote_path)
    return environment
