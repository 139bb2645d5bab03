"""Who did what: one structured event per submit, start, stop, end and refusal, beside JupyterHub's own events.

`c.EventLogger.handlers` says where they go; without a handler nothing is written. Never a secret, and nothing of what
a user has typed but what a scheduler is asked for.
"""

from contextvars import ContextVar
from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub

from hpcspawner.errors import RequestError
from hpcspawner.hub.ledger import Row
from hpcspawner.hub.redact import redact
from hpcspawner.request.gate import OPTIONS
from hpcspawner.schedulers.cluster import Cluster

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


def submitted(cluster: Cluster, row: Row) -> None:
    """The scheduler took the job."""
    _job("submit", cluster, row, _asked_by())


def ready(cluster: Cluster, row: Row, *, adopted: bool) -> None:
    """The server answers; `adopted` tells that it was there before this start."""
    _job("adopt" if adopted else "start", cluster, row, {})


def stopped(cluster: Cluster, row: Row) -> None:
    """The job is no longer wanted: because of a request, or because the Hub has given it up."""
    if row.verdict is not None:
        _job("stop", cluster, row, {"cause": row.verdict.cause.value, "explanation": row.verdict.message})
    elif row.report is not None:
        _job("stop", cluster, row, {"explanation": row.report.message})
    else:
        _job("stop", cluster, row, _asked_by(still=True))


def ended(cluster: Cluster, row: Row) -> None:
    """The job is over."""
    end = row.end
    if end is not None:
        _job("end", cluster, row, {"cause": end.cause.value, "explanation": end.message, "exit_code": end.exit_code})


def refused_options(username: str, servername: str, error: RequestError) -> None:
    """A user asked for what the site does not offer."""
    names = {problem.field for problem in error.problems}
    known = [name for name in (*OPTIONS, "user") if name in names]
    others = ["unknown options"] if names - set(known) else []
    why = ", ".join([*known, *others])
    _emit(_REFUSAL, {"what": "options", "why": why, "username": username, "servername": servername, **_asked_by()})


def refused_call(what: str, why: str, row: Row | None = None) -> None:
    """A launcher's call ("ticket" or "report") was refused; `row` is whose job it claims to be, where that is known."""
    whose = {} if row is None else _whose(row)
    _emit(_REFUSAL, {"what": what, "why": why, **whose, **_asked_by()})


def _job(action: str, cluster: Cluster, row: Row, more: dict[str, Any]) -> None:
    resources = {name: row.choices[name] for name in _RESOURCES if row.choices.get(name)}
    known = {
        "action": action,
        **_whose(row),
        "site": cluster.profile.title,
        "scheduler": cluster.client.scheduler.name,
        "port": row.port,
        "resources": resources,
    }
    _emit(_JOB, known | more)


def _whose(row: Row) -> dict[str, Any]:
    return {
        "username": row.username,
        "servername": row.server,
        "account": row.owner,
        "job_id": row.job_id,
        "tag": row.tag,
        "host": row.host,
    }


def _asked_by(*, still: bool = False) -> dict[str, str]:
    """Whose request this is and where it came from; with `still` only one that waits for its answer counts."""
    handler = getattr(_request.get(), "handler", None)
    if handler is None or (still and handler._finished):
        return {}
    user = getattr(handler, "_jupyterhub_user", None)
    return {"actor": user.name if user is not None else "", "remote_ip": handler.request.remote_ip or ""}


def _emit(schema: str, data: dict[str, Any]) -> None:
    """Write one event; an event that can't be written is told in the log and disturbs nobody."""
    if not JupyterHub.initialized():
        return
    app = JupyterHub.instance()
    try:
        told = {name: _short(value) for name, value in data.items() if value not in (None, "", 0, {})}
        # An empty name is a name: that of the default server.
        told |= {name: data[name] for name in ("servername", "exit_code") if data.get(name) is not None}
        app.eventlog.emit(schema_id=schema, data=told)
    except Exception:
        app.log.exception("hpcspawner: an event could not be written")


def _short(value: Any) -> Any:
    return redact(value)[:_LONGEST] if isinstance(value, str) else value
