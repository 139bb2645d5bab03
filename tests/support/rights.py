"""What tests of the Hub's rights need: accounts, mounts that nobody else sees, commands as another account."""

import contextlib
import itertools
import pwd
import subprocess
from pathlib import Path

from support.faults import accounts_stay


def frame(data):
    """What the helper reads: a length and so many bytes."""
    return b"%d\n%s" % (len(data), data)


def run(*argv, given=b"", user=None, whole=True, **environment):
    """Exit code, output and error output of a command, as a user; root's own environment stays behind.

    If what is given is `whole`, the command's input stays open until it has answered, as the Hub's helper wants it.
    """
    prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--reset-env"] if user else []
    words = ["env", *(f"{name}={value}" for name, value in environment.items())] if environment else []
    pipe = subprocess.PIPE
    with subprocess.Popen([*prefix, *words, *argv], stdin=pipe, stdout=pipe, stderr=pipe, cwd="/") as process:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(given)
            process.stdin.flush()
        if not whole:
            process.stdin.close()
        out, err = process.stdout.read(), process.stderr.read()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    return process.returncode, out.decode(), err.decode(errors="replace")


def must(*argv, **kwargs):
    code, out, err = run(*argv, **kwargs)
    assert code == 0, f"{argv}: {out} {err}"
    return out


# From the top another Debian of the lab takes its own, such as mysql's, whose processes are seen here by their numbers.
_NUMBERS = [
    word
    for kind, limit in itertools.product(("UID", "GID"), ("MIN=600", "MAX=699"))
    for word in ("--key", f"SYS_{kind}_{limit}")
]


def remove_accounts(account, group):
    """Those of an earlier run, too, that was killed."""
    run("userdel", account)
    run("groupdel", group)
    for kind, name in (("passwd", account), ("group", group)):
        assert run("getent", kind, name)[0] != 0, f"{name} is still there"


@contextlib.contextmanager
def accounts(account, group, shell="/usr/sbin/nologin", members=("alice",)):
    """The Hub's own account, and the group of those whom it may act for: alice, and not bob, unless it is said."""
    with accounts_stay():
        remove_accounts(account, group)
    try:
        with accounts_stay():
            must("groupadd", group)
            must("useradd", "--system", "--user-group", *_NUMBERS, "--home-dir", "/", "--shell", shell, account)
            # Without a password, and yet not locked, which sshd would heed.
            must("usermod", "--password", "*", account)
            for member in members:
                must("usermod", "--append", "--groups", group, member)
        yield
    finally:
        with accounts_stay():
            remove_accounts(account, group)


@contextlib.contextmanager
def mounted(target, *options):
    """A mount that nobody sees but this run: the lab's head has a mount namespace of its own for each command."""
    target = Path(target)
    made = not target.exists()
    target.mkdir(parents=True, exist_ok=True)
    must("mount", *options, str(target))
    try:
        yield
    finally:
        must("umount", "--lazy", str(target))
        if made:
            target.rmdir()


def write(path, text, mode):
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def processes(user, name):
    """Ids of a user's processes of this name that live."""
    uid, found = pwd.getpwnam(user).pw_uid, []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            if folder.stat().st_uid == uid and (folder / "comm").read_text().strip() == name and state not in "ZX":
                found.append(int(folder.name))
    return found
