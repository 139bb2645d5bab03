"""The ledger: what is kept of a job, and what is forgotten."""

import asyncio
import json
import logging
import re
import secrets
import sqlite3
import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.jobs import a_job, put, put_fields

from hpcspawner.errors import LedgerUnavailable
from hpcspawner.hub.hub_ledger import OUTSIDE, open_ledger
from hpcspawner.hub.hub_ledger import hub_ledger as ledger
from hpcspawner.jobs import ledger as ledger_module
from hpcspawner.jobs.job import digest, now
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.record import End, JobRecord, Report
from hpcspawner.schedulers.state import Cause
from hpcspawner.script.text import quote

RUN = "run-" + "r" * 30
DAY_S = 24 * 3600
KEYS = Keys(b"s" * 32, "hub")


def a_row(**fields):
    fields = {"job_id": "12", **fields}
    return a_job(server="lab", name="jupyter-lab", tag="h23456789abcdef", **fields)


def a_ticket():
    return KEYS.ticket(secrets.token_hex(8))


def job_name(kept, server):
    return kept.new_job(("alice", server), "alice", kept.clusters.default).label.name


# --- names


@given(server=st.text(max_size=60))
def test_a_jobs_name_is_harmless_whatever_the_servers_name_is(server):
    name = ledger_module.job_name(server)
    assert re.fullmatch(r"jupyter(-[a-z0-9-]{1,27})?", name)
    assert quote(name) == name


@pytest.mark.parametrize(
    ("server", "name"),
    [
        pytest.param("", "jupyter", id="the default server"),
        pytest.param("lab", "jupyter-lab", id="a plain name"),
        pytest.param("a" * 20, "jupyter-" + "a" * 20, id="twenty letters"),
        pytest.param("gpu-2", "jupyter-gpu-2", id="with a hyphen"),
    ],
)
def test_a_plain_name_is_kept(kept, server, name):
    assert job_name(kept, server) == name


@pytest.mark.parametrize(
    "servers",
    [
        pytest.param(["Lab", "lab"], id="capitals"),
        pytest.param(["a b", "a_b", "a-b"], id="signs"),
        pytest.param(["ä", "ö", "-"], id="other alphabets"),
        pytest.param(["a" * 21, "a" * 22, "a" * 20], id="long names"),
    ],
)
def test_names_that_look_alike_stay_apart(kept, servers):
    assert len({job_name(kept, server) for server in servers}) == len(servers)


def test_a_new_row_bears_a_tag_of_ours(kept):
    row = kept.new_job(("alice@example.org", "lab"), "alice", kept.clusters.default)
    assert kept.keys.is_ours("alice", row.tag)
    assert (row.record.username, row.record.server, row.record.owner) == ("alice@example.org", "lab", "alice")
    assert row.record.wanted
    assert not row.record.asked_at
    assert kept.live() == []


def test_a_follow_up_names_the_job_that_it_waits_for(kept):
    first = kept.new_job(("alice", "lab"), "alice", kept.clusters.default)
    first.submitted("12")
    second = kept.new_job(("alice", "lab"), "alice", kept.clusters.default, first)
    assert (second.record.follows, second.label.follows) == (first.tag, "12")
    assert second.tag != first.tag


# --- rows


def test_what_is_kept_holds_no_secret():
    row = a_row(environment={"JUPYTERHUB_API_TOKEN": "t" * 40})
    ticket = row.arm(a_ticket())
    row.submitted("12")
    row.open(RUN, 1, "n1", "key-" + "k" * 30)
    kept = json.dumps(row.record.columns())
    for secret in (ticket, "key-" + "k" * 30, "t" * 40):
        assert secret not in kept
        assert secret not in repr(row)
    assert row.record.columns()["ticket_hash"] == digest(ticket)
    assert row.record.columns()["report_key_hash"] == digest("key-" + "k" * 30)


def test_a_row_is_known_again():
    row = a_row(choices={"partition": "gpu", "gpus": 2}, renewals=3, asked_at=5.0, submitted_at=6.0, follows="h2")
    row.arm(a_ticket())
    row.submitted("12")
    row.open(RUN, 2, "n1", "key")
    row.listening(20000)
    again = JobRecord.from_columns(json.loads(json.dumps(row.record.columns())))
    assert again == row.record
    assert again.log_name == row.log_name == "alice:lab"


@pytest.mark.parametrize("end", [End(Cause.IDLE, "Idle.", 5.0, 0, ("one", "two")), End(Cause.STOPPED, "", 5.0)])
def test_an_end_is_known_again(end):
    assert JobRecord.from_columns(json.loads(json.dumps(a_row(end=end).record.columns()))).end == end


def test_a_long_message_still_fits_its_column():
    assert len(a_row(end=End(Cause.UNKNOWN, "x" * 5000, 1.0)).record.columns()["message"]) == 1000


def test_a_ticket_is_long_and_plain():
    ticket = a_row().arm(a_ticket())
    assert len(ticket) >= 32
    assert set(ticket) <= set(string.ascii_letters + string.digits + "-_")


def test_a_new_ticket_is_for_a_new_run():
    row = a_row()
    older = row.record.ticket_hash, row.arm(a_ticket())
    row.open("first", 1, "n1", "key")
    assert row.arm(a_ticket()) not in older
    assert row.record.run == ""


def test_a_new_run_begins_without_what_the_last_one_left():
    row = a_row()
    row.arm(a_ticket())
    row.open("first", 1, "n1", "key-1")
    row.listening(20000)
    row.reported(Report("signalled", "over"))
    row.open("second", 2, "n2", "key-2")
    assert (row.record.run, row.record.runs, row.record.host, row.record.port, row.report) == (
        "second",
        2,
        "n2",
        0,
        None,
    )
    assert row.record.report_key_hash == digest("key-2")


def test_a_job_that_was_put_back_has_no_server_and_waits_from_now():
    row = a_row(submitted_at=5.0)
    row.arm(a_ticket())
    row.open("first", 1, "n1", "key-1")
    row.listening(20000)
    row.reported(Report("signalled", "over"))
    row.back_in_queue(99.0)
    assert (row.record.host, row.record.port, row.record.report_key_hash, row.report) == ("", 0, "", None)
    assert row.record.submitted_at == 99.0
    # What tells a second run from the first, and its ticket, stay.
    assert (row.record.run, row.record.runs) == ("first", 1)
    assert row.record.ticket_hash


def test_the_environment_is_kept_for_a_second_run():
    row = a_row(environment={"TOKEN": "t"}, host="n1")
    row.listening(20000)
    row.back_in_queue(5.0)
    assert row.environment == {"TOKEN": "t"}


def test_a_job_that_nobody_wants_has_nothing_to_give_away():
    row = a_row(environment={"TOKEN": "t"})
    assert row.record.wanted
    row.mark_unwanted()
    assert (row.record.wanted, row.environment) == (False, {})


def test_the_clock_of_absence_starts_when_the_submit_was_answered():
    row = a_row()
    before = now()
    row.submitted("12")
    assert before <= row.listed.submitted_at <= now()


@pytest.mark.parametrize(
    ("news", "told"),
    [
        pytest.param(lambda row: row.submitted("12"), [], id="submitted"),
        pytest.param(lambda row: row.mark_unwanted(), [], id="given up"),
        pytest.param(lambda row: (put(row, host="n1"), row.listening(20000)), ["told"], id="listening"),
        pytest.param(lambda row: row.reported(Report("no-port", "")), ["told"], id="ended"),
    ],
)
def test_who_waits_for_news_is_woken(news, told):
    calls = []
    row = a_row(on_report=lambda: calls.append("told"))
    assert not row.changed.is_set()
    news(row)
    assert row.changed.is_set()
    assert calls == told


# --- finding


async def opened_row(kept, server="lab", **fields):
    row = kept.new_job(("alice", server), "alice", kept.clusters.default)
    put_fields(row, fields)
    await kept.open(row)
    return row


async def test_rows_are_found_by_their_secrets_and_by_no_others(kept):
    rows = [await opened_row(kept, job_id=str(number)) for number in range(1, 6)]
    tickets = [row.arm(a_ticket()) for row in rows]
    keys = [f"key-{number}" for number in range(5)]
    for row, key in zip(rows, keys, strict=True):
        row.open(RUN, 1, "n1", key)
        await kept.save(row)
    assert [kept.by_ticket(ticket) for ticket in tickets] == rows
    assert [kept.by_report_key(key) for key in keys] == rows
    for wrong in (
        "",
        "x" * 43,
        rows[0].record.ticket_hash,
        rows[0].record.report_key_hash,
        tickets[0] + "x",
        tickets[0][:-1],
    ):
        assert kept.by_ticket(wrong) is None
        assert kept.by_report_key(wrong) is None
    # Each secret opens its own door only.
    assert kept.by_report_key(tickets[0]) is None
    assert kept.by_ticket(keys[0]) is None


async def test_a_secret_that_is_no_longer_a_rows_finds_nothing(kept):
    row = await opened_row(kept, job_id="12")
    older, newer = row.arm(a_ticket()), row.arm(a_ticket())
    row.open(RUN, 1, "n1", "key-1")
    await kept.save(row)
    assert (kept.by_ticket(older), kept.by_ticket(newer)) == (None, row)
    last = row.arm(a_ticket())
    row.back_in_queue(0.0)
    assert kept.by_ticket(newer) is kept.by_report_key("key-1") is None
    await kept.save(row)
    assert kept.by_ticket(last) is row
    assert kept._by_hash.keys() == {row.record.ticket_hash}
    row.ended(End(Cause.STOPPED, "", time.time()))
    await kept.save(row)
    assert not kept._by_hash
    assert not kept._hashes


async def test_a_row_without_a_secret_is_found_by_none(kept):
    await opened_row(kept)
    assert kept.by_ticket("") is None
    assert kept.by_report_key("") is None


async def test_the_jobs_of_one_server_are_its_own_the_oldest_first(kept):
    first, other, second = [await opened_row(kept, server) for server in ("lab", "", "lab")]
    assert kept.of("alice", "lab") == [first, second]
    assert kept.of("alice", "") == [other]
    assert kept.of("bob", "lab") == []


async def test_follow_ups_are_found_by_the_job_they_wait_for(kept):
    parent = await opened_row(kept)
    child = await opened_row(kept, follows=parent.tag)
    await opened_row(kept)
    assert list(kept.following(parent)) == [child]
    assert list(kept.following(child)) == []


async def test_a_job_that_has_ended_lives_no_more_and_is_remembered(kept):
    row = await opened_row(kept)
    ticket = row.arm(a_ticket())
    row.ended(End(Cause.IDLE, "Idle.", time.time()))
    await kept.save(row)
    assert kept.live() == kept.of("alice", "lab") == []
    assert kept.by_tag(row.tag) is kept.by_ticket(ticket) is None
    assert kept.last_end("alice", "lab") == row.end
    assert kept.last_end("alice", "") is None


async def test_of_several_ends_the_last_is_told_in_whatever_order_they_were_recorded(kept, reopened):
    for at in (time.time() - 10, time.time(), time.time() - 20):
        await opened_row(kept, end=End(Cause.IDLE, f"{at}", at))
    latest = kept.last_end("alice", "lab")
    assert time.time() - latest.at < 5
    assert reopened().last_end("alice", "lab") == latest


async def test_an_end_that_its_user_asked_for_is_no_news_and_hides_older_ones(kept):
    for cause, at in ((Cause.WALL_TIME, time.time() - 10), (Cause.STOPPED, time.time())):
        await opened_row(kept, end=End(cause, "", at))
    assert kept.last_end("alice", "lab") is None


async def test_the_last_ten_jobs_of_a_user_are_told_the_newest_first(kept, reopened):
    start = time.time() - 100
    for number in (5, 11, 0, 3, 1, 9, 7, 2, 10, 4, 8, 6):
        await opened_row(
            kept, "odd" if number % 2 else "", end=End(Cause.STOPPED, "", start + number), job_id=f"{number}"
        )
    await opened_row(kept, end=End(Cause.STOPPED, "", start), username="bob")
    for ledger_ in (kept, reopened()):
        assert [job.record.job_id for job in ledger_.past("alice")] == [f"{number}" for number in range(11, 1, -1)]
        assert len(ledger_.past("bob")) == 1
        assert ledger_.past("carol") == []


async def test_a_job_that_is_saved_again_is_listed_once_and_an_old_one_never(kept):
    job = await opened_row(kept, end=End(Cause.IDLE, "", time.time() - 5))
    await opened_row(kept, end=End(Cause.IDLE, "", time.time() - 31 * DAY_S))
    await kept.save(job)
    await kept.prune()
    assert kept.past("alice") == [job]


# --- keeping


async def test_a_new_process_finds_what_the_last_one_committed(kept, reopened):
    row = await opened_row(kept, choices={"partition": "gpu"})
    ticket = row.arm(a_ticket())
    await kept.save(row)
    ended = await opened_row(kept, "", end=End(Cause.IDLE, "Idle.", time.time(), 0, ("line",)))
    again = reopened()
    (found,) = again.live()
    assert found is not row
    assert found.record.columns() == row.record.columns()
    assert again.by_ticket(ticket) is found
    assert again.last_end("alice", "") == ended.end
    # Nobody looks after it yet.
    assert (found.attached, found.ask, found.environment) == (False, None, {})


async def test_what_was_not_saved_is_not_there(kept, reopened):
    row = await opened_row(kept)
    row.submitted("12")
    kept.new_job(("alice", "other"), "alice", kept.clusters.default)
    assert [found.record.job_id for found in reopened().live()] == [""]


async def test_what_ended_long_ago_is_forgotten(kept, reopened):
    await opened_row(kept, "old", end=End(Cause.IDLE, "", time.time() - 31 * DAY_S))
    await opened_row(kept, "young", end=End(Cause.IDLE, "", time.time() - 29 * DAY_S))
    old = await opened_row(kept, "lives", submitted_at=time.time() - 99 * DAY_S)
    await kept.prune()
    for each in (kept, reopened()):
        assert each.last_end("alice", "old") is None
        assert each.last_end("alice", "young")
        assert [row.tag for row in each.live()] == [old.tag]


class Away:
    """A database whose table is gone for a while."""

    def __init__(self, file):
        self.other = sqlite3.connect(file)

    def __enter__(self):
        self.other.execute("ALTER TABLE hpcspawner_jobs RENAME TO away")
        self.other.commit()
        return self

    def __exit__(self, *_):
        self.other.execute("ALTER TABLE away RENAME TO hpcspawner_jobs")
        self.other.commit()
        self.other.close()


async def test_a_row_that_can_not_be_committed_is_refused_and_leaves_nothing_behind(kept, ledger_file, caplog):
    with Away(ledger_file), pytest.raises(LedgerUnavailable, match="it submitted no job"):
        await opened_row(kept)
    assert kept.live() == []
    assert "no job was submitted, because the ledger can't be written" in caplog.text


async def test_a_change_is_committed_however_long_the_database_is_away(kept, ledger_file, reopened, caplog):
    row = await opened_row(kept)
    row.submitted("12")
    with Away(ledger_file):
        task = asyncio.create_task(kept.save(row))
        await asyncio.sleep(0.3)
        assert not task.done()
        # What is committed in the end is what holds then.
        put(row, port=20000)
    await asyncio.wait_for(task, 30)
    (found,) = reopened().live()
    assert (found.record.job_id, found.record.port) == ("12", 20000)
    assert "the ledger can't be written, trying again" in caplog.text


async def test_the_log_tells_nothing_of_a_row_when_the_database_is_away(kept, ledger_file, caplog):
    row = kept.new_job(("alice", "lab"), "alice", kept.clusters.default)
    ticket = row.arm(a_ticket())
    row.environment = {"TOKEN": "t" * 40}
    row.ended(End(Cause.EXITED, "", 1.0, log=("a line of hers",)))
    with Away(ledger_file), pytest.raises(LedgerUnavailable):
        await kept.open(row)
    for hidden in (ticket, row.record.ticket_hash, "t" * 40, "a line of hers"):
        assert hidden not in caplog.text


def test_there_is_one_ledger(kept, tmp_path):
    assert ledger() is kept
    assert (
        open_ledger(
            f"sqlite:///{tmp_path}/other", lambda: Keys(b"", ""), lambda: kept.clusters, logging.getLogger("test")
        )
        is kept
    )


async def test_a_hub_whose_secret_is_lost_says_which_servers_it_does_not_recognise(kept, ledger_file, caplog):
    await opened_row(kept, job_id="12")
    await opened_row(kept, job_id="13", end=End(Cause.IDLE, "", time.time()))
    for secret, told in ((b"s" * 32, 0), (b"t" * 32, 1)):
        store = ledger_module.Store(f"sqlite:///{ledger_file}", "hub", logging.getLogger("test"))
        ledger_module.Ledger(store, Keys(secret, "hub"), logging.getLogger("test"), kept.clusters, OUTSIDE).close()
        assert caplog.text.count("1 unfinished jobs have tags from another secret") == told
    assert caplog.text.endswith("or cancel these jobs: 12 (more: hpcspawner explain hub-secret)\n")


async def test_jobs_of_the_version_before_are_recognised(kept, ledger_file, caplog):
    """Their tags were made of JupyterHub's cookie secret."""
    before = Keys(b"c" * 32, "hub", older=b"c" * 32)
    await opened_row(kept, tag=f"habcdef{before._proof('h', 'alice', 'abcdef')}")
    store = ledger_module.Store(f"sqlite:///{ledger_file}", "hub", logging.getLogger("test"))
    ledger_module.Ledger(
        store, Keys(b"n" * 32, "hub", older=b"c" * 32), logging.getLogger("test"), kept.clusters, OUTSIDE
    ).close()
    assert "another secret" not in caplog.text


async def test_a_hub_with_another_address_leaves_the_jobs_alone_and_says_so(kept, ledger_file, caplog):
    await opened_row(kept)
    await opened_row(kept, end=End(Cause.IDLE, "", time.time()))
    other = ledger_module.Ledger(
        ledger_module.Store(f"sqlite:///{ledger_file}", "other", logging.getLogger("test")),
        Keys(b"s" * 32, "other"),
        logging.getLogger("test"),
        kept.clusters,
        OUTSIDE,
    )
    assert other.live() == []
    other.close()
    assert "the ledger has 1 unfinished jobs of a Hub with another callback_url" in caplog.text


# --- a ledger that was lost


async def running_row(kept, **fields):
    row = kept.new_job(("alice", "lab"), "alice", kept.clusters.default)
    row.arm(a_ticket())
    row.submitted("12")
    row.open(RUN, 1, "n1", "key")
    row.listening(20000)
    put_fields(row, fields)
    await kept.open(row)
    return row


async def test_what_jupyterhub_keeps_of_a_row_brings_it_back(kept, ledger_file, reopened, caplog):
    row = await running_row(kept, choices={"partition": "gpu"}, renewals=2)
    copy = json.loads(json.dumps(row.record.copy()))
    ledger_file.unlink()
    again = reopened()
    found = again.recall("alice", "lab", copy)
    assert found.record.columns() == row.record.columns()
    assert again.by_report_key("key") is found
    assert "alice:lab: took job 12 from JupyterHub's own database, because the ledger, made on" in caplog.text
    # And it is committed.
    await again.save(found)
    assert [row.record.columns() for row in reopened().live()] == [found.record.columns()]


async def test_a_backups_row_gives_way_to_a_later_run(kept, reopened):
    row = await running_row(kept)
    later = row.record.copy() | {"started_at": row.record.started_at + 1, "host": "n2", "port": 20001}
    again = reopened()
    found = again.recall("alice", "lab", later)
    assert (found.record.host, found.record.port) == ("n2", 20001)
    assert again.by_tag(row.tag) is found


async def test_the_ledgers_own_row_counts_where_it_is_not_older(kept, reopened):
    """JupyterHub's copy is made when a server is ready: a job that was put back since is another matter."""
    row = await running_row(kept)
    copy = row.record.copy()
    row.back_in_queue(time.time())
    await kept.save(row)
    again = reopened()
    assert again.recall("alice", "lab", copy).record.port == 0


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(lambda copy: {}, id="none"),
        pytest.param(lambda copy: {"tag": copy["tag"]}, id="the tag alone, as before"),
        pytest.param(lambda copy: copy | {"username": "bob"}, id="another user's"),
        pytest.param(lambda copy: copy | {"server": ""}, id="another server's"),
        pytest.param(lambda copy: copy | {"owner": "bob"}, id="another account's"),
        pytest.param(lambda copy: copy | {"tag": "s23456789abcdef"}, id="a tag that is not ours"),
    ],
)
async def test_a_copy_that_is_not_this_servers_brings_nothing_back(kept, ledger_file, reopened, spoiled):
    copy = (await running_row(kept)).record.copy()
    ledger_file.unlink()
    again = reopened()
    assert again.recall("alice", "lab", spoiled(copy)) is None
    assert again.live() == []


async def test_a_copy_does_not_bring_back_what_has_ended(kept, reopened):
    row = await running_row(kept)
    copy = row.record.copy()
    row.ended(End(Cause.IDLE, "", time.time()))
    await kept.save(row)
    for ledger_ in (kept, reopened()):
        assert ledger_.recall("alice", "lab", copy) is None
        assert ledger_.live() == []


async def test_no_tag_is_given_twice(kept, monkeypatch):
    """Four letters of it are random, and one server may start many jobs in a month."""
    lives, over = await opened_row(kept), await opened_row(kept, end=End(Cause.IDLE, "", time.time()))
    given = iter([lives.tag, over.tag, "s234567"])
    monkeypatch.setattr(Keys, "new_tag", lambda *_: next(given))
    assert kept.new_job(("alice", "lab"), "alice", kept.clusters.default).tag == "s234567"
