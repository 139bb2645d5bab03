"""What a request costs, and what an account has left."""

import asyncio
import logging

import pytest

from hpcspawner.request.cost import amount, most, sentence
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import SiteProfile

SITE = {
    "title": "Costly",
    "scheduler": {"type": "slurm", "command_prefix": []},
    "partitions": [
        {"name": "cpu", "max_walltime": "1d", "max_cpus": 64, "max_nodes": 4},
        {"name": "gpu", "max_walltime": "1d", "max_cpus": 64, "gpus": {"v100": 4}},
        {"name": "whole", "max_walltime": "1d", "max_cpus": 64, "whole_nodes": True, "max_nodes": 2},
        {"name": "own", "max_walltime": "1d", "max_cpus": 8, "cost": {"core_hour": 0.5}},
        {"name": "free", "max_walltime": "1d", "cost": {}},
    ],
    "environments": [{"name": "jupyter"}],
    "limits": {"renewals": 2},
    "cost": {"unit": "SU", "core_hour": 1, "gpu_hour": 20},
}
ALICE = LocalAccount("alice", "/home/alice")


def site(**cost):
    return SiteProfile.model_validate(SITE | {"cost": SITE["cost"] | cost})


def asked(profile, **options):
    return make(options, profile, ALICE)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"partition": "cpu", "walltime": "2h"}, 2),
        ({"partition": "cpu", "walltime": "30m", "cpus": 8, "nodes": 2}, 8),
        ({"partition": "gpu", "walltime": "2h", "cpus": 4, "gpus": 2}, 88),
        ({"partition": "whole", "walltime": "3h", "nodes": 2}, 384),
        ({"partition": "own", "walltime": "4h", "cpus": 8}, 16),
        ({"partition": "free", "walltime": "4h"}, None),
    ],
)
def test_a_request_costs_its_cores_and_gpus_for_all_of_its_wall_time(options, expected):
    profile = site()
    assert most(profile, asked(profile, **options).resources) == expected


def test_without_rates_nothing_is_said():
    profile = SiteProfile.model_validate({name: value for name, value in SITE.items() if name != "cost"})
    assert sentence(profile, asked(profile, partition="cpu").resources, 0) == ""


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.25, "0.25 SU"), (2.0, "2 SU"), (1 / 3, "0.333 SU"), (99.5, "99.5 SU"), (1234.5, "1,234 SU")],
)
def test_an_amount_is_short(number, text):
    assert amount(site(), number) == text


def test_renewals_are_named():
    profile = site()
    request = asked(profile, partition="cpu", walltime="2h", renewals=1)
    assert sentence(profile, request.resources, request.renewals) == (
        "It costs 2 SU at most, if it runs for all of 2h. Each renewal costs as much again."
    )


@pytest.fixture
def balances(tmp_path):
    """Of a site whose command counts its calls."""

    def made(body, *words):
        program = tmp_path / "balance"
        program.write_text(f"#!/bin/sh\necho called >>'{tmp_path}/calls'\n{body}\n")
        program.chmod(0o755)
        profile = site(balance=[str(program), *words])
        return Cluster.of(profile, tmp_path, logging.getLogger("test")).balances

    return made


async def test_many_who_ask_make_one_command(balances, tmp_path):
    found = balances('echo; echo "$1 $2: 1,200 SU of 5,000"', "{user}", "{account}")
    said = await asyncio.gather(*(found.sentence("alice", "abc@v100") for _ in range(20)))
    assert len(set(said)) == 1
    assert said[0].startswith("abc@v100 has: alice abc@v100: 1,200 SU of 5,000 (as of ")
    assert (tmp_path / "calls").read_text() == "called\n"


async def test_nothing_of_the_answer_but_a_line_that_can_be_shown(balances):
    found = balances("printf 'a\\033[31mred\\n'; echo secret")
    assert "has: a?[31mred (as of" in await found.sentence("alice", "")


async def test_a_command_that_fails_is_unknown_and_asked_again(balances, tmp_path):
    found = balances(f"test -e '{tmp_path}/well' && echo 7 || exit 3")
    assert await found.sentence("alice", "x") == "The balance is not known at the moment."
    (tmp_path / "well").touch()
    assert (await found.sentence("alice", "x")).startswith("x has: 7 (as of ")


async def test_an_account_must_be_chosen_where_the_command_needs_one(balances):
    assert await balances("echo 7", "{account}").sentence("alice", "") == "Choose an account to see its balance."


async def test_a_site_without_a_command_says_nothing(tmp_path):
    cluster = Cluster.of(site(), tmp_path, logging.getLogger("test"))
    assert await cluster.balances.sentence("alice", "x") == ""
