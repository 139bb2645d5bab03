"""The launcher as the job script runs it: by a shell, through pipes, against a real HTTPS server."""

import ast
import http.server
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import types
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.launcher import SOURCE, launcher

from hpcspawner.programs.joined import source
from hpcspawner.programs.launcher import job, start
from hpcspawner.script.settings import SETTINGS_VERSION, LauncherSettings
from hpcspawner.script.text import quote

PYTHON = os.environ.get("LAUNCHER_PYTHON", sys.executable)
TICKET = "ticket-" + "t" * 30
REPORT_KEY = "report-" + "r" * 30
TOKEN = "token-" + "o" * 30
NODE_NAME = "j0123456789abcdef.n1.hpcspawner.internal"
UNSIGNED = {launcher.HUB_HEADER: ""}

SCRIPT = """\
exec 3< <(printf '%s\n' {source}) 4< <(printf '%s\n' {settings})
exec "$1" -I /dev/fd/3
"""

SERVES = """
import http.server, os, sys
from urllib.parse import urlsplit
url = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
def serve(port=url.port):
    http.server.HTTPServer((url.hostname or "", port), http.server.SimpleHTTPRequestHandler).serve_forever()
"""

# Leaves a listener behind that descends from nobody here, as another user's program would.
LETS_ANOTHER_LISTEN = """
import pathlib, socket, time
earlier = len(list(pathlib.Path().glob("another*.pid")))
def another():
    if os.fork():
        while not pathlib.Path(f"another{earlier}.pid").exists():
            time.sleep(0.01)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    taken = socket.socket()
    taken.bind(("127.0.0.1", url.port))
    taken.listen()
    pathlib.Path(f"another{earlier}.pid").write_text(str(os.getpid()))
    time.sleep(60)
    os._exit(0)
"""


class Authority:
    """A certificate authority that signs certificates for servers."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, folder.name)])
        usage = x509.KeyUsage(
            digital_signature=False,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=True,
            crl_sign=True,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            self.builder(self.name, self.key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def builder(self, subject, key):
        public = self.key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(hours=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=1))
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
        )

    def sign(self, csr):
        """A certificate for the key of a signing request, as the Hub would issue it."""
        request = x509.load_pem_x509_csr(csr.encode())
        assert request.is_signature_valid
        host = x509.SubjectAlternativeName([x509.DNSName(NODE_NAME)])
        certificate = self.builder(request.subject, request).add_extension(host, critical=True)
        return certificate.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()

    def server_context(self, *names):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        hosts = [x509.IPAddress(ip_address(name)) if name[0].isdigit() else x509.DNSName(name) for name in names]
        certificate = (
            self.builder(subject, key)
            .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = self.folder / f"{names[0]}.pem"
        file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


class Hub(http.server.ThreadingHTTPServer):
    """The two endpoints: notes the calls, and answers from a script, then as the real ones do."""

    daemon_threads = True

    def __init__(self, context, port=0, authority=None):
        super().__init__(("127.0.0.1", port), _Endpoint)
        self.socket = context.wrap_socket(self.socket, server_side=True)
        self.authority = authority
        self.calls = []
        self.times = []
        self.answers = {"/ticket": [], "/report": []}
        self.environment = {
            "JUPYTERHUB_SERVICE_URL": "http://127.0.0.1:0/user/alice/",
            "JUPYTERHUB_API_TOKEN": TOKEN,
        }
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def handle_error(self, request, client_address):
        """Be silent about clients that go."""

    def close(self):
        self.shutdown()
        self.server_close()

    def answer(self, path, body):
        """What the real endpoint answers."""
        if path == "/report":
            return {}
        told = {"environment": self.environment, "report_key": REPORT_KEY}
        if self.authority and "csr" in body:
            return told | {"certificate": self.authority.sign(body["csr"]), "authorities": self.authority.pem}
        return told | {"environment": {}} if self.authority else told

    @property
    def tickets(self):
        return [body for path, body in self.calls if path == "/ticket"]

    @property
    def reports(self):
        return [body for path, body in self.calls if path == "/report"]

    def reported(self, event, timeout_s=60):
        return eventually(lambda: next((body for body in self.reports if body["event"] == event), None), timeout_s)


class _Endpoint(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        hub = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = self.path.removeprefix("/hub/api/hpcspawner")
        hub.calls.append((path, body))
        hub.times.append(time.monotonic())
        status, headers, answer = hub.answers[path].pop(0) if hub.answers[path] else (200, {}, None)
        if status is None:
            self.close_connection = True
            return
        if answer is None:
            answer = hub.answer(path, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), launcher.HUB_HEADER: "6.1.1", **headers}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Be silent."""


class Run:
    """One launcher under way, with its job's log."""

    def __init__(self, process, log):
        self.process = process
        self.log = log

    @property
    def text(self):
        return self.log.read_text(errors="replace")

    def ends(self, timeout_s=60):
        return self.process.wait(timeout_s)


def eventually(what, timeout_s=60):
    """The first true answer of `what()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if answer := what():
            return answer
        time.sleep(0.02)
    pytest.fail(f"did not come within {timeout_s} s")


def alive(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@cache
def oldest_python():
    """The oldest interpreter here that the launcher is meant for; None if there is none older than ours."""
    for minor in range(6, sys.version_info.minor):
        for python in [f"python3.{minor}", *map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))]:
            with suppress(OSError):
                if not subprocess.run([python, "-c", "import ssl"], capture_output=True, check=False).returncode:
                    return python
    return None


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def hub_context(authority):
    return authority.server_context("localhost", "127.0.0.1")


@pytest.fixture
def hub(hub_context):
    hub = Hub(hub_context)
    yield hub
    hub.close()


@pytest.fixture
def program(tmp_path):
    """Writes an executable Python program and puts it on the job's PATH."""

    def write(name, body, before=SERVES):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.write_text(f"#!{sys.executable} -IS\n{before}\n{body}\n")
        path.chmod(0o755)
        return path

    return write


@pytest.fixture
def settings(hub, authority, tmp_path):
    directory = tmp_path / "home"
    directory.mkdir()
    return {
        "version": launcher.SETTINGS_VERSION,
        "callback": f"https://127.0.0.1:{hub.server_port}/hub/api/hpcspawner",
        "ca": authority.pem,
        "ticket": TICKET,
        "tls": False,
        "command": ["jupyterhub-singleuser"],
        "programs": ["jupyterhub-singleuser"],
        "alone": [],
        "writable": True,
        "program": None,
        "proxy": "",
        "containers": [],
        "bind": "--bind=",
        "hidden": [],
        "environment": "Science stack 2024",
        "image": "",
        "directory": str(directory),
        "variables": {"JUPYTERHUB_DEFAULT_URL": "/lab"},
        "ports": None,
        "limit_s": 20,
        "idle_limit_s": None,
        "status": None,
        "extensions": [],
        "modules": "",
        "beside": "",
        "files": {},
    }


@pytest.fixture
def launch(tmp_path, settings):
    """Starts the launcher as the job script does; what it left running is ended with the test."""
    runs = []

    def start(python=PYTHON, ticket_s=600.0, **variables):
        log = tmp_path / "job.log"
        script = tmp_path / "job.sh"
        assert "\nTICKET_S = 600.0\n" in SOURCE
        source = SOURCE.replace("\nTICKET_S = 600.0\n", f"\nTICKET_S = {ticket_s}\n")
        script.write_text(SCRIPT.format(source=quote(source), settings=quote(json.dumps(settings))))
        environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "HPC_JOB": "4711.server",
            "HPC_LOG": str(log),
            "HPC_LOG_START": str(log.stat().st_size if log.exists() else 0),
            "HPC_SETUP_FAILED": "",
            **variables,
        }
        with log.open("ab") as out:
            argv = ["/bin/bash", script, python]
            process = subprocess.Popen(
                argv, env=environment, cwd=tmp_path, stdin=subprocess.PIPE, stdout=out, stderr=out
            )
        runs.append(Run(process, log))
        return runs[-1]

    yield start
    for run in runs:
        run.process.terminate()
        try:
            run.process.wait(60)
        finally:
            run.process.kill()
            run.process.communicate()


@pytest.fixture
def home(settings):
    return Path(settings["directory"])


@pytest.fixture
def another(home):
    """Ends the listeners that a program left behind."""
    yield
    for pid_file in home.glob("another*.pid"):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


class Listener(threading.Thread):
    """Accepts, counts and never answers."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.accepted = []

    @property
    def connections(self):
        return len(self.accepted)

    def run(self):
        with suppress(OSError):
            while True:
                self.accepted.append(self.socket.accept()[0])

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.accepted:
            connection.close()


@pytest.fixture
def listener():
    listener = Listener()
    listener.start()
    yield listener
    listener.close()


@contextmanager
def holding_a_port(address="127.0.0.1"):
    """A port that this process listens on, with free ones after it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as held:
        yield held.getsockname()[1]


def ends_on_word(code):
    """A server that listens, and ends with this exit code once the file "end" is in its directory."""
    return f"""
import os, threading, time
def end():
    while not os.path.exists("end"):
        time.sleep(0.02)
    os._exit({code})
threading.Thread(target=end, daemon=True).start()
serve()
"""


def test_server_is_started_with_its_environment_and_reported_and_its_end_too(hub, program, launch, settings):
    program(
        "jupyterhub-singleuser",
        """
import json
seen = dict(os.environ, cwd=os.getcwd(), session=str(os.getsid(0) == os.getpid()), stdin=os.readlink("/proc/self/fd/0"))
open("seen.json", "w").write(json.dumps(seen))
"""
        + ends_on_word(7),
    )
    as_found = {"LD_BIND_NOW": "found", "OPENSSL_X": "found", "HPC_LOG_SPARE": "", "HPC_OPENSSL": "/usr/bin/openssl"}
    run = launch(MODULES="loaded", HPC_SET_LD_BIND_NOW="set up", HPC_SET_SSL_X="set up", **as_found)
    report = hub.reported("listening")
    phases = report.pop("phases")
    assert report == {"report_key": REPORT_KEY, "event": "listening", "port": report["port"]}
    assert set(phases) == {"key", "ticket", "prepare", "server"}
    assert all(0 <= seconds < 600 for seconds in phases.values())
    Path(settings["directory"], "end").touch()
    assert run.ends() == 7
    seen = json.loads((Path(settings["directory"]) / "seen.json").read_text())
    assert seen["JUPYTERHUB_SERVICE_URL"] == f"http://127.0.0.1:{report['port']}/user/alice/"
    assert seen["JUPYTERHUB_API_TOKEN"] == TOKEN
    assert (seen["JUPYTERHUB_DEFAULT_URL"], seen["MODULES"]) == ("/lab", "loaded")
    assert (seen["cwd"], seen["session"], seen["stdin"]) == (settings["directory"], "True", "/dev/null")
    assert (seen["LD_BIND_NOW"], seen["SSL_X"]) == ("set up", "set up"), "as the set-up made it"
    assert "OPENSSL_X" not in seen, "the set-up took it away"
    assert not {name for name in seen if name.startswith("HPC_")} | ({"JUPYTER_CONFIG_PATH"} & set(seen))
    end = hub.reported("ended")
    assert (end["reason"], end["exit_code"], end["signal"]) == ("server-exited", 7, None)
    assert [line for line in run.text.splitlines() if line.startswith("hpcspawner:")] == [
        "hpcspawner: environment received",
        f"hpcspawner: server listens on port {report['port']}",
        "hpcspawner: server ended with exit code 7",
    ]


SERVES_ANY_ADDRESS = """
import socket
http.server.HTTPServer.address_family = socket.AF_INET6 if ":" in (url.hostname or "") else socket.AF_INET
open("url", "w").write(url.geturl())
serve()
"""


@pytest.mark.parametrize(
    ("url", "address"),
    [
        pytest.param("http://0.0.0.0:0/user/alice/", "127.0.0.1", id="all of IPv4"),
        pytest.param("http://127.0.0.2:0/user/alice/", "127.0.0.2", id="one address of IPv4"),
        pytest.param("http://[::1]:0/user/alice/", "::1", id="IPv6 in brackets"),
        pytest.param("http://[::]:0/user/alice/", "::1", id="all of IPv6"),
        pytest.param("http://:0/user/alice/", "127.0.0.1", id="empty host"),
    ],
)
def test_server_listens_where_the_hub_says(hub, program, launch, home, url, address):
    hub.environment["JUPYTERHUB_SERVICE_URL"] = url
    program("jupyterhub-singleuser", SERVES_ANY_ADDRESS)
    launch()
    port = hub.reported("listening")["port"]
    assert (home / "url").read_text() == url.replace(":0/", f":{port}/")
    socket.create_connection((address, port), 5).close()


def test_ticket_is_tried_again_while_the_hub_is_busy_with_the_same_mark(hub, program, launch):
    program("jupyterhub-singleuser", "")
    hub.answers["/ticket"] = [
        (503, {"Retry-After": "1"}, {}),
        (200, {}, b"<html>"),
        (429, {}, {}),
    ]
    assert launch().ends() == 0
    assert len(hub.tickets) == 4
    assert {body["ticket"] for body in hub.tickets} == {TICKET}
    assert len({body["run"] for body in hub.tickets}) == 1
    assert len(hub.tickets[0]["run"]) >= 20
    assert {body["job"] for body in hub.tickets} == {"4711.server"}
    assert hub.times[1] - hub.times[0] >= 1


def test_a_lost_answer_does_not_lose_the_job(hub, program, launch):
    program("jupyterhub-singleuser", "serve()")
    hub.answers = {"/ticket": [(None, {}, {})], "/report": [(None, {}, {}), (503, {}, {})]}
    launch()
    eventually(lambda: len(hub.reports) == 3)
    assert len({body["port"] for body in hub.reports}) == 1


def test_a_hub_that_is_not_up_yet_is_waited_for(hub_context, program, launch, settings):
    program("jupyterhub-singleuser", "")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings["callback"] = f"https://localhost:{port}/hub/api/hpcspawner"
    run = launch()
    eventually(lambda: "has not answered yet" in run.text)
    late = Hub(hub_context, port)
    assert run.ends() == 0
    late.close()


def test_the_ticket_is_given_up_when_the_limit_has_passed(hub, launch, settings):
    settings["limit_s"] = 2
    hub.answers["/ticket"] = [(503, {"Retry-After": "60"}, {})] * 50
    run = launch(ticket_s=1.0)
    assert run.ends() == launcher.UNANSWERED_CODE
    assert "The Hub did not answer (last try: status 503)." in run.text
    assert len(hub.calls) == 2, "one at once and one before the end"


@pytest.mark.parametrize(("limit_s", "ticket_s"), [(2, 30.0), (30, 2.0)])
def test_the_longer_of_two_limits_bounds_the_wait_for_a_hub_that_restarts(
    hub_context, program, launch, settings, limit_s, ticket_s
):
    program("jupyterhub-singleuser", "")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings.update(callback=f"https://localhost:{port}/hub/api/hpcspawner", limit_s=limit_s)
    run = launch(ticket_s=ticket_s)
    eventually(lambda: "has not answered yet" in run.text)
    time.sleep(3)
    late = Hub(hub_context, port)
    assert run.ends() == 0
    late.close()


def test_a_proxy_that_does_not_know_its_hub_yet_is_asked_again(hub, program, launch):
    """Its 404 is not the Hub's word: the Hub signs its own."""
    program("jupyterhub-singleuser", "serve()")
    hub.answers = {"/ticket": [(404, UNSIGNED, b"")], "/report": [(404, UNSIGNED, b""), (200, {}, {})]}
    run = launch()
    eventually(lambda: len(hub.reports) == 2)
    assert "(status 404, not from the Hub itself)" in run.text
    assert run.process.poll() is None


@pytest.mark.parametrize(
    ("status", "says"),
    [
        pytest.param(400, "another version", id="not understood"),
        pytest.param(403, "used it before", id="refused"),
        pytest.param(404, "no such address", id="not there"),
        pytest.param(410, "stopped or replaced", id="gone"),
        pytest.param(302, "callback address", id="redirect"),
    ],
)
def test_a_refused_ticket_ends_the_job_at_once_and_says_what_to_do(hub, launch, status, says):
    hub.answers["/ticket"] = [(status, {"Location": "https://127.0.0.1:1/elsewhere"}, {})]
    run = launch()
    assert run.ends() == 3
    assert len(hub.calls) == 1
    assert len(run.text.splitlines()) == 1
    assert f"(status {status})" in run.text
    assert says in run.text


def test_a_hub_of_another_authority_never_gets_the_ticket(hub, launch, settings, tmp_path_factory):
    settings["ca"] = Authority(tmp_path_factory.mktemp("stranger")).pem
    run = launch()
    assert run.ends() == 4
    assert hub.calls == []
    assert "The certificate of 127.0.0.1 was not accepted" in run.text


def test_the_systems_own_store_does_not_trust_our_authority(hub, launch, settings):
    settings["ca"] = None
    assert launch().ends() == 4
    assert hub.calls == []


def test_a_certificate_for_another_host_never_gets_the_ticket(authority, launch, settings):
    elsewhere = Hub(authority.server_context("hub.example.org"))
    settings["callback"] = f"https://localhost:{elsewhere.server_port}/hub/api/hpcspawner"
    run = launch()
    assert run.ends() == launcher.WRONG_NAME_CODE
    assert elsewhere.calls == []
    assert "The certificate of localhost was not accepted" in run.text
    elsewhere.close()


@pytest.mark.parametrize("begins_h", [1, -48], ids=["not valid yet", "no longer valid"])
def test_a_certificate_of_another_time_is_told_from_others(authority, launch, settings, monkeypatch, begins_h):
    """So it looks to a node whose clock is wrong."""
    begins = datetime.now(UTC) + timedelta(hours=begins_h)
    builder = x509.CertificateBuilder
    monkeypatch.setattr(
        Authority,
        "builder",
        lambda self, subject, key: (
            builder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(days=1))
        ),
    )
    elsewhere = Hub(authority.server_context("127.0.0.1"))
    settings["callback"] = f"https://127.0.0.1:{elsewhere.server_port}/hub/api/hpcspawner"
    run = launch()
    assert run.ends() == launcher.WRONG_TIME_CODE
    assert elsewhere.calls == []
    assert f"The clock of {os.uname().nodename} says " in run.text
    elsewhere.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "hub.example.org"])
def test_plain_http_is_refused_before_the_ticket_leaves(launch, settings, listener, host):
    settings["callback"] = f"http://{host}:{listener.port}/hub/api/hpcspawner"
    run = launch()
    assert run.ends() == launcher.SETTINGS_CODE
    assert "must begin with https://" in run.text
    assert listener.connections == 0


def test_a_proxy_of_the_environment_does_not_divert_the_ticket(hub, program, launch, listener):
    program("jupyterhub-singleuser", "")
    proxy = f"http://127.0.0.1:{listener.port}"
    names = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    assert launch(**dict.fromkeys(names, proxy)).ends() == 0
    assert listener.connections == 0
    assert [path for path, _ in hub.calls] == ["/ticket", "/report"]


def test_older_tls_is_not_spoken():
    assert launcher.trusting(None).minimum_version == ssl.TLSVersion.TLSv1_2


def test_a_missing_program_is_named_with_environment_and_node(hub, launch, settings, program):
    program("jupyterhub-singleuser", "serve()")
    settings["programs"] = ["jupyterhub-singleuser", "jupyter-nowhere"]
    assert launch().ends() == 127
    end = hub.reported("ended")
    assert end["reason"] == "missing-program"
    assert end["message"] == (
        f"jupyter-nowhere was not found in the environment 'Science stack 2024' on {os.uname().nodename}."
    )


def test_a_program_whose_interpreter_is_gone_is_reported(hub, launch, program):
    program("jupyterhub-singleuser", "").write_text("#!/nowhere/bin/python\n")
    assert launch().ends() == 127
    end = hub.reported("ended")
    assert end["reason"] == "missing-program"
    assert "jupyterhub-singleuser could not be started" in end["message"]


CONTAINER = """
import pathlib
with open("wrapped", "a") as log:
    print(*sys.argv[1:], file=log)
if "/img.sif" not in sys.argv:
    sys.exit(255)
os.environ["PATH"] = str(pathlib.Path(sys.argv[0]).parent / "inside") + ":/usr/bin:/bin"
command = sys.argv[sys.argv.index("/img.sif") + 1:]
os.execvp(command[0], command)
"""


@pytest.fixture
def container(program, settings, tmp_path):
    """A stand-in on PATH that runs its command with other programs on PATH, as a container does."""
    program("apptainer", CONTAINER, before="import os, sys")
    inside = tmp_path / "bin" / "inside"
    inside.mkdir()
    program("jupyterhub-singleuser", "serve()").rename(inside / "jupyterhub-singleuser")
    settings["containers"] = [["apptainer", "exec", "/img.sif"], ["singularity", "exec", "/img.sif"]]
    settings["files"] = {"inside.sh": source("inside.sh")}
    settings["image"] = "torch"


def entries(home):
    """How the container was entered: our folder is F."""
    lines = (home / "wrapped").read_text().splitlines()
    return [re.sub(r"/\S+/hpcspawner-[a-z0-9_]+", "F", line) for line in lines]


@pytest.mark.usefixtures("container")
def test_an_image_is_entered_once_to_look_and_to_serve(hub, launch, home):
    launch()
    hub.reported("listening")
    assert entries(home) == ["exec --bind=F /img.sif sh F/inside.sh 1 jupyterhub-singleuser 0 jupyterhub-singleuser"]


@pytest.mark.usefixtures("container")
def test_singularity_runs_the_image_where_there_is_no_apptainer(hub, launch, home, tmp_path):
    (tmp_path / "bin" / "apptainer").rename(tmp_path / "bin" / "singularity")
    launch()
    hub.reported("listening")
    assert len(entries(home)) == 1


@pytest.mark.usefixtures("container")
def test_a_python_of_the_set_up_does_not_mislead_the_image(hub, launch, settings, home, program, tmp_path):
    settings["hidden"] = ["PYTHONPATH"]
    body = "import json\njson.dump(sorted(os.environ), open('seen.json', 'w'))\nserve()"
    program("jupyterhub-singleuser", body).rename(tmp_path / "bin" / "inside" / "jupyterhub-singleuser")
    launch(PYTHONPATH="/modules/python", PYTHONSTARTUP="/home/it.py")
    hub.reported("listening")
    variables = json.loads((home / "seen.json").read_text())
    assert ("PYTHONPATH" in variables, "PYTHONSTARTUP" in variables) == (False, True)


FATAL = "FATAL:   While checking container encryption: could not open image /gone: no such file"


@pytest.mark.usefixtures("container")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"programs": ["jupyter-lab"]}, "jupyter-lab was not found in the environment", id="program"),
        pytest.param({"containers": [["nowhere", "/i"]]}, "nowhere was not found", id="container command"),
        pytest.param(
            {"containers": [["nowhere", "/i"], ["never", "/i"]]}, "nowhere or never was not found", id="two of them"
        ),
        pytest.param(
            {"containers": [["apptainer", "exec", "/gone"]]},
            "it ended with exit code 255. See the job's log",
            id="image",
        ),
    ],
)
def test_what_a_container_lacks_is_named(hub, launch, settings, change, message):
    settings.update(change)
    assert launch().ends() == 127
    end = hub.reported("ended")
    assert end["reason"] == "missing-program"
    assert message in end["message"]


def test_why_an_image_was_not_entered_is_said_in_the_container_s_words(hub, launch, program, settings, container):
    program("apptainer", f"print({FATAL!r}, file=sys.stderr); sys.exit(255)", before="import sys")
    assert launch().ends() == 127
    assert hub.reported("ended")["message"] == (
        f"apptainer could not enter the environment 'Science stack 2024, image torch' on {os.uname().nodename}: "
        "While checking container encryption: could not open image /gone: no such file"
    )


def test_an_image_that_takes_too_long_is_not_taken_for_a_server(hub, launch, program, settings, container):
    program("apptainer", "import time; time.sleep(60)", before="")
    settings["limit_s"] = 1
    launch().ends()
    assert "apptainer took more than 1 s to enter" in hub.reported("ended")["message"]


@pytest.mark.usefixtures("container")
def test_a_signal_while_the_container_is_looked_into_ends_the_job(hub, program, launch, home):
    program("apptainer", 'import time; open("began", "w"); time.sleep(60)', before="")
    run = launch()
    eventually((home / "began").exists)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends(timeout_s=15) == 128 + 15
    assert hub.reported("ended")["reason"] == "signalled"


LISTENS_ON_A_SOCKET = """
import json, os, pathlib, socket, time
folder = os.environ["JUPYTER_CONFIG_PATH"].split(":")[0]
told = json.loads(pathlib.Path(folder, "settings.json").read_text())
json.dump([told, sorted(os.environ), oct(os.stat(folder).st_mode)], open("seen.json", "w"))
listening = socket.socket(socket.AF_UNIX)
listening.bind(told["socket"])
listening.listen()
time.sleep(60)
"""


@pytest.fixture
def alone(program, settings, tmp_path, monkeypatch):
    """Programs without jupyterhub, and a stand-in for the proxy's Python, which does what is asked."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    (tmp_path / "bin").mkdir(exist_ok=True)
    program("jupyter-lab", LISTENS_ON_A_SOCKET, before="")
    settings.update(programs=["jupyterhub-singleuser", "jupyter-lab"], alone=["jupyter-lab"])
    settings["proxy"] = str(tmp_path / "proxy")
    settings["files"] = {"inside.sh": source("inside.sh"), "front.py": "", "alone/jupyter_server_config.py": ""}
    (tmp_path / "proxy" / "bin").mkdir(parents=True)

    def front(does):
        program("front", does).rename(tmp_path / "proxy" / "bin" / "python3")

    return front


def test_a_server_without_a_hub_is_reached_by_the_proxy_alone(hub, launch, alone, home):
    alone("serve()")
    run = launch()
    with socket.create_connection(("127.0.0.1", hub.reported("listening")["port"]), 10) as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b" 200 " in connection.recv(100)
    told, variables, mode = json.loads((home / "seen.json").read_text())
    assert mode.endswith("700")
    assert not [name for name in variables if "JUPYTERHUB" in name]
    assert told["token"] not in run.text
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 128 + 15
    assert not Path(told["socket"]).parent.exists()


@pytest.mark.parametrize("does", ["sys.exit(3)", "threading.Timer(2, os._exit, [3]).start(); serve()"])
def test_a_proxy_that_ends_takes_the_server_with_it_and_is_named(hub, launch, alone, home, does):
    alone(f"import os, sys, threading\n{does}")
    assert launch().ends() == 1
    assert "The proxy in front of the server ended with exit code 3" in hub.reported("ended")["message"]
    told, *_ = json.loads((home / "seen.json").read_text())
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="No such file"):
        probe.connect(told["socket"])


def test_a_proxy_that_is_not_there_is_named(hub, launch, alone):
    assert launch().ends() == 127
    assert "proxy/bin/python3 could not be started" in hub.reported("ended")["message"]


def test_neither_of_two_commands_is_there(hub, launch, alone, tmp_path):
    (tmp_path / "bin" / "jupyter-lab").unlink()
    assert launch().ends() == 127
    assert "jupyterhub-singleuser or jupyter-lab was not found in" in hub.reported("ended")["message"]


def test_a_failed_set_up_line_is_reported_and_nothing_started(hub, program, launch, home):
    program("jupyterhub-singleuser", 'open("started", "w")')
    assert launch(HPC_SETUP_FAILED="module load anaconda/3").ends() == 1
    end = hub.reported("ended")
    assert end["reason"] == "setup-failed"
    assert end["message"].endswith("failed at: module load anaconda/3")
    assert not (home / "started").exists()


def test_a_directory_that_cannot_be_entered_is_reported(hub, program, launch, settings):
    program("jupyterhub-singleuser", "")
    settings["directory"] += "/gone"
    assert launch().ends() == 1
    end = hub.reported("ended")
    assert end["reason"] == "bad-directory"
    assert "No such file or directory" in end["message"]
    assert os.uname().nodename in end["message"]


def test_a_server_that_exits_at_once_is_reported_with_its_last_words_less_the_secrets(hub, program, launch):
    hub.environment["JUPYTERHUB_OAUTH_SECRET"] = "hush" * 4
    program(
        "jupyterhub-singleuser",
        f"""
for number in range(40):
    print("line", number)
sys.stdout.flush()
sys.stdout.buffer.write(b"caf\\xc3\\xa9 \\xff \\x1b[31mred\\x1b[0m a\\x00b\\n")
print(os.environ["JUPYTERHUB_API_TOKEN"], os.environ["JUPYTERHUB_OAUTH_SECRET"], {TICKET!r}, {REPORT_KEY!r})
print({TOKEN[:10]!r} + "\\x07" + {TOKEN[10:]!r})
print("x" * 290 + {TOKEN!r})
print("y" * 1000)
sys.exit(3)
""",
    )
    assert launch().ends() == 3
    end = hub.reported("ended")
    assert (end["reason"], end["exit_code"]) == ("server-exited", 3)
    assert len(end["log"]) == 20
    words = "\n".join(end["log"])
    assert "café \N{REPLACEMENT CHARACTER} red ab" in words
    assert "*** *** *** ***" in words
    assert max(map(len, end["log"])) == 300
    for secret in (TOKEN, "hush" * 4, TICKET, REPORT_KEY, TOKEN[:9]):
        assert secret not in words + end["message"]
    assert end["log"][-1] == "hpcspawner: server ended with exit code 3"


def test_a_server_killed_by_a_signal_is_reported_with_it(hub, program, launch):
    program("jupyterhub-singleuser", "os.kill(os.getpid(), 9)")
    assert launch().ends() == 128 + 9
    end = hub.reported("ended")
    assert (end["reason"], end["exit_code"], end["signal"]) == ("server-exited", None, 9)
    assert "more memory" in end["message"]


def test_the_port_is_taken_from_the_range(hub, program, launch, settings):
    program("jupyterhub-singleuser", "serve()")
    with holding_a_port() as low:
        settings["ports"] = [low, low + 2]
        launch()
        assert hub.reported("listening")["port"] in (low + 1, low + 2)


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "::"])
def test_the_range_holds_on_every_address(hub, program, launch, settings, host):
    program("jupyterhub-singleuser", SERVES_ANY_ADDRESS)
    hub.environment["JUPYTERHUB_SERVICE_URL"] = f"http://{f'[{host}]' if ':' in host else host}:0/user/alice/"
    with holding_a_port(host) as low:
        settings["ports"] = [low, low + 2]
        launch()
        port = hub.reported("listening")["port"]
        assert port in (low + 1, low + 2)
    socket.create_connection(("::1" if host == "::" else host, port), 5).close()


def test_a_range_without_a_free_port_is_reported(hub, program, launch, settings):
    program("jupyterhub-singleuser", "serve()")
    with holding_a_port() as low:
        settings["ports"] = [low, low]
        assert launch().ends() == 1
    end = hub.reported("ended")
    assert end["reason"] == "no-port"
    assert f"between {low} and {low}" in end["message"]


@pytest.mark.usefixtures("another")
@pytest.mark.parametrize("then", ["sys.exit(1)", "time.sleep(60)"], ids=["server gives up", "server stays"])
def test_a_port_that_another_took_meanwhile_is_given_up_for_a_new_one(hub, program, launch, then):
    program("jupyterhub-singleuser", f"{LETS_ANOTHER_LISTEN}\nif not earlier:\n    another()\n    {then}\nserve()")
    run = launch()
    port = hub.reported("listening")["port"]
    assert f"server listens on port {port}" in run.text
    assert run.text.count("another process took port") == 1
    assert f"port {port} was taken" not in run.text


@pytest.mark.usefixtures("another")
def test_after_four_lost_ports_the_job_ends(hub, program, launch):
    program("jupyterhub-singleuser", f"{LETS_ANOTHER_LISTEN}\nanother()")
    assert launch().ends() == 1
    assert hub.reported("ended")["reason"] == "no-port"


def test_only_a_listener_of_the_servers_family_counts_as_its_own():
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        port = mine.getsockname()[1]
        sleeper = subprocess.Popen(["sleep", "30"], start_new_session=True)
        assert launcher.owner(port, sleeper.pid) == "nobody"
        mine.listen()
        assert launcher.owner(port, sleeper.pid) == "other"
        assert launcher.owner(port, os.getsid(0)) == "server"
        sleeper.kill()
        sleeper.wait()


def test_a_port_shared_with_another_program_is_not_the_servers(tmp_path):
    script = tmp_path / "shares.py"
    script.write_text(
        "import socket, sys, time\n"
        "shared = socket.create_server(('127.0.0.2', int(sys.argv[1])))\n"
        "print(flush=True)\n"
        "time.sleep(30)\n"
    )
    with holding_a_port() as port:
        argv = [sys.executable, script, str(port)]
        other = subprocess.Popen(argv, start_new_session=True, stdout=subprocess.PIPE)
        other.stdout.readline()
        # It descends from this process, so it is kin in this session and a stranger in its own.
        assert launcher.owner(port, os.getsid(0)) == "server"
        assert launcher.owner(port, other.pid) == "other"
        other.kill()
        other.communicate()


class Looks:
    """A job whose server has just been started, as far as it waits for the port; its looks at it are counted."""

    def __init__(self, port, pause=lambda: None):
        self.port, self.looks = port, 0
        self.server, self.front = types.SimpleNamespace(code=None, pid=os.getsid(0)), None
        self.signals = types.SimpleNamespace(pause=lambda _: self._pause())
        self._then = pause

    def _pause(self):
        self.looks += 1
        assert self.looks < 1000, "it looks for ever"
        self._then()

    def _ending(self):
        return False

    def _ended(self):
        return launcher.Job._ended(self)

    def has_port(self):
        return launcher.Job._has_port(self, "", time.monotonic() + 60)


@pytest.fixture
def proofs(monkeypatch):
    """How often the owner of a port is looked up in /proc."""
    asked, owner = [], launcher.owner
    monkeypatch.setattr(launcher, "owner", lambda *whose: asked.append(whose) or owner(*whose))
    return asked


def test_who_listens_is_looked_up_once_when_somebody_answers(proofs, monkeypatch):
    monkeypatch.setattr(launcher, "LOOK_ANYWAY_S", 3600)
    with socket.socket() as server:
        server.bind(("", 0))
        job = Looks(server.getsockname()[1])
        job._then = lambda: job.looks == 20 and server.listen()
        assert job.has_port()
    assert (job.looks, len(proofs)) == (20, 1)


def test_a_node_that_lets_nobody_connect_is_looked_at_all_the_same(proofs, monkeypatch):
    monkeypatch.setattr(launcher, "LOOK_ANYWAY_S", 0)
    monkeypatch.setattr(launcher, "connects", lambda *_: False)
    with holding_a_port() as port:
        assert Looks(port).has_port()
    assert len(proofs) == 1


def test_a_line_of_the_log_that_is_cut_is_left_out(tmp_path):
    log = tmp_path / "job.log"
    log.write_text("secret" * launcher.LOG_BYTES + "\nwhole\n")
    assert launcher.last_lines(log) == ["whole"]
    assert launcher.last_lines(tmp_path / "gone.log") == []


def test_a_listener_of_another_user_is_never_the_servers(monkeypatch):
    with holding_a_port() as port:
        assert launcher.owner(port, os.getsid(0)) == "server"
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        assert launcher.owner(port, os.getsid(0)) == "other"


def test_a_server_that_never_listens_is_stopped_and_reported(hub, program, launch, settings, home):
    settings["limit_s"] = 1
    program("jupyterhub-singleuser", 'import time; open("pid", "w").write(str(os.getpid())); time.sleep(60)')
    assert launch().ends() == 1
    end = hub.reported("ended")
    assert end["reason"] == "never-listened"
    assert "within 1 s" in end["message"]
    assert not alive((home / "pid").read_text())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_is_passed_on_to_the_server_as_sigterm_and_its_end_reported(hub, program, launch, number):
    program(
        "jupyterhub-singleuser",
        'import signal; signal.signal(15, lambda *_: (print("bye", flush=True), os._exit(5))); serve()',
    )
    run = launch()
    hub.reported("listening")
    run.process.send_signal(number)
    assert run.ends() == 5
    end = hub.reported("ended")
    assert (end["reason"], end["exit_code"], end["signal"]) == ("signalled", 5, number)
    assert "bye" in end["log"]


def test_a_warning_is_logged_and_told_once_and_ends_nothing(hub, program, launch):
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    hub.reported("listening")
    for _ in range(3):
        run.process.send_signal(signal.SIGUSR1)
        time.sleep(0.1)
    assert hub.reported("warned") == {"report_key": REPORT_KEY, "event": "warned"}
    assert run.text.count("hpcspawner: the scheduler warns: the wall time ends soon") == 3
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 128 + 15
    assert [body["event"] for body in hub.reports] == ["listening", "warned", "ended"]


def test_a_warning_while_the_server_starts_is_told_when_it_listens(hub, program, launch, home):
    program("jupyterhub-singleuser", 'import time; open("began", "w"); time.sleep(1); serve()')
    run = launch()
    eventually((home / "began").exists)
    run.process.send_signal(signal.SIGUSR1)
    hub.reported("warned")
    assert [body["event"] for body in hub.reports] == ["listening", "warned"]


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_warning_that_the_hub_refuses_harms_nothing(hub, program, launch, status):
    hub.answers["/report"] = [(200, {}, {}), (status, {}, {})]
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    hub.reported("listening")
    run.process.send_signal(signal.SIGUSR1)
    eventually(lambda: "could not send the warning to the Hub" in run.text)
    time.sleep(0.5)
    assert run.process.poll() is None
    assert len(hub.reports) == 2


def test_a_warning_is_tried_again_while_the_hub_is_busy(hub, program, launch):
    hub.answers["/report"] = [(200, {}, {}), (503, {}, {}), (None, {}, {}), (502, {}, {})]
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    hub.reported("listening")
    run.process.send_signal(signal.SIGUSR1)
    eventually(lambda: len(hub.reports) == 5)
    assert {body["event"] for body in hub.reports[1:]} == {"warned"}


def test_a_warning_that_gets_no_answer_does_not_hold_up_the_end(hub, program, launch):
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    hub.reported("listening")
    port = hub.server_port
    hub.close()
    with socket.create_server(("127.0.0.1", port)):  # takes connections, and never answers
        run.process.send_signal(signal.SIGUSR1)
        eventually(lambda: "the scheduler warns" in run.text)
        run.process.send_signal(signal.SIGTERM)
        eventually(lambda: "server was ended by SIGTERM" in run.text, timeout_s=15)
        assert run.ends() == 128 + 15


def test_a_signal_before_the_environment_came_ends_the_job_promptly(hub, launch):
    hub.answers["/ticket"] = [(503, {"Retry-After": "30"}, {})]
    run = launch()
    eventually(lambda: hub.calls)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends(timeout_s=15) == 128 + 15


def test_a_signal_during_a_call_without_answer_ends_the_job_promptly(launch, settings, listener):
    settings["callback"] = f"https://localhost:{listener.port}/hub/api/hpcspawner"
    run = launch()
    eventually(lambda: listener.connections)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends(timeout_s=15) == 128 + 15


def test_a_signal_while_the_server_starts_ends_it_and_is_reported(hub, program, launch, home):
    program("jupyterhub-singleuser", 'import time; open("began", "w"); time.sleep(60)')
    run = launch()
    eventually((home / "began").exists)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 128 + 15
    assert hub.reported("ended")["reason"] == "signalled"


def test_what_the_server_started_ends_with_it(hub, program, launch, home):
    program(
        "jupyterhub-singleuser",
        """
import subprocess
same = subprocess.Popen(["sleep", "60"])
kernel = subprocess.Popen(["sleep", "60"], start_new_session=True)
stubborn = subprocess.Popen(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], start_new_session=True)
open("pids", "w").write(f"{same.pid} {kernel.pid} {stubborn.pid}")
serve()
""",
    )
    run = launch()
    hub.reported("listening")
    pids = (home / "pids").read_text().split()
    assert all(map(alive, pids))
    run.process.send_signal(signal.SIGTERM)
    run.ends()
    assert not any(map(alive, pids))


def test_a_launcher_that_is_killed_takes_the_server_with_it(hub, program, launch, home):
    program("jupyterhub-singleuser", 'open("pid", "w").write(str(os.getpid())); serve()')
    run = launch()
    hub.reported("listening")
    run.process.kill()
    eventually(lambda: not alive((home / "pid").read_text()))


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refused_report_stops_the_server(hub, program, launch, home, status):
    hub.answers["/report"] = [(status, {}, {})]
    program("jupyterhub-singleuser", 'open("pid", "w").write(str(os.getpid())); serve()')
    run = launch()
    assert run.ends() == 3
    assert not alive((home / "pid").read_text())
    assert f"The Hub refused this job's report (status {status})" in run.text


def test_a_server_that_runs_is_not_lost_because_the_hub_is_away(hub_context, hub, program, launch, settings):
    settings["limit_s"] = 1
    hub.answers["/report"] = [(503, {}, {})] * 2
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    eventually(lambda: len(hub.reports) == 2)
    port = hub.server_port
    hub.close()
    time.sleep(3)
    assert run.process.poll() is None
    late = Hub(hub_context, port)
    assert late.reported("listening", timeout_s=60)["port"]
    late.close()


def test_a_signal_while_the_hub_is_away_is_passed_on_at_once(hub, program, launch):
    hub.answers["/report"] = [(503, {"Retry-After": "60"}, {})] * 2
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    eventually(lambda: hub.reports)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends(timeout_s=15) == 128 + 15


# --- a server that shows its job

STATUS = {"walltime_s": 3600, "partition": "debug", "reminders_s": [300]}
# Stands in for the extension of a Jupyter server, and asks for a renewal as a user would.
ASKS = """
import json, time
folder = os.environ["JUPYTER_PATH"].split(":")[0]
with open(folder + "/asks", "w") as pipe:
    pipe.write("drop table\\n")
while os.path.exists(folder) and not json.load(open(folder + "/job.json"))["asked"]:
    with contextlib.suppress(OSError):
        pipe = os.open(folder + "/asks", os.O_WRONLY | os.O_NONBLOCK)
        os.write(pipe, b"renew\\n")
        os.close(pipe)
    time.sleep(0.05)
found = dict(facts=json.load(open(folder + "/job.json")), folder=folder)
found.update((name, os.environ[name]) for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH"))
open("found.new", "w").write(json.dumps(found))
os.rename("found.new", "found.json")
"""


def test_a_server_that_shows_its_job_passes_on_what_its_user_asks_for(hub, program, launch, settings, home):
    keeper = source("status_keeper.py")
    settings.update(status=STATUS, files={"status_keeper.py": keeper, "status/labextensions/x/static/y": ""})
    asks = f"import contextlib, threading\ndef asks():\n{textwrap.indent(ASKS, '    ')}"
    program("jupyterhub-singleuser", f"{asks}\nthreading.Thread(target=asks).start()\nserve()")
    run = launch(JUPYTER_PATH="/own/share", JUPYTER_CONFIG_PATH="/own/config", SLURM_JOB_END_TIME="1900000000")
    assert hub.reported("renew") == {"report_key": REPORT_KEY, "event": "renew"}
    while not (home / "found.json").exists():
        time.sleep(0.05)
    found = json.loads((home / "found.json").read_text())
    folder, facts = Path(found["folder"]), found["facts"]
    assert found["JUPYTER_PATH"] == f"{folder}:/own/share"
    assert found["JUPYTER_CONFIG_PATH"] == f"{folder}:/own/config"
    assert (facts["job"], facts["partition"], facts["reminders_s"]) == ("4711.server", "debug", [300])
    assert facts["ends_at"] == 1_900_000_000
    assert facts["asked"]["what"] == "renew"
    assert REPORT_KEY not in json.dumps(found)
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 128 + 15
    assert not folder.exists()


@pytest.mark.parametrize("keeper", ["raise OSError('no room')", "class Keeper: pass", "def"])
def test_a_server_that_cannot_show_its_job_starts_all_the_same(hub, program, launch, settings, keeper):
    settings.update(status=STATUS, files={"status_keeper.py": keeper})
    program("jupyterhub-singleuser", "serve()")
    run = launch()
    hub.reported("listening")
    assert "the server will not show its job" in run.text


# --- a server that ends for being idle

# Stands in for a Jupyter server with an extension: loads what JUPYTER_CONFIG_PATH leads to.
LOADS_ITS_EXTENSION = """
import json, pathlib, types
folder = pathlib.Path(os.environ["JUPYTER_CONFIG_PATH"].split(":")[0])
c = types.SimpleNamespace(HPCSpawnerIdle=types.SimpleNamespace())
exec((folder / f"{KIND}_config.py").read_text())
enabled = json.loads((folder / f"{KIND}_config.d" / "hpcspawner.json").read_text())
import hpcspawner_idle
found = dict(limit_s=c.HPCSpawnerIdle.limit_s, said=hpcspawner_idle.SAID, path=os.environ["JUPYTER_CONFIG_PATH"])
open("found.json", "w").write(json.dumps(dict(found, enabled=enabled, folder=str(folder))))
"""


ENABLED = {
    "jupyter_server": {"ServerApp": {"jpserver_extensions": {"hpcspawner_idle": True}}},
    "jupyter_notebook": {"NotebookApp": {"nbserver_extensions": {"hpcspawner_idle": True}}},
}


@pytest.mark.parametrize("kind", ENABLED)
def test_a_server_with_an_idle_limit_gets_its_extension(hub, program, launch, settings, home, kind):
    settings.update(idle_limit_s=5400, extensions=["hpcspawner_idle"], files={"hpcspawner_idle.py": "SAID = 'é'"})
    program("jupyterhub-singleuser", f"KIND = {kind!r}\n{LOADS_ITS_EXTENSION}\nserve()")
    run = launch(JUPYTER_CONFIG_PATH="/site/config")
    hub.reported("listening")
    found = json.loads((home / "found.json").read_text())
    folder = Path(found["folder"])
    assert (found["limit_s"], found["said"], found["enabled"]) == (5400, "é", ENABLED[kind])
    assert found["path"] == f"{folder}:/site/config"
    assert folder.stat().st_mode & 0o777 == 0o700
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 128 + 15
    assert hub.reported("ended")["reason"] == "signalled"
    assert not folder.exists()


LOOKS_FIRST = """
import json, subprocess, sys
before = os.environ.get("PYTHONPATH"), sys.path[1]
import first
folder = os.environ["JUPYTER_CONFIG_PATH"].split(":")[0]
exec(open(folder + "/jupyter_server_config.py").read())
found = dict(before=before, said=first.SAID, after=os.environ.get("PYTHONPATH"), folder=folder)
open("found.json", "w").write(json.dumps(found))
serve()
"""


@pytest.fixture
def looks_first(program, settings):
    """A server with an extension of ours that imports a module of ours before all others."""
    settings.update(modules="quick", extensions=["ours"])
    settings["files"] = {"ours.py": "", "quick/first.py": "SAID = 1"}
    server = program("jupyterhub-singleuser", LOOKS_FIRST)
    server.write_text(server.read_text().replace(" -IS", "", 1))  # which would heed no PYTHONPATH


@pytest.mark.usefixtures("looks_first")
@pytest.mark.parametrize(
    ("variables", "hidden", "left"),
    [
        ({}, [], None),
        ({"HPC_SET_PYTHONPATH": "/site/one:/two"}, [], "/site/one:/two"),
        ({"HPC_SET_PYTHONPATH": "/site/one"}, ["PYTHONPATH"], None),
    ],
    ids=["alone", "the set-up's stays", "not the node's in an image"],
)
def test_a_server_looks_first_for_our_modules(hub, launch, settings, variables, hidden, left):
    settings["hidden"] = hidden
    launch(**variables)
    hub.reported("listening")
    found = json.loads((Path(settings["directory"]) / "found.json").read_text())
    ours = f"{found['folder']}/quick"
    assert found["before"] == [f"{ours}:{left}" if left else ours, ours]
    assert (found["said"], found["after"]) == (1, left), "what it starts does not look there"


def test_a_server_that_ended_for_being_idle_says_so(hub, program, launch, settings):
    settings.update(idle_limit_s=5400, extensions=["hpcspawner_idle"], files={"hpcspawner_idle.py": ""})
    mark = 'open(os.environ["JUPYTER_CONFIG_PATH"] + "/idle-end", "w"); threading.Timer(0.5, os._exit, [0]).start()'
    program("jupyterhub-singleuser", f"import threading; {mark}; serve()")
    assert launch().ends() == 0
    end = hub.reported("ended")
    assert (end["reason"], end["exit_code"], end["signal"]) == ("idle", 0, None)
    assert end["message"] == "The server was idle for 1h 30m and shut down."


@pytest.mark.parametrize(
    ("line", "code", "reason"),
    [
        pytest.param("No kernels for 3700 seconds; shutting down.", 0, "idle", id="jupyter_server 2"),
        pytest.param("No kernels or terminals for 3700 seconds; shutting down.", 0, "idle", id="notebook 6"),
        pytest.param("No kernels for 3700 seconds; shutting down.", 1, "server-exited", id="another exit code"),
        pytest.param("Will shut down after 3700 seconds with no kernels.", 0, "server-exited", id="no end yet"),
    ],
)
def test_jupyters_own_end_for_being_idle_is_recognized(hub, program, launch, line, code, reason):
    program("jupyterhub-singleuser", f'print("[I ServerApp]", {line!r}); sys.exit({code})')
    assert launch().ends() == code
    end = hub.reported("ended")
    assert end["reason"] == reason
    assert ("idle for 1h 1m 40s" in end["message"]) is (reason == "idle")


def test_an_idle_end_of_the_run_before_is_not_this_ones(hub, program, launch, tmp_path):
    """A job that the scheduler runs again appends to its log."""
    (tmp_path / "job.log").write_text("No kernels for 3700 seconds; shutting down.\n")
    program("jupyterhub-singleuser", "sys.exit(0)")
    assert launch().ends() == 0
    end = hub.reported("ended")
    assert end["reason"] == "server-exited"
    assert not any("No kernels" in line for line in end["log"])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (3600, "1h"), (5400, "1h 30m"), (90061, "1d 1h 1m 1s")]
)
def test_a_length_of_time_is_told_as_people_write_it(seconds, text):
    assert launcher.span(seconds) == text


def test_nothing_secret_stands_where_others_can_read(hub, program, launch, home):
    program(
        "jupyterhub-singleuser",
        """
print("my descriptors", sorted(os.listdir("/proc/self/fd")), flush=True)
open("environ", "wb").write(open("/proc/self/environ", "rb").read())
open("cmdline", "wb").write(open("/proc/self/cmdline", "rb").read())
serve()
""",
    )
    run = launch()
    hub.reported("listening")
    process = Path(f"/proc/{run.process.pid}")
    places = [home / "environ", home / "cmdline", process / "environ", process / "cmdline", run.log]
    everything = b"".join(place.read_bytes() for place in places)
    assert TICKET.encode() not in everything
    assert REPORT_KEY.encode() not in everything
    assert everything.count(TOKEN.encode()) == 1, "the token is in the server's environment alone"
    # The fourth is the folder that is just being listed.
    assert "my descriptors ['0', '1', '2', '3']" in run.text


def test_the_end_is_reported_three_times_at_most(hub, program, launch):
    program("jupyterhub-singleuser", "")
    hub.answers["/report"] = [(503, {}, {})] * 10
    assert launch().ends() == 0
    assert len(hub.reports) == 3


def test_the_job_ends_soon_when_the_hub_is_away(hub, program, launch, settings):
    program("jupyterhub-singleuser", ends_on_word(0))
    run = launch()
    hub.reported("listening")
    hub.close()
    Path(settings["directory"], "end").touch()
    eventually(lambda: "server ended" in run.text)
    began = time.monotonic()
    assert run.ends() == 0
    assert time.monotonic() - began < 20
    assert "could not report the end to the Hub" in run.text


def test_the_job_ends_soon_when_the_hub_hangs(hub, program, launch, settings):
    program("jupyterhub-singleuser", ends_on_word(0))
    run = launch()
    hub.reported("listening")
    port = hub.server_port
    hub.close()
    hangs = socket.create_server(("127.0.0.1", port))
    Path(settings["directory"], "end").touch()
    eventually(lambda: "server ended" in run.text)
    began = time.monotonic()
    assert run.ends() == 0
    assert time.monotonic() - began < 20
    hangs.close()


def test_accents_pass_under_a_locale_without_them(hub, program, launch, settings, tmp_path):
    folder = tmp_path / "données"
    folder.mkdir()
    settings.update(directory=str(folder), environment="Équipe", variables={"NAME": "Zoë"})
    settings["command"].append("--name=Zoë")
    program("jupyterhub-singleuser", 'open("name", "wb").write(os.environb[b"NAME"] + os.fsencode(sys.argv[1]))')
    python = oldest_python() or PYTHON  # since 3.7 Python helps itself
    assert launch(python, LC_ALL="C").ends() == 0
    assert (folder / "name").read_bytes() == "Zoë--name=Zoë".encode()
    settings["programs"] = ["nowhere"]
    run = launch(python, LC_ALL="C")
    assert run.ends() == 127
    assert "nowhere was not found in the environment 'Équipe'" in run.text
    assert "'Équipe'" in hub.reports[-1]["message"]


# --- TLS to the node

SERVES_TLS = """
import json, ssl
def serve_tls():
    names = ("KEYFILE", "CERTFILE", "CLIENT_CA")
    key, certificate, authorities = (os.environ["JUPYTERHUB_SSL_" + name] for name in names)
    modes = {name: os.stat(os.environ["JUPYTERHUB_SSL_" + name]).st_mode & 0o777 for name in names}
    folder = os.path.dirname(key)
    modes["folder"] = os.stat(folder).st_mode & 0o777
    with open("seen.json", "w") as seen:
        json.dump(dict(folder=folder, modes=modes, url=url.geturl(), files=sorted(os.listdir(folder))), seen)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authorities)
    context.load_cert_chain(certificate, key)
    server = http.server.HTTPServer((url.hostname, url.port), http.server.SimpleHTTPRequestHandler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
"""


@pytest.fixture
def tls(hub, authority, settings, program):
    """The Hub and the job's settings with TLS to the node, and a server that speaks it."""
    hub.authority = authority
    hub.environment["JUPYTERHUB_SERVICE_URL"] = "https://127.0.0.1:0/user/alice/"
    settings["tls"] = True
    program("jupyterhub-singleuser", f"{SERVES_TLS}\nserve_tls()")


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory):
    """A Python without cryptography."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return str(folder / "bin" / "python")


@pytest.fixture
def temporary(tmp_path):
    """The node's own folder for temporary files."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    return folder


@pytest.fixture
def launch_bare(launch, bare_python, tmp_path, temporary):
    """Starts the launcher where there is neither openssl nor cryptography, unless a test puts it there."""
    return partial(launch, bare_python, PATH=str(tmp_path / "bin"), TMPDIR=str(temporary))


@pytest.fixture
def stand_in(tmp_path):
    """Writes a shell program; one in `bin` is on the job's PATH. Real programs are named by their paths in it."""

    def write(name, body):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return path

    return write


OPENSSL = shutil.which("openssl") or "openssl"
HANGS = "trap '' TERM\nwhile :; do /bin/sleep 1; done"


def page_of(port, authority):
    """The status of the server's front page, fetched as the proxy does: the job's name is verified."""
    context = ssl.create_default_context(cadata=authority.pem)
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname=NODE_NAME) as safe,
    ):
        safe.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return safe.recv(100).split()[1]


@pytest.mark.usefixtures("tls")
def test_a_server_with_tls_has_a_key_of_the_node_and_a_certificate_of_the_hub(hub, launch, authority, home):
    run = launch()
    port = hub.reported("listening")["port"]
    assert page_of(port, authority) == b"200"
    (call,) = hub.tickets
    assert sorted(call) == ["csr", "job", "ticket"]
    request = x509.load_pem_x509_csr(call["csr"].encode())
    assert (request.public_key().curve.name, request.subject.rdns) == ("secp256r1", [])
    seen = json.loads((home / "seen.json").read_text())
    assert seen["modes"] == {"KEYFILE": 0o600, "CERTFILE": 0o600, "CLIENT_CA": 0o600, "folder": 0o700}
    assert seen["url"] == f"https://127.0.0.1:{port}/user/alice/"
    # The folder goes before the Hub is told: a scheduler that has asked for the end may not wait for its answer.
    hub.answers["/report"] = [(503, {"Retry-After": "1"}, {})]
    run.process.send_signal(signal.SIGTERM)
    hub.reported("ended")
    assert not Path(seen["folder"]).exists()
    assert run.ends() == 128 + 15
    assert "no key from" not in run.text


@pytest.mark.usefixtures("tls")
def test_the_configuration_of_openssl_that_a_user_has_is_not_ours(hub, launch_bare, stand_in, tmp_path):
    stand_in("bin/openssl", f'exec {OPENSSL} "$@"')
    other = tmp_path / "openssl.cnf"
    other.write_text("[req]\ndistinguished_name = name\nreq_extensions = nowhere\n[name]\n")
    launch_bare(OPENSSL_CONF=str(other))
    hub.reported("listening")
    assert "csr" in hub.tickets[0]


PYTHON_WITH_CRYPTOGRAPHY = f'echo used >>"$TMPDIR/used"\nexec {sys.executable} "$@"'


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize(
    "python",
    [
        pytest.param("bin/python3", id="on PATH"),
        pytest.param("bin/python", id="on PATH, by its other name"),
        pytest.param("environment/python3", id="beside the server's command"),
    ],
)
def test_without_openssl_cryptography_in_the_environment_makes_the_key(
    hub, launch_bare, stand_in, settings, tmp_path, python
):
    stand_in(python, PYTHON_WITH_CRYPTOGRAPHY)
    server = (tmp_path / python).with_name("server")
    server.symlink_to(tmp_path / "bin" / "jupyterhub-singleuser")
    settings["command"] = [str(server)]
    run = launch_bare()
    hub.reported("listening")
    assert (tmp_path / "tmp" / "used").read_text() == "used\n"
    assert "no key from" not in run.text
    request = x509.load_pem_x509_csr(hub.tickets[0]["csr"].encode())
    assert (request.public_key().curve.name, request.subject.rdns) == ("secp256r1", [])


@pytest.mark.usefixtures("tls")
def test_without_both_the_launchers_own_python_makes_the_key(hub, launch, tmp_path):
    launch(sys.executable, PATH=str(tmp_path / "bin"))
    hub.reported("listening")
    assert "csr" in hub.tickets[0]


@pytest.mark.usefixtures("tls", "container")
def test_an_image_makes_the_key_and_sees_it(hub, program, launch_bare, stand_in, tmp_path, home):
    inside = tmp_path / "bin" / "inside"
    program("jupyterhub-singleuser", f"{SERVES_TLS}\nserve_tls()").rename(inside / "jupyterhub-singleuser")
    stand_in("bin/inside/python3", PYTHON_WITH_CRYPTOGRAPHY)
    launch_bare()
    assert page_of(hub.reported("listening")["port"], hub.authority) == b"200"
    folder = json.loads((home / "seen.json").read_text())["folder"]
    # The key is made before the server's directory is entered.
    lines = "".join((place / "wrapped").read_text() for place in (tmp_path, home)).splitlines()
    assert [line for line in lines if line.startswith("exec ")] == [
        f"exec --bind={folder} /img.sif python3 -I -c from cryptography import x509",
        f"exec --bind={folder} /img.sif sh {folder}/inside.sh 1 jupyterhub-singleuser 0 jupyterhub-singleuser",
    ]


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize(
    ("openssl", "says"),
    [
        pytest.param(None, "No module named 'cryptography'", id="missing"),
        pytest.param("echo cannot load libcrypto >&2; exit 127", "code 127. cannot load libcrypto", id="broken"),
        pytest.param("echo nothing of use", "no key from openssl: it ended with exit code 0", id="another program"),
    ],
)
def test_a_node_that_can_make_no_key_says_what_to_do(hub, launch_bare, stand_in, temporary, openssl, says):
    if openssl:
        stand_in("bin/openssl", openssl)
    run = launch_bare()
    assert run.ends() == 1
    (call,) = hub.tickets
    assert sorted(call) == ["job", "run", "ticket"]
    assert len(call["run"]) >= 20
    (end,) = hub.reports
    assert (end["report_key"], end["event"], end["reason"]) == (REPORT_KEY, "ended", "no-key")
    for word in ("openssl", "cryptography", os.uname().nodename, "'Science stack 2024'"):
        assert word in end["message"]
    assert says in run.text
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("openssl", [False, True], ids=["no key can be made", "a key could be made"])
def test_a_set_up_that_failed_comes_first_and_needs_no_key(hub, launch_bare, stand_in, openssl):
    if openssl:
        stand_in("bin/openssl", f'exec {OPENSSL} "$@"')
    assert launch_bare(HPC_SETUP_FAILED="module load anaconda/3").ends() == 1
    assert sorted(hub.tickets[0]) == ["job", "run", "ticket"]
    (end,) = hub.reports
    assert end["reason"] == "setup-failed"


def test_a_job_from_before_the_hub_had_tls_says_what_to_do(hub, launch):
    hub.environment = {}
    assert launch().ends() == 1
    (end,) = hub.reports
    assert end["reason"] == "no-key"
    assert "Start the server again" in end["message"]


@pytest.mark.usefixtures("tls")
def test_an_openssl_that_hangs_is_passed_over_in_time(hub, launch_bare, stand_in):
    stand_in("bin/openssl", HANGS)
    stand_in("bin/python3", PYTHON_WITH_CRYPTOGRAPHY)
    began = time.monotonic()
    run = launch_bare()
    hub.reported("listening", timeout_s=60)
    assert hub.times[0] - began < 30
    assert "no key from openssl: it gave no answer within" in run.text


@pytest.mark.usefixtures("tls")
def test_a_signal_while_the_key_is_made_ends_the_job(hub, launch_bare, stand_in, temporary, tmp_path):
    stand_in("bin/openssl", f'echo $$ >"{tmp_path}/pid"; {HANGS}')
    run = launch_bare()
    eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    run.process.send_signal(signal.SIGTERM)
    assert run.ends(timeout_s=60) == 128 + 15
    assert hub.calls == []
    assert not alive(int((tmp_path / "pid").read_text()))
    assert list(temporary.iterdir()) == []


@pytest.mark.usefixtures("tls")
def test_a_key_that_can_not_be_kept_is_reported(hub, launch_bare, stand_in):
    """Nor is its folder made again where somebody else may have been faster."""
    stand_in("bin/openssl", f'{OPENSSL} "$@"; /bin/rm -r "${{OPENSSL_CONF%/*}}"')
    assert launch_bare().ends() == 1
    (end,) = hub.reports
    assert end["reason"] == "no-key"
    assert "can't be kept" in end["message"]
    assert "No such file" in end["message"]


@pytest.mark.usefixtures("tls")
def test_a_lost_answer_is_asked_for_again_with_the_same_key(hub, launch, authority):
    hub.answers["/ticket"] = [(None, {}, {}), (503, {}, {}), (200, {}, b"<html>")]
    launch()
    assert page_of(hub.reported("listening")["port"], authority) == b"200"
    assert len(hub.tickets) == 4
    assert len({json.dumps(body) for body in hub.tickets}) == 1


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize("missing", ["certificate", "authorities"])
def test_an_answer_without_a_certificate_ends_the_job(hub, launch, authority, missing):
    answer = {"environment": {}, "report_key": REPORT_KEY, "certificate": authority.pem, "authorities": authority.pem}
    hub.answers["/ticket"] = [(200, {}, answer | {missing: None})]
    run = launch()
    assert run.ends() == 3
    assert "The Hub's answer has no certificate" in run.text


@pytest.mark.usefixtures("tls")
def test_the_key_is_told_nowhere_and_its_place_is_no_secret(hub, program, launch, home, tmp_path):
    """What makes the key is told nothing either."""
    program(
        "openssl",
        f"""
import json, os
told = [open("/proc/self/" + name).read() for name in ("environ", "cmdline")]
with open("{tmp_path}/told.json", "w") as file:
    json.dump(told + [sorted(os.listdir("/proc/self/fd"))], file)
os.execv({OPENSSL!r}, sys.argv)
""",
        before="import sys",
    )
    hub.environment["JUPYTERHUB_SSL_KEYFILE"] = "/a/path/of/the/hub"
    program(
        "jupyterhub-singleuser",
        """
key = os.environ["JUPYTERHUB_SSL_KEYFILE"]
for name in ("environ", "cmdline"):
    open(name, "wb").write(open(f"/proc/self/{name}", "rb").read() + open(f"/proc/{os.getppid()}/{name}", "rb").read())
open("key", "w").write(open(key).read())
print("the key is in", key, "not in /a/path/of/the/hub")
print(open(key).read())
sys.exit(3)
""",
    )
    run = launch()
    assert run.ends() == 3
    key = (home / "key").read_text().splitlines()[1:-1]
    assert len(key) == 3
    (end,) = hub.reports
    assert end["reason"] == "server-exited"
    everything = [(home / name).read_bytes().decode() for name in ("environ", "cmdline")]
    everything.append(json.dumps(hub.calls))
    for line in key:
        assert not any(line in text for text in everything)
    told = next(line for line in end["log"] if line.startswith("the key is in"))
    assert told.endswith("/key.pem not in /a/path/of/the/hub")
    variables, argv, files = json.loads((tmp_path / "told.json").read_text())
    assert TICKET not in variables + argv
    # Its own file, and the folder that is just being listed.
    assert files == ["0", "1", "2", "3", "4"]


@pytest.mark.usefixtures("tls")
@pytest.mark.parametrize(
    ("name", "there"),
    [
        pytest.param("job 7", True, id="the job's own"),
        pytest.param("a:b", False, id="one that a container program would read as two"),
        pytest.param("a,b", False, id="the same"),
    ],
)
def test_the_key_is_kept_in_the_jobs_own_folder(hub, launch, tmp_path, home, name, there):
    place = tmp_path / name
    place.mkdir()
    launch(TMPDIR=str(place))
    hub.reported("listening")
    seen = json.loads((home / "seen.json").read_text())
    assert Path(seen["folder"]).parent == (place if there else Path("/tmp"))
    assert seen["files"] == ["authorities.pem", "certificate.pem", "key.pem", "openssl.cnf"]


@pytest.mark.usefixtures("container")
def test_what_ends_an_idle_server_is_visible_in_the_image(hub, program, launch, settings, home, tmp_path):
    settings.update(idle_limit_s=5400, extensions=["hpcspawner_idle"])
    settings["files"]["hpcspawner_idle.py"] = "SAID = 'x'"
    body = f"KIND = 'jupyter_server'\n{LOADS_ITS_EXTENSION}\nserve()"
    program("jupyterhub-singleuser", body).rename(tmp_path / "bin" / "inside" / "jupyterhub-singleuser")
    launch()
    hub.reported("listening")
    folder = json.loads((home / "found.json").read_text())["folder"]
    assert f"--bind={folder}" in (home / "wrapped").read_text()


def test_the_settings_are_those_that_the_script_writes():
    assert launcher.Settings._fields == tuple(LauncherSettings.__dataclass_fields__)
    assert launcher.SETTINGS_VERSION == SETTINGS_VERSION


@pytest.mark.parametrize("change", [{"version": 0}, {"newer": 1}])
def test_settings_of_another_version_are_refused(hub, launch, settings, change):
    settings.update(change)
    run = launch()
    assert run.ends() == launcher.SETTINGS_CODE
    assert "settings can't be read" in run.text
    assert hub.calls == []


def test_without_settings_the_job_says_so():
    result = subprocess.run([PYTHON, "-I", launcher.__file__], capture_output=True, check=False, close_fds=True)
    assert result.returncode == launcher.SETTINGS_CODE
    assert b"settings can't be read" in result.stdout


def test_the_source_is_python_3_6():
    ast.parse(SOURCE, feature_version=(3, 6))


@pytest.mark.usefixtures("tls")
def test_it_runs_with_the_oldest_python_here(hub, launch, authority):
    run = launch(python=oldest_python() or PYTHON)
    assert page_of(hub.reported("listening")["port"], authority) == b"200"
    run.process.send_signal(signal.SIGTERM)
    assert run.ends() == 128 + 15
    assert hub.reported("ended")["reason"] == "signalled"


@pytest.mark.parametrize("spare", ["1", ""])
@pytest.mark.parametrize("taken", [True, False])
def test_a_log_in_the_nodes_tmp_goes_once_the_hub_has_its_end(hub, launch, spare, taken):
    """Nobody would find or remove it there; a log in its own folder stays."""
    if not taken:
        hub.answers["/report"] = [(403, {}, {})]
    run = launch(HPC_SETUP_FAILED="exit 3", HPC_LOG_SPARE=spare)
    run.ends()
    assert hub.reported("ended")["log"]
    assert run.log.exists() is not (bool(spare) and taken)


@pytest.mark.usefixtures("tls")
def test_what_a_set_up_makes_of_the_loader_is_not_for_openssl(hub, launch, tmp_path):
    """A module with libraries of its own."""
    (tmp_path / "libssl.so.3").write_text("broken")
    openssl = shutil.which("openssl")
    run = launch(HPC_OPENSSL=openssl, HPC_SET_LD_LIBRARY_PATH=str(tmp_path), PATH="/nowhere")
    run.ends()
    assert "csr" in hub.tickets[0]


def test_a_directory_that_cannot_be_written_to_is_reported_unless_the_site_lets_it_be(tmp_path, monkeypatch):
    # Root may write anywhere, so the system's answer is put in.
    monkeypatch.setattr(launcher.os, "access", lambda path, mode: False)
    why = launcher.why_not_usable(str(tmp_path), writable=True)
    assert why.startswith(f"You may not write to the directory {tmp_path} on ")
    assert why.endswith("Choose another directory.")
    assert launcher.why_not_usable(str(tmp_path), writable=False) == ""


def test_a_directory_that_is_a_file_or_missing_has_its_own_words(tmp_path):
    (tmp_path / "file").write_text("")
    assert "Not a directory" in launcher.why_not_usable(str(tmp_path / "file"), writable=True)
    assert "Create it, or choose another" in launcher.why_not_usable(str(tmp_path / "gone"), writable=True)
    assert launcher.why_not_usable(str(tmp_path), writable=True) == ""
    assert list(tmp_path.iterdir()) == [tmp_path / "file"], "the check leaves nothing"


def test_what_a_directory_lacks_is_named_within_15_s_of_the_jobs_start():
    # The limits of the look and of the report; all else is the machine's.
    assert start.FOLDERS_S + job.END_REPORT_S <= 15
