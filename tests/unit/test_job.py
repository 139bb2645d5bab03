"""Where a job is in its life, which moves there are, and who hears of them."""

import itertools
import logging
import time
from types import SimpleNamespace

import pytest
from support.jobs import a_job, put

from hpcspawner.jobs.events import MOVES, Moved, Refusal, Stage, log_line
from hpcspawner.jobs.job import IllegalMove
from hpcspawner.jobs.record import End
from hpcspawner.schedulers.state import Cause

RECORDS = {
    Stage.INTENT: {},
    Stage.QUEUED: {"job_id": "12"},
    Stage.RUNNING: {"job_id": "12", "host": "n1"},
    Stage.LISTENING: {"job_id": "12", "host": "n1", "port": 20000},
    Stage.READY: {"job_id": "12", "host": "n1", "port": 20000},
    Stage.STOPPING: {"job_id": "12", "wanted": False},
    Stage.ENDED: {"job_id": "12", "ended_at": 5.0, "cause": "stopped"},
}
NOTHING = {"job_id": "", "host": "", "port": 0, "wanted": True, "ended_at": None, "cause": ""}


def at(stage, events=None):
    """A job that has come this far, and the events from here on."""
    ledger = SimpleNamespace(emit=(events if events is not None else []).append)
    return a_job(ledger=ledger, answered=stage is Stage.READY, **RECORDS[stage])


@pytest.mark.parametrize("stage", Stage)
def test_the_stage_follows_from_the_record(stage):
    assert at(stage).stage is stage


# READY comes by an answer of the server, not by a change of the record.
@pytest.mark.parametrize(
    ("before", "after"),
    [pair for pair in itertools.product(Stage, repeat=2) if pair[0] is not pair[1] and Stage.READY not in pair],
)
def test_a_move_is_an_event_or_it_is_refused_and_changes_nothing(before, after):
    events = []
    job = at(before, events)
    record = job.record
    if after in MOVES[before]:
        job.change(**NOTHING | RECORDS[after])
        assert [(event.before, event.after) for event in events] == [(before, after)]
    else:
        with pytest.raises(IllegalMove, match=f"can't move from {before} to {after}"):
            job.change(**NOTHING | RECORDS[after])
        assert (job.record, events) == (record, [])


def test_an_end_is_for_ever_and_what_stops_only_ends():
    assert MOVES[Stage.ENDED] == frozenset()
    assert MOVES[Stage.STOPPING] == {Stage.ENDED}
    assert all(Stage.ENDED in moves for stage, moves in MOVES.items() if stage is not Stage.ENDED)
    assert set(MOVES) == set(Stage)


def test_a_change_within_a_stage_is_no_event():
    events = []
    job = at(Stage.LISTENING, events)
    job.change(renewals=3, ticket_hash="ab")
    assert (job.record.renewals, events) == (3, [])


def test_one_start_is_one_event_for_each_stage():
    events = []
    job = at(Stage.INTENT, events)
    job.arm("ticket")
    job.submitted("12")
    job.open("run", 1, "n1", "key")
    job.listening(20000)
    job.is_ready(adopted=False)
    job.is_ready(adopted=False)
    job.mark_unwanted()
    job.mark_unwanted()
    job.ended(End(Cause.STOPPED, "", time.time()))
    assert [event.after.value for event in events] == ["queued", "running", "listening", "ready", "stopping", "ended"]
    assert job.record.started_at >= job.record.submitted_at


def test_a_job_that_was_put_back_starts_once_more():
    events = []
    job = at(Stage.READY, events)
    job.back_in_queue(5.0)
    job.open("another", 2, "n2", "key")
    job.listening(20001)
    job.is_ready(adopted=False)
    assert [event.after.value for event in events] == ["queued", "running", "listening", "ready"]


def test_the_hubs_log_says_when_a_job_was_submitted_where_its_server_listens_and_why_it_ended(caplog):
    caplog.set_level(logging.INFO)
    job = at(Stage.LISTENING)
    log_line(Moved(job, Stage.INTENT, Stage.QUEUED))
    log_line(Moved(job, Stage.RUNNING, Stage.LISTENING))
    job.ended(End(Cause.IDLE, "It was idle.", time.time()))
    log_line(Moved(job, Stage.LISTENING, Stage.ENDED))
    log_line(Refusal("ticket", "wrong"))
    assert [record.getMessage() for record in caplog.records] == [
        "alice: job 12 submitted for alice",
        "alice: job 12 listens on n1:20000",
        "alice: job 12 has ended (idle): It was idle.",
    ]


def test_a_lost_job_is_one_that_runs_without_ticket_and_port():
    job = a_job(inherited=True, job_id="12", host="n1")
    assert job.was_lost
    put(job, ticket_hash="ab")
    assert not job.was_lost
