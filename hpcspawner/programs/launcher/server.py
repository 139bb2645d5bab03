"""The process of a server, the folder of its files and what it gets."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

from hpcspawner.programs.launcher.codes import IDLE_END, MISSING_CODE
from hpcspawner.programs.launcher.node import _libc, ends_with_parent, family, processes
from hpcspawner.programs.launcher.words import NODE, EndError, native

OUR_VARIABLES = ("HPC_JOB", "HPC_LOG", "HPC_LOG_SPARE", "HPC_LOG_START", "HPC_OPENSSL", "HPC_SETUP_FAILED")
SET_UP = "HPC_SET_"  # before the names of what the set-up has made for the server, and we do without
# Run by the server once it has loaded its modules: what it starts inherits no folder of ours.
FORGET = """\
found = os.environ.pop("PYTHONPATH", "").split(os.pathsep)
left = os.pathsep.join(folder for folder in found if folder != %r)
if left:
    os.environ["PYTHONPATH"] = left
"""
STOP_S = 10.0
LEFTOVERS_S = 2.0
LONGEST_FOR_SOCKET = 70
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


class Extensions:
    """Extensions of the Jupyter server among our files, and modules: how the server is pointed to them."""

    def __init__(self, folder, settings):
        # Not in the home: the Hub may have the server ignore what is there.
        self._folder = folder.path
        self._modules = settings.modules and os.path.join(self._folder, settings.modules)
        self._hidden = settings.hidden
        config = "import os, sys\nsys.path.append(%r)\n" % self._folder
        if self._modules:
            config += FORGET % self._modules
        if settings.idle_limit_s is not None:
            config += "c.HPCSpawnerIdle.limit_s = %d\n" % settings.idle_limit_s
        for name, app, key in (
            ("jupyter_server", "ServerApp", "jpserver_extensions"),
            ("jupyter_notebook", "NotebookApp", "nbserver_extensions"),
        ):
            folder.write("%s_config.py" % name, config)
            loaded = {app: {key: dict.fromkeys(settings.extensions, True)}}
            folder.write("%s_config.d/hpcspawner.json" % name, json.dumps(loaded))

    @property
    def variables(self):
        """What points the server to them."""
        variables = {"JUPYTER_CONFIG_PATH": self._before(os.environ, self._folder, "JUPYTER_CONFIG_PATH")}
        if self._modules:
            found = {} if "PYTHONPATH" in self._hidden else variables_of_set_up()
            variables["PYTHONPATH"] = self._before(found, self._modules, "PYTHONPATH")
        return variables

    @staticmethod
    def _before(variables, folder, name):
        """A variable that lists folders, with this one first."""
        return os.pathsep.join(filter(None, [folder, variables.get(name)]))

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
