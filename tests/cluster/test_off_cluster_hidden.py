"""A Hub that nothing on the cluster can reach: the login node passes on what comes for it, by an SSH tunnel."""

import asyncio
import functools
import socket
import subprocess

import pytest
from cluster.conftest import queue_is_empty_within
from support.hub import Hub, example, free_ports
from support.login_nodes import ACCOUNT, HOST, LoginNode, make_key
from support.off_cluster import BARE, USER, elsewhere, place
from support.rights import write

__all__ = ["elsewhere", "place"]

# The second key of the Hub's opens these two ports on the login node, and nothing else.
TUNNEL_KEY = (
    """restrict,port-forwarding,permitlisten="{host}:{port}",permitlisten="{host}:{hub_port}",command="/bin/false" """
)
TUNNEL_NODE = """\
AllowTcpForwarding remote
GatewayPorts clientspecified
"""
NOWHERE = """
# ---- Nothing on the cluster reaches this machine: the login node passes on what comes for the Hub.
c.JupyterHub.bind_url = "https://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.Spawner.hub_connect_url = "https://{host}:{hub_port}"
c.JupyterHub.trusted_alt_names.append("IP:{host}")
"""


@pytest.fixture
def hidden_hub(place, elsewhere):
    """As `hub`, but it listens on its own loopback alone, and `ssh -N -R` stands for it on the login node."""
    _, entered = elsewhere
    folder = place.folder / "hidden"
    example("off-cluster", folder, {})
    (folder / "site.toml").write_text(place.site.read_text(), encoding="utf-8")
    (folder / "machine").mkdir()
    hub = Hub(folder, None, host=HOST, config=place.config, users=(USER,))
    ports = {"host": HOST, "port": hub.port, "hub_port": hub.hub_port}
    with (folder / "jupyterhub_config.py").open("a", encoding="utf-8") as file:
        file.write(NOWHERE.format(**ports))
    key = folder / "tunnel"
    write(folder / "tunnel_keys", TUNNEL_KEY.format(**ports) + make_key(key), 0o644)
    node = LoginNode(place.folder / "tunnel", 2223, folder / "tunnel_keys", further=TUNNEL_NODE)
    write(folder / "tunnel_hosts", node.known_host, 0o644)
    inside = ["nsenter", *entered, "unshare", "--mount", "bash", "-ec", BARE, str(folder / "machine")]
    hub.start = functools.partial(hub.start, inside)
    hub.tunnel = ["ssh", "-F", "none", "-N", "-T", "-p", "2223", "-i", str(key), "-l", ACCOUNT]
    for option in (f"UserKnownHostsFile={folder}/tunnel_hosts", "ExitOnForwardFailure=yes", "BatchMode=yes"):
        hub.tunnel += ["-o", option]
    forwards = [word for port in (hub.port, hub.hub_port) for word in ("-R", f"{HOST}:{port}:127.0.0.1:{port}")]
    node.start()
    try:
        with subprocess.Popen(["nsenter", *entered, *hub.tunnel, *forwards, HOST], stdin=subprocess.DEVNULL) as ssh:
            try:
                with hub:
                    yield hub
            finally:
                ssh.terminate()
    finally:
        node.stop()


def test_a_hub_that_nothing_can_reach_is_reached_through_the_login_node(hidden_hub, elsewhere):
    hub, (address, _) = hidden_hub, elsewhere
    for port in (hub.port, hub.hub_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((address, port), timeout=10)
    hub.spawn(USER, {"partition": "debug"})
    said = asyncio.run(hub.run(USER, "import getpass, os; print(getpass.getuser(), os.uname().nodename)"))
    assert said.split() == ["alice", "n1"]
    # Its key opens no other port, leads nowhere from the login node, and runs nothing.
    (other,) = free_ports(1)
    refused = {
        ("-R", f"{HOST}:{other}:127.0.0.1:22"): "remote port forwarding failed",
        ("-W", f"{HOST}:22"): "administratively prohibited",
    }
    for words, complaint in refused.items():
        done = subprocess.run([*hub.tunnel, *words, HOST], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, complaint in done.stderr) == (255, True), done
    login = [word for word in hub.tunnel if word != "-N"]
    done = subprocess.run([*login, HOST, "id"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    hub.stop_server(USER)
    queue_is_empty_within(40, "alice")
