"""An admin's event log of a real Hub: JupyterHub's own events, and ours beside them."""

import json
import time

import pytest
from support.hub import server_path

pytestmark = pytest.mark.both_hubs

HANDLERS = """
import logging
c.EventLogger.handlers = [logging.FileHandler({folder!r})]
"""


@pytest.fixture(scope="module")
def log_file(tmp_path_factory):
    return tmp_path_factory.mktemp("events") / "events.jsonl"


@pytest.fixture(scope="module")
def hub(make_hub, log_file):
    with make_hub(extra=HANDLERS.format(folder=str(log_file))) as running:
        yield running


def events(log_file, schema):
    lines = [json.loads(line) for line in log_file.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["__schema__"].endswith(schema)]


def wait_for(log_file, schema, count):
    deadline = time.monotonic() + 30
    while len(found := events(log_file, schema)) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
    return found


def test_start_and_stop_of_a_server_are_told_with_who_asked(hub, log_file):
    hub.spawn("alice", {"partition": "short", "walltime": "10m", "directory": str(hub.folder)})
    hub.stop_server("alice")
    submit, start, stop, end = wait_for(log_file, ":job", 4)
    assert [event["action"] for event in (submit, start, stop, end)] == ["submit", "start", "stop", "end"]
    for event in (submit, start, stop, end):
        assert (event["username"], event["servername"], event["site"]) == ("alice", "", "This machine")
        assert event["__schema_version__"] == "1"
    assert len({(event["tag"], event["job_id"], event["account"]) for event in (submit, start, stop, end)}) == 1
    assert submit["resources"] == {"partition": "short", "walltime": "10m"} | submit["resources"]
    for event in (submit, stop):
        assert (event["actor"], event["remote_ip"]) == ("tests", "127.0.0.1")
    assert start["port"] >= 1024
    assert end["cause"] == "stopped"
    actions = [event["action"] for event in events(log_file, "server-action")]
    assert actions == ["start", "stop"], "JupyterHub's own events are there as well"
    assert str(hub.folder) not in log_file.read_text(encoding="utf-8"), "a directory is nobody's business"


def test_what_is_refused_is_told_and_nothing_that_was_typed(hub, log_file):
    answer = hub.api("POST", server_path("bob"), json={"walltime": "for ever and ever"})
    assert answer.status_code == 400
    ticket = "hpct_" + "x" * 40
    assert hub.post("/hub/api/hpcspawner/ticket", {"ticket": ticket, "run": "r" * 30, "job": "1"}).status_code == 403
    key = "hpcr_" + "x" * 40
    report = {"report_key": key, "event": "listening", "port": 40000}
    assert hub.post("/hub/api/hpcspawner/report", report).status_code == 403
    options, told, reported = wait_for(log_file, ":refusal", 3)
    assert (options["what"], options["why"], options["username"]) == ("options", "walltime", "bob")
    assert options["actor"] == "tests"
    for event, what in ((told, "ticket"), (reported, "report")):
        assert (event["what"], event["remote_ip"]) == (what, "127.0.0.1")
        assert "actor" not in event
    written = log_file.read_text(encoding="utf-8")
    assert "for ever" not in written
    assert "x" * 40 not in written


def test_a_secret_that_comes_with_a_request_is_not_in_the_log(hub):
    """JupyterHub logs what was asked for, and takes out what it knows for secret; ours it does not know."""
    ticket = "hpct_" + "y" * 43
    assert hub.get(f"/hub/nothing?x={ticket}").status_code == 404
    deadline = time.monotonic() + 30
    while "/hub/nothing?x=[secret]" not in hub.log():  # the line is written after the answer
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ticket not in hub.log()
