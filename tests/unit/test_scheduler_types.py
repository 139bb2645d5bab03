"""The table of schedulers: what is in it, and what other packages add."""

from importlib.metadata import EntryPoint

import pytest
from support.schedulers import EVERY

from hpcspawner.schedulers.base import Scheduler
from hpcspawner.site import names, scheduler_types


@pytest.mark.parametrize("name", scheduler_types.BUILT_IN)
def test_every_row_is_a_scheduler_of_that_name(name):
    found = scheduler_types.find(name)
    assert issubclass(found, Scheduler)
    assert found.name == name
    assert found.title


@pytest.mark.parametrize("scheduler", EVERY.values(), ids=EVERY)
def test_the_rules_speak_of_names_that_profiles_have_and_say_what_to_do_instead(scheduler):
    assert all(scheduler.rules.refused.values())
    assert set(scheduler.rules.signs) | set(scheduler.rules.missing) <= set(names.KINDS)


@pytest.fixture
def installed(monkeypatch):
    """What other packages have named."""
    added = []
    monkeypatch.setattr(scheduler_types, "entry_points", lambda group: added)
    scheduler_types._entries.cache_clear()
    yield added
    scheduler_types._entries.cache_clear()


def test_another_package_adds_to_the_table_and_takes_no_place_of_ours(installed):
    installed += [
        EntryPoint("toy", "hpcspawner.schedulers.local:Local", scheduler_types.GROUP),
        EntryPoint("slurm", "hpcspawner.schedulers.local:Local", scheduler_types.GROUP),
    ]
    assert scheduler_types.known() == (*scheduler_types.BUILT_IN, "toy")
    assert scheduler_types.find("toy").name == "local"
    assert scheduler_types.find("slurm").name == "slurm"


def test_a_package_that_cant_be_loaded_says_why(installed):
    installed.append(EntryPoint("toy", "no_such_module:Toy", scheduler_types.GROUP))
    with pytest.raises(ValueError, match=r"package of 'toy' can't be loaded \(no_such_module:Toy\): .*no_such"):
        scheduler_types.find("toy")


def test_a_name_that_is_not_there_names_those_that_are(installed):
    with pytest.raises(
        ValueError, match="'pbs' is not an installed scheduler; the installed ones are: slurm, openpbs, "
    ):
        scheduler_types.find("pbs")
