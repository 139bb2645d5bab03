"""Who did what: one structured event per submit, start, stop, end and refusal, beside JupyterHub's own events.

`c.EventLogger.handlers` says where they go; without a handler nothing is written. Never a secret, and nothing of what
a user has typed but what a scheduler is asked for.
"""

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub

from hpcspawner.errors import RequestError
from hpcspawner.hub.redact import redact
from hpcspawner.jobs.events import Event, Moved, Refusal, Stage
from hpcspawner.jobs.job import Job
from hpcspawner.request.gate import OPTIONS

_SCHEMAS = Path(__file__).parent / "events"
_JOB, _REFUSAL = "urn:hpcspawner:job", "urn:hpcspawner:refusal"
_RESOURCES = (
    "partition",
    "account",
    "qos",
    "reservation",
    "features",
    "nodes",
    "cpus",
    "memory",
    "gpus",
    "gpu_type",
    "walltime",
)
_LONGEST = 300

# What tornado made for the web request that the running code serves or was begun by.
_request: ContextVar[Any] = ContextVar("hpcspawner_request", default=None)


def install(app: JupyterHub) -> None:
    """Make our events known to a Hub that has been put together, and learn who asks for what."""
    for schema in sorted(_SCHEMAS.glob("*.yaml")):
        app.eventlog.register_event_schema(schema)
    application = app.tornado_application
    make = application.get_handler_delegate

    def remember(*args: Any, **kwargs: Any) -> Any:
        delegate = make(*args, **kwargs)
        # Here, for the task that serves the request, and all that it begins, are made after this and take it with them.
        _request.set(delegate)
        return delegate

    # Neither a start nor a stop tells a spawner for whom it is.
    application.get_handler_delegate = remember


def write(event: Event) -> None:
    """One event of a job or one refusal into the Hub's event log."""
    if isinstance(event, Moved):
        _moved(event)
        return
    whose = {"username": event.username, "servername": event.servername} if event.job is None else _whose(event.job)
    _emit(_REFUSAL, {"what": event.what, "why": event.why, **whose, **_asked_by()})


def refused_options(username: str, servername: str, error: RequestError) -> Refusal:
    """What was refused of a user's options: names of ours alone, for a user may type anything."""
    names = {problem.field for problem in error.problems}
    known = [name for name in (*OPTIONS, "user") if name in names]
    others = ["unknown options"] if names - set(known) else []
    return Refusal("options", ", ".join([*known, *others]), username=username, servername=servername)


def _moved(event: Moved) -> None:
    action = _action(event)
    if not action:
        return
    job, cluster = event.job, event.job.cluster
    choices = job.record.choices
    known = {
        "action": action,
        **_whose(job),
        "site": cluster.profile.title,
        "cluster": cluster.name,
        "scheduler": cluster.client.scheduler.name,
        "port": job.record.port,
        "resources": {name: choices[name] for name in _RESOURCES if choices.get(name)},
    }
    _emit(_JOB, known | _more(action, job))


def _action(event: Moved) -> str:
    """What the event log calls a move; "" for one that it does not have."""
    if event.after is Stage.READY:
        return "adopt" if event.job.adopted else "start"
    if event.after is Stage.QUEUED and event.before is not Stage.INTENT:
        return ""
    return {Stage.QUEUED: "submit", Stage.STOPPING: "stop", Stage.ENDED: "end"}.get(event.after, "")


def _more(action: str, job: Job) -> dict[str, Any]:
    if action == "submit":
        return _asked_by()
    if action == "stop":
        return _why_unwanted(job)
    if action == "end" and job.end is not None:
        return {"cause": job.end.cause.value, "explanation": job.end.message, "exit_code": job.end.exit_code}
    return {}


def _why_unwanted(job: Job) -> dict[str, Any]:
    """A request has ended the job, or the Hub has given it up."""
    if job.hub_verdict is not None:
        return {"cause": job.hub_verdict.cause.value, "explanation": job.hub_verdict.message}
    if job.report is not None:
        return {"explanation": job.report.message}
    return _asked_by(still=True)


def _whose(job: Job) -> dict[str, Any]:
    return {
        "username": job.record.username,
        "servername": job.record.server,
        "account": job.record.owner,
        "job_id": job.record.job_id,
        "tag": job.tag,
        "host": job.record.host,
    }


def _asked_by(*, still: bool = False) -> dict[str, str]:
    """Whose request this is and where it came from; with `still` only one that waits for its answer counts."""
    handler = getattr(_request.get(), "handler", None)
    if handler is None or (still and handler._finished):
        return {}
    user = getattr(handler, "_jupyterhub_user", None)
    return {"actor": user.name if user is not None else "", "remote_ip": handler.request.remote_ip or ""}


def _emit(schema: str, data: dict[str, Any]) -> None:
    """Write one event; an event that can't be written is logged and stops nothing else."""
    if not JupyterHub.initialized():
        return
    app = JupyterHub.instance()
    try:
        fields = {name: _short(value) for name, value in data.items() if value not in (None, "", 0, {})}
        # An empty name is a name: that of the default server.
        fields |= {name: data[name] for name in ("servername", "exit_code") if data.get(name) is not None}
        app.eventlog.emit(schema_id=schema, data=fields)
    except Exception:
        app.log.exception("hpcspawner: an event could not be written")


def _short(value: Any) -> Any:
    return redact(value)[:_LONGEST] if isinstance(value, str) else value
