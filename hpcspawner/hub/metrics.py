"""What /hub/metrics says of jobs, clusters and commands. No label holds the name of a user, a node or a job.

A listener of the events (`jobs/events.py`) counts what happens; what is, is read when somebody asks.
"""

import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from hpcspawner.jobs.events import Event, Moved, Reaped, Refusal, Stage
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.ledger import Ledger
from hpcspawner.schedulers.cluster import Cluster

_WAITS_S = (1, 5, 15, 60, 300, 900, 1800, 3600, 3 * 3600, 12 * 3600, 24 * 3600, 3 * 24 * 3600)
_PHASES_S = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
_COMMANDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60)

QUEUE_WAIT = Histogram(
    "hpcspawner_queue_wait_seconds",
    "Seconds from a job's submit to the first word of its launcher",
    ["cluster", "partition"],
    buckets=_WAITS_S,
)
START_PHASE = Histogram(
    "hpcspawner_start_phase_seconds",
    "Seconds of a start beside its time in the queue, by phase",
    ["cluster", "phase"],
    buckets=_PHASES_S,
)
JOBS = Gauge("hpcspawner_jobs", "Jobs of this Hub that have not ended, by stage", ["cluster", "stage"])
JOB_ENDS = Counter("hpcspawner_job_ends", "Jobs that have ended, by cause", ["cluster", "cause"])
TAKEN_UP = Counter("hpcspawner_taken_up", "Servers that a new start of the Hub has found and taken up", ["cluster"])
REAPED = Counter(
    "hpcspawner_reaped",
    "Jobs that no server needs: cancelled, failed to cancel, spared in a dry run",
    ["cluster", "outcome"],
)
REFUSALS = Counter("hpcspawner_refusals", "Refused options, tickets and reports", ["what"])
COMMAND = Histogram(
    "hpcspawner_scheduler_command_seconds",
    "Seconds of a command of the scheduler, by program and outcome (ok, failed, timeout, not-started)",
    ["cluster", "command", "outcome"],
    buckets=_COMMANDS_S,
)
LISTED = Gauge("hpcspawner_queue_jobs", "Jobs of all users in the newest listing of the scheduler's queue", ["cluster"])
LISTING_AGE = Gauge(
    "hpcspawner_listing_age_seconds", "Age of the newest successful listing; it grows while nobody waits", ["cluster"]
)
WAITING = Gauge(
    "hpcspawner_queue_waiting_jobs", "Jobs of all users that wait, in the newest listing of the queue", ["cluster"]
)
FACTS_AGE = Gauge(
    "hpcspawner_facts_age_seconds",
    "Age of what is known of nodes and partitions; it grows while nobody looks",
    ["cluster"],
)
UP = Gauge("hpcspawner_cluster_up", "1 where the last listing of the queue succeeded, 0 where it failed", ["cluster"])

_listening_since: dict[str, float] = {}


def install(ledger: Ledger) -> None:
    """Count the jobs that a ledger was opened with, and watch its clusters."""
    JOBS.clear()
    for job in ledger.live():
        JOBS.labels(job.cluster.name, job.stage.value).inc()
    for cluster in ledger.clusters:
        _watch(cluster)


def _watch(cluster: Cluster) -> None:
    queue = cluster.queue
    LISTED.labels(cluster.name).set_function(lambda: float(queue.size))
    LISTING_AGE.labels(cluster.name).set_function(lambda: queue.age_s)
    WAITING.labels(cluster.name).set_function(lambda: float(queue.waiting))
    FACTS_AGE.labels(cluster.name).set_function(lambda: cluster.board.age_s)
    UP.labels(cluster.name).set_function(lambda: float(queue.error is None))
    cluster.client.observe = command_observer(cluster.name)


def command_observer(cluster: str) -> Callable[[str, str, float], None]:
    """What a client calls after each command."""

    def observe(command: str, outcome: str, seconds: float) -> None:
        COMMAND.labels(cluster, command, outcome).observe(seconds)

    return observe


def write(event: Event) -> None:
    """Count one event."""
    if isinstance(event, Moved):
        _moved(event)
    elif isinstance(event, Reaped):
        REAPED.labels(event.cluster, event.outcome).inc()
    elif isinstance(event, Refusal):
        REFUSALS.labels(event.what).inc()


def _moved(event: Moved) -> None:
    job, cluster = event.job, event.job.cluster.name
    if event.before is not Stage.INTENT:
        JOBS.labels(cluster, event.before.value).dec()
    if event.after is not Stage.ENDED:
        JOBS.labels(cluster, event.after.value).inc()
    step = _STEPS.get((event.before, event.after))
    if step is not None:
        step(job, cluster)
    if event.after is Stage.LISTENING and event.before is Stage.RUNNING:
        _listening_since[job.tag] = time.monotonic()
    else:
        _listening_since.pop(job.tag, None)
    if event.after is Stage.ENDED:
        JOB_ENDS.labels(cluster, job.record.cause or "unknown").inc()


def _submitted(job: Job, cluster: str) -> None:
    asked_at = job.record.asked_at
    _phase(cluster, "gate", asked_at - job.begun_at if job.begun_at else None)
    _phase(cluster, "submit", time.time() - asked_at if asked_at else None)


def _runs(job: Job, cluster: str) -> None:
    record = job.record
    if record.submitted_at and record.started_at >= record.submitted_at:
        # The gate has judged it, so it is one of the profile's; of an older profile it may be another.
        name = str(record.choices.get("partition", ""))
        partition = name if job.cluster.profile.partition(name) else "other"
        QUEUE_WAIT.labels(cluster, partition).observe(record.started_at - record.submitted_at)


def _listens(job: Job, cluster: str) -> None:
    for phase, seconds in job.phases.items():
        _phase(cluster, phase, seconds)
    if job.phases and job.handed_out_at:
        # Since the Hub answered the ticket, the launcher has prepared and started the server.
        known_s = sum(job.phases.get(phase, 0.0) for phase in ("prepare", "server"))
        _phase(cluster, "report", now() - job.handed_out_at - known_s)


def _answers(job: Job, cluster: str) -> None:
    if job.adopted:
        TAKEN_UP.labels(cluster).inc()
        return
    since = _listening_since.get(job.tag)
    _phase(cluster, "answer", None if since is None else time.monotonic() - since)


def _phase(cluster: str, phase: str, seconds: float | None) -> None:
    if seconds is not None and seconds >= 0:
        START_PHASE.labels(cluster, phase).observe(seconds)


_STEPS: dict[tuple[Stage, Stage], Callable[[Job, str], None]] = {
    (Stage.INTENT, Stage.QUEUED): _submitted,
    (Stage.QUEUED, Stage.RUNNING): _runs,
    (Stage.RUNNING, Stage.LISTENING): _listens,
    (Stage.LISTENING, Stage.READY): _answers,
}
