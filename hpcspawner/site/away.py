"""What a profile says of a cluster that the Hub reaches by SSH, and what the Hub's users are called there."""

import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from hpcspawner.programs.helper import user_problem
from hpcspawner.site.fields import Frozen, HelperPath, Line

# An account that a person logs in by hand with has no signs that ssh, sudoers or a shell could misread.
_ADDRESS = re.compile(
    r"([a-z_][a-z0-9_-]{0,31})@([A-Za-z0-9][A-Za-z0-9.-]{0,252}|\[[0-9A-Fa-f:.]{2,45}\])(?::(\d{1,5}))?"
)


@dataclass(frozen=True, slots=True)
class LoginNode:
    """Where ssh goes: an account, a host (name or address), a port."""

    account: str
    host: str
    port: int = 22

    def __str__(self) -> str:
        return f"{self.account}@{self.host}" + (f":{self.port}" if self.port != 22 else "")


def _login_node(text: str) -> str:
    found = _ADDRESS.fullmatch(text)
    if not found or not 0 < int(found[3] or 22) < 65536:
        raise ValueError("write an account, '@' and a host, such as 'hub@login1' or 'hub@login2:2222'")
    if found[1] == "root":
        raise ValueError("the Hub does not log in as root; make an account for it on the login node")
    return text


# Signs that mean nothing in ssh's own options, and no blank: there it begins another file.
KeyPath = HelperPath


class Reach(Frozen):
    """How the Hub reaches a login node; nothing where the scheduler's commands are on the Hub's machine."""

    type: str
    ssh: Annotated[
        tuple[Annotated[str, AfterValidator(_login_node)], ...],
        Field(description="Login nodes, tried in turn: 'account@host' or 'account@host:port'."),
    ] = ()
    ssh_key: Annotated[KeyPath | None, Field(description="The Hub's private key, a file without a passphrase.")] = None
    ssh_known_hosts: Annotated[KeyPath | None, Field(description="File with the login nodes' host keys.")] = None

    @property
    def login_nodes(self) -> tuple[LoginNode, ...]:
        """The same, taken apart."""
        found = [_ADDRESS.fullmatch(text) for text in self.ssh]
        return tuple(LoginNode(one[1], one[2].strip("[]"), int(one[3] or 22)) for one in found if one)

    @model_validator(mode="after")
    def _ssh_is_whole(self) -> Self:
        keys = {"ssh_key": self.ssh_key, "ssh_known_hosts": self.ssh_known_hosts}
        for name, value in keys.items():
            if self.ssh and not value:
                raise ValueError(f"ssh needs {name}, the full path of a file on the Hub")
            if value and not self.ssh:
                raise ValueError(f"{name} is for a cluster that is reached by SSH; name its login nodes in ssh")
        if len({node.account for node in self.login_nodes}) > 1:
            raise ValueError("ssh: the account must be the same on all login nodes")
        if len({(node.host, node.port) for node in self.login_nodes}) < len(self.ssh):
            raise ValueError("ssh: a login node is named twice")
        return self


def _domain(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?", text):
        raise ValueError("write a domain without '@', such as 'example.org'")
    return text.lower()


def _account(text: str) -> str:
    if problem := user_problem(text):
        raise ValueError(f"{text[:60]!r} is no account's name: {problem}")
    return text


class UserNames(Frozen):
    """What the cluster calls those whom JupyterHub knows by another name."""

    strip_domain: Annotated[
        tuple[Annotated[str, AfterValidator(_domain)], ...],
        Field(
            description="Domains that are cut off: 'alice@example.org' is alice. Names of other domains are refused."
        ),
    ] = ()
    lower: Annotated[bool, Field(description="Capitals become small letters.")] = False
    table: Annotated[
        dict[Line, Annotated[str, AfterValidator(_account)]],
        Field(description="Single names: JupyterHub's, and the cluster's. It comes first."),
    ] = {}

    def on_cluster(self, name: str) -> str:
        """The cluster's name of a user of JupyterHub's; ValueError where the rule gives none."""
        if name in self.table:
            return self.table[name]
        if self.strip_domain:
            bare, at, domain = name.rpartition("@")
            if at and domain.lower() not in self.strip_domain:
                allowed = ", ".join(self.strip_domain)
                raise ValueError(f"its domain is not one of those whose users have accounts here: {allowed}")
            name = bare if at else name
        name = name.lower() if self.lower else name
        if name in self.table.values():
            raise ValueError(f"the account {name!r} is another user's by the table users.table of the profile")
        return name
