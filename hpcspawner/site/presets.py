"""What a user may start with one click."""

from typing import Annotated

from pydantic import Field

from hpcspawner.site.fields import Frozen, Line, Name, Value

LAST = "last"
"""What stands for the choice of the user's last start; no preset may be called so."""


class Preset(Frozen):
    """Some options under one name; the others take the site's defaults."""

    name: Name
    title: Line
    help: Line | None = None
    options: Annotated[
        dict[Name, Value | int | bool | list[Value]], Field(min_length=1, description="As a user may choose them.")
    ]

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title
