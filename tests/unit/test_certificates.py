"""What the Hub signs: for whose key, in whose name, for how long; with the authority that JupyterHub itself makes."""

import base64
import datetime
import hashlib
import ipaddress
import subprocess
from pathlib import Path

import pytest
from certipy import Certipy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from support.hub import require

from hpcspawner.nodes.certificates import MARGIN_S, Authority, days_left, mark, names_host, read_request

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
KEY = ec.generate_private_key(ec.SECP256R1())
HOUR_S = 3600
NAME = "jabcdefghijklmnop.n1.cluster.example.org.hpcspawner.internal"


def signing_request(key=KEY, algorithm=hashes.SHA256(), *extensions):  # noqa: B008 - has no state
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, algorithm)


def text_of(request):
    return request.public_bytes(PEM).decode()


def in_pem(data, kind="CERTIFICATE REQUEST"):
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(data).decode()}-----END {kind}-----\n"


REQUEST = signing_request()
GREEDY = signing_request(
    KEY,
    hashes.SHA256(),
    x509.BasicConstraints(ca=True, path_length=None),
    x509.SubjectAlternativeName([x509.DNSName("hub.example.org"), x509.DNSName("*")]),
    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The Hub's folder of internal certificates, as JupyterHub makes it."""
    folder = tmp_path_factory.mktemp("internal")
    bundles = Certipy(store_dir=str(folder)).trust_from_graph({"notebooks-ca": ["hub-ca", "proxy-client-ca"]})
    return folder, bundles["notebooks-ca"]


@pytest.fixture(scope="module")
def authority(certificates):
    folder, bundle = certificates
    return Authority.of(str(folder), bundle)


async def signed(authority, host=NAME, request=REQUEST, life_s=HOUR_S):
    answer = await authority.certify(request, host, life_s)
    assert set(answer) == {"certificate", "authorities"}
    return x509.load_pem_x509_certificate(answer["certificate"].encode())


def extension(certificate, kind):
    return certificate.extensions.get_extension_for_class(kind)


# --- what is asked for


def test_a_request_with_its_own_key_is_read():
    assert read_request(text_of(REQUEST)).public_key() == KEY.public_key()


def test_what_the_openssl_command_makes_is_read(tmp_path):
    command = [require("openssl"), "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    done = subprocess.run(
        [*command, "-subj", "/", "-keyout", tmp_path / "key.pem"], capture_output=True, text=True, check=True
    )
    assert mark(read_request(done.stdout)).startswith("key:")


def spoiled_signature():
    data = bytearray(REQUEST.public_bytes(DER))
    data[data.rindex(REQUEST.signature) + len(REQUEST.signature) - 1] ^= 1
    return in_pem(bytes(data))


def another_key():
    """A request in which another one's public key stands, signed with one's own."""
    theirs = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = serialization.PublicFormat.UncompressedPoint
    mine, other = (key.public_bytes(serialization.Encoding.X962, point) for key in (KEY.public_key(), theirs))
    data = REQUEST.public_bytes(DER)
    assert mine in data
    return in_pem(data.replace(mine, other))


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(lambda: text_of(signing_request(ec.generate_private_key(ec.SECP384R1()))), id="another curve"),
        pytest.param(lambda: text_of(signing_request(ec.generate_private_key(ec.SECP256K1()))), id="a strange curve"),
        pytest.param(lambda: text_of(signing_request(rsa.generate_private_key(65537, 2048))), id="RSA"),
        pytest.param(lambda: text_of(signing_request(ed25519.Ed25519PrivateKey.generate(), None)), id="Ed25519"),
        pytest.param(spoiled_signature, id="a signature that is spoiled"),
        pytest.param(another_key, id="somebody else's key"),
        pytest.param(lambda: "", id="nothing"),
        pytest.param(lambda: "csr", id="no PEM"),
        pytest.param(lambda: in_pem(b""), id="an empty one"),
        pytest.param(lambda: in_pem(REQUEST.public_bytes(DER), "CERTIFICATE"), id="called a certificate"),
        pytest.param(lambda: in_pem(REQUEST.public_bytes(DER)[:-1]), id="cut"),
        pytest.param(lambda: in_pem(REQUEST.public_bytes(DER) + b"\0"), id="with more behind it"),
        pytest.param(lambda: text_of(REQUEST).replace("\n", "\0"), id="with zero bytes"),
        pytest.param(lambda: "\ud800", id="half a letter"),
        pytest.param(
            lambda: KEY.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode(),
            id="a public key",
        ),
    ],
)
def test_what_is_no_such_request_is_a_value_error(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the words are for nobody
        read_request(text())


@settings(max_examples=500, deadline=None)
@given(place=st.integers(0, len(GREEDY.public_bytes(DER)) - 1), new=st.binary(max_size=6), cut=st.integers(0, 6))
def test_a_damaged_request_is_refused_or_is_one_for_its_own_key(place, new, cut):
    data = GREEDY.public_bytes(DER)
    try:
        found = read_request(in_pem(data[:place] + new + data[place + cut :]))
    except ValueError:
        return
    assert found.is_signature_valid
    assert mark(found) == mark(GREEDY)


def test_a_mark_is_the_public_keys_digest():
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    assert mark(REQUEST) == "key:" + hashlib.sha256(KEY.public_key().public_bytes(DER, spki)).hexdigest()


def test_a_mark_is_the_keys_whatever_else_is_asked_for():
    assert mark(REQUEST) == mark(signing_request()) == mark(GREEDY)
    assert mark(REQUEST) != mark(signing_request(ec.generate_private_key(ec.SECP256R1())))


# --- what is signed


async def test_a_certificate_is_for_the_keys_holder_under_the_name_of_the_job(authority):
    certificate = await signed(authority)
    assert certificate.public_key() == KEY.public_key()
    assert [name.value for name in certificate.subject] == [NAME]
    assert list(extension(certificate, x509.SubjectAlternativeName).value) == [x509.DNSName(NAME)]
    assert extension(certificate, x509.BasicConstraints).value == x509.BasicConstraints(ca=False, path_length=None)
    assert extension(certificate, x509.BasicConstraints).critical


async def test_what_a_request_asks_for_beyond_its_key_is_not_given(authority):
    plain, greedy = await signed(authority), await signed(authority, request=read_request(text_of(GREEDY)))

    def given(certificate):
        return certificate.subject, [(one.oid, one.critical, one.value) for one in certificate.extensions]

    assert given(greedy) == given(plain)
    assert greedy.serial_number != plain.serial_number


async def test_a_certificate_is_for_servers_and_for_calling_the_hub_alone(authority):
    certificate = await signed(authority)
    uses = extension(certificate, x509.ExtendedKeyUsage).value
    assert set(uses) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    usage = extension(certificate, x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign
    assert not usage.value.crl_sign


async def test_who_signed_and_whom_is_found_by_identifiers(authority):
    certificate = await signed(authority)
    own = x509.SubjectKeyIdentifier.from_public_key(KEY.public_key())
    assert extension(certificate, x509.SubjectKeyIdentifier).value == own
    signer = extension(authority.certificate, x509.SubjectKeyIdentifier).value
    assert extension(certificate, x509.AuthorityKeyIdentifier).value.key_identifier == signer.digest
    assert certificate.issuer == authority.certificate.subject


async def test_a_certificate_outlives_its_job_by_a_day_and_no_more(authority):
    now = datetime.datetime.now(datetime.UTC)
    certificate = await signed(authority, life_s=2 * HOUR_S)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    slack = datetime.timedelta(minutes=2)
    assert abs(begin - (now - datetime.timedelta(minutes=10))) < slack
    assert abs(end - (now + datetime.timedelta(hours=2, seconds=MARGIN_S))) < slack
    assert MARGIN_S == 24 * 3600


@pytest.mark.parametrize("address", ["10.0.0.1", "2001:db8::1"])
async def test_an_address_is_named_as_one(authority, address):
    names = extension(await signed(authority, address), x509.SubjectAlternativeName).value
    assert list(names) == [x509.IPAddress(ipaddress.ip_address(address))]


@pytest.mark.parametrize(("length", "common"), [(64, True), (65, False)])
async def test_a_name_too_long_for_a_subject_stands_in_its_own_place_alone(authority, length, common):
    host = ("j" + "a" * 16 + "." + "n" * 40 + "." + "z" * 40)[:length]
    certificate = await signed(authority, host)
    names = extension(certificate, x509.SubjectAlternativeName)
    assert list(names.value) == [x509.DNSName(host)]
    assert [name.value for name in certificate.subject] == ([host] if common else [])
    # RFC 5280: where the subject is empty, who does not understand the other name must refuse.
    assert names.critical is not common


@pytest.mark.parametrize("host", [NAME, "j" * 60 + "." + NAME, "2001:db8::1"], ids=["short", "long", "address"])
async def test_openssl_finds_nothing_wrong_with_it(authority, certificates, tmp_path, host):
    """By the letter of the standard, against the authority that JupyterHub makes."""
    (tmp_path / "one.pem").write_bytes((await signed(authority, host)).public_bytes(PEM))
    (tmp_path / "ca.pem").write_bytes(authority.certificate.public_bytes(PEM))
    name = "-verify_ip" if ":" in host else "-verify_hostname"

    def verified(host):
        command = [require("openssl"), "verify", "-x509_strict", "-purpose", "sslserver", name, host]
        trust = ["-CAfile", tmp_path / "ca.pem", tmp_path / "one.pem"]
        return subprocess.run([*command, *trust], capture_output=True, text=True, check=False)

    assert verified(host).returncode == 0, verified(host).stderr
    assert verified("2001:db8::2" if ":" in host else f"x{host}").returncode != 0


async def test_a_server_is_told_whom_to_trust_and_that_is_not_its_like(authority, certificates):
    """Else one user's server could call another's, or pose as the Hub."""
    _, bundle = certificates
    answer = await authority.certify(REQUEST, NAME, HOUR_S)
    assert answer["authorities"] == Path(bundle).read_text()
    trusted = x509.load_pem_x509_certificates(answer["authorities"].encode())
    assert {one.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value for one in trusted} == {
        "hub-ca",
        "proxy-client-ca",
    }
    assert authority.certificate not in trusted
    assert "PRIVATE" not in answer["authorities"] + answer["certificate"]


async def test_an_authority_without_an_identifier_signs_too():
    """One of the site's own, from JupyterHub's `external_ssl_authorities`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "old")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    old = builder.serial_number(1).not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    certificate = await signed(Authority(old, key, ""))
    certificate.verify_directly_issued_by(old)
    expected = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    assert extension(certificate, x509.AuthorityKeyIdentifier).value == expected


# --- the Hub's own certificate


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("hub.example.org", True),
        ("HUB.example.org", True),
        ("head", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("example.org", False),
        ("127.0.0.2", False),
        ("", False),
    ],
)
def test_whether_the_hubs_certificate_names_it(certificates, host, named):
    store = Certipy(store_dir=str(certificates[0]))
    names = ["IP:127.0.0.1", "IP:0:0:0:0:0:0:0:1", "DNS:hub.example.org", "DNS:Head"]
    record = store.create_signed_pair("hub-internal", "hub-ca", alt_names=names, overwrite=True)
    assert names_host(record["files"]["cert"], host) is named


def test_a_certificate_without_names_names_nobody(certificates):
    record = Certipy(store_dir=str(certificates[0])).store.get_record("hub-ca")
    assert not names_host(record["files"]["cert"], "hub-ca")


def test_for_how_long_the_hubs_certificates_are_good_is_told(certificates):
    record = Certipy(store_dir=str(certificates[0])).store.get_record("hub-ca")
    assert 1800 < days_left(record["files"]["cert"]) < 1840
