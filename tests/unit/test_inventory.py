"""What a cluster has, read from recorded answers of the real schedulers."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcspawner.errors import SchedulerUnreachable
from hpcspawner.schedulers import survey
from hpcspawner.schedulers.inventory import PartitionLimits
from hpcspawner.schedulers.pbs_inventory import OpenPBSInventory, TorqueInventory
from hpcspawner.schedulers.slurm_facts import gpus_of
from hpcspawner.schedulers.slurm_inventory import SlurmInventory
from hpcspawner.units import Memory, Walltime

WORDS = [
    "queue_type",
    "resources_max",
    "walltime",
    "mem",
    "ncpus",
    "ngpus",
    "enabled",
    "state",
    "resources_available",
    "q",
]
RECORDED = Path(__file__).parents[1] / "recorded"
NOTHING = {"nodes": "", "rules": "", "accounts": "", "qos": ""}


def text(name):
    return (RECORDED / name).read_text()


def test_slurms_partitions_nodes_and_accounts_are_read():
    outs = {
        "partitions": text("slurm-22.05/sinfo.txt"),
        "nodes": "n1\nn1\nn2\nn3\n",
        "rules": text("slurm-22.05/partitions.txt").replace("AllowAccounts=ALL", "AllowAccounts=a,b", 1),
        "accounts": "ddp363\nroot\ntro100\n",
        "qos": "normal\n",
    }
    found = SlurmInventory().parse(outs)
    assert [one.name for one in found.partitions] == ["debug", "compute", "gpu-shared"]
    assert [one.is_default for one in found.partitions] == [False, True, False]
    gpu = found.partition("gpu-shared")
    assert (gpu.max_walltime, gpu.cpus, gpu.memory, gpu.gpus) == (Walltime(86400), 16, Memory(32000), {"v100": 4})
    assert found.partition("debug").accounts == ("a", "b")
    assert (found.nodes, found.accounts, found.qos) == (("n1", "n2", "n3"), ("ddp363", "root", "tro100"), ("normal",))
    assert found.features == {"skylake", "volta"}


def test_rows_of_one_partition_are_one_with_the_most_of_each():
    rows = "p|up|1:00:00|1-4|16|1000|gpu:a:2|x\np|down|1:00:00|1-4|64+|500+|gpu:b:1,gpu:a:4|y,x\n"
    (one,) = SlurmInventory().parse(NOTHING | {"partitions": rows}).partitions
    assert one == PartitionLimits(
        "p", False, True, Walltime(3600), 4, 64, Memory(1000), {"a": 4, "b": 1}, features=("x", "y")
    )


def test_what_slurm_does_not_say_is_not_known():
    (one,) = (
        SlurmInventory().parse(NOTHING | {"partitions": "p*|up|infinite|1-infinite|1|1|(null)|(null)\n"}).partitions
    )
    assert one == PartitionLimits("p", True, True, None, None, 1, None, {})
    assert SlurmInventory().parse(NOTHING | {"partitions": "p|up|1|1|1|1|(null)|(null)\n"}).accounts is None


@pytest.mark.parametrize("out", ["", "hello\n", "a|b\n"])
def test_what_is_not_sinfos_is_an_error(out):
    with pytest.raises(ValueError, match="sinfo"):
        SlurmInventory().parse(NOTHING | {"partitions": out})


@pytest.mark.parametrize(
    ("gres", "gpus"),
    [
        ("(null)", {}),
        ("gpu:4", {"any": 4}),
        ("gpu:v100:4(S:0-1)", {"v100": 4}),
        ("gpu:a100:2(S:0,2),lscratch:100", {"a100": 2}),
        ("gpu:1g.5gb:7,gpu:a100_3g.20gb:2", {"1g.5gb": 7, "a100_3g.20gb": 2}),
        ("gpu:v100:4(IDX:0-3),gpu:v100:4", {"v100": 8}),
        ("shard:8,lscratch:1", {}),
        ("gpu:0", {}),
        ("gpu:v100:no_consume:4", {}),
    ],
)
def test_gpus_are_read_by_type(gres, gpus):
    assert gpus_of(gres) == gpus


def test_the_controllers_clock_is_read():
    assert SlurmInventory().parse_clock(text("slurm-22.05/sdiag.txt")) > 1_600_000_000
    with pytest.raises(ValueError, match="does not tell"):
        SlurmInventory().parse_clock("hello")


def test_torques_queues_and_nodes_are_read():
    outs = {"queues": text("torque-6.1.3/qstat-Q-f.txt"), "nodes": text("torque-6.1.3/pbsnodes-x.xml")}
    found = TorqueInventory().parse(outs)
    assert [one.name for one in found.partitions] == ["debug", "compute", "gpu-shared"]
    debug = found.partition("debug")
    assert (debug.max_walltime, debug.cpus, debug.gpus, debug.is_up) == (Walltime(1800), 64, {"any": 4}, True)
    assert debug.memory.mib > 1000
    assert found.nodes == ("n1", "n2", "n3")


def test_openpbss_queues_and_nodes_are_read():
    found = OpenPBSInventory().parse(
        {"queues": text("openpbs-23.06/queues.json"), "nodes": text("openpbs-23.06/nodes.json")}
    )
    assert [one.name for one in found.partitions] == ["workq", "debug", "compute", "gpu-shared"]
    assert found.partition("workq").max_walltime is None
    compute = found.partition("compute")
    assert (compute.max_walltime, compute.cpus, compute.memory) == (Walltime(48 * 3600), 64, Memory(128 * 1024))


def test_queues_that_run_nothing_are_none_and_their_limits_count():
    queues = (
        "Queue: route\n    queue_type = Route\n\nQueue: q\n    queue_type = Execution\n    resources_max.mem = 4gb\n"
        "    resources_max.ncpus = 2\n    resources_max.nodect = 3\n    enabled = True\n    started = False\n"
    )
    (one,) = TorqueInventory().parse({"queues": queues, "nodes": "<Data/>"}).partitions
    assert one == PartitionLimits("q", is_up=False, max_nodes=3, cpus=2, memory=Memory(4096))


@pytest.mark.parametrize("reader", [TorqueInventory(), OpenPBSInventory()], ids=["torque", "openpbs"])
@pytest.mark.parametrize("outs", [("", ""), ("hello", "hello"), ("{}", "{}"), ("Queue: q", "<Data")])
def test_what_is_not_pbss_is_an_error(reader, outs):
    with pytest.raises(ValueError):  # noqa: PT011 - the parsers' own words differ
        reader.parse(dict(zip(("queues", "nodes"), outs, strict=True)))


SHAPES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


@given(queues=SHAPES, nodes=SHAPES)
def test_json_of_any_shape_is_read_or_refused(queues, nodes):
    outs = {"queues": json.dumps({"Queue": queues}), "nodes": json.dumps({"nodes": nodes})}
    with contextlib.suppress(SchedulerUnreachable):
        assert survey.read(OpenPBSInventory(), outs).partitions


@given(
    st.lists(st.sampled_from([*"|*\n:-(),+", "gpu", "p", "up", "1", "99999999999", "infinite"]), max_size=40).map(
        "".join
    )
)
def test_words_of_any_kind_are_read_or_refused(out):
    for reader, outs in (
        (SlurmInventory(), dict.fromkeys(NOTHING, out) | {"partitions": out}),
        (TorqueInventory(), {"queues": out, "nodes": f"<Data><Node><np>{out.replace('&', '')}</np></Node></Data>"}),
    ):
        with contextlib.suppress(SchedulerUnreachable):
            assert survey.read(reader, outs).partitions
