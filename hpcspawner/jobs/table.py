"""The ledger in a database: one thread, one transaction for all changes that wait for it."""

import asyncio
import contextlib
import logging
import os
import stat
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, delete, insert, or_, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from hpcspawner.errors import LedgerUnusable
from hpcspawner.jobs.schema import CLUSTERS, JOBS, PRESETS, prepare
from hpcspawner.units import printable

_Value = TypeVar("_Value")
# A row and who waits for it to be committed.
_Change = tuple[dict[str, Any], Future[None]]

# SQLite lets others wait this long for its one lock; a backup or a slow disk holds it for seconds.
LOCK_TIMEOUT_S = 30
_MOVE_IT_AWAY = (
    "Move it away and start the Hub again: it makes a new one and takes up the jobs that are waiting or running."
)


class Store:
    """The table, reached through a thread of its own: a locked or slow database never holds up the Hub's loop."""

    def __init__(self, url: str, hub: str, log: logging.Logger):
        self._url, self._hub, self._log = url, hub, log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hpcspawner-ledger")
        self._engine: Engine | None = None
        self._unwritten: deque[_Change] = deque()
        self.created_at = 0.0
        """When the ledger was made, in seconds since 1970; known once something was read."""

    def load(self, since: float) -> list[dict[str, Any]]:
        """Rows that live, or ended after this time (seconds since 1970). Blocks; used once, when the Hub starts.

        Raises LedgerUnusable.
        """
        return self._at_first(lambda: self._load(since))

    def other_hubs_jobs(self) -> int:
        """How many living jobs in the table belong to a Hub of another address. Blocks; used once.

        Raises LedgerUnusable.
        """
        return self._at_first(self._other_hubs_jobs)

    def profiles(self) -> dict[str, str]:
        """The last profile of each cluster by name, as TOML. Blocks; used once. Raises LedgerUnusable."""
        return self._at_first(self._profiles)

    def keep_profiles(self, profiles: dict[str, str]) -> None:
        """Keep these profiles for when their clusters are not configured. Blocks; used once. Raises LedgerUnusable."""
        self._at_first(lambda: self._keep_profiles(profiles))

    def saved_presets(self) -> list[dict[str, Any]]:
        """The users' own presets. Blocks; used once. Raises LedgerUnusable."""
        return self._at_first(self._saved_presets)

    async def keep_preset(self, row: dict[str, Any]) -> None:
        """Commit a preset in place of the one with its id. Raises SQLAlchemyError."""
        await self._off_the_loop(lambda: self._keep_preset(row))

    async def drop_presets(self, ids: Collection[str]) -> None:
        """Drop the presets with these ids. Raises SQLAlchemyError."""
        await self._off_the_loop(lambda: self._drop_presets(ids))

    def unusable(self, error: Exception) -> LedgerUnusable:
        """What an admin reads of an error that the Hub met when it opened the ledger."""
        if isinstance(error, LedgerUnusable):
            return error.of(self._place())
        why = printable(str(getattr(error, "orig", None) or error))[:200]
        if isinstance(error, OperationalError) and "no such column" not in why:
            cure = "The Hub's account must be able to read and write it (HPCSpawner.ledger_url)."
            return LedgerUnusable(f"can't be opened: {why}", cure).of(self._place())
        return LedgerUnusable(f"is damaged: {why}", _MOVE_IT_AWAY).of(self._place())

    def _at_first(self, work: Callable[[], _Value]) -> _Value:
        try:
            return self._thread.submit(work).result()
        except (LedgerUnusable, SQLAlchemyError, ValueError) as error:
            # What is no JSON is a ValueError.
            raise self.unusable(error) from error

    def _place(self) -> str:
        url = make_url(self._url)
        is_file = url.get_backend_name() == "sqlite" and url.database
        return str(url.database) if is_file else url.render_as_string(hide_password=True)

    async def write(self, row: dict[str, Any]) -> None:
        """Commit one row, by its tag; a caller that is cancelled leaves it to be committed."""
        committed: Future[None] = Future()
        self._unwritten.append((row, committed))
        self._thread.submit(self._write_all)
        await asyncio.shield(asyncio.wrap_future(committed))

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
            engine = create_engine(
                self._url,
                pool_pre_ping=True,
                # What a row holds, lines of users' logs among it, is not for the Hub's log.
                hide_parameters=True,
                connect_args={"timeout": LOCK_TIMEOUT_S} if sqlite else {},
            )
            if sqlite:
                _check(engine)
            self.created_at = prepare(engine)
            self._engine = engine
        return self._engine

    def _load(self, since: float) -> list[dict[str, Any]]:
        wanted = select(JOBS).where(JOBS.c.hub == self._hub)
        with self._opened().begin() as connection:
            found = connection.execute(wanted.where(or_(JOBS.c.ended_at.is_(None), JOBS.c.ended_at > since)))
            return [{name: value for name, value in row.items() if name != "hub"} for row in found.mappings()]

    def _other_hubs_jobs(self) -> int:
        others = select(JOBS.c.tag).where(JOBS.c.hub != self._hub, JOBS.c.ended_at.is_(None))
        with self._opened().begin() as connection:
            return len(connection.execute(others).all())

    def _profiles(self) -> dict[str, str]:
        with self._opened().begin() as connection:
            found = connection.execute(select(CLUSTERS).where(CLUSTERS.c.hub == self._hub))
            return {row["name"]: row["profile"] for row in found.mappings()}

    def _keep_profiles(self, profiles: dict[str, str]) -> None:
        with self._opened().begin() as connection:
            for name, text in profiles.items():
                connection.execute(delete(CLUSTERS).where(CLUSTERS.c.hub == self._hub, CLUSTERS.c.name == name))
                connection.execute(insert(CLUSTERS).values(hub=self._hub, name=name, profile=text))

    def _saved_presets(self) -> list[dict[str, Any]]:
        with self._opened().begin() as connection:
            found = connection.execute(select(PRESETS).where(PRESETS.c.hub == self._hub))
            return [dict(row) for row in found.mappings()]

    def _keep_preset(self, row: dict[str, Any]) -> None:
        with self._opened().begin() as connection:
            connection.execute(delete(PRESETS).where(PRESETS.c.hub == self._hub, PRESETS.c.id == row["id"]))
            connection.execute(insert(PRESETS).values({**row, "hub": self._hub}))

    def _drop_presets(self, ids: Collection[str]) -> None:
        with self._opened().begin() as connection:
            for one in ids:
                connection.execute(delete(PRESETS).where(PRESETS.c.hub == self._hub, PRESETS.c.id == one))

    def _write_all(self) -> None:
        """Commit what waits, in one transaction; where that fails, each by itself: one row's fault is its own."""
        changes = []
        # Only this removes rows.
        while self._unwritten:
            changes.append(self._unwritten.popleft())
        if changes and not self._written(changes, last=len(changes) == 1):
            for change in changes:
                self._written([change], last=True)

    def _written(self, changes: list[_Change], *, last: bool) -> bool:
        """Whether these are committed; those who wait hear of a failure if this was the `last` try."""
        try:
            with self._opened().begin() as connection:
                for row, _ in changes:
                    self._write(connection, row)
        except BaseException as error:
            for _, committed in changes if last else ():
                committed.set_exception(error)
            return last
        for _, committed in changes:
            committed.set_result(None)
        return True

    def _write(self, connection: Connection, row: dict[str, Any]) -> None:
        if not connection.execute(update(JOBS).where(JOBS.c.tag == row["tag"]).values(row)).rowcount:
            connection.execute(insert(JOBS).values({**row, "hub": self._hub}))

    def _prune(self, before: float) -> None:
        with self._opened().begin() as connection:
            connection.execute(delete(JOBS).where(JOBS.c.hub == self._hub, JOBS.c.ended_at < before))


def _check(engine: Engine) -> None:
    """SQLite finds damage where it reads, which may be long after the Hub's start; so look at all of the file."""
    with engine.connect() as connection:
        found = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if found != "ok":
        raise LedgerUnusable(f"is damaged: {printable(str(found))}", _MOVE_IT_AWAY)


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
                log.warning(
                    "hpcspawner: %s had mode %04o, which lets other accounts read it; the Hub has set it to 0600",
                    file,
                    mode,
                )
