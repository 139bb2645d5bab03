"""Images that a user names by path or reference, where the site lets users do so."""

from collections.abc import Callable

from hpcspawner.site.environments import OwnImage, OwnImages
from hpcspawner.site.fields import REFERENCE

Resolve = Callable[[str], str]
"""A folder as people write it, to an absolute path."""


def own_image(asked: str, allowed: OwnImages, resolve: Resolve) -> OwnImage | None:
    """The image of this path or reference; None if it is neither, or lies where the site allows none."""
    if REFERENCE.fullmatch(asked):
        return _image(asked) if asked.startswith(allowed.references) else None
    path = resolve(asked)
    if not path.startswith("/") or ".." in asked.split("/"):
        return None
    under = any(path.startswith(resolve(folder).rstrip("/") + "/") for folder in allowed.folders)
    return _image(path) if under else None


def what_is_allowed(allowed: OwnImages, resolve: Resolve) -> str:
    """A sentence for who named another; empty where the site allows none."""
    places = [*(f"an image under {resolve(folder)}" for folder in allowed.folders)]
    places += [f"a reference that begins with {one}" for one in allowed.references]
    return f" Or name {', or '.join(places)}." if places else ""


def _image(path: str) -> OwnImage:
    return OwnImage(name=path, path=path)
