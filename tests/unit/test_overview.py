"""Servers and clusters as rows: which, in which order, in what words, and never all at once on the loop."""

import asyncio
import re
import time

import pytest
from support.jobs import a_cluster, a_job

from hpcspawner.errors import SchedulerUnreachable
from hpcspawner.jobs import overview
from hpcspawner.jobs.overview import PAGE, State, View, health, row, view
from hpcspawner.schedulers.commands import Listing
from hpcspawner.schedulers.facts import Facts, Part
from hpcspawner.schedulers.nodes import Queued
from hpcspawner.schedulers.state import JobState, JobStatus


def everyone(_record):
    return True


def a_server(number=0, **fields):
    return a_job(**{"username": f"user{number:05}", "tag": f"t{number:05}", "job_id": str(number + 1), **fields})


def running(number=0, **fields):
    job = a_server(number, host="n1", port=1, started_at=1_000.0, **fields)
    job.answered = True
    return job


async def listed(job, **status):
    """As after a listing that shows this job."""
    queue = job.cluster.queue
    shown = JobStatus(owner=job.record.owner, tag=job.tag, **status)

    async def listing():
        return Listing(time.monotonic(), {job.record.job_id: shown})

    async def sees_all():
        return True

    queue.client.listing, queue.client.sees_all = listing, sees_all
    await queue._refresh()


def test_a_server_that_runs_shows_where_and_how_long_still():
    choices = {"partition": "debug", "walltime": "2h", "gpus": 2, "gpu_type": "v100"}
    shown = row(running(choices=choices), at=1_000.0 + 30 * 60)
    assert (shown.state, shown.node, shown.gpus, shown.time) == (State.RUNNING, "n1", "2 v100", "1h 30m")
    assert row(running(choices=choices), at=1_000.0 + 7_190).time == "under 1m"
    assert row(running(choices=choices), at=1_000.0 + 7_201).time == "over"


async def test_a_server_that_waits_shows_its_place_and_the_reason():
    job = a_server(submitted_at=1_000.0, choices={"partition": "debug", "walltime": "2h"})
    assert row(job, at=1_300.0).reason == ""  # nothing is known, and nothing is guessed
    job.cluster.board._facts = Facts(queued=Part({"debug": Queued(3, ("7", "8", "1"))}, 1_200.0))
    await listed(job, state=JobState.PENDING, reason="Priority")
    shown = row(job, at=1_300.0)
    assert (shown.state, shown.time) == (State.WAITING, "2 ahead, waits 5m")
    assert "Priority" in shown.reason
    job.cluster.queue.error = SchedulerUnreachable("away")
    assert row(job, at=1_300.0).reason == "The scheduler does not answer; the job keeps its place."


async def test_a_page_is_part_of_a_sorted_whole():
    cluster = a_cluster()
    jobs = [running(number, on=cluster) if number % 3 else a_server(number, on=cluster) for number in range(700)]
    seen = []
    for number in range(1, 100):
        page = await overview.page(jobs[::-1], View(page=number), everyone)
        seen += [one.user for one in page.rows]
        if number == page.of:
            break
    assert seen == [job.record.username for job in jobs]
    down = await overview.page(jobs, View(down=True), everyone)
    assert [one.user for one in down.rows] == seen[: -PAGE - 1 : -1]
    by_state = await overview.page(jobs, View(sort="state"), everyone)
    assert {one.state for one in by_state.rows} == {State.WAITING}
    beyond = await overview.page(jobs, View(page=999_999), everyone)
    assert (beyond.number, [one.user for one in beyond.rows]) == (14, seen[-len(beyond.rows) :])


async def test_filters_counts_and_sight():
    jobs = [running(1), a_server(2), a_server(3, follows="t00001")]
    waiting = await overview.page(jobs, View(state=State.WAITING), everyone)
    assert [one.user for one in waiting.rows] == ["user00002"]  # what waits to follow another is no server
    assert waiting.counts["cluster"] == {State.RUNNING: 1, State.WAITING: 1}
    elsewhere = await overview.page(jobs, View(cluster="another"), everyone)
    assert (elsewhere.rows, elsewhere.found, elsewhere.of) == ([], 0, 1)
    seen = await overview.page(jobs, View(), lambda record: record.username == "user00002")
    assert [one.user for one in seen.rows] == ["user00002"]
    assert seen.counts["cluster"] == {State.WAITING: 1}


@pytest.mark.parametrize("wanted", [View(sort="time"), View(page=150), View(sort="user", down=True)])
async def test_others_have_their_turns_while_ten_thousand_servers_are_sorted(wanted):
    cluster = a_cluster()
    jobs = [running(number, on=cluster) for number in range(10_000)]
    turns = 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    page = await overview.page(jobs, wanted, everyone)
    task.cancel()
    assert (page.found, len(page.rows)) == (10_000, PAGE)
    # One after each slice of the whole, and one after each row.
    assert turns >= 10_000 / overview._SLICE + PAGE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"state": "asleep"}, "state is 'asleep'; choose one of waiting, starting, running, stopping"),
        ({"cluster": "moon"}, "cluster is 'moon'; choose one of comet"),
        ({"sort": "size"}, "choose one of user, state, cluster"),
        ({"page": "0"}, "page is '0'; it is a number"),
        ({"page": "1e3"}, "page is '1e3'"),
        ({"page": "٣"}, "it is a number"),
    ],
)
def test_an_address_that_asks_for_what_is_not_there_is_refused(arguments, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        view(arguments, ["comet"])


def test_an_address_says_which_rows():
    assert view({}, ["comet"]) == View()
    wanted = view({"state": "waiting", "cluster": "comet", "sort": "-time", "page": "3"}, ["comet"])
    assert wanted == View(State.WAITING, "comet", "time", down=True, page=3)


async def test_health_is_what_is_known_and_no_more():
    job = a_server()
    cluster = job.cluster
    before = health(cluster, {})
    assert (before.well, before.state, before.listing, before.all_jobs) == (
        None,
        "not asked yet",
        "none yet",
        "unknown",
    )
    await listed(job, state=JobState.PENDING)
    now = health(cluster, {State.WAITING: 1})
    assert (now.well, now.listing, now.jobs) == (True, "under 1m old", "1 waiting")
    assert now.all_jobs == "1 waiting, 0 running"

    async def away():
        raise SchedulerUnreachable("The scheduler is away.")

    cluster.queue.client.listing = away
    await cluster.queue._refresh()
    failed = health(cluster, {})
    assert (failed.well, failed.state) == (False, "does not answer")
    assert failed.error == "The scheduler is away."
    assert failed.all_jobs == "1 waiting, 0 running"  # of the last listing, whose age stands beside it
