"""What this node's processes, ports and folders are like."""

import contextlib
import errno
import os
import signal
import socket
import tempfile

from hpcspawner.programs.launcher.hub import _random
from hpcspawner.programs.launcher.words import NODE, EndError, native

try:
    import ctypes

    _libc = ctypes.CDLL(None)
except (ImportError, OSError):  # a Python built without libffi
    _libc = None


CONNECT_S = 1.0
SPACE_BYTES = 1 << 16  # more than a file system keeps in reserve for a small file
EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - not to bind to
OWN_ADDRESS = "127.0.0.1"


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
