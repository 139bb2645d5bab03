"""Who did what, as events: what stands in them, what never does, and that they disturb nobody."""

import contextvars
import io
import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from jupyter_events.logger import EventLogger
from jupyter_events.schema import EventSchema
from support.jobs import put, put_fields
from tornado.web import Application

from hpcspawner.errors import Problem, RequestError
from hpcspawner.hub import audit
from hpcspawner.jobs.events import Moved, Refusal, Stage
from hpcspawner.jobs.record import End, Report
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.state import Cause

TICKET = "hpct_" + "t" * 43


@pytest.fixture
def events(hub):
    """What the admin's handler has written, each as a dict without what jupyter_events adds."""
    out = io.StringIO()
    hub.eventlog = EventLogger(handlers=[logging.StreamHandler(out)])
    hub.tornado_application = Application()
    audit.install(hub)

    def told():
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        added = {"taskName", "__timestamp__", "__schema__", "__schema_version__", "__metadata_version__"}
        return [{name: value for name, value in line.items() if name not in added} for line in lines]

    return told


@pytest.fixture
async def row(desk):
    return await desk.submitted()


def as_if_asked_by(name, remote_ip="10.0.0.7", finished=False):
    """A context in which code runs as if it served somebody's request."""
    handler = SimpleNamespace(
        _jupyterhub_user=SimpleNamespace(name=name) if name else None,
        _finished=finished,
        request=SimpleNamespace(remote_ip=remote_ip),
    )
    context = contextvars.copy_context()
    context.run(audit._request.set, SimpleNamespace(handler=handler))
    return context


async def test_the_life_of_a_job_is_told(events, desk, row):
    put(row, host="n1", port=40001)
    as_if_asked_by("admin").run(audit.write, Moved(row, Stage.QUEUED, Stage.STOPPING))
    audit.write(Moved(row, Stage.LISTENING, Stage.READY))
    row.ended(End(Cause.EXITED, "The server ended with exit code 0.", 0.0, 0, ("secret log",)))
    same = {
        "username": "alice",
        "servername": row.record.server,
        "account": "alice",
        "site": desk.cluster.profile.title,
        "cluster": "cluster",
        "scheduler": "slurm",
        "job_id": "12",
        "tag": row.tag,
    }
    submit, stop, start, end = events()
    assert submit == {"action": "submit", **same}
    here = {"host": "n1", "port": 40001}
    assert stop == {"action": "stop", **same, **here, "actor": "admin", "remote_ip": "10.0.0.7"}
    assert start == {"action": "start", **same, **here}
    why = {"cause": "exited", "explanation": "The server ended with exit code 0.", "exit_code": 0}
    assert end == {"action": "end", **same, **here, **why}


async def test_an_event_has_what_was_asked_of_the_scheduler_and_no_path(events, desk, row):
    request = make(
        {"partition": "gpu", "gpus": 1, "walltime": "2h", "directory": "/home/alice/private"},
        desk.cluster.profile,
        LocalAccount("alice", "/home/alice"),
    )
    put(row, choices=dict(request.choices))
    row.adopted = True
    audit.write(Moved(row, Stage.LISTENING, Stage.READY))
    event = events()[-1]
    assert event["action"] == "adopt"
    assert event["resources"]["partition"] == "gpu"
    assert event["resources"]["walltime"] == "2h"
    assert "private" not in json.dumps(event)


@pytest.mark.parametrize(
    ("given_up", "told"),
    [
        pytest.param(
            {"hub_verdict": End(Cause.NOT_STARTED, "Job 12 has waited too long.", 0.0)},
            {"cause": "not-started", "explanation": "Job 12 has waited too long."},
            id="by the Hub",
        ),
        pytest.param(
            {"report": Report("no-port", "There is no port.")}, {"explanation": "There is no port."}, id="reported"
        ),
    ],
)
async def test_a_job_that_the_hub_gave_up_is_nobodys_doing(events, desk, row, given_up, told):
    """JupyterHub stops a server whose start failed, in the task of the request that asked for it."""
    put_fields(row, given_up)
    as_if_asked_by("alice").run(audit.write, Moved(row, Stage.QUEUED, Stage.STOPPING))
    event = events()[-1]
    assert {name: event[name] for name in ("cause", "explanation", "actor") if name in event} == told


async def test_a_request_that_was_answered_long_ago_stops_nothing(events, desk, row):
    as_if_asked_by("alice", finished=True).run(audit.write, Moved(row, Stage.QUEUED, Stage.STOPPING))
    assert "actor" not in events()[-1]


async def test_a_refused_request_names_the_fields_and_not_what_was_typed(events):
    typed = "a password that stands in the wrong field"
    problems = [Problem("walltime", f"{typed!r} is no time."), Problem(typed, "unknown"), Problem("cpus", "Too many.")]
    as_if_asked_by("alice").run(audit.write, audit.refused_options("alice", "", RequestError(problems)))
    (event,) = events()
    assert event == {
        "what": "options",
        "why": "walltime, cpus, unknown options",
        "username": "alice",
        "servername": "",
        "actor": "alice",
        "remote_ip": "10.0.0.7",
    }


async def test_a_refused_call_names_the_job_where_it_is_known(events, row):
    context = as_if_asked_by(None, "10.0.0.66")
    context.run(audit.write, Refusal("ticket", "no such ticket"))
    context.run(audit.write, Refusal("report", "another port", row))
    unknown, known = events()[-2:]
    assert unknown == {"what": "ticket", "why": "no such ticket", "remote_ip": "10.0.0.66"}
    assert known["tag"] == row.tag
    assert known["remote_ip"] == "10.0.0.66"


async def test_a_secret_in_a_message_is_taken_out_and_a_long_one_cut(events, desk, row):
    row.ended(End(Cause.EXITED, f"lost {TICKET} " + "x" * 1000, 0.0))
    message = events()[-1]["explanation"]
    assert message.startswith("lost [secret] x")
    assert len(message) == 300


async def test_an_event_that_can_not_be_written_disturbs_nobody(events, hub, desk, row, caplog):
    put(row, host=7)
    audit.write(Moved(row, Stage.LISTENING, Stage.READY))
    assert [event["action"] for event in events()] == ["submit"]
    assert "could not be written" in caplog.text


async def test_without_a_handler_nothing_is_written(hub, desk, row, caplog):
    hub.eventlog = EventLogger()
    audit.write(Moved(row, Stage.LISTENING, Stage.READY))
    assert caplog.text == ""


SCHEMAS = sorted(audit._SCHEMAS.glob("*.yaml"))
PAGE = (Path(__file__).parents[2] / "docs/reference/events.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", SCHEMAS, ids=lambda path: path.stem)
def test_every_field_of_an_event_is_on_the_page_about_events(path):
    schema = EventSchema(path)
    _, _, section = PAGE.partition(f"## `{schema.id}`, version {schema.version}\n")
    section = section.partition("\n## ")[0]
    named = set(re.findall("`([^`]+)`", section))
    assert set(schema.properties) <= named
    (first, *_) = schema.properties
    assert set(schema._schema["properties"][first]["enum"]) <= named


def test_every_cause_is_on_the_page_about_events():
    assert [cause.value for cause in Cause if f"`{cause.value}`" not in PAGE] == []
