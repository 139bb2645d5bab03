"""The way to a server: its address, and who is taken for it; over real TLS as JupyterHub's `internal_ssl` has it."""

import asyncio
import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from support.hub import free_ports
from support.internal_tls import InternalTls, Listener
from support.jobs import a_job, put

from hpcspawner.jobs.keys import Keys
from hpcspawner.nodes import address
from hpcspawner.nodes.address import Naming, Patience, ServerAddress, Sign
from hpcspawner.nodes.certificates import MARGIN_S, mark
from hpcspawner.nodes.server_names import ZONE

KEYS = Keys(b"s" * 32, "hub")
JOB, HOST = Naming(KEYS, "{node}", ZONE), Naming(KEYS, "{node}", "")
RESOLVED = replace(JOB, node="{node}.cl")
PATH = "/user/alice/api"
TAG, SHOWN = "h123456abcdefgh", "key:" + "0" * 64
NONCE = KEYS.nonce(TAG, SHOWN)


@pytest.fixture(scope="module")
def internal(tmp_path_factory):
    return InternalTls(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def to_job(internal):
    return ServerAddress(JOB, internal.tls)


def row_of(listener=None, run=SHOWN, host="127.0.0.1", port=0, walltime="2h"):
    port = listener.port if listener else port
    return a_job(tag=TAG, choices={"walltime": walltime}, run=run, host=host, port=port)


# --- addresses


@pytest.mark.parametrize(
    ("naming", "host", "run", "address"),
    [
        pytest.param(JOB, "n1", SHOWN, f"https://j{NONCE}.n1.{ZONE}:20000", id="its job"),
        pytest.param(JOB, "N1", SHOWN, f"https://j{NONCE}.n1.{ZONE}:20000", id="capitals"),
        pytest.param(JOB, "10.0.0.1", SHOWN, f"https://j{NONCE}.10.0.0.1.{ZONE}:20000", id="an address"),
        pytest.param(
            JOB,
            "2001:db8::1",
            SHOWN,
            f"https://j{NONCE}.v6.2001-0db8-0000-0000-0000-0000-0000-0001.{ZONE}:20000",
            id="a long address",
        ),
        pytest.param(RESOLVED, "n1", SHOWN, f"https://j{NONCE}.n1.cl.{ZONE}:20000", id="resolved"),
        pytest.param(replace(JOB, zone="z.org"), "n1", SHOWN, f"https://j{NONCE}.n1.z.org:20000", id="the site's zone"),
        pytest.param(HOST, "n1", SHOWN, "https://n1:20000", id="its host"),
        pytest.param(HOST, "2001:db8::1", SHOWN, "https://[2001:db8::1]:20000", id="its host's address"),
        pytest.param(JOB, "n1", "r" * 30, "http://n1:20000", id="without a key"),
        pytest.param(JOB, "2001:db8::1", "r" * 30, "http://[2001:db8::1]:20000", id="address without a key"),
        pytest.param(RESOLVED, "n1", "r" * 30, "http://n1.cl:20000", id="resolved without a key"),
    ],
)
def test_the_address_of_a_server_holds_its_node_and_names_its_run(internal, naming, host, run, address):
    row = row_of(host=host, run=run, port=20000)
    # What a row's server speaks does not change with the Hub's setting.
    assert ServerAddress(naming, internal.tls).address(row) == ServerAddress(naming, None).address(row) == address


async def test_a_certificate_names_what_the_address_names(internal, to_job):
    request = internal.request()
    row = row_of(run=mark(request), port=20000)
    signed = await to_job.certify(row, request)
    certificate = x509.load_pem_x509_certificate(signed["certificate"].encode())
    (name,) = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert to_job.address(row) == f"https://{name.value}:20000"
    assert certificate.public_key() == request.public_key()
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert abs(left.total_seconds() - 2 * 3600 - MARGIN_S) < 120


async def test_without_tls_nothing_is_signed(internal):
    assert await ServerAddress(JOB, None).certify(row_of(), internal.request()) == {}


# --- who answers


async def named(internal, run=SHOWN, **options):
    """The settings of a server whose certificate is for this run on 127.0.0.1."""
    return await internal.server(f"j{KEYS.nonce(TAG, run)}.127.0.0.1.{ZONE}", **options)


async def test_a_server_with_the_jobs_certificate_answers(internal, to_job):
    async with Listener(await named(internal)) as server:
        assert await to_job.answers(row_of(server), PATH)
    host = f"j{NONCE}.127.0.0.1.{ZONE}"
    assert server.read == f"GET {PATH} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode()


async def test_the_key_that_was_made_for_a_request_serves_it(internal, to_job):
    """All the way: request, certificate, server, probe."""
    request = internal.request()
    row = row_of(run=mark(request))
    context = internal.settings(await to_job.certify(row, request))
    async with Listener(context) as server:
        put(row, port=server.port)
        assert await to_job.answers(row, PATH)


async def test_a_server_on_ipv6_answers(internal, to_job):
    row = row_of(host="::1")
    name = to_job.address(row).removeprefix("https://").rpartition(":")[0]
    async with Listener(await internal.server(name), address="::1") as server:
        put(row, port=server.port)
        assert await to_job.answers(row, PATH)


@pytest.mark.parametrize("asks", [True, False], ids=["as Jupyter", "that asks for nothing"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(f"j{KEYS.nonce(TAG, 'key:other')}.127.0.0.1.{ZONE}", id="another run of the job"),
        pytest.param(f"j{KEYS.nonce('hother', SHOWN)}.127.0.0.1.{ZONE}", id="another job"),
        pytest.param(f"j{NONCE}.n1.{ZONE}", id="another node"),
        pytest.param(f"*.127.0.0.1.{ZONE}.org", id="another zone"),
        pytest.param("127.0.0.1", id="the node alone"),
    ],
)
async def test_who_has_a_certificate_for_another_name_reads_nothing(internal, to_job, name, asks):
    async with Listener(await internal.server(name, asks=asks)) as server:
        assert not await to_job.answers(row_of(server), PATH)
    assert server.calls == 1
    assert server.read == b""


async def test_who_has_a_certificate_of_another_authority_reads_nothing(to_job, tmp_path):
    stranger = InternalTls(tmp_path)
    async with Listener(await named(stranger, asks=False)) as server:
        assert not await to_job.answers(row_of(server), PATH)
    assert server.read == b""


async def test_a_server_without_tls_where_there_must_be_some_reads_no_request(to_job):
    async with Listener() as server:
        assert not await to_job.answers(row_of(server), PATH)
    assert server.calls == 1
    assert PATH.encode() not in server.read


async def test_a_server_knows_the_hub_by_its_certificate(internal):
    """Whoever has none, as another user's job, gets no answer at all."""
    mine = internal.own
    async with Listener(await named(internal)) as server:
        signed = internal.folder / "server.crt", internal.folder / "server.key"
        another = address.Tls(internal.tls.authority, address.make_ssl_context(str(signed[1]), str(signed[0]), mine[2]))
        assert not await ServerAddress(JOB, another).answers(row_of(server), PATH)
    assert server.read == b""


async def test_a_server_from_before_there_was_tls_is_asked_without(to_job):
    async with Listener() as server:
        assert await to_job.answers(row_of(server, run="r" * 30), PATH)
    assert server.read.startswith(f"GET {PATH} HTTP/1.0\r\nHost: 127.0.0.1\r\n".encode())


async def test_a_server_with_tls_is_lost_where_there_is_none_any_more(internal):
    async with Listener(await named(internal)) as server:
        assert not await ServerAddress(JOB, None).answers(row_of(server), PATH)


@pytest.mark.parametrize(
    ("answer", "there"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", True),
        (b"HTTP/1.0 302\r\n\r\n", True),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.2 200\r\n", False),
        (b"HTTP/1.1\r\n", False),
        (b"\r\n", False),
        (b"", False),
        (b"HTTP/1.1 " + b"2" * 100_000, False),
        (b"\xff\xfe \x00\r\n", False),
    ],
)
async def test_a_server_is_there_if_it_knows_the_place(internal, to_job, answer, there):
    async with Listener(await named(internal), answer) as server:
        assert await to_job.answers(row_of(server), PATH) is there


@pytest.mark.parametrize("encrypted", [True, False], ids=["after the handshake", "before it"])
async def test_a_server_that_is_silent_does_not_answer(internal, to_job, monkeypatch, encrypted):
    monkeypatch.setattr(address, "_PROBE_S", 0.5)
    async with Listener(await named(internal) if encrypted else None, None) as server:
        assert not await to_job.answers(row_of(server), PATH)


NOWHERE = ["127.0.0.1", "nowhere.invalid", "n" * 64, "n1..x", "\udc80", "a b"]


@pytest.mark.parametrize("host", NOWHERE)
async def test_where_nothing_is_nothing_answers(to_job, host):
    """Whatever a scheduler may call a node."""
    row = row_of(host=host, port=free_ports(1)[0])
    assert not await to_job.answers(row, PATH)
    assert await to_job.sign(row) is Sign.NONE


@pytest.mark.parametrize("run", [SHOWN, "r" * 30], ids=["with TLS", "without"])
async def test_a_sign_of_life_is_had_without_a_word(internal, to_job, run, until):
    async with Listener(await named(internal) if run == SHOWN else None) as server:
        assert await to_job.sign(row_of(server, run=run)) is Sign.PROVEN
        # The kernel takes a connection before the listener hears of it.
        await until(lambda: server.calls)
    assert server.calls == 1
    assert server.read == b""


async def test_who_takes_connections_and_never_speaks_proves_nothing(to_job, monkeypatch):
    """A busy server, or somebody who sits on its port."""
    monkeypatch.setattr(address, "_PROBE_S", 0.5)
    async with Listener(None, None) as server:
        assert await to_job.sign(row_of(server)) is Sign.MUTE


P, M, N = Sign.PROVEN, Sign.MUTE, Sign.NONE


@pytest.mark.parametrize(
    ("signs", "gone_at"),
    [
        pytest.param({0: P, 10_000: P}, None, id="a server"),
        pytest.param({0: N, 30: N, 59: N, 60: N}, 60, id="a dead node"),
        pytest.param({0: N, 59: P, 60: N, 119: N, 120: N}, 120, id="a busy node"),
        pytest.param({0: M, 30: M, 599: M, 600: M}, 600, id="who says nothing"),
        pytest.param({0: M, 300: P, 600: M, 1199: M, 1200: M}, 1200, id="a server that was slow"),
        pytest.param({0: M, 590: N, 599: M, 600: N}, 600, id="who speaks now and then to nobody"),
        pytest.param({at: (M, N)[at // 50 % 2] for at in range(0, 601, 50)}, 600, id="who lets in every other one"),
        pytest.param({0: M, 100: N, 160: N}, 160, id="a dead node that was slow"),
    ],
)
def test_who_does_not_prove_to_be_the_server_has_so_much_time(signs, gone_at):
    patience = Patience()
    gone = [at for at, sign in signs.items() if patience.ends(sign, float(at))]
    assert gone == ([] if gone_at is None else [gone_at])


async def test_who_poses_as_the_server_is_no_sign_of_life(internal, to_job):
    async with Listener(await named(internal, run="key:another")) as server:
        assert await to_job.sign(row_of(server)) is Sign.NONE
    assert server.read == b""
    async with Listener() as plain:
        assert await to_job.sign(row_of(plain)) is Sign.NONE


async def test_what_is_kept_of_the_hubs_side_is_read_again_when_a_file_changes(internal, monkeypatch):
    files = [str(internal.folder / "internal"), str(Path(internal.own[2])), *internal.own]
    first = await address.Tls.kept(*files)
    assert await address.Tls.kept(*files) is first
    monkeypatch.setattr(address, "_LOOK_AGAIN_S", 0.0)
    assert await address.Tls.kept(*files) is first
    own = Path(internal.own[0])
    own.write_bytes(own.read_bytes() + b"\n")
    assert await address.Tls.kept(*files) is not first


async def test_it_is_read_once_for_all_who_ask_at_once(internal, monkeypatch):
    """Fifty servers that a Hub finds when it starts read fifty times, which took seconds."""
    files = [str(internal.folder / "internal"), str(Path(internal.own[2])), *internal.own]
    read, look = [], address._looked_at
    monkeypatch.setattr(address, "_kept", {})
    monkeypatch.setattr(address, "_looked_at", lambda *place: read.append(place) or look(*place))
    found = await asyncio.gather(*(address.Tls.kept(*files) for _ in range(50)))
    assert len({id(tls) for tls in found}) == len(read) == 1
