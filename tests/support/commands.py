"""Our own command, as an admin runs it."""

import subprocess
import sys


def hpcspawner(*words):
    """Exit code, output and error output of the command, on the head."""
    code = "from hpcspawner.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, done.stderr
