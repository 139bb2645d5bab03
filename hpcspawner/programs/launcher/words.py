"""What the launcher says, in the log and to the Hub."""

import contextlib
import os
import re
import signal

from hpcspawner.programs.launcher.codes import REFUSED_CODE, UNANSWERED_CODE

# As the scheduler calls it, where it says so: the machine's own name may be another.
NODE = os.environ.get("SLURMD_NODENAME") or os.uname().nodename
LOG_BYTES = 1 << 16
_ANSI = re.compile(r"\x1b\[[0-9;:?]*[ -/]*[@-~]")
_SECRET_NAME = re.compile("TOKEN|SECRET|KEY(?!FILE)|PASSWORD", re.IGNORECASE)
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
