"""The ledger's tables, and how those of an earlier version become today's."""

import time
from collections.abc import Callable

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    func,
    insert,
    inspect,
    select,
    update,
)

from hpcspawner.errors import LedgerUnusable

# Without the number of bits MySQL keeps seven digits, which is some minutes of a time since 1970.
_SECONDS = Float(53)
_TABLES = MetaData()

JOBS = Table(
    "hpcspawner_jobs",
    _TABLES,
    Column("tag", String(40), primary_key=True),
    Column("hub", String(64), nullable=False, index=True),
    Column("username", String(255), nullable=False),
    Column("server", String(255), nullable=False),
    Column("owner", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("follows", String(40), nullable=False),
    Column("choices", JSON, nullable=False),
    Column("renewals", Integer, nullable=False),
    Column("job_id", String(255), nullable=False),
    Column("asked_at", _SECONDS, nullable=False),
    Column("waits_since", _SECONDS, nullable=False),
    Column("ticket_hash", String(64), nullable=False),
    Column("run", String(200), nullable=False),
    Column("runs", Integer, nullable=False),
    Column("began_at", _SECONDS, nullable=False),
    Column("report_key_hash", String(64), nullable=False),
    Column("host", String(255), nullable=False),
    Column("port", Integer, nullable=False),
    Column("wanted", Boolean, nullable=False),
    Column("ended_at", _SECONDS, nullable=True, index=True),
    Column("cause", String(40), nullable=False),
    Column("message", String(1000), nullable=False),
    Column("exit_code", Integer, nullable=True),
    Column("log", JSON, nullable=False),
)
# One row: the version of the tables, and when the ledger was made (seconds since 1970).
_SCHEMA = Table(
    "hpcspawner_schema",
    _TABLES,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", _SECONDS, nullable=False),
)


def prepare(engine: Engine) -> float:
    """Make the tables, or bring those of an earlier version up to date; when the ledger was made (s since 1970).

    Raises LedgerUnusable where a newer version than this one has written them. SQLite commits each change of a table
    by itself, so each step may be cut off and is done again at the next start.
    """
    with engine.begin() as connection:
        version = _version(connection)
        if version > VERSION:
            raise LedgerUnusable(
                f"was written by a newer version of hpcspawner (its schema is {version}, this version knows {VERSION})",
                "Install that version again, or put back a copy of the ledger from before the upgrade.",
            )
        if not inspect(connection).has_table(JOBS.name):
            # The version first: a table without one counts as one from before there were versions.
            _stamp(connection, VERSION, time.time())
            JOBS.create(connection)
        else:
            for step in _STEPS[version:]:
                step(connection)
                connection.execute(update(_SCHEMA).values(version=_STEPS.index(step) + 1))
        return float(connection.execute(select(_SCHEMA.c.created_at)).scalar_one())


def _version(connection: Connection) -> int:
    if not inspect(connection).has_table(_SCHEMA.name):
        return 0
    return connection.execute(select(_SCHEMA.c.version)).scalar() or 0


def _stamp(connection: Connection, version: int, created_at: float) -> None:
    _SCHEMA.create(connection, checkfirst=True)
    connection.execute(delete(_SCHEMA))
    connection.execute(insert(_SCHEMA).values(version=version, created_at=created_at))


def _version_1(connection: Connection) -> None:
    """The tables say their version. The ledger is at least as old as its oldest row."""
    oldest = connection.execute(select(func.min(JOBS.c.waits_since)).where(JOBS.c.waits_since > 0)).scalar()
    _stamp(connection, 1, oldest or time.time())


# Each brings the tables from the version that is its place in this list to the next. They stay as they are for ever.
_STEPS: tuple[Callable[[Connection], None], ...] = (_version_1,)
VERSION = len(_STEPS)
