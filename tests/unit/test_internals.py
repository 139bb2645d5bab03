"""What we replace in JupyterHub: the names are there, and what takes their place does the same, at less cost."""

import asyncio
import inspect
import os
import shutil
from pathlib import Path

import pytest
from jupyterhub import apihandlers, objects, orm, user, utils
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.oauth.provider import JupyterHubOAuthServer
from jupyterhub.spawner import Spawner
from support.internal_tls import InternalTls

from hpcspawner.hub import internals


@pytest.fixture
def replaced(monkeypatch):
    """As in a Hub that has read its configuration; afterwards JupyterHub is as it was."""
    monkeypatch.setattr(user, "make_ssl_context", user.make_ssl_context)
    monkeypatch.setattr(objects, "make_ssl_context", objects.make_ssl_context)
    monkeypatch.setattr(JupyterHubOAuthServer, "add_client", JupyterHubOAuthServer.add_client)
    internals.install()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Certificate, key and authorities of a Hub."""
    return InternalTls(tmp_path_factory.mktemp("tls")).own


@pytest.fixture
def made(monkeypatch):
    """The calls of JupyterHub's own function."""
    calls, make = [], utils.make_ssl_context

    def count(*args, **more):
        calls.append(args)
        return make(*args, **more)

    monkeypatch.setattr(utils, "make_ssl_context", count)
    monkeypatch.setattr(internals, "_kept", {})
    return calls


@pytest.mark.parametrize("module", [user, objects], ids=["user", "objects"])
def test_jupyterhub_calls_our_function_by_the_name_that_it_has_imported(replaced, module):
    assert module.make_ssl_context is internals.ssl_context


def test_a_context_is_made_once_for_all_servers(files, made):
    certificate, key, authorities = files
    first = internals.ssl_context(key, certificate, cafile=authorities)
    assert all(internals.ssl_context(key, certificate, cafile=authorities) is first for _ in range(50))
    assert len(made) == 1


def test_it_is_made_again_when_a_file_changes(files, made, tmp_path):
    certificate, key, authorities = (shutil.copy(file, tmp_path / Path(file).name) for file in files)
    first = internals.ssl_context(key, certificate, cafile=authorities)
    os.utime(certificate, (1, 1))
    assert internals.ssl_context(key, certificate, cafile=authorities) is not first
    assert len(made) == 2


def test_it_checks_what_jupyterhubs_own_checks(files):
    certificate, key, authorities = files
    ours = internals.ssl_context(key, certificate, cafile=authorities)
    own = utils.make_ssl_context(key, certificate, cafile=authorities)
    assert (ours.verify_mode, ours.check_hostname) == (own.verify_mode, own.check_hostname)


def test_there_is_none_without_a_key(made):
    assert internals.ssl_context("", "", cafile=None) is None


async def test_the_secret_of_a_servers_client_costs_one_round(replaced, hub):
    token = orm.new_token()
    client = hub.oauth_provider.add_client("jupyterhub-user-alice", token, "/user/alice/oauth_callback")
    assert client.secret.split(":")[:2] == ["sha512", "1"]
    assert utils.compare_token(client.secret, token)


async def test_the_secret_of_a_service_keeps_its_rounds(replaced, hub):
    client = hub.oauth_provider.add_client("service-tests", "typed by an admin", "/services/tests/oauth_callback")
    assert client.secret.split(":")[1] == str(orm.APIToken.rounds)


# --- servers that are held


class Holding:
    """A spawner of JupyterHub's, and how often its hold was over without a start."""

    def __init__(self):
        self.spawner, self.over, self.go = Spawner(), [], asyncio.Event()

    def begin(self, work):
        internals.hold(self.spawner, work(), self.over.append)

    async def waits(self):
        await self.go.wait()

    async def fails(self):
        raise RuntimeError("no")


@pytest.fixture
async def holding():
    return Holding()


async def test_a_held_server_is_shown_as_starting_until_it_is_over(holding):
    holding.begin(holding.waits)
    future = holding.spawner._spawn_future
    assert holding.spawner.pending == "spawn"
    holding.go.set()
    await future
    await asyncio.sleep(0)
    assert (holding.spawner.pending, holding.spawner._spawn_future, len(holding.over)) == (None, None, 1)


async def test_jupyterhub_cancels_a_held_server_as_it_cancels_a_start(holding):
    holding.begin(holding.waits)
    await asyncio.sleep(0)
    holding.spawner._spawn_future.cancel()
    await asyncio.sleep(0.01)
    assert (holding.spawner.pending, holding.over[0].cancelled()) == (None, True)


async def test_a_hold_that_fails_stays_as_the_failure_that_pages_show(holding):
    holding.begin(holding.fails)
    await asyncio.sleep(0.01)
    assert holding.spawner.pending is None
    assert str(holding.spawner._spawn_future.exception()) == "no"
    assert len(holding.over) == 1


async def test_a_start_takes_the_place_of_a_hold(holding):
    holding.begin(holding.waits)
    held = holding.spawner._spawn_future
    internals.make_way(holding.spawner)
    assert holding.spawner.pending is None, "or JupyterHub would refuse to start it"
    holding.spawner._spawn_pending, holding.spawner._spawn_future = True, (start := asyncio.Future())
    holding.go.set()
    await held
    await asyncio.sleep(0)
    assert (holding.spawner.pending, holding.spawner._spawn_future, holding.over) == ("spawn", start, [])


def test_jupyterhub_starts_servers_by_the_names_that_a_hold_uses():
    """Where these are gone, a hold would be invisible, and no test of ours on another release would say why."""
    source = inspect.getsource(BaseHandler.spawn_single_user)
    assert "spawner._spawn_pending = True" in source
    assert "spawner._spawn_future = " in source
    assert "spawner._spawn_future" in inspect.getsource(apihandlers.users.UserServerAPIHandler.delete)
    assert "spawner._spawn_future" in inspect.getsource(apihandlers.users.SpawnProgressAPIHandler.get)
