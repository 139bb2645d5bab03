"""Presets of users' own in the ledger's database: kept, replaced, bounded, and gone with their user."""

import contextlib
import logging
import sqlite3
import types

import pytest
from sqlalchemy.exc import OperationalError

from hpcspawner.hub.choices import with_saved
from hpcspawner.jobs import schema
from hpcspawner.jobs.saved import MOST, CannotSave, Saved, SavedPresets, checked_name
from hpcspawner.jobs.table import Store

LOG = logging.getLogger("test")


@pytest.fixture
def opened(tmp_path):
    """What a Hub finds at its start in the one database."""
    with contextlib.ExitStack() as stack:

        def another(hub="hub"):
            store = Store(f"sqlite:///{tmp_path / 'ledger.sqlite'}", hub, LOG)
            stack.callback(store.close)
            return SavedPresets(store, LOG)

        yield another


def preset(name="mine", user="alice", cluster="one", **options):
    return Saved(user, cluster, name, options or {"cpus": 2, "features": ["a"], "directory": "~/ü"})


def names(saved, user="alice", cluster="one"):
    return [one.name for one in saved.of(user, cluster)]


async def test_what_was_saved_is_there_for_the_next_process_and_the_same_name_replaces(opened):
    saved = opened()
    await saved.save(preset())
    await saved.save(preset("Ä <b>"))
    await saved.save(preset(cpus=3))
    for one in (saved, opened()):
        assert names(one) == ["mine", "Ä <b>"]
        assert one.find("alice", "one", "mine") == preset(cpus=3)


async def test_users_clusters_and_hubs_have_their_own(opened):
    saved = opened()
    for one in (preset(), preset(user="bob"), preset(cluster="two")):
        await saved.save(one)
    other_hub = opened("other")
    assert other_hub.usernames == []
    await other_hub.save(preset())
    await saved.delete(preset(cluster="two"))
    await saved.forget({"bob", "nobody"})
    for one in (saved, opened()):
        assert (names(one), names(one, "bob"), names(one, cluster="two")) == (["mine"], [], [])
        assert one.usernames == ["alice"]
    assert names(opened("other")) == ["mine"]


async def test_there_is_a_most(opened):
    saved = opened()
    for number in range(MOST):
        await saved.save(preset(f"n{number}", cluster="one" if number % 2 else "two"))
    with pytest.raises(CannotSave, match="You have 20 presets"):
        await saved.save(preset("one more"))
    await saved.save(preset("n1", cpus=7))
    await saved.save(preset(user="bob"))
    with pytest.raises(CannotSave, match="longer than 16384 bytes"):
        await saved.save(preset("n1", directory="x" * 16_384))
    assert opened().find("alice", "one", "n1").options == {"cpus": 7}


async def test_what_could_not_be_committed_is_not_shown(opened, monkeypatch):
    async def fails(*_):
        raise OperationalError("", {}, Exception("locked"))

    saved = opened()
    await saved.save(preset("kept"))
    monkeypatch.setattr(Store, "keep_preset", fails)
    monkeypatch.setattr(Store, "drop_presets", fails)
    with pytest.raises(CannotSave, match="can't write presets"):
        await saved.save(preset())
    with pytest.raises(CannotSave, match="can't write presets"):
        await saved.delete(preset("kept"))
    assert names(saved) == ["kept"]


@pytest.mark.parametrize(
    ("text", "name"), [(" Two words ", "Two words"), ("x" * 60, "x" * 60), ("½ GPU “a” <b>", "½ GPU “a” <b>")]
)
def test_a_name(text, name):
    assert checked_name(text) == name


@pytest.mark.parametrize("text", ["", "  ", "x" * 61, "a\nb", "a\x00b", "a\u2028b", "a\u202eb", "a\ud800b"])
def test_no_name(text):
    with pytest.raises(CannotSave):
        checked_name(text)


async def test_a_database_of_the_version_before_gets_the_table(opened, tmp_path):
    opened()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        other.execute("DROP TABLE hpcspawner_presets")
        other.execute("UPDATE hpcspawner_schema SET version = 3")
        other.commit()
    await opened().save(preset())
    assert names(opened()) == ["mine"]
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.sqlite")) as other:
        assert other.execute("SELECT version FROM hpcspawner_schema").fetchall() == [(schema.VERSION,)]


@pytest.mark.parametrize("named", [["mine"], {"mine": 1}, 7, None], ids=repr)
async def test_what_is_no_name_names_no_preset(opened, named):
    saved = opened()
    await saved.save(preset())
    cluster = types.SimpleNamespace(name="one", profile=types.SimpleNamespace(presets=()))
    assert with_saved({"preset": named}, saved, "alice", cluster) == {"preset": named}
    assert with_saved({"preset": "mine"}, saved, "alice", cluster) == preset().options
