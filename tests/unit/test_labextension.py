"""The built extension for JupyterLab and Notebook is that of the sources beside it."""

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "labextension"
BUILT = ROOT / "hpcspawner" / "programs" / "labextension"


def built():
    return json.loads((BUILT / "package.json").read_text(encoding="utf-8"))


def test_it_was_built_from_these_sources():
    # The same words stand in labextension/build.mjs.
    names = ["build.mjs", "package-lock.json", "package.json", "tsconfig.json"]
    names += [f"src/{path.name}" for path in (SOURCES / "src").iterdir()]
    read = hashlib.sha256()
    for name in sorted(names):
        read.update(f"{name}\n".encode() + (SOURCES / name).read_bytes())
    assert built()["sources"] == read.hexdigest(), "the sources have changed: type `make labextension`"


def test_its_name_is_that_of_its_content():
    content = hashlib.sha256((BUILT / "remoteEntry.js").read_bytes()).hexdigest()[:16]
    assert built()["jupyterlab"]["_build"]["load"] == f"static/remoteEntry.{content}.js"


def test_it_stays_small():
    # It travels in each job script.
    assert sum(path.stat().st_size for path in BUILT.iterdir()) < 12_000
