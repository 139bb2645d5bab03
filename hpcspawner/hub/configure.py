"""One readable line in `jupyterhub_config.py` that sets what a Hub needs."""

import sys
from pathlib import Path
from typing import Any

from tornado.web import StaticFileHandler

from hpcspawner.errors import ProfileError
from hpcspawner.hub import boot, hooks, peers, redact
from hpcspawner.hub.pages import STATIC, TEMPLATES
from hpcspawner.hub.reports import HANDLERS
from hpcspawner.site.profile import SiteProfile, find_shipped, load

_DAY_S = 24 * 3600


def configure(
    c: Any, site: str | Path, *, callback_url: str, ca_file: str | Path | None = None, tls_to_nodes: bool = True
) -> SiteProfile:
    """Set up JupyterHub for one site; plain traits set afterwards win.

    `site` is the path of a profile, or the name of a shipped one such as "slurm-minimal.toml". `callback_url` is the
    Hub's public https address as compute nodes reach it; `ca_file` the PEM file with the authority that signed its
    certificate, where the nodes' own store does not know it. `tls_to_nodes` is JupyterHub's `internal_ssl`: without it
    all that users type and see crosses the cluster's network in clear. Wrong input ends the Hub's start with one
    message that names every mistake. Returns the checked profile.
    """
    redact.install()
    path = _found(site)
    try:
        profile = load(path)
    except ProfileError as error:
        sys.exit(f"hpcspawner: {error}")
    _check_address(callback_url)
    c.JupyterHub.spawner_class = "hpcspawner.spawner.HPCSpawner"
    c.HPCSpawner.site = str(path)
    c.HPCSpawner.callback_url = callback_url
    if ca_file:
        c.HPCSpawner.ca_file = str(_readable(Path(ca_file)))
    c.JupyterHub.template_paths = [str(TEMPLATES)]
    c.JupyterHub.extra_handlers = [
        *HANDLERS,
        (r"/hpcspawner/static/(.*)", StaticFileHandler, {"path": str(STATIC)}),
    ]
    # Running servers outlive the Hub; the default would cancel every job when it stops.
    c.JupyterHub.cleanup_servers = False
    # Jobs that wait in the queue count as starting: a limit would refuse users when the cluster is busy.
    c.JupyterHub.concurrent_spawn_limit = 0
    # Only the outer bound; a job may wait for days. What is too long in the queue and what for a running job stand in
    # the profile's limits and in HPCSpawner.start_limit_s.
    c.Spawner.start_timeout = profile.limits.queue.seconds + _DAY_S
    c.JupyterHub.internal_ssl = tls_to_nodes
    if tls_to_nodes:
        c.JupyterHub.trusted_alt_names = hooks.HubNames(c)
        hooks.teach(c)
    peers.install()
    boot.arrange()
    return profile


def _found(site: str | Path) -> Path:
    path = Path(site)
    if path.exists() or path.parent != Path():
        return path.absolute()
    try:
        return find_shipped(str(site))
    except FileNotFoundError as error:
        sys.exit(f"hpcspawner: {path.absolute()} does not exist, and {error}")


def _check_address(url: str) -> None:
    if not url.startswith("https://"):
        sys.exit(
            f"hpcspawner: callback_url is {url!r}, but jobs call the Hub by https only: their first call carries a "
            "secret. Write the Hub's public address, such as 'https://hub.example.org'."
        )


def _readable(path: Path) -> Path:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"hpcspawner: ca_file {path} can't be read: {error}")
    if "BEGIN CERTIFICATE" not in text:
        sys.exit(f"hpcspawner: ca_file {path} holds no certificate in PEM form")
    return path.absolute()
