"""The launcher as it travels in a script: one file, and the module made of it."""

import atexit
import importlib.util
import shutil
import tempfile
from pathlib import Path

from hpcspawner.programs.joined import joined_launcher

_folder = Path(tempfile.mkdtemp(prefix="launcher-"))
atexit.register(shutil.rmtree, _folder, ignore_errors=True)
SOURCE = joined_launcher()
FILE = _folder / "launcher.py"
FILE.write_text(SOURCE + "\n", encoding="utf-8")

_spec = importlib.util.spec_from_file_location("launcher", FILE)
launcher = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(launcher)
