"""Ten thousand calls to the launcher's endpoints by somebody who holds alice's own secrets: nothing of hers changes."""

import contextlib
import hashlib
import http.client
import json
import sqlite3
import ssl
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from attack.anatomy import dissect
from attack.calls import PATH, Calls, Known
from cluster.conftest import drained, on_head
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from support.hub import server_path

from hpcspawner.jobs.keys import Keys
from hpcspawner.nodes.certificates import mark, read_request

SEED, COUNT, CALLERS = 20261123, 10_000, 16
# The one runs, but its launcher has not begun: what it would trade its ticket for is still to be had.
SLOW = '[[environments]]\nname = "slow"\nsetup = ["sleep 600"]\n\n[[environments]]\nname = "modules"'
EXTRA = """
c.JupyterHub.load_roles[0]["scopes"].append("proxy")
c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}
"""


@dataclass(frozen=True)
class Job:
    """One of alice's jobs: its number, and the ticket in its script."""

    number: str
    ticket: str


class Field:
    """A Hub with three servers of alice's: one works, one's launcher has not called yet, one's job waits."""

    def __init__(self, hub):
        self.hub = hub
        hub.spawn("alice", {"memory": "2G"})
        self.working = self.job_of("")
        self.slow, self.waiting = (
            self.submitted("slow", {"environment": "slow", "partition": "compute"}, "RUNNING"),
            self.submitted("waiting", {"partition": "gpu-shared"}, "PENDING"),
        )
        made = hub.api("POST", "/users/alice/tokens", json={})
        row = self.row(self.working)
        self.keys = Keys(self._secret(), hashlib.sha256(f"{hub.url}{PATH}".encode()).hexdigest())
        self.report_key = self.keys.report_key(row["tag"], row["run"])
        self.tokens = (made.json()["token"], self.keys.token(row["tag"]))

    def submitted(self, name, options, state):
        answer = self.hub.api("POST", server_path("alice", name), json=options)
        assert answer.status_code in (201, 202), f"{answer.text}"
        for event in self.hub.events("alice", name):
            if event.get("job", {}).get("state") == state.lower():
                return self.job_of(name)
        raise AssertionError(f"the job of {name} is not {state}: {self.hub.log()[-3000:]}")

    def job_of(self, server):
        (number,) = {row["job_id"] for row in self.rows() if row["server"] == server}
        return Job(number, dissect(on_head("scontrol", "write", "batch_script", number, "-")).settings["ticket"])

    def rows(self):
        """The ledger as it is committed."""
        (file,) = self.hub.folder.glob("hpcspawner.sqlite")
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            (table,) = (name for (name,) in database.execute(_TABLES) if name == "hpcspawner_jobs")
            return [dict(row) for row in database.execute(f"SELECT * FROM {table} WHERE ended_at IS NULL ORDER BY tag")]

    def row(self, job):
        (row,) = (row for row in self.rows() if row["job_id"] == job.number)
        return row

    def _secret(self):
        return bytes.fromhex((self.hub.folder / "hpcspawner_secret").read_text().strip())

    def seen(self):
        """All that JupyterHub, its proxy and the ledger have of alice's servers."""
        user = self.hub.api("GET", "/users/alice?include_stopped_servers").json()
        routes = self.hub.api("GET", "/proxy").json()
        for one in (user, *user["servers"].values(), *(route["data"] for route in routes.values())):
            one.pop("last_activity", None)
        return user, routes, self.rows()

    def known(self):
        row = self.row(self.working)
        tickets = tuple((job.ticket, job.number) for job in (self.working, self.slow, self.waiting))
        marks = (
            {"run": "r" * 43},
            {"csr": signing_request()},
            {"csr": signing_request(rsa.generate_private_key(65537, 2048))},
        )
        return Known(
            tickets=tickets,
            keys=((self.report_key, row["port"]),),
            tokens=(*self.tokens, self.hub.token[:8]),
            marks=(*marks, {"run": row["run"]}),
            untraded=frozenset({self.slow.ticket}),
        )

    @contextlib.contextmanager
    def line(self):
        """A connection to the proxy that is kept open."""
        trust = ssl.create_default_context(cafile=str(self.hub.folder / "ca.pem"))
        connection = http.client.HTTPSConnection(self.hub.host, self.hub.port, timeout=60, context=trust)
        try:
            yield lambda call: _asked(connection, call)
        finally:
            connection.close()

    def post(self, where, body):
        """As the launcher does: who has been refused too often calls again when it is told to."""
        while (answer := self.hub.post(f"{PATH}/{where}", body)).status_code == 429:
            time.sleep(int(answer.headers["Retry-After"]))
        return answer


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table'"


def _asked(connection, call):
    """Status, headers and text of the answer. The proxy may end an idle connection, so a second one is tried."""
    try:
        connection.request(call.method, call.path, call.body, call.headers)
        answer = connection.getresponse()
    except ConnectionError:
        connection.close()
        connection.request(call.method, call.path, call.body, call.headers)
        answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode("utf-8", "replace")


@pytest.fixture(scope="module")
def field(make_hub):
    with drained("n3"), make_hub("slurm", extra=EXTRA, change=('[[environments]]\nname = "modules"', SLOW)) as hub:
        yield Field(hub)


@pytest.fixture(autouse=True)
def nothing_left():
    """The jobs are there for all tests of this file; the Hub's end cancels them."""


def signing_request(key=None, names=(), *, authority=False):
    """A signing request as PEM, which may ask for names and powers."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, name) for name in names[:1]]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=True
        )
    if authority:
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def test_ten_thousand_calls_change_nothing(field):
    before = field.seen()
    answers = send(field, Calls(SEED, field.known()).take(COUNT))
    heeded = [(call, text) for call, status, _, text in answers if status == 200 and call.method == "POST"]
    for call, status, headers, text in answers:
        assert status < 500 or (status == 503 and headers["Retry-After"]), f"{status} {text[:500]} for {call}"
        assert "Traceback" not in text
        assert field.tokens[1] not in text
        assert '"environment"' not in text
    # What repeats the truth is taken: the port that was reported, and a warning.
    # What a job may learn of its own server, for the status bar.
    assert all(set(json.loads(text)) <= {"cluster", "done", "message", "renewals"} for _, text in heeded)
    assert all(field.report_key.encode() in call.body for call, _ in heeded)
    assert field.seen() == before
    refused = Counter(status for _, status, _, _ in answers)
    # What is refused too often is refused in one word.
    assert refused[400] + refused[429] > COUNT / 2
    assert refused[429]
    log = field.hub.log()
    assert "Traceback" not in log, f"{log[log.find('Traceback') - 500 :][:3000]}"
    # JupyterHub's own tokens bear no mark by which a log could know them.
    for secret in (field.tokens[1], field.report_key, field.working.ticket, field.slow.ticket, field.waiting.ticket):
        assert secret not in log


def send(field, calls):
    """Every call with its answer; some callers at the same time."""

    def caller(share):
        with field.line() as ask:
            return [(call, *ask(call)) for call in share]

    with ThreadPoolExecutor(CALLERS) as pool:
        return [answer for share in pool.map(caller, [calls[at::CALLERS] for at in range(CALLERS)]) for answer in share]


async def test_the_server_works_as_before(field):
    assert await field.hub.run("alice", "print(6 * 7)") == "42"


def test_routes_lead_to_the_host_that_the_scheduler_named(field):
    routes = field.hub.api("GET", "/proxy").json()
    (target,) = (route["target"] for path, route in routes.items() if path.startswith("/user/alice"))
    row = field.row(field.working)
    assert row["host"] == on_head("squeue", "-h", f"--job={field.working.number}", "--format=%B").strip()
    nonce = field.keys.nonce(row["tag"], row["run"])
    assert target == f"https://j{nonce}.{row['host']}.hpcspawner.internal:{row['port']}"


def _with_the_signature_of_another():
    first, second = (x509.load_pem_x509_csr(signing_request().encode()) for _ in range(2))
    data = first.public_bytes(serialization.Encoding.DER)
    spoiled = data[: -len(second.signature)] + second.signature
    lines = ssl.DER_cert_to_PEM_cert(spoiled)
    return lines.replace("BEGIN CERTIFICATE", "BEGIN CERTIFICATE REQUEST").replace(
        "END CERTIFICATE", "END CERTIFICATE REQUEST"
    )


SPOILED = signing_request()
REFUSED = [
    pytest.param(lambda: signing_request(rsa.generate_private_key(65537, 2048)), id="RSA"),
    pytest.param(lambda: signing_request(ec.generate_private_key(ec.SECP384R1())), id="another curve"),
    pytest.param(lambda: signing_request(ec.generate_private_key(ec.SECP256K1())), id="a curve of almost that name"),
    pytest.param(lambda: SPOILED.replace(SPOILED[100:104], "AAAA"), id="bytes changed"),
    pytest.param(_with_the_signature_of_another, id="the signature of another"),
    pytest.param(lambda: SPOILED[:-60], id="broken off"),
    pytest.param(lambda: "x" * 5000 + SPOILED, id="too long"),
    pytest.param(lambda: SPOILED.replace("CERTIFICATE REQUEST", "PRIVATE KEY"), id="another kind"),
    pytest.param(lambda: "", id="nothing"),
    pytest.param(lambda: None, id="null"),
]


@pytest.mark.parametrize("made", REFUSED)
def test_a_signing_request_of_another_kind_is_refused_and_spends_nothing(field, made):
    before = field.rows()
    answer = field.post("ticket", {"ticket": field.slow.ticket, "job": field.slow.number, "csr": made()})
    assert answer.status_code == 400, f"{answer.text}"
    assert field.rows() == before


def test_a_certificate_names_the_job_whatever_was_asked_for(field):
    """The last one, for it trades the ticket: as the job's owner may, and to no more use than the launcher's own."""
    names = ("hub.example.org", "localhost", "head", "n2", "*.hpcspawner.internal")
    asked = signing_request(names=names, authority=True)
    answer = field.post("ticket", {"ticket": field.slow.ticket, "job": field.slow.number, "csr": asked})
    assert answer.status_code == 200, f"{answer.text}"
    got = x509.load_pem_x509_certificate(answer.json()["certificate"].encode())
    row = field.row(field.slow)
    name = f"j{field.keys.nonce(row['tag'], mark(read_request(asked)))}.{row['host']}.hpcspawner.internal"
    assert got.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
        x509.DNSName
    ) == [name]
    assert not got.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert [one.value for one in got.subject] == [name]
    assert got.public_key() == x509.load_pem_x509_csr(asked.encode()).public_key()
    # Another key gets nothing for it, nor a port that is none; the first that is one counts.
    other = field.post("ticket", {"ticket": field.slow.ticket, "job": field.slow.number, "csr": signing_request()})
    assert other.status_code == 403
    report = {"report_key": answer.json()["report_key"], "event": "listening"}
    for port in (22, 65536, "23456", 23456.5, None, [23456]):
        assert field.post("report", {**report, "port": port}).status_code == 400
    assert field.row(field.slow)["port"] == 0
    assert field.post("report", {**report, "port": 23456}).status_code == 200
    assert field.post("report", {**report, "port": 23457}).status_code == 409
    assert field.row(field.slow)["port"] == 23456
