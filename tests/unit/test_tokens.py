"""A server's token in JupyterHub's own tables: one for each job, valid as long as the job."""

import contextlib

import pytest
from jupyterhub import orm
from sqlalchemy import text

from hpcspawner.hub import tokens

NOTE = "Server at /user/alice/"
SCOPES = ["users:activity!user", "access:servers!server=alice/"]


class Alice:
    """The user, with the spawner of her server."""

    def __init__(self, hub):
        self.db = hub.db
        self.user = hub.users[orm.User.find(hub.db, "alice")]
        self.spawner = self.user.spawners[""]

    def is_started(self):
        """As far as JupyterHub goes before it calls the spawner: with a token of this start."""
        self.spawner._spawn_pending = True
        self.spawner.api_token = self.user.new_api_token(note=NOTE, scopes=SCOPES)
        return self.spawner.api_token

    def has_failed(self):
        self.spawner._spawn_pending = False

    def valid(self, token):
        return orm.APIToken.find(self.db, token) is not None

    def tokens(self, note=NOTE):
        return list(self.db.query(orm.APIToken).filter_by(note=note))


@pytest.fixture
async def alice(hub):
    return Alice(hub)


async def test_the_jobs_token_takes_the_place_of_jupyterhubs_with_its_rights(kept, alice):
    row = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    fresh, ours = alice.is_started(), kept.keys.token(row.tag)
    tokens.hand_over(alice.spawner, ours)
    assert not alice.valid(fresh)
    (kept_one,) = alice.tokens()
    assert kept_one.match(ours)
    assert set(kept_one.scopes) == set(SCOPES)


async def test_a_server_that_is_taken_up_keeps_its_token(kept, alice):
    row = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    ours = kept.keys.token(row.tag)
    for _ in range(3):
        fresh = alice.is_started()
        tokens.hand_over(alice.spawner, ours)
        assert not alice.valid(fresh)
        assert alice.valid(ours)
    assert len(alice.tokens()) == 1


async def test_tokens_of_other_servers_and_the_users_own_stay(kept, alice):
    others = [alice.user.new_api_token(note=note) for note in ("Server at /user/alice/lab/", "my laptop")]
    alice.is_started()
    row = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    tokens.hand_over(alice.spawner, kept.keys.token(row.tag))
    alice.has_failed()
    assert tokens.revoke(row)
    assert alice.tokens() == []
    assert all(alice.valid(token) for token in others)


async def test_with_the_job_its_token_ends(kept, alice):
    row = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    alice.is_started()
    tokens.hand_over(alice.spawner, kept.keys.token(row.tag))
    assert tokens.revoke(row)
    assert not alice.valid(kept.keys.token(row.tag))
    assert tokens.revoke(row)


async def test_a_token_of_a_start_that_was_cut_off_goes_too(kept, alice):
    cut_off = alice.is_started()
    alice.has_failed()
    assert tokens.revoke(kept.new_job(("alice", ""), "alice", kept.clusters.default))
    assert not alice.valid(cut_off)


async def test_the_end_of_one_job_leaves_the_next_ones_token(kept, alice):
    old, new = (kept.new_job(("alice", ""), "alice", kept.clusters.default) for _ in range(2))
    for row in (old, new):
        await kept.open(row)
    alice.is_started()
    tokens.hand_over(alice.spawner, kept.keys.token(new.tag))
    new.attached = True
    assert tokens.revoke(old)
    assert alice.valid(kept.keys.token(new.tag))


async def test_a_start_that_waits_for_the_end_of_the_last_job_gets_its_token(kept, alice):
    """Stop, then Start before the scheduler has confirmed the end: `_old_jobs_have_ended` waits in between."""
    old = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    await kept.open(old)
    alice.is_started()
    assert tokens.revoke(old)
    new = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    tokens.hand_over(alice.spawner, kept.keys.token(new.tag))
    assert alice.valid(kept.keys.token(new.tag)), "the new server has a token that the Hub does not know"


async def test_of_a_user_who_is_gone_nothing_is_left_to_revoke(kept, hub):
    assert tokens.revoke(kept.new_job(("bob", ""), "bob", kept.clusters.default))


@contextlib.contextmanager
def refusing(db, change):
    """A database that takes no such change of tokens: UPDATE or DELETE."""
    db.execute(text(f"CREATE TRIGGER full BEFORE {change} ON api_tokens BEGIN SELECT RAISE(ABORT, 'full'); END"))
    db.commit()
    yield
    db.execute(text("DROP TRIGGER full"))
    db.commit()


async def test_what_the_database_does_not_take_is_tried_again_and_jupyterhubs_session_goes_on(kept, alice):
    row = kept.new_job(("alice", ""), "alice", kept.clusters.default)
    fresh, ours = alice.is_started(), kept.keys.token(row.tag)
    with refusing(alice.db, "UPDATE"):
        assert not tokens.hand_over(alice.spawner, ours)
        assert (alice.valid(fresh), alice.valid(ours)) == (True, False)
    assert tokens.hand_over(alice.spawner, ours)
    with refusing(alice.db, "DELETE"):
        assert not tokens.revoke(row)
        assert alice.valid(ours)
    assert tokens.revoke(row)
    assert not alice.valid(ours)
