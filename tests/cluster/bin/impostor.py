#!/usr/bin/python3 -I
"""Poses as somebody's server: takes a port as soon as it can and records what comes, decrypted where it gets that far.

Each line of standard input is an order in JSON: `{"port": N}` (first take it, then listen; again changes nothing),
`{"certificate": PEM, "key": PEM}` (present these from now on; "mine": those of the user's own server on this node).
`{"count": null}` is answered with one line of JSON: `listens` (whether the port is taken), `connections`, `handshakes`
(completed), `encrypted` (bytes of what was said over TLS, decrypted), `plain` (bytes said without TLS), `text` (both).
It ends with its input.
"""

import contextlib
import itertools
import json
import os
import socket
import ssl
import sys
import tempfile
import threading
import time
from pathlib import Path

TLS_RECORD = 0x16
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{"version": "impostor"}\n'
PATIENCE_S = 3


class Impostor:
    """One port; what came there is counted."""

    def __init__(self):
        self._lock = threading.Lock()
        self._contexts = None
        self.seen = {"listens": False, "connections": 0, "handshakes": 0, "encrypted": 0, "plain": 0, "text": ""}

    def note(self, **more):
        with self._lock:
            for name, value in more.items():
                self.seen[name] += value

    def take(self, port):
        """Listen there, however long it takes until the port is free."""
        threading.Thread(target=self._take, args=(port,), daemon=True).start()

    def _take(self, port):
        listener = socket.socket(socket.AF_INET6)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        while True:
            with contextlib.suppress(OSError):
                listener.bind(("::", port))
                break
            time.sleep(0.001)
        while True:
            with contextlib.suppress(OSError):
                listener.listen(100)
                break
            time.sleep(0.001)
        self.seen["listens"] = True
        # A client that goes away at TLS 1.3 may behave otherwise at 1.2, and the impostor has the choice.
        for version in itertools.cycle((ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2)):
            connection, _ = listener.accept()
            connection.settimeout(PATIENCE_S)
            threading.Thread(target=self._receive, args=(connection, version), daemon=True).start()

    def present(self, certificate, key):
        """Show this certificate from now on."""
        contexts = {}
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder, name) for name in ("certificate", "key")]
            for file, text in zip(files, (certificate, key), strict=True):
                file.write_text(text)
            for version in (ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2):
                contexts[version] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                contexts[version].load_cert_chain(*files)
                contexts[version].minimum_version = contexts[version].maximum_version = version
        self._contexts = contexts

    def _receive(self, connection, version):
        self.note(connections=1)
        with contextlib.suppress(OSError), connection:
            first = connection.recv(1, socket.MSG_PEEK)
            if first[:1] == bytes([TLS_RECORD]) and self._contexts:
                with self._contexts[version].wrap_socket(connection, server_side=True) as channel:
                    self.note(handshakes=1)
                    self._listen_to(channel, "encrypted")
            else:
                self._listen_to(connection, "plain")

    def _listen_to(self, channel, kind):
        answered = False
        while data := channel.recv(1 << 16):
            self.note(**{kind: len(data), "text": data.decode("latin-1")})
            if not answered:
                answered = True
                channel.sendall(ANSWER)
                with contextlib.suppress(OSError):
                    channel.shutdown(socket.SHUT_WR)


def mine():
    """Certificate and key of the user's own server, as its variables name them."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if path.stat().st_uid == os.getuid():
                text = path.read_bytes().decode(errors="replace")
                pairs = dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)
                if "JUPYTERHUB_SSL_KEYFILE" in pairs:
                    return [Path(pairs[f"JUPYTERHUB_SSL_{kind}FILE"]).read_text() for kind in ("CERT", "KEY")]
    raise SystemExit("impostor: no server of mine has a certificate")


def main():
    impostor = Impostor()
    for line in sys.stdin:
        order = json.loads(line)
        if "port" in order:
            impostor.take(order["port"])
        if "certificate" in order:
            own = order["certificate"] == "mine"
            impostor.present(*(mine() if own else (order["certificate"], order["key"])))
        if "count" in order:
            print(json.dumps(impostor.seen), flush=True)


main()
