"""What a user can do about Slurm's reasons for waiting. Many reasons are names made of parts, and are read by these."""

import re

from hpcspawner.language import _
from hpcspawner.schedulers.advice import (
    ANOTHER_PARTITION,
    ASK,
    LESS,
    PASSES,
    SHORTER,
    THEIR_TURN,
    USE_LESS_AT_ONCE,
)

_ANOTHER_ACCOUNT = _("Choose another account, or ask the people who manage this one for more time.")
_ANOTHER_QOS = _("Cancel, and choose another QOS.")
_AGAIN = _("Cancel, and start again; ask the administrators of the cluster if it happens again.")
_MORE = _("Cancel, and ask for more, or choose another QOS.")

_OF = {
    "AccountNotAllowed": _("Cancel, and choose another account or partition."),
    "AccountingPolicy": ASK,
    "AssociationJobLimit": USE_LESS_AT_ONCE,
    "AssociationResourceLimit": USE_LESS_AT_ONCE,
    "AssociationTimeLimit": _ANOTHER_ACCOUNT,
    "BadConstraints": _("Cancel, and choose other node features, fewer GPUs or another partition."),
    "BeginTime": PASSES,
    "BurstBufferOperation": ASK,
    "BurstBufferResources": PASSES,
    "BurstBufferStageIn": PASSES,
    "Cleaning": PASSES,
    "Constraints": _("Cancel, and choose other node features, fewer GPUs or another partition."),
    "DeadLine": _("Cancel, and ask for a shorter wall time."),
    "Dependency": PASSES,
    "DependencyNeverSatisfied": _("Cancel, and start again."),
    "FedJobLock": PASSES,
    "FrontEndDown": ASK,
    "InactiveLimit": _("Cancel, and start again."),
    "InvalidAccount": _("Cancel, and choose another account, or ask the administrators of the cluster."),
    "InvalidQOS": _ANOTHER_QOS,
    "Job's QOS not permitted to use this partition": _ANOTHER_QOS,
    "Job's account not permitted to use this partition": _("Cancel, and choose another account or partition."),
    "JobArrayTaskLimit": PASSES,
    "JobHeldAdmin": ASK,
    "JobHeldUser": _("Release it (scontrol release), or cancel."),
    "JobHoldMaxRequeue": _AGAIN,
    "JobLaunchFailure": _AGAIN,
    "Licenses": _("It starts when a licence becomes free."),
    "MaxMemPerLimit": _("Cancel, and ask for less memory or more CPUs."),
    "MaxPoweredUpNodes": PASSES,
    "MpiPortsBusy": PASSES,
    "NodeDown": _("Cancel, and choose another partition or other node features."),
    "Nodes required for job are DOWN": SHORTER,
    "NonZeroExitCode": _("Cancel, and start again."),
    "NvidiaImexChannels": PASSES,
    "OutOfMemory": _("Cancel, and ask for more memory."),
    "PartitionConfig": _("Cancel, and ask for less or choose another partition."),
    "PartitionDown": ANOTHER_PARTITION,
    "PartitionInactive": ANOTHER_PARTITION,
    "PartitionNodeLimit": _("Cancel, and ask for fewer nodes or choose another partition."),
    "PartitionTimeLimit": _("Cancel, and ask for a shorter wall time or choose another partition."),
    "PowerNotAvail": PASSES,
    "PowerReserved": PASSES,
    "Priority": THEIR_TURN,
    "Prolog": PASSES,
    "QOSJobLimit": USE_LESS_AT_ONCE,
    "QOSNotAllowed": _ANOTHER_QOS,
    "QOSResourceLimit": USE_LESS_AT_ONCE,
    "QOSTimeLimit": _ANOTHER_QOS,
    "QOSUsageThreshold": _ANOTHER_QOS,
    "RaisedSignal": _("Cancel, and start again."),
    "ReqNodeNotAvail": SHORTER,
    "Reservation": _("It starts when the reservation begins."),
    "ReservationDeleted": _("Cancel, and choose no reservation or another one."),
    "ReservationInvalid": _("Cancel, and choose no reservation or another one."),
    "Resources": THEIR_TURN,
    "SchedDefer": PASSES,
    "SystemFailure": ASK,
    "TimeLimit": _("Cancel, and start again."),
    "job requeued in held state": _("Release it (scontrol release), or cancel."),
    "launch failed requeued held": _AGAIN,
    "user env retrieval failed requeued held": ASK,
}

# The names that are made of parts, the first that fits.
_BY_PARTS = (
    (re.compile(r"QOSMin"), _MORE),
    (re.compile(r"(Assoc|QOS)Max\w*Per(Job|Node)"), LESS),
    (re.compile(r"Assoc\w*(Minutes|Wall|Billing)"), _ANOTHER_ACCOUNT),
    (re.compile(r"QOS\w*(Minutes|Wall|Billing)"), _ANOTHER_QOS),
    (re.compile(r"(Assoc|QOS)(Grp|Max)|Max\w*Per(Account|User)"), USE_LESS_AT_ONCE),
)

SENTENCES = {
    "AccountingPolicy": _("A rule of the cluster's accounting keeps the job waiting."),
    "AssociationJobLimit": _("You have reached your account's limit of running jobs."),
    "AssociationResourceLimit": _("Jobs of your account already use all that it may use at once."),
    "AssociationTimeLimit": _("Your account does not have enough computing time left for this job."),
    "BurstBufferOperation": _("An operation on the burst buffer failed."),
    "BurstBufferResources": _("The job is waiting for space in the burst buffer."),
    "BurstBufferStageIn": _("Files of the job are being copied into the burst buffer."),
    "Constraints": _("No node has what the job asks for."),
    "DeadLine": _("The job can't end before its deadline."),
    "FedJobLock": _("The clusters of the federation are deciding which of them runs the job."),
    "FrontEndDown": _("No front end of the cluster is up."),
    "JobLaunchFailure": _("The job could not be started on its node."),
    "MaxPoweredUpNodes": _("The cluster has as many nodes powered up as it may have at once."),
    "MpiPortsBusy": _("The nodes that the job needs have no ports left for MPI at the moment."),
    "NonZeroExitCode": _("The job's script has failed."),
    "NvidiaImexChannels": _("The job is waiting for a channel between GPUs of several nodes."),
    "OutOfMemory": _("The job used more memory than it asked for."),
    "PowerNotAvail": _("The cluster has no power left for more jobs at the moment."),
    "PowerReserved": _("The cluster's power is reserved for other jobs at the moment."),
    "QOSUsageThreshold": _("You have used more than this QOS allows."),
    "RaisedSignal": _("The job's script was ended by a signal."),
    "ReservationInvalid": _("The job's reservation is not valid."),
    "SchedDefer": _("Slurm starts this job only when it next goes through the whole queue."),
    "TimeLimit": _("The job has reached its wall time."),
}
"""Sentences for reasons that are rare or came after 22.05."""


def advice(key: str) -> str:
    """What a user can do about a reason, by its name without what varies; "" for a name that is not known."""
    if key in _OF:
        return _OF[key]
    return next((text for pattern, text in _BY_PARTS if pattern.match(key)), "")
