"""What the launcher on the node is given."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

SETTINGS_VERSION = 3
BIND = "--bind="


@dataclass(frozen=True, slots=True)
class CallHome:
    """How the job reaches the Hub. The ticket is the one secret in a script, and worthless once used.

    `url` is the public https address of the Hub's endpoints, `ca` the PEM text of the authority to trust (None: the
    node's own store), `limit_s` how many seconds the launcher may take from its start to a listening server,
    `fallback_path` folders at the end of PATH, `arguments` the Hub's own for the server's command, `tls` whether the
    server speaks TLS with a key that the launcher makes.
    """

    url: str
    ticket: str
    ca: str | None = None
    limit_s: int = 300
    fallback_path: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    tls: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LauncherSettings:
    """All that `programs/launcher` is given, as one JSON object with these keys; it reads it in `read_settings`.

    A launcher refuses settings of another version, or with other keys.

    callback, ca, ticket, tls: as in `CallHome`.
    command: argv of the server, which takes its address and its users from JUPYTERHUB_… variables; with a `program`,
        its argv, with placeholders.
    programs: what must be found where the server runs; the first is the command's own.
    alone: argv of the server to start where the command is not found but this is; empty: none. The environment of
        `proxy` then stands in front of it.
    program: a server other than Jupyter, see `Program`; None: the command knows the Hub. `proxy` stands in front of it.
    proxy: folder of an environment with jupyter-server-proxy, on the node itself; empty: none.
    containers: argv that put a command into the image, each ending in the image; the first whose program the node has
        is used. Empty without an image.
    bind: what stands before a folder in an argument that makes it visible in the image.
    hidden: names of variables that the server does not get.
    environment, image: what people call them; `image` is empty without one.
    directory: absolute path of the folder that the server starts in.
    writable: whether the user must be able to write there.
    variables: for the server, by name.
    ports: the first and the last that a server may listen on; None: any.
    limit_s: seconds from the launcher's start to a listening server.
    idle_limit_s: seconds after which an idle server ends by itself; None: never.
    status: what the server's status bar shows of the job (`StatusBar`); None: nothing.
    extensions: names of Jupyter extensions among the files.
    modules: name of a folder among the files where a server with extensions looks first for Python's modules; empty:
        none. What the server starts does not look there.
    beside: name of a program among the files that runs beside the server, and writes variables for it as JSON into
        the file `variables.json`; empty: none.
    files: texts for a folder on the node that only the user can enter, by file name.
    """

    version: int = SETTINGS_VERSION
    callback: str
    ca: str | None
    ticket: str
    tls: bool
    command: tuple[str, ...]
    programs: tuple[str, ...]
    alone: tuple[str, ...]
    program: Mapping[str, Any] | None = None
    proxy: str
    containers: tuple[tuple[str, ...], ...]
    bind: str = BIND
    hidden: tuple[str, ...]
    environment: str
    image: str
    directory: str
    writable: bool
    variables: Mapping[str, str]
    ports: tuple[int, int] | None
    limit_s: int
    idle_limit_s: int | None
    status: Mapping[str, object] | None
    extensions: tuple[str, ...] = ()
    modules: str = ""
    beside: str = ""
    files: Mapping[str, str]

    def text(self) -> str:
        """The JSON that the launcher reads."""
        return json.dumps(asdict(self), sort_keys=True)
