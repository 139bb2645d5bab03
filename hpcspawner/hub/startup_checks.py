"""Checks before a Hub serves; a failed check stops the Hub and says what to do."""

import asyncio
import os
import pwd
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.app import JupyterHub

from hpcspawner.checks import suite
from hpcspawner.checks.finding import Check, Finding, Outcome, run_all, warning, wrong
from hpcspawner.errors import SecretUnusable, more
from hpcspawner.hub import peers, settings_checks
from hpcspawner.nodes import certificates, resolvers, server_names
from hpcspawner.schedulers.cluster import Cluster

_FORBIDDEN = "batchspawner"
# JupyterHub makes them for five years and does not renew them.
_TELL_BEFORE_DAYS = 60
# Of the page about troubleshooting.
_TLS = "tls-to-nodes"


def endpoint_absent(app: JupyterHub) -> None:
    """No handler of the batchspawner package is served."""
    found = forbidden_routes(app.tornado_application)
    if found:
        app.log.critical(
            "hpcspawner: the endpoint of the batchspawner package is served at %s, which it must not be. Remove the "
            "setting that adds it to JupyterHub's handlers. The Hub stops.%s",
            ", ".join(found),
            more("foreign-endpoint"),
        )
        app.exit(1)
    app.log.info("hpcspawner: the endpoint of the batchspawner package is not served")


def forbidden_routes(application: Any) -> list[str]:
    """Patterns of every route that leads to a handler of the batchspawner package."""
    return [
        str(getattr(rule.matcher, "regex", rule.matcher))
        for rule in routes(application.default_router)
        if getattr(rule.target, "__module__", "").split(".")[0] == _FORBIDDEN
    ]


def routes(router: Any) -> list[Any]:
    """Every rule of a router and of those that it leads to."""
    found = []
    for rule in router.rules:
        found.append(rule)
        if hasattr(rule.target, "rules"):
            found += routes(rule.target)
    return found


def secret_is_fit(app: JupyterHub) -> None:
    """The Hub has a secret that no other account may read."""
    if not hasattr(app.spawner_class, "ledger"):
        return
    try:
        app.spawner_class(config=app.config, hub=app.hub).keys()
    except SecretUnusable as error:
        app.log.critical("hpcspawner: %s The Hub stops.%s", error, more(error.entry))
        app.exit(1)


def tell_whose_jobs(app: JupyterHub, clusters: Iterable[Cluster], *, allow_root: bool) -> None:
    """Say that all users share one account, where they do."""
    for cluster in clusters:
        access = cluster.profile.scheduler
        if access.acts_for_users:
            continue
        refused = os.geteuid() == 0 and not allow_root
        account = "root, so the Hub submits no job: run the Hub as an ordinary account" if refused else _own_account()
        app.log.warning(
            "hpcspawner: ALL USERS' JOBS RUN AS THE HUB'S OWN ACCOUNT (scheduler.type is %r, its command_prefix "
            "empty), so each user can read the other users' files and the Hub's, and end the other users' jobs. That "
            "account is %s.%s",
            access.type,
            account,
            more("one-account"),
        )


def _own_account() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


async def reachable(app: JupyterHub) -> None:
    """Servers are reached by TLS, or it is said loudly that they are not."""
    if not hasattr(app.spawner_class, "certificate_names"):
        return
    for finding in await _tls(app):
        if finding.outcome is Outcome.WRONG:
            app.log.critical("hpcspawner: %s. The Hub stops.%s", finding.text, more(finding.entry))
            app.exit(1)
        elif not finding.ok:
            app.log.warning("hpcspawner: %s", finding.explained)


async def _tls(app: JupyterHub) -> list[Finding]:
    if not app.internal_ssl:
        what = (
            "THERE IS NO TLS TO THE COMPUTE NODES. Everything that users type and see crosses the cluster's network "
            "unencrypted"
        )
        return [warning(what, "to switch TLS on, leave tls_to_nodes=False out of hpcspawner.configure()", _TLS)]
    own, found = app.spawner_class(config=app.config), []
    if own.certificate_names == "host":
        what = (
            "CERTIFICATES NAME THE NODE ALONE (certificate_names = 'host'). A user with a server on a node can pose as "
            "any other server on that node"
        )
        found.append(warning(what, "use this only where users never share nodes", _TLS))
    why = (
        _names_lead_nowhere(app, own)
        or _not_by_https(app)
        or await asyncio.to_thread(_own_name_is_missing, app)
        or await asyncio.to_thread(_authorities_have_one_name, app)
    )
    if why:
        return [*found, wrong(f"the Hub can't reach any server by TLS: {why}", "", _TLS)]
    left = await asyncio.to_thread(certificates.days_left, app.internal_ssl_cert)
    if left < _TELL_BEFORE_DAYS:
        what = f"THE CERTIFICATES IN {app.internal_certs_location} EXPIRE IN {left} DAYS: no server can be reached then"
        cure = "set JupyterHub.recreate_internal_certs = True for one start while no server is running"
        found.append(warning(what, cure, "internal-certificates"))
    return found


async def look_around(app: JupyterHub, clusters: Iterable[Cluster]) -> None:
    """Warn of what `hpcspawner check` would say of the settings and of each cluster; it stops nothing."""
    clusters = list(clusters)
    await _say("", settings_checks.checks(app.config, [one.profile for one in clusters]), app)
    for cluster in clusters:
        await _say(f"{cluster.name}: ", suite.at_start(cluster.profile, cluster.client), app)


async def _say(before: str, checks: Iterable[Check], app: JupyterHub) -> None:
    async for name, finding in run_all(checks):
        if not finding.ok:
            app.log.warning("hpcspawner: check: %s%s: %s", before, name, finding.explained)


def _names_lead_nowhere(app: JupyterHub, spawner: Any) -> str:
    if spawner.certificate_names == "host" or spawner.certificate_zone != server_names.ZONE:
        return ""
    why = resolvers.missing_resolver(app)
    return why and (
        f"{why}. Or set HPCSpawner.certificate_zone to a zone with wildcard DNS, or "
        "HPCSpawner.certificate_names to 'host'"
    )


def _not_by_https(app: JupyterHub) -> str:
    for name, url in (("JupyterHub.hub_connect_url", app.hub.api_url), ("api_url", getattr(app.proxy, "api_url", ""))):
        if urlsplit(url).scheme == "http":
            return f"{name} is {url}, but must begin with https://"
    return ""


def _own_name_is_missing(app: JupyterHub) -> str:
    host = str(urlsplit(app.hub.api_url).hostname)
    if certificates.names_host(app.internal_ssl_cert, host):
        return ""
    return (
        f"the Hub's own certificate {app.internal_ssl_cert} does not name {host}, where servers call it. If "
        "the address has changed, set JupyterHub.recreate_internal_certs = True for one start; running servers are "
        "lost. If the command line sets the address, set it in the configuration file instead"
    )


def _authorities_have_one_name(app: JupyterHub) -> str:
    """Who signs for servers must be known by name, or each server could pass for the Hub or its proxy."""
    servers = peers.subject(app.internal_certs_location, certificates.AUTHORITY)
    for other in (peers.HUB, peers.PROXY):
        if peers.subject(app.internal_certs_location, other) == servers:
            return (
                f"the authorities {certificates.AUTHORITY} and {other} have the same name, "
                f"{servers.rfc4514_string()}, so a server could pose as the Hub or its proxy: give each its own name "
                f"in JupyterHub.external_ssl_authorities"
            )
    return ""
