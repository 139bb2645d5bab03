"""A real PostgreSQL in a folder of its own, of the account `postgres` where the tests run as root."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

# Debian has the server's programs beside its releases, not on PATH.
_RELEASES = Path("/usr/lib/postgresql")


def _programs():
    found = sorted(_RELEASES.glob("*/bin/initdb"), key=lambda path: int(path.parent.parent.name))
    assert found, "PostgreSQL is not installed; `make test` installs what the tests need"
    return found[-1].parent


@contextlib.contextmanager
def postgresql(role):
    """The folder of the socket of a server that runs; `role` has a database of its own name, and comes by peer."""
    account = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
    programs = _programs()
    # A socket's path may be no longer than 107 characters.
    place = Path(tempfile.mkdtemp(prefix="pg-"))
    os.chown(place, account.pw_uid, account.pw_gid)
    place.chmod(0o755)

    def run(*command):
        words = [programs / command[0], *command[1:]]
        who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False, timeout=120, **who)
        assert done.returncode == 0, f"{command}: {done.stdout} {done.stderr}"

    try:
        run("initdb", "-D", place / "data", "--auth-local=peer", "--no-sync", f"--username={account.pw_name}")
        # pg_ctl waits for the server, which would keep this process's pipes open without a log of its own.
        settings = f"-k {place} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-D", place / "data", "-l", place / "log", "-t", "60", "-w", "-o", settings, "start")
        try:
            if role != account.pw_name:
                run("createuser", "-h", place, role)
            run("createdb", "-h", place, f"--owner={role}", "jupyterhub")
            yield place
        finally:
            run("pg_ctl", "-D", place / "data", "-m", "fast", "-w", "stop")
    finally:
        shutil.rmtree(place)
