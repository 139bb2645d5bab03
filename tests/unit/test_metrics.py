"""What /hub/metrics says, and that the dashboard, the alerts and the page about them ask for nothing else."""

import itertools
import json
import re
import time
from functools import partial
from pathlib import Path

import prometheus_client
import pytest
from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from support.jobs import a_cluster, a_job, clusters_of

from hpcspawner.hub import metrics
from hpcspawner.jobs.events import Moved, Reaped, Refusal, Stage
from hpcspawner.jobs.job import now
from hpcspawner.jobs.record import End
from hpcspawner.schedulers.commands import Listing
from hpcspawner.schedulers.state import Cause

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples/grafana"
OURS = [one for one in vars(metrics).values() if isinstance(one, Counter | Gauge | Histogram)]


def read(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Since:
    """How much a number has grown."""

    def __init__(self, name, **labels):
        self._name, self._labels = name, labels
        self._before = read(name, **labels)

    @property
    def grown(self):
        return read(self._name, **self._labels) - self._before


def moved(job, before, after):
    metrics.write(Moved(job, before, after))


def test_a_start_is_measured_by_its_phases():
    phase = partial(Since, "hpcspawner_start_phase_seconds_sum", cluster="cluster")
    counted = partial(Since, "hpcspawner_start_phase_seconds_count", cluster="cluster")
    seen = {
        "queue": Since("hpcspawner_queue_wait_seconds_sum", cluster="cluster", partition="debug"),
        **{name: phase(phase=name) for name in ("gate", "key", "ticket", "prepare", "server")},
        **{name: counted(phase=name) for name in ("submit", "report", "answer")},
        "ready": Since("hpcspawner_jobs", cluster="cluster", stage="ready"),
        "queued": Since("hpcspawner_jobs", cluster="cluster", stage="queued"),
        "taken up": Since("hpcspawner_taken_up_total", cluster="cluster"),
    }
    began = time.time()
    times = {"asked_at": began, "submitted_at": began, "started_at": began + 90}
    job = a_job(choices={"partition": "debug"}, **times)
    job.begun_at, job.handed_out_at = began - 2, now() - 8
    job.phases = {"key": 1.0, "ticket": 3.0, "prepare": 4.0, "server": 5.0}
    steps = [Stage.INTENT, Stage.QUEUED, Stage.RUNNING, Stage.LISTENING, Stage.READY]
    # The report would have taken less than nothing, as after a clock was set back: it is not measured.
    for before, after in itertools.pairwise(steps):
        moved(job, before, after)
    expected = {
        **{"queue": 90.0, "gate": 2.0, "submit": 1, "report": 0, "answer": 1},
        **job.phases,
        **{"ready": 1, "queued": 0, "taken up": 0},
    }
    assert {name: one.grown for name, one in seen.items()} == pytest.approx(expected)
    moved(job, Stage.READY, Stage.LISTENING)
    job.adopted = True
    moved(job, Stage.LISTENING, Stage.READY)
    assert seen["taken up"].grown == 1
    assert seen["answer"].grown == 1
    assert job.tag not in metrics._listening_since


def test_an_end_is_counted_by_its_cause():
    ended = Since("hpcspawner_job_ends_total", cluster="cluster", cause="wall-time")
    running = Since("hpcspawner_jobs", cluster="cluster", stage="running")
    moved(a_job(), Stage.QUEUED, Stage.RUNNING)
    moved(a_job(end=End(Cause.WALL_TIME, "x", 1.0)), Stage.RUNNING, Stage.ENDED)
    assert (ended.grown, running.grown) == (1, 0)


def test_a_partition_that_the_profile_has_not_is_no_label():
    job = a_job(choices={"partition": "x" * 50}, submitted_at=1.0, started_at=2.0)
    seen = Since("hpcspawner_queue_wait_seconds_count", cluster="cluster", partition="other")
    moved(job, Stage.QUEUED, Stage.RUNNING)
    assert seen.grown == 1


def test_refusals_and_reaped_jobs_are_counted():
    refused, reaped = (
        Since("hpcspawner_refusals_total", what="options"),
        Since("hpcspawner_reaped_total", cluster="c", outcome="failed"),
    )
    metrics.write(Refusal("options", "x", username="alice"))
    metrics.write(Reaped("c", "failed"))
    assert (refused.grown, reaped.grown) == (1, 1)


async def test_a_ledger_is_counted_and_its_clusters_are_watched(kept, clusters):
    metrics.install(kept)
    cluster = clusters[0].default
    assert read("hpcspawner_queue_jobs", cluster=cluster.name) == 0
    assert read("hpcspawner_cluster_up", cluster=cluster.name) == 1
    cluster.queue._newest = Listing(now() - 100, {"1": None, "2": None})
    assert read("hpcspawner_queue_jobs", cluster=cluster.name) == 2
    assert read("hpcspawner_listing_age_seconds", cluster=cluster.name) >= 100
    cluster.queue.error = OSError()
    assert read("hpcspawner_cluster_up", cluster=cluster.name) == 0


@pytest.mark.parametrize(
    ("argv", "program"),
    [
        (["/usr/bin/squeue", "--all"], "squeue"),
        (["/usr/bin/timeout", "5", "/usr/bin/sudo", "-n", "-u", "sbatch2", "/usr/bin/sbatch", "--x"], "sbatch"),
        (["/usr/bin/sudo", "-n", "-u", "alice", "/usr/bin/scancel", "1"], "scancel"),
        (["/usr/bin/scontrol", "show", "config"], "scontrol"),
        (["/usr/bin/sacct"], "sacct"),
    ],
)
def test_a_command_is_called_by_its_program(argv, program):
    assert a_cluster().client._program(argv) == program


async def test_commands_are_measured_with_their_outcomes(tmp_path):
    cluster = a_cluster()
    cluster.client.observe = metrics.command_observer("measured")
    for outcome, code in (("ok", "exit 0"), ("failed", "exit 3")):
        program = tmp_path / "squeue"
        program.write_text(f"#!/bin/sh\n{code}\n")
        program.chmod(0o755)
        seen = Since(
            "hpcspawner_scheduler_command_seconds_count", cluster="measured", command="squeue", outcome=outcome
        )
        access = cluster.client.access.model_copy(update={"path": (str(tmp_path),)})
        cluster.client.access = access
        await cluster.client.answer(["squeue"])
        assert seen.grown == 1
    assert clusters_of(cluster).default is cluster


# --- who asks for them


def known():
    """Every name that Prometheus keeps of ours, and its labels."""
    for one in OURS:
        labels = set(one._labelnames)
        name = one._name
        if isinstance(one, Counter):
            yield f"{name}_total", labels
        elif isinstance(one, Histogram):
            yield f"{name}_bucket", labels | {"le"}
            yield f"{name}_count", labels
            yield f"{name}_sum", labels
        else:
            yield name, labels


KNOWN = dict(known())


def queries():
    for panel in json.loads((EXAMPLES / "dashboard.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], target["legendFormat"], id=panel["title"])
    for match in re.finditer(r"alert: (\w+)\n\s+expr: (.+)", (EXAMPLES / "alerts.yaml").read_text()):
        yield pytest.param(match[2], "", id=match[1])


@pytest.mark.parametrize(("query", "legend"), list(queries()))
def test_a_query_asks_for_what_there_is(query, legend):
    names = re.findall(r"hpcspawner_\w+", query)
    assert names
    for name in names:
        assert name in KNOWN
        grouped = [label for part in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", part)]
        chosen = re.findall(r"(\w+)(?:=~|!=|=)\"", query)
        assert set(grouped) | set(chosen) <= KNOWN[name]
    shown = set(re.findall(r"{{(\w+)}}", legend))
    grouped = set(re.split(r",\s*", re.search(r"by \(([^)]*)\)", query)[1])) if " by (" in query else KNOWN[names[0]]
    assert shown <= grouped
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_a_metric_has_its_help_and_few_labels(name):
    assert KNOWN[name] <= {"cluster", "partition", "phase", "stage", "cause", "outcome", "what", "command", "le"}


def test_every_cause_that_an_alert_names_is_one():
    text = (EXAMPLES / "alerts.yaml").read_text()
    for words in re.findall(r'cause=~"([^"]*)"', text):
        assert set(words.split("|")) <= {one.value for one in Cause}


def test_they_are_in_what_the_hub_prints():
    text = prometheus_client.generate_latest(REGISTRY).decode()
    for one in OURS:
        assert f"# HELP {one._name}" in text


def test_the_page_has_every_metric_with_its_labels():
    page = (ROOT / "docs/reference/metrics.md").read_text()
    rows = {row.split(" | ")[0].strip("| `"): row.split(" | ")[2] for row in page.splitlines() if row.startswith("| `")}
    assert rows == {one._name: ", ".join(one._labelnames) for one in OURS}
