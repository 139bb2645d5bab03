"""What a configuration for another batch spawner sets is not ignored without a word."""

import pytest
from batchspawner import BatchSpawnerBase
from traitlets.config import Config

from hpcspawner.hub.ignored_settings import ignored_settings


@pytest.mark.parametrize("section", ["Spawner", "BatchSpawnerBase", "HPCSpawner", "SlurmSpawner", "TorqueSpawner"])
@pytest.mark.parametrize(
    ("trait", "where"),
    [
        ("cmd", "interfaces[].command"),
        ("notebook_dir", "defaults.directory"),
        ("default_url", "interfaces[].url"),
        ("batch_script", "job.prologue"),
        ("req_partition", "partitions"),
        ("req_runtime", "max_walltime"),
        ("req_of_our_own", "the site's profile"),
        ("mem_limit", "max_memory"),
    ],
)
def test_a_setting_that_is_read_nowhere_is_named_with_where_it_went(section, trait, where):
    ((name, goes),) = ignored_settings(Config({section: {trait: "x"}}))
    assert name == f"{section}.{trait}"
    assert where in goes


@pytest.mark.parametrize("trait", [name for name in BatchSpawnerBase.class_trait_names(config=True) if "req_" in name])
def test_every_setting_of_the_parents_is_known(trait):
    assert [name for name, _ in ignored_settings(Config({"BatchSpawnerBase": {trait: "x"}}))] == [
        f"BatchSpawnerBase.{trait}"
    ]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"JupyterHub": {"spawner_class": "x", "cmd": "x"}},
        {"Spawner": {"start_timeout": 60, "environment": {}, "args": []}},
        {"HPCSpawner": {"site": "x", "callback_url": "x", "pre_spawn_hook": "x"}},
    ],
)
def test_what_is_read_is_not_named(config):
    assert list(ignored_settings(Config(config))) == []
