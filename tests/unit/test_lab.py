"""What the test cluster's own programs say where they can't do their work."""

import shutil
import subprocess
from pathlib import Path

LAB = Path(__file__).parents[1] / "cluster" / "lab"


def test_where_no_other_debian_can_be_made_one_line_says_so(tmp_path):
    for name in ("bash", "dirname", "id"):
        (tmp_path / name).symlink_to(shutil.which(name))
    # No apt-get there, so it is no Debian.
    places = {"PATH": str(tmp_path), "RELEASES": str(tmp_path / "releases")}
    argv = [str(tmp_path / "bash"), str(LAB / "release"), "sid", "true"]
    done = subprocess.run(argv, env=places, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 75, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("Debian sid cannot be made here: it needs root on Debian")
    assert not (tmp_path / "releases").exists()
