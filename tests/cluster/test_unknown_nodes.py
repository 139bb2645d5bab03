"""TLS from the Hub and its proxy to nodes that nobody has told them of: no list of nodes, no name server that knows."""

import contextlib
import re
import socket
import ssl
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from cluster.conftest import drained, jobs_of, on_head
from cluster.drills.ground import Ground
from cryptography import x509
from support.faults import within
from support.processes import Processes

pytestmark = pytest.mark.both_hubs
MORE = """
[job]
requeue = true
"""
# So that the tests may look at the proxy's table.
EXTRA = 'c.JupyterHub.load_roles[0]["scopes"].append("proxy")'
ADDRESSES = {"n1": "10.77.0.11", "n2": "10.77.0.12", "n3": "10.77.0.13"}


@pytest.fixture(autouse=True)
def nothing_left():
    """The servers of this module stay from test to test; `ground` takes them away."""


@pytest.fixture(scope="module")
def ground(lab, tmp_path_factory):
    """Alice has JupyterLab on n3, bob a light server on n1."""
    with Ground(lab, tmp_path_factory.mktemp("ground"), "slurm", ("alice", "bob"), more=MORE, extra=EXTRA) as ground:
        ground.clear()
        with drained("n2"):
            ground.start("alice", partition="gpu-shared", interface="lab", memory="1G", walltime="20m")
            ground.start("bob", partition="compute", walltime="10m")
            for user in ("bob", "alice"):
                ground.hub.wait_ready(user)
        yield ground


def target(ground, user):
    """Where the proxy leads who asks for the user's server."""
    routes = ground.hub.api("GET", "/proxy").json()
    return urlsplit(routes[f"/user/{user}/"]["target"])


@contextlib.contextmanager
def connected(ground, address, shown):
    """A connection to a server, which must prove its name, by the addresses of nodes alone; `shown` is who comes."""
    folder = ground.hub.folder / "internal-ssl"
    context = ssl.create_default_context(cafile=folder / "hub-ca_trust.crt")
    if shown:
        context.load_cert_chain(*shown)
    node = address.hostname.split(".")[1]
    with (
        socket.create_connection((ADDRESSES[node], address.port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=address.hostname) as channel,
    ):
        yield channel


def the_hub(ground):
    return [ground.hub.folder / "internal-ssl" / "hub-internal" / f"hub-internal.{end}" for end in ("crt", "key")]


def presented(ground, address):
    """The certificate that a server shows to the Hub."""
    with connected(ground, address, the_hub(ground)) as channel:
        return x509.load_der_x509_certificate(channel.getpeercert(binary_form=True))


def answer(ground, address, shown):
    """What a server says first to who asks it for a page."""
    with contextlib.suppress(ssl.SSLError, ConnectionError), connected(ground, address, shown) as channel:
        channel.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return channel.recv(5)
    return b""


@pytest.mark.parametrize(("user", "node", "minutes"), [("alice", "n3", 20), ("bob", "n1", 10)])
def test_a_certificate_names_one_job_on_one_node_for_as_long_as_it_may_run(ground, user, node, minutes):
    address = target(ground, user)
    assert address.scheme == "https"
    assert re.fullmatch(rf"j[a-z0-9]+\.{node}\.hpcspawner\.internal", address.hostname)
    certificate = presented(ground, address)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.DNSName(address.hostname)]
    lasts = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert lasts - timedelta(minutes=minutes) in (timedelta(days=1), timedelta(days=1, minutes=10))


def test_nobody_was_told_of_the_nodes(ground):
    for user in ("alice", "bob"):
        with pytest.raises(socket.gaierror):
            socket.getaddrinfo(target(ground, user).hostname, 443)
    told = (ground.hub.folder / "jupyterhub_config.py").read_text() + (ground.hub.folder / "site.toml").read_text()
    assert re.findall(r"\bn[123]\b|10\.77\.0\.1[123]", told) == []


def test_a_server_answers_the_hub_alone(ground):
    """Bob's certificate is signed by the same authority as hers, but what servers have is no word for them to go by."""
    address = target(ground, "alice")
    environment = Processes(ground.lab.folder, "n1", *jobs_of("bob")).environment
    his = [environment[f"JUPYTERHUB_SSL_{kind}FILE"] for kind in ("CERT", "KEY")]
    assert answer(ground, address, None) == b""
    assert answer(ground, address, his) == b""
    assert answer(ground, address, the_hub(ground)) == b"HTTP/"


async def test_a_restart_of_the_hub_leaves_a_server_its_name_and_lets_its_user_in(ground):
    before = target(ground, "alice")
    shown = presented(ground, before)
    ground.hub.terminate()
    ground.hub.start()
    ground.hub.wait_ready("alice")
    assert target(ground, "alice") == before
    assert presented(ground, before) == shown
    # A fresh login takes the server to the Hub's API, by TLS as well.
    session = ground.hub.log_in("alice")
    assert session.get(f"{ground.hub.url}/user/alice/lab", timeout=60).ok
    assert session.get(f"{ground.hub.url}/user/alice/api/status", timeout=60).json()["started"]
    assert (await ground.hub.run("alice", "import socket; print(socket.gethostname())")) == "n3"


def test_a_job_that_is_put_back_gets_another_certificate_on_another_node(ground):
    ground.hub.wait_ready("bob")
    before = target(ground, "bob")
    shown = presented(ground, before)
    (job,) = jobs_of("bob")
    with drained("n1"):
        on_head("scontrol", "requeue", job)
        within(30, lambda: "pending" in ground.jobs("bob"), "the job was not put back")
        # Slurm would leave it waiting for two minutes.
        on_head("scontrol", "update", f"jobid={job}", "starttime=now")
        within(60, lambda: len(ground.facts("bob")) == 2, "the server did not start again")
    within(60, lambda: (ground.whoami("bob") or {}).get("node") == "n2", ground.log)
    address = target(ground, "bob")
    assert re.fullmatch(r"j[a-z0-9]+\.n2\.hpcspawner\.internal", address.hostname)
    again = presented(ground, address)
    assert again.public_key() != shown.public_key()
    assert again.serial_number != shown.serial_number
    assert before.hostname not in str(ground.hub.api("GET", "/proxy").json())


def test_a_server_calls_the_hub_by_tls(ground):
    (job,) = jobs_of("alice")
    environment = Processes(ground.lab.folder, "n3", job).environment
    assert urlsplit(environment["JUPYTERHUB_API_URL"]).scheme == "https"
    assert urlsplit(environment["JUPYTERHUB_SERVICE_URL"]).scheme == "https"
