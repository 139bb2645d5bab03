"""An extension for a Jupyter server on the node, which ends it after a time without activity.

The server's own options can't do that: JupyterLab asks for kernels, sessions and files every ten seconds while its page
is open, and each answer counts as activity (jupyterlab#19796). It travels in the job script, so it is one file, for
Python 3.6 and later, and for jupyter_server as well as notebook 6.
"""

import os
import re
import sys
import time
from typing import Any

from tornado.ioloop import PeriodicCallback

ENDED = "idle-end"
"""A file of this name, beside this one, tells the launcher why the server ended."""

_ASKS = {"GET", "HEAD", "OPTIONS"}
# Of the rest only these are somebody's: JupyterLab 4.6 puts its workspace every ten seconds, jupyterlab-git posts.
_WORK = re.compile(r"api/(contents|kernels|sessions|terminals)(/|$)")
_watches: Any = []


def counts(method: str, path: str) -> bool:
    """Whether a user caused a request, rather than an open page by itself; `path` is below the server's address."""
    return method not in _ASKS and bool(_WORK.match(path))


def _heed_only_work(handler: Any) -> None:
    """Have what an open page does by itself no longer count as the server's activity."""
    update = handler.update_api_activity

    def update_api_activity(self: Any) -> None:
        if counts(self.request.method, self.request.path[len(self.settings.get("base_url", "/")) :]):
            update(self)

    handler.update_api_activity = update_api_activity


def _is_busy(app: Any) -> bool:
    """Whether a cell runs, or a program in a terminal."""
    if any(kernel.get("execution_state") == "busy" for kernel in app.kernel_manager.list_kernels()):
        return True
    for terminal in _terminals(app).values():
        try:
            # If the terminal's foreground process group is the shell itself, the shell is idle at its prompt.
            if os.tcgetpgrp(terminal.ptyproc.fd) != terminal.ptyproc.pid:
                return True
        except OSError:
            pass  # it ends just now
    return False


def _terminals(app: Any) -> Any:
    manager = app.web_app.settings.get("terminal_manager")
    return dict(getattr(manager, "terminals", None) or {})


def _worked_at(app: Any) -> float:
    """When a user last worked, in seconds of the clock."""
    times = [app.web_app.last_activity()]
    # Output that no page was there to show is known to the terminal alone.
    times += [one.last_activity for one in _terminals(app).values() if hasattr(one, "last_activity")]
    return float(max(times).timestamp())


def _load_jupyter_server_extension(app: Any) -> None:
    if _watches:  # Notebook 7 reads the configuration of notebook 6, too
        return
    for name in ("jupyter_server.base.handlers", "notebook.base.handlers"):
        if name in sys.modules:
            _heed_only_work(sys.modules[name].APIHandler)
    _forget_folder()
    limit_s = int(app.config["HPCSpawnerIdle"]["limit_s"])
    busy_at = [time.time()]

    def check() -> None:
        if _is_busy(app):
            busy_at[0] = time.time()
        elif time.time() - max(_worked_at(app), busy_at[0]) > limit_s:
            app.log.warning("The server was idle for %d seconds and shuts down.", limit_s)
            open(os.path.join(os.path.dirname(__file__), ENDED), "w").close()
            _watches[0].stop()
            app.stop()

    _watches.append(PeriodicCallback(check, 1000 * min(60, max(1, limit_s / 10))))
    _watches[0].start()


load_jupyter_server_extension = _load_jupyter_server_extension


def _forget_folder() -> None:
    """Take the folder that we came in out of what kernels and terminals inherit."""
    ours = os.path.dirname(__file__)
    left = [path for path in os.environ.get("JUPYTER_CONFIG_PATH", "").split(os.pathsep) if path and path != ours]
    os.environ.pop("JUPYTER_CONFIG_PATH", None)
    if left:
        os.environ["JUPYTER_CONFIG_PATH"] = os.pathsep.join(left)
