"""Who is woken by a listing, and what the listings cost while jobs wait."""

import asyncio
import time
from dataclasses import replace

import pytest
from support.jobs import put

from hpcspawner.jobs import news as news_module
from hpcspawner.jobs.job import now
from hpcspawner.jobs.news import News
from hpcspawner.jobs.wait import Limits, Waiting
from hpcspawner.schedulers import facts as facts_module
from hpcspawner.schedulers import queue as queue_module
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.schedulers.watchers import Watchers, stirred

PENDING = JobStatus(JobState.PENDING, reason="Priority", owner="alice", tag="tag", native_state="PENDING")
RUNNING = JobStatus(JobState.RUNNING, host="n1", owner="alice", tag="tag", native_state="RUNNING")


def wake():
    """What is called."""


@pytest.mark.parametrize(
    ("before", "after", "wakes"),
    [
        pytest.param(PENDING, PENDING, False, id="the same"),
        pytest.param(PENDING, replace(PENDING, starts_at=1795237369.0), False, id="another guess of its start"),
        pytest.param(PENDING, RUNNING, True, id="it runs"),
        pytest.param(PENDING, replace(PENDING, reason="Resources"), True, id="another reason"),
        pytest.param(PENDING, replace(PENDING, hopeless=True), True, id="it will never start"),
        pytest.param(RUNNING, replace(RUNNING, host="n2"), True, id="another node"),
        pytest.param(RUNNING, replace(RUNNING, native_state="COMPLETING"), True, id="the scheduler's own word"),
        pytest.param(None, PENDING, True, id="it is there now"),
        pytest.param(PENDING, None, True, id="it is not there"),
        pytest.param(None, None, True, id="it is not there again, which proves its end"),
        pytest.param(PENDING, replace(PENDING, tag=""), True, id="without the Hub's mark"),
        pytest.param(replace(PENDING, tag=""), replace(PENDING, tag=""), True, id="still without the Hub's mark"),
        pytest.param(replace(PENDING, owner="bob"), replace(PENDING, owner="bob"), True, id="another user's"),
    ],
)
def test_a_listing_wakes_those_of_whose_jobs_it_has_news(before, after, wakes):
    one = (("12", "alice", "tag"), wake)
    shown = [{"12": status} if status else {} for status in (before, after)]
    assert stirred([one], *shown) == ([wake] if wakes else [])


async def test_many_are_woken_a_few_at_a_time():
    """Each looks at its job then, before others of the Hub have their turn."""
    watchers, woken, seen = Watchers(), [], []
    watchers.wake([lambda: woken.append(1)] * 1000)
    while len(woken) < 1000:
        seen.append(len(woken))
        await asyncio.sleep(0)
    steps = [after - before for before, after in zip(seen, [*seen[1:], len(woken)], strict=True)]
    assert max(steps) < 50


@pytest.fixture
def quick(monkeypatch):
    """A short pause between two listings."""
    monkeypatch.setattr(queue_module, "_SHORTEST_GAP_S", 0.05)


@pytest.fixture
def waits(desk, quick):
    """A job that is pending and waited for, with a listing every so many seconds; its news."""
    tasks = []

    async def begin(every_s):
        row = await desk.submitted("12")
        desk.shows(desk.line(row, "PENDING", reason="Priority"))
        news = News()
        waiting = Waiting(row, news, Limits(every_s, queue_limit_s=3600, start_limit_s=60))
        tasks.append(asyncio.create_task(waiting.while_it_waits(asyncio.Event(), details=False)))
        return row, news, tasks[-1]

    yield begin
    for task in tasks:
        task.cancel()


async def test_what_happens_to_a_job_is_seen_by_the_next_listing(desk, waits, until):
    """Its own look is far away by then."""
    row, news, task = await waits(0.2)
    await until(lambda: news._latest)
    desk.shows(desk.line(row, "PENDING", reason="Resources"))
    await until(lambda: "Resources" in str(news._latest["reason"]))
    desk.shows(desk.line(row))
    await asyncio.wait_for(task, 30)


async def test_a_scheduler_that_goes_away_is_news_to_all(desk, waits, until):
    _row, news, _task = await waits(0.2)
    await until(lambda: news._latest)
    desk.goes_down()
    await until(lambda: "not answering" in str(news._events[-1]))


async def test_listings_end_with_those_who_wait(desk, waits, until):
    _row, news, task = await waits(0.1)
    await until(lambda: news._latest)
    following = desk.cluster.queue._following
    assert not following.done()
    task.cancel()
    await until(following.done)
    queue = desk.cluster.queue
    assert not queue._watchers


async def test_what_is_free_is_asked_for_while_somebody_reads(desk, waits, until, monkeypatch):
    """The place in the queue is for people to see."""
    asked = []
    monkeypatch.setattr(facts_module.Board, "latest", lambda _board, _every_s: asked.append(1) or facts_module.Facts())
    row, news, _task = await waits(0.1)
    await until(lambda: news._latest)
    desk.shows(desk.line(row, "PENDING", reason="Resources"))
    await until(lambda: "Resources" in str(news._latest["reason"]))
    assert not asked
    assert news.latest
    await until(lambda: asked)


async def test_an_open_page_is_a_reader_until_it_is_closed(until):
    news, begun = News(), []
    news.on_reader = lambda: begun.append(1)
    await news.say("Submitting the job")
    page = aiter(news)
    assert not news.has_readers
    assert (await anext(page))["message"] == "Submitting the job"
    assert news.has_readers
    assert begun == [1]
    await page.aclose()
    news._read_until = 0.0  # a short while later
    assert not news.has_readers


async def test_a_limit_of_the_queue_is_not_slept_through(desk, waits, until):
    """The next look would be minutes away."""
    row, news, task = await waits(60)
    await until(lambda: news._latest)
    put(row, submitted_at=time.time() - 3600 + 1.5)
    row.changed.set()
    await asyncio.wait_for(task, 30)


async def test_who_begins_to_watch_during_a_listing_hears_of_it(desk, quick, until):
    """By then he has looked at the one before."""
    row = await desk.submitted("12")
    queue, heard = desk.cluster.queue, []
    desk.shows(desk.line(row, "PENDING", reason="Priority"))
    await queue.status(row.listed, now())
    desk.shows(desk.line(row))
    desk.order("delay", "0.5")
    asking = asyncio.create_task(queue.status(row.listed, now()))
    await asyncio.sleep(0.3)
    with queue.watched(row.listed, lambda: heard.append(1), 3600):
        await asking
        await until(lambda: heard)


async def test_a_thousand_jobs_that_end_together_are_asked_about_a_few_at_a_time(desk, monkeypatch):
    """Each question is a process."""
    client, under_way, most = desk.cluster.client, [], []

    async def slow(_self, question):
        under_way.append(question)
        most.append(len(under_way))
        await asyncio.sleep(0)
        under_way.remove(question)
        return Answer(1, "", "gone")

    monkeypatch.setattr(Client, "_run", slow)
    monkeypatch.setattr(Client, "_checked", slow)
    await asyncio.gather(*(client.record(str(number)) for number in range(200)))
    await asyncio.gather(*(client.is_unknown(str(number)) for number in range(200)))
    assert len(most) >= 400
    # Of the end of one job there may be two questions.
    assert max(most) <= 20


async def test_a_page_hears_something_now_and_then(monkeypatch):
    """Else it would not be noticed that it was closed."""
    monkeypatch.setattr(news_module, "_SHOWS_ITSELF_S", 0.05)
    news = News()
    await news.say("Submitting the job")
    page = aiter(news)
    first, second = await anext(page), await anext(page)
    assert first["message"] == "Submitting the job"
    assert second == {"job": {"ahead": ""}}
    await news.say("The job waits")
    assert (await anext(page))["message"] == "The job waits"
    await page.aclose()
    assert len(news._events) == 2


async def test_a_scheduler_that_is_away_is_asked_no_more_often_for_those_who_wait(desk, waits, until):
    row, news, _task = await waits(0.2)
    await until(lambda: news._latest)
    waiting = Waiting(row, news, Limits(0.2, queue_limit_s=3600, start_limit_s=60))
    await waiting._status()
    desk.goes_down()
    await until(lambda: desk.cluster.queue.error)
    assert (await waiting._status()).state is JobState.UNKNOWN
    assert waiting._in_queue
