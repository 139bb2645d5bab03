"""The ports behind the Hub's public address: what a server's certificate opens there, and what a body may cost."""

import asyncio
import concurrent.futures
import contextlib
import http.client
import json
import re
import socket
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hpcspawner.nodes.certificates import Authority

pytestmark = pytest.mark.both_hubs
MIB = 1 << 20
CLAIMED = "203.0.113.9"
CLAIMS = {"X-Real-IP": CLAIMED, "X-Forwarded-For": CLAIMED, "X-Forwarded-Proto": "http", "Forwarded": f"for={CLAIMED}"}
EVENTS = """
import logging
c.EventLogger.handlers = [logging.FileHandler("events.jsonl")]
"""
PEM = serialization.Encoding.PEM


@pytest.fixture(scope="module")
def hub(make_hub):
    with make_hub(extra=EVENTS) as running:
        yield running


def port_of(hub, name):
    """A port that the Hub was given in its configuration."""
    (url,) = re.findall(
        rf"^c\.{name} = .*?(?:'http)?://[^:]*:(\d+)'$", hub.folder.joinpath("jupyterhub_config.py").read_text(), re.M
    )
    return int(url)


@pytest.fixture(scope="module")
def servers(hub):
    """A certificate as a server of a user has it, signed by the authority of this Hub."""
    folder = hub.folder / "internal-ssl"
    # JupyterHub keeps paths from its own folder on.
    with contextlib.chdir(hub.folder):
        authority = Authority.of(str(folder), str(folder / "notebooks-ca_trust.crt"))
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    signed = asyncio.run(authority.certify(request, "jabc.127.0.0.1.hpcspawner.internal", 3600))
    secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (hub.folder / "attacker.key").write_bytes(secret)
    (hub.folder / "attacker.crt").write_text(signed["certificate"])
    return hub.folder / "attacker.crt", hub.folder / "attacker.key"


def of(hub, component):
    """One of the certificates that JupyterHub has made for itself."""
    return [hub.folder / "internal-ssl" / component / f"{component}.{end}" for end in ("crt", "key")]


def trust(hub, shown):
    context = ssl.create_default_context(cafile=hub.folder / "internal-ssl" / "hub-ca_trust.crt")
    context.load_cert_chain(*shown)
    return context


def asked(hub, shown, method, path, port=None, body=None, **headers):
    """Status and text of what the Hub's own port answers to who shows this certificate."""
    port = port or port_of(hub, "JupyterHub.hub_bind_url")
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=trust(hub, shown))
    with contextlib.closing(connection):
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


ONLY = "with a server's certificate, the Hub's port accepts only the API calls of jupyterhub-singleuser"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/hub/login"),
        ("POST", "/hub/login"),
        ("GET", "/hub/api/users"),
        ("GET", "/hub/api/users/alice"),
        ("GET", "/hub/api/info"),
        ("GET", "/hub/api/proxy"),
        ("DELETE", "/hub/api/users/alice/server"),
        ("GET", "/hub/api/users/alice/activity"),
        ("POST", "/hub/api/user"),
        ("POST", "/hub/api/shutdown"),
        ("POST", "/hub/api/hpcspawner/ticket"),
        ("GET", "/hub/api/user/../users"),
        ("GET", "/hub/api//user"),
        ("GET", "/hub/api/users/a/b/activity"),
        ("GET", "https://127.0.0.1/hub/api/users"),
        ("OPTIONS", "*"),
        ("GET", "/hub/static/favicon.ico?x=/hub/api/user"),
        ("PROPFIND", "/hub/api/user"),
    ],
)
def test_a_servers_certificate_opens_nothing_but_what_servers_need(hub, servers, method, path):
    """With the token of an admin as well, which it might have from anywhere."""
    token = {"Authorization": f"token {hub.token}"}
    status, text = asked(hub, servers, method, path, **token)
    assert status == 403
    assert json.loads(text)["message"].startswith(ONLY)
    # Such a body is not read.
    status, text = asked(hub, servers, method, path, body=None, **token, **{"Content-Length": "99999999"})
    assert status == 403


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/hub/api", 200),
        ("GET", "/hub/api/", 200),
        ("GET", "/hub/api/user", 403),
        ("POST", "/hub/api/oauth2/token", 400),
        ("POST", "/hub/api/users/alice/activity", 403),
    ],
)
def test_what_servers_need_is_answered_by_the_hub_itself(hub, servers, method, path, status):
    got, text = asked(hub, servers, method, path)
    assert got == status
    assert ONLY not in text


def test_a_server_that_asks_for_much_fills_no_log(hub, servers):
    before = len(hub.log())
    for _ in range(100):
        asked(hub, servers, "GET", "/hub/home")
    assert hub.log()[before:].count(ONLY) <= 60


def test_a_real_server_works_with_no_more(hub):
    before = len(hub.log())
    hub.spawn("alice", {"walltime": "10m"})
    session = hub.log_in("alice")
    assert session.get(f"{hub.url}/user/alice/lab", timeout=60).ok
    assert session.get(f"{hub.url}/user/alice/api/status", timeout=60).json()["started"]
    log = hub.log()[before:]
    # Its version, its cookie, its user, its activity.
    for call in ("GET /hub/api ", "POST /hub/api/oauth2/token", "GET /hub/api/user ", "POST /hub/api/users/alice/act"):
        assert call in log
    assert ONLY not in log
    hub.stop_server("alice")


REPORT = {"report_key": "hpcr_" + "x" * 40, "event": "warned"}


def seen(hub):
    """The address in the last event of a refused call."""
    events = [json.loads(line) for line in hub.folder.joinpath("events.jsonl").read_text().splitlines()]
    return [event for event in events if event.get("what") == "report"][-1]["remote_ip"]


def reported(hub, shown):
    body = json.dumps(REPORT)
    return asked(hub, shown, "POST", "/hub/api/hpcspawner/report", body=body, **CLAIMS)[0]


def test_who_is_not_the_proxy_claims_no_address(hub):
    """The Hub's own certificate, which may call everything: claims are the proxy's alone."""
    assert reported(hub, of(hub, "hub-internal")) == 403
    assert seen(hub) == "127.0.0.1"


def test_what_the_proxy_says_is_believed(hub):
    assert reported(hub, of(hub, "proxy-client")) == 403
    assert seen(hub) == CLAIMED


def test_a_servers_claim_stands_nowhere(hub, servers):
    before = len(hub.log())
    assert asked(hub, servers, "GET", "/hub/api/user", **CLAIMS)[0] == 403
    assert asked(hub, servers, "GET", "/hub/api/users", **CLAIMS)[0] == 403
    deadline = time.monotonic() + 30
    while "GET /hub/api/user " not in hub.log()[before:]:  # the line is written after the answer
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert not [line for line in hub.log()[before:].splitlines() if "/hub/api/user" in line and CLAIMED in line]


# --- the proxy's own port


def through_tls(hub, shown):
    """What the proxy's REST API answers to who shows this certificate; an error if TLS refuses."""
    port = port_of(hub, "ConfigurableHTTPProxy.api_url")
    return asked(hub, shown, "GET", "/api/routes", port=port)[0]


def test_the_hub_steers_the_proxy(hub):
    # It lacks the token; TLS lets it speak.
    assert through_tls(hub, of(hub, "hub-internal")) == 403


@pytest.mark.parametrize("who", ["a server", "proxy-client", "proxy-api"])
def test_nobody_else_speaks_to_the_proxys_api(hub, servers, who):
    shown = servers if who == "a server" else of(hub, who)
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
        through_tls(hub, shown)


# --- what a body costs


def memory(hub):
    """What the Hub's process has in memory, in MiB."""
    status = Path(f"/proc/{hub.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def post_much(hub, path, *, chunked):
    """Send 90 MiB as anybody may, as far as it is taken; the first line of what is answered, if it arrives."""
    url = urlsplit(hub.url)
    context = ssl.create_default_context(cafile=hub.folder / "ca.pem")
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {90 * MIB}"
    part = b"%x\r\n%b\r\n" % (MIB, b" " * MIB) if chunked else b" " * MIB
    with (
        socket.create_connection((url.hostname, url.port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=url.hostname) as channel,
    ):
        channel.sendall(f"POST {path} HTTP/1.1\r\nHost: hub\r\nConnection: close\r\n{length}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(90):
                channel.sendall(part)
            if chunked:
                channel.sendall(b"0\r\n\r\n")
        with contextlib.suppress(OSError):
            return channel.recv(65536).partition(b"\r\n")[0].decode()
    return ""


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
@pytest.mark.parametrize(
    "path", ["/hub/api/hpcspawner/ticket", "/hub/api/hpcspawner/report", "/hub/hpcspawner/static/x", "/hub/login"]
)
def test_long_bodies_of_strangers_cost_the_hub_no_memory(hub, path, chunked):
    before = memory(hub)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: post_much(hub, path, chunked=chunked), range(6)))
    assert all(not answer or re.match(r"HTTP/1.1 [45]\d\d", answer) for answer in answers)
    assert hub.get("/hub/health").ok
    # JupyterHub's own addresses take ten MiB of each.
    assert memory(hub) - before < (30 if "hpcspawner" in path else 150)
