"""What must hold, and what begins, when the Hub has put itself together."""

import asyncio
import logging
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jupyterhub.app import JupyterHub
from sqlalchemy import event, text
from sqlalchemy.engine import make_url

from hpcspawner.hub import audit, certificates, headers, names
from hpcspawner.hub.keeper import Habits, Keeper
from hpcspawner.hub.pages import LinkFillsForm
from hpcspawner.hub.store import LOCK_TIMEOUT_S

_FORBIDDEN = "batchspawner"
_AGAIN_S = 10


def arrange() -> None:
    """Arrange what follows. `jupyterhub token` and the like read the configuration too, and serve nobody."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    task = loop.create_task(_when_assembled())
    # The loop keeps weak references only.
    task.add_done_callback(_keep.discard)
    _keep.add(task)


_keep: set[asyncio.Task[None]] = set()


async def _when_assembled() -> None:
    while not (JupyterHub.initialized() and getattr(JupyterHub.instance(), "tornado_application", None)):
        await asyncio.sleep(0.02)
    app = JupyterHub.instance()
    _prove_endpoint_absent(app)
    await _prove_tls(app)
    headers.install(app)
    audit.install(app)
    app.log.addFilter(_is_no_link)
    _wait_for_locks(app)
    # Told when JupyterHub has seen the servers of its table, or goes on seeing them, and serves.
    await app._start_future
    while True:
        try:
            return await _keep_house(app)
        except Exception:
            app.log.exception("hpcspawner: housekeeping can't begin; trying again in %s s", _AGAIN_S)
        await asyncio.sleep(_AGAIN_S)


def _prove_endpoint_absent(app: JupyterHub) -> None:
    found = forbidden_routes(app.tornado_application)
    if found:
        app.log.critical(
            "hpcspawner: the endpoint of the batchspawner package is served at %s; it must not be. "
            "Remove what adds it to JupyterHub's handlers from the configuration. The Hub stops.",
            ", ".join(found),
        )
        app.exit(1)
    app.log.info("hpcspawner: the endpoint of the batchspawner package is not served")


async def _prove_tls(app: JupyterHub) -> None:
    """Servers are reached by TLS, or it is said loudly that they are not."""
    spawner = app.spawner_class
    if not hasattr(spawner, "certificate_names"):
        return
    if not app.internal_ssl:
        app.log.warning(
            "hpcspawner: THERE IS NO TLS TO THE COMPUTE NODES. All that users type and see crosses the cluster's "
            "network in clear. To switch it on, leave tls_to_nodes=False out of hpcspawner.configure()."
        )
        return
    own = spawner(config=app.config)
    if own.certificate_names == "host":
        app.log.warning(
            "hpcspawner: CERTIFICATES NAME THE NODE ALONE (certificate_names = 'host'). Whoever has a server on a node "
            "can pose as any other server on it. Use this only where nodes are never shared."
        )
    elif own.certificate_zone == names.ZONE and (why := names.untaught(app)):
        app.log.critical(
            "hpcspawner: servers can't be reached: %s. Or set HPCSpawner.certificate_zone to a zone with wildcard DNS, "
            "or HPCSpawner.certificate_names to 'host', or tls_to_nodes=False. The Hub stops.",
            why,
        )
        app.exit(1)
    for name, url in _addresses(app):
        if urlsplit(url).scheme == "http":
            app.log.critical("hpcspawner: %s is %s, but with TLS to the nodes it must begin with https://.", name, url)
            app.exit(1)
    host = str(urlsplit(app.hub.api_url).hostname)
    if not await asyncio.to_thread(certificates.names_host, app.internal_ssl_cert, host):
        app.log.critical(
            "hpcspawner: the Hub's own certificate %s does not name %s, where its servers call it, so they could not. "
            "Set JupyterHub.recreate_internal_certs = True for one start (servers that run are lost). The Hub stops.",
            app.internal_ssl_cert,
            host,
        )
        app.exit(1)


def _addresses(app: JupyterHub) -> list[tuple[str, str]]:
    """Where the Hub is called and where it calls its proxy."""
    return [
        ("JupyterHub.hub_connect_url", app.hub.api_url),
        ("the proxy's api_url", getattr(app.proxy, "api_url", "")),
    ]


def _wait_for_locks(app: JupyterHub) -> None:
    """A backup of JupyterHub's SQLite database must not cost a server: wait for it, and not 5 s alone."""
    engine = app.db.get_bind()
    if engine.dialect.name != "sqlite":
        return
    pragma = f"PRAGMA busy_timeout = {LOCK_TIMEOUT_S * 1000}"
    event.listen(engine, "connect", lambda connection, _record: connection.execute(pragma))
    # And the connection that is already in use.
    app.db.execute(text(pragma))
    app.db.commit()


async def _keep_house(app: JupyterHub) -> None:
    if not hasattr(app.spawner_class, "ledger"):
        app.log.warning("hpcspawner: the Hub's spawner class is not HPCSpawner; jobs are not taken up after a restart")
        return
    # Not a server's: it stands for what all of them share.
    spawner = app.spawner_class(config=app.config, hub=app.hub)
    for name in ("jinja2_env", "jinja2_env_sync"):
        app.tornado_application.settings[name].globals["hpcspawner_last_end"] = spawner.ledger.last_end
    habits = Habits(spawner.housekeeping_interval_s, spawner.orphan_grace_s, spawner.reaper_dry_run)
    await Keeper(app, spawner.cluster, habits, app.log).run()


def secret() -> bytes:
    """What the Hub keeps to itself across restarts: that which signs its cookies."""
    kept: bytes = JupyterHub.instance().cookie_secret
    return kept


def ledger_url_beside_the_hubs() -> str:
    """SQLite beside the Hub's SQLite; else the Hub's own database."""
    url = make_url(JupyterHub.instance().db_url)
    if url.get_backend_name() != "sqlite":
        return url.render_as_string(hide_password=False)
    in_memory = url.database in (None, "", ":memory:")
    folder = Path.cwd() if in_memory else Path(str(url.database)).absolute().parent
    return f"sqlite:///{folder / 'hpcspawner.sqlite'}"


def _is_no_link(record: logging.LogRecord) -> bool:
    """Whether to keep a log line: JupyterHub writes a traceback for each link that fills the form."""
    return not (record.exc_info and isinstance(record.exc_info[1], LinkFillsForm))


def forbidden_routes(application: Any) -> list[str]:
    """Patterns of every route that leads to a handler of the batchspawner package."""
    return [
        str(getattr(rule.matcher, "regex", rule.matcher))
        for rule in _rules(application.default_router)
        if getattr(rule.target, "__module__", "").split(".")[0] == _FORBIDDEN
    ]


def _rules(router: Any) -> list[Any]:
    found = []
    for rule in router.rules:
        found.append(rule)
        if hasattr(rule.target, "rules"):
            found += _rules(rule.target)
    return found
