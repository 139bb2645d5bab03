"""The API token of a server: made again from the job's tag, valid from the start of its job to the end."""

from typing import Any

from jupyterhub import orm
from jupyterhub.app import JupyterHub
from jupyterhub.utils import url_escape_path, url_path_join
from sqlalchemy import inspect
from sqlalchemy.exc import SQLAlchemyError

from hpcspawner.hub.internals import quick_hash
from hpcspawner.jobs.job import Job


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
    noted = _noted(session, spawner.orm_spawner.user, _note(spawner.user, spawner.name))
    ours = next((known for known in noted if known.match(token)), None)
    fresh = next((known for known in noted if known.match(spawner.api_token)), None)
    # Among the others those of starts that an earlier Hub process did not live to finish.
    for stale in noted:
        if stale is not (ours or fresh):
            session.delete(stale)
    if ours is None and fresh is not None:
        # In place: one commit, not four.
        fresh.token = token
    if spawner.orm_spawner.oauth_client is not None:
        # The server shows its token as the OAuth client's secret.
        spawner.orm_spawner.oauth_client.secret = quick_hash(token)
    session.commit()


def revoke(job: Job) -> bool:
    """Take back the token of a server that has ended or is no longer wanted; False if that must be tried again."""
    app = JupyterHub.instance()
    try:
        _revoke(app, job)
    except SQLAlchemyError as error:
        app.db.rollback()
        app.log.error("%s: the server's token can't be revoked, trying again: %s", job.log_name, error)
        return False
    return True


def _revoke(app: JupyterHub, job: Job) -> None:
    orm_user = orm.User.find(app.db, job.record.username)
    if orm_user is None:
        return  # and its tokens went with the user
    ours = orm.APIToken.find(app.db, job.ledger.keys.token(job.tag))
    gone = [ours] if ours is not None else []
    user = app.users[orm_user]
    spawner = user.spawners.get(job.record.server)
    # A start that waits for this end has a token already, which is still JupyterHub's own.
    next_one = spawner.api_token if spawner is not None and spawner.pending == "spawn" else ""
    if not any(other.attached for other in job.ledger.of(job.record.username, job.record.server) if other is not job):
        stale = (token for token in _noted(app.db, orm_user, _note(user, job.record.server)) if token is not ours)
        gone += [token for token in stale if not (next_one and token.match(next_one))]
    for token in gone:
        app.db.delete(token)
    app.db.commit()


def _note(user: Any, server: str) -> str:
    """What JupyterHub notes beside a server's token."""
    return f"Server at {url_path_join(user.base_url, url_escape_path(server), '/')}"


def _noted(session: Any, orm_user: orm.User, note: str) -> list[orm.APIToken]:
    return list(session.query(orm.APIToken).filter_by(user_id=orm_user.id, note=note))
