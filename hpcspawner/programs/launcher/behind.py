"""Servers that know no Hub, behind a proxy that does, and what is found inside an image."""

import contextlib
import json
import os
import re
import secrets
import socket
import time

from hpcspawner.programs.launcher.node import OWN_ADDRESS, connects, cpu_seconds, is_free, owner, take_port
from hpcspawner.programs.launcher.server import Server
from hpcspawner.programs.launcher.words import _hidden, last_lines

BUSY_SHARE = 0.1  # of one core: a program that computes more than this is not idle
# What Apptainer and Singularity say before they give up.
_FATAL = re.compile(r"^(?:FATAL|ERROR):?\s+(.*)")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_OF_HUB = ("JUPYTERHUB_", "JPY_API_TOKEN")


class Inside:
    """What has come of the one entry into the image: `inside.sh` writes it into our folder."""

    def __init__(self, folder, log):
        self.script = os.path.join(folder.path, "inside.sh")
        self._found = os.path.join(folder.path, "inside")
        folder.forget("inside")  # of an earlier try
        self._log = log
        self._log_start = os.path.getsize(log) if os.path.isfile(log) else 0

    @property
    def found(self):
        """Empty until the image is entered; then "command", "alone" or "missing" and the name of a program."""
        with contextlib.suppress(OSError), open(self._found) as file:
            return file.read().strip()
        return ""

    def why_not(self):
        """In the container program's own words, why the image was not entered; empty if it did not say."""
        lines = [_FATAL.match(line) for line in last_lines(self._log, self._log_start)]
        return next((match.group(1) for match in reversed(lines) if match), "")


class Behind:
    """A server that knows no Hub, and the proxy that stands in front of it."""

    SOCKET = "alone/socket"

    def __init__(self, folder, settings, environment):
        self._folder = folder
        self._python = os.path.join(settings.proxy, "bin", "python3")
        self.port, held = take_port(OWN_ADDRESS, None, ())
        held.close()
        # Only we can enter the folder; a server that knows no sockets has the secret alone, if it takes one.
        self._socket = os.path.join(folder.path, self.SOCKET)
        self._secret = secrets.token_urlsafe(32)
        _hidden.add(self._secret)
        self._base_url = environment.get("JUPYTERHUB_SERVICE_PREFIX", "/")
        for name in ("alone/settings.json", "alone/front.json", self.SOCKET):
            folder.forget(name)

    @property
    def port_is_taken(self):
        """Whether the port is another process's by now."""
        return not is_free(OWN_ADDRESS, self.port)

    def _has_port(self, server):
        """Whether the port answers, and no other process but the server does it."""
        return connects(OWN_ADDRESS, self.port) and owner(self.port, server.pid) == "server"

    def _takes_connections(self):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
            probe.connect(self._socket)
            return True
        return False

    def _write_front(self, on_socket, inner):
        where = {"socket": self._socket if on_socket else None, "port": self.port}
        self._folder.write("alone/front.json", json.dumps(dict(where, **inner)))

    def front(self, extra, signals):
        """Start the proxy; none of what the set-up made is for it."""
        argv = [self._python, "-I", os.path.join(self._folder.path, "front.py")]
        return Server(argv, extra, signals, as_found=True)


class Alone(Behind):
    """A Jupyter server without jupyterhub, configured by the files beside its socket."""

    def __init__(self, folder, settings, environment):
        super().__init__(folder, settings, environment)
        inner = {
            "socket": self._socket,
            "port": self.port,
            "token": self._secret,
            "base_url": self._base_url,
            "default_url": settings.variables.get("JUPYTERHUB_DEFAULT_URL", "/lab"),
            "directory": settings.directory,
        }
        folder.write("alone/settings.json", json.dumps(inner))

    def listens(self, server):
        """Whether it takes connections, on the socket or the port."""
        on_socket = self._takes_connections()
        if on_socket or self._has_port(server):
            self._write_front(on_socket, {"headers": {"Authorization": "token " + self._secret}})
            return True
        return False


class Program(Behind):
    """Any other program: what it is told in place of its placeholders, and how long nobody has used it."""

    SOCKET = "alone/program.sock"  # ttyd takes no other ending

    def __init__(self, folder, settings, environment):
        super().__init__(folder, settings, environment)
        self._program = settings.program
        self._used = os.path.join(folder.path, "alone", "used")
        self._computed_s = 0
        self._looked_at = time.monotonic()
        self._busy_at = time.time()
        values = {
            "socket": self._socket,
            "port": str(self.port),
            "base_url": self._base_url.rstrip("/"),
            "folder": os.path.join(folder.path, "program"),
            "secret": self._secret,
        }

        def fill(text):
            return _PLACEHOLDER.sub(lambda match: values.get(match.group(1), match.group(0)), text)

        self._on_socket = any("{socket}" in word for word in settings.command)
        self.argv = [fill(word) for word in settings.command]
        self.variables = {name: fill(text) for name, text in self._program["variables"].items()}
        self._headers = {name: fill(text) for name, text in self._program["headers"].items()}
        for name in ("alone", "program"):
            folder.make(name)
        for name, text in self._program["files"].items():
            folder.forget("program/" + name)
            folder.write("program/" + name, fill(text))
        self._touch()

    @property
    def where(self):
        """Where it should listen, for people."""
        return "the socket of its folder" if self._on_socket else "port %d of %s" % (self.port, OWN_ADDRESS)

    def environment(self, extra):
        """The program's variables; what is between the Hub and the server is the proxy's alone."""
        kept = {name: value for name, value in extra.items() if not name.startswith(_OF_HUB)}
        return dict(kept, **self.variables)

    def listens(self, server):
        """Whether it takes connections where it was told to."""
        if not (self._takes_connections() if self._on_socket else self._has_port(server)):
            return False
        inner = {name: self._program[name] for name in ("url", "keeps_address", "polls")}
        self._write_front(self._on_socket, dict(inner, headers=self._headers, used=self._used, program=True))
        return True

    def _touch(self):
        with contextlib.suppress(OSError):
            open(self._used, "a").close()

    def idle_s(self, server):
        """For how long nobody has asked it for anything and it has not computed, in seconds."""
        now, computed_s = time.monotonic(), cpu_seconds(server.pid)
        if computed_s - self._computed_s > BUSY_SHARE * (now - self._looked_at):
            self._busy_at = time.time()
        self._computed_s, self._looked_at = computed_s, now
        with contextlib.suppress(OSError):
            self._busy_at = max(self._busy_at, os.stat(self._used).st_mtime)
        return time.time() - self._busy_at
