"""The Hub's own secret: made once, in a file for its account alone. Its reader can act as every server."""

import contextlib
import logging
import os
import secrets
import stat
from pathlib import Path

from hpcspawner.errors import SecretUnusable

_BYTES = 32
_LONGEST_FILE = 4096


def kept(path: Path, log: logging.Logger) -> bytes:
    """The secret in this file, which is made where there is none. Raises SecretUnusable."""
    try:
        with contextlib.suppress(FileNotFoundError):
            return _read(path)
        with contextlib.suppress(FileExistsError):
            _make(path)
            log.info("hpcspawner: made the secret file %s", path)
        return _read(path)
    except OSError as error:
        raise SecretUnusable(
            f"The secret file {path} can't be used: {error.strerror}. Set HPCSpawner.secret_file to a path in a folder "
            "that the Hub's account may write to."
        ) from error


def _make(path: Path) -> None:
    # Never there with another mode, and never somebody else's file behind a link.
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(f"{secrets.token_hex(_BYTES)}\n")
        file.flush()
        os.fsync(descriptor)


def _read(path: Path) -> bytes:
    # Not to wait for the other end of a pipe.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if why := _not_ours_alone(os.fstat(file.fileno())):
            raise SecretUnusable(f"The secret file {path} {why}")
        text = file.read(_LONGEST_FILE)
    try:
        secret = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        secret = b""
    if len(secret) < _BYTES:
        raise SecretUnusable(
            f"The secret file {path} must hold {_BYTES} bytes or more, written as {2 * _BYTES} or more hexadecimal "
            f"digits. Write it with `openssl rand -hex {_BYTES}`, or delete it and the Hub makes a new one; it will "
            f"then not recognise running servers."
        )
    return secret


def _not_ours_alone(found: os.stat_result) -> str:
    """What is wrong with the file, and what to do; "" if it is the Hub's alone."""
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        return "is not a file. Set HPCSpawner.secret_file to the path of a file, or to a path where none exists yet."
    if found.st_uid not in (0, os.geteuid()):
        return (
            f"belongs to the account with uid {found.st_uid}, but must belong to the Hub's account or root. Use chown."
        )
    if mode & 0o077:
        return (
            f"has mode {mode:04o}, but only the Hub's account may read or write it: set its mode to 0600. If others "
            "may have read it, delete it while no server is running, and the Hub makes a new one."
        )
    return ""
