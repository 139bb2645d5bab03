"""What the Hub works out again: alike after a restart, and for nobody else."""

import base64
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jupyterhub import orm

from hpcspawner.jobs.keys import API_TOKEN, REPORT_KEY, TICKET, Keys

KEYS = Keys(b"s" * 32, "hub")
UPGRADED = Keys(b"o" * 32, "hub", older=b"s" * 32)
OTHERS = [
    pytest.param(replace(KEYS, secret=b"t" * 32), id="another secret"),
    pytest.param(replace(KEYS, hub="other"), id="another hub with the same secret"),
]
NAMES = st.text(alphabet=st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=40)


def test_what_is_derived_is_the_same_after_a_restart():
    """Fixed for ever: servers that run while the package is upgraded hold these."""
    assert KEYS.token("k123456abcdefgh") == "5J68hpca_AVuQ0syiUOQH34k36M2XYmEIOg2icz-Snl94ds0"
    assert KEYS.report_key("k123456abcdefgh", "run") == "hpcr_wnBXJreVaZEEZ_zuj7_S23_8ze_AI_2kkVqVUAEFpZ0"
    assert KEYS.is_ours("alice", "kabcdefi4a6cxac")
    assert KEYS.is_ours("alice", "sabcd7yk53lqeef")
    assert KEYS.is_of("sabcd7yk53lqeef", "alice", "alice", "lab")
    assert KEYS.ticket("k123456abcdefgh") == "hpct_NQ7LRaQfK5b6kArzHeNpAGWw57ej9D7-2OBqUDx5VU4"
    assert KEYS.nonce("k123456abcdefgh", "run") == "yahfjqb5h5dtqqyb"


def test_what_was_derived_of_the_cookie_secret_before_is_still_known():
    """A tag says of which secret it was made: servers of the version before keep their tokens, keys and names."""
    assert UPGRADED.token("h123456abcdefgh") == "LbZehpca_CQ440VRq3inG1gd3hTm_13UBao_eCCAbVraQxj8"
    assert UPGRADED.report_key("h123456abcdefgh", "run") == "hpcr_KOxtHGRJEwxF9izCMZFQ_eGNUry1-Pl0BM84ZiEr7IU"
    assert UPGRADED.is_ours("alice", "habcdefi4a6cxac")
    assert UPGRADED.nonce("h123456abcdefgh", "run") == "m6kd7zbw2dselhah"


@pytest.mark.parametrize("others", OTHERS)
def test_what_is_derived_is_another_hubs_not(others):
    tag = KEYS.new_tag("alice", "alice", "lab")
    assert others.token(tag) != KEYS.token(tag)
    assert others.report_key(tag, "run") != KEYS.report_key(tag, "run")
    assert others.nonce(tag, "run") != KEYS.nonce(tag, "run")
    assert not others.is_ours("alice", tag)


def test_a_secret_is_known_for_one_and_still_a_secret():
    """The mark is no part of what is random; JupyterHub takes tokens of 64 characters at most."""
    secrets = [KEYS.token("a"), KEYS.report_key("a", "run"), KEYS.ticket("a")]
    for mark, secret in zip((API_TOKEN, REPORT_KEY, TICKET), secrets, strict=True):
        assert secret.count(mark) == 1
        assert len(base64.urlsafe_b64decode(secret.replace(mark, "") + "=")) == 32
        assert len(secret) <= 64


def test_tokens_differ_in_what_jupyterhub_looks_them_up_by():
    """It compares a token with each one that begins alike."""
    begins = {KEYS.token(f"tag {number}")[: orm.APIToken.prefix_length] for number in range(1000)}
    assert len(begins) > 990


def test_each_secret_is_its_own():
    derived = [KEYS.token("a"), KEYS.token("b"), KEYS.report_key("a", ""), KEYS.report_key("a", "b")]
    assert len(set(derived)) == len(derived)


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_two_runs_share_a_key(tag, run, other_tag, other_run):
    same = (tag, run) == (other_tag, other_run)
    assert (KEYS.report_key(tag, run) == KEYS.report_key(other_tag, other_run)) is same
    assert (KEYS.nonce(tag, run) == KEYS.nonce(other_tag, other_run)) is same


@given(NAMES, NAMES)
def test_a_nonce_is_part_of_a_host_name_and_no_part_of_a_secret(tag, run):
    """80 bits: nobody makes a run whose server is called as another's."""
    nonce = KEYS.nonce(tag, run)
    assert re.fullmatch("[a-z2-7]{16}", nonce)
    assert nonce not in KEYS.report_key(tag, run).lower()


@given(NAMES)
def test_a_tag_fits_the_oldest_torque_and_is_known_again(owner):
    """15 characters, the first of which is a letter, and none that a name may not have."""
    tag = KEYS.new_tag(owner, "user", "lab")
    assert re.fullmatch(r"[a-z][a-z0-9]{14}", tag)
    assert KEYS.is_ours(owner, tag)


@given(NAMES, NAMES, st.text(max_size=40))
def test_a_tag_tells_whose_server_it_was_made_for(owner, username, server):
    """Should the ledger be lost, that is how a job finds its server again. A server's name may hold anything."""
    tag = KEYS.new_tag(owner, username, server)
    assert KEYS.is_of(tag, owner, username, server)
    others = [(owner, username, f"{server}x"), (owner, f"{username}x", server), (f"{owner}x", username, server)]
    assert sum(KEYS.is_of(tag, *other) for other in others) < 2, "one of them may pass by chance, once in 32768 times"


def test_a_tag_of_before_names_no_server():
    tag = "kabcdefi4a6cxac"
    assert KEYS.is_ours("alice", tag)
    assert not any(KEYS.is_of(tag, "alice", "alice", server) for server in ("", "lab"))


def test_a_ticket_can_be_worked_out_again_by_this_hub_alone():
    """A job that waits carries it; should the ledger be lost, its launcher is still known."""
    tag = KEYS.new_tag("alice", "alice", "")
    assert KEYS.ticket(tag) == replace(KEYS).ticket(tag)
    assert len({keys.ticket(tag) for keys in (KEYS, replace(KEYS, secret=b"t" * 32), replace(KEYS, hub="other"))}) == 3
    assert KEYS.ticket(tag) != KEYS.ticket(KEYS.new_tag("alice", "bob", ""))


def test_a_tag_counts_for_the_owner_it_was_made_for():
    """A user who reads another one's tag in the queue can't have jobs taken for ours with it."""
    tag = KEYS.new_tag("alice", "alice", "lab")
    assert not KEYS.is_ours("bob", tag)
    assert not KEYS.is_ours("", tag)


@pytest.mark.parametrize(
    "spoiled",
    [
        pytest.param(lambda tag: "", id="none"),
        pytest.param(lambda tag: "h", id="another letter alone"),
        pytest.param(lambda tag: tag[:1], id="its first letter"),
        pytest.param(lambda tag: tag[:-1], id="too short"),
        pytest.param(lambda tag: tag + "a", id="too long"),
        pytest.param(lambda tag: tag[:7], id="no proof"),
        pytest.param(lambda tag: tag.upper(), id="capitals"),
        pytest.param(lambda tag: "x" + tag[1:], id="another first letter"),
        pytest.param(lambda tag: tag[:1] + ("b" if tag[1] == "a" else "a") + tag[2:], id="another nonce"),
        pytest.param(lambda tag: tag[:-1] + ("b" if tag[-1] == "a" else "a"), id="another proof"),
        pytest.param(lambda tag: f" {tag}", id="with a space"),
        pytest.param(lambda tag: tag[:-1] + "ä", id="another alphabet"),
    ],
)
def test_a_tag_that_is_not_exactly_as_it_was_made_is_not_ours(spoiled):
    assert not KEYS.is_ours("alice", spoiled(KEYS.new_tag("alice", "alice", "lab")))


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_stands_in_a_listing_can_be_asked_about(owner, tag):
    """A user's comment may be anything; it must not stop the housekeeping."""
    assert not KEYS.is_ours(owner, tag)


def test_the_secret_is_not_shown():
    assert "sss" not in repr(KEYS)
    assert "sss" not in repr(UPGRADED)


def test_no_new_tag_is_a_check_for_guesses_of_the_cookie_secret():
    """Everyone on the cluster reads tags: one made of the cookie secret would tell whether a guess of it is right."""
    tag = UPGRADED.new_tag("alice", "alice", "lab")
    with_another = replace(UPGRADED, older=b"t" * 32)
    assert with_another.is_ours("alice", tag)
    assert with_another.token(tag) == UPGRADED.token(tag)
    assert with_another.report_key(tag, "run") == UPGRADED.report_key(tag, "run")
    assert not with_another.is_ours("alice", f"h{tag[1:]}")


def test_a_tag_of_before_is_no_tag_of_the_new_secret():
    """Nor the other way round: who knows one secret makes no tags of the other."""
    before = Keys(b"s" * 32, "hub", older=b"s" * 32)._proof("h", "alice", "abcdef")
    assert UPGRADED.is_ours("alice", f"habcdef{before}")
    assert not UPGRADED.is_ours("alice", f"kabcdef{before}")
