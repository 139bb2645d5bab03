"""The base class of all schedulers: pure builders of commands and parsers of answers, in pairs."""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hpcspawner.programs.helper import GIVEN
from hpcspawner.schedulers.backend import Backend, Size
from hpcspawner.schedulers.inventory import InventoryReader
from hpcspawner.schedulers.nodes import Estimate, Node, Queued
from hpcspawner.schedulers.standing import StandingReader
from hpcspawner.schedulers.state import JobStatus, Record
from hpcspawner.site.profile import Access
from hpcspawner.site.scheduler_types import ProfileRules
from hpcspawner.units import Memory, Walltime, printable

COUNT = r"\d{1,7}"


@dataclass(frozen=True, slots=True)
class Resources:
    """What is asked of a scheduler. `cpus`, `memory` and `gpus` are per node; None leaves it to the scheduler.

    `warning_s` is how many seconds before the wall time ends the job gets SIGUSR1, 0 for never; `requeue` lets the
    scheduler start the job again after a failure of its node or a preemption. Without `names_partition` the scheduler
    chooses the partition.
    """

    partition: str
    walltime: Walltime
    nodes: int = 1
    cpus: int | None = 1
    memory: Memory | None = None
    gpus: int = 0
    gpu_type: str | None = None
    account: str | None = None
    qos: str | None = None
    reservation: str | None = None
    features: tuple[str, ...] = ()
    whole_nodes: bool = False
    requeue: bool = False
    warning_s: int = 0
    directives: tuple[tuple[str, str], ...] = field(default=())
    names_partition: bool = True


@dataclass(frozen=True, slots=True)
class JobLabel:
    """What identifies a job in a listing: a name for people, a tag for us.

    `follows` is the id of the job after whose unsuccessful end this one may start, "" for none.
    """

    name: str
    tag: str
    follows: str = ""

    def log(self, job_id: str) -> str:
        """The name of the job's log file: by the tag another one than any job of another cluster or Hub has."""
        return f"{self.name}-{job_id}-{self.tag}.log"


@dataclass(frozen=True, slots=True)
class Submission:
    """A job as the submit command gets it: `options` as words of its argv, `script` on its standard input.

    The script holds no option: a line in it that a scheduler would read as one is refused.
    """

    options: tuple[tuple[str, str], ...]
    script: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command left behind: exit code (negative: killed by that signal), standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """What it said, for people, on one line: standard error, else standard output."""
        return printable((self.err.strip() or self.out.strip())[:2000])


class Scheduler(ABC):
    """What one batch system does differently. Pure: no process, no clock, no file.

    A subclass must have the attributes without a value and the abstract methods. All else has a default. Six further
    questions come as pairs of a command and its parser, and a scheduler that can't answer one leaves both out:
    `runs`, `end`, `visibility`, `nodes`, `waiting` and `open`.

    In the order of events: `submit_command` takes `options` as further words and the script on standard input, and
    `parse_submit` finds the job id; `query_command` lists every job that may be seen and `parse_query` reads the
    list; `cancel_words` end a job; `details_command` prints all that is known of one, for people: no parser reads
    it, for users write parts of it.

    A parser sees the output of commands that succeeded, in a form made for programs, and raises ValueError for what it
    can't trust. `mark` is a fresh word that no user can know, the same for a command and its parser: where the
    form has no quoting of its own, the mark frames the fields.
    """

    name: str
    """The value of `scheduler.type` in a profile."""

    title: str
    """What people call it, in messages."""

    job_id_pattern: str
    """What an id must look like as a whole to reach an argv; an ASCII pattern."""

    job_variable: str
    """The variable of a job's environment that has its id."""

    submit_command: tuple[str, ...]
    """The submit with all that is the same for every job; the script goes to standard input."""

    cancel_words: tuple[str, ...]
    """The command that ends a job, with `GIVEN` for the id."""

    option_patterns: Mapping[str, str]
    """Every option that `options` may make, and an ASCII pattern for the whole of its value ("": it has none).

    No pattern allows a blank, a quote, a backslash or a `#`.
    """

    rules: ProfileRules = ProfileRules()
    """What a profile may say of it."""

    listen_ip: str = "0.0.0.0"  # noqa: S104 - the Hub connects from another machine
    """Where servers listen unless the admin says otherwise: nodes must be reached from the Hub's machine."""

    silent_when_empty: bool = False
    """Whether a listing without jobs is an empty text, which a failed command may print as well."""

    long_options: bool = False
    """Whether an option is written `--name=value`; else `-name value`."""

    query_variables: Mapping[str, str] = {}
    """What the environment of `query_command` has besides the site's variables: what makes it print times as seconds
    since 1970, or in UTC."""

    joined_options: Mapping[str, str] = {}
    """Options of which a value of the site's follows the Hub's in one word, and the sign between them."""

    inventory: InventoryReader | None = None
    """How it is asked which partitions and nodes it has; None where it can't be."""

    standing: StandingReader | None = None
    """How it is asked what single users may choose; None where it can't be."""

    def __init__(self, leave_out: Collection[str] = ()):
        """`leave_out` are options that the submit command is not given."""
        self._leave_out = frozenset(leave_out)

    @classmethod
    def from_profile(cls, access: Access, spool: Path, leave_out: Collection[str]) -> Self:
        """The scheduler of a profile; `spool` is a folder of the Hub's for one that keeps its jobs there."""
        return cls(leave_out)

    # ---- submit

    @abstractmethod
    def options(self, resources: Resources, label: JobLabel) -> list[tuple[str, str]]:
        """Pairs of option and value for the submit command; the admin's own come last, so that they win."""

    def submit_input(self, options: Sequence[tuple[str, str]], script: str) -> bytes:
        """What the submit command reads: the script. A REST service gets the options in it too."""
        return script.encode()

    def script_lines(self, resources: Resources) -> str:
        """Lines of bash for the job script, before the user's environment is set up; they hold none of a user's text.

        A scheduler that can't send SIGUSR1 `warning_s` before the wall time ends has the script do it.
        """
        return ""

    def backend(self, resources: Resources, size: Size) -> Backend | None:
        """How a notebook starts further jobs like its own, with nodes of `size`; None where it can't."""
        return None

    @abstractmethod
    def parse_submit(self, out: str) -> str:
        """The job id, verbatim."""

    # ---- the list of jobs

    @abstractmethod
    def query_command(self, mark: str) -> list[str]:
        """The argv that lists all jobs."""

    @abstractmethod
    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id."""

    def explain(self, reason: str) -> str:
        """A reason for waiting, as a sentence; "" where there is nothing to say."""
        return reason

    def advise(self, reason: str) -> str:
        """What a user can do about a reason for waiting, as a sentence; "" where nothing is known."""
        return ""

    # ---- one job

    def cancel_command(self, job_id: str) -> list[str]:
        """The argv that ends a job; ValueError where this is no id."""
        job_id = self.valid_id(job_id)
        return [job_id if word == GIVEN else word for word in self.cancel_words]

    @abstractmethod
    def details_command(self, job_id: str) -> list[str]:
        """The argv that prints all that the scheduler knows of a job: shown to people, parsed nowhere."""

    def valid_id(self, job_id: str) -> str:
        """The same id, if it may reach an argv."""
        if not re.compile(self.job_id_pattern, re.ASCII).fullmatch(job_id):
            raise ValueError(f"not the id of a job: {job_id[:100]!r}")
        return job_id

    # ---- what a failed command means

    @abstractmethod
    def unreachable(self, answer: Answer) -> bool:
        """Whether a failed command means that there was no answer, rather than a refusal."""

    @abstractmethod
    def already_gone(self, answer: Answer) -> bool:
        """Whether a failed cancel, or question about one job, means that the job had ended before."""

    def hint(self, answer: Answer) -> str:
        """What may be behind a failure that says nothing of itself, for the log; "" where nothing is known."""
        return ""

    def wrong_type(self, answer: Answer) -> str:
        """The cure where a failed command shows that these are another scheduler's commands; "" where it does not."""
        return ""

    def not_set_up(self, answer: Answer) -> str:
        """The cure where a failed command shows that it does not know its scheduler; "" where it does not show that."""
        return ""

    # ---- how often a job was started; without it a profile can't have job.requeue

    def shortened(self, details: str) -> str:
        """What `details_command` printed, fit for the log."""
        return details

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """The argv that asks how often a job was started; empty where the scheduler does not count."""
        return []

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """How many times the job has been started."""
        raise ValueError(f"{self.title} does not count how often a job was started")

    # ---- how a job ended; without it the launcher's own report is all that is known

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """The argvs that ask how a job ended; all are run, for none of them always knows."""
        return []

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """How a job ended, by the outputs of `end_commands` ("" for one that failed); None while that is not known.

        `account` names the account with a number.
        """
        return None

    # ---- whose jobs the Hub sees; without it a job of the same owner in the listing has to show it

    def visibility_command(self) -> list[str]:
        """The argv that prints who may see whose jobs; empty where there is none."""
        return []

    def parse_visibility(self, out: str, account: str) -> bool:
        """Whether this account is shown the jobs of all."""
        return False

    # ---- when a job could start, asked as its user

    estimate_words: tuple[str, ...] = ()
    """Further words of the submit command with which it submits nothing and says when the job could start."""

    def parse_estimate(self, answer: Answer) -> Estimate:
        """When the job could start. Raises ValueError for an answer that does not say it."""
        raise ValueError(f"{self.title} does not say when a job could start")

    # ---- what is free and who waits, for people to choose by; a scheduler leaves out what it can't tell

    def nodes_command(self, mark: str) -> list[str]:
        """The argv that describes all nodes; empty where there is none."""
        return []

    def parse_nodes(self, out: str, mark: str) -> Iterable[Node]:
        """The nodes, one by one: there may be thousands, and other work goes on between two of them."""
        return ()

    def waiting_command(self, mark: str) -> list[str]:
        """The argv that tells how many jobs wait; empty where there is none."""
        return []

    def parse_waiting(self, out: str, mark: str) -> dict[str, Queued]:
        """The waiting jobs by partition; one without any may be missing."""
        return {}

    def open_command(self, mark: str) -> list[str]:
        """The argv that tells which partitions start jobs; empty where there is none."""
        return []

    def parse_open(self, out: str, mark: str) -> dict[str, bool]:
        """Whether a partition starts jobs, by its name."""
        return {}
