"""What we replace in JupyterHub because it has no setting for it; `tests/unit/test_internals.py` has each name.

`make_ssl_context`: JupyterHub makes a context anew for each server that starts, and for each that it finds when it
starts itself. Each time it reads the system's authorities twice, 25 to 60 ms on the loop. For upstream: make the
context of `internal_ssl` once, in `JupyterHub.init_internal_ssl`, and hand it to `User._wait_up`; and leave out the
system's authorities, which have no say in who is a server of the Hub.

`JupyterHubOAuthServer.add_client`: the secret of a server's OAuth client is its API token, which JupyterHub has made at
random and keeps with one round of hashing among its tokens; as the client's secret it gets 16,384 rounds, 12 ms on the
loop for each start and each login. For upstream: say there too that it was generated.

`Spawner._spawn_pending` and `_spawn_future`: JupyterHub has no start that costs nothing while its job waits. A Hub that
starts again would make a token, an OAuth client and seven commits for each job in the queue, 25 ms on the loop. For
upstream: a spawner's state "waiting", in which a server is shown as pending and can be cancelled.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from jupyterhub import objects, orm, user, utils
from jupyterhub.oauth.provider import JupyterHubOAuthServer

_Stamp = tuple[Any, ...]
_kept: dict[Any, tuple[_Stamp, ssl.SSLContext]] = {}
_add_client = JupyterHubOAuthServer.add_client
# What JupyterHub calls the OAuth clients of users' servers.
_SERVERS = "jupyterhub-user-"


def install() -> None:
    """Replace what stands above. Once or more often is the same."""
    # Both have the name from `utils`, where it stays as it is.
    for module in (user, objects):
        module.make_ssl_context = ssl_context
    JupyterHubOAuthServer.add_client = add_client


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
    client = _add_client(self, client_id, "", *args, **more)
    client.secret = quick_hash(client_secret)
    return client


def quick_hash(token: str) -> str:
    """What JupyterHub keeps of a token that was made at random, in the form that it compares with."""
    known = orm.APIToken
    return str(utils.hash_token(token, salt=known.generated_salt_bytes, rounds=known.generated_rounds))


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
