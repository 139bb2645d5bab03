"""Another user of the cluster who wants what is not theirs: programs that run as them, on a host of the lab."""

import json
import subprocess
from pathlib import Path

BIN = Path(__file__).parents[1] / "cluster" / "bin"


def as_user(lab, host, user, *argv):
    """The words that run a command on a host of the lab as this user; "head" is where the tests run."""
    become = ["sudo", "-n", "-H", "-u", user, *argv]
    return become if host == "head" else [str(Path(lab) / host), *become]


def program(name):
    """The words that run one of the attacker's programs; they carry it, for the user may not see this folder."""
    return ["/usr/bin/python3", "-I", "-c", (BIN / name).read_text(encoding="utf-8")]


def search(lab, host, user, **order):
    """What `bin/searcher.py` finds as this user on this host; see there."""
    done = subprocess.run(
        as_user(lab, host, user, *program("searcher.py")),
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
