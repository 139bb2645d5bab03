"""What must hold before a Hub serves, and what it says in time; `tests/hub/test_tls.py` has it of real Hubs."""

import datetime
import ipaddress
import logging
from types import SimpleNamespace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hpcspawner.hub import hooks, names, proof


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
    certificate_zone = names.ZONE

    def __init__(self, config):
        pass


def hub(folder, days):
    proxy = SimpleNamespace(
        command=["env", f"NODE_OPTIONS={hooks.node_options()}"], should_start=True, api_url="https://127.0.0.1:1"
    )
    return SimpleNamespace(
        log=logging.getLogger("proof"),
        spawner_class=Spawner,
        config=None,
        proxy=proxy,
        hub=SimpleNamespace(api_url="https://127.0.0.1:8081/hub/api"),
        internal_ssl=True,
        internal_ssl_cert=certificate(folder, days),
        internal_certs_location="internal-ssl",
        exit=pytest.fail,
    )


@pytest.mark.parametrize(("days", "told"), [(59, True), (1, True), (61, False)])
async def test_certificates_that_run_out_soon_are_told_of(tmp_path, caplog, days, told):
    await proof.reachable(hub(tmp_path, days))
    assert (f"RUN OUT IN {days} DAYS" in caplog.text) is told
    assert caplog.text.count("\n") == told
