"""The ledger's table in a database: one thread, one transaction for each change."""

import asyncio
import contextlib
import logging
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    Boolean,
    Column,
    Engine,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.engine import make_url

_Value = TypeVar("_Value")

# SQLite lets others wait this long for its one lock; a backup or a slow disk holds it for seconds.
LOCK_TIMEOUT_S = 30

# Without the number of bits MySQL keeps seven digits, which is some minutes of a time since 1970.
_SECONDS = Float(53)

_JOBS = Table(
    "hpcspawner_jobs",
    MetaData(),
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


class Store:
    """The table, reached through a thread of its own: a locked or slow database never holds up the Hub's loop."""

    def __init__(self, url: str, hub: str, log: logging.Logger):
        self._url, self._hub, self._log = url, hub, log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hpcspawner-ledger")
        self._engine: Engine | None = None

    def load(self, since: float) -> list[dict[str, Any]]:
        """Rows that live, or ended after this time (seconds since 1970). Blocks; used once, when the Hub starts."""
        return self._thread.submit(self._load, since).result()

    def strangers(self) -> int:
        """How many living jobs in the table belong to a Hub of another address. Blocks; used once."""
        return self._thread.submit(self._strangers).result()

    async def write(self, row: dict[str, Any]) -> None:
        """Commit one row, by its tag; a caller that is cancelled leaves it to be committed."""
        await self._off_the_loop(lambda: self._write(row))

    async def prune(self, before: float) -> None:
        """Drop rows that ended before this time (seconds since 1970)."""
        await self._off_the_loop(lambda: self._prune(before))

    def close(self) -> None:
        """Finish what was begun and let go of the database."""
        self._thread.shutdown()
        if self._engine is not None:
            self._engine.dispose()

    async def _off_the_loop(self, work: Callable[[], _Value]) -> _Value:
        return await asyncio.shield(asyncio.wrap_future(self._thread.submit(work)))

    def _opened(self) -> Engine:
        if self._engine is None:
            url = make_url(self._url)
            sqlite = url.get_backend_name() == "sqlite"
            if sqlite and url.database and url.database != ":memory:":
                _keep_to_ourselves(Path(url.database), self._log)
            # A connection that a server dropped while idle is noticed and made anew.
            self._engine = create_engine(
                self._url,
                pool_pre_ping=True,
                # What a row holds, lines of users' logs among it, is not for the Hub's log.
                hide_parameters=True,
                connect_args={"timeout": LOCK_TIMEOUT_S} if sqlite else {},
            )
            _JOBS.metadata.create_all(self._engine)
        return self._engine

    def _load(self, since: float) -> list[dict[str, Any]]:
        wanted = select(_JOBS).where(_JOBS.c.hub == self._hub)
        with self._opened().begin() as connection:
            found = connection.execute(wanted.where(or_(_JOBS.c.ended_at.is_(None), _JOBS.c.ended_at > since)))
            return [{name: value for name, value in row.items() if name != "hub"} for row in found.mappings()]

    def _strangers(self) -> int:
        others = select(_JOBS.c.tag).where(_JOBS.c.hub != self._hub, _JOBS.c.ended_at.is_(None))
        with self._opened().begin() as connection:
            return len(connection.execute(others).all())

    def _write(self, row: dict[str, Any]) -> None:
        with self._opened().begin() as connection:
            if not connection.execute(update(_JOBS).where(_JOBS.c.tag == row["tag"]).values(row)).rowcount:
                connection.execute(insert(_JOBS).values({**row, "hub": self._hub}))

    def _prune(self, before: float) -> None:
        with self._opened().begin() as connection:
            connection.execute(delete(_JOBS).where(_JOBS.c.hub == self._hub, _JOBS.c.ended_at < before))


def _keep_to_ourselves(path: Path, log: logging.Logger) -> None:
    """Make SQLite's file for the Hub's account alone before SQLite does; one that others may read is narrowed.

    It holds hashes and names, and the last lines of users' logs. SQLite gives its journals the mode of the database.
    """
    # Where the folder is missing, SQLite says so.
    with contextlib.suppress(FileExistsError, FileNotFoundError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    for file in (path, *(Path(f"{path}{end}") for end in ("-journal", "-wal", "-shm"))):
        # By name: to close a file here would take SQLite's locks from another connection of this process.
        with contextlib.suppress(FileNotFoundError):
            mode = stat.S_IMODE(file.stat().st_mode)
            if mode & 0o077:
                file.chmod(0o600)
                log.warning("hpcspawner: %s had mode %04o, so others could read it; it has 0600 now", file, mode)
