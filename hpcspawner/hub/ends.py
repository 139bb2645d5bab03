"""Why a job ended: the launcher's own report first, then the scheduler's record, then what is left to say."""

import time

from hpcspawner.hub.ledger import End, Report, Row
from hpcspawner.job.state import Cause, JobStatus, Record
from hpcspawner.units import Walltime

RENEWED_AFTER = frozenset({Cause.WALL_TIME, Cause.NODE_FAILED, Cause.PREEMPTED})
"""The ends after which a follow-up job takes over: all that neither the server nor its user wanted."""

# What else ends a job leaves no trace in its log.
_EXPLAINED_BY_LOG = frozenset({Cause.EXITED, Cause.NOT_STARTED, Cause.OUT_OF_MEMORY, Cause.UNKNOWN})
# The launcher calls home some time after its job has begun.
_BEGAN_LATE_S = 10
# The launcher sees that something was killed; who did it and why, only the scheduler knows.
KILLED = "signalled"
_SIGKILL = 9


def why(row: Row, record: Record | None, status: JobStatus) -> End:
    """The end of this row's job, for its owner to read. `record` is None where the scheduler knows nothing more."""
    if row.verdict is not None:
        return row.verdict
    if not row.wanted:
        return End(Cause.STOPPED, "The server was stopped.", time.time())
    report = row.report
    code = report.exit_code if report else None
    if code is None and record is not None:
        code = record.exit_code
    cause, message = _cause(row, record, status)
    log = report.log if report and cause in _EXPLAINED_BY_LOG else ()
    return End(cause, message, time.time(), code, log)


def _cause(row: Row, record: Record | None, status: JobStatus) -> tuple[Cause, str]:
    report = row.report
    if report is not None and not _was_killed(report):
        return _of_report(report, listened=bool(row.port)), report.message or f"The server ended ({report.reason})."
    if record is not None and record.cause is not Cause.UNKNOWN and not _says_less(record, report):
        return record.cause, record.message
    if _time_was_up(row):
        return Cause.WALL_TIME, "The wall time of the job was reached."
    if report is not None:
        return Cause.EXITED, report.message
    word = f"The job ended. The scheduler says: {status.word}." if status.word else ""
    return Cause.UNKNOWN, word or "The job is gone, and the scheduler does not know any more why."


def _was_killed(report: Report) -> bool:
    return report.reason == KILLED or _SIGKILL in (report.signal, (report.exit_code or 0) - 128)


def _time_was_up(row: Row) -> bool:
    """Whether the wall time explains an end that the scheduler says nothing about."""
    try:
        walltime_s = Walltime.parse(row.choices.get("walltime")).seconds
    except ValueError:
        return False
    return bool(row.began_at) and time.time() - row.began_at > walltime_s - _BEGAN_LATE_S


def _says_less(record: Record, report: Report | None) -> bool:
    """Whether the record knows only what the launcher has told better: an exit code."""
    return report is not None and record.cause is Cause.EXITED


def _of_report(report: Report, *, listened: bool) -> Cause:
    if report.reason == "idle":
        return Cause.IDLE
    return Cause.EXITED if listened else Cause.NOT_STARTED
