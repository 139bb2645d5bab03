"""Torque 6 and newer: qsub, qstat, qdel. Slurm brings commands of the same names; they are not these."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from xml.etree import ElementTree

from hpcspawner.schedulers.base import COUNT, Answer, JobLabel, Resources
from hpcspawner.schedulers.records import WALL_TIME, cancelled, exited
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site import names
from hpcspawner.site.profile import ANY_GPU

# Torque writes `12.server` and takes `12` as well; an array is `12[].server`, one of its tasks `12[3].server`.
_SUBMITTED = re.compile(r"\d{1,18}(?:\[\d{0,9}\])?(?:\.[\w.-]{1,255})?", re.ASCII)
_SINGLE_JOB = re.compile(r"\d{1,18}(?:\.[\w.-]{1,255})?", re.ASCII)

# qstat(1B) of Torque 6.1: the job's state. The last ones are those of OpenPBS' qstat(1B).
_STATES = {
    "C": JobState.ENDED,  # completed after having run
    # It holds its node, and whether it is rerun is not decided: no server that runs, and not gone either.
    "E": JobState.UNKNOWN,  # exiting after having run
    "H": JobState.HELD,  # held
    "Q": JobState.PENDING,  # queued, eligible to run or be routed
    "R": JobState.RUNNING,  # running
    "T": JobState.PENDING,  # being moved to a new location
    "W": JobState.PENDING,  # waiting for its execution time to be reached
    "S": JobState.SUSPENDED,  # suspended
    "B": JobState.UNKNOWN,  # an array of which at least one job has started; ours are no arrays
    "F": JobState.ENDED,  # finished
    "M": JobState.UNKNOWN,  # moved to another server, where it may well run
    "X": JobState.ENDED,  # a finished job of an array
    "U": JobState.UNKNOWN,  # suspended because the workstation is in use
}

# Exit codes are errno's, or the last eight bits of the numbers in Torque's pbs_error_db.h (15001 is 153).
_NO_ANSWER_CODES = frozenset(
    {
        16,  # PBSE_CONNECT: can not establish connection
        29,  # PBSE_SERVER_NOT_FOUND: could not connect to batch server
        30,  # PBSE_SERVER_BUSY
        33,  # could not connect to trqauthd
        110,  # ETIMEDOUT
        111,  # ECONNREFUSED: pbs_server is down
        113,  # EHOSTUNREACH
        160,  # PBSE_IFF_NOT_FOUND: trqauthd unable to authenticate
        162,  # PBSE_BADHOST: unknown host, or access from here not allowed
        164,  # PBSE_SYSTEM: system error
        165,  # PBSE_INTERNAL: server internal error
        185,  # PBSE_PROTOCOL: batch protocol error
        187,  # PBSE_NOCONNECTS: no free connections
        210,  # PBSE_DISPROTO: bad request protocol
        214,  # PBSE_SVRDOWN: server shutting down
        224,  # PBSE_NORELYMOM: the server could not connect to the node; the job is still there
        237,  # PBSE_TIMEOUT
        *range(248, 252),  # PBSE_SOCKET_FAULT, _WRITE, _READ, _CLOSE
    }
)
_NO_ANSWER = re.compile(r"cannot connect to server|Unable to communicate with|could not connect to trqauthd")
_NO_DEFAULT_SERVER = 188  # PBSE_NOSERVER: no server specified
_NO_SERVER = re.compile(r"[Nn]o default server|(?:server name|pbs_default|server_name).*(?:not found|empty|missing)")
# Numbers of Torque's own errors: the server has answered, unless they are of those above.
_TORQUES_ERRORS = range(129, 248)
_UNKNOWN_JOB = 153  # PBSE_UNKJOBID
_WRONG_STATE = 170  # PBSE_BADSTATE: for qdel, the job is complete

# exit_status where it is no exit code of the script's: JOB_EXEC_OVERLIMIT_MEM, _WT and _CPUT of pbs_job.h. A signal is
# added to 256 by Torque, and to 128 by the shell that runs the script.
_SIGNALS, _SHELL_SIGNALS, _LAST_SIGNAL = 256, 128, 64
_TERM = 15
_LIMITS = {
    -10: Record(Cause.OUT_OF_MEMORY, "Torque ended the job because it used more memory than it asked for."),
    -11: WALL_TIME,
    -12: Record(Cause.WALL_TIME, "Torque ended the job because it used up its CPU time."),
}

# What Slurm's qstat says of -x, and Slurm's qsub where no file is named. (Torque's are no Perl.)
_SLURMS = re.compile(r"^Unknown option: |^Usage:\n\s+qsub \[-a start_time\]", re.MULTILINE)
# `alice@head`; the name itself may have an `@`.
_HOST_OF_OWNER = re.compile(r"@[^@]*\Z")
_XML_FORBIDS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

# Comments of Torque's own scheduler, without "Not Running: " and the full stop.
_REASONS = {
    "Draining system to allow starving job to run": "The scheduler is keeping nodes free for a job that has waited a "
    "long time.",
    "Job would cross dedicated time boundary": "The job would not end before a time that is reserved for other work.",
    "No available resources on nodes": "Other jobs are using what you asked for.",
    "Not enough of the right type of nodes are available": "The nodes that you asked for are busy or down.",
    "Queue job limit has been reached": "This queue has reached its limit of running jobs.",
    "Queue not started": "The queue does not start jobs at the moment.",
    "Server job limit has been reached": "The cluster has reached its limit of running jobs.",
    "User has reached queue running job limit": "You have reached the limit of running jobs that one user may have "
    "in this queue.",
    "User has reached server running job limit": "You have reached the limit of running jobs that one user may have.",
}


class Torque:
    """Torque. The listing's tag is the job's name, the only free text that every version shows."""

    name = "torque"
    template = "torque.sh.j2"
    listen_ip = "0.0.0.0"  # noqa: S104 - the Hub connects from another machine
    silent_when_empty = True
    job_id_pattern = _SUBMITTED.pattern
    # `-C ""`: no line of the script is an option. `-S`: else the login shell reads the script, whichever that is. The
    # script opens its own log; Torque's would be copied only when all is over.
    submit_command: tuple[str, ...] = ("qsub", "-C", "", "-S", "/bin/bash", "-j", "oe", "-o", "/dev/null", "-m", "n")
    long_options = False
    # qsub takes `-l` as often as it comes.
    joined_options: Mapping[str, str] = {}
    option_patterns: Mapping[str, str] = {
        "N": r"[a-z][a-z0-9]{4,14}",
        "q": names.pattern("torque", "partition"),
        "l": "|".join(
            (
                rf"nodes={COUNT}(:ppn={COUNT})?(:gpus={COUNT})?(:{names.pattern('torque', 'feature')})*",
                r"walltime=\d{2,6}:\d\d:\d\d",
                r"p?mem=\d{1,9}mb",
                "naccesspolicy=singlejob",
                rf"(qos|advres)={names.pattern('torque', 'qos')}",
            )
        ),
        "A": names.pattern("torque", "account"),
        "r": "[yn]",
        "W": rf"depend=afternotok:{_SINGLE_JOB.pattern}",
    }

    def __init__(self, leave_out: Collection[str] = ()):
        """`leave_out` are options, or resources of `-l`, that qsub is not given."""
        self._leave_out = frozenset(leave_out)

    def options(self, resources: Resources, label: JobLabel) -> list[tuple[str, str]]:
        """Options of qsub."""
        ours = [
            ("N", label.tag),
            *([("q", resources.partition)] if resources.names_partition else []),
            *(("l", wanted) for wanted in _wanted(resources)),
            *([("A", resources.account)] if resources.account else []),
            # A second run is another server at another place, so it is for those who are ready to wait for it.
            ("r", "y" if resources.requeue else "n"),
            *([("W", f"depend=afternotok:{label.follows}")] if label.follows else []),
        ]
        return [*(pair for pair in ours if not self._is_left_out(*pair)), *resources.directives]

    def _is_left_out(self, option: str, value: str) -> bool:
        return (value.partition("=")[0] if option == "l" else option) in self._leave_out

    def parse_submit(self, out: str) -> str:
        """`12.server`, or `12` from Slurm's qsub: as the listing writes it."""
        job_id = out.removesuffix("\n")
        if not _SUBMITTED.fullmatch(job_id):
            raise ValueError(f"qsub printed this instead of a job id: {out[:200]!r}")
        return job_id

    def query_command(self, mark: str) -> list[str]:
        """XML, whose values are quoted, so the mark is not needed. Without ids it lists all jobs that may be seen."""
        return ["qstat", "-x"]

    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id. An id that is printed twice is not believed."""
        jobs: dict[str, JobStatus] = {}
        for job_id, attributes in _jobs(out):
            jobs[job_id] = JobStatus(JobState.UNKNOWN) if job_id in jobs else _status(attributes)
        return jobs

    def cancel_command(self, job_id: str) -> list[str]:
        """Ends the job; SIGTERM first, SIGKILL soon after."""
        return ["qdel", _checked(job_id)]

    def details_command(self, job_id: str) -> list[str]:
        """All that the server remembers, as text, which a user's line breaks can forge."""
        return ["qstat", "-f", _single(job_id)]

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """XML about one job."""
        return ["qstat", "-x", _single(job_id)]

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """`start_count`, which is not there before the first start."""
        count = _one_job(out, job_id).get("start_count", "")
        if not re.fullmatch(r"\d{1,9}", count, re.ASCII):
            raise ValueError("qstat does not say how often the job was started")
        return int(count)

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """XML about one job."""
        return [self.runs_command(job_id, mark)]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By `exit_status`. Torque does not tell who cancelled a job."""
        attributes = _one_job(outs[0], job_id)
        if _STATES.get(attributes.get("job_state", "")) is not JobState.ENDED:
            return None
        status = attributes.get("exit_status", "")
        if "Job deleted as result of dependency" in attributes.get("comment", ""):
            return Record(
                Cause.NOT_STARTED, "The follow-up job was removed because the job before it finished normally."
            )
        if re.fullmatch(r"-?\d{1,5}", status, re.ASCII):
            return replace(_ended_with(int(status)), node=attributes.get("exec_host", "").partition("/")[0])
        # A job that was deleted before its start has no exit_status.
        return cancelled() if "start_time" not in attributes else None

    def visibility_command(self) -> list[str]:
        """None: what `query_other_jobs` and the list of operators allow is seen from the jobs themselves."""
        return []

    def parse_visibility(self, out: str, account: str) -> bool:
        """Never asked."""
        return False

    def unreachable(self, answer: Answer) -> bool:
        """By exit code, and by words for commands that exit with 1."""
        if answer.code < 0 or answer.code in _NO_ANSWER_CODES:
            return True
        # In a refusal of the server's the words may be somebody else's: a site's own check says anything.
        return answer.code not in _TORQUES_ERRORS and bool(_NO_ANSWER.search(answer.err + answer.out))

    def wrong_type(self, answer: Answer) -> str:
        """Slurm's commands are known by how they refuse the options of Torque's."""
        if answer.code == 2 and _SLURMS.search(answer.err + answer.out):
            return (
                'write type = "slurm" in the profile: qsub and qstat on the Hub are those that Slurm brings, which '
                "can't list jobs as XML; or name the folder of Torque's own commands in scheduler.path"
            )
        return ""

    def not_set_up(self, answer: Answer) -> str:
        """Which server to ask, and whether that server takes jobs from this machine."""
        words = answer.err + answer.out
        if "ruserok" in words:
            return (
                "let the server accept jobs from the Hub's machine: qmgr -c 'set server submit_hosts += HUB', or "
                "qmgr -c 'set server allow_node_submit = true' where it is a node"
            )
        if answer.code == _NO_DEFAULT_SERVER or _NO_SERVER.search(words):
            return (
                "name the server as PBS_DEFAULT in scheduler.variables, or in the file server_name of Torque's folder"
            )
        return ""

    def already_gone(self, answer: Answer) -> bool:
        """Unknown or complete, in Torque's own words: an exit code of 153 alone is what Slurm's qstat gives."""
        return answer.code in (_UNKNOWN_JOB, _WRONG_STATE) and bool(answer.message)

    def explain(self, reason: str) -> str:
        """The scheduler's comment as a sentence."""
        text = reason.strip().removeprefix("Not Running:").strip().rstrip(".")
        if not text or text.startswith("Job started on"):
            return ""
        return _REASONS.get(text, f"{text}.")


def _checked(job_id: str) -> str:
    if not _SUBMITTED.fullmatch(job_id):
        raise ValueError(f"not the id of a job: {job_id[:100]!r}")
    return job_id


def _single(job_id: str) -> str:
    """For an array, or no id, qstat would print the jobs of all."""
    if not _SINGLE_JOB.fullmatch(job_id):
        raise ValueError(f"not the id of a single job: {job_id[:100]!r}")
    return job_id


def _ended_with(status: int) -> Record:
    if status in _LIMITS:
        return _LIMITS[status]
    if status < 0:
        return Record(Cause.NOT_STARTED, f"The job could not be started on its node (Torque's exit_status {status}).")
    if status == _SIGNALS + _TERM:
        return cancelled(number=_TERM)
    for base in (_SIGNALS, _SHELL_SIGNALS):
        if base < status <= base + _LAST_SIGNAL:
            return exited(None if base == _SIGNALS else status, status - base)
    return exited(status)


def _wanted(resources: Resources) -> Iterator[str]:
    yield ":".join(_nodes(resources))
    yield f"walltime={resources.walltime.hours_clock()}"
    yield from _memory(resources)
    if resources.whole_nodes:
        yield "naccesspolicy=singlejob"
    if resources.qos:
        yield f"qos={resources.qos}"
    if resources.reservation:
        yield f"advres={resources.reservation}"


def _nodes(resources: Resources) -> Iterator[str]:
    yield f"nodes={resources.nodes}"
    if resources.cpus is not None:
        yield f"ppn={resources.cpus}"
    if resources.gpus:
        yield f"gpus={resources.gpus}"
        # Torque knows no types of GPUs; sites make them properties of nodes.
        if resources.gpu_type not in (None, ANY_GPU):
            yield str(resources.gpu_type)
    yield from resources.features


def _memory(resources: Resources) -> Iterator[str]:
    """`mem` is for the whole job and works on one node only; `pmem` is for each process."""
    if resources.memory is None:
        return
    if resources.nodes == 1:
        yield f"mem={resources.memory.mib}mb"
    else:
        yield f"pmem={max(resources.memory.mib // (resources.cpus or 1), 1)}mb"


def _jobs(out: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Ids and attributes, by qstat's XML; none where it prints nothing, as it does where there are no jobs."""
    if not out.strip():
        return
    # An entity declared here would be expanded again and again; Torque declares none.
    banner, sign, rest = out.partition("<Data>")
    if sign and "<" not in banner:
        # A notice of the site may stand before it.
        out = sign + rest
    if "<!" in out:
        raise ValueError("qstat's XML holds a declaration")
    try:
        # Values are escaped, but control characters in them are not; one user's variable must not spoil all.
        root = ElementTree.fromstring(_XML_FORBIDS.sub("\ufffd", out.strip()))  # noqa: S314 - no declarations, see above
    except ElementTree.ParseError as error:
        raise ValueError(f"qstat's XML can't be read: {error}") from error
    if root.tag != "Data":
        raise ValueError(f"qstat's XML begins with {root.tag[:100]!r}, not Data")
    for job in root.iterfind("Job"):
        job_id = job.findtext("Job_Id", "")
        if job_id:
            yield job_id, {child.tag: child.text or "" for child in reversed(job)}


def _one_job(out: str, job_id: str) -> dict[str, str]:
    """The attributes of this job; none where the answer is not about it, and it alone."""
    jobs = list(_jobs(out))
    return jobs[0][1] if [found for found, _ in jobs] == [job_id] else {}


def _status(attributes: dict[str, str]) -> JobStatus:
    word = attributes.get("job_state", "")
    state = _STATES.get(word, JobState.UNKNOWN)
    # It stays when the job has ended, so the state comes first. `n2/0-1+n1/0-1`: the script runs on n2.
    host = "" if state is JobState.ENDED else attributes.get("exec_host", "")
    return JobStatus(
        state=state,
        host=host.partition("/")[0] or None,
        reason=attributes.get("comment", "").strip(),
        owner=_HOST_OF_OWNER.sub("", attributes.get("Job_Owner", "")),
        tag=attributes.get("Job_Name", ""),
        starts=attributes.get("start_time", ""),
        native_state=word,
    )
