"""What stops a Hub before it serves anybody, and what it proves when it starts."""

import pytest
from support.hub import Hub

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
    assert "partitions: 'short' stands 2 times" in message
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
