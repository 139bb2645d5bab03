"""The ledger: what is kept of a job, and what is forgotten."""

import json
import re
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcspawner.hub.ledger import End, Ledger, Row, digest, ledger, new_label, now
from hpcspawner.job.script import quote
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.queue import OwnedJob

HUB = "5f0c9a7be1d24386"


def a_row(**fields):
    return Row("alice", JobLabel("jupyter-lab", "h5f0c0123456789"), "alice:lab", **fields)


# --- labels


@given(st.text(max_size=60), st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_a_tag_fits_the_oldest_torque(server, hub):
    """15 characters, the first of which is a letter, and none that a name may not have."""
    tag = new_label(server, hub).tag
    assert re.fullmatch(r"[a-z][a-z0-9]{14}", tag)


@given(st.text(max_size=60))
def test_a_jobs_name_is_harmless_whatever_the_servers_name_is(server):
    name = new_label(server, HUB).name
    assert re.fullmatch(r"jupyter(-[a-z0-9-]{1,27})?", name)
    assert quote(name) == name


@pytest.mark.parametrize(
    ("server", "name"),
    [
        pytest.param("", "jupyter", id="the default server"),
        pytest.param("lab", "jupyter-lab", id="a plain name"),
        pytest.param("gpu-2", "jupyter-gpu-2", id="with a hyphen"),
        pytest.param("a" * 20, "jupyter-" + "a" * 20, id="twenty letters"),
    ],
)
def test_a_plain_name_is_kept(server, name):
    assert new_label(server, HUB).name == name


@pytest.mark.parametrize(
    "servers",
    [
        pytest.param(["Lab", "lab"], id="capitals"),
        pytest.param(["a b", "a_b", "a-b"], id="signs"),
        pytest.param(["ä", "ö", "-"], id="other alphabets"),
        pytest.param(["a" * 21, "a" * 22, "a" * 20], id="long names"),
    ],
)
def test_names_that_look_alike_stay_apart(servers):
    assert len({new_label(server, HUB).name for server in servers}) == len(servers)


def test_a_tag_is_never_given_twice_and_tells_the_hub():
    tags = [new_label("lab", HUB).tag for _ in range(1000)]
    assert len(set(tags)) == 1000
    assert {tag[:5] for tag in tags} == {"h5f0c"}


# --- rows


def test_what_a_restarted_hub_is_told_holds_no_secret():
    row = a_row(environment={"JUPYTERHUB_API_TOKEN": "t" * 40})
    ticket = row.arm()
    row.submitted("12")
    row.open("run-" + "r" * 30)
    key = row.report_key
    kept = row.as_state()
    text = json.dumps(kept)
    for secret in (ticket, key, row.run, row.ticket_hash, "t" * 40):
        assert secret
        assert secret not in text
    assert kept["report_key_hash"] == digest(key) != key


def test_a_row_is_known_again_by_its_state():
    row = a_row()
    row.arm()
    row.submitted("12")
    row.open("run-" + "r" * 30)
    row.listening("n1", 20000)
    again = Row.from_state(json.loads(json.dumps(row.as_state())), "alice:lab")
    assert replace(again.job, submitted_at=0.0) == OwnedJob("12", "alice", "h5f0c0123456789", 0.0)
    assert again.job.submitted_at >= row.job.submitted_at
    assert (again.host, again.port, again.server) == ("n1", 20000, "alice:lab")
    assert again.as_state() == row.as_state()
    assert again.wanted
    assert not again.ticket_hash


def test_a_launcher_of_a_job_that_is_known_again_may_still_report():
    row = a_row()
    row.arm()
    row.open("run-" + "r" * 30)
    key = row.report_key
    after_restart = Ledger()
    again = after_restart.open(Row.from_state(row.as_state(), "alice:lab"))
    assert after_restart.by_report_key(key) is again


def test_only_the_hash_of_a_ticket_is_kept():
    row = a_row()
    ticket = row.arm()
    assert len(ticket) >= 32
    assert set(ticket) <= set(string.ascii_letters + string.digits + "-_")
    assert row.ticket_hash == digest(ticket)
    assert ticket not in repr(row)


def test_a_ticket_belongs_to_the_first_run_that_shows_it():
    row = a_row()
    row.arm()
    row.open("first")
    key = row.report_key
    row.open("second")
    assert (row.run, row.report_key) == ("first", key)


def test_a_new_ticket_is_for_a_new_run():
    row = a_row()
    row.arm()
    row.open("first")
    key = row.report_key
    row.arm()
    row.open("second")
    assert row.run == "second"
    assert row.report_key != key


def test_a_server_that_listens_needs_no_secrets_any_more():
    row = a_row(environment={"TOKEN": "t"})
    row.arm()
    row.open("first")
    hash_ = row.report_key_hash
    row.listening("n1", 20000)
    assert (row.ticket_hash, row.report_key, row.environment) == ("", "", {})
    # For the report of its end.
    assert row.report_key_hash == hash_


def test_a_job_that_nobody_wants_has_nothing_to_give_away():
    row = a_row(environment={"TOKEN": "t"})
    assert row.wanted
    row.give_up()
    assert (row.wanted, row.environment) == (False, {})


def test_the_clock_of_absence_starts_when_the_submit_was_answered():
    row = a_row()
    before = now()
    row.submitted("12")
    assert before <= row.job.submitted_at <= now()


@pytest.mark.parametrize(
    "news",
    [
        pytest.param(lambda row: row.submitted("12"), id="submitted"),
        pytest.param(lambda row: row.listening("n1", 20000), id="listening"),
        pytest.param(lambda row: row.ended(End("no-port", "")), id="ended"),
    ],
)
def test_who_waits_for_news_is_woken(news):
    row = a_row()
    assert not row.changed.is_set()
    news(row)
    assert row.changed.is_set()


# --- the ledger


def test_rows_are_found_by_their_secrets_and_by_no_others():
    kept = Ledger()
    rows = [kept.open(a_row()) for _ in range(5)]
    tickets = [row.arm() for row in rows]
    for row in rows:
        row.open("run")
    assert [kept.by_ticket(ticket) for ticket in tickets] == rows
    assert [kept.by_report_key(row.report_key) for row in rows] == rows
    for wrong in ("", "x" * 43, rows[0].ticket_hash, rows[0].report_key_hash, tickets[0] + "x", tickets[0][:-1]):
        assert kept.by_ticket(wrong) is None
        assert kept.by_report_key(wrong) is None
    # Each secret opens its own door only.
    assert kept.by_report_key(tickets[0]) is None
    assert kept.by_ticket(rows[0].report_key) is None


def test_a_row_without_a_secret_is_found_by_none():
    kept = Ledger()
    kept.open(a_row())
    assert kept.by_ticket("") is None
    assert kept.by_report_key("") is None


def test_a_row_that_was_closed_is_found_no_more():
    kept = Ledger()
    row = kept.open(a_row())
    ticket = row.arm()
    kept.close(row)
    kept.close(row)
    assert kept.by_ticket(ticket) is None


def test_of_two_rows_for_one_job_the_newer_counts():
    """The Hub may load one state more than once."""
    row = a_row()
    row.arm()
    row.submitted("12")
    row.open("run-" + "r" * 30)
    kept = Ledger()
    first, second = (kept.open(Row.from_state(row.as_state(), "alice:lab")) for _ in range(2))
    assert first is not second
    assert kept.by_report_key(row.report_key) is second


def test_rows_that_have_no_job_yet_stay_apart():
    kept = Ledger()
    rows = [kept.open(a_row()) for _ in range(2)]
    assert [kept.by_ticket(row.arm()) for row in rows] == rows


def test_there_is_one_ledger():
    assert ledger() is ledger()
