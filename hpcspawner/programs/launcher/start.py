"""A server's way from the ticket to a port on which it listens."""

import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import threading
import time
from urllib.parse import urlsplit

from hpcspawner.programs.launcher.behind import Alone, Inside, Program
from hpcspawner.programs.launcher.codes import MISSING_CODE
from hpcspawner.programs.launcher.hub import Hub, exchange
from hpcspawner.programs.launcher.node import connects, is_free, not_opened, owner, take_port, why_full, why_not_usable
from hpcspawner.programs.launcher.server import OPENSSL_CONFIG, STOP_S, Extensions, Folder, Server, key_makers
from hpcspawner.programs.launcher.words import NODE, EndError, _hidden, content, native, say, signal_name

SSL_FILES = (
    ("JUPYTERHUB_SSL_KEYFILE", "key.pem"),
    ("JUPYTERHUB_SSL_CERTFILE", "certificate.pem"),
    ("JUPYTERHUB_SSL_CLIENT_CA", "authorities.pem"),
)
KEY_S = 12.0
KILL_S = 0.5
TICKET_S = 600.0
SHARED = "HPC_PARALLEL"  # as in parallel.py
FIRST_LOOK_S = 0.05
LAST_LOOK_S = 0.2
LOOK_ANYWAY_S = 1.0
BESIDE_S = 15.0
DAY_S = 86400.0  # the most that the Hub takes
FOLDERS_S = 8.0  # with the start itself and END_REPORT_S within 15 s of the job's start
PACKAGES = {"jupyterhub-singleuser": "jupyterhub", "jupyter-lab": "jupyterlab", "jupyter-notebook": "notebook"}
_PEM = re.compile("(-----BEGIN (PRIVATE KEY|CERTIFICATE REQUEST)-----[^-]+-----END \\2-----)")


class Start:
    """A server on this node, until it listens."""

    def __init__(self, settings, signals):
        self.settings = settings
        self.signals = signals
        self.hub = Hub(settings.callback, settings.ca, signals)
        self.log = os.path.abspath(os.environ.get("HPC_LOG", os.devnull))
        self.title = settings.command[0]
        label = settings.environment + (", image %s" % settings.image if settings.image else "")
        self.place = "the environment '%s' on %s" % (label, NODE)
        self.limit_s = settings.limit_s
        self.extensions = None
        self.beside = None
        self.shared = ""
        self.keeper = None
        self.inside = None
        self.behind = None
        self.front = None
        self.folder = None
        self.keyless = None
        self.log_start = int(os.environ.get("HPC_LOG_START") or 0)
        self.environment = {}
        self.report_key = None
        self.server = None
        self.port = None
        self.phases = {}
        self.phase_since = time.monotonic()

    def _phase_is_over(self, name):
        """Note for how long the start was at this."""
        now = time.monotonic()
        # A job may have been suspended meanwhile.
        self.phases[name] = min(round(now - self.phase_since, 3), DAY_S)
        self.phase_since = now

    def _ending(self):
        return bool(self.signals.ending)

    def _stopped(self):
        return self._ending() or self._ended()

    def _ended(self):
        """Whether the server has ended, or the proxy in front of it."""
        return self.server.code is not None or bool(self.front and self.front.code is not None)

    def _end_server(self):
        for one in (self.server, self.front, self.beside):
            if one:
                one.end()
        if self.shared:
            # The program beside the server has done so; kernels that ended later may have written there again.
            shutil.rmtree(self.shared, ignore_errors=True)

    def _heed_signals(self):
        if self.signals.ending:
            number = self.signals.ending[0]
            message = "The job received %s on %s before the server was started." % (signal_name(number), NODE)
            raise EndError("signalled", message, 128 + number, number=number)

    def _exchange(self):
        body = {"ticket": self.settings.ticket, "job": os.environ.get("HPC_JOB", "")}
        request = None
        # Where the set-up has failed no server is started that could need a key.
        if self.settings.tls and not os.environ.get("HPC_SETUP_FAILED"):
            try:
                request = self._make_key()
            except EndError as error:
                self._heed_signals()
                self.keyless = error
        self._phase_is_over("key")
        # The key, or else the mark, lets the Hub give the same run the same answer when the first was lost on its way.
        body.update({"csr": request} if request else {"run": secrets.token_urlsafe(24)})
        answer = exchange(self.hub, body, max(self.limit_s, TICKET_S), self._ending)
        self._heed_signals()
        self._phase_is_over("ticket")
        self.environment, self.report_key, certificates = answer
        for name, text in certificates.items():
            self._keep("%s.pem" % name, text)
        if certificates:
            self.environment.update((name, os.path.join(self.folder.path, file)) for name, file in SSL_FILES)
        if not (self.environment or self.settings.tls):
            message = "The Hub has switched to TLS since this job was submitted. Start the server again."
            raise EndError("no-key", message)
        say("environment received")

    def _make_key(self):
        """Make the server's key on this node; return the signing request for it."""
        settings = {"OPENSSL_CONF": self._keep("openssl.cnf", OPENSSL_CONFIG)}
        deadline = time.monotonic() + KEY_S
        makers = key_makers(self.settings.command[0], self.wrap)
        for number, (argv, as_found) in enumerate(makers):
            # None may take what the others need.
            limit_s = (deadline - time.monotonic()) / (len(makers) - number)
            found = self._made_by(argv, settings, limit_s, as_found)
            if found:
                _hidden.update(line for line in found["PRIVATE KEY"].split("\n")[1:-1] if len(line) >= 8)
                self._keep("key.pem", found["PRIVATE KEY"] + "\n")
                return found["CERTIFICATE REQUEST"] + "\n"
        message = (
            "The server's key could not be made on %s: there is neither a working openssl command nor a Python with"
            " cryptography. Ask for openssl on the node, or add cryptography to %s; the job's log says what was tried."
        )
        raise EndError("no-key", message % (NODE, self.place))

    def _made_by(self, argv, extra, limit_s, as_found):
        """The PEM texts of a key and of its request that a program writes, by their kind; None if it does not."""
        place = self.folder.path
        try:
            with tempfile.TemporaryFile(dir=place) as out, tempfile.TemporaryFile(dir=place) as err:
                code = self._runs(argv, extra, limit_s, KILL_S, as_found=as_found, stdout=out, stderr=err)
                found = {kind: pem for pem, kind in _PEM.findall(content(out))}
                words = content(err).strip().rpartition("\n")[2]
        except (EndError, OSError) as error:
            self._heed_signals()
            say("no key from %s: %s" % (argv[0], error))
            return None
        if code == 0 and len(found) == 2:
            return found
        how = "ended with exit code %d" % code if code is not None else "gave no answer within %.1f s" % limit_s
        say("no key from %s: it %s. %s" % (argv[0], how, words))
        return None

    def _keep(self, name, text):
        """Write a file that the server needs into our folder; return its path."""
        try:
            self.folder = self.folder or Folder(for_socket=bool(self.settings.alone or self.settings.program))
            return self.folder.write(name, text)
        except OSError as error:
            message = "The server's key and certificate can't be kept on %s: %s." % (NODE, error)
            raise EndError("no-key", message) from None

    @property
    def container(self):
        """The argv that puts a command into the image, of the first container program here; empty without an image."""
        there = (argv for argv in self.settings.containers if shutil.which(native(argv[0])))
        return next(there, [])

    @property
    def wrap(self):
        """As `container`, with our folder visible inside."""
        container = self.container
        if not container or not self.folder:
            return container
        return [*container[:-1], self.settings.bind + self.folder.path, container[-1]]

    def _prepare(self):
        failed = os.environ.get("HPC_SETUP_FAILED")
        if failed:
            raise EndError("setup-failed", "The set-up of %s failed at: %s" % (self.place, failed))
        if self.keyless:
            raise self.keyless
        self._enter_directory()
        for name, text in self.settings.files.items():
            self._keep(name, text)
        if self.settings.containers:
            # What the image holds is looked for by the process that becomes the server: entering it may take minutes.
            self._require(self.container, " or ".join(argv[0] for argv in self.settings.containers))
            return
        if self.settings.alone:
            return  # as in an image, one of two commands is enough
        for program in self.settings.programs:
            self._require(shutil.which(native(program)), program)

    def _enter_directory(self):
        """Go to the server's directory, once it is known that the server can work there and in the home."""
        directory = self.settings.directory
        home = os.environ.get("HOME") or directory
        why = self._in_time(lambda: why_not_usable(directory, self.settings.writable) or why_full(home))
        if why:
            raise EndError("bad-directory", why)
        try:
            os.chdir(native(directory))
        except OSError as error:
            raise EndError("bad-directory", not_opened(directory, error)) from None

    def _in_time(self, look):
        """What `look()` says of folders; where it takes too long, what that means."""
        outcome = []
        work = threading.Thread(target=lambda: (outcome.append(look()), self.signals.wake()), daemon=True)
        work.start()
        self.signals.until(lambda: bool(outcome) or self._ending(), FOLDERS_S)
        self._heed_signals()
        if outcome:
            return outcome[0]
        message = "The directory %s did not answer on %s within %d s: its file system may be down there."
        return message % (self.settings.directory, NODE, FOLDERS_S)

    def _require(self, found, program):
        if not found:
            package = PACKAGES.get(os.path.basename(program))
            advice = " Add the package %s to that environment, with pip or conda." % package if package else ""
            message = "%s was not found in %s.%s" % (program, self.place, "" if self.settings.image else advice)
            raise EndError("missing-program", message, MISSING_CODE)

    def _runs(self, argv, extra, limit_s, patience_s=STOP_S, **streams):
        """Run a program for a short time; return its exit code, None if it was too slow."""
        self.server = Server(argv, extra, self.signals, **streams)
        self.signals.until(self._stopped, limit_s)
        code = self.server.code
        self.server.end(patience_s)
        self.server = None
        self._heed_signals()
        return code

    def _start(self):
        url = urlsplit(self.environment.get("JUPYTERHUB_SERVICE_URL", "http://:0/"))
        host = url.hostname or ""
        extra = dict(self.environment, **self.settings.variables)
        extra.update(self._extended())
        extra.update(self._start_beside())
        extra.update(self._shown(extra))
        deadline = time.monotonic() + self.limit_s
        tried = set()
        self._phase_is_over("prepare")
        for _ in range(4):
            self.port, held = take_port(host, self.settings.ports, tried)
            tried.add(self.port)
            netloc = "%s:%d" % ("[%s]" % host if ":" in host else host, self.port)
            extra["JUPYTERHUB_SERVICE_URL"] = url._replace(netloc=netloc).geturl()
            held.close()
            self.behind = self._behind()
            is_program = isinstance(self.behind, Program)
            variables = self.behind.environment(extra) if is_program else extra
            self.server = Server(self._argv(), variables, self.signals, hidden=self.settings.hidden)
            if self._begins(extra, deadline) and self._has_port(host, deadline):
                self._phase_is_over("server")
                return
            say("another process took port %d; trying another port" % self._taken_port())
            self._end_server()
            self.front = None
        raise EndError("no-port", "Other processes on %s took each of the 4 ports that the server tried." % NODE)

    def _behind(self):
        """What is to stand behind the proxy, if anything may."""
        kind = Program if self.settings.program else Alone if self.settings.alone else None
        try:
            return kind and kind(self.folder, self.settings, self.environment)
        except OSError as error:
            message = "What the server needs can't be written on %s: %s." % (NODE, error)
            raise EndError("no-key", message) from None

    def _argv(self):
        """The words that start the server, in the image if there is one."""
        settings = self.settings
        command = self.behind.argv if settings.program else settings.command
        if not (settings.containers or settings.alone):
            return command
        self.inside = Inside(self.folder, self.log)
        counted = [[str(len(words)), *words] for words in (settings.programs, settings.alone)]
        return [*self.wrap, "sh", self.inside.script, *counted[0], *counted[1], *command]

    def _begins(self, extra, deadline):
        """Wait until it is known what runs; start the proxy in front of what knows no Hub. False if a port is taken."""
        while self.behind and not self._stopped():
            found = "program" if self.settings.program else self.inside.found
            if found == "command":
                break
            if found and self.behind.listens(self.server):
                say("the server listens; a proxy that asks the Hub stands in front of it")
                self.front = self.behind.front(extra, self.signals)
                break
            if time.monotonic() >= deadline:
                raise EndError("never-listened", self._too_late())
            self.signals.pause(0.2)
        return not (self.settings.program and self._ended() and self.behind.port_is_taken)

    def _taken_port(self):
        """The port that another process has: the program's, or else the server's own."""
        return self.port if self.front or not self.settings.program else self.behind.port

    def _extended(self):
        """Variables for the server that have it load our extensions; none where there are none."""
        if not self.settings.extensions:
            return {}
        try:
            self.extensions = Extensions(self.folder, self.settings)
        except OSError as error:
            say("the server gets none of %s: %s" % (", ".join(self.settings.extensions), error))
            return {}
        return self.extensions.variables

    def _start_beside(self):
        """Start the program beside the server; return its variables for the server, which can do without."""
        if not self.settings.beside:
            return {}
        argv = [sys.executable, "-I", os.path.join(self.folder.path, self.settings.beside)]
        file = os.path.join(self.folder.path, "variables.json")
        try:
            self.beside = Server(argv, {}, self.signals, as_found=True)
            self.signals.until(lambda: os.path.exists(file) or self.beside.code is not None or self._ending(), BESIDE_S)
            with open(file) as written:
                variables = json.load(written)
            self.shared = variables.get(SHARED, "")
            return variables
        except (EndError, OSError, ValueError) as error:
            say("there will be no parallel engines and jobs: %s" % error)
            return {}

    def _shown(self, extra):
        """Variables for the server that have it show its job; none where it shall not, or can't."""
        if self.settings.status is None:
            return {}
        try:
            sys.path.append(self.folder.path)  # by a file of ours there
            from status_keeper import Keeper

            facts = dict(self.settings.status, job=os.environ.get("HPC_JOB", ""), node=NODE)
            facts["hub"] = "%s%shub/home" % (extra.get("JUPYTERHUB_HOST", ""), extra.get("JUPYTERHUB_BASE_URL", "/"))
            self.keeper = Keeper(self.folder.path, facts, self._once)
        except Exception as error:
            say("the server will not show its job: %s" % error)
            return {}
        return self.keeper.variables(dict(os.environ, **extra))

    def _once(self, body):
        """Report to the Hub once, from a thread of the caller's; return the answer."""
        return self.hub.once("/report", dict(body, report_key=self.report_key))

    def _has_port(self, host, deadline):
        """Wait until the server listens or nothing is left to wait for; False if another process has its port."""
        pause_s = FIRST_LOOK_S
        others = 0
        looked_at = time.monotonic()
        while not self._ending():
            ended = self._ended()
            # Who it is stands in /proc, which is long on a busy node. It is read when somebody is there; and now and
            # then all the same, for a node may not let us connect.
            if not (ended or connects(host, self.port) or time.monotonic() - looked_at >= LOOK_ANYWAY_S):
                who = "nobody"
            else:
                who = owner(self.port, (self.front or self.server).pid)
                looked_at = time.monotonic()
            if who == "server":
                return True
            if ended:
                return is_free(host, self.port)
            # Not at first sight: a process may have begun between the two looks at /proc.
            others = others + 1 if who == "other" else 0
            if others == 3:
                return False
            if time.monotonic() >= deadline:
                raise EndError("never-listened", self._too_late())
            self.signals.pause(pause_s)
            pause_s = min(pause_s * 1.02, LAST_LOOK_S)
        return True

    def _too_late(self):
        """What to say of a server that does not listen in time."""
        if self.inside and not self.inside.found:
            return "%s took more than %d s to enter %s." % (self.container[0], self.limit_s, self.place)
        if self.settings.program and not self.front:
            return "%s did not listen on %s within %d s." % (self.title, self.behind.where, self.limit_s)
        return "%s did not listen on port %d of %s within %d s." % (self.title, self.port, NODE, self.limit_s)
