"""Who is refused too often: counts by caller and in all, with a clock of the test's own."""

import pytest

from hpcspawner.nodes.limit import WINDOW_S, Limited, Refusals, network


class Clock:
    at = 1000.0

    def __call__(self):
        return self.at


@pytest.fixture
def clock():
    return Clock()


def test_a_caller_is_limited_after_so_many_refusals_and_others_are_not(clock):
    refusals = Refusals(per_caller=3, clock=clock)
    assert [refusals.count("a") for _ in range(3)] == [None] * 3
    assert refusals.is_over("a")
    assert not refusals.is_over("b")
    clock.at += 20
    assert [refusals.count("a") for _ in range(3)] == [Limited(40, True), Limited(40, False), Limited(40, False)]
    assert refusals.count("b") is None


def test_after_the_time_that_was_said_counts_begin_anew(clock):
    refusals = Refusals(per_caller=1, clock=clock)
    refusals.count("a")
    clock.at += 0.5
    clock.at += refusals.count("a").retry_after_s
    assert not refusals.is_over("a")
    assert refusals.count("a") is None
    assert refusals.count("a") == Limited(60, True)


def test_all_together_have_a_limit_too(clock):
    refusals = Refusals(per_caller=2, in_all=3, clock=clock)
    assert [refusals.count(caller) for caller in "abc"] == [None] * 3
    assert refusals.count("d") == Limited(60, True)
    assert refusals.count("a") == refusals.count("e") == Limited(60, False)
    clock.at += WINDOW_S
    assert refusals.count("d") is None


def test_who_is_limited_does_not_use_up_what_others_have(clock):
    refusals = Refusals(per_caller=2, in_all=5, clock=clock)
    for _ in range(100):
        refusals.count("a")
    assert [refusals.count("b"), refusals.count("b")] == [None, None]


def test_however_many_callers_there_are_few_are_kept(clock):
    refusals = Refusals(in_all=600, clock=clock)
    for number in range(100_000):
        refusals.count(f"10.{number}")
    assert len(refusals._counts) == 600


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_a_host_is_counted_as_one(address, counted):
    assert network(address) == counted
