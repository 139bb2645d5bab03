"""Two clusters behind one Hub: servers on both at once, one of them away for a while, one taken out."""

import re
import shutil
import tempfile
from pathlib import Path

import pytest
from cluster.conftest import NODES, jobs_of, queue_is_empty_within
from support.browser import a_page, log_in, unfold
from support.faults import within
from support.hub import EXAMPLES, Hub, example, server_path
from support.schedulers import HAS_TORQUE, PATHS

KIND = "torque" if HAS_TORQUE else "slurm"
# In front of the second cluster's commands: while the file is there, its scheduler does not answer.
COMMAND = """\
#!/bin/bash
if [ -e {folder}/away ]; then
    echo "{refusal}" >&2
    exit {code}
fi
exec {program} "$@"
"""
REFUSALS = {
    "torque": ("Unable to communicate with head(10.77.0.1): Connection refused", 111),
    "slurm": ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1),
}
PROGRAMS = {"torque": ("qsub", "qstat", "qdel", "qmgr"), "slurm": ("sbatch", "squeue", "scancel", "sacct", "scontrol")}
WHERE = "import socket; print(socket.gethostname())"


@pytest.fixture(scope="module")
def commands():
    """A folder that users reach, as pytest's own is not."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="commands-"))
    folder.chmod(0o755)
    refusal, code = REFUSALS[KIND]
    for name in PROGRAMS[KIND]:
        program = f"{PATHS[KIND][0]}/{name}" if KIND == "torque" else f"/usr/bin/{name}"
        (folder / name).write_text(COMMAND.format(folder=folder, refusal=refusal, code=code, program=program))
        (folder / name).chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def hub(commands, lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("several")
    config = example("several-clusters", folder, {})
    for name, kind in (("comet", "slurm"), ("tscc", KIND)):
        text = (EXAMPLES / "several-clusters" / f"{name}.toml").read_text(encoding="utf-8")
        path = PATHS["slurm"] if name == "comet" else [str(commands), *PATHS[KIND]]
        text = text.replace("/opt/jupyter/bin", f"{lab}/env/bin")
        text = text.replace(f'type = "{"slurm" if name == "comet" else "torque"}"', f'type = "{kind}"\npath = {path}')
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice", "bob")) as running:
        yield running
        (commands / "away").unlink(missing_ok=True)
        running.stop_servers()
    queue_is_empty_within(60, "alice")
    queue_is_empty_within(60, "bob")


def options(cluster, **more):
    return {"cluster": cluster, "partition": "debug", "walltime": "10m", **more}


def test_a_cluster_that_there_is_not_is_refused_with_those_that_there_are(hub):
    answer = hub.api("POST", server_path("bob"), json={"cluster": "stratus"})
    assert answer.status_code == 400
    assert "'stratus' is not a cluster of this Hub. Choose one of: comet, tscc." in answer.text
    assert not jobs_of("bob")


def test_the_form_begins_with_the_cluster_and_shows_what_that_one_offers(hub):
    session = hub.log_in("bob")
    first = session.get(f"{hub.url}/hub/spawn/bob", timeout=30).text
    assert 'name="cluster" value="comet"' in first
    assert "gpu-shared" in first
    second = session.get(f"{hub.url}/hub/spawn/bob?cluster=tscc", timeout=30).text
    assert 'name="cluster" value="tscc"' in second
    assert "gpu-shared" not in second
    assert "Queue" in second


def test_home_shows_servers_on_both_and_a_preset_is_of_one(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        hub.spawn("alice", options("comet"))
        hub.spawn("alice", options("tscc"), name="b")
        page.goto(f"{hub.url}/hub/home")
        for key, title in (("alice/", "comet"), ("alice/b", "tscc")):
            row = page.locator(f'tr[data-hpc-key="{key}"]')
            assert row.locator('[data-hpc-cell="state"]').inner_text() == "running"
            assert title in row.locator('[data-hpc-cell="cluster"]').inner_text().lower()
            assert row.locator('[data-hpc-cell="node"]').inner_text() in NODES
        for key in ("alice/b", "alice/"):
            page.locator(f'tr[data-hpc-key="{key}"] [data-hpc-end]').click()
            page.wait_for_url(re.compile("/hub/home"))
            page.locator(f'tr[data-hpc-key="{key}"]').wait_for(state="detached")
        queue_is_empty_within(60, "alice")
        page.goto(f"{hub.url}/hub/spawn?cluster=tscc")
        unfold(page)
        page.click("#hpc-save > summary")
        page.fill("#hpc-preset-name", "there")
        page.click("#hpc-save-preset")
        page.wait_for_url(re.compile("saved=there"))
        for cluster, count in (("tscc", 1), ("comet", 0)):
            page.goto(f"{hub.url}/hub/spawn?cluster={cluster}")
            assert page.locator("[data-hpc-own-card]").count() == count
        assert page.complaints == []


async def test_servers_of_one_user_run_on_two_clusters_while_one_is_away_and_when_it_is_taken_out(hub, commands):
    hub.spawn("alice", options("comet"))
    hub.spawn("alice", options("tscc"), name="b")
    assert await hub.run("alice", WHERE) in NODES
    assert await hub.run("alice", WHERE, name="b") in NODES
    before = jobs_of("alice")
    assert len(before) == 2

    (commands / "away").touch()
    # The other cluster starts and stops servers as ever.
    hub.spawn("bob", options("comet"))
    hub.stop_server("bob")
    assert await hub.run("alice", WHERE, name="b") in NODES
    answer = hub.api("POST", server_path("bob", "c"), json=options("tscc"))
    assert answer.status_code in (201, 202), answer.text
    said = next(event["message"] for event in hub.events("bob", "c") if "is not answering" in event["message"])
    assert said.startswith("The scheduler is not answering at the moment.")
    (commands / "away").unlink()
    hub.wait_ready("bob", "c")
    assert await hub.run("bob", WHERE, name="c") in NODES
    hub.stop_server("bob", "c")
    assert jobs_of("alice") == before

    # Taken out of the configuration, it keeps its servers to their end.
    config = hub.folder / "jupyterhub_config.py"
    config.write_text(config.read_text().replace('[here / "comet.toml", here / "tscc.toml"]', 'here / "comet.toml"'))
    hub.terminate()
    hub.start()
    within(60, lambda: all(hub.servers("alice").get(name, {}).get("ready") for name in ("", "b")), hub.log)
    assert (
        "cluster tscc is not configured now. No new server starts there; these jobs go on until they end:" in hub.log()
    )
    assert await hub.run("alice", WHERE, name="b") in NODES
    answer = hub.api("POST", server_path("bob"), json=options("tscc"))
    assert answer.status_code == 400, answer.text
    hub.stop_server("alice", "b")
    hub.stop_server("alice")
    queue_is_empty_within(60, "alice")
