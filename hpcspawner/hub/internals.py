"""What we replace in JupyterHub because it has no setting for it; `tests/unit/test_internals.py` has each name.

`make_ssl_context`: JupyterHub makes a context anew for each server that starts, and for each that it finds when it
starts itself. Each time it reads the system's authorities twice, 25 to 60 ms on the loop. For upstream: make the
context of `internal_ssl` once, in `JupyterHub.init_internal_ssl`, and hand it to `User._wait_up`; and leave out the
system's authorities, which have no say in who is a server of the Hub.

`JupyterHubOAuthServer.add_client`: the secret of a server's OAuth client is its API token, which JupyterHub has made at
random and keeps with one round of hashing among its tokens; as the client's secret it gets 16,384 rounds, 12 ms on the
loop for each start and each login. For upstream: say there too that it was generated.
"""

import ssl
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
