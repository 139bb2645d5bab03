"""Hubs with batchspawner and wrapspawner run on the real cluster; `init --from` converts them, the same job starts."""

from pathlib import Path

import pytest
from cluster.conftest import jobs_of, queue_is_empty_within, shown
from support.commands import hpcspawner
from support.hub import EXAMPLES, Hub

# What an example asks for, and what of the job's record has to stay as it was.
CASES = {
    "batchspawner": (None, {"Partition": "debug", "TimeLimit": "00:20:00", "Account": "tro100", "Features": "skylake"}),
    "wrapspawner": (
        {"profile": "compute"},
        {"Partition": "compute", "TimeLimit": "00:20:00", "Account": "tro100", "NumCPUs": "2"},
    ),
}
RUNNING = "import os; print(os.environ['USER'], os.environ['SLURM_JOB_PARTITION'], os.environ.get('FROM_BEFORE'))"


def old_config(name, lab):
    """The example's configuration with this cluster's folder, as it runs in the environment of the old Hub."""
    text = (EXAMPLES / f"from-{name}" / f"{name}_config.py").read_text()
    assert "/opt/jupyter/bin" in text
    return text.replace("/opt/jupyter/bin", f"{lab}/env-batchspawner/bin")


async def started(hub, options):
    """What alice's server prints of its job, and the job's record."""
    hub.spawn("alice", options)
    printed = await hub.run("alice", RUNNING)
    (job_id,) = jobs_of("alice")
    record = shown(job_id)
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
    return printed, record


@pytest.mark.parametrize("name", CASES)
async def test_a_hub_that_runs_is_converted_and_the_same_users_job_starts(name, lab, tmp_path_factory):
    options, same = CASES[name]
    folder = tmp_path_factory.mktemp(f"from-{name}")
    old = Hub(folder, None, host="10.77.0.1", config=old_config(name, lab), users=("alice",))
    old.programs = Path(lab, "env-batchspawner/bin")
    with old:
        before, record = await started(old, options)
    assert {key: record[key] for key in same} == same
    code, text, said = hpcspawner("init", f"--from={folder}/jupyterhub_config.py")
    assert code == 0, said
    assert "# ? not carried over: start_timeout" in text
    site = folder / "site.toml"
    site.write_text(text)
    # The same folder: the Hub's database, with its users, stays.
    with Hub(folder, site, host="10.77.0.1") as hub:
        assert [user["name"] for user in hub.api("GET", "/users").json()] == ["alice"]
        after, record = await started(hub, {})
    assert {key: record[key] for key in same} == same
    assert after == before
