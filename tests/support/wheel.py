"""The wheel and the source distribution, built from what git knows of this checkout."""

import subprocess
import sys
from pathlib import Path

from support.rights import must

ROOT = Path(__file__).parents[2]


def build(folder):
    """Build both into the folder, which is returned.

    From a copy: what lies about in the checkout must not get in, and building must not touch it. The wheel is built
    from the source distribution, as `build` does by default: what one lacks, the other lacks.
    """
    source = folder / "source"
    source.mkdir(parents=True)
    listed = must("git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([sys.executable, "-m", "build", "--outdir", folder, source], check=True, capture_output=True)
    return folder
