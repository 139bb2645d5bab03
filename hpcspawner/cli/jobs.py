"""`hpcspawner jobs`: what the Hub's ledger has, beside what the schedulers list."""

import asyncio
import json
import logging
import shlex
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import create_engine, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from traitlets import Bool, Unicode

from hpcspawner.cli.command import Command
from hpcspawner.cli.hub_config import HubConfig
from hpcspawner.errors import ProfileError, SchedulerError, SecretUnusable
from hpcspawner.hub import doors
from hpcspawner.jobs import secret
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.schema import JOBS
from hpcspawner.schedulers.cluster import Cluster, Clusters
from hpcspawner.schedulers.state import JobState, JobStatus

_LOG = logging.getLogger("hpcspawner.jobs")
_COLUMNS = ("cluster", "job_id", "owner", "server", "state", "host", "remark")
ORPHAN, LOST, UNSEEN = "orphan", "lost", "unseen"
_WORDS = {
    ORPHAN: "no server needs it",
    LOST: "the ledger has it, and the scheduler lists it no longer",
    UNSEEN: "the scheduler did not answer",
    "": "",
}


@dataclass(frozen=True, slots=True)
class Row:
    """One job: what the ledger and the scheduler say of it. `kind` is one of the words above, "" for most."""

    cluster: str
    job_id: str
    owner: str
    server: str
    state: str
    host: str
    kind: str

    @property
    def remark(self) -> str:
        """The kind, in words."""
        return _WORDS[self.kind]


class Jobs(Command):
    """List the Hub's jobs: the ledger beside the schedulers' queues. Run it as the Hub's account, in its folder.

    An orphan is a job with this Hub's mark that its ledger does not have, or has as ended. A running Hub cancels orphans
    by itself after a while (HPCSpawner.orphan_grace_s); --cancel does it now.
    """

    name = "hpcspawner jobs"
    description = __doc__
    examples = """
hpcspawner jobs --hub=jupyterhub_config.py
hpcspawner jobs --hub=jupyterhub_config.py --orphans --cancel
"""
    hub = Unicode("jupyterhub_config.py", config=True, help="The Hub's configuration file.")
    orphans = Bool(config=True, help="Only jobs that no server needs.")
    cancel = Bool(config=True, help="Cancel them.")
    as_json = Bool(config=True, help="Print JSON.")
    aliases = {"hub": "Jobs.hub"}
    flags = {
        "orphans": ({"Jobs": {"orphans": True}}, "Only jobs that no server needs."),
        "cancel": ({"Jobs": {"cancel": True}}, "Cancel the orphans."),
        "json": ({"Jobs": {"as_json": True}}, "Print JSON."),
    }

    def start(self) -> None:
        """Print the jobs; exit code 1 where a cluster did not answer or a job could not be cancelled."""
        if self.extra_args:
            self.usage(f"{self.extra_args[0]!r} is not expected; name the Hub's configuration: --hub=FILE")
        if self.cancel and not self.orphans:
            self.usage("--cancel ends orphans alone: write --orphans --cancel")
        _LOG.setLevel(logging.CRITICAL)
        hub = HubConfig.read(Path(self.hub))
        if isinstance(hub, str):
            self._fail(hub)
        try:
            clusters = Clusters.of(hub.sites, hub.spool, _LOG)
            known = ledger(hub)
            mine = keys(hub)
        except (ProfileError, SecretUnusable, SQLAlchemyError, OSError) as error:
            self._fail(getattr(error, "explained", "") or str(getattr(error, "orig", None) or error))
        self.exit(asyncio.run(self._shown(clusters, known, mine)))

    async def _shown(self, clusters: Clusters, known: list[dict[str, Any]], mine: Keys) -> int:
        rows: list[Row] = []
        code = 0
        for cluster in clusters:
            try:
                listed = (await cluster.client.listing()).jobs
            except SchedulerError as error:
                print(f"{self.name}: {cluster.name}: {error.explained}", file=sys.stderr)
                listed, code = None, 1
            rows += joined(cluster, known, listed, mine)
        rows = [row for row in rows if not self.orphans or row.kind == ORPHAN]
        self._print(rows)
        if self.cancel:
            code = max([code, *[await self._end(clusters, row) for row in rows]])
        return code

    async def _end(self, clusters: Clusters, row: Row) -> int:
        cluster = clusters.get(row.cluster)
        try:
            if cluster is not None:
                await cluster.client.cancel(row.owner, row.job_id)
        except SchedulerError as error:
            print(f"{self.name}: job {row.job_id} could not be cancelled: {error.explained}", file=sys.stderr)
            return 1
        print(f"cancelled job {row.job_id} of {row.owner}", file=sys.stderr)
        return 0

    def _print(self, rows: list[Row]) -> None:
        if self.as_json:
            print(json.dumps([asdict(row) for row in rows], indent=1))
            return
        table = [_COLUMNS, *[tuple(getattr(row, name) for name in _COLUMNS) for row in rows]]
        widths = [max(len(line[column]) for line in table) for column in range(len(_COLUMNS))]
        for line in table:
            print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())

    def _fail(self, words: str) -> NoReturn:
        print(f"{self.name}: {words}", file=sys.stderr)
        raise SystemExit(1)


def joined(
    cluster: Cluster, known: Iterable[dict[str, Any]], listed: dict[str, JobStatus] | None, mine: Keys
) -> Iterator[Row]:
    """The jobs of one cluster. `listed` is None where the scheduler gave no list."""
    ours = [one for one in known if one["cluster"] == cluster.name]
    ended = {one["tag"] for one in ours if one["ended_at"] is not None}
    alive = [one for one in ours if one["ended_at"] is None]
    for one in alive:
        found = (listed or {}).get(one["job_id"])
        is_it = found is not None and (found.owner, found.tag) == (one["owner"], one["tag"])
        state = found.state.value if is_it and found else "unknown"
        kind = "" if is_it or not one["job_id"] else UNSEEN if listed is None else LOST
        server = f"{one['username']}/{one['server']}" if one["server"] else one["username"]
        yield Row(cluster.name, one["job_id"] or "-", one["owner"], server, state, one["host"], kind)
    tags = {one["tag"] for one in alive}
    for job_id, job in (listed or {}).items():
        if job.state is JobState.ENDED or job.tag in tags or not mine.is_ours(job.owner, job.tag):
            continue
        server = "-" if job.tag not in ended else next(one["username"] for one in ours if one["tag"] == job.tag)
        yield Row(cluster.name, job_id, job.owner, server, job.state.value, job.host or "", ORPHAN)


def ledger(hub: HubConfig) -> list[dict[str, Any]]:
    """Every record of this Hub, read and not changed. Raises SQLAlchemyError."""
    url = make_url(hub.ledger_url)
    if url.get_backend_name() == "sqlite":
        if not Path(str(url.database)).is_file():
            raise FileNotFoundError(f"there is no ledger {url.database}; run this in the Hub's folder")
        url = make_url(f"sqlite:///file:{url.database}?mode=ro&uri=true")
    engine = create_engine(url, hide_parameters=True)
    with engine.connect() as connection:
        return [dict(row) for row in connection.execute(select(JOBS).where(JOBS.c.hub == hub_id(hub))).mappings()]


def hub_id(hub: HubConfig) -> str:
    """What tells this Hub's jobs from those of others."""
    return doors.hub_id(hub.public.callback_url, f"{hub.public.base_url.rstrip('/')}/hub/")


def keys(hub: HubConfig) -> Keys:
    """What this Hub derives from its secret. Raises SecretUnusable; makes none."""
    path = Path(hub.secret_file)
    if not path.is_file() or not stat.S_ISREG(path.stat().st_mode):
        raise SecretUnusable(f"There is no secret file {shlex.quote(str(path))}; run this in the Hub's folder.")
    return Keys(secret.kept(path, _LOG), hub_id(hub))
