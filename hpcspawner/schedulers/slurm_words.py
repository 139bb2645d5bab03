"""Slurm's words: states, reasons for waiting, causes of ends, and what a profile may say of it."""

import re
from collections.abc import Mapping

from hpcspawner.language import _
from hpcspawner.schedulers.records import AT_WALL_TIME
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.site.names import WIDE
from hpcspawner.site.scheduler_types import ProfileRules

# squeue(1), JOB STATE CODES, Slurm 22.05. The last ones came later.
STATES = {
    "BOOT_FAIL": JobState.ENDED,  # terminated due to launch failure, typically of the hardware
    "CANCELLED": JobState.ENDED,  # explicitly cancelled by the user or an administrator
    "COMPLETED": JobState.ENDED,  # all processes ended with an exit code of zero
    # It holds its node and may still be requeued: no server that runs, and not gone either.
    "COMPLETING": JobState.UNKNOWN,  # in the process of completing; some processes may still be active
    "CONFIGURING": JobState.PENDING,  # has its resources, waits for them to become ready
    "DEADLINE": JobState.ENDED,  # terminated on deadline
    "FAILED": JobState.ENDED,  # ended with a non-zero exit code or other failure
    "NODE_FAIL": JobState.ENDED,  # terminated due to failure of a node
    "OUT_OF_MEMORY": JobState.ENDED,  # experienced an out of memory error
    "PENDING": JobState.PENDING,  # awaits resource allocation
    "PREEMPTED": JobState.ENDED,  # terminated due to preemption (one that is requeued shows PENDING)
    "REQUEUED": JobState.PENDING,  # completing and being requeued
    "REQUEUE_FED": JobState.PENDING,  # being requeued by a federation
    "REQUEUE_HOLD": JobState.HELD,  # being requeued, and held then
    "RESIZING": JobState.RUNNING,  # about to change size; its script runs on
    "RESV_DEL_HOLD": JobState.HELD,  # held because its reservation was deleted
    # Runs elsewhere under the same id, so it is not gone.
    "REVOKED": JobState.UNKNOWN,  # sibling removed because another cluster of the federation started the job
    "RUNNING": JobState.RUNNING,  # has an allocation
    "SIGNALING": JobState.RUNNING,  # is being signaled
    "SPECIAL_EXIT": JobState.HELD,  # requeued in a special state, held until released
    "STAGE_OUT": JobState.UNKNOWN,  # staging out files: the script has ended, the job has not
    "STOPPED": JobState.SUSPENDED,  # stopped by SIGSTOP; keeps its CPUs
    "SUSPENDED": JobState.SUSPENDED,  # suspended; its CPUs may serve others meanwhile
    "TIMEOUT": JobState.ENDED,  # terminated upon reaching its time limit
    "EXPEDITING": JobState.PENDING,  # being requeued ahead of others after a failure
    "LAUNCH_FAILED": JobState.UNKNOWN,  # failed to launch: will be requeued, held or ended
    "POWER_UP_NODE": JobState.PENDING,  # waits for nodes that are powered up
    "RECONFIG_FAIL": JobState.UNKNOWN,  # a node's configuration failed: will be requeued or ended
    "UPDATE_DB": JobState.UNKNOWN,  # a record about it is being sent to the accounting database
}

# Reasons for which a pending job waits until somebody acts; time alone will not start it. The first are for people,
# who hold and release, or pass by themselves: slurmctld looks for account and QOS anew whenever it schedules, and a
# site's nightly synchronisation of accounts, or a slurmdbd that is away, takes them for a while only.
HELD_FOR_A_WHILE = frozenset(
    {"InvalidAccount", "InvalidQOS", "JobHeldAdmin", "JobHeldUser", "job requeued in held state"}
)
HOPELESS = frozenset(
    {
        "AccountNotAllowed",
        "BadConstraints",
        "DependencyNeverSatisfied",
        # So the controller words AccountNotAllowed and QOSNotAllowed once it has looked closer.
        "Job's QOS not permitted to use this partition",
        "Job's account not permitted to use this partition",
        "JobHoldMaxRequeue",
        "QOSNotAllowed",
        "ReservationDeleted",
        "launch failed requeued held",
        "user env retrieval failed requeued held",
    }
)
HOPELESS_STATES = frozenset({"RESV_DEL_HOLD", "SPECIAL_EXIT"})

REASONS = {
    "AccountNotAllowed": _("Your account may not use this partition, so the job will not start."),
    "AssocGrpBillingMinutes": _("Your account does not have enough computing time left for this job."),
    "AssocGrpCPUMinutesLimit": _("Your account does not have enough computing time left for this job."),
    "AssocGrpCPURunMinutesLimit": _(
        "Your account's running jobs have reached the limit on their remaining computing time."
    ),
    "AssocGrpCpuLimit": _("Jobs of your account already use all the CPUs it may use at once."),
    "AssocGrpGRES": _("Jobs of your account already use all the GPUs it may use at once."),
    "AssocGrpGRESMinutes": _("Your account does not have enough GPU time left for this job."),
    "AssocGrpJobsLimit": _("Your account has reached its limit of running jobs."),
    "AssocGrpMemLimit": _("Jobs of your account already use all the memory it may use at once."),
    "AssocGrpNodeLimit": _("Jobs of your account already use all the nodes it may use at once."),
    "AssocGrpSubmitJobsLimit": _("Your account has reached its limit of jobs in the queue."),
    "AssocGrpWallLimit": _("Your account has used up its computing time."),
    "AssocMaxCpuPerJobLimit": _("You asked for more CPUs than a job of your account may have."),
    "AssocMaxJobsLimit": _("You have reached your account's limit of running jobs."),
    "AssocMaxNodePerJobLimit": _("You asked for more nodes than a job of your account may have."),
    "AssocMaxWallDurationPerJobLimit": _("You asked for more time than a job of your account may have."),
    "BadConstraints": _("No node has what the job asks for, so it will not start."),
    "BeginTime": _("The job's earliest start time is not reached yet, for instance because it was requeued."),
    "Cleaning": _("The job is being requeued."),
    "Dependency": _("The job is waiting for another job to end."),
    "DependencyNeverSatisfied": _(
        "A job that this one depends on did not end as required, so this job will not start."
    ),
    "InactiveLimit": _("The job was inactive for too long."),
    "InvalidAccount": _("The job's account is not valid at the moment."),
    "InvalidQOS": _("The job's QOS is not valid at the moment."),
    "JobArrayTaskLimit": _("The job array has reached its limit of running tasks."),
    "JobHeldAdmin": _("An administrator is holding the job."),
    "JobHeldUser": _("The job is held; its owner can release it."),
    "JobHoldMaxRequeue": _("The job was requeued too often and is now held."),
    "Licenses": _("The job is waiting for a software licence."),
    "MaxCpuPerAccount": _("Jobs of your account already use all the CPUs it may use at once."),
    "MaxGRESPerAccount": _("Jobs of your account already use all the GPUs it may use at once."),
    "MaxJobsPerAccount": _("Your account has reached its limit of running jobs."),
    "MaxMemPerLimit": _("You asked for more memory than a job may have here."),
    "NodeDown": _("A node that the job needs is down."),
    "Nodes required for job are DOWN": _(
        "Nodes that the job needs are down, drained or reserved for more urgent jobs."
    ),
    "PartitionConfig": _("The job asks for more than this partition allows."),
    "PartitionDown": _("The partition is closed at the moment."),
    "PartitionInactive": _("The partition does not start jobs at the moment."),
    "PartitionNodeLimit": _("You asked for more nodes than this partition has, or than are up now."),
    "PartitionTimeLimit": _("You asked for more time than this partition allows."),
    "Priority": _("Jobs with a higher priority are ahead of this one."),
    "Prolog": _("The node is being prepared for the job."),
    "QOSGrpCpuLimit": _("Jobs in this QOS already use all the CPUs it may use at once."),
    "QOSGrpGRES": _("Jobs in this QOS already use all the GPUs it may use at once."),
    "QOSGrpJobsLimit": _("This QOS has reached its limit of running jobs."),
    "QOSGrpNodeLimit": _("Jobs in this QOS already use all the nodes it may use at once."),
    "QOSJobLimit": _("This QOS has reached its limit of running jobs."),
    "QOSMaxCpuPerUserLimit": _("Your running jobs use all the CPUs that one user may have in this QOS."),
    "QOSMaxGRESPerJob": _("You asked for more GPUs than one job may have in this QOS."),
    "QOSMaxGRESPerUser": _("Your running jobs use all the GPUs that one user may have in this QOS."),
    "QOSMaxJobsPerUserLimit": _("You have reached the limit of running jobs that one user may have in this QOS."),
    "QOSMaxMemoryPerUser": _("Your running jobs use all the memory that one user may have in this QOS."),
    "QOSMaxNodePerUserLimit": _("Your running jobs use all the nodes that one user may have in this QOS."),
    "QOSMaxWallDurationPerJobLimit": _("You asked for more time than one job may have in this QOS."),
    "QOSMinGRES": _("You asked for fewer GPUs than a job must have in this QOS."),
    "Job's QOS not permitted to use this partition": _(
        "This QOS may not be used in this partition, so the job will not start."
    ),
    "Job's account not permitted to use this partition": _(
        "Your account may not use this partition, so the job will not start."
    ),
    "QOSNotAllowed": _("This QOS may not be used in this partition, so the job will not start."),
    "QOSResourceLimit": _("Jobs in this QOS already use all that it may use at once."),
    "QOSTimeLimit": _("This QOS has used up its computing time."),
    "ReqNodeNotAvail": _("A node that the job needs is down, drained or reserved."),
    "Reservation": _("The job is waiting for its reservation to begin."),
    "ReservationDeleted": _("The job's reservation was deleted, so the job will not start."),
    "Resources": _("The job is next in line and is waiting for nodes to become free."),
    "SystemFailure": _("Slurm had an internal error."),
    "job requeued in held state": _("The job was requeued and is held."),
    "launch failed requeued held": _("The job could not be started on its node and is now held."),
    "user env retrieval failed requeued held": _(
        "Slurm could not read your login environment on the node, so the job is held."
    ),
}

# What Slurm adds to ReqNodeNotAvail after a comma.
NODE_REASONS = {
    "Reserved for maintenance": _(
        "The nodes are reserved for maintenance that begins before this job would end. With "
        "a shorter wall time it may start before the maintenance; otherwise it starts afterwards."
    ),
    "May be reserved for other job": _(
        "Nodes that the job needs may be reserved for another job. With a shorter wall time it may start sooner."
    ),
    "UnavailableNodes": _("Nodes that the job needs are down, drained or reserved."),
}

# For the limits that are not named above: Slurm has a reason for each resource.
REASON_FAMILIES = {
    "AssocGrp": _("Your account has reached a limit for all its jobs together"),
    "AssocMax": _("Your account has reached a limit for one user or one job"),
    "QOSGrp": _("This QOS has reached a limit for all its jobs together"),
    "QOSMax": _("You have reached a limit for one user or one job in this QOS"),
    "QOSMin": _("The job is too small for this QOS"),
    "Max": _("You have reached a limit for one user or one account"),
}

# Of the other final states; `_record` distinguishes exit codes and cancels.
CAUSES = {
    "BOOT_FAIL": (Cause.NODE_FAILED, _("{node} could not be started (BOOT_FAIL).")),
    "DEADLINE": (Cause.WALL_TIME, _("The job reached its deadline.")),
    "NODE_FAIL": (Cause.NODE_FAILED, _("{node} failed, which ended the job (NODE_FAIL).")),
    "OUT_OF_MEMORY": (
        Cause.OUT_OF_MEMORY,
        _("Slurm ended the job because it used more memory than it asked for (OUT_OF_MEMORY)."),
    ),
    "PREEMPTED": (Cause.PREEMPTED, _("Slurm ended the job to make room for one with a higher priority (PREEMPTED).")),
    "TIMEOUT": (Cause.WALL_TIME, AT_WALL_TIME),
}

NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|Slurm backup controller in standby mode|"
    r"Socket timed out|Zero Bytes were transmitted|Insane message length|Message (?:receive|send) failure|"
    r"Unexpected message rec(?:ei|ie)ved|Header lengths are longer than data|Incompatible versions of client|"
    r"Protocol authentication error|[Mm]unge (?:encode|decode) failed|If munged is up|"
    r"Connection (?:refused|timed out|reset)|Communication connection failure|Communications? shutdown failure|"
    r"No route to host|Network is unreachable|Unable to resolve|Could not establish a configuration source"
)

_COMMENT = 'the Hub recognises its jobs by it; write tag = "job-name" in [scheduler], and the comment is yours'

# Option: what to do in its place.
_REFUSED: Mapping[str, str] = {
    "job-name": "the Hub names its jobs itself",
    "comment": _COMMENT,
    "output": "the job script opens its own log; job.log names the folder",
    "error": "the job script opens its own log; job.log names the folder",
    "input": "the job script reads nothing",
    "chdir": "the launcher goes to the user's folder; defaults.directory and [directories] name it",
    "export": "the job gets the environment of the scheduler's commands; scheduler.variables adds to it, and "
    'job.leave_out = ["export"] leaves the option out',
    "export-file": "the job gets the environment of the scheduler's commands; scheduler.variables adds to it",
    "array": "each server is one job",
    "dependency": "the Hub makes follow-up jobs by it",
    "kill-on-invalid-dep": "the Hub makes follow-up jobs by it",
    "clusters": "the Hub asks only one cluster; give the other one its own Hub or profile",
    "cluster-constraint": "the Hub asks only one cluster; give the other one its own Hub or profile",
    "requeue": "write job.requeue = true",
    "no-requeue": "it is the default without job.requeue",
    "signal": "write limits.warning",
    "uid": "the job is submitted as its user",
    "gid": "the job is submitted as its user",
    "wrap": "the Hub writes the job script",
    "wait": "the Hub does not wait for the end of a job in sbatch",
    "test-only": "no job would be submitted",
    "parsable": "the Hub's own",
    "ignore-pbs": "the Hub's own",
    "quiet": "the Hub reads what sbatch prints",
    "verbose": "the Hub reads what sbatch prints",
    "help": "no job would be submitted",
    "usage": "no job would be submitted",
    "version": "no job would be submitted",
}
# Full names that begin like one of those; other beginnings sbatch completes itself.
_OWN_WORDS = frozenset({"wait-all-nodes"})


class SlurmRules(ProfileRules):
    """sbatch completes the beginning of a long option, so that counts as the option."""

    __slots__ = ()

    def why_refused(self, option: str, value: str, tag: str) -> str:
        """By whole options and their beginnings."""
        if "constraint".startswith(option) and 2 < len(option) < len("constraint"):
            return "write constraint in full, so that it is joined to what users choose"
        if option in _OWN_WORDS:
            return ""
        found = (instead for name, instead in self.refused.items() if name.startswith(option) and len(option) > 2)
        return next((instead for instead in found if instead != _COMMENT or tag == "comment"), "")


RULES = SlurmRules(
    signs={
        # sbatch(1), --constraint: and, or, groups and counts of nodes.
        "feature": WIDE + "|&()[]*",
        # A colon ends the type in `gpu:TYPE:COUNT`, a comma begins another resource.
        "gpu type": "_.+-@/%~",
    },
    refused=_REFUSED,
    may_leave_out=(
        *("partition", "nodes", "ntasks-per-node", "cpus-per-task", "mem", "exclusive", "gres", "account", "qos"),
        *("reservation", "constraint", "export", "no-requeue"),
    ),
    tags=("comment", "job-name"),
)
