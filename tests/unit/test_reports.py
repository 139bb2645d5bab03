"""What a launcher may call: a real web server with the Hub's own kind of handlers, asked over HTTP."""

import asyncio
import collections
import contextlib
import http.client
import io
import itertools
import json
import logging
import secrets
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyterhub import objects, orm
from jupyterhub.log import log_request
from support.jobs import PROFILE, a_cluster, clusters_of, put
from tornado.netutil import bind_sockets
from tornado.web import Application, StaticFileHandler

from hpcspawner.errors import SchedulerUnreachable
from hpcspawner.hub.bodies import CAP, FORM_CAP, BoundedServer, places
from hpcspawner.hub.hub_ledger import close_ledger, open_ledger
from hpcspawner.hub.hub_ledger import hub_ledger as ledger
from hpcspawner.jobs.events import Outside, Refusal
from hpcspawner.jobs.job import digest
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.record import End
from hpcspawner.nodes import endpoints
from hpcspawner.nodes.certificates import mark
from hpcspawner.nodes.endpoints import handlers
from hpcspawner.nodes.limit import Refusals
from hpcspawner.pages import pages
from hpcspawner.schedulers.state import Cause, JobState, JobStatus

TICKET, REPORT = "/hub/api/hpcspawner/ticket", "/hub/api/hpcspawner/report"
STATIC = "/hub/hpcspawner/static/"
RUN = "run-" + "r" * 30
OTHER_RUN = "run-" + "o" * 30
ENVIRONMENT = {"JUPYTERHUB_API_TOKEN": "token-" + "t" * 30, "JUPYTERHUB_USER": "alice"}


def signing_request(curve=ec.SECP256R1):
    """As a launcher sends it, for a new key."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    request = builder.sign(ec.generate_private_key(curve()), hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def mark_of(request):
    return mark(x509.load_pem_x509_csr(request.encode()))


CSR, OTHER_CSR = signing_request(), signing_request()


class Server:
    """The handlers as a Hub serves them, in a thread of their own."""

    def __init__(self):
        self.log = io.StringIO()
        handler = logging.StreamHandler(self.log)
        self.logger = logging.Logger("test", logging.DEBUG)
        self.logger.addHandler(handler)
        self._ready = threading.Event()
        self._loop = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        self._ready.wait(10)

    async def _serve(self):
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        db = orm.new_session_factory("sqlite:///:memory:")()
        routes = [(f"/hub{path}", *rest) for path, *rest in handlers(ledger)]
        routes.append((f"{STATIC}(.*)", StaticFileHandler, {"path": str(pages.STATIC)}))
        application = Application(
            routes,
            log=self.logger,
            db=db,
            hub=objects.Hub(base_url="/hub/"),
            log_function=log_request,
            xsrf_cookies=True,
            cookie_secret=b"s" * 32,
        )
        sockets = bind_sockets(0, "127.0.0.1")
        self.port = sockets[0].getsockname()[1]
        server = BoundedServer(application)
        server.ours = places("/hub/")
        server.add_sockets(sockets)
        self._ready.set()
        await self._over.wait()
        server.stop()
        await server.close_all_connections()
        db.close()

    def stop(self):
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def does(self, work):
        """Run something where the handlers run."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def post(self, path, body, **headers):
        """Status, headers and text of the answer; a body that is no text is sent as JSON."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", path, data, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


class Answer:
    def __init__(self, status, headers, data):
        self.status, self.headers, self.data = status, headers, data

    @property
    def json(self):
        return json.loads(self.data)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("ledger") / "ledger.sqlite"

    def make():
        return clusters_of(a_cluster())

    open_ledger(f"sqlite:///{file}", lambda: Keys(b"s" * 32, "hub"), make, logging.getLogger("test"))
    server = Server()
    yield server
    server.stop()
    close_ledger()


class Job:
    """One row of the ledger, and what the scheduler says of its job."""

    def __init__(self, server):
        self.server = server
        self.status = JobStatus(JobState.RUNNING, host="n1")
        self.asked_after = []
        self.delay_s = 0.0
        self.runs = 1
        self.row = ledger().new_job(("alice", ""), "alice", ledger().clusters.default)
        self.row.environment = dict(ENVIRONMENT)
        self.row.ask = self._ask
        self.ticket = self.row.arm(ledger().keys.ticket(self.row.tag))
        self.row.submitted("12")
        self.server.does(ledger().open(self.row))

    def requeues(self):
        """The site lets the scheduler start jobs again."""
        self.row.count_runs = self._count_runs
        return self

    async def _count_runs(self):
        if self.runs is None:
            raise SchedulerUnreachable("The scheduler is not answering.")
        return self.runs

    def committed(self):
        """The row as the next process of the Hub will find it."""
        (row,) = (row for row in ledger()._store.load(0) if row["tag"] == self.row.tag)
        return row

    def over(self):
        """Closed, as when it has ended."""
        self.row.ended(self.row.end or End(Cause.STOPPED, "", time.time()))
        self.server.does(ledger().save(self.row))

    async def _ask(self, after):
        self.asked_after.append(after)
        status = self.status
        await asyncio.sleep(self.delay_s)
        return status

    def with_tls(self):
        """The Hub signs keys; the certificate here tells the key and the node that it was asked for."""

        async def certify(request):
            await asyncio.sleep(self.delay_s)
            return {"certificate": f"{mark(request)} on {self.row.record.host}", "authorities": "those of the Hub"}

        self.row.certify = certify
        return self

    def trade_key(self, csr=CSR, **more):
        return self.server.post(TICKET, {"ticket": self.ticket, "job": "12", "csr": csr, **more})

    def trade(self, run=RUN, ticket=None, **more):
        return self.server.post(TICKET, {"ticket": ticket or self.ticket, "run": run, "job": "12", **more})

    def report(self, **body):
        return self.server.post(REPORT, {"report_key": self.key, **body})

    def listening(self, port=20000):
        return self.report(event="listening", port=port)

    def ended(self, **body):
        return self.report(**({"event": "ended", "reason": "server-exited"} | body))

    def started(self, run=RUN):
        """Traded its ticket already."""
        answer = self.trade(run)
        assert answer.status == 200
        self.key = answer.json["report_key"]
        return self


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """The server refuses as often as it is asked; `limited` has the limits of a Hub."""
    monkeypatch.setattr(endpoints, "_strangers", Refusals(per_caller=10**9))
    monkeypatch.setattr(endpoints, "_jobs", Refusals(per_caller=10**9))


@pytest.fixture
def job(server):
    job = Job(server)
    yield job
    job.over()


# --- what a user asks for in the notebook


@pytest.fixture
def renewable(job):
    limits = PROFILE.limits.model_copy(update={"renewals": 2})
    job.row.cluster = a_cluster(PROFILE.model_copy(update={"limits": limits}))
    return job.started()


def test_a_job_is_renewed_once_at_its_users_wish_and_the_hub_sees_to_it(renewable):
    assert renewable.listening().json["renewals"] == {"left": 0, "more": 2}
    ledger().wake.taken()
    answer = renewable.report(event="renew").json
    assert (answer["done"], answer["renewals"]) == (True, {"left": 1, "more": 1})
    assert (renewable.committed()["renewals"], renewable.committed()["choices"]) == (1, {"renewals": 1})
    assert renewable.row.tag in ledger().wake.taken()
    # Pressed twice, in two pages perhaps.
    assert renewable.report(event="renew").json["renewals"] == {"left": 1, "more": 1}


def test_a_job_that_was_renewed_as_often_as_the_site_allows_is_refused(renewable):
    put(renewable.row, choices={"renewals": 2}, renewals=0)
    answer = renewable.report(event="renew").json
    assert (answer["done"], answer["renewals"]) == (False, {"left": 0, "more": 0})
    assert "no more often" in answer["message"]
    assert renewable.committed()["renewals"] == 0


def test_a_server_that_was_stopped_is_not_renewed(renewable):
    put(renewable.row, wanted=False)
    assert renewable.report(event="renew").json["message"] == "This server was stopped."


def test_a_stop_of_a_server_that_the_hub_does_not_have_is_refused_in_words(renewable):
    answer = renewable.report(event="stop").json
    assert (answer["done"], "Try again" in answer["message"]) == (False, True)


# --- the ticket


def test_a_running_job_gets_its_environment_for_its_ticket(job):
    answer = job.trade()
    assert answer.status == 200
    assert set(answer.json) == {"environment", "report_key"}
    assert answer.json["environment"] == ENVIRONMENT
    assert len(answer.json["report_key"]) >= 32
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"] == "application/json"
    assert job.row.record.host == "n1"


def test_the_scheduler_is_asked_after_the_call_and_not_before(job):
    before = time.monotonic()
    job.trade()
    assert before <= job.asked_after[0] <= time.monotonic()


def test_a_lost_answer_is_given_again_to_the_same_run(job):
    first, second = job.trade(), job.trade()
    assert (first.status, first.data) == (second.status, second.data)


def test_another_run_is_refused_and_learns_nothing(job):
    job.trade()
    answer = job.trade(run=OTHER_RUN)
    assert answer.status == 403
    assert_silent(answer, job)


@pytest.mark.parametrize("runs", [1, 0, None], ids=["the same", "fewer", "nobody knows"])
def test_another_run_is_refused_unless_the_scheduler_has_started_the_job_again(job, runs):
    job.requeues().started()
    job.runs = runs
    answer = job.trade(run=OTHER_RUN)
    assert answer.status != 200
    assert_silent(answer, job)
    assert job.row.record.run == RUN


def test_a_second_run_that_the_scheduler_proves_gets_the_environment(job):
    job.requeues().started()
    first = job.key
    job.runs = 2
    answer = job.trade(run=OTHER_RUN)
    assert answer.status == 200
    assert answer.json["environment"] == ENVIRONMENT
    assert answer.json["report_key"] != first
    assert (job.committed()["run"], job.committed()["runs"]) == (OTHER_RUN, 2)
    # The first one has nothing to say any more.
    assert job.report(event="listening", port=20000).status == 403
    assert job.trade(run=RUN).status == 403


def test_a_second_run_takes_the_place_of_a_server_that_listened(job):
    """Its node failed, and the Hub has not noticed yet."""
    job.requeues().started().listening()
    job.runs, job.status = 2, JobStatus(JobState.RUNNING, host="n2")
    assert job.trade(run=OTHER_RUN).json["environment"] == ENVIRONMENT
    assert (job.row.record.host, job.row.record.port, job.row.record.run) == ("n2", 0, OTHER_RUN)


def test_a_second_run_that_the_hub_does_not_look_after_yet_waits_and_the_hub_is_told(job):
    told = []
    job.requeues().started().listening()
    job.row.environment = {}
    job.row.on_report = lambda: told.append(job.row.record.port)
    job.runs = 2
    answer = job.trade(run=OTHER_RUN)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert told == [0]
    job.row.environment = dict(ENVIRONMENT)
    assert job.trade(run=OTHER_RUN).status == 200


def test_a_site_that_never_puts_jobs_back_has_one_run(job):
    job.started()
    job.runs = 5
    assert job.trade(run=OTHER_RUN).status == 403


def test_a_second_run_is_not_refused_because_the_scheduler_is_away_for_a_moment(job):
    job.requeues().started()
    job.runs = None
    assert job.trade(run=OTHER_RUN).status == 503
    job.runs = 2
    assert job.trade(run=OTHER_RUN).status == 200


def test_a_first_run_whose_number_is_not_known_waits(job):
    job.requeues()
    job.runs = None
    assert job.trade().status == 503
    job.runs = 2
    assert job.trade().status == 200
    assert job.trade(run=OTHER_RUN).status == 403


@pytest.mark.parametrize(
    ("known", "told", "status"),
    [
        pytest.param("12", "12", 200, id="its own"),
        pytest.param("12", "13", 403, id="another job's"),
        pytest.param("12", "", 403, id="none"),
        pytest.param("12.master", "12.master.example.org", 200, id="with the server's name"),
        pytest.param("12.master", "12", 200, id="the number alone"),
        pytest.param("12", "112", 403, id="a longer one"),
    ],
)
def test_a_ticket_counts_in_its_own_job(job, known, told, status):
    put(job.row, job_id=known)
    assert job.trade(job=told).status == status


def test_who_has_the_ticket_is_committed_before_it_is_answered(job):
    job.started()
    row = job.committed()
    assert (row["run"], row["runs"], row["host"]) == (RUN, 1, "n1")
    assert row["report_key_hash"] == digest(job.key)


def test_while_nobody_looks_after_the_job_nothing_is_spent(job):
    """A Hub that has just started knows the row, and has neither its environment nor the scheduler's ear."""
    ask, job.row.ask = job.row.ask, None
    environment, job.row.environment = job.row.environment, {}
    for run in (OTHER_RUN, RUN):
        answer = job.trade(run=run)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert_silent(answer, job)
    job.row.ask, job.row.environment = ask, environment
    assert job.trade().status == 200


def test_a_run_that_was_bound_is_answered_when_the_hub_looks_after_it_again(job):
    told = []
    job.started()
    job.row.environment = {}
    job.row.on_report = lambda: told.append("told")
    assert job.trade().status == 503
    assert told == ["told"]
    job.row.environment = dict(ENVIRONMENT)
    assert job.trade().json["report_key"] == job.key


def test_of_two_runs_at_once_one_is_served(job):
    job.delay_s = 0.2
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: job.trade(run=f"run-{number}-{'x' * 30}"), range(8)))
    assert sorted(answer.status for answer in answers) == [200] + [403] * 7


def test_before_the_jobs_number_is_known_the_answer_is_not_yet(job):
    put(job.row, job_id="")
    answer = job.trade()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert_silent(answer, job)
    put(job.row, job_id="12")
    assert job.trade().status == 200


@pytest.mark.parametrize(
    "status",
    [
        pytest.param(JobStatus(JobState.PENDING), id="pending"),
        pytest.param(JobStatus(JobState.HELD), id="held"),
        pytest.param(JobStatus(JobState.SUSPENDED, host="n1"), id="suspended"),
        pytest.param(JobStatus(JobState.UNKNOWN), id="unknown"),
        pytest.param(JobStatus(JobState.RUNNING), id="running on no host"),
    ],
)
def test_until_the_scheduler_says_that_it_runs_nothing_is_spent(job, status):
    running, job.status = job.status, status
    for _ in range(3):
        answer = job.trade(run=OTHER_RUN)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
        assert_silent(answer, job)
    job.status = running
    # Not even the run that asked first has a right to it.
    assert job.trade(run=RUN).status == 200


def test_a_job_that_has_ended_gets_nothing(job):
    job.status = JobStatus(JobState.ENDED)
    answer = job.trade()
    assert answer.status == 410
    assert_silent(answer, job)


def test_a_server_that_was_stopped_gets_nothing(job):
    job.row.mark_unwanted()
    answer = job.trade()
    assert answer.status == 410
    assert_silent(answer, job)


def test_a_server_that_is_stopped_while_the_scheduler_is_asked_gets_nothing(job):
    job.delay_s = 0.3
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(job.trade)
        while not job.asked_after:
            time.sleep(0.01)
        job.row.mark_unwanted()
        answer = under_way.result()
    assert answer.status == 403
    assert_silent(answer, job)


def test_a_ticket_is_spent_when_its_server_listens(job):
    job.started()
    assert job.listening().status == 200
    answer = job.trade()
    assert answer.status == 403
    assert_silent(answer, job)


def test_a_new_ticket_ends_the_older_one(job):
    older, newer = job.ticket, job.row.arm(ledger().keys.ticket("another"))
    job.server.does(ledger().save(job.row))
    assert job.trade(ticket=older).status == 403
    assert job.trade(ticket=newer).status == 200


@pytest.mark.parametrize("ticket", ["x" * 43, "", None], ids=["wrong", "empty", "hash of it"])
def test_what_is_no_ticket_gets_nothing(job, ticket):
    answer = job.server.post(
        TICKET, {"ticket": job.row.record.ticket_hash if ticket is None else ticket, "run": RUN, "job": "12"}
    )
    assert answer.status == (400 if ticket == "" else 403)
    assert_silent(answer, job)


def test_the_host_comes_from_the_scheduler_alone(job):
    answer = job.server.post(
        TICKET, {"ticket": job.ticket, "run": RUN, "job": "12", "host": "evil"}, **{"X-Forwarded-For": "10.9"}
    )
    assert answer.status == 400
    job.started()
    assert job.report(event="listening", port=20000, host="evil").status == 400
    job.listening()
    assert (job.row.record.host, job.row.record.port) == ("n1", 20000)


@pytest.mark.parametrize(
    "phases",
    [
        {"server": -1},
        {"server": 1e9},
        {"server": "2"},
        {"server": float("nan")},
        {"server": float("inf")},
        {"gate": 1.0},
        {"x" * 1000: 1.0},
        [1.0],
        None,
    ],
    ids=str,
)
def test_phases_that_no_launcher_has_are_refused(job, phases):
    job.started()
    assert job.report(event="listening", port=20000, phases=phases).status == 400
    assert not job.row.record.port
    job.report(event="listening", port=20000, phases={"key": 0.5, "server": 2})
    assert (job.row.record.port, job.row.phases) == (20000, {"key": 0.5, "server": 2.0})


def test_what_a_stranger_calls_its_phases_gets_nowhere(job):
    name = "x\n[I 2099-01-01 JupyterHub] forged line"
    body = {"report_key": "k" * 30, "event": "listening", "port": 20000, "phases": {name: 1.0}}
    answer = job.server.post(REPORT, body)
    assert answer.status == 400
    assert b"forged" not in answer.data
    assert "forged" not in job.server.log.getvalue()


# --- the ticket of a job that shows a key


def test_a_running_job_gets_a_certificate_for_its_key(job):
    answer = job.with_tls().trade_key()
    assert answer.status == 200
    assert set(answer.json) == {"environment", "report_key", "certificate", "authorities"}
    assert answer.json["environment"] == ENVIRONMENT
    assert answer.json["certificate"] == f"{mark_of(CSR)} on n1"
    assert answer.json["authorities"] == "those of the Hub"
    assert job.committed()["run"] == mark_of(CSR)
    assert "job 12 is running on n1 and got its certificate" in job.server.log.getvalue()


def test_a_lost_answer_is_given_again_to_the_same_key(job):
    """Until its server listens; a signature is never twice the same, so it is the key that counts."""
    first, second = job.with_tls().trade_key(), job.trade_key()
    assert first.status == second.status == 200
    assert first.json == second.json
    job.key = first.json["report_key"]
    assert job.listening().status == 200
    answer = job.trade_key()
    assert answer.status == 403
    assert_silent(answer, job)


def test_another_key_is_refused_learns_nothing_and_is_in_the_log(job):
    job.with_tls().trade_key()
    before = len(job.server.log.getvalue())
    answer = job.trade_key(OTHER_CSR)
    assert answer.status == 403
    assert_silent(answer, job)
    assert job.row.record.run == mark_of(CSR)
    log = job.server.log.getvalue()[before:]
    assert "alice: a ticket call from 127.0.0.1 was refused: presented again" in log


def test_a_new_run_with_a_key_of_its_own_is_served_once(job):
    job.with_tls().requeues().trade_key()
    job.runs, job.status = 2, JobStatus(JobState.RUNNING, host="n2")
    assert job.trade_key(OTHER_CSR).json["certificate"] == f"{mark_of(OTHER_CSR)} on n2"
    assert job.trade_key(CSR).status == 403
    assert job.trade_key(signing_request()).status == 403
    assert job.row.record.run == mark_of(OTHER_CSR)


def test_of_many_keys_at_once_one_is_served(job):
    job.with_tls().delay_s = 0.1
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(job.trade_key, [CSR, OTHER_CSR, *(signing_request() for _ in range(6))]))
    assert sorted(answer.status for answer in answers) == [200] + [403] * 7


def test_without_a_key_there_is_no_environment_and_no_second_chance(job):
    """A node that can make no key may say so. Else whoever is between node and user could have TLS left out."""
    answer = job.with_tls().trade()
    assert answer.status == 200
    assert answer.json == {"environment": {}, "report_key": ledger().keys.report_key(job.row.tag, RUN)}
    assert_silent(answer, job, but=answer.json["report_key"])
    assert "job 12 sent no signing request from n1, so the Hub sends it no environment" in job.server.log.getvalue()
    refused = job.trade_key()
    assert refused.status == 403
    assert_silent(refused, job)
    job.key = answer.json["report_key"]
    assert job.ended(reason="no-key", message="No openssl.").status == 200
    assert job.row.report.reason == "no-key"


def test_who_has_shown_a_key_does_not_get_around_it(job):
    job.with_tls().trade_key()
    answer = job.trade()
    assert answer.status == 403
    assert_silent(answer, job)


def test_a_public_key_is_shown_by_its_signature_and_not_by_its_digest(job):
    """Whoever connects to a server sees its public key, and the digest of that is the run's mark."""
    job.with_tls().trade_key()
    answer = job.trade(run=mark_of(CSR))
    assert answer.status == 400
    assert_silent(answer, job)


@pytest.mark.parametrize(
    "change",
    [lambda row: row.mark_unwanted(), lambda row: row.open("key:other", 2, "n2", "k")],
    ids=["stopped", "replaced"],
)
def test_what_happens_while_a_key_is_signed_counts(job, change):
    asked = threading.Event()

    async def certify(request):
        asked.set()
        await asyncio.sleep(0.3)
        return {"certificate": "signed", "authorities": "those of the Hub"}

    job.row.certify = certify
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(job.trade_key)
        assert asked.wait(10)
        change(job.row)
        answer = under_way.result()
    assert answer.status == 403
    assert b"signed" not in answer.data
    assert_silent(answer, job)


def test_while_nobody_looks_after_the_job_no_key_is_signed(job):
    job.with_tls()
    job.row.environment = {}
    answer = job.trade_key()
    assert (answer.status, answer.headers["Retry-After"]) == (503, "1")
    assert_silent(answer, job)
    job.row.environment = dict(ENVIRONMENT)
    assert job.trade_key().status == 200


def test_a_hub_without_tls_signs_nothing(job):
    answer = job.trade_key()
    assert set(answer.json) == {"environment", "report_key"}


def test_a_request_as_long_as_any_may_be_is_read(job):
    assert job.with_tls().trade_key(CSR + " " * (4096 - len(CSR))).status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"csr": CSR, "run": RUN}, 400, id="key and mark"),
        pytest.param({}, 400, id="neither"),
        pytest.param({"csr": None}, 400, id="null"),
        pytest.param({"csr": CSR, "host": "n2"}, 400, id="a host too"),
        pytest.param({"csr": CSR, "names": ["hub.example.org"]}, 400, id="names too"),
        pytest.param({"csr": ""}, 400, id="empty"),
        pytest.param({"csr": "csr"}, 400, id="no PEM"),
        pytest.param({"csr": [CSR]}, 400, id="a list"),
        pytest.param({"csr": 1}, 400, id="a number"),
        pytest.param({"csr": CSR[:-40]}, 400, id="cut"),
        pytest.param({"csr": CSR.replace("REQUEST", "")}, 400, id="called a certificate"),
        pytest.param({"csr": signing_request(ec.SECP384R1)}, 400, id="another curve"),
        pytest.param({"csr": CSR + " " * (4097 - len(CSR))}, 400, id="too long for one"),
        pytest.param({"csr": CSR + " " * 70_000}, 413, id="too long for a body"),
    ],
)
def test_what_shows_no_key_spends_nothing(job, body, status):
    answer = job.with_tls().server.post(TICKET, {"ticket": job.ticket, "job": "12", **body})
    assert answer.status == status
    assert_silent(answer, job)
    assert job.row.record.run == ""
    assert job.trade_key().status == 200


# --- reports


def test_a_port_is_taken_and_committed(job):
    job.started()
    answer = job.listening(20001)
    told = {"cluster": "Test cluster", "renewals": {"left": 0, "more": 0}}
    assert (answer.status, answer.json) == (200, told)
    assert (job.row.record.host, job.row.record.port) == ("n1", 20001)
    assert job.row.changed.is_set()
    assert job.committed()["port"] == 20001


@pytest.mark.parametrize("port", [0, 1023, 65536, -1, 2**70, 20000.0, 20000.5, "20000", True, None, [], {}])
def test_a_port_out_of_range_or_of_another_type_is_refused(job, port):
    job.started()
    assert job.listening(port).status == 400
    assert job.row.record.port == 0


@pytest.mark.parametrize("port", [1024, 65535])
def test_the_ends_of_the_range_are_ports(job, port):
    assert job.started().listening(port).status == 200


def test_the_same_port_may_be_told_again_and_another_may_not(job):
    job.started()
    assert [job.listening(port).status for port in (20000, 20000, 20001)] == [200, 200, 409]
    assert job.row.record.port == 20000


def test_a_server_that_has_ended_does_not_listen_again(job):
    job.started()
    assert job.ended().status == 200
    assert job.listening().status == 410
    assert job.row.record.port == 0


def test_a_stopped_server_does_not_listen_any_more(job):
    job.started()
    job.row.mark_unwanted()
    assert job.listening().status == 410
    assert job.row.record.port == 0


@pytest.mark.parametrize(("port", "status"), [(20000, 410), (20001, 409)])
def test_after_its_end_no_port_is_taken(job, port, status):
    job.started().listening()
    job.ended()
    assert job.listening(port).status == status


def test_a_warning_is_noted_and_changes_nothing(job):
    job.started().listening()
    before = job.row.record.columns()
    answer = job.report(event="warned")
    assert (answer.status, answer.json) == (200, {})
    assert job.row.record.columns() == before
    assert job.row.report is None
    assert "the wall time of job 12 ends soon" in job.server.log.getvalue()


def test_an_idle_server_says_so(job):
    job.started().listening()
    assert job.ended(reason="idle", message="Nobody used it for 1 h.", exit_code=0).status == 200
    assert (job.row.report.reason, job.row.report.exit_code) == ("idle", 0)


def test_a_stopped_servers_last_words_are_taken(job):
    job.started()
    job.row.mark_unwanted()
    assert job.ended(reason="signalled", signal=15).status == 200


def test_an_end_is_kept_with_its_last_words(job):
    job.started()
    job.row.changed.clear()
    told = {"reason": "signalled", "message": "It was ended by SIGTERM.", "exit_code": None, "signal": 15}
    assert job.ended(**told, log=["one", "two"]).status == 200
    report = job.row.report
    assert (report.reason, report.message, report.exit_code, report.signal) == tuple(told.values())
    assert report.log == ("one", "two")
    # It is the scheduler who says that the job has ended.
    assert job.row.end is None
    assert job.row.changed.is_set()


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"reason": "because"}, id="an unknown reason"),
        pytest.param({"message": "x" * 501}, id="a long message"),
        pytest.param({"message": 5}, id="a message that is no text"),
        pytest.param({"exit_code": 256}, id="a high exit code"),
        pytest.param({"exit_code": -1}, id="a negative exit code"),
        pytest.param({"exit_code": "0"}, id="an exit code in text"),
        pytest.param({"signal": 65}, id="a high signal"),
        pytest.param({"signal": 0}, id="no signal"),
        pytest.param({"log": ["x"] * 21}, id="a long log"),
        pytest.param({"log": ["x" * 301]}, id="a long line"),
        pytest.param({"log": "x"}, id="a log that is no list"),
        pytest.param({"log": [1]}, id="a log of numbers"),
        pytest.param({"port": 20000}, id="a port"),
        pytest.param({"req_host": "evil"}, id="another field"),
        pytest.param({"event": "Ended"}, id="another event"),
        pytest.param({"event": None}, id="no event"),
    ],
)
def test_an_end_that_is_not_as_it_must_be_is_refused_whole(job, body):
    job.started()
    answer = job.ended(**body)
    assert answer.status == 400
    assert job.row.report is None
    assert_silent(answer, job)


@pytest.mark.parametrize(
    "body",
    [{"event": "listening", "port": 20000}, {"event": "ended", "reason": "no-port"}, {"event": "warned"}],
    ids=["listening", "ended", "warned"],
)
def test_a_key_that_is_not_known_reports_nothing(job, body):
    job.started()
    for key in ("k" * 43, job.row.record.report_key_hash, job.ticket):
        answer = job.server.post(REPORT, {"report_key": key, **body})
        assert answer.status == 403
        assert_silent(answer, job)
    assert (job.row.record.port, job.row.report) == (0, None)


def test_a_key_is_for_its_own_job(server, job):
    other = Job(server)
    try:
        other.started()
        job.started()
        job.listening(20002)
        assert (job.row.record.port, other.row.record.port) == (20002, 0)
    finally:
        other.over()


def test_a_job_that_was_let_go_reports_to_nobody(job):
    job.started()
    job.over()
    assert job.listening().status == 403
    assert job.trade().status == 403


# --- anything else


@pytest.mark.parametrize("path", [TICKET, REPORT])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
def test_only_a_post_is_taken(server, path, method):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    connection.request(method, path, b"{}")
    assert connection.getresponse().status == 405
    connection.close()


@pytest.mark.parametrize("path", [TICKET, REPORT])
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"{", id="half an object"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b'{"ticket": "\\ud800"}', id="half a letter"),
        pytest.param(b'{"\\ud800": 1}', id="half a letter in a name"),
        pytest.param(b"[" * 60_000, id="a deep list"),
        pytest.param(b'{"a":' * 10_000, id="a deep object"),
        pytest.param(b"9" * 60_000, id="a long number"),
        pytest.param(b'{"ticket": NaN}', id="not a number"),
        pytest.param(b'{"%s%d%(x)s": 1}', id="signs of a format"),
        pytest.param(b'{"ticket": {"a": 1}, "run": [1], "report_key": 1}', id="other types"),
    ],
)
def test_garbage_is_refused_as_such(server, path, body):
    answer = server.post(path, body)
    assert answer.status == 400
    assert answer.json["status"] == 400


def test_a_body_that_is_too_long_changes_nothing(job):
    job.started()
    answer = job.ended(message="x" * 70_000)
    assert answer.status == 413
    assert job.row.report is None


@pytest.mark.parametrize("size", [CAP + 1, 70_000, 1 << 20])
def test_who_sends_a_little_too_much_gets_an_answer(server, size):
    """Whatever of it is on its way, the connection is not cut."""
    answer = server.post(TICKET, b" " * size)
    assert answer.status == 413
    assert answer.json["message"] == f"a request body for this address may have at most {CAP} bytes; this one is longer"


def sent(server, head, *parts):
    """All that is answered to these bytes until the server ends the connection; what is left to send is not sent."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head.encode("latin1"))
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                answer += data
        return answer


PLACES = [("POST", TICKET), ("POST", REPORT), ("PUT", TICKET), ("GET", REPORT), ("PROPFIND", TICKET)]
STATICS = [("GET", STATIC + "waiting.js"), ("POST", STATIC + "x"), ("HEAD", STATIC)]


@pytest.mark.parametrize(("method", "path"), PLACES + STATICS)
@pytest.mark.parametrize("length", [2 << 20, 90 << 20, 10**30, "0" * 20 + "99999999", "9" * 5000])
def test_the_length_of_a_body_is_judged_before_it_comes(server, method, path, length):
    """Not one byte of it is sent."""
    answer = sent(server, f"{method} {path} HTTP/1.1\r\nHost: hub\r\nContent-Length: {length}\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ")
    # So that a proxy does not use the connection for others.
    assert b"Connection: close" in answer
    assert b"HTTP/1.1" not in answer[8:]


CHUNK = b"10000\r\n" + b" " * 0x10000 + b"\r\n"


@pytest.mark.parametrize("path", [TICKET, REPORT, STATIC + "x"])
def test_a_body_in_chunks_is_not_kept_beyond_its_limit(server, path):
    """It would have no end."""
    head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = sent(server, head, *[CHUNK] * 200)
    # A connection that is cut while much is on its way may lose the answer.
    assert answer[:12] in (b"HTTP/1.1 413", b"")


@pytest.mark.parametrize(("path", "cap"), [(TICKET, CAP), (REPORT, CAP), (STATIC + "x", FORM_CAP)])
def test_a_body_in_chunks_that_is_a_little_too_long_gets_an_answer(server, path, cap):
    head = f"POST {path} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    chunks = [CHUNK] * (cap // 0x10000)
    assert not sent(server, head, *chunks, b"0\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert sent(server, head, *chunks, CHUNK, b"0\r\n\r\n").startswith(b"HTTP/1.1 413")


def test_a_body_in_chunks_that_is_short_enough_is_read(job):
    body = json.dumps({"ticket": job.ticket, "run": RUN, "job": "12"}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % letter for letter in body)
    head = f"POST {TICKET} HTTP/1.1\r\nHost: hub\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert sent(job.server, head, chunks, b"0\r\n\r\n").startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    "lengths",
    ["Content-Length: 2\r\nContent-Length: 94371840", "Content-Length: 2\r\nTransfer-Encoding: chunked"],
    ids=["two lengths", "a length and chunks"],
)
@pytest.mark.parametrize("path", [TICKET, STATIC + "x"])
def test_a_body_with_two_ends_is_refused(server, path, lengths):
    answer = sent(server, f"POST {path} HTTP/1.1\r\nHost: hub\r\n{lengths}\r\n\r\n{{}}")
    assert answer[:12] in (b"HTTP/1.1 400", b"HTTP/1.1 413")


@pytest.mark.parametrize(
    "word", ["a b" * 10, "ünï" * 10, "a\n" * 15, "\u202e" + "r" * 30, "key:" + "0" * 64, "r" * 201]
)
@pytest.mark.parametrize("field", ["ticket", "run", "report_key", "job"])
def test_a_secret_has_the_letters_of_one(job, field, word):
    job.started()
    if field == "report_key":
        answer = job.server.post(REPORT, {"report_key": word, "event": "warned"})
    else:
        answer = job.server.post(TICKET, {"ticket": job.ticket, "run": RUN, "job": "12"} | {field: word})
    assert answer.status == 400
    assert job.row.record.run == RUN


# --- how many


@pytest.fixture
def limited(monkeypatch):
    """As a Hub limits its callers; the refusals that it would write."""
    events = []

    def note(event):
        if isinstance(event, Refusal):
            events.append(event)

    monkeypatch.setattr(ledger(), "outside", Outside(lambda row: True, (note,)))
    monkeypatch.setattr(endpoints, "_strangers", Refusals(in_all=600))
    monkeypatch.setattr(endpoints, "_jobs", Refusals())
    monkeypatch.setattr(endpoints, "_repeats", Refusals())
    return events


def bodies(job):
    """What a stranger may try."""
    while True:
        yield TICKET, {"ticket": secrets.token_urlsafe(32), "run": RUN, "job": "12"}
        yield REPORT, {"report_key": secrets.token_urlsafe(32), "event": "warned"}
        yield TICKET, b"{"
        yield REPORT, b"null"


def test_who_is_refused_often_gets_one_short_answer_and_no_line(job, limited):
    before = len(job.server.log.getvalue())
    answers = [job.server.post(*call) for call in itertools.islice(bodies(job), 500)]
    statuses = collections.Counter(answer.status for answer in answers)
    assert statuses == {403: 30, 400: 30, 429: 440}
    assert [answer.status for answer in answers[60:]] == [429] * 440
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in answers[60:])
    assert len(limited) == 30
    log = job.server.log.getvalue()[before:]
    assert log.count("calls from 127.0.0.1 are limited") == 1
    assert log.count("\n") < 130


def test_what_a_stranger_does_limits_no_job_at_its_address(job, limited):
    for call in itertools.islice(bodies(job), 100):
        job.server.post(*call)
    job.started()
    assert job.listening().status == 200
    assert job.listening(20001).status == 409


def test_many_honest_starts_at_one_address_meet_no_limit(server, limited):
    """Each asks several times before its job may have its environment."""
    jobs = [Job(server) for _ in range(150)]
    try:
        with ThreadPoolExecutor(8) as pool:
            for state, status in [*[(JobState.PENDING, 503), (JobState.UNKNOWN, 503)] * 3, (JobState.RUNNING, 200)]:
                for job in jobs:
                    job.status = JobStatus(state, host="n1")
                answers = list(pool.map(Job.trade, jobs))
                assert {answer.status for answer in answers} == {status}
            for job, answer in zip(jobs, answers, strict=True):
                job.key = answer.json["report_key"]
            assert {answer.status for answer in pool.map(Job.listening, jobs)} == {200}
        assert limited == []
    finally:
        for job in jobs:
            job.over()


def test_who_has_a_ticket_does_not_have_the_scheduler_asked_without_end(job, limited):
    job.requeues().started()
    before = len(job.asked_after)
    statuses = collections.Counter(job.trade(run=secrets.token_urlsafe(24)).status for _ in range(200))
    assert statuses == {403: 60, 429: 140}
    assert len(job.asked_after) - before == 60
    # The run that it is for is none of these.
    assert job.trade().status == 200
    assert job.listening().status == 200


def test_a_job_that_repeats_itself_without_end_costs_the_hub_little(job, limited):
    """Its launcher asks again while an answer is lost; a program of its owner may go on for ever."""
    job.started()
    before, earlier = len(job.asked_after), len(job.server.log.getvalue())
    assert collections.Counter(job.trade().status for _ in range(200)) == {200: 60, 429: 140}
    assert len(job.asked_after) - before == 60
    assert job.listening().status == 200
    for _ in range(50):
        assert job.report(event="warned").status == 200
        assert job.ended(message="my last words").status == 200
    log = job.server.log.getvalue()[earlier:]
    assert log.count("ends soon") == log.count("my last words") == 1


def test_the_first_word_of_an_end_is_its_last(job):
    job.started()
    job.ended(message="one")
    job.ended(message="another")
    assert job.row.report.message == "one"


def test_a_signature_is_checked_for_those_who_have_a_ticket(job):
    stranger = {"ticket": secrets.token_urlsafe(32), "job": "12", "csr": CSR[:-60]}
    assert job.server.post(TICKET, stranger).status == 403
    assert job.server.post(TICKET, stranger | {"ticket": job.ticket}).status == 400


def test_a_login_of_the_hub_gives_no_right_here(job):
    for headers in (
        {"Authorization": "token " + "x" * 32},
        {"Cookie": "jupyterhub-hub-login=x"},
        {"Origin": "http://e"},
    ):
        answer = job.server.post(TICKET, {"ticket": "x" * 43, "run": RUN, "job": "12"}, **headers)
        assert answer.status == 403


SECRETS = st.sampled_from(["x" * 43, "", RUN, CSR]) | st.text(max_size=300)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        "ticket",
        "run",
        "csr",
        "job",
        "report_key",
        "event",
        "port",
        "reason",
        "message",
        "log",
        "exit_code",
        "signal",
        "host",
    ]
)
BODIES = st.one_of(
    st.binary(max_size=100),
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(NAMES | st.text(max_size=10), VALUES | SECRETS, max_size=8).map(
        lambda value: json.dumps(value).encode()
    ),
)


@settings(max_examples=300, deadline=None)
@given(path=st.sampled_from([TICKET, REPORT]), body=BODIES)
def test_whatever_a_stranger_sends_is_refused_and_changes_nothing(server, path, body):
    answer = server.post(path, body)
    assert answer.status in (400, 403)
    assert answer.json["status"] == answer.status


@settings(max_examples=100, deadline=None)
@given(body=st.dictionaries(NAMES, VALUES, max_size=6))
def test_whatever_a_launcher_sends_is_taken_or_refused_and_never_an_error(server, body):
    job = Job(server)
    try:
        job.started()
        answer = job.server.post(REPORT, {**body, "report_key": job.key})
        assert answer.status in (200, 400)
        if answer.status == 400:
            assert (job.row.record.port, job.row.report) == (0, None)
    finally:
        job.over()


# --- what is told of secrets


def assert_silent(answer, job, but=None):
    """No secret in an answer, hashes included; `but` is one that the caller may have."""
    row = job.row
    runs = (RUN, OTHER_RUN, mark_of(CSR), mark_of(OTHER_CSR))
    keys = [key for run in runs if (key := ledger().keys.report_key(row.tag, run)) != but]
    hidden = [
        job.ticket,
        row.record.ticket_hash,
        *keys,
        row.record.report_key_hash,
        ENVIRONMENT["JUPYTERHUB_API_TOKEN"],
    ]
    text = answer.data.decode() + str(answer.headers)
    assert not [secret for secret in hidden if secret and secret in text]


def test_a_launchers_words_are_kept_without_what_is_no_text(job):
    job.started()
    job.ended(message="over\nand\x1b[2J out\x00", log=["tab\there", "ünï"])
    assert job.row.report.message == "over and [2J out "
    assert job.row.report.log == ("tab here", "ünï")


def test_a_launchers_words_make_no_lines_of_their_own_in_the_log(job):
    before = len(job.server.log.getvalue())
    job.started()
    job.ended(message="over\n[I 2026-11-21 05:00:00 JupyterHub] User bob logged in\x1b[2J")
    log = job.server.log.getvalue()[before:]
    assert "over" in log
    assert "\n[I 2026" not in log
    assert "\x1b" not in log


def test_no_secret_is_in_the_log(job):
    before = len(job.server.log.getvalue())
    wrong = secrets.token_urlsafe(32)
    job.trade(ticket=wrong)
    job.trade(extra=1)
    job.started()
    job.trade(run=OTHER_RUN)
    job.listening("twenty")
    job.listening()
    job.ended()
    log = job.server.log.getvalue()[before:]
    assert "job 12 is running on n1 and got its environment" in log
    assert "job 12 reports its end: server-exited" in log
    for secret in (wrong, job.ticket, job.key, RUN, OTHER_RUN, ENVIRONMENT["JUPYTERHUB_API_TOKEN"]):
        assert secret not in log


@pytest.mark.parametrize("path", [TICKET, REPORT])
def test_what_a_stranger_calls_its_keys_gets_nowhere(job, path):
    name = "x\n[I 2099-01-01 JupyterHub] forged line"
    body = {"ticket": "t" * 30, "job": "1", "run": RUN, "report_key": "k" * 30, "event": "warned", name: 1}
    answer = job.server.post(path, body)
    assert answer.status == 400
    assert b"forged" not in answer.data
    assert "forged" not in job.server.log.getvalue()


def test_a_server_without_a_key_is_never_reached_where_there_is_tls(job):
    job.with_tls()
    job.key = job.trade().json["report_key"]
    assert job.listening(20000).status == 409
    assert job.row.record.port == 0
