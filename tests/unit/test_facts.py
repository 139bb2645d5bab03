"""What is free: texts of real commands, read; each question failing alone; one query for all who look."""

import asyncio
import logging

import pytest
from support.jobs import a_cluster

from hpcspawner.errors import SchedulerUnreachable
from hpcspawner.schedulers import pbs_facts, slurm_facts
from hpcspawner.schedulers.facts import Board, Free, sum_up
from hpcspawner.schedulers.nodes import Node, NodeState, Queued

# --- Slurm: one line of `scontrol show node` each

LINE = (
    "NodeName={name} Arch=x86_64 CoresPerSocket=1  CPUAlloc={used} CPUEfctv=64 CPUTot=64 CPULoad=7.52 "
    "AvailableFeatures=skylake ActiveFeatures=skylake Gres={gres} GresDrain=N/A GresUsed={gres_used} "
    "NodeAddr=10.77.0.11 NodeHostName={name} Version=22.05.8 OS=Linux 6.1 #1 SMP @0  RealMemory=128000 "
    "AllocMem={memory} FreeMem=13216 Sockets=64 Boards=1 State={state} ThreadsPerCore=1 TmpDisk=0 Weight=1 "
    "Owner=N/A MCS_label=N/A Partitions={partitions}  BootTime=2026-11-26T19:03:24 "
    "CfgTRES=cpu=64,mem=125G,billing=64 AllocTRES= CapWatts=n/a Reason={reason}\n"
)


def line(**changes):
    usual = {
        "name": "n1",
        "used": 0,
        "gres": "(null)",
        "gres_used": "gpu:0",
        "memory": 0,
        "state": "IDLE",
        "partitions": "debug,compute",
        "reason": "",
    }
    return LINE.format(**(usual | changes))


def node(**changes):
    (found,) = slurm_facts.parse_nodes(line(**changes))
    return found


def test_a_node_of_slurm_s_in_two_partitions():
    assert node(used=16, memory=64000, state="MIXED") == Node(
        partitions=("debug", "compute"), state=NodeState.PARTLY, cores=64, idle_cores=48, idle_memory=64000
    )


@pytest.mark.parametrize(
    ("state", "used", "wanted"),
    [
        ("IDLE", 0, NodeState.FREE),
        ("MIXED", 3, NodeState.PARTLY),
        ("ALLOCATED", 64, NodeState.FULL),
        ("MIXED+PLANNED", 3, NodeState.PARTLY),
        ("IDLE+CLOUD+POWERED_DOWN", 0, NodeState.FREE),
        ("IDLE+DRAIN", 0, NodeState.DOWN),
        ("MIXED+DRAIN", 3, NodeState.DOWN),
        ("DOWN*+DRAIN", 0, NodeState.DOWN),
        ("IDLE*", 0, NodeState.DOWN),
        ("IDLE+MAINTENANCE+RESERVED", 0, NodeState.DOWN),
        ("IDLE+RESERVED", 0, NodeState.RESERVED),
        ("IDLE+NOT_RESPONDING", 0, NodeState.DOWN),
        ("FUTURE", 0, NodeState.DOWN),
        ("UNKNOWN", 0, NodeState.UNKNOWN),
        ("SOMETHING_NEW", 0, NodeState.UNKNOWN),
    ],
)
def test_the_states_of_slurm_s_nodes(state, used, wanted):
    assert node(state=state, used=used).state is wanted


@pytest.mark.parametrize(
    ("gres", "used", "gpus", "idle"),
    [
        pytest.param("(null)", "gpu:0,lscratch:0", {}, {}, id="none"),
        pytest.param("gpu:4", "gpu:1(IDX:0)", {"any": 4}, {"any": 3}, id="untyped"),
        pytest.param(
            "gpu:v100:4(S:0-1),lscratch:100",
            "gpu:v100:2(IDX:0-1),lscratch:0",
            {"v100": 4},
            {"v100": 2},
            id="typed with sockets",
        ),
        pytest.param(
            "gpu:a100:4(S:0),gpu:v100:2(S:1)",
            "gpu:a100:4(IDX:0-3),gpu:v100:0(IDX:N/A)",
            {"a100": 4, "v100": 2},
            {"a100": 0, "v100": 2},
            id="two types",
        ),
        pytest.param(
            "gpu:1g.5gb:7(S:0),gpu:a100_3g.20gb:2(S:0)",
            "gpu:1g.5gb:2(IDX:0,3),gpu:a100_3g.20gb:0(IDX:N/A)",
            {"1g.5gb": 7, "a100_3g.20gb": 2},
            {"1g.5gb": 5, "a100_3g.20gb": 2},
            id="MIG",
        ),
        pytest.param(
            "gpu:a100:4(S:0),shard:a100:16(S:0)",
            "gpu:a100:1(IDX:0),shard:a100:0(0/4)",
            {"a100": 4},
            {"a100": 3},
            id="shards",
        ),
        pytest.param("gpu:v100:4", "gpu:1", {"v100": 4}, {"v100": 3}, id="used without a type"),
        pytest.param("gpu:v100:4,gpu:a100:2", "gpu:1", {"v100": 4, "a100": 2}, {}, id="which of two is not said"),
    ],
)
def test_the_gpus_of_slurm_s_nodes(gres, used, gpus, idle):
    found = node(gres=gres, gres_used=used)
    assert (found.gpus, found.idle_gpus) == (gpus, idle)


def test_an_operator_s_remark_is_no_field():
    found = node(reason="State=IDLE CPUTot=1 Gres=gpu:9 [root@2026-11-26T10:00:00]", state="DOWN+DRAIN")
    assert (found.state, found.cores, found.gpus) == (NodeState.DOWN, 64, {})


@pytest.mark.parametrize("text", ["", "slurm_load_node error: Unable to contact slurm controller\n", "<html>"])
def test_what_describes_no_node_is_no_answer(text):
    with pytest.raises(ValueError, match="no node"):
        list(slurm_facts.parse_nodes(text))


def test_the_waiting_jobs_of_slurm_are_in_the_order_of_their_priorities():
    out = "12|debug|100\n13|debug,compute|300\n14_[0-9]|debug|200\n15|gpu shared|1\n"
    assert slurm_facts.parse_waiting(out) == {
        "debug": Queued(3, ("13", "14_[0-9]", "12")),
        "compute": Queued(1, ("13",)),
        "gpu shared": Queued(1, ("15",)),
    }
    assert slurm_facts.parse_waiting("") == {}
    with pytest.raises(ValueError, match="squeue"):
        slurm_facts.parse_waiting("squeue: error\n")


def test_which_partitions_start_jobs():
    assert slurm_facts.parse_open("debug|up\nold|drain\nx|inact\n") == {"debug": True, "old": False, "x": False}
    with pytest.raises(ValueError, match="sinfo"):
        slurm_facts.parse_open("")


# --- Torque and OpenPBS

TORQUE = (
    "<Data><Node><name>n1</name><state>free</state><np>64</np><properties>skylake</properties>"
    "<jobs>0-3/12.head,5/13.head</jobs><status>opsys=linux,jobs=</status></Node>"
    "<Node><name>n2</name><state>job-exclusive</state><np>4</np><jobs>0/1.head,1/1.head,2/1.head,3/1.head</jobs></Node>"
    "<Node><name>n3</name><state>down,offline</state><np>16</np><gpus>4</gpus></Node>"
    "<Node><name>n4</name><state>free</state><np>16</np><gpus>2</gpus>"
    "<gpu_status>gpu[1]=gpu_id=1;gpu_state=Exclusive,gpu[0]=gpu_id=0;gpu_state=Unallocated</gpu_status></Node></Data>"
)


def test_the_nodes_of_torque():
    n1, n2, n3, n4 = pbs_facts.torque_nodes(TORQUE)
    assert n1 == Node(partitions=None, state=NodeState.PARTLY, cores=64, idle_cores=59)
    assert (n2.state, n2.idle_cores) == (NodeState.FULL, 0)
    assert (n3.state, n3.gpus, n3.idle_gpus) == (NodeState.DOWN, {"any": 4}, {})
    assert (n4.gpus, n4.idle_gpus) == ({"any": 2}, {"any": 1})


@pytest.mark.parametrize("text", ["", "<Data></Data>", "<Data><Node>", "no xml", "<!DOCTYPE x><Data/>"])
def test_torque_s_answers_that_are_none(text):
    with pytest.raises(ValueError, match="pbsnodes"):
        list(pbs_facts.torque_nodes(text))


def test_the_queues_of_torque():
    out = (
        "Queue: debug\n    queue_type = Execution\n    state_count = Transit:0 Queued:3 Held:1 Waiting:0 Comp\n"
        "\tlete:0 \n\nQueue: batch\n    state_count = Transit:0 Queued:0 Held:0 Waiting:0 Running:9 Exiting:0 \n"
    )
    assert pbs_facts.torque_waiting(out) == {"debug": Queued(4), "batch": Queued(0)}


def test_the_nodes_of_openpbs():
    fields = [
        ["Name=n1", "state=free", "resources_available.ncpus=64", "resources_available.mem=128gb"],
        ["Name=n2", "state=job-busy", "resources_available.ncpus=8", "resources_assigned.ncpus=8", "queue=gpu"],
        ["Name=n3", "state=offline", "resources_available.ncpus=16", "resources_available.ngpus=4"],
    ]
    fields[0] += ["resources_assigned.ncpus=4", "resources_assigned.mem=1048576kb", "resources_available.ngpus=4"]
    fields[0] += ["resources_assigned.ngpus=3"]
    out = "".join("MARK".join(one) + "\n" for one in fields)
    n1, n2, n3 = pbs_facts.openpbs_nodes(out, "MARK")
    assert (n1.partitions, n1.state, n1.idle_cores, n1.idle_memory) == (None, NodeState.PARTLY, 60, 127 * 1024)
    assert (n1.gpus, n1.idle_gpus) == ({"any": 4}, {"any": 1})
    assert (n2.partitions, n2.state) == (("gpu",), NodeState.FULL)
    assert n3.state is NodeState.DOWN


def test_the_queues_of_openpbs():
    out = '{"Queue": {"workq": {"state_count": "Transit:0 Queued:2 Held:0 Waiting:1 Running:5 Begun:0 "}}}'
    assert pbs_facts.openpbs_waiting(out) == {"workq": Queued(3)}
    with pytest.raises(ValueError, match="qstat"):
        pbs_facts.openpbs_waiting("{}")


# --- sums


def test_nodes_are_summed_by_partition_and_what_takes_no_jobs_has_nothing_idle():
    text = line(used=16, gres="gpu:v100:4", gres_used="gpu:v100:1(IDX:0)", state="MIXED")
    text += line(name="n2", state="IDLE+DRAIN", partitions="compute", gres="gpu:v100:4", gres_used="gpu:v100:0")
    free = sum_up(slurm_facts.parse_nodes(text), ())
    assert free["debug"] == Free(
        nodes={NodeState.PARTLY: 1},
        cores=64,
        idle_cores=48,
        gpus={"v100": 4},
        idle_gpus={"v100": 3},
        widest_cores=48,
        widest_memory=128000,
    )
    assert free["compute"].nodes == {NodeState.PARTLY: 1, NodeState.DOWN: 1}
    assert free["compute"].idle_cores == 48


def test_nodes_without_partitions_count_for_all():
    free = sum_up(pbs_facts.torque_nodes(TORQUE), ("debug", "batch"))
    assert free["debug"] == free["batch"]
    assert free["debug"].whole_cluster
    assert free["debug"].idle_cores == 59 + 16
    assert free["debug"].idle_gpus == {"any": 1}


def test_of_some_gpus_whose_use_is_not_known_nothing_is_said():
    known = Node(("a",), NodeState.FREE, 1, 1, gpus={"any": 2}, idle_gpus={"any": 2})
    unknown = Node(("a",), NodeState.FREE, 1, 1, gpus={"any": 2})
    assert sum_up([known, unknown], ())["a"].idle_gpus == {}


# --- the board


class Asked:
    """Stands in for a Client: answers by the command's first words, and counts."""

    def __init__(self, answers):
        self.scheduler = a_cluster().client.scheduler
        self.log = logging.getLogger("test")
        self.answers = answers
        self.count = 0
        self.complaints = []

    async def parsed(self, _verb, command, parse):
        argv = command("0")
        self.count += 1
        await asyncio.sleep(0)
        answer = self.answers[argv[0]]
        if isinstance(answer, Exception):
            raise answer
        return await asyncio.to_thread(parse, answer, "0")

    def complain(self, about, words):
        self.complaints.append(words)


GOOD = {"scontrol": line(), "squeue": "12|debug|1\n", "sinfo": "debug|up\n"}


async def test_many_who_look_make_one_query_and_none_of_them_waits():
    client = Asked(GOOD)
    board = Board(client, ["debug"])
    assert [board.latest().free for _ in range(100)] == [None] * 100
    facts = await board.fresh()
    assert facts.free.value["debug"].idle_cores == 64
    assert facts.queued.value["debug"].count == 1
    assert facts.open.value == {"debug": True}
    assert board.latest() is facts
    assert client.count == 3


async def test_old_facts_are_shown_while_newer_ones_are_asked_for():
    clock, client = [0.0], Asked(GOOD)
    board = Board(client, ["debug"], lambda: clock[0])
    first = await board.fresh()
    clock[0] = 31.0
    assert board.latest() is first
    assert await board.fresh() is not first
    assert client.count == 6


@pytest.mark.parametrize(
    ("program", "failed", "lost"),
    [("scontrol", "nodes", "free"), ("squeue", "waiting jobs", "queued"), ("sinfo", "open partitions", "open")],
)
@pytest.mark.parametrize("answer", [SchedulerUnreachable("away"), RuntimeError("odd"), ""])
async def test_each_question_fails_alone_and_keeps_its_last_answer(program, failed, lost, answer):
    if program == "squeue" and answer == "":
        return  # no job waits
    clock, client = [0.0], Asked(dict(GOOD))
    if answer == "":
        answer = SchedulerUnreachable("can't be read")
    board = Board(client, ["debug"], lambda: clock[0])
    first = await board.fresh()
    client.answers[program] = answer
    clock[0] = 31.0
    board.latest()
    second = await board.fresh()
    assert second.failed == (failed,)
    assert getattr(second, lost) is getattr(first, lost)
    others = {"free", "queued", "open"} - {lost}
    assert all(getattr(second, other) is not getattr(first, other) for other in others)


async def test_ten_thousand_nodes_leave_the_loop_free():
    text = "".join(line(name=f"n{number}", partitions="a,b,c") for number in range(10_000))
    client = Asked({**GOOD, "scontrol": text})
    board = Board(client, ["a"])
    turns = 0
    board.latest()
    while board.latest().free is None:
        turns += 1
        await asyncio.sleep(0.001)
    assert board.latest().free.value["a"].nodes == {NodeState.FREE: 10_000}
    assert turns > 3
