"""What we replace in JupyterHub because it has no setting for it; `tests/unit/test_internals.py` has each name.

`make_ssl_context`: JupyterHub makes a context anew for each server that starts, and for each that it finds when it
starts itself. Each time it reads the system's authorities twice, 25 to 60 ms on the loop. For upstream: make the
context of `internal_ssl` once, in `JupyterHub.init_internal_ssl`, and hand it to `User._wait_up`; and leave out the
system's authorities, which have no say in who is a server of the Hub.

`JupyterHubOAuthServer.add_client`: the secret of a server's OAuth client is its API token, which JupyterHub has made at
random and keeps with one round of hashing among its tokens; as the client's secret it gets 16,384 rounds, 12 ms on the
loop for each start and each login. For upstream: say there too that it was generated. And its commit is one more than
is needed, for each caller commits right away; without it the client is stored whole, by one statement and not three.

JupyterHub's own OAuth client, which it reads for each token that it makes, and `orm.Server.spawner`, which SQLAlchemy
looks for in the database when a server that was just made gets its spawner: three statements for each start. For
upstream: hold the one, and say of the other that there is none.

`Spawner._spawn_pending` and `_spawn_future`: JupyterHub has no start that costs nothing while its job waits. A Hub that
starts again would make a token, an OAuth client and seven commits for each job in the queue, 25 ms on the loop. For
upstream: a spawner's state "waiting", in which a server is shown as pending and can be cancelled.

`ConfigurableHTTPProxy._check_previous_process`: a Hub that was killed has left its proxy, and JupyterHub ends whatever
process has the number in the proxy's file, then sleeps for a second or two. For upstream: look whether that process is
a proxy, and whether it has ended, every 10 ms; one that has ended but whose parent has not noticed is gone.

`register_ping_connection`: before each transaction JupyterHub asks its database whether the connection still works,
eight times for a start. A connection over a network may have been cut; a file of SQLite can't. For upstream: leave it
out there.

`JupyterHub.cleanup_oauth_clients`: a Hub that starts again deletes the OAuth client of each server that does not run,
as one that waits in the queue: with its tokens, one by one, 1 ms each before the Hub answers. For upstream: delete
a hundred by one statement.
"""

import asyncio
import os
import signal
import ssl
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub import objects, orm, user, utils
from jupyterhub.app import JupyterHub
from jupyterhub.oauth.provider import JupyterHubOAuthServer
from jupyterhub.proxy import ConfigurableHTTPProxy
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

_Stamp = tuple[Any, ...]
_kept: dict[Any, tuple[_Stamp, ssl.SSLContext]] = {}
_add_client = JupyterHubOAuthServer.add_client
# What JupyterHub calls the OAuth clients of users' servers.
_SERVERS = "jupyterhub-user-"
_check_previous_process = ConfigurableHTTPProxy._check_previous_process
_PROXY_ENDS_S = 1.0
_cleanup_oauth_clients = JupyterHub.cleanup_oauth_clients
_CLIENTS_AT_ONCE = 100


def install() -> None:
    """Replace what stands above. Once or more often is the same."""
    # Both have the name from `utils`, where it stays as it is.
    for module in (user, objects):
        module.make_ssl_context = ssl_context
    JupyterHubOAuthServer.add_client = add_client
    ConfigurableHTTPProxy._check_previous_process = check_previous_proxy
    JupyterHub.cleanup_oauth_clients = cleanup_oauth_clients
    if not event.contains(orm.Server, "init", _has_no_spawner):
        event.listen(orm.Server, "init", _has_no_spawner)


def leave_out_pings(engine: Engine) -> None:
    """Have JupyterHub use the connections of its SQLite as they are; another database's are checked as before."""
    if engine.dialect.name != "sqlite":
        return
    for listener in list(engine.dispatch.engine_connect):
        # A site's own may be no function, and without a name.
        if getattr(listener, "__qualname__", "").startswith(f"{orm.register_ping_connection.__name__}."):
            event.remove(engine, "engine_connect", listener)


def hold(spawner: Any, work: Coroutine[Any, Any, None], over: Callable[[asyncio.Task[None]], None]) -> None:
    """Have JupyterHub show a server as one that is starting while `work` goes on, which may start it in the end.

    As during a start, `DELETE` cancels the work, and pages that wait for the start wait for the work. `over` is called
    where it has ended without a start.
    """
    task = asyncio.ensure_future(work)
    spawner._spawn_pending, spawner._spawn_future = True, task
    task.add_done_callback(partial(_is_over, spawner, over))


def _is_over(spawner: Any, over: Callable[[asyncio.Task[None]], None], task: asyncio.Task[None]) -> None:
    failed = not task.cancelled() and task.exception() is not None
    if spawner._spawn_future is not task:
        return  # JupyterHub's own start has taken the place, and has told of its end
    spawner._spawn_pending = False
    spawner._spawn_future = task if failed else None
    over(task)


def make_way(spawner: Any) -> None:
    """Let JupyterHub start a server that was held; its start takes the place at once."""
    spawner._spawn_pending = False


def add_client(self: Any, client_id: str, client_secret: str, *args: Any, **more: Any) -> Any:
    """As JupyterHub's; its caller commits. A service's secret is an admin's own, which may need all its rounds."""
    if not client_id.startswith(_SERVERS):
        return _add_client(self, client_id, client_secret, *args, **more)
    with _left_to_the_caller(self.db):
        client = _add_client(self, client_id, "", *args, **more)
    client.secret = quick_hash(client_secret)
    return client


@contextmanager
def _left_to_the_caller(session: Session) -> Iterator[None]:
    """Leave out the commits of a block, in which no other task has its turn."""
    session.__dict__["commit"] = lambda: None
    try:
        yield
    finally:
        del session.__dict__["commit"]


def hold_own_client(session: Session) -> None:
    """Keep JupyterHub's own OAuth client in memory, with what it has been found to belong to."""
    session.info["hpcspawner_own_client"] = session.query(orm.OAuthClient).filter_by(identifier="jupyterhub").first()


def _has_no_spawner(made: orm.Server, _args: Any, _more: Any) -> None:
    set_committed_value(made, "spawner", None)


def cleanup_oauth_clients(app: Any) -> None:
    """As JupyterHub's, which has nothing left to do where the others are no service's."""
    client, db = orm.OAuthClient, app.db
    kept = {one.oauth_client_id for known in app.users.values() for one in known.spawners.values()}
    found = db.query(client.identifier).filter(client.identifier.startswith(_SERVERS))
    gone = [identifier for (identifier,) in found if identifier not in kept]
    for first in range(0, len(gone), _CLIENTS_AT_ONCE):
        some = gone[first : first + _CLIENTS_AT_ONCE]
        for column in (orm.APIToken.client_id, orm.OAuthCode.client_id, client.identifier):
            db.query(column.class_).filter(column.in_(some)).delete(synchronize_session=False)
        db.commit()
    if gone:
        app.log.info("hpcspawner: deleted the OAuth clients of %d servers that do not run", len(gone))
    _cleanup_oauth_clients(app)


def quick_hash(token: str) -> str:
    """What JupyterHub keeps of a token that was made at random, in the form that it compares with."""
    known = orm.APIToken
    return str(utils.hash_token(token, salt=known.generated_salt_bytes, rounds=known.generated_rounds))


def check_previous_proxy(proxy: Any) -> None:
    """As JupyterHub's, which has nothing left to wait for where the proxy of an earlier Hub ends at once."""
    pid = _proxy_in(proxy.pid_file)
    if pid is not None:
        proxy.log.warning("hpcspawner: ending the proxy of an earlier Hub, process %d", pid)
        with suppress(OSError):  # it ends just now, or is another account's
            os.kill(pid, signal.SIGTERM)
        over = time.monotonic() + _PROXY_ENDS_S
        while not _has_ended(pid) and time.monotonic() < over:
            time.sleep(0.01)
        if _has_ended(pid):
            # By the name of 6.1, or of 5.5.
            (getattr(proxy, "_remove_process_files", None) or proxy._remove_pid_file)()
    _check_previous_process(proxy)


def _proxy_in(file: str) -> int | None:
    """The process that a proxy's file names, where it is a proxy that runs."""
    try:
        pid = int(Path(file).read_text())
    except (OSError, ValueError):
        return None
    return pid if _is_proxy(pid) else None


def _has_ended(pid: int) -> bool:
    """Whether a process has closed all that it had open: its memory goes first, its sockets with its last thread."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        return state in (b"Z", b"X") and len(os.listdir(f"/proc/{pid}/task")) <= 1
    except OSError:
        return True


def _is_proxy(pid: int) -> bool:
    try:
        return b"configurable-http-proxy" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def ssl_context(keyfile: str, certfile: str, cafile: str | None = None, **more: Any) -> ssl.SSLContext | None:
    """As JupyterHub's `make_ssl_context`, made once and kept until one of its files, or the system's, changes."""
    called = (keyfile, certfile, cafile, *sorted(more.items()))
    stamp = tuple(_stamp(file) for file in (keyfile, certfile, cafile, *_system()))
    if called in _kept and _kept[called][0] == stamp:
        return _kept[called][1]
    made = utils.make_ssl_context(keyfile, certfile, cafile=cafile, **more)
    if made is not None:
        _kept[called] = stamp, made
    return made


def _system() -> tuple[str | None, str | None]:
    """Where OpenSSL looks for the system's authorities."""
    paths = ssl.get_default_verify_paths()
    return paths.cafile, paths.capath


def _stamp(file: str | None) -> Any:
    """Changes when the file does; None where there is none."""
    try:
        found = Path(file).stat() if file else None
    except OSError:
        return None
    return found and (found.st_mtime_ns, found.st_size, found.st_ino)
