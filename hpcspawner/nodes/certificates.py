"""Certificates for servers: each for the key of one run of one job, on the node that the scheduler names.

Signed by the authority that JupyterHub keeps for single-user servers (`internal_ssl`); the proxy and the Hub trust it,
and check the name.
"""

import asyncio
import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certipy import Certipy
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "notebooks-ca"
KEY = "key:"
"""Prefix of a run's mark if the run identified itself by a public key."""

# The clocks of a cluster differ a little.
_EARLIER = datetime.timedelta(minutes=10)
# A job may be suspended for a while, or given more time by an administrator.
MARGIN_S = 24 * 3600
_LONGEST_COMMON_NAME = 64


def read_request(text: str) -> x509.CertificateSigningRequest:
    """A signing request whose sender has the key, which is an EC one on P-256; else ValueError.

    Nothing else in it counts, no name and no extension.
    """
    try:
        request = x509.load_pem_x509_csr(text.encode())
        key = request.public_key()
        # Before the signature: that of a huge RSA key takes long to check.
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("the key is not on the curve P-256")
        if not request.is_signature_valid:
            raise ValueError("the request is not signed with its own key")
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, x509.InvalidVersion) as error:
        raise ValueError("not a signing request") from error
    return request


def mark(request: x509.CertificateSigningRequest) -> str:
    """The mark of the run that shows this key."""
    kind, form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    return KEY + hashlib.sha256(request.public_key().public_bytes(kind, form)).hexdigest()


@dataclass(frozen=True, slots=True)
class Authority:
    """Who signs: a certificate and its key, and the PEM text that servers trust to know the proxy and the Hub by."""

    certificate: x509.Certificate
    key: Any
    trusted: str

    @classmethod
    def of(cls, folder: str, bundle: str) -> "Authority":
        """JupyterHub's own for single-user servers, from `internal_certs_location` and its trust bundle."""
        files = Certipy(store_dir=folder).store.get_record(AUTHORITY)["files"]
        key = serialization.load_pem_private_key(Path(files["key"]).read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(Path(files["cert"]).read_bytes())
        return cls(certificate, key, Path(bundle).read_text(encoding="ascii"))

    async def certify(self, request: x509.CertificateSigningRequest, host: str, life_s: float) -> dict[str, str]:
        """What a launcher gets for its request: a certificate for `host` alone, good for `life_s` seconds and a day."""
        signed = await asyncio.to_thread(self._sign, request, host, life_s)
        return {
            "certificate": signed.public_bytes(serialization.Encoding.PEM).decode(),
            "authorities": self.trusted,
        }

    def _sign(self, request: x509.CertificateSigningRequest, host: str, life_s: float) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        names = [x509.NameAttribute(NameOID.COMMON_NAME, host)] if len(host) <= _LONGEST_COMMON_NAME else []
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
        public = self.certificate.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name(names))
            .issuer_name(self.certificate.subject)
            .public_key(request.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _EARLIER)
            .not_valid_after(now + datetime.timedelta(seconds=life_s + MARGIN_S))
            # Critical where there is no other name (RFC 5280, 4.2.1.6).
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=not names)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_KEY_USAGE, critical=True)
            .add_extension(usage, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
            .add_extension(_known_by(self.certificate, public), critical=False)
            .sign(self.key, hashes.SHA256())
        )


_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def names_host(file: str, host: str) -> bool:
    """Whether the certificate in this PEM file is one for this host or address."""
    certificate = x509.load_pem_x509_certificate(Path(file).read_bytes())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    # Names may have been written with capitals.
    known = [name.lower() for name in names.get_values_for_type(x509.DNSName)]
    return host.lower() in known or _general_name(host) in names


def days_left(file: str) -> int:
    """For how many days the first certificate in this PEM file is still good."""
    certificate = x509.load_pem_x509_certificate(Path(file).read_bytes())
    return (certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)).days


def _known_by(certificate: x509.Certificate, public: Any) -> x509.AuthorityKeyIdentifier:
    """How the signer is found: by the identifier that its own certificate has."""
    try:
        own = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)
