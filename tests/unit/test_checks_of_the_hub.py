"""`hpcspawner check` of the Hub's side: its settings, its certificate, its address; and the trial job, really run."""

import asyncio
import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from traitlets.config import Config

from hpcspawner.checks import https, trial
from hpcspawner.checks.finding import Outcome
from hpcspawner.checks.trial import Home, Trial
from hpcspawner.cli.certificate import write_certificate
from hpcspawner.cli.check import _client
from hpcspawner.hub import settings_checks
from hpcspawner.nodes import resolvers
from hpcspawner.site.profile import parse

SLURM = {
    "title": "T",
    "scheduler": {"type": "slurm"},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "environments": [{"name": "jupyter", "path": ["/bin"]}],
    "interfaces": [{"name": "shell", "command": ["sh"]}],
}
LOCAL = SLURM | {"scheduler": {"type": "local"}}


def told(found):
    return [one.text for one in found if not one.ok]


# --- settings


def config(**changes):
    """What configure() and an example make, with some changes."""
    found = {
        "JupyterHub": {
            "spawner_class": "hpcspawner.spawner.HPCSpawner",
            "cleanup_servers": False,
            "concurrent_spawn_limit": 0,
            "internal_ssl": True,
            "ssl_cert": "/x",
            "hub_ip": "",
        },
        "Spawner": {"start_timeout": 10 * 86400},
        "ConfigurableHTTPProxy": {"command": ["env", f"NODE_OPTIONS={resolvers.node_options()}", "chp"]},
    }
    for name, value in changes.items():
        section, _, trait = name.partition("__")
        found.setdefault(section, {})[trait] = value
        if value is None:
            del found[section][trait]
    return Config(found)


def judged(**changes):
    profile = parse(SLURM, "site.toml")
    checks = [*settings_checks.checks(config(**changes), [profile]), *settings_checks.tls(config(**changes))]
    return told([finding for check in checks for finding in check.run()])


def test_settings_of_an_example_have_no_fault():
    assert judged() == []


@pytest.mark.parametrize(
    ("change", "cause", "cure"),
    [
        ({"JupyterHub__spawner_class": "batchspawner.SlurmSpawner"}, "spawner_class is", "call hpcspawner.configure"),
        ({"JupyterHub__cleanup_servers": True}, "a restart of the Hub ends all servers", "set it to False"),
        ({"JupyterHub__cleanup_servers": None}, "a restart of the Hub ends all servers", "set it to False"),
        ({"JupyterHub__concurrent_spawn_limit": 100}, "a full queue locks users out", "set it to 0"),
        ({"Spawner__start_timeout": 60}, "start_timeout is 60 s", "shorten limits.queue"),
        ({"HPCSpawner__start_timeout": 300}, "start_timeout is 300 s", "shorten limits.queue"),
        ({"JupyterHub__shutdown_on_logout": True}, "loses the server and its job", "leave it out"),
        ({"JupyterHub__authenticator_class": "dummy"}, "anybody logs in as anybody", "use PAM"),
        ({"JupyterHub__ssl_cert": ""}, "passwords cross the network in clear", "JupyterHub.ssl_cert"),
        ({"JupyterHub__internal_ssl": False}, "no TLS to the compute nodes", "leave tls_to_nodes=False out"),
        ({"ConfigurableHTTPProxy__command": ["chp"]}, "command was overwritten", "before calling configure()"),
        ({"JupyterHub__hub_ip": None}, "listens on 127.0.0.1 alone", "set JupyterHub.hub_ip"),
        ({"JupyterHub__hub_bind_url": "http://localhost:8081"}, "listens on localhost alone", "set JupyterHub.hub_ip"),
        ({"SlurmSpawner__req_partition": "x"}, "c.SlurmSpawner.req_partition has no effect", "partitions"),
        ({"Spawner__cmd": "x"}, "c.Spawner.cmd has no effect", "interfaces[].command"),
    ],
    ids=str,
)
def test_a_setting_that_defeats_servers_is_found_with_its_cure(change, cause, cure):
    (text,) = judged(**change)
    assert cause in text
    assert cure.lower() in text.lower()


@pytest.mark.parametrize(
    "change",
    [
        {"JupyterHub__ssl_cert": "", "JupyterHub__bind_url": "http://127.0.0.1:8000"},
        {"JupyterHub__hub_ip": None, "Spawner__hub_connect_url": "https://hub.example.org"},
        {"HPCSpawner__certificate_names": "host", "ConfigurableHTTPProxy__command": ["chp"]},
    ],
    ids=str,
)
def test_a_setting_that_is_right_where_it_stands_is_no_fault(change):
    assert judged(**change) == []


# --- certificates


def pair(folder, days=100, begins=0, host="hub.example.org"):
    """A certificate that is good for so many days, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    start = now + datetime.timedelta(days=begins)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start - datetime.timedelta(days=500 if not begins else 0))
        .not_valid_after(start + datetime.timedelta(days=days, hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "hub.pem").write_bytes(signed.public_bytes(pem))
    file = folder / "hub.key"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
    file.chmod(0o600)
    return str(folder / "hub.pem"), str(file)


URL = "https://hub.example.org"


@pytest.mark.parametrize(
    ("made", "cause"),
    [
        ({}, ""),
        ({"host": "*.example.org"}, ""),
        ({"days": -1}, "expired on"),
        ({"days": 5}, "expires in 5 days"),
        ({"begins": 3}, "is not valid before"),
        ({"host": "other.example.org"}, "does not name hub.example.org"),
    ],
    ids=str,
)
def test_a_certificate_is_good_for_the_hubs_name_and_for_long(tmp_path, made, cause):
    found = told(https.files(*pair(tmp_path, **made), URL))
    assert (found == []) if not cause else (len(found) == 1 and cause in found[0])


def test_a_key_must_be_that_of_the_certificate_and_the_hubs_alone(tmp_path):
    certificate, _ = pair(tmp_path)
    (tmp_path / "other").mkdir()
    _, key = pair(tmp_path / "other")
    assert "is not the key of" in told(https.files(certificate, key, URL))[0]
    certificate, key = pair(tmp_path)
    Path(key).chmod(0o644)
    assert told(https.files(certificate, key, URL)) == [f"other accounts may read {key}. Chmod 0600 {key}"]
    assert "can't be read" in told(https.files(certificate, str(tmp_path / "none"), URL))[0]


# --- the address, with a real TLS server


class Answering:
    """Speaks TLS, and answers as a Hub does, until the test is over."""

    def __init__(self, folder, name="X-JupyterHub-Version"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")
        self._reply = f"HTTP/1.1 200 OK\r\n{name}: 6\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as tls:
                    tls.settimeout(5)
                    if tls.recv(4096):
                        tls.sendall(self._reply)
            except OSError:
                pass

    def close(self):
        self._listener.close()


@pytest.fixture
def answering(tmp_path):
    write_certificate(tmp_path, ["localhost", "127.0.0.1"])
    made = Answering(tmp_path)
    yield made
    made.close()


def test_an_address_that_answers_by_tls_is_good(answering, tmp_path):
    assert told(https.address(f"https://localhost:{answering.port}", str(tmp_path / "ca.pem"))) == []


def test_an_authority_that_is_not_named_is_told_of(answering):
    (text,) = told(https.address(f"https://localhost:{answering.port}", ""))
    assert "this machine's own store does not vouch for" in text
    assert "name the authority in ca_file" in text


def test_a_certificate_for_another_name_is_told_of(tmp_path):
    write_certificate(tmp_path, ["hub.example.org"])
    made = Answering(tmp_path)
    (text,) = told(https.address(f"https://localhost:{made.port}", str(tmp_path / "ca.pem")))
    made.close()
    assert "is for another name" in text


def test_where_nothing_answers_the_hub_may_not_run_yet(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (text,) = told(https.address(f"https://127.0.0.1:{port}", ""))
    assert "nothing answers by TLS" in text
    assert "Start the Hub" in text


def test_a_name_that_nobody_knows_is_told_of():
    (text,) = told(https.address("https://no-such-hub.invalid", ""))
    assert "no-such-hub.invalid can't be resolved" in text


# --- the trial job, run by the embedded scheduler


async def tried(tmp_path, monkeypatch, home=None, **job):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trial, "_LOOK_S", 0.05)
    profile = parse(LOCAL | {"job": job}, "site.toml")
    one = Trial(profile, _client(profile), "", home or Home())
    return await one.run(60)


async def test_a_trial_shows_the_way_to_the_hub_and_back(tmp_path, monkeypatch, answering):
    ca = (tmp_path / "ca.pem").read_text()
    found = await tried(tmp_path, monkeypatch, Home(f"https://localhost:{answering.port}/hub/api/", ca))
    assert told(found) == []
    texts = " ".join(one.what for one in found)
    assert "submitted as" in texts
    assert f"reaches the Hub at https://localhost:{answering.port}/hub/api/ by TLS" in texts
    assert "is Python 3." in texts


async def test_a_trial_tells_each_fault_of_the_way(tmp_path, monkeypatch, answering):
    url = f"https://localhost:{answering.port}/hub/api/"
    # Whatever this machine trusts, it is not the authority of this test.
    other = tmp_path / "other"
    other.mkdir()
    write_certificate(other, ["localhost"])
    (text,) = told(await tried(tmp_path, monkeypatch, Home(url, (other / "ca.pem").read_text())))
    assert "can't use the Hub" in text
    assert "Name in ca_file" in text


async def test_a_trial_tells_that_the_hub_is_away(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (text,) = told(await tried(tmp_path, monkeypatch, Home(f"https://127.0.0.1:{port}/hub/api/", "")))
    assert "ConnectionRefusedError" in text
    assert "Open the Hub's firewall for the nodes" in text


async def test_a_trial_tells_that_another_program_answers(tmp_path, monkeypatch):
    write_certificate(tmp_path, ["localhost"])
    made = Answering(tmp_path, name="Server")
    home = Home(f"https://localhost:{made.port}/hub/api/", (tmp_path / "ca.pem").read_text())
    (text,) = told(await tried(tmp_path, monkeypatch, home))
    made.close()
    assert "is no JupyterHub" in text


async def test_a_trial_on_a_node_without_python_says_so(tmp_path, monkeypatch):
    (text,) = told(await tried(tmp_path, monkeypatch, python="/no/python3"))
    assert "the node can't run the launcher's Python" in text
    assert "job.python" in text


async def test_a_trial_tells_what_the_node_lacks(tmp_path, monkeypatch):
    (text,) = told(await tried(tmp_path, monkeypatch, conda="/no/conda"))
    assert "has not what the profile names: job.conda: /no/conda" in text


async def test_a_trial_whose_ports_are_taken_says_so(tmp_path, monkeypatch):
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", 0))
        holder.listen()
        port = holder.getsockname()[1]
        # Also taken: what connects to it gets no answer, so the job's end is looked for.
        monkeypatch.setattr(trial, "_ONE_TRY_S", 0.2)
        monkeypatch.setattr(trial, "_CONNECT_S", 4)
        (text,) = told(await tried(tmp_path, monkeypatch, ports=[port, port]))
    assert "no free port" in text


async def test_a_trial_that_waits_for_too_long_says_why(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile = parse(LOCAL, "site.toml")
    found = await Trial(profile, _client(profile), "", Home()).run(0)
    assert any(one.outcome is Outcome.WARNING and "did not start within 0 s" in one.what for one in found)
    await asyncio.sleep(0)
