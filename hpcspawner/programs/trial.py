"""Runs on a compute node for `hpcspawner check --submit`: what a server would need there, looked at, and told the Hub.

It travels inside a job script, so it is one file, for Python 3.6 and later, with the standard library alone. It takes
no ticket and has no secret: `word` in its settings only tells one trial from another.
"""

import http.client
import importlib.util
import json
import os
import shutil
import socket
import ssl
import sys
import time
from urllib.parse import urlsplit

OLDEST = (3, 6)
REQUEST_S = 15.0
# How it exits where the Hub did not come for the answer: the scheduler passes the code on.
NO_PORT_CODE = 21
HUB_DID_NOT_COME_CODE = 22


def main(settings):
    """Look, and wait for the Hub to ask; an exit code."""
    answer = {
        "node": os.environ.get("SLURMD_NODENAME") or os.uname().nodename,
        "python": list(sys.version_info[:3]),
        "python_path": sys.executable,
        "key_maker": shutil.which("openssl") or ("cryptography" if has("cryptography") else ""),
        "hub": reached(settings["url"], settings["ca"]) if settings["url"] else None,
        "missing": [what for what, path, kind in settings["paths"] if not is_there(path, kind)],
    }
    listener = listen(settings["ports"])
    return serve(listener, settings, answer) if listener else NO_PORT_CODE


def has(module):
    """Whether a module could be imported."""
    return importlib.util.find_spec(module) is not None


def is_there(path, kind):
    """Whether the user may read ("r") or run ("x") this, or, of several separated by a colon, one of them."""
    path = os.path.expandvars(os.path.expanduser(path))
    right = os.X_OK if kind == "x" else os.R_OK
    return any(os.access(one, right) for one in path.split(":")) if "/" in path else bool(shutil.which(path))


def reached(url, ca):
    """What comes of a call to the Hub: "" where it answers, else what is wrong, and which kind of fault that is."""
    parts = urlsplit(url)
    try:
        context = ssl.create_default_context(cadata=ca or None)
        caller = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=REQUEST_S, context=context)
        caller.request("GET", parts.path)
        reply = caller.getresponse()
        if not reply.getheader("X-JupyterHub-Version"):
            return "answer", "it answers with status %d, and is no JupyterHub" % reply.status
        return "", ""
    except ssl.SSLError as error:
        return "tls", str(error)
    except socket.gaierror as error:
        return "name", str(error)
    except (OSError, http.client.HTTPException) as error:
        return "way", "%s: %s" % (type(error).__name__, error)


def listen(ports):
    """A socket at the first of these ports that is free, as a server would have one; None if there is none."""
    for port in ports:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("0.0.0.0", port))  # noqa: S104 - the Hub comes from another machine
        except OSError:
            listener.close()
            continue
        listener.listen(5)
        return listener
    return None


def serve(listener, settings, answer):
    """Tell who comes with the word of this trial; the exit code says whether somebody came in time."""
    ends = time.monotonic() + settings["limit_s"]
    while time.monotonic() < ends:
        listener.settimeout(max(0.1, ends - time.monotonic()))
        try:
            caller, _ = listener.accept()
        except OSError:
            continue
        with caller:
            caller.settimeout(5)
            try:
                if caller.recv(100).decode("ascii", "replace").strip() != settings["word"]:
                    continue
                caller.sendall(json.dumps(dict(answer, time=time.time())).encode())
                return 0
            except OSError:
                continue
    return HUB_DID_NOT_COME_CODE


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
