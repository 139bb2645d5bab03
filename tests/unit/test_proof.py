"""What must hold before a Hub serves, and what it says in time; `tests/hub/test_tls.py` has it of real Hubs."""

import datetime
import ipaddress
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from certipy import Certipy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hpcspawner.hub import peers, startup_checks
from hpcspawner.nodes import certificates, resolvers, server_names


def certificate(folder, days):
    """A file as JupyterHub keeps it, for 127.0.0.1, that is good for so many days."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.UTC)
    name = x509.Name([])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = (
        builder.serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(days=days, hours=1))
    )
    mine = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    signed = builder.add_extension(mine, critical=True).sign(key, hashes.SHA256())
    file = folder / "hub.crt"
    file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return str(file)


class Spawner:
    certificate_names = "job"
    certificate_zone = server_names.ZONE

    def __init__(self, config):
        pass


def authorities(folder, **files):
    """As `internal_ssl` keeps them; `files` are those of authorities that the site has brought."""
    store = Certipy(store_dir=str(folder))
    for name in (certificates.AUTHORITY, peers.HUB, peers.PROXY):
        if name.replace("-", "_") in files:
            store.store.add_record(name, is_ca=True, files=files[name.replace("-", "_")])
        else:
            store.create_ca(name)
    return store


def hub(folder, days):
    authorities(folder / "internal-ssl")
    proxy = SimpleNamespace(
        command=["env", f"NODE_OPTIONS={resolvers.node_options()}"], should_start=True, api_url="https://127.0.0.1:1"
    )
    return SimpleNamespace(
        log=logging.getLogger("proof"),
        spawner_class=Spawner,
        config=None,
        proxy=proxy,
        hub=SimpleNamespace(api_url="https://127.0.0.1:8081/hub/api"),
        internal_ssl=True,
        internal_ssl_cert=certificate(folder, days),
        internal_certs_location=str(folder / "internal-ssl"),
        exit=pytest.fail,
    )


@pytest.mark.parametrize(("days", "told"), [(59, True), (1, True), (61, False)])
async def test_certificates_that_run_out_soon_are_told_of(tmp_path, caplog, days, told):
    await startup_checks.reachable(hub(tmp_path, days))
    assert (f"EXPIRE IN {days} DAYS" in caplog.text) is told
    assert caplog.text.count("\n") == told


async def test_a_hub_that_can_not_tell_servers_from_itself_stops(tmp_path, caplog):
    """One authority of the site's for all."""
    site = authorities(tmp_path / "site").store.get_record(certificates.AUTHORITY)["files"]
    app = hub(tmp_path, 100)
    app.internal_certs_location = str(tmp_path / "shared")
    authorities(tmp_path / "shared", notebooks_ca=site, proxy_client_ca=site)
    stopped = []
    app.exit = stopped.append
    await startup_checks.reachable(app)
    assert stopped == [1]
    assert "the authorities notebooks-ca and proxy-client-ca have the same name, CN=notebooks-ca" in caplog.text


@pytest.mark.parametrize(
    ("issuer", "peer"),
    [
        (certificates.AUTHORITY, peers.Peer.SERVER),
        (peers.PROXY, peers.Peer.PROXY),
        (peers.HUB, peers.Peer.OTHER),
    ],
)
def test_who_calls_is_known_by_who_signed(tmp_path, issuer, peer):
    store = authorities(tmp_path)
    # Whatever a certificate calls itself.
    for name in ("one", "proxy-client", certificates.AUTHORITY + " "):
        file = store.create_signed_pair(name, issuer)["files"]["cert"]
        shown = x509.load_pem_x509_certificate(Path(file).read_bytes()).public_bytes(serialization.Encoding.DER)
        assert peers.Authorities.of(str(tmp_path)).peer(shown) is peer
    assert peers.Authorities.of(str(tmp_path)).peer(None) is peers.Peer.OTHER
