"""What most unit tests start from."""

import asyncio
import logging
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import settings
from jupyterhub import orm, roles
from jupyterhub.app import JupyterHub
from material import FULL
from support.jobs import a_cluster, clusters_of, put_fields
from traitlets.config import Config

from hpcspawner.hub.hub_ledger import close_ledger, open_ledger
from hpcspawner.jobs import stop, submit, tasks
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.table import Store
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers import queue
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import SiteProfile

# An example may take as long as a busy machine needs for it.
settings.register_profile("here", deadline=None)
settings.load_profile("here")

GOLDEN = Path(__file__).parent / "golden"
BIN = Path(__file__).parent / "bin"
RECORDED = Path(__file__).parents[1] / "recorded" / "slurm-22.05"
KEYS = Keys(b"s" * 32, "hub")


@pytest.fixture
def profile():
    return SiteProfile.model_validate(FULL)


@pytest.fixture
def alice():
    return LocalAccount("alice", "/home/alice")


@pytest.fixture
def golden():
    """Compare a whole text with a file; `GOLDEN=write` writes the files anew, to be read before they are committed."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("GOLDEN") == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check


# --- the Hub's side


@pytest.fixture
def ledger_file(tmp_path):
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def clusters():
    """What the Hub's configuration offers, in a list of one: a desk puts its own there."""
    return [clusters_of(a_cluster())]


@pytest.fixture
def reopened(ledger_file, clusters):
    """Opens the ledger as the next process of the Hub does."""

    def again():
        close_ledger()
        return open_ledger(f"sqlite:///{ledger_file}", lambda: KEYS, lambda: clusters[0], logging.getLogger("test"))

    yield again
    close_ledger()


@pytest.fixture
def kept(reopened):
    """The Hub's ledger, in a database of this test's own."""
    return reopened()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """JupyterHub's tables with nothing in them: making them takes longer than most tests."""
    file = tmp_path_factory.mktemp("jupyterhub") / "jupyterhub.sqlite"
    session = orm.new_session_factory(f"sqlite:///{file}")()
    session.close()
    session.get_bind().dispose()
    return file


@pytest.fixture
async def hub(tmp_path, empty_database):
    """A JupyterHub with its database and alice as its user; it serves nothing and starts no proxy."""
    shutil.copy(empty_database, tmp_path)
    app = JupyterHub.instance(
        config=Config({"Authenticator": {"allow_all": True}}),
        db_url=f"sqlite:///{tmp_path / 'jupyterhub.sqlite'}",
        cookie_secret=b"s" * 32,
        allow_named_servers=True,
    )
    app.log = logging.getLogger("test")
    app.init_eventlog()
    app.init_db()
    app.init_hub()
    app.init_proxy()
    app.init_oauth()
    await app.init_role_creation()
    await app.init_users()
    app.init_tornado_settings()
    alice = orm.User(name="alice")
    app.db.add(alice)
    app.db.commit()
    roles.assign_default_roles(app.db, alice)
    yield app
    app.db.close()
    app.db.get_bind().dispose()
    JupyterHub.clear_instance()


# --- the scheduler's side


class Desk:
    """Slurm as far as the Hub sees it: stand-ins in a folder, on their own PATH, and their orders beside them.

    `rows` are of the user alice, whose account has the same name.
    """

    def __init__(self, folder, kept):
        self.folder, self.kept = folder, kept
        for name in ("squeue", "sbatch", "scancel", "scontrol", "sudo"):
            (folder / name).symlink_to(BIN / name)
        self.hides_nothing()
        self.shows()
        access = {"type": "slurm", "path": [str(folder)], "command_timeout_s": 5}
        profile = SiteProfile.model_validate({**FULL, "scheduler": access})
        self.cluster = Cluster.of(profile, folder, logging.getLogger("test"))
        # Whoever runs the tests: root would see all jobs.
        self.cluster.client.own_account = "jupyterhub"
        self.said = []

    async def closes(self):
        """Start no more commands, and let those begin that are about to.

        Python 3.11 may wait for ever for a process if its start is cancelled, as everything is when a test ends.
        """
        client, asking = self.cluster.client, self.cluster.queue._asking
        client.access = client.access.model_copy(update={"path": ()})
        if asking is not None:
            await asyncio.wait([asking], timeout=10)
        if tasks._running:
            await asyncio.sleep(0.2)

    # Orders.

    def order(self, name, text=""):
        """Put a file beside the stand-ins, whole."""
        new = self.folder / f"{name}.new"
        new.write_text(text)
        new.replace(self.folder / name)

    def revoke_order(self, name):
        (self.folder / name).unlink()

    def shows(self, *lines):
        """What squeue lists from now on."""
        self.order("jobs", "".join(f"{line}\n" for line in lines))

    def shows_only_to(self, owner, *lines):
        """What squeue adds for this account alone."""
        self.order(f"jobs-of-{owner}", "".join(f"{line}\n" for line in lines))

    def goes_down(self):
        self.order("down", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)\n")

    def comes_up(self):
        self.revoke_order("down")

    def hides_nothing(self):
        self.order("config", (RECORDED / "config.txt").read_text())

    def hides_jobs(self):
        config = (RECORDED / "config.txt").read_text()
        self.order("config", config.replace("PrivateData             = none", "PrivateData = jobs"))

    def records(self, job_id, state, status=0, restarts=0):
        """What the controller remembers of a job; `status` is its end as wait(2) gives it."""
        self.order(f"record-{job_id}", f"{job_id}|{state}|None|{restarts}|{status}|n1\n")

    # Rows.

    def line(self, row, state="RUNNING", *, node="n1", reason="None", job_id=None):
        """One job as squeue lists it."""
        return "|".join((job_id or row.record.job_id, state, node, row.record.owner, "1795237369", reason, row.tag))

    def new_row(self, server="", **fields):
        row = self.kept.new_job(("alice", server), "alice", self.cluster, fields.pop("follows", None))
        put_fields(row, fields)
        return row

    async def submitted(self, job_id="12", server="", **fields):
        """A row whose job has this number."""
        row = self.new_row(server, asked_at=time.time(), **fields)
        row.submitted(job_id)
        await self.kept.open(row)
        return row

    # What was done.

    def _noted(self, name):
        file = self.folder / name
        return file.read_text().splitlines() if file.exists() else []

    @property
    def cancelled(self):
        return self._noted("cancelled")

    @property
    def submits(self):
        return len(self._noted("submits"))

    async def say(self, sentence):
        self.said.append(sentence)


@pytest.fixture
async def desk(tmp_path, kept, clusters, hub, monkeypatch):
    """With shorter pauses, for the tests' time."""
    monkeypatch.setattr(queue, "_SHORTEST_GAP_S", 0.01)
    monkeypatch.setattr(submit, "_PAUSE_S", 0.05)
    monkeypatch.setattr(stop, "_LAST_WORDS_S", 0.3)
    folder = tmp_path / "slurm"
    folder.mkdir()
    desk = Desk(folder, kept)
    clusters[0] = kept.clusters = clusters_of(desk.cluster)
    yield desk
    await desk.closes()


@pytest.fixture
def in_database(ledger_file):
    """The rows that are committed, by tag, as another process reads them."""

    def read():
        store = Store(f"sqlite:///{ledger_file}", KEYS.hub, logging.getLogger("test"))
        try:
            return {row["tag"]: row for row in store.load(0)}
        finally:
            store.close()

    return read


@pytest.fixture
def until():
    """Waits for what must come true within some seconds."""

    async def wait(holds, seconds=30):
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it did not come true in time"
            await asyncio.sleep(0.01)

    return wait
