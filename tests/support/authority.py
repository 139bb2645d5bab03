"""Certificates as only a Hub can make them, made with its own keys; for tests that need to know what would happen."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

PEM = serialization.Encoding.PEM


class Authority:
    """One of the authorities in the folder of a Hub's internal certificates, such as `notebooks-ca`."""

    def __init__(self, folder, name="notebooks-ca"):
        place = Path(folder) / name / name
        self._certificate = x509.load_pem_x509_certificate(place.with_suffix(".crt").read_bytes())
        self._key = serialization.load_pem_private_key(place.with_suffix(".key").read_bytes(), None)

    def certify(self, name, *, good_for=datetime.timedelta(hours=1)):
        """Certificate and key of a server with this name, as PEM texts; a span below zero is one that is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server")]))
            .issuer_name(self._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + good_for)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return certificate.public_bytes(PEM).decode(), secret.decode()
