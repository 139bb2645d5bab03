"""The examples for clusters, started as they stand; only the folder with Jupyter is this cluster's own."""

import pytest
from cluster.conftest import queue_is_empty_within
from support.hub import Hub, example


@pytest.mark.parametrize("name", ["slurm", "torque"])
async def test_the_example_serves_a_kernel_on_a_compute_node(name, lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"example-{name}")
    config = example(name, folder, {"/opt/jupyter/bin": f"{lab}/env/bin"})
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {"partition": "debug"})
        assert await hub.run("alice", "import socket; print(socket.gethostname())") == "n1"
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
