"""The package's errors, named by who must act."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from hpcspawner.language import _, joined, sentence_of


class Reason(StrEnum):
    """Why a server did not start or ended: a word for logs and the status of an answer."""

    BAD_OPTIONS = "bad-options"
    REJECTED = "rejected"
    NOT_SET_UP = "not-set-up"
    UNREACHABLE = "unreachable"
    JOB_ENDED = "job-ended"
    SERVER_FAILED = "server-failed"
    QUEUE_LIMIT = "queue-limit"
    START_LIMIT = "start-limit"
    HELD = "held"
    LEDGER = "ledger"


def more(entry: str) -> str:
    """Where a message is explained, for logs and the command line; `entry` is one of the page about troubleshooting."""
    return f" (more: hpcspawner explain {entry})"


class HPCSpawnerError(Exception):
    """Root of this package's errors; its text is fit for the person who must act."""

    reason = Reason.SERVER_FAILED

    @property
    def entry(self) -> str:
        """The entry of the page about troubleshooting that explains it."""
        return self.reason.value

    @property
    def sentence(self) -> str:
        """The text as it was made, which a page tells in its reader's language."""
        return sentence_of(self)

    @property
    def explained(self) -> str:
        """The text, and where it is explained."""
        return f"{self}{more(self.entry)}"


class ProfileError(HPCSpawnerError):
    """A site profile is wrong; the admin must act. Holds every mistake, not only the first.

    `problems` are lines "key path: what is wrong and how to write it".
    """

    entry = "profile"

    def __init__(self, path: str, problems: Sequence[str]):
        self.path = path
        self.problems = tuple(problems)
        count = "1 mistake" if len(self.problems) == 1 else f"{len(self.problems)} mistakes"
        lines = "\n".join(f"  {path}: {problem}" for problem in self.problems)
        super().__init__(f"The site profile has {count}:\n{lines}")


@dataclass(frozen=True, slots=True)
class Problem:
    """One refused value: the option's name and a sentence that says what was asked and what is allowed."""

    field: str
    message: str


class RequestError(HPCSpawnerError):
    """The user asked for something that the site does not offer, and can change it. Holds every problem."""

    reason = Reason.BAD_OPTIONS

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        super().__init__(joined(problem.message for problem in self.problems))


class AccountRefused(RequestError):
    """The account is root's or the system's own; no job is submitted for it, and none is taken up."""

    entry = "account"


class SchedulerError(HPCSpawnerError):
    """A scheduler command failed.

    `command` is the argv as text, `words` what the scheduler said, both for the log. `lingering` says that the command
    could not be ended (it may be another account's) and may still do what it was asked. Where that has an end,
    `settled_at` is when (seconds since 1970) and it is not `lingering`.
    """

    lingering = False
    settled_at = 0.0

    def __init__(self, message: str, command: str = "", words: str = ""):
        self.command = command
        self.words = words
        super().__init__(message)


class SchedulerRejected(SchedulerError):
    """The scheduler read the request and said no; its own words are kept."""

    reason = Reason.REJECTED


class SchedulerUnreachable(SchedulerError):
    """No answer, or none that can be trusted: the state is unknown; wait."""

    reason = Reason.UNREACHABLE


class SchedulerNotSetUp(SchedulerError):
    """A command is missing or not allowed; the admin must act. `cure` says how, for the log.

    `entry` is the one of the page about troubleshooting.
    """

    reason = Reason.NOT_SET_UP
    entry = ""

    def __init__(self, message: str, command: str, words: str, cure: str, entry: str = Reason.NOT_SET_UP.value):
        self.cure, self.entry = cure, entry
        super().__init__(message, command, words)


class SecretUnusable(HPCSpawnerError):
    """The file with the Hub's own secret is missing and can't be made, or can't be trusted; the admin must act."""

    entry = "hub-secret"


class LedgerUnavailable(HPCSpawnerError):
    """The Hub's own record of jobs can't be written, so nothing is submitted that might get lost."""

    reason = Reason.LEDGER

    def __init__(self) -> None:
        super().__init__(
            _("The Hub can't write its record of jobs at the moment, so it submitted no job. Please try again later.")
        )


class LedgerUnusable(HPCSpawnerError):
    """The Hub's record of jobs can't be read when the Hub starts; the admin must act.

    `why` goes on after the ledger's name, `cure` says what to do.
    """

    reason = Reason.LEDGER
    entry = "ledger-unusable"

    def __init__(self, why: str, cure: str, place: str = ""):
        self.why, self.cure = why, cure
        super().__init__(f"The ledger {place} {why}. {cure}")

    def of(self, place: str) -> Self:
        """The same with the ledger's name: a file, or the address of a database."""
        return type(self)(self.why, self.cure, place)


class ServerLost(HPCSpawnerError):
    """The job ended or the server failed; start again. `log` holds the last lines the job wrote.

    `cause` is why the job ended, in the ledger's word, "" where it has not ended. `entry` is the one of the page about
    troubleshooting; by default that of the reason.
    """

    entry = ""

    def __init__(self, message: str, reason: Reason, log: Sequence[str] = (), cause: str = "", entry: str = ""):
        self.reason = reason
        self.cause = cause
        self.entry = entry or cause or reason.value
        self.log = tuple(log)
        super().__init__(message)
