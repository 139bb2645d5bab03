"""Images and environments that a user names by path, where the site lets users do so."""

from collections.abc import Callable, Iterable

from hpcspawner.language import _, joined
from hpcspawner.site.environments import OwnEnvironment, OwnEnvironments, OwnImage, OwnImages
from hpcspawner.site.fields import REFERENCE

Resolve = Callable[[str], str]
"""A folder as people write it, to an absolute path."""


def own_image(asked: str, allowed: OwnImages, resolve: Resolve) -> OwnImage | None:
    """The image of this path or reference; None if it is neither, or lies where the site allows none."""
    if REFERENCE.fullmatch(asked):
        return _image(asked) if asked.startswith(allowed.references) else None
    path = _below(asked, allowed.folders, resolve)
    return _image(path) if path else None


def own_environment(asked: str, allowed: OwnEnvironments, resolve: Resolve) -> OwnEnvironment | None:
    """The environment in this folder; None if it lies where the site allows none."""
    path = _below(asked, allowed.folders, resolve)
    return OwnEnvironment(name=path, conda=path) if path else None


def where_environments_may_lie(allowed: OwnEnvironments, resolve: Resolve) -> str:
    """A sentence for who named another; empty where the site allows none."""
    places = ", ".join(resolve(folder) for folder in allowed.folders)
    message = _("Or name the folder of a virtual or conda environment of yours, under one of: {places}.")
    return message.fill(places=places) if places else ""


def _below(asked: str, folders: Iterable[str], resolve: Resolve) -> str:
    """The absolute path, if it lies below one of the folders; else ""."""
    path = resolve(asked)
    if not path.startswith("/") or ".." in asked.split("/"):
        return ""
    return path if any(path.startswith(resolve(folder).rstrip("/") + "/") for folder in folders) else ""


def what_is_allowed(allowed: OwnImages, resolve: Resolve) -> str:
    """A sentence for who named another; empty where the site allows none."""
    places = [*(_("an image under {folder}", folder=resolve(folder)) for folder in allowed.folders)]
    places += [_("a reference that begins with {begin}", begin=one) for one in allowed.references]
    return _("Or name one of these: {places}.", places=joined(places, ", ")) if places else ""


def _image(path: str) -> OwnImage:
    return OwnImage(name=path, path=path)
