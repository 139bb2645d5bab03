"""The example for one machine, started as it stands."""

import os

import pytest
from support.hub import Hub, example

pytestmark = pytest.mark.both_hubs

# Jupyter refuses root, as whom the tests may run.
AS_ROOT = 'c.Spawner.args = ["--allow-root"]' if os.geteuid() == 0 else ""


async def test_the_example_for_one_machine_serves_a_kernel(tmp_path, jupyter_folder):
    config = example("local", tmp_path)
    extra = f"c.HPCSpawner.fallback_path = [{str(jupyter_folder)!r}]\n{AS_ROOT}"
    with Hub(tmp_path, None, config=config, extra=extra, users=("alice",)) as hub:
        hub.spawn("alice", {"walltime": "10m", "directory": str(tmp_path)})
        assert await hub.run("alice", "import os; print(os.getcwd())") == str(tmp_path)
