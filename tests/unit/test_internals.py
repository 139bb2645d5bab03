"""What we replace in JupyterHub: the names are there, and what takes their place does the same, at less cost."""

import os
import shutil
from pathlib import Path

import pytest
from jupyterhub import objects, orm, user, utils
from jupyterhub.oauth.provider import JupyterHubOAuthServer
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
