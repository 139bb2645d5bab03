"""What Torque and OpenPBS share: qsub, qdel, names of jobs, states, ends. They have one ancestor and drifted apart."""

import re
from abc import abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hpcspawner.language import _
from hpcspawner.programs.helper import GIVEN
from hpcspawner.schedulers import pbs_words
from hpcspawner.schedulers.base import Answer, JobLabel, Resources, Scheduler
from hpcspawner.schedulers.countdown import countdown
from hpcspawner.schedulers.records import cancelled, exited
from hpcspawner.schedulers.state import Cause, JobState, Record
from hpcspawner.site import names
from hpcspawner.site.profile import ANY_GPU
from hpcspawner.site.scheduler_types import ProfileRules

# Both write `12.server` and take `12` as well; an array is `12[].server`, one of its tasks `12[3].server`.
_SUBMITTED = re.compile(r"\d{1,18}(?:\[\d{0,9}\])?(?:\.[\w.-]{1,255})?", re.ASCII)
SINGLE_JOB = re.compile(r"\d{1,18}(?:\.[\w.-]{1,255})?", re.ASCII)

# qstat(1B) of Torque 6.1 and of OpenPBS 23.06: the job's state.
STATES: Mapping[str, JobState] = {
    "C": JobState.ENDED,  # Torque: completed after having run
    # It holds its node, and whether it is rerun is not decided: no server that runs, and not gone either.
    "E": JobState.UNKNOWN,  # exiting after having run
    "H": JobState.HELD,  # held
    "Q": JobState.PENDING,  # queued, eligible to run or be routed
    "R": JobState.RUNNING,  # running
    "T": JobState.PENDING,  # being moved to a new location
    "W": JobState.PENDING,  # waiting for its execution time to be reached, or for files
    "S": JobState.SUSPENDED,  # suspended
    "B": JobState.UNKNOWN,  # an array of which at least one job has started; ours are no arrays
    "F": JobState.ENDED,  # OpenPBS: finished
    "M": JobState.UNKNOWN,  # moved to another server, where it may well run
    "X": JobState.ENDED,  # a finished job of an array
    "U": JobState.UNKNOWN,  # suspended because the workstation is in use
}

# `alice@head`; the name itself may have an `@`.
_HOST_OF_OWNER = re.compile(r"@[^@]*\Z")

# exit_status where it is no exit code of the script's. A signal is added to 256 by the server, and to 128 by the shell
# that runs the script.
_SIGNALS, _SHELL_SIGNALS, _LAST_SIGNAL = 256, 128, 64
_TERM = 15

_SELF_LOG = "the job script opens its own log; job.log names the folder"
_AS_USER = "the job is submitted as its user"
_NO_SESSION = "the Hub's jobs are not interactive"
_REFUSED = {
    "N": "the Hub recognises its jobs by it",
    "o": _SELF_LOG,
    "e": _SELF_LOG,
    "j": _SELF_LOG,
    "k": _SELF_LOG,
    "C": "the job script contains no options",
    "S": "the job script is bash",
    "r": "write job.requeue",
    "q": "partitions[].name is the queue; write another profile for another server's queue",
    "u": _AS_USER,
    "I": _NO_SESSION,
    "X": _NO_SESSION,
    "z": "the Hub reads what qsub prints",
}


class PbsRules(ProfileRules):
    """qsub's `-W` has many attributes."""

    __slots__ = ()

    def why_refused(self, option: str, value: str, tag: str) -> str:
        """By options, and by attributes of -W."""
        if option == "W" and "depend" in value:
            return "the Hub makes follow-up jobs by depend"
        return self.refused.get(option, "")


def rules(refused: Mapping[str, str], may_leave_out: Collection[str], **signs: str) -> PbsRules:
    """What a profile may say, beyond what holds for both: more options to refuse, the resources of -l to leave out."""
    return PbsRules(
        # `queue@server` names another server.
        signs={"partition": names.WIDE.replace("@", ""), **signs},
        refused=_REFUSED | dict(refused),
        may_leave_out=("q", "A", "r", *may_leave_out),
    )


@dataclass(frozen=True, slots=True)
class Errors:
    """What the commands' failures mean, by exit codes (the last eight bits of the numbers in the sources) and words.

    A code of `server_says` is an answer of the server's: whatever words came with it are no sign of its absence.
    """

    no_answer: frozenset[int]
    no_answer_words: re.Pattern[str]
    server_says: Collection[int]
    gone: frozenset[int] = field(default_factory=frozenset)


class Pbs(Scheduler):
    """The listing's tag is the job's name, the only free text that every version shows."""

    job_id_pattern = _SUBMITTED.pattern
    job_variable = "PBS_JOBID"
    cancel_words = ("qdel", GIVEN)  # SIGTERM first, SIGKILL soon after
    errors: Errors
    limits: Mapping[int, Record]
    """Ends that `exit_status` names, where the server ended the job for using too much."""

    @abstractmethod
    def resources(self, wanted: Resources) -> Iterable[str]:
        """The values of `-l`."""

    def queue(self, wanted: Resources) -> str:
        """The value of `-q`; "" where the server chooses."""
        return wanted.partition if wanted.names_partition else ""

    def options(self, resources: Resources, label: JobLabel) -> list[tuple[str, str]]:
        """Options of qsub."""
        queue = self.queue(resources)
        ours = [
            ("N", label.tag),
            *([("q", queue)] if queue else []),
            *(("l", wanted) for wanted in self.resources(resources)),
            *([("A", resources.account)] if resources.account else []),
            # A second run is another server at another place, so it is for those who are ready to wait for it.
            ("r", "y" if resources.requeue else "n"),
            *([("W", f"depend=afternotok:{label.follows}")] if label.follows else []),
        ]
        return [*(pair for pair in ours if not self._is_left_out(*pair)), *resources.directives]

    def _is_left_out(self, option: str, value: str) -> bool:
        return (value.partition("=")[0] if option == "l" else option) in self._leave_out

    def script_lines(self, resources: Resources) -> str:
        """The warning before the wall time ends, by the script's own clock."""
        return countdown("PBS", resources)

    def parse_submit(self, out: str) -> str:
        """`12.server`, as the listing writes it."""
        job_id = out.removesuffix("\n")
        if not _SUBMITTED.fullmatch(job_id):
            raise ValueError(f"qsub printed this instead of a job id: {out[:200]!r}")
        return job_id

    def unreachable(self, answer: Answer) -> bool:
        """By exit code, and by words for commands that exit with 1 or 255."""
        if answer.code < 0 or answer.code in self.errors.no_answer:
            return True
        # In a refusal of the server's the words may be somebody else's: a site's own check says anything.
        if answer.code in self.errors.server_says:
            return False
        return bool(self.errors.no_answer_words.search(answer.err + answer.out))

    def already_gone(self, answer: Answer) -> bool:
        """Unknown or ended, in the command's own words: an exit code of 153 alone is what Slurm's qstat gives."""
        return answer.code in self.errors.gone and bool(answer.message)

    def explain(self, reason: str) -> str:
        """The scheduler's comment as a sentence."""
        return pbs_words.explain(reason)

    def advise(self, reason: str) -> str:
        """What a user can do about the comment."""
        return pbs_words.advise(reason)

    def ended_with(self, status: int, node: str) -> Record:
        """How a job ended that has run, by its exit_status."""
        return replace(self.limits.get(status) or self._by_status(status), node=node)

    def _by_status(self, status: int) -> Record:
        if status < 0:
            message = _("The job could not be started on its node (exit_status {status}).")
            text = message.fill(status=status)
            return Record(Cause.NOT_STARTED, text)
        if status == _SIGNALS + _TERM:
            return cancelled(number=_TERM)
        for base in (_SIGNALS, _SHELL_SIGNALS):
            if base < status <= base + _LAST_SIGNAL:
                return exited(None if base == _SIGNALS else status, status - base)
        return exited(status)


def single(job_id: str) -> str:
    """The same id: for an array, or no id, qstat would print the jobs of all."""
    if not SINGLE_JOB.fullmatch(job_id):
        raise ValueError(f"not the id of a single job: {job_id[:100]!r}")
    return job_id


def count(number: object) -> int:
    """How often a job was started, as qstat prints it."""
    if not re.fullmatch(r"\d{1,9}", str(number), re.ASCII):
        raise ValueError("qstat does not say how often the job was started")
    return int(str(number))


def first_host(exec_host: str) -> str:
    """Of `n2/0-1+n1/0-1` or `n2/0*2+n1/0*2` the host that runs the script; "" of none."""
    return exec_host.partition("+")[0].partition("/")[0]


def owner(job_owner: str) -> str:
    """The account in `alice@head`."""
    return _HOST_OF_OWNER.sub("", job_owner)


def is_exit_status(text: str) -> bool:
    """Whether there is one; a job that was deleted before its start has none."""
    return re.fullmatch(r"-?\d{1,5}", text, re.ASCII) is not None


def gpu_type(wanted: Resources) -> Iterator[str]:
    """The kind of GPUs, where one is asked for."""
    if wanted.gpus and wanted.gpu_type not in (None, ANY_GPU):
        yield str(wanted.gpu_type)
