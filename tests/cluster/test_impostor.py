"""Bob, whose own server has a good certificate, sits on the port of alice's server, on the same node: he hears nothing.

Neither the proxy nor the Hub tells him one byte of a request, be it before her server takes a port, while it is dead
and the Hub does not know, while the Hub starts anew, or after the end.
"""

import datetime
import os
import shutil
import signal
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from cluster.conftest import jobs_of
from cluster.drills.ground import Ground
from cryptography import x509
from support.attacker import Impostor
from support.authority import Authority
from support.faults import within
from support.hub import server_path
from support.processes import Processes

from hpcspawner.cli.certificate import write_certificate

# The Hub's own client is another one on either.
pytestmark = pytest.mark.both_hubs
NODE = "n1"
# One for bob's own server, one for him to sit on, one for alice's.
PORTS = {20001, 20002, 20003}
MORE = f"""
[job]
ports = [{min(PORTS)}, {max(PORTS)}]
"""
EXTRA = "c.Spawner.poll_interval = 4"
MARK = "what-alice-says-to-her-server"
WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


@pytest.fixture(autouse=True)
def nothing_left():
    """The servers of this module stay from test to test; `ground` takes them away."""


@pytest.fixture(scope="module")
def ground(lab, tmp_path_factory):
    with Ground(lab, tmp_path_factory.mktemp("ground"), "slurm", ("alice", "bob"), more=MORE, extra=EXTRA) as ground:
        ground.clear()
        start(ground, "bob")
        yield ground


@pytest.fixture
def impostor(lab, ground):
    with Impostor(lab, NODE, "bob") as impostor:
        impostor.order(certificate="mine")
        yield impostor


def start(ground, user):
    ground.start(user, partition="debug")
    ground.hub.wait_ready(user)


def processes(ground, user):
    return Processes(ground.lab.folder, NODE, *jobs_of(user))


def port_of(running):
    return urlsplit(running.environment["JUPYTERHUB_SERVICE_URL"]).port


def heard(impostor):
    """How many bytes of what anybody says he has got."""
    seen = impostor.seen()
    return seen["encrypted"] + seen["plain"]


def knocks(impostor, more, seconds=20):
    """Wait until somebody has come to his door so many times more."""
    wanted = impostor.seen()["connections"] + more
    within(seconds, lambda: impostor.seen()["connections"] >= wanted, "nobody came to the impostor's port")


class Visitor:
    """Alice's browser, which asks her server again and again, in plain requests and for WebSockets, while `with` lasts.

    `answers` are the status and the text of each answer to a plain request.
    """

    def __init__(self, hub):
        self._url = f"{hub.url}/user/alice/whoami"
        self._session = hub.log_in("alice")
        self._session.headers["X-Mark"] = MARK
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.answers = []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._over.set()
        self._thread.join()

    def _ask(self):
        while not self._over.wait(0.05):
            # Each twice, as the impostor takes turns too.
            for headers in ({}, {}, WEBSOCKET, WEBSOCKET):
                try:
                    answer = self._session.get(self._url, headers=headers, timeout=10, allow_redirects=False)
                except requests.RequestException:
                    continue
                if not headers:
                    self.answers.append((answer.status_code, answer.text))


def freeze_and_kill(running):
    """The server is dead and its job is not, for the script that the scheduler watches stands still."""
    os.kill(running.shell, signal.SIGSTOP)
    # The launcher first, or it would report the end.
    os.kill(running.launcher, signal.SIGKILL)
    os.kill(running.server, signal.SIGKILL)
    # Which only a launcher that lives to its end takes away.
    shutil.rmtree(Path(running.environment["JUPYTERHUB_SSL_KEYFILE"]).parent)


def test_who_sits_on_a_port_before_is_passed_over(ground, impostor):
    taken = min(PORTS - {port_of(processes(ground, "bob"))})
    impostor.order(port=taken)
    within(5, lambda: impostor.seen()["listens"], "the port is not free")
    start(ground, "alice")
    assert PORTS - {taken, port_of(processes(ground, "bob"))} == {port_of(processes(ground, "alice"))}
    with Visitor(ground.hub) as visitor:
        within(10, lambda: len(visitor.answers) > 10, "no answers")
    assert {status for status, _ in visitor.answers} == {200}
    # Now no port is left.
    ground.hub.api("POST", server_path("alice", "second"), json={"partition": "debug"})
    *_, last = ground.hub.events("alice", "second")
    assert last["failed"]
    assert f"No port between {min(PORTS)} and {max(PORTS)} on {NODE} is free" in last["message"]
    assert heard(impostor) == 0


def certificates(hub, folder, name):
    """What an impostor may show who is not this server, by what is wrong with it."""
    authority = Authority(hub.folder / "internal-ssl")
    label, _, rest = name.partition(".")
    write_certificate(folder, [name])
    yield "another authority", [(folder / f"server.{end}").read_text() for end in ("pem", "key")]
    yield "over", authority.certify(name, good_for=datetime.timedelta(minutes=-5))
    yield "the node", authority.certify(NODE)
    yield "another job", authority.certify(f"{label[:-1]}{'a' if label[-1] != 'a' else 'b'}.{rest}")
    yield "another node", authority.certify(f"{label}.n2.{rest.partition('.')[2]}")
    yield "bob's own", ("mine", "")


def name_of(running):
    """What alice's server is called in its certificate."""
    with open(running.environment["JUPYTERHUB_SSL_CERTFILE"], "rb") as file:
        certificate = x509.load_pem_x509_certificate(file.read())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (name,) = names.get_values_for_type(x509.DNSName)
    return name


def test_who_takes_the_port_of_a_dead_server_hears_nothing(ground, impostor, tmp_path):
    if not jobs_of("alice"):
        start(ground, "alice")
    running = processes(ground, "alice")
    name = name_of(running)
    impostor.order(port=port_of(running))
    with Visitor(ground.hub) as visitor:
        freeze_and_kill(running)
        within(10, lambda: impostor.seen()["listens"], "the port was not free")
        for wrong, (shown, key) in certificates(ground.hub, tmp_path, name):
            impostor.order(certificate=shown, key=key)
            knocks(impostor, 8)
            assert heard(impostor) == 0, wrong
        assert not any("impostor" in text for _, text in visitor.answers)
        # Had he her server's name, signed by the Hub, he would hear it: so the others could have failed.
        shown, key = Authority(ground.hub.folder / "internal-ssl").certify(name)
        impostor.order(certificate=shown, key=key)
        for said in (MARK, "jupyterhub-session-id", "upgrade: websocket"):
            within(20, lambda said=said: said in impostor.seen()["text"].lower(), f"not even so did he hear {said}")
        impostor.order(certificate="mine")
        knocks(impostor, 8)
        had = heard(impostor)
        # Until here the job goes on, for all that the scheduler knows. Now it ends; some time later the Hub sees it.
        os.kill(running.shell, signal.SIGKILL)
        within(40, lambda: ground.server("alice") is None, "the Hub does not see the end")
        told = len(visitor.answers)
        within(20, lambda: len(visitor.answers) > told + 5, "no answers")
    assert heard(impostor) == had


def test_a_hub_that_starts_again_tells_him_nothing(ground, impostor):
    if not jobs_of("alice"):
        start(ground, "alice")
    running = processes(ground, "alice")
    name = name_of(running)
    impostor.order(port=port_of(running))
    freeze_and_kill(running)
    within(10, lambda: impostor.seen()["listens"], "the port was not free")
    ground.hub.terminate()
    ground.hub.start()
    # It looks for her server by itself.
    knocks(impostor, 2, 40)
    assert heard(impostor) == 0
    shown, key = Authority(ground.hub.folder / "internal-ssl").certify(name)
    impostor.order(certificate=shown, key=key)
    within(40, lambda: heard(impostor), "not even with her server's name did the Hub say a word")
    os.kill(running.shell, signal.SIGKILL)
    within(40, lambda: ground.server("alice") is None, "the Hub does not see the end")
