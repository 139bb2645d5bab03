"""An extension for a Jupyter server on the node, which keeps the Hub's token from its kernels and terminals.

What they inherit goes on into each job that they submit, and a scheduler may keep a job's variables for years. It
travels in the job script, so it is one file, for Python 3.6 and later, and for jupyter_server as well as notebook 6.
"""

import os
import sys
from typing import Any

from tornado.ioloop import IOLoop

SECRETS = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")


def _remember(token: str) -> None:
    """For the server itself: JupyterHub's objects read the variable when they first need it."""
    auth = sys.modules.get("jupyterhub.services.auth")
    for name in ("HubAuth", "HubOAuth") if auth else ():
        # The default of a trait, by traitlets' own convention of names.
        getattr(auth, name)._api_token_default = lambda _: token


def _forget() -> None:
    _remember(os.environ.get(SECRETS[0], ""))
    for name in SECRETS:
        os.environ.pop(name, None)
    # And the folder that we came in.
    ours = os.path.dirname(__file__)
    left = [path for path in os.environ.pop("JUPYTER_CONFIG_PATH", "").split(os.pathsep) if path and path != ours]
    if left:
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(left)


def _load_jupyter_server_extension(app: Any) -> None:
    # Once all extensions are loaded: JupyterHub's own is one of them.
    IOLoop.current().add_callback(_forget)


load_jupyter_server_extension = _load_jupyter_server_extension
