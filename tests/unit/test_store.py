"""The table in a real database: what is awaited is there, and who waits for a lock holds up nobody."""

import asyncio
import contextlib
import logging
import os
import sqlite3
import stat
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from support.jobs import a_record

from hpcspawner.errors import LedgerUnusable
from hpcspawner.jobs import schema
from hpcspawner.jobs import table as store_module
from hpcspawner.jobs.table import Store


def a_row(tag="h1", **fields):
    stored = a_record(tag=tag).columns()
    assert set(fields) <= set(stored)
    return stored | fields


@pytest.fixture
def file(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def opened(file):
    """Stores of Hubs on the one database."""
    with contextlib.ExitStack() as stack:

        def another(hub="hub"):
            store = Store(f"sqlite:///{file}", hub, logging.getLogger("test"))
            stack.callback(store.close)
            return store

        yield another


def tags(store):
    return {row["tag"] for row in store.load(0)}


async def test_what_was_written_is_there_for_the_next_process(opened):
    row = a_row(choices={"partition": "gpu", "gpus": 2, "image": None}, job_id="12", log=["one", "zwei ü"], port=20000)
    await opened().write(row)
    assert opened().load(0) == [row]


async def test_a_written_row_is_committed_when_the_await_is_over(opened, file):
    """The process may be killed right after: what counts is what another connection sees."""
    await opened().write(a_row(job_id="12"))
    other = sqlite3.connect(file)
    assert other.execute("SELECT tag, job_id FROM hpcspawner_jobs").fetchall() == [("h1", "12")]
    other.close()


async def test_the_second_write_of_a_row_changes_it(opened):
    store = opened()
    for row in (a_row(), a_row("h2"), a_row(job_id="12"), a_row(job_id="12", ended_at=time.time(), cause="idle")):
        await store.write(row)
    found = {row["tag"]: (row["job_id"], row["cause"]) for row in store.load(0)}
    assert found == {"h1": ("12", "idle"), "h2": ("", "")}


async def test_two_hubs_in_one_database_do_not_see_each_other(opened):
    ours, theirs = opened(), opened("other")
    await ours.write(a_row("h1", ended_at=1.0))
    await theirs.write(a_row("h2", ended_at=1.0))
    assert (tags(ours), tags(theirs)) == ({"h1"}, {"h2"})
    await ours.prune(2.0)
    assert (tags(ours), tags(theirs)) == (set(), {"h2"})


async def test_rows_that_live_are_loaded_however_old_and_ended_ones_while_they_are_young(opened):
    store = opened()
    for row in (a_row("lives"), a_row("old", ended_at=100.0), a_row("young", ended_at=200.0)):
        await store.write(row)
    assert {row["tag"] for row in store.load(150.0)} == {"lives", "young"}


async def test_what_ended_long_ago_is_dropped(opened):
    store = opened()
    for row in (a_row("lives"), a_row("old", ended_at=100.0), a_row("young", ended_at=200.0)):
        await store.write(row)
    await store.prune(150.0)
    assert tags(store) == {"lives", "young"}


# --- a database that is slow or away


@contextlib.contextmanager
def locked(file, seconds=0.0):
    """As a backup does it; let go at the end of the block, or after these seconds."""
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(seconds, other.rollback)
    if seconds:
        release.start()
    try:
        yield
    finally:
        release.join() if seconds else other.rollback()
        other.close()


async def test_a_lock_is_waited_for_and_the_loop_goes_on(opened, file):
    store = opened()
    await store.write(a_row())
    with locked(file):
        task = asyncio.create_task(store.write(a_row(job_id="12")))
        # A write that stops the loop stops this too, so that nobody would ever let go of the lock.
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert not task.done()
    await task
    assert store.load(0)[0]["job_id"] == "12"


async def test_the_database_itself_waits_half_a_minute_for_a_lock(opened):
    """Without being asked to, SQLite gives up after 5 s."""
    store = opened()
    await store.write(a_row())
    with store._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000


async def test_writes_are_done_in_the_order_in_which_they_were_asked_for(opened, file):
    store = opened()
    await store.write(a_row())
    with locked(file, seconds=0.5):
        await asyncio.gather(*(store.write(a_row(job_id=str(number))) for number in range(20)))
    assert store.load(0)[0]["job_id"] == "19"


async def test_a_caller_that_is_cancelled_leaves_its_row_to_be_committed(opened, file):
    store = opened()
    await store.write(a_row())
    with locked(file, seconds=0.5):
        task = asyncio.create_task(store.write(a_row(job_id="12")))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert store.load(0)[0]["job_id"] == "12"


async def test_a_database_that_can_not_be_written_is_an_error_and_the_next_write_may_succeed(opened, file):
    store = opened()
    await store.write(a_row())
    other = sqlite3.connect(file)
    other.execute("ALTER TABLE hpcspawner_jobs RENAME TO away")
    other.commit()
    with pytest.raises(SQLAlchemyError):
        await store.write(a_row("h2"))
    other.execute("ALTER TABLE away RENAME TO hpcspawner_jobs")
    other.commit()
    other.close()
    await store.write(a_row("h3"))
    assert tags(store) == {"h1", "h3"}


# --- a ledger that can't be used


def test_a_folder_that_there_is_not_is_told_when_the_hub_starts(tmp_path):
    store = Store(f"sqlite:///{tmp_path}/none/ledger.sqlite", "hub", logging.getLogger("test"))
    with pytest.raises(LedgerUnusable, match=r"none/ledger\.sqlite can't be opened: unable to open database file"):
        store.load(0)
    store.close()


async def cut_in_the_middle(store, file):
    for number in range(200):
        await store.write(a_row(f"h{number}", log=["x" * 100]))
    with file.open("r+b") as opened:
        opened.seek(8192)
        opened.write(b"\xff" * 16384)


async def no_database(store, file):
    file.write_bytes(b"no database " * 1000)


async def no_json(store, file):
    await store.write(a_row())
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("UPDATE hpcspawner_jobs SET choices = '{'")
        other.commit()


@pytest.mark.parametrize("damage", [cut_in_the_middle, no_database, no_json])
async def test_a_damaged_ledger_is_named_with_what_to_do(opened, file, damage):
    await damage(opened(), file)
    with pytest.raises(LedgerUnusable) as caught:
        opened().load(0)
    told = str(caught.value)
    assert told.startswith(f"The ledger {file} is damaged: ")
    assert told.endswith(
        "Move it away and start the Hub again: it makes a new one and takes up the jobs that are waiting or running."
    )
    assert "\n" not in told


def test_a_password_is_not_told():
    store = Store("postgresql://hub:hidden@127.0.0.1:1/hub", "hub", logging.getLogger("test"))
    told = str(store.unusable(ValueError("x")))
    assert "postgresql://hub:***@127.0.0.1:1/hub" in told
    store.close()


# --- versions of the ledger


# What the revision 6b53f49 made, which wrote no version.
WITHOUT_VERSION = """
CREATE TABLE hpcspawner_jobs (
    tag VARCHAR(40) NOT NULL, hub VARCHAR(64) NOT NULL, username VARCHAR(255) NOT NULL, server VARCHAR(255) NOT NULL,
    owner VARCHAR(64) NOT NULL, name VARCHAR(64) NOT NULL, follows VARCHAR(40) NOT NULL, choices JSON NOT NULL,
    renewals INTEGER NOT NULL, job_id VARCHAR(255) NOT NULL, asked_at FLOAT NOT NULL, waits_since FLOAT NOT NULL,
    ticket_hash VARCHAR(64) NOT NULL, run VARCHAR(200) NOT NULL, runs INTEGER NOT NULL, began_at FLOAT NOT NULL,
    report_key_hash VARCHAR(64) NOT NULL, host VARCHAR(255) NOT NULL, port INTEGER NOT NULL, wanted BOOLEAN NOT NULL,
    ended_at FLOAT, cause VARCHAR(40) NOT NULL, message VARCHAR(1000) NOT NULL, exit_code INTEGER, log JSON NOT NULL,
    PRIMARY KEY (tag)
);
CREATE INDEX ix_hpcspawner_jobs_ended_at ON hpcspawner_jobs (ended_at);
CREATE INDEX ix_hpcspawner_jobs_hub ON hpcspawner_jobs (hub);
INSERT INTO hpcspawner_jobs VALUES (
    'k1', 'hub', 'alice', 'lab', 'alice', 'jupyter-lab', '', '{"partition": "gpu"}', 1, '12', 1000.5, 1000.25, 'ab',
    'run', 1, 1001.5, 'cd', 'n1', 20000, 1, NULL, '', '', NULL, '[]'
);
INSERT INTO hpcspawner_jobs VALUES (
    'k2', 'hub', 'bob', '', 'bob', 'jupyter', '', '{}', 0, '13', 2000.5, 2000.25, '', '', 0, 0.0, '', '', 0, 1, 2500.0,
    'exited', 'Over.', 3, '["a line"]'
);
"""


@pytest.fixture
def without_version(file):
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.executescript(WITHOUT_VERSION)
    return file


def stamp(file):
    with contextlib.closing(sqlite3.connect(file)) as other:
        return other.execute("SELECT version, created_at FROM hpcspawner_schema").fetchall()


def test_a_ledger_without_a_version_gets_one_and_keeps_its_rows(opened, without_version):
    for _ in range(2):
        store = opened()
        rows = {row["tag"]: row for row in store.load(0)}
        assert rows["k1"] == a_row("k1") | {
            **{"server": "lab", "name": "jupyter-lab", "choices": {"partition": "gpu"}, "renewals": 1, "job_id": "12"},
            **{"asked_at": 1000.5, "submitted_at": 1000.25, "ticket_hash": "ab", "run": "run", "runs": 1},
            **{"started_at": 1001.5, "cluster": "", "report_key_hash": "cd", "host": "n1", "port": 20000},
        }
        assert (rows["k2"]["message"], rows["k2"]["exit_code"], rows["k2"]["log"]) == ("Over.", 3, ["a line"])
        assert store.created_at == 1000.25, "it is as old as its oldest row"
        assert stamp(without_version) == [(schema.VERSION, 1000.25)]


async def test_an_upgraded_ledger_takes_new_rows(opened, without_version):
    await opened().write(a_row("k3"))
    assert tags(opened()) == {"k1", "k2", "k3"}


def test_a_new_ledger_knows_its_version_and_since_when_it_is_there(opened, file):
    before = time.time()
    store = opened()
    store.load(0)
    assert before <= store.created_at <= time.time()
    again = opened()
    again.load(0)
    assert again.created_at == store.created_at
    assert stamp(file) == [(schema.VERSION, store.created_at)]


@pytest.mark.parametrize("cut_off", ["before its rows' table", "before its version"])
def test_a_ledger_whose_making_was_cut_off_is_made_at_the_next_start(opened, file, cut_off):
    opened().load(0)
    with contextlib.closing(sqlite3.connect(file)) as other:
        done = "DROP TABLE hpcspawner_jobs" if "rows" in cut_off else "DELETE FROM hpcspawner_schema"
        other.execute(done)
        other.commit()
    opened().load(0)
    assert [version for version, _ in stamp(file)] == [schema.VERSION]


def test_a_ledger_of_a_newer_version_is_left_as_it_is(opened, without_version):
    opened().load(0)
    with contextlib.closing(sqlite3.connect(without_version)) as other:
        other.execute("UPDATE hpcspawner_schema SET version = 99")
        other.commit()
    before = without_version.read_bytes()
    with pytest.raises(
        LedgerUnusable, match=rf"is 99, this version knows {schema.VERSION}\)\. Install that version again"
    ):
        opened().load(0)
    assert without_version.read_bytes() == before


async def test_closing_finishes_what_was_begun(opened, file):
    store = opened()
    await store.write(a_row())
    task = asyncio.create_task(store.write(a_row(job_id="12")))
    await asyncio.sleep(0)
    store.close()
    await task
    assert opened().load(0)[0]["job_id"] == "12"


async def test_nobody_else_may_read_the_file(opened, file):
    before = os.umask(0)
    try:
        await opened().write(a_row())
    finally:
        os.umask(before)
    assert mode(file) == 0o600


def mode(file):
    return stat.S_IMODE(file.stat().st_mode)


def test_the_file_is_never_there_for_others_not_even_while_it_is_made(opened, file, monkeypatch):
    """The process may be killed, or the file be opened, before its mode is changed: so SQLite finds it made."""
    modes = []

    def creates(engine):
        modes.append(mode(file))
        return 0.0

    monkeypatch.setattr(store_module, "prepare", creates)
    before = os.umask(0)
    try:
        opened()._opened()
    finally:
        os.umask(before)
    assert modes == [0o600]


async def test_a_file_that_others_may_read_is_narrowed_with_its_journals_and_told(opened, file, caplog):
    await opened().write(a_row())
    journal = Path(f"{file}-journal")
    journal.touch()
    file.chmod(0o644)
    journal.chmod(0o664)
    opened().load(0)
    assert mode(file) == 0o600
    assert not journal.exists() or mode(journal) == 0o600
    assert f"{file} had mode 0644, which lets other accounts read it; the Hub has set it to 0600" in caplog.text
    assert f"{journal} had mode 0664" in caplog.text
    caplog.clear()
    opened().load(0)
    assert "had mode" not in caplog.text


async def test_journals_are_for_the_hub_alone_too(opened, file):
    before = os.umask(0)
    try:
        store = opened()
        await store.write(a_row())
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("PRAGMA journal_mode=WAL")
            await store.write(a_row("h2"))
            journals = sorted(file.parent.glob(f"{file.name}-*"))
            assert {path.name for path in journals} == {f"{file.name}-wal", f"{file.name}-shm"}
            assert {mode(path) for path in journals} == {0o600}
    finally:
        os.umask(before)


# --- many changes at once


@pytest.fixture
def commits(monkeypatch):
    """How many transactions were committed since."""
    begun = []

    def prepared(engine):
        created_at = schema.prepare(engine)
        event.listen(engine, "commit", lambda _: begun.append(1))
        return created_at

    monkeypatch.setattr(store_module, "prepare", prepared)
    return begun


async def held_up(store, *rows):
    """These rows are written while the store's thread is busy with something else; what became of each."""
    free = threading.Event()
    store._thread.submit(free.wait)
    writing = [asyncio.create_task(store.write(row)) for row in rows]
    await asyncio.sleep(0)
    free.set()
    return await asyncio.gather(*writing, return_exceptions=True)


async def test_what_waits_together_is_committed_together(opened, commits):
    store = opened()
    store.load(0)
    commits.clear()
    assert await held_up(store, *(a_row(f"h{number}") for number in range(50))) == [None] * 50
    assert len(commits) == 1
    assert tags(opened()) == {f"h{number}" for number in range(50)}


async def test_the_last_of_several_changes_of_a_row_is_kept(opened):
    await held_up(opened(), a_row(), a_row(job_id="12"), a_row(job_id="12", port=20000))
    (row,) = opened().load(0)
    assert (row["job_id"], row["port"]) == ("12", 20000)


async def test_a_row_that_the_database_refuses_is_its_own_callers_alone(opened):
    outcomes = await held_up(opened(), a_row("h1"), a_row("h2", owner=None), a_row("h3"))
    assert [type(outcome) for outcome in outcomes if outcome] == [IntegrityError]
    assert isinstance(outcomes[1], IntegrityError)
    assert tags(opened()) == {"h1", "h3"}
