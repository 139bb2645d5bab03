"""TLS between a Hub and its servers as JupyterHub's `internal_ssl` has it, on this machine's own addresses."""

import asyncio
import contextlib
import socket
import ssl
import threading

from certipy import Certipy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from jupyterhub.utils import make_ssl_context

from hpcspawner.nodes.address import Tls

PEM = serialization.Encoding.PEM
_TRUST = {
    "hub-ca": ["hub-ca", "proxy-client-ca", "notebooks-ca"],
    "proxy-client-ca": ["hub-ca", "notebooks-ca"],
    "notebooks-ca": ["hub-ca", "proxy-client-ca"],
}


class InternalTls:
    """The Hub's authorities and its own certificate, in a folder; and servers with certificates of theirs."""

    def __init__(self, folder):
        self.folder = folder
        store = Certipy(store_dir=str(folder / "internal"))
        bundles = store.trust_from_graph(_TRUST)
        own = store.create_signed_pair("hub-internal", "hub-ca", alt_names=["DNS:localhost"])["files"]
        self.own = (own["cert"], own["key"], bundles["hub-ca"])
        self.tls = Tls.of(str(folder / "internal"), bundles["notebooks-ca"], *self.own)

    def request(self):
        """A key made on a node, in a file, and the signing request for it."""
        key = ec.generate_private_key(ec.SECP256R1())
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (self.folder / "server.key").write_bytes(secret)
        return x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())

    async def server(self, name, *, asks=True):
        """The TLS settings of a server with this name, which asks for a client's certificate as Jupyter's does."""
        return self.settings(await self.tls.authority.certify(self.request(), name, 3600), asks=asks)

    def settings(self, signed, *, asks=True):
        """Those of the server whose key was made last, with what it got for its request."""
        for file, text in (("server.crt", signed["certificate"]), ("trusted.crt", signed["authorities"])):
            (self.folder / file).write_text(text)
        files = [str(self.folder / file) for file in ("server.key", "server.crt", "trusted.crt")]
        context = make_ssl_context(*files[:2], cafile=files[2], purpose=ssl.Purpose.CLIENT_AUTH)
        if not asks:
            context.verify_mode = ssl.CERT_NONE
        return context


class Listener:
    """Answers whatever comes in the same way, and keeps what it could read of it; `async with` ends it."""

    def __init__(self, context=None, answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", address="127.0.0.1"):
        self._context, self._answer = context, answer
        self._socket = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
        self.port = self._socket.getsockname()[1]
        self.calls = 0
        self.read = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)

    async def __aenter__(self):
        self._thread.start()
        return self

    async def __aexit__(self, *error):
        # Not on the loop: clients close their connections there.
        await asyncio.to_thread(self._end)

    def _end(self):
        # A call that nobody waits for: closing alone would not wake it.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(15)
        self._socket.close()
        assert not self._thread.is_alive()

    def _serve(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            with contextlib.suppress(OSError):
                self._talk(connection)

    def _talk(self, connection):
        connection.settimeout(5)
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            if self._context:
                connection = stack.enter_context(self._context.wrap_socket(connection, server_side=True))
            self.read += connection.recv(65536)
            if self._answer is None:
                connection.recv(1)  # until they give up
            connection.sendall(self._answer or b"")
