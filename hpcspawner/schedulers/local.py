"""The embedded scheduler as the Hub sees it; spool.py is the program behind it."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from hpcspawner.language import _
from hpcspawner.programs import spool as program
from hpcspawner.programs.helper import GIVEN
from hpcspawner.schedulers.base import COUNT, Answer, JobLabel, Resources, Scheduler
from hpcspawner.schedulers.records import FOLLOW_UP_REMOVED, WALL_TIME, cancelled, exited
from hpcspawner.schedulers.state import Cause, JobState, JobStatus, Record
from hpcspawner.site.profile import Access
from hpcspawner.site.scheduler_types import ProfileRules
from hpcspawner.units import shown

_JOB = re.compile(r"\d{1,10}", re.ASCII)

_STATES = {
    "pending": JobState.PENDING,
    "running": JobState.RUNNING,
    "ending": JobState.UNKNOWN,  # got its SIGTERM and has 5 s: no server that runs, and not gone either
    "ended": JobState.ENDED,
}

_REASONS = {
    "Slots": _("This machine has reached its limit of running servers; yours starts when one of them ends."),
    "Follows": _("This follow-up job starts only if the job before it does not finish normally."),
    "cancelled": _("The job was stopped."),
    "dropped": FOLLOW_UP_REMOVED.message,
    "lost": _("The machine was restarted, or the job's supervising process was killed."),
    "walltime": _("The job reached its wall time."),
}

# The year 5138: every time up to then can be told.
_LAST_SECOND = 10**11


class Local(Scheduler):
    """Jobs on this machine, as the Hub's own account, `slots` at a time. `spool` is the folder that holds them."""

    name = "local"
    title = "the embedded scheduler"
    rules = ProfileRules(on_hub=True)
    listen_ip = "127.0.0.1"
    job_id_pattern = _JOB.pattern
    job_variable = "HPC_LOCAL_JOBID"
    long_options = True
    option_patterns: Mapping[str, str] = {
        "name": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
        "tag": r"[a-z][a-z0-9]{4,63}",
        "walltime": r"\d{1,9}",
        "cpus": COUNT,
        "follows": _JOB.pattern,
    }

    def __init__(self, spool: Path, slots: int):
        super().__init__()
        self.spool = spool
        self.slots = slots
        self.submit_command = tuple(self._command("submit"))
        self.cancel_words = tuple(self._command("cancel", GIVEN))  # SIGTERM first, SIGKILL after 5 s

    @classmethod
    def from_profile(cls, access: Access, spool: Path, leave_out: Collection[str]) -> Self:
        """Of its options none can be left out."""
        return cls(spool, access.slots)

    def options(self, resources: Resources, label: JobLabel) -> list[tuple[str, str]]:
        """What the embedded scheduler knows; it hands out slots, not cores or memory."""
        return [
            ("name", label.name),
            ("tag", label.tag),
            ("walltime", str(resources.walltime.seconds)),
            ("cpus", str(resources.cpus or 1)),
            *([("follows", label.follows)] if label.follows else []),
            *resources.directives,
        ]

    def parse_submit(self, out: str) -> str:
        """A number on a line."""
        job_id = out.removesuffix("\n")
        if not _JOB.fullmatch(job_id):
            raise ValueError(f"no job id but {out[:200]!r}")
        return job_id

    def query_command(self, mark: str) -> list[str]:
        """One JSON array, in which nothing can be forged, so the mark is not needed."""
        return self._command("list")

    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id."""
        try:
            return {str(job["id"]): _status(job) for job in _json(out)}
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a list of jobs: {out[:200]!r}") from error

    def details_command(self, job_id: str) -> list[str]:
        """The job's file."""
        return self._command("show", self.valid_id(job_id))

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """The job's file, which is JSON."""
        return self.details_command(job_id)

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """No job is started twice."""
        return 1

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """The job's file, which is JSON."""
        return [self.details_command(job_id)]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By the reason that the job's supervisor wrote down."""
        job = _json(outs[0] or "{}")
        if not isinstance(job, dict):
            raise ValueError(f"not a job: {outs[0][:200]!r}")
        if job.get("id") != job_id or job.get("state") != "ended":
            return None
        code = job.get("exit")
        if code is not None and type(code) is not int:
            raise ValueError(f"not the exit code of a job: {shown(code)}")
        return _record(str(job.get("reason")), code)

    def unreachable(self, answer: Answer) -> bool:
        """Killed, or no turn at the locked folder in time."""
        return answer.code < 0 or answer.code == program.BUSY

    def already_gone(self, answer: Answer) -> bool:
        """A job that ended is remembered for 5 minutes and then unknown."""
        return answer.code == program.UNKNOWN_JOB

    def explain(self, reason: str) -> str:
        """A sentence."""
        return _REASONS.get(reason, reason)

    def _command(self, verb: str, *words: str) -> list[str]:
        spool, slots = str(self.spool.absolute()), str(self.slots)
        return [*program.COMMAND, verb, *words, "--spool", spool, "--slots", slots]


def _json(out: str) -> Any:
    try:
        return json.loads(out)
    except RecursionError:
        raise ValueError(f"jobs nested too deeply: {out[:200]!r}") from None


def _status(job: dict[str, object]) -> JobStatus:
    word = _text(job["state"])
    return JobStatus(
        state=_STATES.get(word, JobState.UNKNOWN),
        host=_text(job["host"]) or None,
        reason=_text(job["reason"]),
        owner=_text(job["owner"]),
        tag=_text(job["tag"]),
        starts_at=_seconds(job["starts_at"]),
        native_state=word,
    )


def _seconds(value: object) -> float:
    if not isinstance(value, int | float) or not 0 <= value < _LAST_SECOND:
        raise TypeError(f"not a time: {shown(value)}")
    return float(value)


def _text(value: object) -> str:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"not text: {shown(value)}")
    return value or ""


def _record(reason: str, code: int | None) -> Record:
    exit_code, number = (code, None) if code is None or code >= 0 else (None, -code)
    known = {
        "walltime": WALL_TIME,
        "cancelled": cancelled(),
        "lost": Record(Cause.NODE_FAILED, _REASONS["lost"]),
        "dropped": FOLLOW_UP_REMOVED,
    }
    if reason in known:
        return replace(known[reason], exit_code=exit_code, signal=number)
    if code is None:
        return Record(Cause.NOT_STARTED, _("The job was not run: {reason}.", reason=reason))
    return exited(exit_code, number)
