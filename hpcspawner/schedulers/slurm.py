"""Slurm 22.05 and newer: sbatch, squeue, scancel, scontrol, sacct."""

import re
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self

from hpcspawner.language import _
from hpcspawner.programs.helper import GIVEN
from hpcspawner.schedulers import slurm_advice
from hpcspawner.schedulers import slurm_words as words
from hpcspawner.schedulers.backend import Backend, Size, of_slurm
from hpcspawner.schedulers.base import COUNT, Answer, JobLabel, Resources
from hpcspawner.schedulers.inventory import InventoryReader
from hpcspawner.schedulers.pieces import split
from hpcspawner.schedulers.records import FOLLOW_UP_REMOVED, cancelled, exited
from hpcspawner.schedulers.slurm_facts import SlurmFacts
from hpcspawner.schedulers.slurm_inventory import SlurmInventory
from hpcspawner.schedulers.slurm_standing import SlurmStanding
from hpcspawner.schedulers.standing import StandingReader
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site import names
from hpcspawner.site.profile import ANY_GPU, Access
from hpcspawner.units import epoch

_SCRIPT_LINES = """\
# From Slurm 22.05 on, srun no longer takes this from the job; MPI from a notebook needs it.
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"\
"""

_SUBMITTED = re.compile(r"(\d{1,10})(?:;[\w.-]{1,100})?", re.ASCII)
_OUR_JOB = re.compile(r"\d{1,10}", re.ASCII)
# A waiting array is `17_[0-2]`, one of its tasks `17_1`, a part of a heterogeneous job `17+0`.
_ANY_JOB = re.compile(r"\d{1,10}(?:_(?:\d{1,10}|\[[^\]]{1,1000}\])|\+\d{1,6})?", re.ASCII)
_NOTHING = frozenset({"", "(null)", "N/A", "n/a", "None", "None assigned", "Unknown"})

# Of sacct: what `_accounted` reads.
_COLUMNS = ("JobIDRaw", "State%50", "ExitCode", "NodeList")
# Of squeue about one job: fields that no user can write, in the words of `record_of`, and how wide they may be.
_ONE_JOB = {"JobID": 20, "State": 40, "Reason": 250, "RestartCnt": 20, "exit_code": 20, "NodeList": 250}
_EXIT_CODE = re.compile(r"(\d{1,3}):(\d{1,3})", re.ASCII)
# What Slurm writes as the signal if a script could not be started, for instance for want of its output file.
_COULD_NOT_START = 53

# Id, state, node that runs the script, owner, start, reason, and then the tag: the order of `status_of`.
_FIELDS = ("%i", "%T", "%B", "%u", "%S", "%r")

_VERDICT = re.compile(r"^\w+: error: (?:Batch job submission failed|Kill job error on job id \w+): (.*)$", re.MULTILINE)
_NO_CONFIGURATION = re.compile(
    r"Could not establish a configuration source|"
    r"(?:unable to status|No such) file (?:or directory: )?\S*slurm\.conf|error: .*slurm\.conf: No such file|"
    # Not there, not to be read, not whole, or of another Slurm than the command; a plugin that is not installed.
    r"Unable to process configuration file|cannot (?:find auth plugin|create auth context)"
)
_ENDED_BEFORE = re.compile(r"Invalid job id specified|already completing or completed", re.IGNORECASE)


class Slurm(SlurmFacts):
    """Slurm. The listing's tag is the job's comment, or its name where the site needs the comment."""

    name = "slurm"
    title = "Slurm"
    rules = words.RULES
    inventory: InventoryReader | None = SlurmInventory()
    standing: StandingReader | None = SlurmStanding()
    job_id_pattern = _OUR_JOB.pattern
    job_variable = "SLURM_JOB_ID"
    cancel_words = ("scancel", GIVEN)  # SIGTERM first, SIGKILL after the site's KillWait
    # The folder is one that every node has; the launcher changes to the user's. The script opens its own log, which it
    # can do after it has made the folder. --export=ALL passes on sbatch's own environment, which the Hub keeps small.
    # NONE and lists of names make the node run a login shell first; a slow one leaves the job held.
    submit_command: tuple[str, ...] = (
        "sbatch",
        "--parsable",
        "--ignore-pbs",
        "--chdir=/",
        "--output=/dev/null",
        "--export=ALL",
    )
    query_variables: Mapping[str, str] = {"SLURM_TIME_FORMAT": "%s"}
    long_options = True
    joined_options: Mapping[str, str] = {"gres": ","}
    option_patterns: Mapping[str, str] = {
        "job-name": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
        "comment": r"[a-z][a-z0-9]{4,63}",
        "partition": names.pattern(words.RULES.signs, "partition"),
        "time": r"(\d{1,4}-)?\d{2,4}:\d\d:\d\d",
        "nodes": COUNT,
        "exclusive": "",
        "mem": r"\d{1,9}M|0",
        "ntasks-per-node": COUNT,
        "cpus-per-task": COUNT,
        "gres": rf"gpu(:{names.pattern(words.RULES.signs, 'gpu type')})?:{COUNT}",
        "account": names.pattern(words.RULES.signs, "account"),
        "qos": names.pattern(words.RULES.signs, "qos"),
        "reservation": names.pattern(words.RULES.signs, "reservation"),
        "constraint": names.pattern(words.RULES.signs, "feature", 2000),
        "requeue": "",
        "no-requeue": "",
        "signal": rf"B:USR1@{COUNT}",
        "dependency": rf"afternotok:{_OUR_JOB.pattern}",
        "kill-on-invalid-dep": "yes",
    }

    def __init__(self, leave_out: Collection[str] = (), tag: str = "comment"):
        """`leave_out` are options that sbatch is not given, `tag` is the one that has the Hub's mark."""
        super().__init__(leave_out)
        self._tag = tag
        if "export" in self._leave_out:
            self.submit_command = tuple(word for word in self.submit_command if not word.startswith("--export="))

    @classmethod
    def from_profile(cls, access: Access, spool: Path, leave_out: Collection[str]) -> Self:
        """With the option that has the Hub's mark."""
        return cls(leave_out, access.tag)

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

    def script_lines(self, resources: Resources) -> str:
        """What srun needs in a job; the warning is sbatch's `--signal`."""
        return _SCRIPT_LINES

    def backend(self, resources: Resources, size: Size) -> Backend:
        """By sbatch and srun."""
        return of_slurm(self.options(resources, JobLabel("", "")), size)

    def parse_submit(self, out: str) -> str:
        """`12`, or `12;cluster` where sbatch was given a cluster; the listing has only the number."""
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
        parts, width = split(out, mark), len(_FIELDS) + 2
        next(parts)
        jobs: dict[str, JobStatus] = {}
        lines = 0
        while len(line := tuple(islice(parts, width))) == width:
            job_id, *fields, _between = line
            lines += 1
            if _ANY_JOB.fullmatch(job_id):
                # Clusters of a federation may both list a job; the listing does not show which of them is right.
                jobs[job_id] = JobStatus(JobState.UNKNOWN) if job_id in jobs else status_of(*fields)
        if line or not lines:
            raise ValueError(f"squeue's listing is incomplete: {out[-200:]!r}")
        return jobs

    def details_command(self, job_id: str) -> list[str]:
        """All that the controller remembers, names and comments of users among it."""
        return ["scontrol", "show", "job", self.valid_id(job_id)]

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """One job's facts. The mark ends every field; a bar before it, for a digit would belong to the width."""
        fields = ",".join(f"{name}:{width}|{mark}" for name, width in _ONE_JOB.items())
        return [
            "squeue",
            "--all",
            "--states=all",
            "--noheader",
            f"--jobs={self.valid_id(job_id)}",
            f"--Format={fields}",
        ]

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """Slurm counts how often it put the job back; a job that waits has not been started again yet."""
        said = _one_job(out, job_id, mark)
        if not re.fullmatch(r"\d{1,10}", said.get("RestartCnt", ""), re.ASCII):
            raise ValueError(f"squeue does not say how often the job was started: {out[:200]!r}")
        waits = words.STATES.get(said["State"]) in (JobState.PENDING, JobState.HELD)
        return int(said["RestartCnt"]) + (not waits or said["State"] == "CONFIGURING")

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """The controller knows exit codes and reasons, and forgets; the accounting knows who cancelled, and is late."""
        columns = f"--format={','.join(_COLUMNS)}"
        accounting = ["sacct", "--allocations", "--noheader", "--parsable2", columns, f"--jobs={self.valid_id(job_id)}"]
        return [self.runs_command(job_id, mark), accounting]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By the controller where it still knows the job: the accounting says CANCELLED before the job is gone."""
        past = _accounted(outs[1], job_id)
        said = _one_job(outs[0], job_id, mark) or past
        if words.STATES.get(said.get("State", "")) is not JobState.ENDED:
            return None
        record = record_of(said, account(int(past["By"])) if past.get("By") else "")
        return replace(record, node=stated(said.get("NodeList", "")))

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
        return bool(words.NO_ANSWER.search(verdicts[-1] if verdicts else answer.err + answer.out))

    def not_set_up(self, answer: Answer) -> str:
        """Slurm's commands look for their configuration before they ask a server."""
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
            return next((text for detail, text in words.NODE_REASONS.items() if detail in reason), words.REASONS[key])
        family = next((text for prefix, text in words.REASON_FAMILIES.items() if key.startswith(prefix)), None)
        sentence = words.REASONS.get(key) or slurm_advice.SENTENCES.get(key)
        return sentence or (_("{limit} ({key}).", limit=family, key=key) if family else reason)

    def advise(self, reason: str) -> str:
        """By the reason's name, or by the parts of it."""
        return slurm_advice.advice(_reason_key(reason))


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


def status_of(word: str, host: str, owner: str, start: str, reason: str, comment: str) -> JobStatus:
    """A job as squeue lists it, in squeue's words."""
    state, key = words.STATES.get(word, JobState.UNKNOWN), _reason_key(reason)
    if state is JobState.PENDING and key in words.HELD_FOR_A_WHILE | words.HOPELESS:
        state = JobState.HELD
    return JobStatus(
        state=state,
        host=None if state is JobState.ENDED else stated(host) or None,
        reason=stated(reason),
        owner=owner,
        tag=stated(comment),
        starts_at=epoch(start),
        native_state=word,
        hopeless=word in words.HOPELESS_STATES or (state is JobState.HELD and key in words.HOPELESS),
    )


def stated(text: str) -> str:
    """A value of Slurm's, "" for its words for none."""
    return "" if text.strip() in _NOTHING else text.strip()


def _reason_key(reason: str) -> str:
    """`ReqNodeNotAvail, UnavailableNodes:n1` and `launch_failed_requeued_held` without what varies."""
    return re.split(r"[,:(]", reason, maxsplit=1)[0].replace("_", " ").strip()


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


def record_of(said: Mapping[str, str], by: str) -> Record:
    """How a job ended, by squeue's words for it and the account that cancelled it."""
    word, reason = said["State"], said.get("Reason", "")
    code, number = _exit_code(said["exit_code"])
    if word == "FAILED" and number == _COULD_NOT_START:
        return Record(Cause.NOT_STARTED, _("The job's script could not be started on its node."))
    if word == "FAILED" and not code and not number:
        return Record(Cause.UNKNOWN, _("The job failed; Slurm's reason is {reason}.", reason=reason or _("not known")))
    if word in ("COMPLETED", "FAILED"):
        return exited(None if number else code, number or None)
    if word == "CANCELLED" and reason == "DependencyNeverSatisfied":
        return FOLLOW_UP_REMOVED
    if word == "CANCELLED":
        return cancelled(by, code or None, number or None)
    cause, message = words.CAUSES[word]
    # 125 is how Slurm writes OUT_OF_MEMORY; no signal has that number.
    number = number if number <= signal.SIGRTMAX else 0
    return Record(cause, message.fill(node=_node(said.get("NodeList", ""))), code or None, number or None)


def _exit_code(text: str) -> tuple[int, int]:
    """Exit code and signal: sacct prints `3:0`, squeue what wait(2) gave, 768."""
    if match := _EXIT_CODE.fullmatch(text):
        return int(match[1]), int(match[2])
    status = int(text) if re.fullmatch(r"\d{1,10}", text, re.ASCII) else 0
    return status >> 8 & 0xFF, status & 0x7F


def _node(names: str) -> str:
    """`n1` as "Node n1"; of several it is not known which."""
    is_one = names not in _NOTHING and not re.search(r"[\[,\s]", names)
    return _("Node {name}", name=names) if is_one else _("A node of the job")
