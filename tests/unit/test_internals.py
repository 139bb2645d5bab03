"""What we replace in JupyterHub: the names are there, and what takes their place does the same, at less cost."""

import asyncio
import contextlib
import inspect
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jupyterhub import apihandlers, objects, orm, scopes, user, utils
from jupyterhub import proxy as proxy_module
from jupyterhub.app import JupyterHub
from jupyterhub.handlers.base import BaseHandler
from jupyterhub.oauth.provider import JupyterHubOAuthServer
from jupyterhub.proxy import ConfigurableHTTPProxy
from jupyterhub.spawner import Spawner
from sqlalchemy import event
from support.faults import within
from support.internal_tls import InternalTls

from hpcspawner.hub import internals


@pytest.fixture
def replaced(monkeypatch):
    """As in a Hub that has read its configuration; afterwards JupyterHub is as it was."""
    monkeypatch.setattr(user, "make_ssl_context", user.make_ssl_context)
    monkeypatch.setattr(objects, "make_ssl_context", objects.make_ssl_context)
    monkeypatch.setattr(JupyterHubOAuthServer, "add_client", JupyterHubOAuthServer.add_client)
    check = ConfigurableHTTPProxy._check_previous_process
    monkeypatch.setattr(ConfigurableHTTPProxy, "_check_previous_process", check)
    monkeypatch.setattr(JupyterHub, "cleanup_oauth_clients", JupyterHub.cleanup_oauth_clients)
    internals.install()
    yield
    event.remove(orm.Server, "init", internals._has_no_spawner)


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


LEFT = (
    ["jupyterhub", "jupyterhub-user-alice"],
    ["code of jupyterhub-user-alice"],
    ["jupyterhub-user-alice"],
)
"""Clients, codes and the clients of tokens once a Hub has started again."""


def with_clients(hub, servers):
    """The OAuth clients of so many servers, one of a service and one that runs, each with a token and a code."""
    alice = orm.User.find(hub.db, "alice")
    names = [f"jupyterhub-user-alice-s{number}" for number in range(servers)]
    for identifier in [*names, "jupyterhub-user-alice", "service-gone"]:
        client = hub.oauth_provider.add_client(identifier, orm.new_token(), "/user/alice/oauth_callback")
        hub.db.add(orm.OAuthCode(client=client, user=alice, code=f"code of {identifier}"))
        hub.db.commit()
        alice.new_api_token(oauth_client=client)
    # Has an object, as JupyterHub makes for each server that may run.
    hub.users[alice].get_spawner("")


def what_is_left(hub):
    db = hub.db
    db.expire_all()
    clients = sorted(identifier for (identifier,) in db.query(orm.OAuthClient.identifier))
    codes = sorted(code for (code,) in db.query(orm.OAuthCode.code))
    return clients, codes, sorted(str(one) for (one,) in db.query(orm.APIToken.client_id))


async def test_the_clients_that_jupyterhub_deletes_are_deleted_a_hundred_at_a_time(replaced, hub):
    with_clients(hub, 250)
    # Held, as elsewhere in the Hub.
    tokens = hub.db.query(orm.APIToken).all()
    asked = []
    event.listen(hub.db.get_bind(), "before_cursor_execute", lambda *called: asked.append(called[2]))
    hub.cleanup_oauth_clients()
    assert len(tokens) == 252
    assert len(asked) < 60
    assert what_is_left(hub) == LEFT


async def test_what_is_left_is_what_jupyterhub_itself_leaves(hub):
    with_clients(hub, 7)
    internals._cleanup_oauth_clients(hub)
    assert what_is_left(hub) == LEFT


@pytest.fixture
def statements():
    """A database as JupyterHub opens it, and what it is asked."""

    def opened(**more):
        session = orm.new_session_factory("sqlite://", **more)()
        asked = []
        event.listen(session.get_bind(), "before_cursor_execute", lambda *called: asked.append(called[2]))
        return session, asked

    return opened


def test_jupyterhub_asks_its_database_before_each_transaction_whether_it_is_there(statements):
    session, asked = statements()
    session.query(orm.User).count()
    assert asked[0] == "SELECT 1"


def test_a_file_is_not_asked_whether_it_is_there(statements):
    session, asked = statements()
    internals.leave_out_pings(session.get_bind())
    for _ in range(2):
        session.query(orm.User).count()
        session.commit()
    assert len(asked) == 2
    assert "SELECT 1" not in asked


def test_a_database_over_the_network_is_still_asked(statements, monkeypatch):
    session, asked = statements()
    monkeypatch.setattr(session.get_bind().dialect, "name", "postgresql")
    internals.leave_out_pings(session.get_bind())
    session.query(orm.User).count()
    assert asked[0] == "SELECT 1"


async def test_the_secret_of_a_servers_client_costs_one_round(replaced, hub):
    token = orm.new_token()
    client = hub.oauth_provider.add_client("jupyterhub-user-alice", token, "/user/alice/oauth_callback")
    assert client.secret.split(":")[:2] == ["sha512", "1"]
    assert utils.compare_token(client.secret, token)


async def test_the_secret_of_a_service_keeps_its_rounds(replaced, hub):
    client = hub.oauth_provider.add_client("service-tests", "typed by an admin", "/services/tests/oauth_callback")
    assert client.secret.split(":")[1] == str(orm.APIToken.rounds)


@pytest.fixture
def asked(hub):
    """What JupyterHub asks its database, and when it commits."""
    statements, engine = [], hub.db.get_bind()
    internals.leave_out_pings(engine)
    event.listen(engine, "before_cursor_execute", lambda *called: statements.append(called[2]))
    event.listen(engine, "commit", lambda _connection: statements.append("COMMIT"))
    return statements


async def test_a_servers_client_is_stored_once_by_who_asked_for_it(replaced, hub, asked):
    hub.oauth_provider.add_client("jupyterhub-user-alice", orm.new_token(), "/user/alice/oauth_callback")
    assert "COMMIT" not in asked
    hub.db.commit()
    writes = [one.split()[0] for one in asked if not one.startswith("SELECT")]
    assert writes == ["INSERT", "COMMIT"]


async def test_a_servers_client_that_was_not_committed_is_not_there(replaced, hub):
    hub.oauth_provider.add_client("jupyterhub-user-alice", orm.new_token(), "/user/alice/oauth_callback")
    hub.db.rollback()
    assert hub.db.query(orm.OAuthClient).filter_by(identifier="jupyterhub-user-alice").count() == 0


async def test_the_database_commits_again_after_a_client_that_could_not_be_made(replaced, hub, asked):
    with pytest.raises(TypeError):
        hub.oauth_provider.add_client("jupyterhub-user-alice", orm.new_token())
    hub.db.add(orm.User(name="bob"))
    hub.db.commit()
    assert asked[-1] == "COMMIT"


@pytest.mark.parametrize("held", [False, True])
async def test_what_jupyterhubs_own_client_belongs_to_is_looked_up_once(hub, asked, held):
    def as_a_start_does(scope):
        client = hub.db.query(orm.OAuthClient).filter_by(identifier="jupyterhub").one()
        scopes.expand_scopes({scope}, owner=orm.User.find(hub.db, "alice"), oauth_client=client)

    if held:
        internals.hold_own_client(hub.db)
    as_a_start_does("users:activity!user")
    asked.clear()
    # JupyterHub remembers what a scope comes to.
    as_a_start_does("read:users!user")
    assert any("FROM spawners" in one or "FROM services" in one for one in asked) is not held


async def test_a_new_server_is_not_looked_for_among_spawners(replaced, hub, asked):
    spawner = orm.Spawner(name="", user=orm.User.find(hub.db, "alice"))
    server = orm.Server(base_url="/user/alice/")
    hub.db.add_all([spawner, server])
    hub.db.commit()
    asked.clear()
    spawner.server = server
    hub.db.commit()
    assert [one.split()[0] for one in asked] == ["UPDATE", "COMMIT"]
    hub.db.expire_all()
    assert spawner.server is server
    assert server.spawner is spawner


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


@pytest.fixture
def earlier(tmp_path):
    """Starts a process like a proxy that an earlier Hub has left: one whose parent has ended; by its command's name."""
    left = []

    def start(name, ignores=""):
        program = tmp_path / name
        program.write_text(f"#!/bin/bash\n{ignores}\n: >'{program}.ready'\nwhile :; do read -t 1 <> <(:); done\n")
        program.chmod(0o755)
        code = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=2, start_new_session=True).pid)"
        pid = int(subprocess.check_output([sys.executable, "-c", code, program], text=True))
        (tmp_path / "proxy.pid").write_text(str(pid))
        left.append(pid)
        within(30, Path(f"{program}.ready").exists, "it has not begun")
        return pid

    yield start
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def proxy(tmp_path, replaced, monkeypatch):
    """A Hub's proxy that has such a file; JupyterHub's own look at it counts as a second of sleep or more."""
    naps = []
    monkeypatch.setattr(
        proxy_module.time, "sleep", lambda seconds, sleep=time.sleep: (naps.append(seconds), sleep(seconds))
    )
    found = ConfigurableHTTPProxy(auth_token="t", pid_file=str(tmp_path / "proxy.pid"), app=JupyterHub())
    found.naps = naps
    return found


def test_the_proxy_of_an_earlier_hub_is_ended_without_a_nap_of_seconds(earlier, proxy):
    pid = earlier("configurable-http-proxy")
    proxy._check_previous_process()
    assert internals._has_ended(pid)
    assert not Path(proxy.pid_file).exists()
    assert max(proxy.naps, default=0) < 1


def test_one_that_does_not_end_is_left_to_jupyterhub(earlier, proxy, monkeypatch):
    monkeypatch.setattr(internals, "_PROXY_ENDS_S", 0.05)
    seen = []
    monkeypatch.setattr(internals, "_check_previous_process", lambda one: seen.append(Path(one.pid_file).exists()))
    pid = earlier("configurable-http-proxy", "trap '' TERM")
    proxy._check_previous_process()
    assert internals._is_proxy(pid)
    assert seen == [True], "JupyterHub finds its file, and kills it in the end"


@pytest.mark.parametrize("text", ["", "no number", "999999999"])
def test_a_file_that_names_no_process_stops_nothing(proxy, text):
    Path(proxy.pid_file).write_text(text)
    proxy._check_previous_process()
    assert not Path(proxy.pid_file).exists()


def test_another_process_of_that_number_gets_no_signal_of_ours(earlier, proxy, monkeypatch):
    pid = earlier("editor")
    monkeypatch.setattr(internals, "_check_previous_process", lambda _: None)
    proxy._check_previous_process()
    os.kill(pid, 0)
    assert Path(f"/proc/{pid}/cmdline").read_bytes()


def test_the_port_of_the_earlier_proxy_is_free_when_the_look_is_over(tmp_path, proxy):
    """JupyterHub takes whatever answers there for the proxy that it starts next."""
    program = tmp_path / "configurable-http-proxy"
    program.write_text(LISTENS_WITH_MUCH_MEMORY)
    code = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:], stdout=2, start_new_session=True).pid)"
    pid = subprocess.check_output([sys.executable, "-c", code, sys.executable, program], text=True).strip()
    Path(proxy.pid_file).write_text(pid)
    within(60, (tmp_path / "port").exists, "it does not listen")
    port = int((tmp_path / "port").read_text())
    proxy._check_previous_process()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


LISTENS_WITH_MUCH_MEMORY = """
import os, socket
held = bytearray(os.urandom(1 << 20) * 300)
listening = socket.create_server(("127.0.0.1", 0))
place = os.path.join(os.path.dirname(__file__), "port")
with open(place + ".new", "w") as file:
    file.write(str(listening.getsockname()[1]))
os.rename(place + ".new", place)
while True:
    listening.accept()
"""
