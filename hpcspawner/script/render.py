"""The job script: from a judged request to the text that the scheduler gets."""

from dataclasses import replace
from functools import cache
from typing import Any

from jinja2 import PackageLoader, StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hpcspawner.programs.joined import joined_launcher
from hpcspawner.programs.launcher.codes import NO_PYTHON_CODE
from hpcspawner.programs.usable import MODULE_FILES
from hpcspawner.request.model import JobRequest
from hpcspawner.schedulers.base import JobLabel, Scheduler, Submission
from hpcspawner.script import parallel
from hpcspawner.script.launch import Launch
from hpcspawner.script.settings import CallHome
from hpcspawner.script.text import quote, quote_path
from hpcspawner.site.profile import Job

MODULE_PLACES = "/etc/profile.d/*.sh and the usual places of Lmod and Environment Modules in /usr/share and /opt"
CONDA_ROOTS = '"$HOME"/{miniconda3,miniforge3,anaconda3,.conda}'
"""Where users have conda in their homes, as words of bash."""
CONDA_PLACES = "~/miniconda3, ~/miniforge3, ~/anaconda3, ~/.conda"


def submission(request: JobRequest, scheduler: Scheduler, job: Job, label: JobLabel, home: CallHome) -> Submission:
    """What the scheduler gets: options for its submit command, and the job script."""
    return Submission(tuple(scheduler.options(request.resources, label)), render(request, scheduler, job, label, home))


def preview(request: JobRequest, scheduler: Scheduler, job: Job, label: JobLabel, home: CallHome) -> Submission:
    """As `submission`, for people to read: of the programs that travel in the script, the names alone."""
    script = render(request, scheduler, job, label, home, brief=True)
    return Submission(tuple(scheduler.options(request.resources, label)), script)


def render(
    request: JobRequest, scheduler: Scheduler, job: Job, label: JobLabel, home: CallHome, *, brief: bool = False
) -> str:
    """The whole job script as text, with no option for the scheduler; a brief one has names in place of programs."""
    launch = Launch.of(request, job, home.arguments)
    set_up = _set_up(request, job, launch)
    if job.parallel and not request.image:
        text = _templates().get_template("environment.sh.j2").render(set_up)
        launch = launch.beside(parallel.files(request, scheduler, job, text))
    settings = launch.settings(request, job, home)
    if brief:
        settings = replace(settings, files=dict.fromkeys(settings.files, "(its text)"))
    return (
        _templates()
        .get_template("base.sh.j2")
        .render(
            set_up,
            job_variable=scheduler.job_variable,
            scheduler_lines=scheduler.script_lines(request.resources),
            label=label,
            log_folder=job.log,
            fallback_path=home.fallback_path,
            no_python_code=NO_PYTHON_CODE,
            launcher="# (the launcher stands here)" if brief else joined_launcher(),
            settings=settings.text(),
        )
    )


def _set_up(request: JobRequest, job: Job, launch: Launch) -> dict[str, Any]:
    """What the templates say of the set-up."""
    return dict(
        job=job,
        environment=request.environment,
        steps=launch.steps(),
        modules_init=quote_path(job.modules_init) if job.modules_init else MODULE_FILES,
        modules_looked=job.modules_init or MODULE_PLACES,
        conda_looked=f"{job.conda}, {CONDA_PLACES}" if job.conda else CONDA_PLACES,
        conda_roots=f"{quote_path(job.conda)} {CONDA_ROOTS}" if job.conda else CONDA_ROOTS,
        umask=job.umask,
    )


def log_path(folder: str, label: JobLabel, job_id: str) -> str:
    """Where the script keeps the job's log, on its node; the template says the same in bash."""
    return f"{folder}/{label.log(job_id)}"


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
