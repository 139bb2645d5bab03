"""Work that root starts and another account does: in a process of that account, from its first step to its last."""

import os
import pwd
import signal
import sys
import threading
from collections.abc import Callable
from typing import IO

from hpcspawner.units import printable

_INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Of root's environment; all else may be a secret.
_VARIABLES = ("PATH", "LANG", "TMPDIR")


def become(account: pwd.struct_passwd, work: Callable[[], None]) -> int:
    """Do the work as this account and wait for it; its exit code. Only root can.

    Root itself opens, writes and removes nothing meanwhile, so no link that the account's owner puts anywhere leads
    root. The account gets no terminal of root's either: what it prints comes through a pipe, line by line. An
    interrupt here (KeyboardInterrupt) becomes SIGTERM for it.
    """
    out, err = os.pipe(), os.pipe()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    # An interrupt arrives only once the process to pass it on to exists.
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPTS)
    child = os.fork()
    if not child:
        _be(account, work, out, err)
    relays = [_relay(*ends, stream) for ends, stream in ((out, sys.stdout), (err, sys.stderr))]
    code = _wait_for(child)
    for relay in relays:
        # What the account has left running may hold the pipe.
        relay.join(timeout=1)
    return code


def _be(account: pwd.struct_passwd, work: Callable[[], None], out: tuple[int, int], err: tuple[int, int]) -> None:
    """The child: drop every right before anything else, work, end."""
    code = 1
    try:
        os.setsid()
        os.setgroups([])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        os.chdir("/")
        kept = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        os.environ.clear()
        os.environ.update(kept, HOME=account.pw_dir, USER=account.pw_name)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for old, new in ((nothing, 0), (out[1], 1), (err[1], 2)):
            os.dup2(old, new)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
        work()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        # Not exit(): what root began is root's to finish.
        os._exit(code)


def _relay(read_end: int, write_end: int, stream: IO[str]) -> threading.Thread:
    os.close(write_end)

    def pass_on() -> None:
        with os.fdopen(read_end, encoding="utf-8", errors="replace", newline="\n") as lines:
            for line in lines:
                print(printable(line.rstrip("\n")), file=stream, flush=True)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    return thread


def _wait_for(child: int) -> int:
    while True:
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPTS)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:
            # It ends its servers and its Hub; a second interrupt must not leave half of them running.
            for number in _INTERRUPTS:
                signal.signal(number, signal.SIG_IGN)
            os.kill(child, signal.SIGTERM)
