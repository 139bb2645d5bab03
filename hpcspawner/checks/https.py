"""Checks of the Hub's public address: who answers there, and with which certificate."""

import datetime
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hpcspawner.checks.finding import Finding, good, not_checked, warning, wrong
from hpcspawner.nodes.certificates import names_host

_LIMIT_S = 10.0
_SOON_DAYS = 21
# What OpenSSL calls a certificate for another host or address, and one that is out of date or not valid yet.
_WRONG_NAME, _WRONG_TIME = (62, 64), (9, 10)


def address(url: str, ca_file: str) -> Iterable[Finding]:
    """As a node's launcher will see it: it trusts `ca_file` alone, or this machine's own store."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), parts.port or 443
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (OSError, ssl.SSLError) as error:
        yield wrong(f"ca_file {ca_file} can't be used: {error}", "give the PEM file of the authority")
        return
    try:
        with (
            socket.create_connection((host, port), _LIMIT_S) as plain,
            context.wrap_socket(plain, server_hostname=host) as tls,
        ):
            shown = tls.getpeercert(binary_form=True) or b""
    except ssl.SSLCertVerificationError as error:
        yield _refused(error, url, ca_file)
        return
    except socket.gaierror as error:
        yield wrong(
            f"{host} can't be resolved: {error.strerror}", "correct callback_url, or add the name to DNS or /etc/hosts"
        )
        return
    except OSError as error:
        yield warning(
            f"nothing answers by TLS at {host}, port {port}: {error.strerror or error}",
            "start the Hub and its proxy and check again; if they run, look at callback_url and at the firewall",
        )
        return
    yield good(f"{host}:{port} answers with a certificate that nodes will trust")
    yield dates(x509.load_der_x509_certificate(shown), f"the certificate of {host}")


def _refused(error: ssl.SSLCertVerificationError, url: str, ca_file: str) -> Finding:
    why = error.verify_message
    if error.verify_code in _WRONG_NAME:
        return wrong(
            f"the certificate at {url} is for another name: {why}", "use a name of the certificate in callback_url"
        )
    if error.verify_code in _WRONG_TIME:
        return wrong(f"the certificate at {url} is not valid now: {why}", "renew it, and check this machine's clock")
    whose = f"the authority in {ca_file}" if ca_file else "this machine's own store"
    cure = "let the certificate's file hold its whole chain, and name the authority in ca_file"
    return wrong(f"{whose} does not vouch for the certificate at {url}: {why}", cure)


def files(certificate: str, key: str, url: str) -> Iterable[Finding]:
    """The two files that the Hub's own proxy serves."""
    if not certificate:
        yield not_checked("the Hub's proxy has no certificate of its own (JupyterHub.ssl_cert)")
        return
    try:
        shown = x509.load_pem_x509_certificate(Path(certificate).read_bytes())
        secret = serialization.load_pem_private_key(Path(key).read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        yield wrong(
            f"ssl_cert {certificate} or ssl_key {key} can't be read: {error}",
            "both must be PEM, the key without a password",
        )
        return
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    if shown.public_key().public_bytes(*form) != secret.public_key().public_bytes(*form):
        yield wrong(f"{key} is not the key of {certificate}", "name the key that the certificate was made with")
        return
    if Path(key).stat().st_mode & 0o077:
        yield warning(f"other accounts may read {key}", f"chmod 0600 {key}")
    host = str(urlsplit(url).hostname)
    if url and not names_host(certificate, host) and not _wildcard(shown, host):
        yield wrong(f"{certificate} does not name {host}, the host of callback_url", "use a name of the certificate")
    yield dates(shown, certificate)


def _wildcard(certificate: x509.Certificate, host: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    return f"*.{host.partition('.')[2]}" in names.get_values_for_type(x509.DNSName)


def dates(certificate: x509.Certificate, what: str) -> Finding:
    """For how long a certificate is still good."""
    now = datetime.datetime.now(datetime.UTC)
    if certificate.not_valid_before_utc > now:
        return wrong(
            f"{what} is not valid before {certificate.not_valid_before_utc:%d %B %Y}", "check this machine's clock"
        )
    days = (certificate.not_valid_after_utc - now).days
    if certificate.not_valid_after_utc <= now:
        return wrong(f"{what} expired on {certificate.not_valid_after_utc:%d %B %Y}", "renew it, and restart the Hub")
    if days < _SOON_DAYS:
        return warning(f"{what} expires in {days} days", "renew it, and restart the Hub")
    return good(f"{what} is good for {days} days")
