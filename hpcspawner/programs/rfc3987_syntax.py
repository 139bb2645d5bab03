"""Stands for the package of this name in a Jupyter server's Python until somebody uses it.

jsonschema imports that package, which then takes a second to build a grammar for a check that Jupyter never asks for.
It travels in the job script, so it is one file. Where the package is not installed, importing this fails as well.
"""

import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import Any

_here = os.path.dirname(__file__)
_found = PathFinder.find_spec(__name__, [folder for folder in sys.path if folder != _here])
if _found is None or _found.loader is None:
    raise ImportError("No module named " + repr(__name__), name=__name__)
_spec, _loader = _found, _found.loader
# Its own modules are found where they are.
__path__ = list(_spec.submodule_search_locations or [])


def is_valid_syntax(*args: Any, **more: Any) -> Any:
    """As the package's."""
    return _package().is_valid_syntax(*args, **more)


def __getattr__(name: str) -> Any:
    """What else the package has."""
    if name.startswith("__"):
        raise AttributeError(name)
    return getattr(_package(), name)


def _package() -> Any:
    """The package itself, which takes our place."""
    if sys.modules[__name__].__file__ == __file__:
        package = sys.modules[__name__] = module_from_spec(_spec)
        _loader.exec_module(package)
    return sys.modules[__name__]
