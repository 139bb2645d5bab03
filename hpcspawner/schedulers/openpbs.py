"""OpenPBS and PBS Professional, 20 and newer: qsub, qstat with JSON, qdel."""

import calendar
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpcspawner.language import _
from hpcspawner.schedulers import pbs, pbs_facts, pbs_words
from hpcspawner.schedulers.backend import Backend, Size, of_pbs
from hpcspawner.schedulers.base import COUNT, Answer, JobLabel, Resources
from hpcspawner.schedulers.nodes import Node, Queued
from hpcspawner.schedulers.pbs import STATES, Pbs
from hpcspawner.schedulers.pbs_inventory import OpenPBSInventory
from hpcspawner.schedulers.records import FOLLOW_UP_REMOVED, WALL_TIME, cancelled
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site import names
from hpcspawner.units import epoch

# Exit codes are the last eight bits of the numbers in pbs_error.h (15001 is 153), 255 where there was no server.
_ERRORS = pbs.Errors(
    no_answer=frozenset(
        {
            160,  # PBSE_BADHOST: access from this host is not allowed
            162,  # PBSE_SYSTEM: also what qsub and qdel give where the server is down
            163,  # PBSE_INTERNAL: server internal error
            183,  # PBSE_PROTOCOL: batch protocol error
            185,  # PBSE_NOCONNECTS: no free connections
            186,  # PBSE_NOSERVER: no server to connect to
            208,  # PBSE_DISPROTO: bad request protocol
            212,  # PBSE_SVRDOWN: server shutting down
            222,  # PBSE_NORELYMOM: the server could not reach the node; the job is still there
        }
    ),
    no_answer_words=re.compile(
        r"cannot connect to server|[Cc]ouldn't connect to cluster|Unable to authenticate connection|Connection refused"
    ),
    # The server's own errors, unless they are of those above; 255 is the commands' own.
    server_says=range(129, 255),
    gone=frozenset({153, 35}),  # PBSE_UNKJOBID; PBSE_HISTJOBID: the job has finished
)
_NOT_SET_UP = re.compile(r"pbs conf variables not found|pbsconf error")
# How Torque's and Slurm's commands of the same names refuse what OpenPBS's are given.
_OTHERS = re.compile(r"invalid option -- '?[Ff]'?|^Unknown option: ", re.MULTILINE)

# Exit_status of a job that its node ended for using too much.
_LIMITS = {
    -24: Record(Cause.EXITED, _("PBS ended the job because it used more CPUs than it asked for.")),
    -25: Record(Cause.EXITED, _("PBS ended the job because it used more CPUs than it asked for.")),
    -26: Record(Cause.OUT_OF_MEMORY, _("PBS ended the job because it used more virtual memory than it asked for.")),
    -27: Record(Cause.OUT_OF_MEMORY, _("PBS ended the job because it used more memory than it asked for.")),
    -28: Record(Cause.WALL_TIME, _("PBS ended the job because it used up its CPU time.")),
    -29: WALL_TIME,
}

# job.h: substates that say more than the state.
_PROVISIONING = frozenset({71, 72})  # its nodes are being set up, or join the job
_TERMINATED, _FINISHED = 91, 92
# At the end of the comment, which users can't write.
_BY = re.compile(r" and terminated by ([^\s@]+)@\S+\Z", re.ASCII)
_RULES = pbs.rules(
    {
        "J": "each server is one job",
        "f": "the Hub's own",
        "G": "the Hub's jobs are not interactive",
        "R": "the job script opens its own log; job.log names the folder",
    },
    ("select", "place"),
    # A resource of the chunk, alone or with its value; a colon begins another one, a plus sign another chunk.
    **{"feature": "_.-=", "gpu type": "_.-"},
    # A reservation is a queue of its own.
    reservation="_.-",
)


class OpenPBS(Pbs):
    """OpenPBS and PBS Professional."""

    name = "openpbs"
    title = "PBS"
    inventory = OpenPBSInventory()
    rules = replace(_RULES, missing={"qos": "PBS has no QOS; write a queue or a directive instead"})
    errors = _ERRORS
    limits = _LIMITS
    # qstat prints times as texts of its own zone.
    query_variables: Mapping[str, str] = {"TZ": "UTC"}
    # `-f`: no process stays behind for the next qsub. `-C ""`: no line of the script is an option. `-S`: else the login
    # shell reads the script. The script opens its own log; that of PBS would be copied only when all is over.
    submit_command: tuple[str, ...] = (
        *("qsub", "-f", "-C", "", "-S", "/bin/bash", "-j", "oe", "-o", "/dev/null", "-m", "n"),
    )
    option_patterns: Mapping[str, str] = {
        "N": r"[a-z][a-z0-9]{4,14}",
        "q": names.pattern(_RULES.signs, "partition"),
        "l": "|".join(
            (
                rf"select={COUNT}(:ncpus={COUNT}(:mpiprocs={COUNT}:ompthreads=1)?)?(:mem=\d{{1,9}}mb)?"
                rf"(:ngpus={COUNT})?(:[A-Za-z][A-Za-z0-9_-]{{0,63}}=[A-Za-z0-9_.-]{{1,128}})*",
                "place=(pack|scatter)(:exclhost)?",
                r"walltime=\d{2,6}:\d\d:\d\d",
            )
        ),
        "A": names.pattern(_RULES.signs, "account"),
        "r": "[yn]",
        "W": rf"depend=afternotok:{pbs.SINGLE_JOB.pattern}",
    }

    def resources(self, wanted: Resources) -> Iterator[str]:
        """Chunks of one node each, how they are placed, the wall time."""
        yield ":".join(["select=" + str(wanted.nodes), *_chunk(wanted)])
        if wanted.nodes > 1 or wanted.whole_nodes:
            place = "scatter" if wanted.nodes > 1 else "pack"
            yield f"place={place}:exclhost" if wanted.whole_nodes else f"place={place}"
        yield f"walltime={wanted.walltime.hours_clock()}"

    def backend(self, resources: Resources, size: Size) -> Backend:
        """By qsub and pbsdsh."""
        tasks = f"select={{n}}:ncpus=1:mem={size.of_core}mb"
        worker = f"select=1:ncpus={size.cores}:mem={size.memory.mib}mb"
        return of_pbs(self.options(resources, JobLabel("", "")), tasks, worker, ("pbsdsh", "-h", "{host}", "--"))

    def queue(self, wanted: Resources) -> str:
        """A reservation has a queue of its name."""
        return wanted.reservation or super().queue(wanted)

    def query_command(self, mark: str) -> list[str]:
        """JSON, whose values are quoted, so the mark is not needed. Jobs that have ended are not in it."""
        return ["qstat", "-f", "-F", "json"]

    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id, arrays left out."""
        return {job_id: _status(job) for job_id, job in _jobs(out).items() if pbs.SINGLE_JOB.fullmatch(job_id)}

    def details_command(self, job_id: str) -> list[str]:
        """All that the server remembers, of ended jobs too, as text, which a user's line breaks can forge."""
        return ["qstat", "-x", "-f", pbs.single(job_id)]

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """JSON about one job, ended or not."""
        return ["qstat", "-x", "-f", "-F", "json", pbs.single(job_id)]

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """`run_count`, which is not there before the first start."""
        return pbs.count(_one_job(out, job_id).get("run_count", ""))

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """The server's history, where the site keeps one (job_history_enable)."""
        return [self.runs_command(job_id, mark)]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By `Exit_status`, the substate, and the comment, which names who cancelled a job that ran."""
        job = _one_job(outs[0], job_id) if outs[0] else {}
        if STATES.get(str(job.get("job_state"))) is not JobState.ENDED:
            return None
        status, substate = str(job.get("Exit_status", "")), job.get("substate")
        if substate == _TERMINATED:
            by = _BY.search(_text(job, "comment"))
            return replace(cancelled(by[1] if by else ""), node=pbs.first_host(_text(job, "exec_host")))
        if pbs.is_exit_status(status):
            return self.ended_with(int(status), pbs.first_host(_text(job, "exec_host")))
        # Its condition can no longer come true: PBS finishes it without a start.
        if substate == _FINISHED and "stime" not in job and "depend" in job:
            return FOLLOW_UP_REMOVED
        return None

    def visibility_command(self) -> list[str]:
        """The server's attributes."""
        return ["qstat", "-B", "-f", "-F", "json"]

    def parse_visibility(self, out: str, account: str) -> bool:
        """`query_other_jobs` shows the jobs of all to all. Operators and managers see all too, which is not asked."""
        servers = [server for server in _mapping(out, "Server").values() if isinstance(server, dict)]
        return bool(servers) and all(server.get("query_other_jobs") == "True" for server in servers)

    def nodes_command(self, mark: str) -> list[str]:
        """One line for each node, its fields framed by the mark."""
        return ["pbsnodes", "-a", "-F", "dsv", "-D", mark]

    def parse_nodes(self, out: str, mark: str) -> Iterator[Node]:
        """A node that is tied to no queue serves all."""
        return pbs_facts.openpbs_nodes(out, mark)

    def waiting_command(self, mark: str) -> list[str]:
        """JSON."""
        return ["qstat", "-Q", "-f", "-F", "json"]

    def parse_waiting(self, out: str, mark: str) -> dict[str, Queued]:
        """Counts; their order is the scheduler's own."""
        return pbs_facts.openpbs_waiting(out)

    def wrong_type(self, answer: Answer) -> str:
        """Torque's and Slurm's commands are known by how they refuse the options of PBS's."""
        if answer.code in (1, 2) and _OTHERS.search(answer.err + answer.out):
            return (
                "qsub and qstat on the Hub are those of Torque or Slurm, which can't print JSON: write their "
                "scheduler.type in the profile, or name the folder of PBS's own commands, such as /opt/pbs/bin, in "
                "scheduler.path"
            )
        return ""

    def not_set_up(self, answer: Answer) -> str:
        """The commands look for pbs.conf before they ask a server."""
        if _NOT_SET_UP.search(answer.err):
            return (
                "install PBS's client package with its /etc/pbs.conf (PBS_EXEC, PBS_HOME, PBS_SERVER) on the Hub's "
                "machine, or name another file as PBS_CONF_FILE in scheduler.variables"
            )
        return ""


def _chunk(wanted: Resources) -> Iterator[str]:
    """What each node gives."""
    if wanted.cpus is not None:
        yield f"ncpus={wanted.cpus}"
        if wanted.nodes > 1:
            # As many processes as CPUs for mpirun; else it starts one per node.
            yield f"mpiprocs={wanted.cpus}:ompthreads=1"
    if wanted.memory is not None:
        yield f"mem={wanted.memory.mib}mb"
    if wanted.gpus:
        yield f"ngpus={wanted.gpus}"
    # PBS knows no types of GPUs; sites that have several make them a resource of this name.
    yield from (f"gpu_type={kind}" for kind in pbs.gpu_type(wanted))
    # A word alone is a resource of the type boolean.
    yield from (one if "=" in one else f"{one}=True" for one in wanted.features)


def _mapping(out: str, key: str) -> dict[str, Any]:
    """A part of qstat's JSON; empty where it has none, as of jobs where there are none."""
    try:
        # A tab in a value stands as it is in the JSON of older releases.
        answer = json.loads(out[max(out.find("{"), 0) :], strict=False)
    except RecursionError:
        raise ValueError("qstat's JSON is nested too deeply") from None
    if not isinstance(answer, dict) or "pbs_server" not in answer:
        raise ValueError(f"qstat printed this instead of PBS's JSON: {out[:200]!r}")
    part = answer.get(key, {})
    if not isinstance(part, dict):
        raise ValueError(f"qstat's JSON has no table {key}")
    return part


def _jobs(out: str) -> dict[str, dict[str, Any]]:
    jobs = _mapping(out, "Jobs")
    if not all(isinstance(job, dict) for job in jobs.values()):
        raise ValueError("qstat's JSON has a job that is not a table")
    return jobs


def _one_job(out: str, job_id: str) -> dict[str, Any]:
    """The attributes of this job; none where the answer is not about it, and it alone."""
    jobs = _jobs(out)
    return jobs[job_id] if list(jobs) == [job_id] else {}


def _text(job: Mapping[str, Any], name: str) -> str:
    """An attribute as text; PBS prints what looks like a number as one."""
    value = job.get(name, "")
    return value if isinstance(value, str) else str(value) if isinstance(value, int | float) else ""


def _seconds(text: str) -> float:
    """A time as qstat prints it, in UTC by `query_variables`, in seconds since 1970; 0 where it can't be read."""
    try:
        return max(0.0, float(calendar.timegm(time.strptime(text, "%a %b %d %H:%M:%S %Y"))))
    except ValueError:
        return epoch(text)


def _status(job: Mapping[str, Any]) -> JobStatus:
    word = _text(job, "job_state")
    state = STATES.get(word, JobState.UNKNOWN)
    if state is JobState.RUNNING and job.get("substate") in _PROVISIONING:
        state = JobState.PENDING
    comment = _text(job, "comment").strip()
    estimated = job.get("estimated")
    expected = _text(estimated, "start_time") if isinstance(estimated, dict) else ""
    return JobStatus(
        state=state,
        host=None if state is JobState.ENDED else pbs.first_host(_text(job, "exec_host")) or None,
        reason=comment,
        owner=pbs.owner(_text(job, "Job_Owner")),
        tag=_text(job, "Job_Name"),
        starts_at=_seconds(_text(job, "stime") or expected),
        native_state=word,
        hopeless=state is JobState.PENDING and comment.startswith(pbs_words.NEVER),
    )
