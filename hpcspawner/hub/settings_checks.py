"""Checks of JupyterHub's own settings: those that defeat a batch spawner."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from traitlets.config.loader import LazyConfigValue

from hpcspawner.checks.finding import Check, Finding, good, warning, wrong
from hpcspawner.hub.ignored_settings import ignored_settings
from hpcspawner.nodes.resolvers import is_required
from hpcspawner.nodes.server_names import ZONE
from hpcspawner.site.profile import SiteProfile

_SPAWNERS = ("Spawner", "BatchSpawnerBase", "HPCSpawner")
_OURS = "hpcspawner.spawner.HPCSpawner"
_AFTER = "configure() sets it; take the later line out of the configuration"


def checks(config: Any, profiles: Sequence[SiteProfile]) -> Iterator[Check]:
    """`config` is JupyterHub's configuration as traitlets has it."""
    yield Check("Hub settings", lambda: _all(config, profiles))


def tls(config: Any) -> Iterator[Check]:
    """Whether servers are reached by TLS; a Hub that starts has looked more closely."""
    yield Check("TLS to nodes", lambda: [_tls(config)])


def _tls(config: Any) -> Finding:
    if value(config, ["JupyterHub"], "internal_ssl", False):
        return good("the Hub reaches servers by TLS")
    return warning(
        "there is no TLS to the compute nodes: all that users type and see crosses the cluster's network in clear",
        "leave tls_to_nodes=False out of configure()",
    )


def _all(config: Any, profiles: Sequence[SiteProfile]) -> Iterable[Finding]:
    found = [*_core(config, profiles), *_public(config), *_cluster_side(config, profiles), *_unread(config)]
    return found or [good("nothing that hinders servers")]


def _core(config: Any, profiles: Sequence[SiteProfile]) -> Iterator[Finding]:
    spawner = value(config, ["JupyterHub"], "spawner_class", "")
    if not (isinstance(spawner, type) or str(spawner) in (_OURS, "hpc")):
        yield wrong(f"JupyterHub.spawner_class is {spawner!r}", f"call hpcspawner.configure(c, …); {_AFTER}")
    if value(config, ["JupyterHub"], "cleanup_servers", True):
        yield wrong(
            "JupyterHub.cleanup_servers is True: a restart of the Hub ends all servers", f"set it to False; {_AFTER}"
        )
    if limit := value(config, ["JupyterHub"], "concurrent_spawn_limit", 100):
        yield wrong(
            f"JupyterHub.concurrent_spawn_limit is {limit}: waiting jobs count, so a full queue locks users out",
            f"set it to 0; {_AFTER}",
        )
    wanted = max((one.limits.queue.seconds for one in profiles), default=0)
    timeout = value(config, _SPAWNERS, "start_timeout", 60)
    if timeout < wanted:
        yield wrong(
            f"Spawner.start_timeout is {timeout} s, shorter than limits.queue, {wanted} s: waiting jobs are given up",
            f"shorten limits.queue in the profile instead; {_AFTER}",
        )
    if value(config, ["JupyterHub"], "shutdown_on_logout", False):
        yield warning(
            "JupyterHub.shutdown_on_logout is True: a user who logs out loses the server and its job", "leave it out"
        )


def _public(config: Any) -> Iterator[Finding]:
    authenticator = value(config, ["JupyterHub"], "authenticator_class", "pam")
    if "dummy" in str(authenticator).lower():
        yield wrong("JupyterHub.authenticator_class is the dummy: anybody logs in as anybody", "use PAM, OAuth or LDAP")
    bind = urlsplit(value(config, ["JupyterHub"], "bind_url", "http://:8000"))
    has_own = bool(value(config, ["JupyterHub"], "ssl_cert", ""))
    if not has_own and bind.hostname not in ("127.0.0.1", "localhost", "::1"):
        yield warning(
            "the Hub's proxy has no HTTPS and listens on every address: passwords cross the network in clear",
            "set JupyterHub.ssl_cert and ssl_key, or bind_url to 127.0.0.1 behind a web server with HTTPS",
        )
    if _has_lost_hook(config):
        yield wrong(
            "ConfigurableHTTPProxy.command was overwritten after hpcspawner.configure() added its hook, so the proxy "
            "can't reach any server",
            "set it before calling configure()",
        )


def _has_lost_hook(config: Any) -> bool:
    if not value(config, ["JupyterHub"], "internal_ssl", False):
        return False
    if value(config, ["HPCSpawner"], "certificate_names", "job") != "job":
        return False
    if value(config, ["HPCSpawner"], "certificate_zone", ZONE) != ZONE:
        return False
    if not value(config, ["ConfigurableHTTPProxy"], "should_start", True):
        return False
    command = value(config, ["ConfigurableHTTPProxy"], "command", [])
    return not any(is_required(str(word)) for word in ([command] if isinstance(command, str) else command))


def _cluster_side(config: Any, profiles: Sequence[SiteProfile]) -> Iterator[Finding]:
    """Servers on nodes call the Hub at this address."""
    if not any(one.scheduler.has_nodes for one in profiles):
        return
    hosts = {
        name: urlsplit(text).hostname if "url" in name else text
        for name in ("hub_bind_url", "hub_connect_url", "hub_connect_ip", "hub_ip")
        if (text := value(config, ["JupyterHub"], name, None)) is not None
    }
    if value(config, _SPAWNERS, "hub_connect_url", None):
        return
    told = next(
        (hosts[name] for name in ("hub_connect_url", "hub_connect_ip", "hub_bind_url", "hub_ip") if name in hosts),
        "127.0.0.1",
    )
    if told in ("127.0.0.1", "localhost", "::1"):
        yield wrong(
            f"the Hub listens on {told} alone, where servers on compute nodes can't call it",
            "set JupyterHub.hub_ip to this machine's address in the cluster's network, or to \"\"",
        )


def _unread(config: Any) -> Iterator[Finding]:
    for name, where in ignored_settings(config):
        yield warning(f"c.{name} has no effect", f"set it in the profile: {where}")


def value(config: Any, sections: Iterable[str], name: str, default: Any) -> Any:
    """A setting as the last of these sections has it; the default where none has."""
    found = default
    for section in sections:
        if section in config and name in config[section]:
            found = config[section][name]
    return found.get_value(default) if isinstance(found, LazyConfigValue) else found
