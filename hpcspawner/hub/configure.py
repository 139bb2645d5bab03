"""One readable line in `jupyterhub_config.py` that sets what a Hub needs."""

import ipaddress
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tornado.web import StaticFileHandler

from hpcspawner.errors import ProfileError, more
from hpcspawner.hub import asks, internals, looks, own_presets, parent, peers, redact, servers, startup
from hpcspawner.hub.help import HelpHandler
from hpcspawner.hub.hub_ledger import hub_ledger
from hpcspawner.nodes import resolvers
from hpcspawner.nodes.endpoints import handlers
from hpcspawner.pages.pages import STATIC, TEMPLATES
from hpcspawner.request.presets import load
from hpcspawner.site.profile import SiteProfile, find_shipped

_DAY_S = 24 * 3600
_MORE = more("configuration")


def configure(
    c: Any,
    site: str | Path | Sequence[str | Path],
    *,
    callback_url: str,
    ca_file: str | Path | None = None,
    tls_to_nodes: bool = True,
) -> SiteProfile:
    """Set up JupyterHub for one cluster or several; plain traits set afterwards win.

    `site` is the path of a profile, or the name of a shipped one such as "slurm-minimal.toml", or a list of these for
    a Hub with several clusters, of which the first is the default. `callback_url` is the
    Hub's public https address as compute nodes reach it; `ca_file` the PEM file with the authority that signed its
    certificate, where the nodes' own store does not know it. `tls_to_nodes` is JupyterHub's `internal_ssl`: without it
    all that users type and see crosses the cluster's network in clear. Wrong input ends the Hub's start with one
    message that names every mistake. Returns the checked profile of the first cluster.
    """
    redact.install()
    parent.remove_its_endpoint()
    paths = [_found(one) for one in ([site] if isinstance(site, str | Path) else site)]
    profiles = _loaded(paths)
    _check_address(callback_url, nodes=any(one.scheduler.has_nodes for one in profiles))
    c.JupyterHub.spawner_class = "hpcspawner.spawner.HPCSpawner"
    c.HPCSpawner.sites = [str(path) for path in paths]
    c.HPCSpawner.callback_url = callback_url
    if ca_file:
        c.HPCSpawner.ca_file = str(_readable(Path(ca_file)))
    c.JupyterHub.template_paths = [str(TEMPLATES)]
    c.JupyterHub.extra_handlers = [
        *handlers(hub_ledger),
        *asks.HANDLERS,
        *looks.HANDLERS,
        *own_presets.HANDLERS,
        (r"/hpcspawner/help", HelpHandler),
        *servers.HANDLERS,
        (r"/hpcspawner/static/(.*)", StaticFileHandler, {"path": str(STATIC)}),
    ]
    # Running servers outlive the Hub; the default would cancel every job when it stops.
    c.JupyterHub.cleanup_servers = False
    # Jobs that wait in the queue count as starting: a limit would refuse users when the cluster is busy.
    c.JupyterHub.concurrent_spawn_limit = 0
    # Only the outer bound; a job may wait for days. What is too long in the queue and what for a running job stand in
    # the profile's limits and in HPCSpawner.start_limit_s.
    c.Spawner.start_timeout = max(one.limits.queue.seconds for one in profiles) + _DAY_S
    c.JupyterHub.internal_ssl = tls_to_nodes
    if tls_to_nodes:
        c.JupyterHub.trusted_alt_names = resolvers.HubNames(c)
        resolvers.install_resolvers(c)
    internals.install()
    peers.install()
    startup.schedule_startup()
    return profiles[0]


def _loaded(paths: Sequence[Path]) -> list[SiteProfile]:
    """Every profile; ends the Hub's start with all that is wrong with any of them."""
    profiles, problems = [], []
    for path in paths:
        try:
            profiles.append(load(path))
        except ProfileError as error:
            problems.append(error.explained)
    names = [one.name for one in profiles]
    problems += [
        f"two clusters have the name {name!r}: give one of the profiles another `name`{_MORE}"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if not paths:
        problems.append("configure() was called with an empty list: name at least one profile" + _MORE)
    if problems:
        sys.exit("\n".join(f"hpcspawner: {problem}" for problem in problems))
    return profiles


def _found(site: str | Path) -> Path:
    path = Path(site)
    if path.exists() or path.parent != Path():
        return path.absolute()
    try:
        return find_shipped(str(site))
    except FileNotFoundError as error:
        sys.exit(f"hpcspawner: {path.absolute()} does not exist, and {error}{_MORE}")


def _check_address(url: object, *, nodes: bool) -> None:
    """End the start of a Hub that jobs could not call; `nodes` tells that they run on other machines."""
    problem = _address_problem(url, nodes=nodes) if isinstance(url, str) else "it is not text"
    if problem:
        sys.exit(
            f"hpcspawner: callback_url is {url!r}, but {problem}. Write the Hub's public address as compute nodes "
            f"reach it, such as 'https://hub.example.org' or 'https://hub.example.org:8443'.{more('callback-url')}"
        )


def _address_problem(url: str, *, nodes: bool) -> str:
    """Why jobs could not call the Hub by this address; "" where it has the right form."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "it contains a blank or a line break"
    if not url.startswith("https://"):
        return "it must begin with https://, because a job's first call carries a secret"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        return f"it is not a URL: {error}"
    if parts.username is not None or not host:
        return "it contains a user name" if host else "it contains no host"
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        return (
            f"{url.partition(parts.netloc)[2]!r} follows its host: the launcher adds c.JupyterHub.base_url itself, "
            f"so 'https://{parts.netloc}' is enough"
        )
    return _host_problem(host, nodes=nodes)


def _host_problem(host: str, *, nodes: bool) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        if nodes and (host == "localhost" or host.endswith(".localhost")):
            return "on a compute node, localhost is the node itself"
        # Of signs that a name server knows.
        is_name = re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?", host)
        return "" if is_name else f"{host!r} is not a valid host name"
    if address.is_unspecified:
        return f"{host} stands for all addresses of a machine and can't be called"
    return f"on a compute node, {host} is the node itself" if nodes and address.is_loopback else ""


def _readable(path: Path) -> Path:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"hpcspawner: ca_file {path} can't be read: {error}{more('ca-file')}")
    if "BEGIN CERTIFICATE" not in text:
        sys.exit(f"hpcspawner: ca_file {path} holds no certificate in PEM form{more('ca-file')}")
    return path.absolute()
