"""What stops a Hub before it serves anybody, and what it proves when it starts."""

import os
import stat

import pytest
from support.hub import Hub, server_path

pytestmark = pytest.mark.both_hubs

MISTAKES = """\
title = "Three mistakes"
colour = "red"

[scheduler]
type = "local"

[[partitions]]
name = "short"
max_walltime = "30:00"

[[partitions]]
name = "short"
max_walltime = "30m"

[[environments]]
name = "jupyter"
"""


def test_every_mistake_in_a_profile_is_named_before_the_hub_serves(tmp_path):
    site = tmp_path / "site.toml"
    site.write_text(MISTAKES)
    hub = Hub(tmp_path, site)
    with pytest.raises(RuntimeError, match="ended at its start") as caught:
        hub.start()
    message = str(caught.value)
    assert "has 3 mistakes" in message
    assert "partitions[1] (short).max_walltime: not a wall time: '30:00'" in message
    assert "partitions: 'short' appears 2 times" in message
    assert "colour: unknown key" in message
    assert "Traceback" not in message


def test_batchspawner_s_own_endpoint_is_not_served(hub):
    assert hub.api("POST", "/batchspawner", json={"port": 1}).status_code == 404
    assert "the endpoint of the batchspawner package is not served" in hub.log()


def test_a_hub_that_would_serve_it_stops_at_its_start(make_hub):
    back = """
from batchspawner.api import BatchSpawnerAPIHandler
c.JupyterHub.extra_handlers = [*c.JupyterHub.extra_handlers, ("/api/batchspawner", BatchSpawnerAPIHandler)]
"""
    hub = make_hub(extra=back)
    try:
        with pytest.raises(RuntimeError, match="it must not be"):
            hub.start()
    finally:
        hub.stop()


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        pytest.param(
            "ab" * 32, 0o644, "has mode 0644, but only the Hub's account may read or write it", id="for others"
        ),
        pytest.param("ab" * 31, 0o600, "must hold 32 bytes or more", id="too short"),
    ],
)
def test_a_hub_whose_secret_others_may_know_stops_at_its_start(make_hub, text, mode, words):
    hub = make_hub()
    file = hub.folder / "hpcspawner_secret"
    file.write_text(text)
    file.chmod(mode)
    try:
        with pytest.raises(RuntimeError, match=words):
            hub.start()
    finally:
        hub.stop()


def test_a_hub_makes_its_secret_and_says_whose_account_runs_the_jobs(hub):
    file = hub.folder / "hpcspawner_secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(file.read_text())) == 32
    assert file.read_text().strip() not in hub.log()
    assert "ALL USERS' JOBS RUN AS THE HUB'S OWN ACCOUNT" in hub.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a Hub as root")
def test_a_hub_that_runs_as_root_submits_no_job_as_itself(make_hub):
    with make_hub(extra="c.HPCSpawner.allow_root = False") as hub:
        answer = hub.api("POST", server_path("alice"), json={"partition": "short"})
        assert "The Hub runs as root" in answer.text
        assert not answer.ok
        assert "That account is root, so the Hub submits no job" in hub.log()
        assert not (hub.folder / "spool" / "last-id").exists()
