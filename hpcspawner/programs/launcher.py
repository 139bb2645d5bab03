"""Runs on the compute node: trades the job's ticket for the server's environment, starts the server, reports its port.

It travels inside the job script, so it is one file, for Python 3.6 and later, with the standard library alone.
"""

import contextlib
import errno
import http.client
import json
import math
import os
import random
import re
import secrets
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import namedtuple
from urllib.parse import urlsplit

try:
    import ctypes

    _libc = ctypes.CDLL(None)
except (ImportError, OSError):  # a Python built without libffi
    _libc = None

SETTINGS_FD = 4
SETTINGS_VERSION = 2
# What each is stands in `LauncherSettings` (script/settings.py), which writes them.
Settings = namedtuple(
    "Settings",
    "version callback ca ticket tls command programs alone program proxy containers bind hidden environment image"
    " directory writable variables ports limit_s idle_limit_s status extensions beside files",
)
SSL_FILES = (
    ("JUPYTERHUB_SSL_KEYFILE", "key.pem"),
    ("JUPYTERHUB_SSL_CERTFILE", "certificate.pem"),
    ("JUPYTERHUB_SSL_CLIENT_CA", "authorities.pem"),
)
OUR_VARIABLES = ("HPC_JOB", "HPC_LOG", "HPC_LOG_SPARE", "HPC_LOG_START", "HPC_OPENSSL", "HPC_SETUP_FAILED")
SET_UP = "HPC_SET_"  # before the names of what the set-up has made for the server, and we do without
# As the scheduler calls it, where it says so: the machine's own name may be another.
NODE = os.environ.get("SLURMD_NODENAME") or os.uname().nodename

REQUEST_S = 30.0
KEY_S = 12.0
KILL_S = 0.5
FIRST_PAUSE_S = 0.2
LAST_PAUSE_S = 10.0
MOST_WAIT_S = 30
TICKET_S = 600.0
WARNED_TRIES = 12
END_REPORT_S = 5.0
STOP_S = 10.0
LEFTOVERS_S = 2.0
IDLE_END = "idle-end"
BUSY_SHARE = 0.1  # of one core: a program that computes more than this is not idle
SHARED = "HPC_PARALLEL"  # as in parallel.py
FIRST_LOOK_S = 0.05
LAST_LOOK_S = 0.2
LOOK_ANYWAY_S = 1.0
CONNECT_S = 1.0
BESIDE_S = 15.0
ANSWER_BYTES = 1 << 20
HUB_HEADER = "X-JupyterHub-Version"
LOG_BYTES = 1 << 16
LONGEST_FOR_SOCKET = 70
FOLDERS_S = 10.0
SPACE_BYTES = 1 << 16  # more than a file system keeps in reserve for a small file

# Exit codes where the launcher can't report to the Hub, which has a sentence for each.
BROKEN_CODE = 1
REFUSED_CODE = 3
UNTRUSTED_CODE = 4
UNANSWERED_CODE = 5
SETTINGS_CODE = 6
WRONG_NAME_CODE = 7
WRONG_TIME_CODE = 8
NOT_RUN_CODE = 126
NO_PYTHON_CODE = 127
# And where it can.
MISSING_CODE = 127
# What OpenSSL calls certificates that are not valid yet, or no longer, and those for another host or address.
WRONG_TIME = (9, 10)
WRONG_NAME = (62, 64)

PACKAGES = {"jupyterhub-singleuser": "jupyterhub", "jupyter-lab": "jupyterlab", "jupyter-notebook": "notebook"}
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - not to bind to
OWN_ADDRESS = "127.0.0.1"
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WARNING = signal.SIGUSR1
NOTED = (WARNING, signal.SIGUSR2)
ADVICE = {
    400: "it runs another version of hpcspawner than the one that wrote this job. Start the server again.",
    403: "it is not valid, or the job used it before. Start the server again.",
    404: "it knows no such address or job. Start the server again; if that fails, contact the Hub's administrators.",
    410: "this server was stopped or replaced in the meantime. Start it again if you still need it.",
}

# Programs that write a private key and a signing request for it to their output: no file to protect before ours.
# OpenSSL 1.0.2 would write the curve's parameters instead of its name.
CURVE = ["-pkeyopt", "ec_paramgen_curve:prime256v1", "-pkeyopt", "ec_param_enc:named_curve"]
OPENSSL = ["openssl", "req", "-new", "-newkey", "ec", *CURVE, "-nodes", "-sha256", "-subj", "/"]
# In place of the site's and the user's, whatever they hold; OpenSSL 1.0.2 can't do without the section.
OPENSSL_CONFIG = "[req]\ndistinguished_name = subject\n[subject]\n"
CRYPTOGRAPHY = """\
from cryptography import x509
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
backend = default_backend()
key = ec.generate_private_key(ec.SECP256R1(), backend)
request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256(), backend)
pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
print(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none).decode())
print(request.public_bytes(pem).decode())
"""

_PEM = re.compile("(-----BEGIN (PRIVATE KEY|CERTIFICATE REQUEST)-----[^-]+-----END \\2-----)")
# What jupyter_server and notebook say when their own option ends them.
_IDLE = re.compile(r"No kernels(?: or terminals)? for (\d+) seconds; shutting down")
# What Apptainer and Singularity say before they give up.
_FATAL = re.compile(r"^(?:FATAL|ERROR):?\s+(.*)")
_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_OF_HUB = ("JUPYTERHUB_", "JPY_API_TOKEN")
_ANSI = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_SECRET_NAME = re.compile("TOKEN|SECRET|KEY(?!FILE)|PASSWORD", re.IGNORECASE)
_random = random.SystemRandom()
_hidden = set()  # values that may stand in no log line and no message


class HubError(Exception):
    """Asking the Hub again would not help; `code` is how the job exits."""

    def __init__(self, message, code=REFUSED_CODE):
        super().__init__(message)
        self.code = code


class HubBusyError(Exception):
    """This call had no answer; another may have one, not before `wait_s` seconds."""

    code = UNANSWERED_CODE

    def __init__(self, message, wait_s=0):
        super().__init__(message)
        self.wait_s = wait_s


class EndError(Exception):
    """The job ends; the launcher reports the reason to the Hub. `code` is the job's exit code."""

    def __init__(self, reason, message, code=1, exit_code=None, number=None):
        super().__init__(message)
        self.code = code
        self.report = {"reason": reason, "message": message, "exit_code": exit_code, "signal": number}


def clean(text, limit):
    """`text` without control characters and secrets, at most `limit` characters of it."""
    # Secrets last: a dropped character must not put one together again.
    text = "".join(" " if c.isspace() else c for c in _ANSI.sub("", text) if c.isspace() or c.isprintable())
    for secret in sorted(_hidden, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text[:limit]


def say(text):
    """Write one line to the job's log."""
    with contextlib.suppress(OSError):  # a full disk must not end the server
        # Not print(): under LC_ALL=C Python 3.6 can't print an accent.
        os.write(1, ("hpcspawner: %s\n" % clean(text, 1000)).encode("utf-8", "replace"))


def last_lines(path, since=0):
    """The last lines of the job's log after its first `since` bytes, fit to be shown."""
    try:
        with open(path, "rb") as log:
            start = max(since, log.seek(0, os.SEEK_END) - LOG_BYTES)
            log.seek(start)
            lines = log.read(LOG_BYTES).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    # A line cut at its start could hold the unrecognised rest of a secret.
    cleaned = [clean(line, 300) for line in (lines[1:] if start > since else lines)]
    return [line for line in cleaned if line.strip()][-20:]


def content(file):
    """What has been written to an open file, as text."""
    file.seek(0)
    return file.read(LOG_BYTES).decode("utf-8", "replace")


def span(seconds):
    """A length of time as people write it, such as 1h 30m."""
    parts = []
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        parts += ["%d%s" % (count, unit)] if count else []
    return " ".join(parts) or "0s"


def native(text):
    """`text` so that the operating system gets it as UTF-8, whatever the job's locale."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def signal_name(number):
    """SIGTERM for 15; real-time signals have no name."""
    return signal.Signals(number).name if number in set(signal.Signals) else "signal %d" % number


class Signals:
    """Signals in the order they came. They interrupt nothing: all waiting is done here."""

    def __init__(self):
        self.ending = []
        self.warned = False
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        for number in (*ENDING, *NOTED, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)

    def wake(self):
        """End a pause from another thread."""
        os.write(self._writer, b"\0")

    def pause(self, seconds):
        """Wait until a signal comes, a child ends, `wake` is called or the time has passed."""
        if not select.select([self._reader], [], [], max(0, seconds))[0]:
            return
        for number in os.read(self._reader, 4096):
            if number in ENDING:
                self.ending.append(number)
            if number == WARNING:
                self.warned = True
                say("the scheduler warns: the wall time ends soon")
            elif number in ENDING or number in NOTED:
                say("signal %s received" % signal_name(number))

    def until(self, condition, seconds):
        """Wait until `condition()` holds or the time has passed; say whether it holds."""
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.pause(min(0.1, deadline - time.monotonic()))
        return condition()


def trusting(ca):
    """TLS 1.2 or newer; certificate and host name are verified against `ca`, or the system's store if it is None."""
    try:
        context = ssl.create_default_context(cadata=ca)
    except (OSError, TypeError, ValueError) as error:
        raise HubError("The job's certificate authority can't be read: %s" % error, UNTRUSTED_CODE) from None
    if hasattr(context, "minimum_version"):
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # novermin: not reached on Python 3.6
    else:
        context.options |= ssl.OP_NO_TLSv1 | ssl.OP_NO_TLSv1_1
    return context


def call(url, body, context):
    """POST `body` as JSON, once, and return the JSON of the answer."""
    # http.client heeds no proxy variable and follows no redirect: the secret in `body` goes to this host or nowhere.
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(parts.hostname, parts.port, timeout=REQUEST_S, context=context)
    try:
        text = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
        connection.request("POST", parts.path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        data = response.read(ANSWER_BYTES + 1)
    except (OSError, ValueError, http.client.HTTPException) as error:
        # Python 3.6 raises CertificateError, a ValueError, for a wrong name and SSLError for everything else.
        if isinstance(error, ssl.CertificateError) or getattr(error, "reason", "") == "CERTIFICATE_VERIFY_FAILED":
            raise not_accepted(parts.hostname, error) from None
        raise HubBusyError("%s: %s" % (type(error).__name__, error)) from None
    finally:
        connection.close()
    return answered(response, data, "this job's %s" % parts.path.rpartition("/")[2])


def not_accepted(host, error):
    """What to raise where the certificate of `host` was not accepted."""
    why = getattr(error, "verify_message", "") or str(error)
    message = "The certificate of %s was not accepted, so nothing was sent: %s" % (host, why)
    number = getattr(error, "verify_code", 0)  # from Python 3.7 on
    if number in WRONG_TIME:
        now = time.strftime("%H:%M:%S on %d %B %Y, UTC", time.gmtime())
        return HubError("%s. The clock of %s says %s." % (message, NODE, now), WRONG_TIME_CODE)
    if number in WRONG_NAME or "doesn't match" in why:
        return HubError(message, WRONG_NAME_CODE)
    return HubError(message, UNTRUSTED_CODE)


def answered(response, data, what):
    """The JSON of a good answer; `what` names for a message what was sent."""
    if response.status >= 500 or response.status in (408, 425, 429):
        wait = response.getheader("Retry-After", "")
        raise HubBusyError("status %d" % response.status, int(wait) if wait.isdecimal() else 0)
    if response.status == 404 and not response.getheader(HUB_HEADER):
        # While the Hub starts, its proxy runs already and has no route yet.
        raise HubBusyError("status 404, not from the Hub itself")
    if not 200 <= response.status < 300:
        advice = ADVICE.get(response.status, "check the callback address in the Hub's configuration.")
        raise HubError("The Hub refused %s (status %d): %s" % (what, response.status, advice))
    try:
        if len(data) <= ANSWER_BYTES:
            return json.loads(data.decode("utf-8") or "{}")
    except ValueError:
        pass
    raise HubBusyError("an answer that is too long or not JSON")


class Hub:
    """The Hub's endpoints for this job; `stopped` says when an answer is no longer wanted, and None is returned."""

    def __init__(self, callback, ca, signals):
        try:
            parts = urlsplit(callback)
            usable = parts.scheme == "https" and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise HubError(
                "The Hub's callback address must begin with https://; the ticket was not sent.", SETTINGS_CODE
            )
        self._callback = callback.rstrip("/")
        self._context = trusting(ca)
        self._signals = signals

    def ask(self, name, body, limit_s, stopped, tries=sys.maxsize):
        """POST to the endpoint `name`, again and again while the Hub is busy or away."""
        deadline = time.monotonic() + limit_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                left = deadline - time.monotonic()
                return self._once(self._callback + name, body, min(left, REQUEST_S), stopped)
            except HubBusyError as busy:
                tries -= 1
                left = deadline - time.monotonic() - 1  # the last try has a second to be answered
                if not tries or left <= 0:
                    raise HubBusyError("The Hub did not answer (last try: %s)." % busy) from None
                if pause_s == FIRST_PAUSE_S:
                    say("the Hub has not answered yet (%s); trying again" % busy)
                # Jitter also on what the Hub asked for: many jobs may have been sent away at once.
                wait_s = min(busy.wait_s, MOST_WAIT_S) + pause_s * _random.uniform(0.5, 1)
            if self._signals.until(stopped, min(wait_s, left)):
                return None
            pause_s = min(2 * pause_s, LAST_PAUSE_S)

    def once(self, name, body):
        """POST a single time, from a thread that may wait for it."""
        return call(self._callback + name, body, self._context)

    def tell(self, name, body, tries):
        """POST in a thread of its own, a few times at most; the launcher does not wait for it."""

        def work():
            pause_s = FIRST_PAUSE_S
            for _ in range(tries):
                try:
                    call(self._callback + name, body, self._context)
                    return
                except HubBusyError:
                    time.sleep(pause_s)
                    pause_s = min(2 * pause_s, LAST_PAUSE_S)
                except Exception as error:
                    say("could not send the warning to the Hub. %s" % error)
                    return

        threading.Thread(target=work, daemon=True).start()

    def _once(self, url, body, limit_s, stopped):
        # In a thread, because a name look-up and an answer that drips have no time-out of their own.
        outcome = []

        def work():
            try:
                outcome.append(call(url, body, self._context))
            except Exception as error:
                outcome.append(error)
            self._signals.wake()

        threading.Thread(target=work, daemon=True).start()
        deadline = time.monotonic() + limit_s
        while not outcome:
            if stopped():
                return None
            if time.monotonic() >= deadline:
                raise HubBusyError("nothing came within %.0f s" % limit_s)
            self._signals.pause(deadline - time.monotonic())
        if isinstance(outcome[0], Exception):
            raise outcome[0]
        return outcome[0]


def exchange(hub, body, limit_s, stopped):
    """Trade the ticket: the server's environment, the key for reports, certificates; None if stopped meanwhile."""
    answer = hub.ask("/ticket", body, limit_s, stopped)
    if answer is None:
        return None
    try:
        environment = {str(name): str(value) for name, value in answer["environment"].items()}
        report_key = str(answer["report_key"])
    except (AttributeError, KeyError, TypeError):
        raise HubError("The Hub's answer has no environment or no report key; its version differs.") from None
    certificates = {name: str(answer.get(name)) for name in ("certificate", "authorities") if "csr" in body}
    if not all("-----BEGIN CERTIFICATE-----" in text for text in certificates.values()):
        raise HubError("The Hub's answer has no certificate for this job; its version differs.")
    _hidden.update(value for name, value in environment.items() if _SECRET_NAME.search(name) and len(value) >= 8)
    _hidden.add(report_key)
    return environment, report_key, certificates


def processes():
    """Every process that is no zombie: {pid: (parent, session, start time)}."""
    table = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name, "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()  # the command before it may hold anything
        except OSError:
            continue  # ended meanwhile
        if fields[0] not in (b"Z", b"X"):
            table[int(name)] = (int(fields[1]), int(fields[3]), int(fields[19]))
    return table


def family(leader, table):
    """Processes in the session of `leader` and all that descend from one: {pid: start time}."""
    members = {pid for pid, (_, session, _) in table.items() if session == leader}
    grown = True
    while grown:
        children = {pid for pid, (parent, _, _) in table.items() if parent in members}
        grown = not children <= members
        members |= children
    return {pid: table[pid][2] for pid in members}


def cpu_seconds(leader):
    """How long the family of `leader` has computed, with what has ended in it."""
    ticks = 0
    for pid in family(leader, processes()):
        with contextlib.suppress(OSError, ValueError), open("/proc/%d/stat" % pid, "rb") as stat:
            ticks += sum(map(int, stat.read().rpartition(b")")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def open_files(pid):
    """What the descriptors of a process point to."""
    found = set()
    with contextlib.suppress(OSError):  # it may end meanwhile
        for fd in os.listdir("/proc/%d/fd" % pid):
            with contextlib.suppress(OSError):  # and close files
                found.add(os.readlink("/proc/%d/fd/%s" % (pid, fd)))
    return found


def listeners(port):
    """The TCP sockets that listen on `port` of any address, and their users: {"socket:[inode]": uid}."""
    found = {}
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(path) as table:  # without IPv6 there is no tcp6
            for row in map(str.split, table):
                if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port:
                    found["socket:[%s]" % row[9]] = int(row[7])
    return found


def connects(host, port):
    """Whether any process accepts connections on `port`; cheaper to find out than which process."""
    with contextlib.suppress(OSError):
        socket.create_connection((OWN_ADDRESS if host in EVERY_ADDRESS else host, port), CONNECT_S).close()
        return True
    return False


def owner(port, leader):
    """Who listens on `port`: "nobody", "server" (the family of `leader` alone) or "other"."""
    found = listeners(port)
    if not found:
        return "nobody"
    held = set()
    for pid in family(leader, processes()):
        held |= open_files(pid)
    return "server" if held >= set(found) and set(found.values()) == {os.geteuid()} else "other"


def hold(host, port):
    """A listening socket on `port` (0: any free one) of `host` (empty: every address)."""
    every = "::" if os.path.exists("/proc/net/if_inet6") else None
    where = socket.getaddrinfo(host or every, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    held = socket.socket(where[0], where[1], where[2])
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if where[0] == socket.AF_INET6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        held.bind(where[4])
        held.listen(1)
    except OSError:
        held.close()
        raise
    return held


def is_free(host, port):
    """Whether a server could listen on `port`."""
    with contextlib.suppress(OSError):
        hold(host, port).close()
        return True
    return False


def take_port(host, ports, tried):
    """A free port that is not in `tried`, and the socket that holds it."""
    numbers = [number for number in range(ports[0], ports[1] + 1) if number not in tried] if ports else [0]
    _random.shuffle(numbers)
    why = "all of them were tried"
    for number in numbers:
        try:
            held = hold(host, number)
        except OSError as error:
            why = error.strerror or error
        else:
            return held.getsockname()[1], held
    among = "between %d and %d " % tuple(ports) if ports else ""
    raise EndError("no-port", "No port %son %s is free for the server: %s." % (among, NODE, why))


def not_opened(path, error):
    """What to say of a folder that can't be opened."""
    cures = {errno.ENOENT: "Create it, or choose another directory.", errno.EACCES: "Choose one that is yours to open."}
    cure = cures.get(error.errno, "Choose another directory.")
    return "The directory %s can't be opened on %s: %s. %s" % (path, NODE, error.strerror, cure)


def why_full(path):
    """Why nothing more can be kept in a folder, and what to do; empty if it can, or if it is not for us to write in."""
    try:
        with tempfile.TemporaryFile(dir=native(path)) as file:
            file.write(b"x" * SPACE_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        why = {errno.ENOSPC: "its file system is full", errno.EDQUOT: "your quota is used up"}.get(error.errno)
        cure = "Remove files there, then start the server again."
        return "Nothing more can be written to %s on %s: %s. %s" % (path, NODE, why, cure) if why else ""
    return ""


def why_not_usable(path, writable):
    """Why a server can't start in a folder, and what to do; empty if it can."""
    try:
        os.listdir(native(path))
    except OSError as error:
        return not_opened(path, error)
    if writable and not os.access(native(path), os.W_OK | os.X_OK):
        if os.statvfs(native(path)).f_flag & os.ST_RDONLY:
            return "Nothing can be written to %s on %s: its file system is read-only there." % (path, NODE)
        return "You may not write to the directory %s on %s. Choose another directory." % (path, NODE)
    return why_full(path) if writable else ""


def ends_with_parent():
    """Have the kernel send SIGTERM when the launcher dies without a word."""
    PR_SET_PDEATHSIG = 1  # noqa: N806 - the kernel's name
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Folder:
    """A folder on this node, for its owner alone, that goes when the job ends."""

    def __init__(self, for_socket=False):
        place = tempfile.gettempdir()
        # Either sign would divide the name in two where it is made visible in an image; a socket's has few bytes.
        unfit = set(":,") & set(place) or (for_socket and len(place) > LONGEST_FOR_SOCKET)
        place = "/tmp" if unfit else None  # noqa: S108 - mkdtemp picks the name
        self.path = tempfile.mkdtemp(prefix="hpcspawner-", dir=place)

    def make(self, name):
        """Make a folder in it, unless it is there; return its path."""
        path = os.path.join(self.path, name)
        with contextlib.suppress(FileExistsError):
            os.makedirs(path, 0o700)
        return path

    def write(self, name, text):
        """Make a file; return its path."""
        path = os.path.join(self.path, name)
        if os.path.dirname(name):
            self.make(os.path.dirname(name))
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(text.encode("utf-8"))
        return path

    def forget(self, name):
        """Remove a file, if it is there."""
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(self.path, name))

    def remove(self):
        """Leave nothing behind on the node."""
        shutil.rmtree(self.path, ignore_errors=True)


def key_makers(command, wrap):
    """What may be able to make a key on this node: openssl, and Pythons that may have cryptography.

    Of each its argv, and whether it is to run with the variables as the job found them.
    """
    found = os.environ.get("HPC_OPENSSL")
    makers = [([found, *OPENSSL[1:]], True)] if found else []
    if not found and shutil.which(OPENSSL[0]):
        makers.append((OPENSSL, False))
    if wrap:
        pythons = [[*wrap, "python3"]]
    else:
        server = shutil.which(native(command)) or ""
        places = [os.path.dirname(server), os.path.dirname(os.path.realpath(server))] if server else []
        path = os.pathsep.join([*places, os.environ.get("PATH", os.defpath)])
        pythons = [[shutil.which("python3", path=path) or shutil.which("python", path=path)]]
    script = ["-I", "-c", CRYPTOGRAPHY]
    makers += [([*python, *script], False) for python in pythons if python[0]]
    own = ([sys.executable, *script], True)
    # The same one twice helps only where the set-up has changed what it is loaded with.
    if variables_as_found() == os.environ and (own[0], False) in makers:
        return makers
    return [*makers, own]


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


class Extensions:
    """Extensions of the Jupyter server among our files: how the server is pointed to them."""

    def __init__(self, folder, names, idle_limit_s):
        # Not in the home: the Hub may have the server ignore what is there.
        self._folder = folder.path
        config = "import sys\nsys.path.append(%r)\n" % self._folder
        if idle_limit_s is not None:
            config += "c.HPCSpawnerIdle.limit_s = %d\n" % idle_limit_s
        for name, app, key in (
            ("jupyter_server", "ServerApp", "jpserver_extensions"),
            ("jupyter_notebook", "NotebookApp", "nbserver_extensions"),
        ):
            folder.write("%s_config.py" % name, config)
            loaded = {app: {key: dict.fromkeys(names, True)}}
            folder.write("%s_config.d/hpcspawner.json" % name, json.dumps(loaded))

    @property
    def variables(self):
        """What points the server to them."""
        earlier = os.environ.get("JUPYTER_CONFIG_PATH")
        return {"JUPYTER_CONFIG_PATH": self._folder + (os.pathsep + earlier if earlier else "")}

    @property
    def ended(self):
        """Whether one of them ended the server for being idle."""
        return os.path.exists(os.path.join(self._folder, IDLE_END))


def variables_as_found():
    """Our own variables: what decides how programs are loaded and whom they trust is as the job began."""
    return {name: value for name, value in os.environ.items() if not name.startswith(SET_UP)}


def variables_of_set_up():
    """What the server gets: our own variables, and in place of some of them what the set-up made."""
    made = {name[len(SET_UP) :]: value for name, value in os.environ.items() if name.startswith(SET_UP)}
    cleared = ("LD_", "SSL_", "OPENSSL_")
    kept = {name: value for name, value in variables_as_found().items() if not name.startswith(cleared)}
    return {name: value for name, value in dict(kept, **made).items() if name not in OUR_VARIABLES}


class Server:
    """A program in a session of its own, and everything that it starts."""

    def __init__(self, argv, extra, signals, as_found=False, hidden=(), **streams):
        self._signals = signals
        self._relatives = {}
        variables = dict(variables_as_found() if as_found else variables_of_set_up())
        for name in hidden:
            variables.pop(name, None)
        variables.update((native(name), native(value)) for name, value in extra.items())
        # Its own session is out of sight for a scheduler without cgroups, and Torque kills 2 s after its SIGTERM.
        options = {"start_new_session": True, "stdin": subprocess.DEVNULL}
        if _libc:
            options["preexec_fn"] = ends_with_parent
        try:
            argv = [native(word) for word in argv]
            # By its path: else a broken program would be passed over for one of the same name further down PATH.
            argv[0] = shutil.which(argv[0], path=variables.get("PATH")) or argv[0]
            self._process = subprocess.Popen(argv, env=variables, **streams, **options)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or error
            message = "%s could not be started on %s: %s." % (argv[0], NODE, why)
            raise EndError("missing-program", message, MISSING_CODE) from None
        self.pid = self._process.pid

    @property
    def code(self):
        """None while it runs, then its exit code or the negative number of the signal that ended it."""
        return self._process.poll()

    def send(self, number):
        """Send a signal to its process group."""
        # Kernels have sessions of their own; once their parent has ended nothing else tells that they are ours.
        self._relatives.update(family(self.pid, processes()))
        with contextlib.suppress(OSError):  # ended meanwhile
            os.killpg(self.pid, number)

    def end(self, patience_s=STOP_S):
        """End the program if it still runs, then whatever is left of its family."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.code is None:
                self.send(number)
                self._signals.until(lambda: self.code is not None, patience_s)
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self._left():
                with contextlib.suppress(OSError):
                    os.kill(pid, number)
            self._signals.until(lambda: not self._left(), LEFTOVERS_S)

    def _left(self):
        table = processes()
        known = {pid for pid, began in self._relatives.items() if pid in table and table[pid][2] == began}
        return known | set(family(self.pid, table))


class Job:
    """One server on this node, from the ticket to the report of its end."""

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

    def run(self):
        """Do it all; return how the job exits."""
        try:
            return self._run()
        finally:
            self._remove_folder()

    def _run(self):
        try:
            self._exchange()
            self._prepare()
            self._start()
            self._report_listening()
            return self._report_end(self._watch())
        except EndError as error:
            end = error
        except (HubError, HubBusyError) as error:
            self._end_server()
            say(str(error))
            return error.code
        except Exception as error:
            end = EndError("server-exited", "The launcher failed on %s: %s: %s" % (NODE, type(error).__name__, error))
        say(str(end))
        self._end_server()
        return self._report_end(end)

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
        # The key, or else the mark, lets the Hub give the same run the same answer when the first was lost on its way.
        body.update({"csr": request} if request else {"run": secrets.token_urlsafe(24)})
        answer = exchange(self.hub, body, max(self.limit_s, TICKET_S), self._ending)
        self._heed_signals()
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
            self.extensions = Extensions(self.folder, self.settings.extensions, self.settings.idle_limit_s)
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

    def _heed_inside(self):
        """Raise why the server that has ended never began, where that lies with the image."""
        found = self.inside.found if self.inside and not self._ending() else "command"
        if found.startswith("missing "):
            self._require(None, " or ".join([found.partition(" ")[2], *self.settings.alone[:1]]))
        if not found:
            how = self.inside.why_not() or "it ended with exit code %d. See the job's log." % self.server.code
            message = "%s could not enter %s: %s" % (self.container[0], self.place, how)
            raise EndError("missing-program", message, MISSING_CODE)

    def _report_listening(self):
        if self._stopped():
            return
        say("server listens on port %d" % self.port)
        body = {"report_key": self.report_key, "event": "listening", "port": self.port}
        # For as long as it takes: a server that runs must not be lost because the Hub is away.
        answer = self.hub.ask("/report", body, math.inf, self._stopped)
        if self.keeper and answer:
            self.keeper.heard(answer)

    def _pass_on_warning(self):
        """The scheduler has said that the wall time ends soon."""
        if self.keeper:
            self.keeper.change(warned=True)
        self.hub.tell("/report", {"report_key": self.report_key, "event": "warned"}, WARNED_TRIES)

    def _pass_on_end(self):
        """What asked the launcher to end concerns the server, and what runs beside it: a kill may follow soon."""
        self.server.send(signal.SIGTERM)
        if self.beside:
            self.beside.send(signal.SIGTERM)

    def _watch(self):
        """Stay as the server's parent until it ends, and pass on what asks for its end."""
        passed = 0
        warned = False
        while not self._ended():
            if self.signals.warned and not warned:
                warned = True
                self._pass_on_warning()
            if passed < len(self.signals.ending):
                passed = len(self.signals.ending)
                self._pass_on_end()
            idle = self._idle_program()
            if idle:
                return idle
            self.signals.pause(self._next_look_s)
        # A scheduler may signal both of us, and the server may be faster.
        self.signals.until(self._ending, 0.1)
        self._heed_inside()
        if self.server.code is None and self._ending():
            self._end_server()  # the proxy was faster
        code = self.server.code
        if code is None:
            message = "The proxy in front of the server ended with exit code %d on %s." % (self.front.code, NODE)
            raise EndError("server-exited", message)
        number = -code if code < 0 else None
        how = "was ended by %s" % signal_name(number) if number else "ended with exit code %d" % code
        say("server %s" % how)
        idle_s = self._idle_s() if code == 0 and not self._ending() else None
        if idle_s is not None:
            self._end_server()
            return EndError("idle", "The server was idle for %s and shut down." % span(idle_s), 0, 0)
        message = "%s %s on %s." % (self.title, how, NODE)
        if number == signal.SIGKILL:
            message += " This often means that the server used more memory than the job asked for."
        self._end_server()
        reason, seen = ("signalled", self.signals.ending[0]) if self._ending() else ("server-exited", number)
        return EndError(reason, message, 128 + number if number else code, None if number else code, seen)

    @property
    def _next_look_s(self):
        """How long to wait until something is looked at again."""
        limit_s = self.settings.idle_limit_s if self.settings.program else None
        return 60 if limit_s is None else min(60, max(1, limit_s / 10))

    def _idle_program(self):
        """End a program that nobody has used for as long as it may be idle, and say so."""
        limit_s = self.settings.idle_limit_s
        if not self.settings.program or limit_s is None or self._ending() or self.behind.idle_s(self.server) <= limit_s:
            return None
        self._end_server()
        say("the server was idle for %d seconds and shuts down" % limit_s)
        return EndError("idle", "The server was idle for %s and shut down." % span(limit_s), 0, 0)

    def _idle_s(self):
        """How long the server was idle, if it ended for that; else None."""
        if self.extensions and self.extensions.ended:
            return self.settings.idle_limit_s
        found = [_IDLE.search(line) for line in last_lines(self.log, self.log_start)]
        return next((int(match.group(1)) for match in reversed(found) if match), None)

    def _remove_folder(self):
        if self.folder:
            self.folder.remove()

    def _remove_spare_log(self):
        """If the job's own folder can't be written, the log on this node could not be found or removed."""
        if os.environ.get("HPC_LOG_SPARE") and self.log != os.devnull:
            with contextlib.suppress(OSError):
                os.unlink(self.log)

    def _report_end(self, end):
        self._remove_folder()  # before the report: a scheduler may kill this process soon
        if self.report_key:
            body = {"report_key": self.report_key, "event": "ended", "log": last_lines(self.log, self.log_start)}
            body.update(end.report, message=clean(end.report["message"], 500))
            try:
                self.hub.ask("/report", body, END_REPORT_S, lambda: False, tries=3)
                self._remove_spare_log()
            except (HubError, HubBusyError) as error:
                say("could not report the end to the Hub. %s" % error)
        return end.code


def read_settings():
    """The settings, read to their end and closed, so that the server can't inherit them."""
    with open(SETTINGS_FD, "rb") as file:
        settings = Settings(**json.loads(file.read().decode("utf-8")))
    if settings.version != SETTINGS_VERSION:
        raise ValueError("another version")
    return settings


def main():
    """Run the job's server; return how the job exits."""
    signals = Signals()
    try:
        settings = read_settings()
        _hidden.add(settings.ticket)
        job = Job(settings, signals)
    except HubError as error:
        say(str(error))
        return error.code
    except (OSError, ValueError, TypeError) as error:
        say("this job's settings can't be read: %s" % type(error).__name__)
        return SETTINGS_CODE
    return job.run()


if __name__ == "__main__":
    # Not sys.exit(): a second signal during the interpreter's own end would hide the exit code.
    os._exit(main())
