"""The public side of a Hub whose own proxy speaks HTTPS."""

import shutil
from pathlib import Path

_HOOK = Path(__file__).parents[1] / "nodes" / "proxy" / "public.js"
_DAY_S = 24 * 3600


def https_proxy(*, redirect_port: int | None = None, hsts_days: int = 730) -> list[str]:
    """The proxy's command with what it has no option for: `c.ConfigurableHTTPProxy.command`, set before `configure()`.

    Every answer, notebooks' and errors included, tells browsers to come by HTTPS only for `hsts_days` (HTTP Strict
    Transport Security), and what visitors claim about where they come from is dropped. Requests by plain HTTP at
    `redirect_port` are sent to HTTPS. Not for a proxy behind another server: that one does all this.
    """
    program = shutil.which("configurable-http-proxy")
    # Where there is none, JupyterHub says how to install it.
    command = ["node", f"--require={_HOOK}", program] if program else ["configurable-http-proxy"]
    redirect = [f"--redirect-port={redirect_port}"] if redirect_port else []
    return ["env", f"HPCSPAWNER_HSTS_S={hsts_days * _DAY_S}", *command, *redirect]
