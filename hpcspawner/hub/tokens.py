"""The API token of a server: made again from the job's tag, valid from the start of its job to the end."""

from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.utils import hash_token, url_escape_path, url_path_join
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from hpcspawner.jobs.ledger import Row, ledger


def hand_over(spawner: Any, token: str) -> bool:
    """Make `token` the server's, with the rights of the one that JupyterHub has just made, which goes.

    JupyterHub makes a new token and a new OAuth secret for each start; a server that is already there knows neither.
    False if the Hub's database did not take it, and it must be tried again.
    """
    session = inspect(spawner.orm_spawner).session
    try:
        _hand_over(session, spawner, token)
    except SQLAlchemyError as error:
        # JupyterHub shares this session among all that it does.
        session.rollback()
        spawner.log.error("%s: the server's token can't be stored, trying again: %s", spawner._log_name, error)
        return False
    return True


def _hand_over(session: Any, spawner: Any, token: str) -> None:
    fresh = orm.APIToken.find(session, spawner.api_token)
    if fresh is not None:
        note, scopes = fresh.note, fresh.scopes
        # Among them those of starts that an earlier Hub process did not live to finish.
        for stale in _noted(session, spawner.orm_spawner.user, note):
            if not stale.match(token):
                session.delete(stale)
        session.commit()
        if orm.APIToken.find(session, token) is None:
            spawner.user.new_api_token(token, note=note, scopes=scopes)
    if spawner.orm_spawner.oauth_client is not None:
        # The server shows its token as the OAuth client's secret.
        spawner.orm_spawner.oauth_client.secret = hash_token(token)
    session.commit()


def revoke(row: Row) -> bool:
    """Take back the token of a server that has ended or is no longer wanted; False if that must be tried again."""
    app = JupyterHub.instance()
    try:
        _revoke(app, row)
    except SQLAlchemyError as error:
        app.db.rollback()
        app.log.error("%s: the server's token can't be revoked, trying again: %s", row.log_name, error)
        return False
    return True


def _revoke(app: JupyterHub, row: Row) -> None:
    orm_user = orm.User.find(app.db, row.username)
    if orm_user is None:
        return  # and its tokens went with the user
    ours = orm.APIToken.find(app.db, ledger().keys.token(row.tag))
    gone = [ours] if ours is not None else []
    user = app.users[orm_user]
    spawner = user.spawners.get(row.server)
    # A start that waits for this end has a token already, which is still JupyterHub's own.
    next_one = spawner.api_token if spawner is not None and spawner.pending == "spawn" else ""
    if not any(other.attached for other in ledger().of(row.username, row.server) if other is not row):
        base_url = url_path_join(user.base_url, url_escape_path(row.server), "/")
        stale = (token for token in _noted(app.db, orm_user, f"Server at {base_url}") if token is not ours)
        gone += [token for token in stale if not (next_one and token.match(next_one))]
    for token in gone:
        app.db.delete(token)
    app.db.commit()


def _noted(session: Any, orm_user: orm.User, note: str) -> list[orm.APIToken]:
    return list(session.query(orm.APIToken).filter_by(user_id=orm_user.id, note=note))
