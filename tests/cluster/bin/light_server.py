#!/usr/bin/python3 -I
"""A single-user server that starts at once: it answers as its address says, knows its own job, does what it is told.

Files in ../orders tell it: `serve-after-USER` (wait until the file is gone, then listen), `exit-USER` (end at once
with the code in it), `eat-USER` (use that many MiB, at any time), `quit-USER` (end with the code in it, at any time).
What it knows of itself goes to ../seen/USER-JOB-RESTARTS.json, the token included: that is for the drills to try.
"""

import contextlib
import http.server
import json
import os
import pwd
import signal
import socketserver
import ssl
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

HERE = Path(__file__).resolve().parent.parent
USER = pwd.getpwuid(os.getuid()).pw_name
PREFIX = os.environ["JUPYTERHUB_SERVICE_PREFIX"]
TOKEN = os.environ["JUPYTERHUB_API_TOKEN"]
ADDRESS = urlsplit(os.environ["JUPYTERHUB_SERVICE_URL"])
FACTS = {
    "job": os.environ.get("SLURM_JOB_ID") or os.environ.get("PBS_JOBID", ""),
    "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    "node": os.uname().nodename,
    "pid": os.getpid(),
    "started": time.time(),
}


def order(name):
    """The text of an order, or None."""
    try:
        return (HERE / "orders" / f"{name}-{USER}").read_text().strip()
    except OSError:
        return None


def tls(purpose):
    """For the Hub alone, as JupyterHub's own server: both sides show a certificate. None where there is no TLS."""
    if ADDRESS.scheme != "https":
        return None
    context = ssl.create_default_context(purpose, cafile=os.environ["JUPYTERHUB_SSL_CLIENT_CA"])
    context.load_cert_chain(os.environ["JUPYTERHUB_SSL_CERTFILE"], os.environ["JUPYTERHUB_SSL_KEYFILE"])
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def token_ok():
    """Whether the Hub takes this server's own token."""
    call = urllib.request.Request(
        os.environ["JUPYTERHUB_API_URL"] + "/user", headers={"Authorization": f"token {TOKEN}"}
    )
    try:
        with urllib.request.urlopen(call, timeout=10, context=tls(ssl.Purpose.SERVER_AUTH)) as answer:
            return json.load(answer)["name"] == USER
    except (OSError, ValueError, KeyError):
        return False


class Server(socketserver.ThreadingTCPServer):
    """Not http.server's own, which asks for its name before it listens."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 50
    context = tls(ssl.Purpose.CLIENT_AUTH)

    def get_request(self):
        connection, address = super().get_request()
        if self.context:
            # The handshake is left to the thread that serves the connection.
            connection = self.context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, *_):
        """Say nothing: whoever has no certificate is turned away."""


class Answers(http.server.BaseHTTPRequestHandler):
    """GET of anything; `whoami` tells the facts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = {"version": "0"}
        if self.path.split("?")[0] == PREFIX + "whoami":
            body = {**FACTS, "token_ok": token_ok()}
        data = json.dumps(body).encode()
        self.send_response(200 if self.path.startswith(PREFIX) else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-JupyterHub-Version", os.environ.get("LIGHT_SERVER_VERSION", "6.1.1"))
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        """Say nothing."""


def obey():
    """Look for orders, for ever."""
    held = []
    while True:
        wanted = order("eat")
        if wanted and not held:
            held.append(bytearray(b"x") * (int(wanted) << 20))
        code = order("quit")
        if code:
            print(f"light-server: told to end with {code}", flush=True)
            os._exit(int(code))
        time.sleep(0.2)


def main():
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    code = order("exit")
    if code:
        print("light-server: this is the first line before the end", flush=True)
        print("light-server: told to end at once", flush=True)
        sys.exit(int(code))
    threading.Thread(target=obey, daemon=True).start()
    (HERE / "seen" / f"{USER}-waits").touch()
    while order("serve-after") is not None:
        time.sleep(0.1)
    server = Server(("", ADDRESS.port), Answers)
    seen = HERE / "seen" / f"{USER}-{FACTS['job']}-{FACTS['restarts']}.json"
    with contextlib.suppress(OSError):
        seen.write_text(json.dumps({**FACTS, "token": TOKEN}))
    server.serve_forever()


main()
