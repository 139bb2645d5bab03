"""What a profile says of a cluster that the Hub reaches by its scheduler's REST service."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from hpcspawner.programs.helper import user_problem
from hpcspawner.site.away import KeyPath, Reach

_ADDRESS = re.compile(
    r"https://(?:[A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?(/[\w./-]{0,200})?"
)
# What the service is called without: nothing is a command, and no file of a user's is seen.
_NEEDS_COMMANDS = ("ssh", "helper", "command_prefix", "look")


def _address(text: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[1] or 443) < 65536:
        raise ValueError("write an address with https, such as 'https://slurm.example.org:6843'")
    return text.rstrip("/")


def _account(text: str) -> str:
    if problem := user_problem(text):
        raise ValueError(f"{text[:60]!r} is no account's name: {problem}")
    if text == "root":
        raise ValueError("the Hub asks nothing as root; name an ordinary account of the cluster")
    return text


class ByApi(Reach):
    """How the Hub reaches the scheduler's REST service; nothing where it runs commands."""

    api: Annotated[
        Annotated[str, AfterValidator(_address)] | None, Field(description="Address of slurmrestd (slurm only).")
    ] = None
    api_key_file: Annotated[
        KeyPath | None, Field(description="The cluster's key for JSON web tokens (HS256), readable by the Hub alone.")
    ] = None
    api_ca: Annotated[
        KeyPath | None, Field(description="File with the authorities of its certificate; none: the machine's own.")
    ] = None
    api_account: Annotated[
        Annotated[str, AfterValidator(_account)] | None,
        Field(description="The account that lists jobs; none: that of the Hub."),
    ] = None

    @model_validator(mode="after")
    def _api_is_whole(self) -> Self:
        if self.api and not self.api_key_file:
            raise ValueError("api needs api_key_file, the full path of a file on the Hub")
        for name in ("api_key_file", "api_ca", "api_account"):
            if getattr(self, name) and not self.api:
                raise ValueError(f"{name} is for a scheduler that is reached by its REST service; name that in api")
        for name in _NEEDS_COMMANDS:
            if self.api and getattr(self, name, None):
                raise ValueError(f"{name} is for commands, and with api the Hub runs none; leave one of the two out")
        return self
