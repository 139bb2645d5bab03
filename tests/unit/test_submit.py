"""Exactly one job for a row: real commands, an sbatch that is refused, falls silent or lies, a Hub that ends midway."""

import asyncio
import sqlite3
import time

import pytest
from support.jobs import put

from hpcspawner.errors import (
    LedgerUnavailable,
    Reason,
    SchedulerNotSetUp,
    SchedulerRejected,
    SchedulerUnreachable,
)
from hpcspawner.jobs import submit
from hpcspawner.jobs.job import digest, now
from hpcspawner.jobs.submit import find_job, obtain
from hpcspawner.schedulers import process
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.state import Cause

NO_ANSWER = "Batch job submission failed: Unable to contact slurm controller (connect failure)"


class Start:
    """One row, and what was written for its job."""

    def __init__(self, desk, row=None):
        self.desk, self.row = desk, row or desk.new_row()
        self.tickets = []

    def write(self, ticket):
        self.tickets.append(ticket)
        return Submission((("comment", self.row.tag),), f"#!/bin/bash\nticket={ticket}\n")

    async def obtain(self):
        await obtain(self.row, self.write, self.desk.say)

    def script(self, job_id="12"):
        return (self.desk.folder / "scripts" / job_id).read_text()


@pytest.fixture
def start(desk):
    return Start(desk)


# --- an sbatch that answers


async def test_a_job_is_submitted_as_its_owner_and_its_number_committed(start, desk, in_database):
    before = now()
    await start.obtain()
    assert (start.row.record.job_id, desk.submits) == ("12", 1)
    assert "|alice|" in (desk.folder / "jobs").read_text()
    assert in_database()[start.row.tag]["job_id"] == "12"
    assert before < start.row.record.submitted_at
    assert desk.kept.live() == [start.row]


async def test_the_script_carries_the_ticket_whose_hash_is_kept(start, in_database):
    await start.obtain()
    (ticket,) = start.tickets
    assert f"ticket={ticket}" in start.script()
    assert in_database()[start.row.tag]["ticket_hash"] == digest(ticket)


async def test_the_intent_is_committed_before_the_scheduler_is_asked(start, desk, in_database, until):
    desk.order("hold")
    task = asyncio.create_task(start.obtain())
    await until((desk.folder / "scripts" / "12").exists)
    committed = in_database()[start.row.tag]
    desk.revoke_order("hold")
    await task
    assert (committed["job_id"], committed["wanted"]) == ("", True)
    assert time.time() - 10 < committed["asked_at"] <= time.time()
    assert committed["ticket_hash"] == digest(start.tickets[0])


async def test_without_a_ledger_nothing_is_submitted(start, desk, ledger_file):
    with sqlite3.connect(ledger_file) as other:
        other.execute("DROP TABLE hpcspawner_jobs")
    other.close()
    with pytest.raises(LedgerUnavailable) as caught:
        await start.obtain()
    assert caught.value.reason is Reason.LEDGER
    assert desk.submits == 0
    assert desk.kept.live() == []


async def test_a_job_that_is_there_is_not_asked_for_again(start, desk):
    await start.obtain()
    await start.obtain()
    assert desk.submits == 1


async def test_of_several_callers_at_once_one_submits(start, desk):
    await asyncio.gather(*(start.obtain() for _ in range(5)))
    assert desk.submits == 1


async def test_a_row_that_nobody_wants_is_not_submitted(start, desk):
    start.row.mark_unwanted()
    await start.obtain()
    assert desk.submits == 0


async def test_a_refusal_closes_the_row_with_the_schedulers_words(start, desk, in_database):
    desk.order("answers", "refused Batch job submission failed: Invalid qos specification\n")
    with pytest.raises(SchedulerRejected, match="Invalid qos specification"):
        await start.obtain()
    assert desk.kept.live() == []
    end = desk.kept.last_end("alice", "")
    assert end.cause is Cause.NOT_STARTED
    assert "Invalid qos specification" in end.message
    assert in_database()[start.row.tag]["ended_at"] == end.at
    assert desk.submits == 1


async def test_without_an_sbatch_the_row_is_closed_too(start, desk):
    desk.revoke_order("sbatch")
    with pytest.raises(SchedulerNotSetUp):
        await start.obtain()
    assert desk.kept.live() == []


# --- an sbatch that does not


@pytest.mark.parametrize("answer", ["mute", f"lost {NO_ANSWER}"])
async def test_a_job_that_was_taken_without_an_answer_is_found_and_not_submitted_again(
    start, desk, in_database, answer
):
    desk.order("answers", f"{answer}\n")
    await start.obtain()
    assert (start.row.record.job_id, desk.submits) == ("12", 1)
    assert in_database()[start.row.tag]["job_id"] == "12"
    assert f"ticket={start.tickets[0]}" in start.script()
    assert desk.kept.by_ticket(start.tickets[0]) is start.row


async def test_a_job_that_is_proven_not_to_be_there_is_submitted_again(start, desk):
    desk.order("answers", f"refused {NO_ANSWER}\n")
    await start.obtain()
    assert (start.row.record.job_id, desk.submits) == ("13", 2)
    assert len(set(start.tickets)) == 2
    # Should the first one turn up after all, its ticket is worth nothing.
    assert desk.kept.by_ticket(start.tickets[0]) is None
    assert desk.kept.by_ticket(start.tickets[1]) is start.row
    assert any("is not answering at the moment" in sentence for sentence in desk.said)


async def test_absence_is_believed_on_the_second_listing(start, desk, monkeypatch):
    """The controller may take a job that one listing does not show yet."""
    monkeypatch.setattr(submit, "_PAUSE_S", 0.5)
    desk.order("answers", f"refused {NO_ANSWER}\n")
    task = asyncio.create_task(start.obtain())
    while not desk._noted("ends"):
        await asyncio.sleep(0.01)
    desk.shows(f"77|PENDING||alice|N/A|Resources|{start.row.tag}")
    await task
    assert (start.row.record.job_id, desk.submits) == ("77", 1)


async def test_nothing_is_submitted_while_the_scheduler_is_away(start, desk, until):
    desk.order("answers", f"lost {NO_ANSWER}\n")
    desk.goes_down()
    task = asyncio.create_task(start.obtain())
    await until(lambda: len(desk._noted("calls")) > 3)
    assert (desk.submits, task.done(), start.row.record.job_id) == (1, False, "")
    desk.comes_up()
    await task
    assert (start.row.record.job_id, desk.submits) == ("12", 1)


async def test_the_job_of_another_owner_with_the_same_tag_is_not_ours(start, desk):
    desk.order("answers", f"refused {NO_ANSWER}\n")
    desk.shows(f"77|PENDING||mallory|N/A|Resources|{start.row.tag}")
    await start.obtain()
    assert start.row.record.job_id == "13"


async def test_where_jobs_are_hidden_from_the_hub_their_owner_is_asked(start, desk):
    desk.hides_jobs()
    desk.order("answers", f"refused {NO_ANSWER}\n")
    await start.obtain()
    assert (desk.submits, start.row.record.job_id) == (2, "13")


async def test_where_the_owner_can_not_be_asked_either_nothing_is_submitted_twice(start, desk, monkeypatch):
    monkeypatch.setattr(submit, "_HIDDEN_S", 0.3)
    desk.hides_jobs()
    desk.order("answers", f"refused {NO_ANSWER}\n")
    (desk.folder / "sudo").unlink()
    refuses = '[ "${1##*/}" != squeue ] || { echo "sudo: a password is required" >&2; exit 1; }'
    (desk.folder / "sudo").write_text(f'#!/bin/bash\nshift 3\n{refuses}\nexec "$@"\n')
    (desk.folder / "sudo").chmod(0o755)
    with pytest.raises(
        SchedulerUnreachable,
        match="did not confirm the submission, and the Hub is not allowed to see whether the job exists",
    ):
        await start.obtain()
    assert desk.submits == 1
    # It may be there; who ends the start will look for it.
    assert desk.kept.live() == [start.row]


async def test_a_submit_that_can_not_be_ended_is_given_up_for_it_may_still_act(start, desk, monkeypatch):
    """An sbatch that hangs in the kernel, or that belongs to another account."""
    monkeypatch.setattr(process._Process, "kill", lambda self: set())
    monkeypatch.setattr(process, "_BURIAL_S", 0.1)
    monkeypatch.setattr(
        desk.cluster.client, "access", desk.cluster.client.access.model_copy(update={"command_timeout_s": 1})
    )
    desk.order("hold")
    with pytest.raises(SchedulerUnreachable) as caught:
        await start.obtain()
    desk.revoke_order("hold")
    assert caught.value.lingering
    assert desk.submits == 1
    assert not start.row.record.wanted
    assert desk.kept.live() == [start.row]


# --- callers and Hubs that go away


async def test_a_cancelled_caller_leaves_the_submit_to_be_finished(start, desk, in_database, until):
    desk.order("hold")
    task = asyncio.create_task(start.obtain())
    await until((desk.folder / "scripts" / "12").exists)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    desk.revoke_order("hold")
    await until(lambda: start.row.record.job_id)
    await start.row.tasks["submit"]
    assert (start.row.record.job_id, desk.submits) == ("12", 1)
    assert in_database()[start.row.tag]["job_id"] == "12"


async def test_the_next_caller_joins_the_submit_that_is_under_way(start, desk, until):
    desk.order("hold")
    first = asyncio.create_task(start.obtain())
    await until(lambda: desk.submits)
    first.cancel()
    second = asyncio.create_task(start.obtain())
    await asyncio.sleep(0.1)
    desk.revoke_order("hold")
    await second
    assert (start.row.record.job_id, desk.submits) == ("12", 1)


async def test_a_row_given_up_while_the_scheduler_is_away_is_not_submitted_again(start, desk, until):
    desk.order("answers", f"refused {NO_ANSWER}\n")
    desk.goes_down()
    task = asyncio.create_task(start.obtain())
    await until(lambda: len(desk._noted("calls")) > 1)
    start.row.mark_unwanted()
    desk.comes_up()
    await task
    assert (desk.submits, start.row.record.job_id) == (1, "")


async def interrupted(start, desk, reopened, asked_at):
    """The row as the next process of the Hub finds it, whose predecessor ended between the intent and the answer."""
    put(start.row, asked_at=asked_at)
    ticket = start.row.arm(desk.kept.keys.ticket(start.row.tag))
    await desk.kept.open(start.row)
    desk.kept = reopened()
    (row,) = desk.kept.live()
    return Start(desk, row), ticket


async def test_a_hub_that_ended_midway_finds_the_job_it_had_asked_for(start, desk, reopened):
    again, ticket = await interrupted(start, desk, reopened, time.time())
    desk.shows(f"12|RUNNING|n1|alice|N/A|None|{again.row.tag}")
    await again.obtain()
    assert (again.row.record.job_id, desk.submits) == ("12", 0)
    # The job holds the ticket that its first Hub has made.
    assert desk.kept.by_ticket(ticket) is again.row
    assert desk.said == ["Checking whether the scheduler already has the job"]


async def test_a_hub_that_ended_before_the_submit_submits_once(start, desk, reopened):
    again, _ = await interrupted(start, desk, reopened, time.time() - 3600)
    await again.obtain()
    assert (again.row.record.job_id, desk.submits) == ("12", 1)


async def test_an_sbatch_that_outlives_its_hub_is_waited_for(start, desk, reopened, monkeypatch):
    """It may be about to act as long as a command may take: absence proves nothing before that."""
    monkeypatch.setattr(submit, "_STRAGGLER_S", 1)
    timeout_s = desk.cluster.client.access.command_timeout_s
    again, _ = await interrupted(start, desk, reopened, time.time() - timeout_s)
    task = asyncio.create_task(again.obtain())
    await asyncio.sleep(0.7)
    assert desk.submits == 0
    desk.shows(f"77|PENDING||alice|N/A|Resources|{again.row.tag}")
    await task
    assert (again.row.record.job_id, desk.submits) == ("77", 0)


async def test_of_two_jobs_with_one_tag_the_newer_is_taken(start, desk):
    put(start.row, asked_at=time.time())
    desk.shows(*(f"{number}|PENDING||alice|N/A|Resources|{start.row.tag}" for number in (12, 13)))
    await find_job(start.row, 0.0)
    assert start.row.record.job_id == "13"
