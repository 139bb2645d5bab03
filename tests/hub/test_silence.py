"""A server that takes connections and never speaks: its process is stopped, or somebody else sits on its port."""

import contextlib
import os
import re
import signal
from pathlib import Path

import pytest
from support.faults import within
from support.processes import environment

pytestmark = pytest.mark.both_hubs
# The Hub's own bound is ten minutes.
QUICK = """
from hpcspawner.nodes import address
address._MUTE_S = 8.0
c.Spawner.poll_interval = 1
c.HPCSpawner.housekeeping_interval_s = 1
"""


@pytest.fixture(scope="module")
def hub(make_hub):
    with make_hub(extra=QUICK) as running:
        yield running


def processes_of(hub, user):
    """The server's, and what it has started: those that have its variables."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            variables = environment(folder.name)
            if variables.get("JUPYTERHUB_USER") == user and variables.get("JUPYTERHUB_API_URL") == api_of(hub):
                found.append(int(folder.name))
    return found


def api_of(hub):
    text = hub.folder.joinpath("jupyterhub_config.py").read_text()
    (place,) = re.findall(r"^c\.JupyterHub\.hub_bind_url = 'http://(.*)'$", text, re.MULTILINE)
    return f"https://{place}/hub/api"


def is_ready(hub):
    return hub.servers("alice").get("", {}).get("ready", False)


def test_a_server_that_says_nothing_is_let_go_of_and_comes_back_with_its_job(hub):
    hub.spawn("alice", {"walltime": "10m"})
    stopped = processes_of(hub, "alice")
    assert stopped
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        within(120, lambda: not is_ready(hub), hub.log)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
    assert "takes connections and does not prove who it is" in hub.log()
    within(120, lambda: is_ready(hub), hub.log)
    # The same processes: no job was ended.
    assert set(stopped) <= set(processes_of(hub, "alice"))
