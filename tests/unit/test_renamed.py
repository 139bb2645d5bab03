"""A name that has changed works with a warning, and what it became is there."""

import logging
import warnings

import pytest
from material import FULL
from traitlets import TraitType
from traitlets.config import Config

from hpcspawner import HPCSpawner
from hpcspawner.hub import traits
from hpcspawner.site import renamed
from hpcspawner.site.profile import parse
from hpcspawner.site.renamed import SETTINGS, Renamed, with_new_keys

KEY = {"limits.wait": Renamed("limits.queue", "0.2")}


@pytest.mark.parametrize("old", SETTINGS)
def test_an_old_setting_is_a_trait_and_so_is_the_new_one(old):
    for name in (old, SETTINGS[old].new):
        assert isinstance(getattr(HPCSpawner, name), TraitType)
        assert HPCSpawner.class_traits(config=True)[name]


def test_an_old_setting_works_and_is_told_of_once(monkeypatch, caplog):
    monkeypatch.setattr(traits, "_told", set())
    logger = logging.getLogger("renamed")
    for _ in range(2):
        spawner = HPCSpawner(config=Config({"HPCSpawner": {"site": "/etc/site.toml"}}), log=logger, _mock=True)
        assert spawner.sites == ["/etc/site.toml"]
    assert caplog.text.count("HPCSpawner.site is called sites since hpcspawner 0.1.0; write the new name") == 1


def test_a_list_under_the_old_name_stays_one(monkeypatch):
    monkeypatch.setattr(traits, "_told", set())
    spawner = HPCSpawner(config=Config({"HPCSpawner": {"site": ["a", "b"]}}), _mock=True)
    assert spawner.sites == ["a", "b"]


def test_an_old_key_of_a_profile_works_with_a_warning(monkeypatch):
    monkeypatch.setattr(renamed, "KEYS", KEY)
    with pytest.warns(FutureWarning, match="limits.wait is called limits.queue since hpcspawner 0.2"):
        profile = parse(FULL | {"limits": {"wait": "3h"}}, "site.toml")
    assert str(profile.limits.queue) == "3h"


def test_a_key_may_move_to_another_table():
    keys = {"wait": Renamed("limits.queue", "0.2")}
    with pytest.warns(FutureWarning):
        assert with_new_keys({"wait": "3h"}, keys) == {"limits": {"queue": "3h"}}


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({}, id="no table"),
        pytest.param({"limits": {"queue": "1h"}}, id="new alone"),
        pytest.param({"limits": {"queue": "1h", "wait": "3h"}}, id="both, to be refused"),
        pytest.param({"limits": "x"}, id="no table at all"),
    ],
)
def test_other_keys_are_left_alone(data):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_new_keys(dict(data), KEY) == data
