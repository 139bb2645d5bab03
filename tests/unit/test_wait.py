"""From a submitted job to a server that answers, or to the words that say why there is none."""

import asyncio
import time
from dataclasses import replace

import pytest
from support.jobs import put

from hpcspawner.errors import Reason, ServerLost
from hpcspawner.jobs import wait
from hpcspawner.jobs.news import News
from hpcspawner.jobs.record import Report
from hpcspawner.jobs.wait import Limits, Waiting, _Stopwatch, moved
from hpcspawner.schedulers.state import Cause, JobState, JobStatus

LIMITS = Limits(poll_interval_s=0.05, queue_limit_s=3600, start_limit_s=60)
RUN = "run-" + "r" * 30


def listens(job, port=20000):
    """What the launcher's calls leave."""
    put(job, host=job.record.host or "n1")
    job.listening(port)


class Start:
    """One start that waits; `answers` is what the server does when it is asked."""

    def __init__(self, desk, row, limits=LIMITS):
        self.desk, self.row, self.news = desk, row, News()
        self.waiting = Waiting(row, self.news, limits)
        self.answers, self.asked = False, 0

    def begin(self, *, details=False):
        async def answers():
            self.asked += 1
            return self.answers

        self.task = asyncio.create_task(self.waiting.until_it_answers(answers, details=details))
        return self

    async def goes_on(self, seconds=0.5):
        """Whether it still waits after these seconds."""
        await asyncio.wait([self.task], timeout=seconds)
        return not self.task.done()

    async def lost(self):
        with pytest.raises(ServerLost) as caught:
            await asyncio.wait_for(self.task, 30)
        return caught.value

    async def told(self):
        await self.news.close()
        return [event["message"] async for event in self.news]


@pytest.fixture
def started(desk):
    """A start whose job squeue shows in this state."""
    tasks = []

    async def start(state="RUNNING", *, reason="None", limits=LIMITS, **fields):
        row = await desk.submitted(**fields)
        desk.shows(desk.line(row, state, reason=reason))
        new = Start(desk, row, limits).begin()
        tasks.append(new.task)
        return new

    yield start
    for task in tasks:
        task.cancel()


# --- a server that comes


async def test_a_reported_port_ends_the_waiting_at_once(started):
    start = await started(limits=replace(LIMITS, poll_interval_s=60))
    assert await start.goes_on()
    listens(start.row)
    await asyncio.wait_for(start.task, 30)
    # Its launcher said so; nobody need ask.
    assert start.asked == 0


async def test_a_port_that_is_known_from_before_counts_when_its_server_answers(started):
    start = await started(host="n1", port=20000)
    assert await start.goes_on()
    assert start.asked > 1
    start.answers = True
    await asyncio.wait_for(start.task, 30)
    assert (start.row.record.host, start.row.record.port) == ("n1", 20000)
    assert "The server of job 12 on n1 does not answer yet; waiting for it" in await start.told()


@pytest.mark.parametrize(
    ("state", "node"),
    [
        pytest.param("PENDING", "", id="back in the queue"),
        pytest.param("RUNNING", "n2", id="on another node"),
        pytest.param("SUSPENDED", "n1", id="suspended"),
    ],
)
async def test_what_answers_where_the_job_is_not_is_somebody_elses(started, desk, state, node):
    """The port may have been given to another job's server meanwhile."""
    row = await desk.submitted(host="n1", port=20000)
    desk.shows(desk.line(row, state, node=node))
    start = Start(desk, row)
    start.answers = True
    start.begin()
    assert await start.goes_on(1)
    assert start.asked == 0
    start.task.cancel()


async def test_a_server_that_answers_is_taken_though_the_scheduler_does_not(desk):
    row = await desk.submitted(host="n1", port=20000)
    desk.goes_down()
    start = Start(desk, row)
    start.answers = True
    await asyncio.wait_for(start.begin().task, 30)


async def test_what_happens_is_told_when_it_changes_and_once(started, desk, until):
    start = await started("PENDING", reason="Priority", limits=replace(LIMITS, poll_interval_s=0.4))
    await until(lambda: start.news.latest)
    await start.goes_on(1)
    desk.shows(desk.line(start.row))
    await until(lambda: start.news.latest["state"] == "running")
    listens(start.row)
    await start.task
    assert await start.told() == [
        "Job 12 is pending: Jobs with a higher priority are ahead of this one. The scheduler says: Priority. "
        "Expected start: 05:02 on 21 November.",
        "Job 12 is running on n1; the server is starting",
    ]


async def test_of_a_server_that_has_just_reported_itself_nobody_says_that_it_does_not_answer(started, desk, until):
    start = await started()
    desk.order("delay", "0.5")
    calls = len(desk._noted("calls"))
    await until(lambda: len(desk._noted("calls")) > calls)
    start.row.open(RUN, 1, "n1", "key")
    listens(start.row)
    await asyncio.wait_for(start.task, 30)
    assert not [message for message in await start.told() if "does not answer" in message]


# --- a job that moves


async def test_a_job_that_was_put_back_loses_its_server_and_may_bring_another(started, desk, in_database, until):
    start = await started(host="n1", port=20000, submitted_at=5.0, limits=replace(LIMITS, queue_limit_s=1e12))
    start.row.open(RUN, 1, "n1", "key")
    put(start.row, port=20000)
    desk.shows(desk.line(start.row, "PENDING", reason="BeginTime"))
    await until(lambda: not start.row.record.port)
    assert start.row.record.host == ""
    assert time.time() - start.row.record.submitted_at < 10
    await until(lambda: in_database()[start.row.tag]["port"] == 0)
    desk.shows(desk.line(start.row, node="n2"))
    await start.goes_on()
    start.row.open(RUN, 2, "n2", "key-2")
    listens(start.row, 20001)
    # The new server has reported itself; it need not be asked.
    await asyncio.wait_for(start.task, 30)
    assert (start.row.record.host, start.row.record.port) == ("n2", 20001)


async def test_the_clock_of_the_queue_starts_again_for_a_job_that_was_put_back(started, desk):
    start = await started(host="n1", port=20000, submitted_at=time.time() - 7200)
    desk.shows(desk.line(start.row, "PENDING"))
    assert await start.goes_on(1)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(JobStatus(JobState.RUNNING, host="n1"), False, id="where it was"),
        pytest.param(JobStatus(JobState.RUNNING, host="n2"), True, id="on another node"),
        pytest.param(JobStatus(JobState.PENDING), True, id="waits again"),
        pytest.param(JobStatus(JobState.HELD), True, id="held again"),
        pytest.param(JobStatus(JobState.SUSPENDED, host="n1"), False, id="suspended"),
        pytest.param(JobStatus(JobState.UNKNOWN), False, id="unknown"),
        pytest.param(JobStatus(JobState.ENDED), False, id="ended"),
        pytest.param(JobStatus(JobState.RUNNING), False, id="running, and the listing names no node"),
    ],
)
async def test_a_job_has_moved_if_it_is_seen_elsewhere(desk, status, expected):
    assert moved(desk.new_row(host="n1", port=20000), status) is expected


# --- a launcher that reports an end


async def test_the_launchers_own_words_tell_why_there_is_no_server(started):
    start = await started()
    assert await start.goes_on(0.3)
    start.row.reported(Report("missing-program", "jupyter-lab was not found.", 1, log=("last line",)))
    error = await start.lost()
    assert (str(error), error.reason) == ("jupyter-lab was not found. (job 12)", Reason.SERVER_FAILED)
    assert error.log == ("last line",)
    # The job may still be there; when it has ended, this is why.
    assert start.row.end is None
    assert start.row.hub_verdict.cause is Cause.NOT_STARTED


async def test_a_killed_launcher_leaves_the_last_word_to_the_scheduler(started, desk):
    start = await started()
    start.row.reported(Report("signalled", "It was ended by SIGTERM.", signal=15))
    assert await start.goes_on(0.3)
    desk.records("12", "TIMEOUT")
    desk.shows(desk.line(start.row, "TIMEOUT"))
    assert str(await start.lost()) == "The job reached its wall time. (job 12)"
    assert start.row.end.cause is Cause.WALL_TIME


async def test_a_killed_launcher_whose_job_was_put_back_is_waited_for(started, desk, monkeypatch):
    monkeypatch.setattr(wait, "_PUT_BACK_S", 0.5)
    start = await started()
    start.row.open(RUN, 1, "n1", "key")
    start.row.reported(Report("signalled", "It was ended by SIGTERM.", signal=15))
    desk.shows(desk.line(start.row, "PENDING", reason="BeginTime"))
    assert await start.goes_on(1.5)
    assert start.row.report is None


async def test_a_killed_launcher_that_the_scheduler_does_not_explain_is_believed_in_the_end(started, monkeypatch):
    monkeypatch.setattr(wait, "_PUT_BACK_S", 0.3)
    start = await started()
    start.row.reported(Report("signalled", "It was ended by SIGTERM.", signal=15))
    assert str(await start.lost()) == "It was ended by SIGTERM. (job 12)"


async def test_a_job_that_is_put_back_a_second_time_is_waited_for_again(started, desk, monkeypatch, until):
    monkeypatch.setattr(wait, "_PUT_BACK_S", 1.5)
    start = await started()
    for run in (1, 2):
        desk.shows(desk.line(start.row))
        start.row.open(f"{RUN}-{run}", run, "n1", "key")
        start.row.reported(Report("signalled", "It was ended by SIGTERM.", signal=15))
        assert await start.goes_on(0.5), f"run {run} was not given the time to be put back"
        desk.shows(desk.line(start.row, "PENDING", reason="BeginTime"))
        await until(lambda: start.row.report is None)
        await start.goes_on(1.2)


# --- a job that ends


async def test_the_schedulers_record_tells_it_where_the_launcher_said_nothing(started, desk, in_database):
    start = await started()
    assert await start.goes_on(0.3)
    desk.records("12", "NODE_FAIL")
    desk.shows(desk.line(start.row, "NODE_FAIL"))
    error = await start.lost()
    assert error.reason is Reason.JOB_ENDED
    assert "failed, which ended the job (NODE_FAIL). (job 12)" in str(error)
    assert start.row.end.cause is Cause.NODE_FAILED
    assert in_database()[start.row.tag]["cause"] == "node-failed"
    assert desk.kept.live() == []
    assert desk.cancelled == []


async def test_a_job_judged_by_its_absence_alone_is_cancelled_to_be_sure(started, desk):
    start = await started()
    assert await start.goes_on(0.3)
    desk.shows("8|RUNNING|n1|alice|2026-11-21T05:02:49|None|of her own")
    assert "The job has ended" in str(await start.lost())
    assert desk.cancelled == ["12"]


async def test_a_job_that_can_not_be_followed_fails_with_whom_to_tell(started, desk, monkeypatch):
    monkeypatch.setattr(wait, "_HIDDEN_S", 0.3)
    desk.hides_jobs()
    row = await desk.submitted()
    error = await Start(desk, row).begin().lost()
    assert "is not allowed to list this user's jobs. Please contact the admin" in str(error)
    assert error.reason is Reason.NOT_SET_UP


async def test_an_outage_of_the_scheduler_ends_nothing(started, desk):
    start = await started()
    assert await start.goes_on(0.3)
    desk.goes_down()
    assert await start.goes_on(1)
    desk.comes_up()
    listens(start.row)
    await asyncio.wait_for(start.task, 30)
    assert (await start.told()).count(
        "The scheduler is not answering at the moment; the job keeps its place in the queue."
    ) == 1


# --- what takes too long, or will never come


async def test_a_job_that_will_never_start_fails_at_once(started, desk):
    start = await started("PENDING", reason="QOSNotAllowed")
    error = await start.lost()
    assert error.reason is Reason.HELD
    assert str(error).startswith("Job 12 will not start. The scheduler says: QOSNotAllowed. This QOS may not be used")
    assert (start.row.hub_verdict.cause, start.row.hub_verdict.message) == (Cause.NOT_STARTED, str(error))
    # To end it is the caller's affair.
    assert start.row.end is None
    assert desk.cancelled == []


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        (
            "ReqNodeNotAvail, Reserved for maintenance",
            "The nodes are reserved for maintenance that begins before this job would end. With a shorter wall time "
            "it may start before the maintenance; otherwise it starts afterwards."
            " The scheduler says: ReqNodeNotAvail, Reserved for maintenance.",
        ),
        ("Priority", "Jobs with a higher priority are ahead of this one. The scheduler says: Priority."),
        ("SomethingNew, with a detail", "SomethingNew, with a detail"),
        ("AssocGrpBBMinutes", "Your account has reached a limit for all its jobs together (AssocGrpBBMinutes)."),
    ],
)
async def test_the_schedulers_own_words_stand_beside_ours(started, until, reason, told):
    start = await started("PENDING", reason=reason)
    await until(lambda: start.news.latest)
    assert start.news.latest["reason"] == told


@pytest.mark.parametrize("reason", ["JobHeldUser", "InvalidAccount", "Resources"])
async def test_a_job_that_may_start_is_waited_for(started, reason):
    assert await (await started("PENDING", reason=reason)).goes_on()


@pytest.mark.parametrize("reason", ["Resources", "JobHeldUser"])
async def test_a_job_waits_in_the_queue_as_long_as_was_allowed(started, reason):
    start = await started("PENDING", reason=reason, submitted_at=time.time() - 3600)
    error = await start.lost()
    assert error.reason is Reason.QUEUE_LIMIT
    assert str(error) == "Job 12 was cancelled after waiting 1h in the queue, the limit that you or your site set."
    assert start.row.hub_verdict.message == str(error)


@pytest.mark.parametrize("state", ["RUNNING", "SUSPENDED"])
async def test_the_queues_limit_is_for_the_queue(started, state):
    assert await (await started(state, submitted_at=time.time() - 7200)).goes_on()


async def test_a_running_job_without_a_server_is_given_up_after_its_limit(started, monkeypatch):
    monkeypatch.setattr(wait, "_LAUNCHER_FIRST_S", 0.3)
    begun = time.monotonic()
    start = await started(limits=replace(LIMITS, start_limit_s=0.5))
    error = await start.lost()
    assert 0.7 < time.monotonic() - begun < 30
    assert error.reason is Reason.START_LIMIT
    assert str(error) == (
        "Job 12 ran on n1 for 0.5 s, but no server listened there. "
        f"Its log is ~/.hpcspawner/jupyter-12-{start.row.tag}.log on n1."
    )


LOST = "Job 12 is running on n1, but the Hub lost its record of the job"


async def test_a_job_that_another_process_began_is_not_given_up_for_want_of_a_word(started, monkeypatch):
    """A ledger from a backup may not know that its server listens, and somebody may work in it."""
    monkeypatch.setattr(wait, "_LAUNCHER_FIRST_S", 0.1)
    start = await started(limits=replace(LIMITS, start_limit_s=0.2), inherited=True)
    assert await start.goes_on(2)
    assert [text for text in await start.told() if text.startswith(LOST)]


async def test_a_job_whose_row_was_lost_is_told_of_at_once_and_found_by_its_launchers_next_run(started, desk):
    start = await started(inherited=True, host="n1")
    assert start.row.was_lost
    assert await start.goes_on()
    desk.shows(desk.line(start.row, "PENDING", node=""))
    assert await start.goes_on()
    assert not start.row.was_lost
    assert desk.kept.by_ticket(desk.kept.keys.ticket(start.row.tag)) is start.row
    desk.shows(desk.line(start.row))
    assert await start.goes_on()
    listens(start.row)
    await asyncio.wait_for(start.task, 30)
    assert sum(text.startswith(LOST) for text in await start.told()) == 1


async def test_a_run_that_this_process_has_seen_begin_has_its_limit(started, desk, monkeypatch):
    monkeypatch.setattr(wait, "_LAUNCHER_FIRST_S", 0.1)
    start = await started("PENDING", limits=replace(LIMITS, start_limit_s=0.2), inherited=True)
    assert await start.goes_on()
    desk.shows(desk.line(start.row))
    assert (await start.lost()).reason is Reason.START_LIMIT


async def test_the_time_in_the_queue_is_not_counted_against_the_server(started, monkeypatch):
    monkeypatch.setattr(wait, "_LAUNCHER_FIRST_S", 0.1)
    assert await (await started("PENDING", limits=replace(LIMITS, start_limit_s=0.1))).goes_on(1)


def test_the_start_limit_counts_only_what_was_seen_running(monkeypatch):
    clock = iter([0, 10, 500, 510, 600, 605])
    monkeypatch.setattr(wait, "now", lambda: next(clock))
    watch = _Stopwatch()
    run, queued, unknown = JobState.RUNNING, JobState.PENDING, JobState.UNKNOWN
    assert [watch.seconds(state) for state in (run, run, unknown, run, queued, run)] == [0, 10, 10, 10, 0, 0]


# --- a mark that the site changes


async def test_a_new_job_without_its_mark_fails_and_is_cancelled(started, desk, monkeypatch, caplog):
    """As where a plugin of the site sets the comment: it would never get its ticket."""
    monkeypatch.setattr(wait, "_UNMARKED_S", 0.3)
    start = await started("PENDING")
    desk.shows(desk.line(start.row, "PENDING").rpartition("|")[0] + "|cost-centre-7")
    lost = await start.lost()
    assert lost.reason is Reason.NOT_SET_UP
    assert str(lost).startswith(
        "Job 12 was cancelled: this site changes the tag by which the Hub recognises its jobs. Please contact "
    )
    assert desk.cancelled == ["12"]
    assert "scheduler.tag of the profile, which is 'comment'" in caplog.text


@pytest.mark.parametrize("fields", [{"asked_at": 1.0}, {"run": RUN}], ids=["an old job", "one that runs its launcher"])
async def test_a_mark_that_somebody_changes_later_ends_nothing(started, desk, monkeypatch, fields):
    monkeypatch.setattr(wait, "_UNMARKED_S", 0.0)
    start = await started("PENDING")
    put(start.row, **fields)
    desk.shows(desk.line(start.row, "PENDING").rpartition("|")[0] + "|mine")
    assert await start.goes_on(3)
    assert desk.cancelled == []


async def test_a_number_that_another_user_has_is_not_cancelled(started, desk, monkeypatch):
    monkeypatch.setattr(wait, "_UNMARKED_S", 0.0)
    start = await started("PENDING")
    desk.shows(desk.line(start.row, "PENDING").replace("alice", "bob"))
    assert await start.goes_on(3)
    assert desk.cancelled == []
