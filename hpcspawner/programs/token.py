"""An extension for a Jupyter server on the node, which keeps the Hub's token from its kernels and terminals.

The server has read the token by then. What kernels and terminals inherit would go on into each job that they submit,
and a scheduler may keep a job's variables for years. It travels in the job script, so it is one file, for Python 3.6 and
later, and for jupyter_server as well as notebook 6.
"""

import os
from typing import Any

from tornado.ioloop import IOLoop

SECRETS = ("JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN")


def _forget() -> None:
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
