"""TLS to the node with a real Hub and its proxy: each way to have it, and what stops a Hub that could reach nobody."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hub.conftest import PROFILE

WITHOUT = """\
import hpcspawner

c = get_config()
hpcspawner.configure(c, "site.toml", callback_url="https://replaced.example.org", tls_to_nodes=False)
"""
ON_IPV6 = PROFILE.replace('type = "local"', 'type = "local"\nnode_name = "::1"')
LOCALHOST = PROFILE.replace('type = "local"', 'type = "local"\nnode_name = "localhost"')


def target(hub, user):
    """Where the proxy sends a user's requests, by the Hub's log."""
    (found,) = set(re.findall(rf"Adding user {user} to proxy /user/{user}/ => (\S+)", hub.log()))
    return found


def answers(hub, user):
    """Whether the user's server answers through the proxy, to one who may use it."""
    made = hub.api("POST", f"/users/{user}/tokens", json={"scopes": [f"access:servers!user={user}"]})
    status = hub.get(f"/user/{user}/api/status", headers={"Authorization": f"token {made.json()['token']}"})
    return status.status_code == 200


def test_a_server_on_ipv6_is_reached_by_its_own_name(make_hub):
    with make_hub(ON_IPV6, extra='c.Spawner.ip = "::1"') as hub:
        hub.spawn("alice", {"walltime": "10m"})
        name = r"j[a-z2-7]{16}\.v6\.0000(-0000){6}-0001\.hpcspawner\.internal"
        assert re.fullmatch(rf"https://{name}:\d+", target(hub, "alice"))
        assert answers(hub, "alice")
        assert "NO TLS" not in hub.log()


def test_without_tls_it_is_said_loudly(make_hub):
    with make_hub(config=WITHOUT) as hub:
        hub.spawn("alice", {"walltime": "10m"})
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", target(hub, "alice"))
        assert answers(hub, "alice")
        warning = "hpcspawner: THERE IS NO TLS TO THE COMPUTE NODES."
        assert [line for line in hub.log().splitlines() if line.startswith("[W") and warning in line]


def test_certificates_for_the_host_are_warned_of_and_work_without_a_hook(make_hub):
    """What a proxy of another kind needs."""
    extra = """
c.HPCSpawner.certificate_names = "host"
c.ConfigurableHTTPProxy.command = ["configurable-http-proxy"]
"""
    with make_hub(LOCALHOST, extra=extra) as hub:
        hub.spawn("alice", {"walltime": "10m"})
        assert re.fullmatch(r"https://localhost:\d+", target(hub, "alice"))
        assert answers(hub, "alice")
        warning = "hpcspawner: CERTIFICATES NAME THE NODE ALONE"
        assert [line for line in hub.log().splitlines() if line.startswith("[W") and warning in line]


@pytest.fixture(scope="module")
def with_certificates(make_hub):
    """A Hub that has made its certificates, and never served."""
    hub = make_hub()
    command = [Path(sys.executable).parent / "jupyterhub", "-f", "jupyterhub_config.py", "--generate-certs"]
    subprocess.run(command, cwd=hub.folder, capture_output=True, check=True, timeout=120)
    return hub


def ended_with(hub, lines):
    """What a Hub said that ended at its start, with these lines more in its configuration."""
    file = hub.folder / "jupyterhub_config.py"
    before = file.read_text()
    hub.log_file.unlink(missing_ok=True)
    file.write_text(f"{before}\n{lines}\n")
    try:
        with pytest.raises(RuntimeError, match="ended at its start") as caught:
            hub.start()
    finally:
        hub.stop()
        file.write_text(before)
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        pytest.param(
            'c.JupyterHub.hub_connect_url = "http://127.0.0.1:8081"',
            ["JupyterHub.hub_connect_url is http://127.0.0.1:8081", "must begin with https://"],
            id="plain http to the Hub",
        ),
        pytest.param(
            'c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:8001"',
            ["api_url is http://127.0.0.1:8001", "must begin with https://"],
            id="plain http to the proxy",
        ),
        pytest.param(
            'c.JupyterHub.hub_connect_ip = "head.example.org"',
            ["does not name head.example.org", "JupyterHub.recreate_internal_certs = True for one start"],
            id="a new name with old certificates",
        ),
        pytest.param(
            'c.ConfigurableHTTPProxy.command = ["configurable-http-proxy"]',
            [
                "ConfigurableHTTPProxy.command was overwritten after hpcspawner.configure()",
                "certificate_names to 'host'",
            ],
            id="a proxy that lacks the hook",
        ),
    ],
)
def test_a_hub_that_could_reach_no_server_says_why_and_stops(with_certificates, line, words):
    everything = ended_with(with_certificates, line)
    (said,) = [line for line in everything.splitlines() if line.startswith("[C")]
    assert "the Hub can't reach any server by TLS" in said
    assert said.endswith("The Hub stops. (more: hpcspawner explain tls-to-nodes)")
    for word in words:
        assert word in said
    assert "Traceback" not in everything


BROKEN = """
from hpcspawner import HPCSpawner

class Broken(HPCSpawner):
    def __init__(self, **settings):
        raise OSError("no such disk")

c.JupyterHub.spawner_class = Broken
"""


def test_a_hub_that_can_not_tell_whether_it_is_safe_stops(with_certificates):
    log = ended_with(with_certificates, BROKEN)
    assert "start-up checks could not be completed (traceback below). The Hub stops." in log
