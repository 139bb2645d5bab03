"""The ledger's tables, and how those of an earlier version become today's."""

import time
from collections.abc import Callable

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    inspect,
    literal_column,
    select,
    update,
)

from hpcspawner.errors import LedgerUnusable
from hpcspawner.jobs.record import SECONDS, table_columns

_TABLES = MetaData()

JOBS = Table("hpcspawner_jobs", _TABLES, *table_columns(), Column("hub", String(64), nullable=False, index=True))
CLUSTERS = Table(
    "hpcspawner_clusters",
    _TABLES,
    Column("hub", String(64), primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("profile", Text, nullable=False),
)
"""The last profile of each cluster, for the jobs of one that is taken out of the configuration."""

PRESETS = Table(
    "hpcspawner_presets",
    _TABLES,
    Column("hub", String(64), primary_key=True),
    Column("id", String(64), primary_key=True),
    Column("username", String(255), nullable=False),
    Column("cluster", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    Column("options", JSON, nullable=False),
    Column("saved_at", SECONDS, nullable=False),
)
"""Presets that users have saved."""

# One row: the version of the tables, and when the ledger was made (seconds since 1970).
_SCHEMA = Table(
    "hpcspawner_schema",
    _TABLES,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("created_at", SECONDS, nullable=False),
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
                "Install that version again, or restore a copy of the ledger from before the upgrade.",
            )
        if not inspect(connection).has_table(JOBS.name):
            # The version first: a table without one counts as one from before there were versions.
            _stamp(connection, VERSION, time.time())
            JOBS.create(connection)
            CLUSTERS.create(connection, checkfirst=True)
            PRESETS.create(connection, checkfirst=True)
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
    names = {column["name"] for column in inspect(connection).get_columns(JOBS.name)}
    since = literal_column("waits_since" if "waits_since" in names else "submitted_at", SECONDS)
    oldest = connection.execute(select(func.min(since)).select_from(JOBS).where(since > 0)).scalar()
    _stamp(connection, 1, oldest or time.time())


def _version_2(connection: Connection) -> None:
    """A job has its cluster (\"\": the only one there was), and the times of its run by one name each."""
    there = {column["name"] for column in inspect(connection).get_columns(JOBS.name)}
    change = Operations(MigrationContext.configure(connection))
    for old, new in (("waits_since", "submitted_at"), ("began_at", "started_at")):
        if new not in there:
            change.alter_column(JOBS.name, old, new_column_name=new, existing_type=Float(53), existing_nullable=False)
    if "cluster" not in there:
        change.add_column(JOBS.name, Column("cluster", String(64), nullable=False, server_default=""))
    CLUSTERS.create(connection, checkfirst=True)


def _version_3(connection: Connection) -> None:
    """A job has the start that its scheduler expects."""
    if "expected_at" not in {column["name"] for column in inspect(connection).get_columns(JOBS.name)}:
        change = Operations(MigrationContext.configure(connection))
        change.add_column(JOBS.name, Column("expected_at", SECONDS, nullable=False, server_default="0"))


def _version_4(connection: Connection) -> None:
    """Users have presets of their own."""
    PRESETS.create(connection, checkfirst=True)


def _version_of_words(connection: Connection) -> None:
    """A job has what the sentence about its end is made of."""
    if "words" not in {column["name"] for column in inspect(connection).get_columns(JOBS.name)}:
        change = Operations(MigrationContext.configure(connection))
        change.add_column(JOBS.name, Column("words", JSON, nullable=True))


# Each brings the tables from the version that is its place in this list to the next. They stay as they are for ever.
_STEPS: tuple[Callable[[Connection], None], ...] = (
    _version_1,
    _version_2,
    _version_3,
    _version_4,
    _version_of_words,
)
VERSION = len(_STEPS)
