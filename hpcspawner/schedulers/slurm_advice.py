"""What a user can do about Slurm's reasons for waiting. Many reasons are names made of parts, and are read by these."""

import re

from hpcspawner.schedulers.advice import (
    ANOTHER_PARTITION,
    ASK,
    LESS,
    PASSES,
    SHORTER,
    THEIR_TURN,
    USE_LESS_AT_ONCE,
)

_ANOTHER_ACCOUNT = "Choose another account, or ask the people who manage this one for more time."
_ANOTHER_QOS = "Cancel, and choose another QOS."
_AGAIN = "Cancel, and start again; ask the administrators of the cluster if it happens again."
_MORE = "Cancel, and ask for more, or choose another QOS."

_OF = {
    "AccountNotAllowed": "Cancel, and choose another account or partition.",
    "AccountingPolicy": ASK,
    "AssociationJobLimit": USE_LESS_AT_ONCE,
    "AssociationResourceLimit": USE_LESS_AT_ONCE,
    "AssociationTimeLimit": _ANOTHER_ACCOUNT,
    "BadConstraints": "Cancel, and choose other node features, fewer GPUs or another partition.",
    "BeginTime": PASSES,
    "BurstBufferOperation": ASK,
    "BurstBufferResources": PASSES,
    "BurstBufferStageIn": PASSES,
    "Cleaning": PASSES,
    "Constraints": "Cancel, and choose other node features, fewer GPUs or another partition.",
    "DeadLine": "Cancel, and ask for a shorter wall time.",
    "Dependency": PASSES,
    "DependencyNeverSatisfied": "Cancel, and start again.",
    "FedJobLock": PASSES,
    "FrontEndDown": ASK,
    "InactiveLimit": "Cancel, and start again.",
    "InvalidAccount": "Cancel, and choose another account, or ask the administrators of the cluster.",
    "InvalidQOS": _ANOTHER_QOS,
    "Job's QOS not permitted to use this partition": _ANOTHER_QOS,
    "Job's account not permitted to use this partition": "Cancel, and choose another account or partition.",
    "JobArrayTaskLimit": PASSES,
    "JobHeldAdmin": ASK,
    "JobHeldUser": "Release it (scontrol release), or cancel.",
    "JobHoldMaxRequeue": _AGAIN,
    "JobLaunchFailure": _AGAIN,
    "Licenses": "It starts when a licence becomes free.",
    "MaxMemPerLimit": "Cancel, and ask for less memory or more CPUs.",
    "MaxPoweredUpNodes": PASSES,
    "MpiPortsBusy": PASSES,
    "NodeDown": "Cancel, and choose another partition or other node features.",
    "Nodes required for job are DOWN": SHORTER,
    "NonZeroExitCode": "Cancel, and start again.",
    "NvidiaImexChannels": PASSES,
    "OutOfMemory": "Cancel, and ask for more memory.",
    "PartitionConfig": "Cancel, and ask for less or choose another partition.",
    "PartitionDown": ANOTHER_PARTITION,
    "PartitionInactive": ANOTHER_PARTITION,
    "PartitionNodeLimit": "Cancel, and ask for fewer nodes or choose another partition.",
    "PartitionTimeLimit": "Cancel, and ask for a shorter wall time or choose another partition.",
    "PowerNotAvail": PASSES,
    "PowerReserved": PASSES,
    "Priority": THEIR_TURN,
    "Prolog": PASSES,
    "QOSJobLimit": USE_LESS_AT_ONCE,
    "QOSNotAllowed": _ANOTHER_QOS,
    "QOSResourceLimit": USE_LESS_AT_ONCE,
    "QOSTimeLimit": _ANOTHER_QOS,
    "QOSUsageThreshold": _ANOTHER_QOS,
    "RaisedSignal": "Cancel, and start again.",
    "ReqNodeNotAvail": SHORTER,
    "Reservation": "It starts when the reservation begins.",
    "ReservationDeleted": "Cancel, and choose no reservation or another one.",
    "ReservationInvalid": "Cancel, and choose no reservation or another one.",
    "Resources": THEIR_TURN,
    "SchedDefer": PASSES,
    "SystemFailure": ASK,
    "TimeLimit": "Cancel, and start again.",
    "job requeued in held state": "Release it (scontrol release), or cancel.",
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
    "AccountingPolicy": "A rule of the cluster's accounting keeps the job waiting.",
    "AssociationJobLimit": "You have reached your account's limit of running jobs.",
    "AssociationResourceLimit": "Jobs of your account already use all that it may use at once.",
    "AssociationTimeLimit": "Your account does not have enough computing time left for this job.",
    "BurstBufferOperation": "An operation on the burst buffer failed.",
    "BurstBufferResources": "The job is waiting for space in the burst buffer.",
    "BurstBufferStageIn": "Files of the job are being copied into the burst buffer.",
    "Constraints": "No node has what the job asks for.",
    "DeadLine": "The job can't end before its deadline.",
    "FedJobLock": "The clusters of the federation are deciding which of them runs the job.",
    "FrontEndDown": "No front end of the cluster is up.",
    "JobLaunchFailure": "The job could not be started on its node.",
    "MaxPoweredUpNodes": "The cluster has as many nodes powered up as it may have at once.",
    "MpiPortsBusy": "The nodes that the job needs have no ports left for MPI at the moment.",
    "NonZeroExitCode": "The job's script has failed.",
    "NvidiaImexChannels": "The job is waiting for a channel between GPUs of several nodes.",
    "OutOfMemory": "The job used more memory than it asked for.",
    "PowerNotAvail": "The cluster has no power left for more jobs at the moment.",
    "PowerReserved": "The cluster's power is reserved for other jobs at the moment.",
    "QOSUsageThreshold": "You have used more than this QOS allows.",
    "RaisedSignal": "The job's script was ended by a signal.",
    "ReservationInvalid": "The job's reservation is not valid.",
    "SchedDefer": "Slurm starts this job only when it next goes through the whole queue.",
    "TimeLimit": "The job has reached its wall time.",
}
"""Sentences for reasons that are rare or came after 22.05."""


def advice(key: str) -> str:
    """What a user can do about a reason, by its name without what varies; "" for a name that is not known."""
    if key in _OF:
        return _OF[key]
    return next((text for pattern, text in _BY_PARTS if pattern.match(key)), "")
