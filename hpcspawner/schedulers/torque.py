"""Torque 6 and newer: qsub, qstat, qdel. Slurm brings commands of the same names; they are not these."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from xml.etree import ElementTree

from hpcspawner.language import _
from hpcspawner.schedulers import pbs, pbs_facts
from hpcspawner.schedulers.backend import Backend, Size, of_pbs
from hpcspawner.schedulers.base import COUNT, Answer, JobLabel, Resources
from hpcspawner.schedulers.nodes import Node, Queued
from hpcspawner.schedulers.pbs import STATES, Pbs
from hpcspawner.schedulers.pbs_inventory import TorqueInventory
from hpcspawner.schedulers.records import FOLLOW_UP_REMOVED, WALL_TIME, cancelled
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site import names
from hpcspawner.units import epoch

# Exit codes are errno's, or the last eight bits of the numbers in Torque's pbs_error_db.h (15001 is 153).
_NO_ANSWER = frozenset(
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
_NO_DEFAULT_SERVER = 188  # PBSE_NOSERVER: no server specified
_NO_SERVER = re.compile(r"[Nn]o default server|(?:server name|pbs_default|server_name).*(?:not found|empty|missing)")
_ERRORS = pbs.Errors(
    no_answer=_NO_ANSWER,
    no_answer_words=re.compile(r"cannot connect to server|Unable to communicate with|could not connect to trqauthd"),
    # Torque's own errors, unless they are of those above.
    server_says=range(129, 248),
    gone=frozenset({153, 170}),  # PBSE_UNKJOBID; PBSE_BADSTATE: for qdel, the job is complete
)

# exit_status where it is no exit code of the script's: JOB_EXEC_OVERLIMIT_MEM, _WT and _CPUT of pbs_job.h.
_LIMITS = {
    -10: Record(Cause.OUT_OF_MEMORY, _("Torque ended the job because it used more memory than it asked for.")),
    -11: WALL_TIME,
    -12: Record(Cause.WALL_TIME, _("Torque ended the job because it used up its CPU time.")),
}

# What Slurm's qstat says of -x, and Slurm's qsub where no file is named. (Torque's are no Perl.)
_SLURMS = re.compile(r"^Unknown option: |^Usage:\n\s+qsub \[-a start_time\]", re.MULTILINE)
_XML_FORBIDS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")

_RULES = pbs.rules(
    {"t": "each server is one job", "P": "the job is submitted as its user", "F": "the job script takes no arguments"},
    ("nodes", "mem", "pmem", "naccesspolicy", "qos", "advres"),
    # A comma or a colon begins another resource.
    qos="_.+-@",
    reservation="_.+-@",
)


class Torque(Pbs):
    """Torque."""

    name = "torque"
    title = "Torque"
    rules = _RULES
    inventory = TorqueInventory()
    silent_when_empty = True
    errors = _ERRORS
    limits = _LIMITS
    # `-C ""`: no line of the script is an option. `-S`: else the login shell reads the script, whichever that is. The
    # script opens its own log; Torque's would be copied only when all is over.
    submit_command: tuple[str, ...] = ("qsub", "-C", "", "-S", "/bin/bash", "-j", "oe", "-o", "/dev/null", "-m", "n")
    option_patterns: Mapping[str, str] = {
        "N": r"[a-z][a-z0-9]{4,14}",
        "q": names.pattern(_RULES.signs, "partition"),
        "l": "|".join(
            (
                rf"nodes={COUNT}(:ppn={COUNT})?(:gpus={COUNT})?(:{names.pattern(_RULES.signs, 'feature')})*",
                r"walltime=\d{2,6}:\d\d:\d\d",
                r"p?mem=\d{1,9}mb",
                "naccesspolicy=singlejob",
                rf"(qos|advres)={names.pattern(_RULES.signs, 'qos')}",
            )
        ),
        "A": names.pattern(_RULES.signs, "account"),
        "r": "[yn]",
        "W": rf"depend=afternotok:{pbs.SINGLE_JOB.pattern}",
    }

    def resources(self, wanted: Resources) -> Iterator[str]:
        """qsub takes `-l` as often as it comes."""
        yield ":".join(_nodes(wanted))
        yield f"walltime={wanted.walltime.hours_clock()}"
        yield from _memory(wanted)
        if wanted.whole_nodes:
            yield "naccesspolicy=singlejob"
        if wanted.qos:
            yield f"qos={wanted.qos}"
        if wanted.reservation:
            yield f"advres={wanted.reservation}"

    def backend(self, resources: Resources, size: Size) -> Backend:
        """By qsub and pbsdsh. As many tasks on a node as it may have cores, and nodes for the rest."""
        cores = size.cores
        tasks = f"nodes={{(n + {cores - 1}) // {cores}}}:ppn={{min(n, {cores})}},pmem={size.of_core}mb"
        worker = f"nodes=1:ppn={cores},mem={size.memory.mib}mb"
        return of_pbs(self.options(resources, JobLabel("", "")), tasks, worker, ("pbsdsh", "-h", "{host}"))

    def query_command(self, mark: str) -> list[str]:
        """XML, whose values are quoted, so the mark is not needed. Without ids it lists all jobs that may be seen."""
        return ["qstat", "-x"]

    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id. An id that is printed twice is not believed."""
        jobs: dict[str, JobStatus] = {}
        for job_id, attributes in _jobs(out):
            jobs[job_id] = JobStatus(JobState.UNKNOWN) if job_id in jobs else _status(attributes)
        return jobs

    def details_command(self, job_id: str) -> list[str]:
        """All that the server remembers, as text, which a user's line breaks can forge."""
        return ["qstat", "-f", pbs.single(job_id)]

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """XML about one job."""
        return ["qstat", "-x", pbs.single(job_id)]

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """`start_count`, which is not there before the first start."""
        return pbs.count(_one_job(out, job_id).get("start_count", ""))

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """XML about one job."""
        return [self.runs_command(job_id, mark)]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By `exit_status`. Torque does not tell who cancelled a job."""
        attributes = _one_job(outs[0], job_id)
        if STATES.get(attributes.get("job_state", "")) is not JobState.ENDED:
            return None
        status = attributes.get("exit_status", "")
        if "Job deleted as result of dependency" in attributes.get("comment", ""):
            return FOLLOW_UP_REMOVED
        if pbs.is_exit_status(status):
            return self.ended_with(int(status), pbs.first_host(attributes.get("exec_host", "")))
        # A job that was deleted before its start has no exit_status.
        return cancelled() if "start_time" not in attributes else None

    def nodes_command(self, mark: str) -> list[str]:
        """XML."""
        return ["pbsnodes", "-x"]

    def parse_nodes(self, out: str, mark: str) -> Iterator[Node]:
        """Of all queues: Torque does not tie nodes to them."""
        return pbs_facts.torque_nodes(out)

    def waiting_command(self, mark: str) -> list[str]:
        """Text, of which no user writes any."""
        return ["qstat", "-Q", "-f"]

    def parse_waiting(self, out: str, mark: str) -> dict[str, Queued]:
        """Counts; their order is the other scheduler's, Maui's or Moab's."""
        return pbs_facts.torque_waiting(out)

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


def _nodes(resources: Resources) -> Iterator[str]:
    yield f"nodes={resources.nodes}"
    if resources.cpus is not None:
        yield f"ppn={resources.cpus}"
    if resources.gpus:
        yield f"gpus={resources.gpus}"
        # Torque knows no types of GPUs; sites make them properties of nodes.
        yield from pbs.gpu_type(resources)
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
    state = STATES.get(word, JobState.UNKNOWN)
    # It stays when the job has ended, so the state comes first. `n2/0-1+n1/0-1`: the script runs on n2.
    host = "" if state is JobState.ENDED else attributes.get("exec_host", "")
    return JobStatus(
        state=state,
        host=pbs.first_host(host) or None,
        reason=attributes.get("comment", "").strip(),
        owner=pbs.owner(attributes.get("Job_Owner", "")),
        tag=attributes.get("Job_Name", ""),
        starts_at=epoch(attributes.get("start_time", "")),
        native_state=word,
    )
