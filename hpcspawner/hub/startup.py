"""What the Hub checks and starts once JupyterHub is initialised."""

import asyncio
import functools
import logging
from pathlib import Path

from jupyterhub.app import JupyterHub
from sqlalchemy import event, text
from sqlalchemy.engine import URL, make_url

from hpcspawner.errors import more
from hpcspawner.hub import audit, double_start, garbage, internals, languages, servers, startup_checks
from hpcspawner.hub.housekeeping import Housekeeping, HousekeepingLimits
from hpcspawner.hub.users import forget_with_their_users
from hpcspawner.jobs.table import LOCK_TIMEOUT_S
from hpcspawner.jobs.tasks import in_background
from hpcspawner.pages import content_security, site_templates
from hpcspawner.pages.pages import LinkFillsForm, server_of

_AGAIN_S = 10


def schedule_startup() -> None:
    """Arrange what follows. `jupyterhub token` and the like read the configuration too, but serve no users."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    # JupyterHub is about to read what there is of users and servers.
    garbage.look_at_the_young_alone()
    task = loop.create_task(_after_init())
    # The loop keeps weak references only.
    task.add_done_callback(_keep.discard)
    _keep.add(task)


_keep: set[asyncio.Task[None]] = set()


async def _after_init() -> None:
    while not (JupyterHub.initialized() and getattr(JupyterHub.instance(), "tornado_application", None)):
        await asyncio.sleep(0.02)
    app = JupyterHub.instance()
    # All that must be there for the first request comes before the first wait.
    content_security.install(app)
    functions = {"hpcspawner_servers": servers.rows_of, "hpcspawner_server_of": server_of}
    site_templates.install(app, functions)
    languages.install(app)
    audit.install(app)
    double_start.install(app)
    try:
        startup_checks.endpoint_absent(app)
        startup_checks.secret_is_fit(app)
        await startup_checks.reachable(app)
    except Exception:
        app.log.critical(
            "hpcspawner: start-up checks could not be completed (traceback below). The Hub stops.%s",
            more("startup"),
            exc_info=True,
        )
        app.exit(1)
    app.log.addFilter(_is_no_link)
    _wait_for_locks(app)
    internals.leave_out_pings(app.db.get_bind())
    internals.hold_own_client(app.db)
    garbage.leave_alone_what_stays()
    in_background(garbage.collect_as_memory_grows(app.log), app.log)
    # Done once JupyterHub serves; its check of the servers that it knows may still be going on.
    await app._start_future
    looks = True
    while True:
        try:
            return await _keep_house(app, looks=looks)
        except Exception:
            looks = False
            app.log.exception("hpcspawner: housekeeping can't start; trying again in %s s", _AGAIN_S)
        await asyncio.sleep(_AGAIN_S)


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


async def _keep_house(app: JupyterHub, *, looks: bool) -> None:
    """Until the Hub ends; `looks` tells that this is the first try, which looks around once."""
    if not hasattr(app.spawner_class, "ledger"):
        app.log.warning(
            "hpcspawner: JupyterHub.spawner_class is not HPCSpawner, so the Hub does not take up running "
            "jobs after a restart"
        )
        return
    # Not a server's: it stands for what all of them share.
    spawner = app.spawner_class(config=app.config, hub=app.hub)
    for name in ("jinja2_env", "jinja2_env_sync"):
        shared = app.tornado_application.settings[name].globals
        shared.update(hpcspawner_last_end=spawner.last_failure, hpcspawner_history=spawner.history)
    startup_checks.tell_whose_jobs(app, spawner.ledger.clusters.offered, allow_root=spawner.allow_root)
    for cluster in spawner.ledger.clusters.offered:
        # So that the first form knows it.
        cluster.standings.look()
    if looks:
        forget_with_their_users(app, spawner.ledger.saved, app.log)
        in_background(startup_checks.look_around(app, spawner.ledger.clusters.offered), app.log)
    limits = HousekeepingLimits(spawner.housekeeping_interval_s, spawner.orphan_grace_s, spawner.reaper_dry_run)
    await Housekeeping(app, spawner.ledger, limits, app.log).run()


def cookie_secret() -> bytes:
    """JupyterHub's cookie secret, of which older versions made jobs' tags. Remove it with `Keys.older`."""
    signs: bytes = JupyterHub.instance().cookie_secret
    return signs


def secret_file_beside_the_hubs() -> str:
    """Beside the Hub's SQLite; else in its working directory, as JupyterHub's own secret."""
    return secret_file_beside(JupyterHub.instance().db_url)


def secret_file_beside(db_url: str) -> str:
    """The same for a Hub with this database."""
    return str(_folder_of(make_url(db_url)) / "hpcspawner_secret")


def ledger_url_beside_the_hubs() -> str:
    """SQLite beside the Hub's SQLite; else the Hub's own database."""
    return ledger_url_beside(JupyterHub.instance().db_url)


@functools.cache
def ledger_url_beside(db_url: str) -> str:
    """The same for a Hub with this database."""
    url = make_url(db_url)
    if url.get_backend_name() != "sqlite":
        return url.render_as_string(hide_password=False)
    return f"sqlite:///{_folder_of(url) / 'hpcspawner.sqlite'}"


def _folder_of(url: URL) -> Path:
    """Where the Hub's database is, if it is a file."""
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    return Path(str(url.database)).absolute().parent if is_file else Path.cwd()


def _is_no_link(record: logging.LogRecord) -> bool:
    """Whether to keep a log line: JupyterHub writes a traceback for each link that fills the form."""
    return not (record.exc_info and isinstance(record.exc_info[1], LinkFillsForm))
