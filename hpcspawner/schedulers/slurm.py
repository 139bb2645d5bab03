"""Slurm 22.05 and newer: sbatch, squeue, scancel, scontrol, sacct."""

import re
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from hpcspawner.schedulers.base import COUNT, Answer, JobLabel, Resources
from hpcspawner.schedulers.records import WALL_TIME, cancelled, exited
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site import names
from hpcspawner.site.profile import ANY_GPU

_SUBMITTED = re.compile(r"(\d{1,10})(?:;[\w.-]{1,100})?", re.ASCII)
_OUR_JOB = re.compile(r"\d{1,10}", re.ASCII)
# A waiting array is `17_[0-2]`, one of its tasks `17_1`, a part of a heterogeneous job `17+0`.
_ANY_JOB = re.compile(r"\d{1,10}(?:_(?:\d{1,10}|\[[^\]]{1,1000}\])|\+\d{1,6})?", re.ASCII)
_NOTHING = frozenset({"", "(null)", "N/A", "n/a", "None", "None assigned", "Unknown"})

# Of sacct: what `_accounted` reads.
_COLUMNS = ("JobIDRaw", "State%50", "ExitCode", "NodeList")
# Of squeue about one job: fields that no user can write, in the words of `_record`, and how wide they may be.
_ONE_JOB = {"JobID": 20, "State": 40, "Reason": 250, "RestartCnt": 20, "exit_code": 20, "NodeList": 250}
_EXIT_CODE = re.compile(r"(\d{1,3}):(\d{1,3})", re.ASCII)
# What Slurm writes as the signal if a script could not be started, for instance for want of its output file.
_COULD_NOT_START = 53

# Id, state, node that runs the script, owner, start, reason, and then the tag: the order of `_status`.
_FIELDS = ("%i", "%T", "%B", "%u", "%S", "%r")

# squeue(1), JOB STATE CODES, Slurm 22.05. The last ones came later.
_STATES = {
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
_HELD_FOR_A_WHILE = frozenset(
    {"InvalidAccount", "InvalidQOS", "JobHeldAdmin", "JobHeldUser", "job requeued in held state"}
)
_HOPELESS = frozenset(
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
_HOPELESS_STATES = frozenset({"RESV_DEL_HOLD", "SPECIAL_EXIT"})

_REASONS = {
    "AccountNotAllowed": "Your account may not use this partition, so the job will not start.",
    "AssocGrpBillingMinutes": "Your account does not have enough computing time left for this job.",
    "AssocGrpCPUMinutesLimit": "Your account does not have enough computing time left for this job.",
    "AssocGrpCPURunMinutesLimit": "Your account's running jobs have reached the limit on their remaining computing "
    "time.",
    "AssocGrpCpuLimit": "Jobs of your account already use all the CPUs it may use at once.",
    "AssocGrpGRES": "Jobs of your account already use all the GPUs it may use at once.",
    "AssocGrpGRESMinutes": "Your account does not have enough GPU time left for this job.",
    "AssocGrpJobsLimit": "Your account has reached its limit of running jobs.",
    "AssocGrpMemLimit": "Jobs of your account already use all the memory it may use at once.",
    "AssocGrpNodeLimit": "Jobs of your account already use all the nodes it may use at once.",
    "AssocGrpSubmitJobsLimit": "Your account has reached its limit of jobs in the queue.",
    "AssocGrpWallLimit": "Your account has used up its computing time.",
    "AssocMaxCpuPerJobLimit": "You asked for more CPUs than a job of your account may have.",
    "AssocMaxJobsLimit": "You have reached your account's limit of running jobs.",
    "AssocMaxNodePerJobLimit": "You asked for more nodes than a job of your account may have.",
    "AssocMaxWallDurationPerJobLimit": "You asked for more time than a job of your account may have.",
    "BadConstraints": "No node has what the job asks for, so it will not start.",
    "BeginTime": "The job's earliest start time is not reached yet, for instance because it was requeued.",
    "Cleaning": "The job is being requeued.",
    "Dependency": "The job is waiting for another job to end.",
    "DependencyNeverSatisfied": "A job that this one depends on did not end as required, so this job will not start.",
    "InactiveLimit": "The job was inactive for too long.",
    "InvalidAccount": "The job's account is not valid at the moment.",
    "InvalidQOS": "The job's QOS is not valid at the moment.",
    "JobArrayTaskLimit": "The job array has reached its limit of running tasks.",
    "JobHeldAdmin": "An administrator is holding the job.",
    "JobHeldUser": "The job is held; its owner can release it.",
    "JobHoldMaxRequeue": "The job was requeued too often and is now held.",
    "Licenses": "The job is waiting for a software licence.",
    "MaxCpuPerAccount": "Jobs of your account already use all the CPUs it may use at once.",
    "MaxGRESPerAccount": "Jobs of your account already use all the GPUs it may use at once.",
    "MaxJobsPerAccount": "Your account has reached its limit of running jobs.",
    "MaxMemPerLimit": "You asked for more memory than a job may have here.",
    "NodeDown": "A node that the job needs is down.",
    "Nodes required for job are DOWN": "Nodes that the job needs are down, drained or reserved for more urgent jobs.",
    "PartitionConfig": "The job asks for more than this partition allows.",
    "PartitionDown": "The partition is closed at the moment.",
    "PartitionInactive": "The partition does not start jobs at the moment.",
    "PartitionNodeLimit": "You asked for more nodes than this partition has, or than are up now.",
    "PartitionTimeLimit": "You asked for more time than this partition allows.",
    "Priority": "Jobs with a higher priority are ahead of this one.",
    "Prolog": "The node is being prepared for the job.",
    "QOSGrpCpuLimit": "Jobs in this QOS already use all the CPUs it may use at once.",
    "QOSGrpGRES": "Jobs in this QOS already use all the GPUs it may use at once.",
    "QOSGrpJobsLimit": "This QOS has reached its limit of running jobs.",
    "QOSGrpNodeLimit": "Jobs in this QOS already use all the nodes it may use at once.",
    "QOSJobLimit": "This QOS has reached its limit of running jobs.",
    "QOSMaxCpuPerUserLimit": "Your running jobs use all the CPUs that one user may have in this QOS.",
    "QOSMaxGRESPerJob": "You asked for more GPUs than one job may have in this QOS.",
    "QOSMaxGRESPerUser": "Your running jobs use all the GPUs that one user may have in this QOS.",
    "QOSMaxJobsPerUserLimit": "You have reached the limit of running jobs that one user may have in this QOS.",
    "QOSMaxMemoryPerUser": "Your running jobs use all the memory that one user may have in this QOS.",
    "QOSMaxNodePerUserLimit": "Your running jobs use all the nodes that one user may have in this QOS.",
    "QOSMaxWallDurationPerJobLimit": "You asked for more time than one job may have in this QOS.",
    "QOSMinGRES": "You asked for fewer GPUs than a job must have in this QOS.",
    "Job's QOS not permitted to use this partition": "This QOS may not be used in this partition, so the job will "
    "not start.",
    "Job's account not permitted to use this partition": "Your account may not use this partition, so the job will "
    "not start.",
    "QOSNotAllowed": "This QOS may not be used in this partition, so the job will not start.",
    "QOSResourceLimit": "Jobs in this QOS already use all that it may use at once.",
    "QOSTimeLimit": "This QOS has used up its computing time.",
    "ReqNodeNotAvail": "A node that the job needs is down, drained or reserved.",
    "Reservation": "The job is waiting for its reservation to begin.",
    "ReservationDeleted": "The job's reservation was deleted, so the job will not start.",
    "Resources": "The job is next in line and is waiting for nodes to become free.",
    "SystemFailure": "Slurm had an internal error.",
    "job requeued in held state": "The job was requeued and is held.",
    "launch failed requeued held": "The job could not be started on its node and is now held.",
    "user env retrieval failed requeued held": "Slurm could not read your login environment on the node, so the job "
    "is held.",
}

# What Slurm adds to ReqNodeNotAvail after a comma.
_NODE_REASONS = {
    "Reserved for maintenance": "The nodes are reserved for maintenance that begins before this job would end. With "
    "a shorter wall time it may start before the maintenance; otherwise it starts afterwards.",
    "May be reserved for other job": "Nodes that the job needs may be reserved for another job. With a shorter wall "
    "time it may start sooner.",
    "UnavailableNodes": "Nodes that the job needs are down, drained or reserved.",
}

# For the limits that are not named above: Slurm has a reason for each resource.
_REASON_FAMILIES = {
    "AssocGrp": "Your account has reached a limit for all its jobs together",
    "AssocMax": "Your account has reached a limit for one user or one job",
    "QOSGrp": "This QOS has reached a limit for all its jobs together",
    "QOSMax": "You have reached a limit for one user or one job in this QOS",
    "QOSMin": "The job is too small for this QOS",
    "Max": "You have reached a limit for one user or one account",
}

# Of the other final states: exit codes and cancels are told apart in `_record`.
_CAUSES = {
    "BOOT_FAIL": (Cause.NODE_FAILED, "{node} could not be started (BOOT_FAIL)."),
    "DEADLINE": (Cause.WALL_TIME, "The job reached its deadline."),
    "NODE_FAIL": (Cause.NODE_FAILED, "{node} failed, which ended the job (NODE_FAIL)."),
    "OUT_OF_MEMORY": (
        Cause.OUT_OF_MEMORY,
        "Slurm ended the job because it used more memory than it asked for (OUT_OF_MEMORY).",
    ),
    "PREEMPTED": (Cause.PREEMPTED, "Slurm ended the job to make room for one with a higher priority (PREEMPTED)."),
    "TIMEOUT": (WALL_TIME.cause, WALL_TIME.message),
}

NO_ANSWER = re.compile(
    r"Unable to contact slurm controller|Slurm backup controller in standby mode|"
    r"Socket timed out|Zero Bytes were transmitted|Insane message length|Message (?:receive|send) failure|"
    r"Unexpected message rec(?:ei|ie)ved|Header lengths are longer than data|Incompatible versions of client|"
    r"Protocol authentication error|[Mm]unge (?:encode|decode) failed|If munged is up|"
    r"Connection (?:refused|timed out|reset)|Communication connection failure|Communications? shutdown failure|"
    r"No route to host|Network is unreachable|Unable to resolve|Could not establish a configuration source|"
    r"Unable to process configuration file"
)
_VERDICT = re.compile(r"^\w+: error: (?:Batch job submission failed|Kill job error on job id \w+): (.*)$", re.MULTILINE)
_NO_CONFIGURATION = re.compile(
    r"Could not establish a configuration source|"
    r"(?:unable to status|No such) file (?:or directory: )?\S*slurm\.conf|error: .*slurm\.conf: No such file"
)
_ENDED_BEFORE = re.compile(r"Invalid job id specified|already completing or completed", re.IGNORECASE)


class Slurm:
    """Slurm. The listing's tag is the job's comment, or its name where the site needs the comment."""

    name = "slurm"
    template = "slurm.sh.j2"
    listen_ip = "0.0.0.0"  # noqa: S104 - the Hub connects from another machine
    silent_when_empty = False
    job_id_pattern = _OUR_JOB.pattern
    # The folder is one that every node has; the launcher changes to the user's. The script opens its own log, which it
    # can do after it has made the folder. "ALL" is all that sbatch has, which is next to nothing: it is started with a
    # small environment. NONE and lists of names make the node run a login shell first; a slow one leaves the job held.
    submit_command: tuple[str, ...] = (
        "sbatch",
        "--parsable",
        "--ignore-pbs",
        "--chdir=/",
        "--output=/dev/null",
        "--export=ALL",
    )
    long_options = True
    joined_options: Mapping[str, str] = {"gres": ","}
    option_patterns: Mapping[str, str] = {
        "job-name": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
        "comment": r"[a-z][a-z0-9]{4,63}",
        "partition": names.pattern("slurm", "partition"),
        "time": r"(\d{1,4}-)?\d{2,4}:\d\d:\d\d",
        "nodes": COUNT,
        "exclusive": "",
        "mem": r"\d{1,9}M|0",
        "ntasks-per-node": COUNT,
        "cpus-per-task": COUNT,
        "gres": rf"gpu(:{names.pattern('slurm', 'gpu type')})?:{COUNT}",
        "account": names.pattern("slurm", "account"),
        "qos": names.pattern("slurm", "qos"),
        "reservation": names.pattern("slurm", "reservation"),
        "constraint": names.pattern("slurm", "feature", 2000),
        "requeue": "",
        "no-requeue": "",
        "signal": rf"B:USR1@{COUNT}",
        "dependency": rf"afternotok:{_OUR_JOB.pattern}",
        "kill-on-invalid-dep": "yes",
    }

    def __init__(self, leave_out: Collection[str] = (), tag: str = "comment"):
        """`leave_out` are options that sbatch is not given, `tag` is the one that has the Hub's mark."""
        self._leave_out = frozenset(leave_out)
        self._tag = tag
        if "export" in self._leave_out:
            self.submit_command = tuple(word for word in self.submit_command if not word.startswith("--export="))

    def options(self, resources: Resources, label: JobLabel) -> list[tuple[str, str]]:
        """Options of sbatch by their long names."""
        ours = [
            ("job-name", label.tag if self._tag == "job-name" else label.name),
            *([("comment", label.tag)] if self._tag == "comment" else []),
            *([("partition", resources.partition)] if resources.names_partition else []),
            ("time", resources.walltime.clock()),
            *_size(resources),
            *_choices(resources),
            *_ends(resources),
            *_follows(label),
        ]
        return _joined([pair for pair in ours if pair[0] not in self._leave_out], resources.directives)

    def parse_submit(self, out: str) -> str:
        """`12`, or `12;cluster` where sbatch was told one; the listing knows the number alone."""
        match = _SUBMITTED.fullmatch(out.removesuffix("\n"))
        if not match:
            raise ValueError(f"sbatch printed this instead of a job id: {out[:200]!r}")
        return match[1]

    def query_command(self, mark: str) -> list[str]:
        """squeue's own layout. The mark stands around every field, so a comment can hold anything and forge nothing."""
        fields = [*_FIELDS, "%k" if self._tag == "comment" else "%j"]
        return ["squeue", "--all", "--states=all", f"--format={mark}{mark.join(fields)}{mark}"]

    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id. An answer without squeue's own header line, or one that breaks off, is not believed."""
        # Text between jobs, then a job's fields: the pattern repeats, header included.
        parts = out.split(mark)
        width = len(_FIELDS) + 2
        if len(parts) <= width or len(parts) % width != 1:
            raise ValueError(f"squeue's listing is incomplete: {out[-200:]!r}")
        jobs: dict[str, JobStatus] = {}
        for start in range(1, len(parts) - 1, width):
            job_id, *fields = parts[start : start + width - 1]
            if _ANY_JOB.fullmatch(job_id):
                # Clusters of a federation may both list a job; which of them is right can't be told here.
                jobs[job_id] = JobStatus(JobState.UNKNOWN) if job_id in jobs else _status(*fields)
        return jobs

    def cancel_command(self, job_id: str) -> list[str]:
        """Ends the job; SIGTERM first, SIGKILL after the site's KillWait."""
        return ["scancel", _checked(job_id)]

    def details_command(self, job_id: str) -> list[str]:
        """All that the controller remembers, names and comments of users among it."""
        return ["scontrol", "show", "job", _checked(job_id)]

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """One job's facts. The mark ends every field; a bar before it, for a digit would belong to the width."""
        fields = ",".join(f"{name}:{width}|{mark}" for name, width in _ONE_JOB.items())
        return ["squeue", "--all", "--states=all", "--noheader", f"--jobs={_checked(job_id)}", f"--Format={fields}"]

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """Slurm counts how often it put the job back; a job that waits has not been started again yet."""
        said = _one_job(out, job_id, mark)
        if not re.fullmatch(r"\d{1,10}", said.get("RestartCnt", ""), re.ASCII):
            raise ValueError(f"squeue does not say how often the job was started: {out[:200]!r}")
        waits = _STATES.get(said["State"]) in (JobState.PENDING, JobState.HELD)
        return int(said["RestartCnt"]) + (not waits or said["State"] == "CONFIGURING")

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """The controller knows exit codes and reasons, and forgets; the accounting knows who cancelled, and is late."""
        columns = f"--format={','.join(_COLUMNS)}"
        accounting = ["sacct", "--allocations", "--noheader", "--parsable2", columns, f"--jobs={_checked(job_id)}"]
        return [self.runs_command(job_id, mark), accounting]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By the controller where it still knows the job: the accounting says CANCELLED before the job is gone."""
        past = _accounted(outs[1], job_id)
        said = _one_job(outs[0], job_id, mark) or past
        if _STATES.get(said.get("State", "")) is not JobState.ENDED:
            return None
        record = _record(said, account(int(past["By"])) if past.get("By") else "")
        return replace(record, node=_said(said.get("NodeList", "")))

    def visibility_command(self) -> list[str]:
        """The configuration, where `PrivateData` stands. It is text for people too, but no user writes any of it."""
        return ["scontrol", "show", "config"]

    def parse_visibility(self, out: str, account: str) -> bool:
        """PrivateData=jobs, or labels of MCS kept private, hide jobs from all but Slurm's own account and root.

        Operators see all too, which is not asked here.
        """
        config = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        known = {name.strip(): value.strip().lower() for name, value in config.items()}
        if account in ("root", known.get("SlurmUser", "").partition("(")[0]):
            return "PrivateData" in known
        private = known.get("PrivateData", "jobs").split(",")
        return "jobs" not in private and "privatedata" not in known.get("MCSParameters", "")

    def unreachable(self, answer: Answer) -> bool:
        """Slurm's exit code is 1 for everything: only its words tell."""
        if answer.code < 0:
            return True
        # Where it was refused in the end, what came before is not the reason: a site's plugin may say anything.
        verdicts = _VERDICT.findall(answer.err)
        return bool(NO_ANSWER.search(verdicts[-1] if verdicts else answer.err + answer.out))

    def wrong_type(self, answer: Answer) -> str:
        """No other scheduler has commands of these names."""
        return ""

    def not_set_up(self, answer: Answer) -> str:
        """Slurm looks for its configuration before it asks anybody."""
        if not _NO_CONFIGURATION.search(answer.err):
            return ""
        return (
            "name the file as SLURM_CONF in scheduler.variables, such as /cm/shared/apps/slurm/etc/slurm.conf, and "
            "check that the Hub's account and the users may read it"
        )

    def already_gone(self, answer: Answer) -> bool:
        """scancel mostly exits with 0 then; older controllers complain."""
        return not self.unreachable(answer) and bool(_ENDED_BEFORE.search(answer.message))

    def explain(self, reason: str) -> str:
        """A sentence for the reasons that are common, the reason itself for others."""
        key = _reason_key(reason)
        if key in _NOTHING:
            return ""
        if key == "ReqNodeNotAvail":
            return next((words for detail, words in _NODE_REASONS.items() if detail in reason), _REASONS[key])
        family = next((words for prefix, words in _REASON_FAMILIES.items() if key.startswith(prefix)), None)
        return _REASONS.get(key) or (f"{family} ({key})." if family else reason)


def _joined(ours: list[tuple[str, str]], theirs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Ours and the site's options, the site's last, so that they win; of two wishes that can both hold, both do.

    sbatch heeds the last `--gres` and the last `--constraint` alone.
    """
    pairs = list(ours)
    for option, value in theirs:
        before = next((pair for pair in pairs if pair[0] == option and value), None)
        joined = {"gres": ",".join, "constraint": _all_of}.get(option)
        if before and joined:
            pairs.remove(before)
            pairs.append((option, joined((before[1], value))))
        else:
            pairs.append((option, value))
    return pairs


def _size(resources: Resources) -> Iterator[tuple[str, str]]:
    yield "nodes", str(resources.nodes)
    if resources.whole_nodes:
        # Without a number of tasks Slurm counts one per CPU, which is what mpirun needs to know. Memory is not
        # part of "exclusive": 0 is how all of a node's memory is asked for.
        yield "exclusive", ""
        yield "mem", _mebibytes(resources) or "0"
        return
    if resources.cpus is not None:
        yield from _cpus(resources.nodes, resources.cpus)
    if resources.memory is not None:
        yield "mem", _mebibytes(resources)


def _cpus(nodes: int, cpus: int) -> Iterator[tuple[str, str]]:
    """One node: one program with many threads. More: as many tasks as CPUs, or mpirun would start one per node."""
    tasks, threads = (1, cpus) if nodes == 1 else (cpus, 1)
    yield "ntasks-per-node", str(tasks)
    yield "cpus-per-task", str(threads)


def _mebibytes(resources: Resources) -> str:
    return f"{resources.memory.mib}M" if resources.memory else ""


def _choices(resources: Resources) -> Iterator[tuple[str, str]]:
    if resources.gpus:
        kind = "" if resources.gpu_type in (None, ANY_GPU) else f":{resources.gpu_type}"
        yield "gres", f"gpu{kind}:{resources.gpus}"
    named = [
        ("account", resources.account),
        ("qos", resources.qos),
        ("reservation", resources.reservation),
        ("constraint", _all_of(resources.features)),
    ]
    yield from ((option, value) for option, value in named if value)


def _all_of(features: tuple[str, ...]) -> str:
    """Features that a node must all have; one that is a choice itself keeps together."""
    if len(features) == 1:
        return features[0]
    return "&".join(f"({one})" if "|" in one and one[0] not in "([" else one for one in features)


def _ends(resources: Resources) -> Iterator[tuple[str, str]]:
    # A second run is another server at another place, so it is for those who are ready to wait for it.
    yield "requeue" if resources.requeue else "no-requeue", ""
    if resources.warning_s:
        # To the script alone. Slurm looks once a minute, so it may come that much earlier.
        yield "signal", f"B:USR1@{resources.warning_s}"


def _follows(label: JobLabel) -> Iterator[tuple[str, str]]:
    if label.follows:
        yield "dependency", f"afternotok:{label.follows}"
        # Else it would wait for ever when the other one ends well.
        yield "kill-on-invalid-dep", "yes"


def _status(word: str, host: str, owner: str, starts: str, reason: str, comment: str) -> JobStatus:
    state, key = _STATES.get(word, JobState.UNKNOWN), _reason_key(reason)
    if state is JobState.PENDING and key in _HELD_FOR_A_WHILE | _HOPELESS:
        state = JobState.HELD
    return JobStatus(
        state=state,
        host=None if state is JobState.ENDED else _said(host) or None,
        reason=_said(reason),
        owner=owner,
        tag=_said(comment),
        starts=_said(starts),
        native_state=word,
        hopeless=word in _HOPELESS_STATES or (state is JobState.HELD and key in _HOPELESS),
    )


def _said(text: str) -> str:
    return "" if text.strip() in _NOTHING else text.strip()


def _reason_key(reason: str) -> str:
    """`ReqNodeNotAvail, UnavailableNodes:n1` and `launch_failed_requeued_held` without what varies."""
    return re.split(r"[,:(]", reason, maxsplit=1)[0].replace("_", " ").strip()


def _checked(job_id: str) -> str:
    if not _OUR_JOB.fullmatch(job_id):
        raise ValueError(f"not the id of a job: {job_id[:100]!r}")
    return job_id


def _one_job(out: str, job_id: str, mark: str) -> dict[str, str]:
    """What squeue says of one job, by the names of `_ONE_JOB`; nothing where it does not tell of this job, and once."""
    *parts, rest = out.split(f"|{mark}")
    if parts:
        # A notice of the site may stand before it.
        parts[0] = parts[0].rpartition("\n")[2]
    if rest.strip() or len(parts) != len(_ONE_JOB):
        return {}
    said = dict(zip(_ONE_JOB, map(str.strip, parts), strict=True))
    return said if said["JobID"] == job_id else {}


def _accounted(out: str, job_id: str) -> dict[str, str]:
    """The last record that sacct has of a job, in squeue's words; `By` is the number of who cancelled it."""
    rows = [line.split("|") for line in out.splitlines()]
    rows = [row for row in rows if len(row) == len(_COLUMNS) and row[0] == job_id]
    if not rows:
        return {}
    _, state, code, nodes = rows[-1]
    word, _, by = state.partition(" by ")
    return {"State": word, "By": by if by.isdecimal() else "", "exit_code": code, "NodeList": nodes}


def _record(said: dict[str, str], by: str) -> Record:
    word, reason = said["State"], said.get("Reason", "")
    code, number = _exit_code(said["exit_code"])
    if word == "FAILED" and number == _COULD_NOT_START:
        return Record(Cause.NOT_STARTED, "The job's script could not be started on its node.")
    if word == "FAILED" and not code and not number:
        return Record(Cause.UNKNOWN, f"The job failed; Slurm's reason is {reason or 'not known'}.")
    if word in ("COMPLETED", "FAILED"):
        return exited(None if number else code, number or None)
    if word == "CANCELLED" and reason == "DependencyNeverSatisfied":
        return Record(Cause.NOT_STARTED, "The follow-up job was removed because the job before it finished normally.")
    if word == "CANCELLED":
        return cancelled(by, code or None, number or None)
    cause, message = _CAUSES[word]
    # 125 is how Slurm writes OUT_OF_MEMORY; no signal has that number.
    number = number if number <= signal.SIGRTMAX else 0
    return Record(cause, message.replace("{node}", _node(said.get("NodeList", ""))), code or None, number or None)


def _exit_code(text: str) -> tuple[int, int]:
    """Exit code and signal: sacct prints `3:0`, squeue what wait(2) gave, 768."""
    if match := _EXIT_CODE.fullmatch(text):
        return int(match[1]), int(match[2])
    status = int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else 0
    return status >> 8 & 0xFF, status & 0x7F


def _node(names: str) -> str:
    """`n1` as "Node n1"; of several it is not known which."""
    is_one = names not in _NOTHING and not re.search(r"[\[,\s]", names)
    return f"Node {names}" if is_one else "A node of the job"
