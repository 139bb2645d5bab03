"""Which connection has to go when there are too many."""

import resource

import pytest

from hpcspawner.hub.connections import Connections, most

BOB, PROXY = "10.0.0.2", "127.0.0.1"


def opened(connections, *names, address=BOB):
    """What has to go for each new one."""
    return [connections.opened(name, address) for name in names]


def test_as_many_as_may_be_open_cost_nobody_anything():
    assert opened(Connections(3), *"abc") == [None] * 3


def test_the_oldest_that_asks_for_nothing_goes_first():
    connections = Connections(2)
    assert opened(connections, *"abcd") == [None, None, "a", "a"]
    connections.closed("a")
    assert opened(connections, "e") == ["b"]


def test_who_has_the_most_loses_the_first_whoever_was_there_before():
    connections = Connections(4)
    opened(connections, "old", address=PROXY)
    opened(connections, *"abc")
    assert opened(connections, "new", address=PROXY) == ["a"]


def test_an_ipv6_host_does_not_hide_behind_many_addresses():
    connections = Connections(4)
    opened(connections, "old", address=PROXY)
    for number in range(3):
        opened(connections, number, address=f"2001:db8::{number}")
    assert opened(connections, "new", address=PROXY) == [0]


def test_a_request_that_is_answered_is_left_alone_and_its_connection_may_wait_again():
    connections = Connections(2)
    opened(connections, *"ab")
    connections.is_whole("a")
    assert opened(connections, "c") == ["b"]
    connections.closed("b")
    connections.is_whole("c")
    # All are at work: the new one goes, and is not counted.
    assert opened(connections, "d") == ["d"]
    connections.waits("a")
    assert opened(connections, "e") == ["a"]


def test_bodies_that_are_not_whole_have_one_limit_together():
    connections = Connections(9, most_bytes=100)
    opened(connections, *"abc")
    assert [connections.keeps(*call) for call in (("a", 60), ("b", 40))] == [None, None]
    assert connections.keeps("c", 1) == "a"
    connections.closed("a")
    assert connections.keeps("c", 50) is None


@pytest.mark.parametrize("over", ["is_whole", "waits", "closed"])
def test_what_was_kept_is_forgotten_with_its_request(over):
    connections = Connections(9, most_bytes=100)
    opened(connections, *"ab")
    connections.keeps("a", 100)
    for _ in range(2):
        getattr(connections, over)("a")
    assert connections.keeps("b", 100) is None
    assert connections.keeps("b", 1) == "b"


def test_what_was_closed_meanwhile_counts_for_nothing():
    connections = Connections(9, most_bytes=100)
    for note in (connections.waits, connections.is_whole, connections.closed):
        note("a")
    assert connections.keeps("a", 1000) is None


@pytest.mark.parametrize(
    ("files", "wanted"), [(1024, 512), (300, 150), (1 << 20, 8192), (resource.RLIM_INFINITY, 8192)]
)
def test_half_of_the_files_are_left_for_the_hubs_work(files, wanted, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (files, files))
    assert most() == wanted
