"""Strangers who hold what is scarce: connections without a word, and bodies that never end."""

import contextlib
import socket
import ssl
from urllib.parse import urlsplit

import pytest
from support.hub import Hub

pytestmark = pytest.mark.both_hubs
FILES, MANY, MIB = 300, 500, 1 << 20
# Another host than the proxy's.
ELSEWHERE = "127.0.0.2"


@pytest.fixture
def hub(make_hub):
    """A Hub with few files; so many connections cost a test little."""

    class Small(Hub):
        def start(self, prefix=()):
            super().start((*prefix, "prlimit", f"--nofile={FILES}:{FILES * 40}"))

    with make_hub(kind=Small) as running:
        yield running


@contextlib.contextmanager
def many(make):
    """Connections that are held; those that the other side ends count as well."""
    with contextlib.ExitStack() as stack:
        for _ in range(MANY):
            with contextlib.suppress(OSError):
                stack.enter_context(make())
        yield


def silent(hub):
    """To the Hub's own port, as from any node; not even TLS is spoken."""
    return socket.create_connection(("127.0.0.1", hub.hub_port), timeout=10, source_address=(ELSEWHERE, 0))


def unfinished(hub, length, sent):
    """To the public address: a call whose body lacks its end."""
    url = urlsplit(hub.url)
    context = ssl.create_default_context(cafile=hub.folder / "ca.pem")
    plain = socket.create_connection((url.hostname, url.port), timeout=10)
    channel = context.wrap_socket(plain, server_hostname=url.hostname)
    channel.sendall(f"POST /hub/login HTTP/1.1\r\nHost: hub\r\nContent-Length: {length}\r\n\r\n".encode() + sent)
    return channel


ATTACKS = {
    "silent": silent,
    "slow": lambda hub: unfinished(hub, 1000, b"a"),
    "long": lambda hub: unfinished(hub, MIB, b" " * (MIB - 1)),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_who_holds_connections_keeps_nobody_from_working(hub, attack):
    """A server needs files of every kind: pipes to the scheduler, connections to and from its launcher, a probe."""
    before = len(hub.log())
    with many(lambda: ATTACKS[attack](hub)):
        hub.spawn("alice", {"walltime": "10m"})
        session = hub.log_in("alice")
        assert session.get(f"{hub.url}/user/alice/lab", timeout=60).ok
    hub.stop_server("alice")
    log = hub.log()[before:]
    assert "Too many open files" not in log
    assert "hpcspawner: too many connections" in log
