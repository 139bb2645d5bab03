"""What a server runs in: environments and container images."""

from typing import Annotated

from pydantic import Field

from hpcspawner.site.fields import (
    FolderRule,
    Frozen,
    HomePath,
    ImagePath,
    Line,
    Modules,
    Name,
    PathText,
    Value,
    Variable,
)

NO_IMAGE = "none"
"""What a user picks to have no image though the environment or the site has a default; no image may be called so."""


class Image(Frozen):
    """A container image that a server may run in."""

    name: Name
    title: Line | None = None
    help: Line | None = None
    path: ImagePath
    binds: Annotated[tuple[PathText, ...], Field(description="Folders of the node to show inside.")] = ()
    gpu_options: Annotated[tuple[Line, ...] | None, Field(description="None: as job.gpu_options says.")] = None

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name


class OwnImage(Image):
    """An image that a user names by its path or reference, which is its name too."""

    name: Line


class OwnImages(Frozen):
    """Which images a user may name that the site does not list."""

    folders: Annotated[tuple[FolderRule, ...], Field(description="Folders under which an image may lie.")] = ()
    references: Annotated[
        tuple[Line, ...], Field(description="What a reference may begin with, such as `docker://` or one registry.")
    ] = ()

    def __bool__(self) -> bool:
        return bool(self.folders or self.references)


class OwnSetup(Frozen):
    """Whether users may add lines of bash to the set-up of their own jobs."""

    max_chars: Annotated[int, Field(ge=0, le=10_000, strict=True, description="Longest text; 0: not offered.")] = 0


class Environment(Frozen):
    """A named way to have Jupyter on a compute node."""

    name: Name
    title: Line | None = None
    help: Line | None = None
    purge_modules: bool = False
    modules: Modules = ()
    conda: Annotated[Line | None, Field(description="A conda environment, by name or path.")] = None
    path: Annotated[tuple[HomePath, ...], Field(description="Folders put in front of PATH.")] = ()
    setup: Annotated[tuple[Line, ...], Field(description="Further lines of bash, run in order.")] = ()
    variables: dict[Variable, Value] = {}
    image: Annotated[Name | None, Field(description="The image used when the user picks none.")] = None

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name


class OwnEnvironment(Environment):
    """An environment that a user names by its folder, which is its name too."""

    name: Line


class OwnEnvironments(Frozen):
    """Where environments may lie that users name themselves: virtual and conda environments."""

    folders: Annotated[tuple[FolderRule, ...], Field(description="Folders under which one may lie.")] = ()

    def __bool__(self) -> bool:
        return bool(self.folders)
