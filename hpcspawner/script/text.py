"""Words of bash, and the programs that travel in the script."""

import ast
import shlex
from functools import cache
from importlib.resources import files

from hpcspawner.programs import launcher


def quote(value: object) -> str:
    """One word of shell, whatever is in it: the filter that every value passes."""
    return shlex.quote(str(value))


def quote_path(path: str) -> str:
    """A folder as one word of shell, a leading `~` left to the node to fill in."""
    if path == "~" or path.startswith("~/"):
        return '"$HOME"' + (shlex.quote(path[1:]) if path[1:] else "")
    return shlex.quote(path)


@cache
def source(name: str) -> str:
    """The text of one of the programs that travel in the script."""
    return files("hpcspawner.programs").joinpath(name).read_text(encoding="utf-8").rstrip("\n")


@cache
def joined_launcher() -> str:
    """The launcher as one program: its parts in their order, the imports of all of them at its head."""
    imports, bodies = set(), []
    for part in launcher.PARTS:
        text = source(f"launcher/{part}.py")
        lines = text.split("\n")
        tree = ast.parse(text)
        # The docstring, then the imports, then all else.
        head = [tree.body[0], *(node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))]
        imports |= {ast.unparse(node) for node in head[1:] if not _is_of_launcher(node)}
        bodies.append("\n".join(lines[head[-1].end_lineno :]).strip("\n"))
    return "\n\n\n".join([f'"""{launcher.__doc__}"""', "\n".join(sorted(imports)), *bodies])


def _is_of_launcher(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module or "").startswith(launcher.__name__)
