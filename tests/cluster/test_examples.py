"""The examples for clusters, started as they stand; only the folders of programs are this cluster's own."""

import pytest
from cluster.conftest import NODES, made, queue_is_empty_within
from support.hub import Hub, example
from support.schedulers import PATHS, SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
async def test_the_example_serves_a_kernel_on_a_compute_node(name, lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"example-{name}")
    changes = {"/opt/jupyter/bin": f"{lab}/env/bin", f'type = "{name}"': f'type = "{name}"\npath = {PATHS[name]}'}
    config = example(name, folder, changes)
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {"partition": "debug"})
        host = await hub.run("alice", "import socket; print(socket.gethostname())")
        # Slurm's partition has one node.
        assert host == "n1" if name == "slurm" else host in NODES
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_the_example_with_containers_serves_a_kernel_in_an_image(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("example-containers")
    changes = {
        "/opt/apptainer/bin": f"{lab}/apptainer/bin",
        "/opt/jupyter-proxy": f"{lab}/env-proxy",
        "/shared/images/lab": f"{lab}/images/lab",
    }
    config = example("containers", folder, changes)
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {})
        assert await hub.run("alice", "import os; print(os.environ['IMAGE_SAYS'])") == "hello"
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_the_example_with_other_programs_serves_a_page_of_marimo(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("example-other-programs")
    changes = {
        "/opt/jupyter-proxy": f"{lab}/env-proxy",
        "/opt/jupyter/bin": f"{lab}/env/bin",
        "/opt/programs/bin": f"{lab}/env-programs/bin",
        "/opt/ttyd/bin": f"{lab}/ttyd/bin",
    }
    config = example("other-programs", folder, changes)
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {"environment": "programs", "interface": "marimo"})
        page = hub.log_in("alice").get(f"{hub.url}/user/alice/", timeout=60)
        assert "marimo-server-token" in page.text


ENVIRONMENTS = {
    "parallel": ({"/opt/parallel/bin": "{lab}/env-parallel/bin"}, "env-parallel"),
    "conda": ({"/shared/envs/jupyter": "{lab}/env"}, "env"),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
async def test_the_example_of_an_environment_serves_a_kernel_of_it(name, lab, tmp_path_factory):
    changes, prefix = ENVIRONMENTS[name]
    folder = tmp_path_factory.mktemp(f"example-{name}")
    config = example(name, folder, {old: new.format(lab=lab) for old, new in changes.items()})
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {})
        assert await hub.run("alice", "import sys; print(sys.prefix)") == made(lab, prefix)
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
