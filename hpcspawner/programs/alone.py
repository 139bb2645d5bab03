"""Configuration of a Jupyter server that knows no Hub: it serves only the proxy in front of it.

It is read by jupyter_server and, under another name, by Notebook 6, whose Python may be 3.6. `settings.json` beside it
has its values; the secret in it is the proxy's alone.
"""

import json
import os
import sys
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))


def _configure(server: Any, folder: str, has_socket: bool) -> None:
    with open(os.path.join(_HERE, "settings.json"), encoding="utf-8") as file:
        settings = json.load(file)
    server.token = settings["token"]
    server.password = ""
    server.base_url = settings["base_url"]
    server.default_url = settings["default_url"]
    server.open_browser = False
    # The browser's Host is the Hub's; who may ask has been decided by the proxy.
    server.allow_remote_access = True
    setattr(server, folder, settings["directory"])
    if has_socket:
        server.sock = settings["socket"]
    else:
        server.ip, server.port, server.port_retries = "127.0.0.1", settings["port"], 0


def _forget_folder() -> None:
    """A server that a user starts in a terminal of this one is not configured by us."""
    left = [path for path in os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep) if path and path != _HERE]
    os.environ.pop("JUPYTER_CONFIG_PATH", None)
    if left:
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(left)


_classic = sys.modules.get("notebook.notebookapp")
if os.path.basename(__file__) == "jupyter_server_config.py":
    _configure(c.ServerApp, "root_dir", has_socket=True)  # type: ignore[name-defined]  # noqa: F821
    _forget_folder()
elif _classic:  # Notebook 7 reads the file of Notebook 6, too
    _configure(c.NotebookApp, "notebook_dir", hasattr(_classic.NotebookApp, "sock"))  # type: ignore[name-defined]  # noqa: F821
    _forget_folder()
