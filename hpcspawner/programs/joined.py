"""The programs as text: those that travel in the script, and those of several parts, joined."""

import ast
from collections.abc import Iterable
from functools import cache
from importlib.resources import files

from hpcspawner.programs import launcher, look


@cache
def source(name: str) -> str:
    """The text of one of the programs that travel in the script."""
    return files("hpcspawner.programs").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def joined_launcher() -> str:
    """The launcher as one program."""
    return _joined(launcher.__doc__, [f"launcher/{part}.py" for part in launcher.PARTS])


@cache
def joined_look() -> str:
    """What looks at files as a user, as one program."""
    return _joined(look.__doc__, ["usable.py", "look.py"])


def _joined(about: str | None, parts: Iterable[str]) -> str:
    """One program of several parts in their order, the imports of all of them at its head."""
    imports, bodies = set(), []
    for part in parts:
        text = source(part)
        lines = text.split("\n")
        tree = ast.parse(text)
        # The docstring, then the imports, then all else.
        head = [tree.body[0], *(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))]
        imports |= {ast.unparse(node) for node in head[1:] if not _is_ours(node)}
        bodies.append("\n".join(lines[head[-1].end_lineno :]).strip("\n"))
    return "\n\n\n".join([f'"""{about}"""', "\n".join(sorted(imports)), *bodies])


def _is_ours(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hpcspawner.programs.")
