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


class Impostor:
    """`bin/impostor.py` as a user on a host, ended by the end of `with`."""

    def __init__(self, lab, host, user):
        self._argv = as_user(lab, host, user, *program("impostor.py"))

    def __enter__(self):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._argv, stdin=pipe, stdout=pipe, text=True, bufsize=1, cwd="/")
        return self

    def __exit__(self, *error):
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)

    def order(self, **order):
        """Tell it something; see there."""
        self._process.stdin.write(json.dumps(order) + "\n")

    def seen(self):
        """What came so far."""
        self.order(count=None)
        line = self._process.stdout.readline()
        assert line, "the impostor has ended"
        return json.loads(line)
