"""Comments of the schedulers of OpenPBS and Torque about jobs that wait: what each means, what a user can do."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hpcspawner.language import Text, _
from hpcspawner.schedulers.advice import ANOTHER_PARTITION, ASK, LESS, PASSES, SHORTER, THEIR_TURN, USE_LESS_AT_ONCE

_NOT_RUNNING = re.compile(r"Not Running(?::| - (?=PBS Error))")
_STARTED = ("Job started on", "Job run at")
NEVER = "Can Never Run:"
"""What OpenPBS says of a job that no node could run."""
_OTHER_QUEUE = _("Cancel, and choose another partition.")


@dataclass(frozen=True, slots=True)
class Comment:
    """`text` is the scheduler's own, with %s for what varies; `sentence` may name the last of these as `thing`."""

    text: str
    sentence: Text
    advice: str

    def match(self, said: str) -> Text | None:
        """The sentence, where this is the comment that was said."""
        found = re.fullmatch(re.escape(self.text).replace("%s", "(.{0,200}?)"), said)
        if found is None:
            return None
        # Numbers in brackets (`ncpus (R: 64 A: 2 T: 64)`) are for administrators.
        varies = found.groups()[-1].partition(" (")[0].strip() if found.groups() else ""
        return self.sentence.fill(thing=varies)


COMMENTS = (
    # What the cluster has is in use.
    Comment("Insufficient amount of resource: %s", _("Other jobs are using what you asked for ({thing})."), THEIR_TURN),
    Comment(
        "Insufficient amount of queue resource: %s",
        _("Jobs in this queue already use all that they may use at once ({thing})."),
        _OTHER_QUEUE,
    ),
    Comment(
        "Insufficient amount of server resource: %s",
        _("The running jobs already use all that they may use at once ({thing})."),
        THEIR_TURN,
    ),
    Comment(
        "Insufficient host-level resources %s", _("Other jobs are using what you asked for ({thing})."), THEIR_TURN
    ),
    Comment("No available resources on nodes", _("Other jobs are using what you asked for."), THEIR_TURN),
    Comment("Not enough cpus available", _("Other jobs are using the CPUs that you need."), THEIR_TURN),
    Comment("Not enough memory available", _("Other jobs are using the memory that you need."), THEIR_TURN),
    Comment("Not enough nodes available", _("Other jobs are using the nodes that you need."), THEIR_TURN),
    Comment("Not enough free nodes available", _("Other jobs are using the nodes that you need."), THEIR_TURN),
    Comment(
        "Not enough of the right type of nodes are available",
        _("The nodes that you asked for are busy or down."),
        THEIR_TURN,
    ),
    Comment(
        "Not enough total nodes available", _("The cluster has fewer nodes of this kind than you asked for."), LESS
    ),
    Comment(
        "%s is requesting an exclusive node and node is in use",
        _("Other jobs are using the nodes that you need."),
        THEIR_TURN,
    ),
    Comment("Node has reached job run limit", _("The nodes run as many jobs as they may."), THEIR_TURN),
    Comment("Node has reached user run limit", _("The nodes run as many of your jobs as they may."), USE_LESS_AT_ONCE),
    Comment(
        "Node has reached group run limit", _("The nodes run as many jobs of your group as they may."), USE_LESS_AT_ONCE
    ),
    Comment("Node can't satisfy a multi-node job", _("No node can be combined with others for this job."), LESS),
    Comment(
        "Node is in an ineligible state: %s", _("The nodes that you asked for are not available ({thing})."), THEIR_TURN
    ),
    Comment("Node is of an ineligible type: %s", _("The nodes that you asked for are of another kind ({thing})."), ASK),
    Comment(
        "Node ineligible because job requested pack placement and won't fit on node",
        _("No single node has room for the job."),
        LESS,
    ),
    # Limits.
    Comment("Queue%s job limit has been reached", _("This queue has reached its limit of running jobs."), _OTHER_QUEUE),
    Comment("Server job limit has been reached", _("The cluster has reached its limit of running jobs."), THEIR_TURN),
    Comment(
        "User has reached queue%s running job limit",
        _("You have reached the limit of running jobs that one user may have in this queue."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "User has reached server running job limit",
        _("You have reached the limit of running jobs that one user may have."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Group has reached queue%s running limit",
        _("Your group has reached its limit of running jobs in this queue."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Group has reached server running limit",
        _("Your group has reached its limit of running jobs."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Project has reached queue%s running limit",
        _("Your project has reached its limit of running jobs in this queue."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Project has reached server running limit",
        _("Your project has reached its limit of running jobs."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Queue %s per-user limit reached on resource %s",
        _("Your jobs in this queue already use all that one user may use at once ({thing})."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Server per-user limit reached on resource %s",
        _("Your jobs already use all that one user may use at once ({thing})."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Queue %s per-group limit reached on resource %s",
        _("Your group's jobs in this queue already use all that it may use at once ({thing})."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Server per-group limit reached on resource %s",
        _("Your group's jobs already use all that it may use at once ({thing})."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Queue %s per-project limit reached on resource %s",
        _("Your project's jobs in this queue already use all that it may use at once ({thing})."),
        USE_LESS_AT_ONCE,
    ),
    Comment(
        "Server per-project limit reached on resource %s",
        _("Your project's jobs already use all that it may use at once ({thing})."),
        USE_LESS_AT_ONCE,
    ),
    Comment("Job has zero shares for fairshare", _("The cluster gives your group no share of its time."), ASK),
    # The order of jobs.
    Comment(
        "Draining system to allow %s to run",
        _("The scheduler is keeping nodes free for a job that has waited a long time."),
        SHORTER,
    ),
    Comment("Strict fifo order", _("Jobs start in the order of their submit, and others are ahead."), PASSES),
    Comment("Job would break strict sorted order", _("Jobs start in a strict order, and others are ahead."), PASSES),
    Comment(
        "Job would conflict with reservation or top job",
        _(
            "PBS is keeping nodes free for a reservation or for a job with a higher priority. With a shorter wall time "
            "this job may start sooner."
        ),
        SHORTER,
    ),
    Comment(
        "Job would interfere with a top job", _("PBS is keeping nodes free for a job with a higher priority."), SHORTER
    ),
    Comment("Job would interfere with a reservation", _("PBS is keeping nodes free for a reservation."), SHORTER),
    Comment(
        "Job would interfere with a confirmed reservation", _("PBS is keeping nodes free for a reservation."), SHORTER
    ),
    Comment("Can't preempt enough work to run job", _("Other jobs are using what you asked for."), THEIR_TURN),
    # Times and queues.
    Comment(
        "Job would cross dedicated time boundary",
        _("The job would not end before a time that is reserved for other work."),
        SHORTER,
    ),
    Comment("Dedicated time conflict", _("The time is reserved for other work."), PASSES),
    Comment("Job would cross into %s", _("The job would not end before {thing} begins."), SHORTER),
    Comment("Job will run in primetime only", _("This queue runs jobs in prime time alone."), ANOTHER_PARTITION),
    Comment(
        "Job will run in nonprimetime only", _("This queue runs jobs outside of prime time alone."), ANOTHER_PARTITION
    ),
    Comment("Queue not started", _("The queue does not start jobs at the moment."), ANOTHER_PARTITION),
    Comment("Queue not an execution queue", _("The queue only passes jobs on to others."), ASK),
    # Faults.
    Comment("Cannot provision, %s", _("The node can't be set up as this job needs it ({thing})."), ASK),
    Comment("Provisioning for job would interfere with backfill job", _("Other jobs are using the nodes."), THEIR_TURN),
    Comment("Provision conflict with existing job/reservation", _("Other jobs are using the nodes."), THEIR_TURN),
    Comment("PBS Error: %s", _("The scheduler could not start the job: {thing}."), ASK),
)
"""By the texts of OpenPBS 23.06 and Torque 6.1, without "Not Running: " and the full stop; the first that fits."""


def explain(said: str) -> str:
    """A comment as a sentence: the scheduler's own words where the table has none; "" where there is nothing to say."""
    text = _bare(said)
    if text.startswith(NEVER):
        return _("No node has what the job asks for, so it will not start. ({said}.)", said=text)
    if not text or text.startswith(_STARTED):
        return ""
    return next(filter(None, (one.match(text) for one in COMMENTS)), f"{text}.")


def advise(said: str) -> str:
    """What a user can do about it, "" where the table does not have it."""
    text = _bare(said)
    if text.startswith(NEVER):
        return LESS
    return next((one.advice for one in COMMENTS if one.match(text) is not None), "")


def texts(comments: Iterable[Comment] = COMMENTS) -> list[tuple[str, str, str]]:
    """The table for the documentation: the scheduler's text, the sentence, the advice."""
    return [(one.text.replace("%s", "…"), one.sentence.fill(thing="…"), one.advice) for one in comments]


def _bare(said: str) -> str:
    return _NOT_RUNNING.sub("", said.strip(), count=1).strip().rstrip(".")
