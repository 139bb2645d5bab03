"""Why a job ended: the launcher's own report first, then the scheduler's record, then what is left to say."""

import time
from dataclasses import replace

from hpcspawner.jobs.job import Job
from hpcspawner.jobs.record import End, Report
from hpcspawner.language import _, joined
from hpcspawner.programs.launcher import codes
from hpcspawner.schedulers.records import WALL_TIME
from hpcspawner.schedulers.state import Cause, JobStatus, Record
from hpcspawner.script.render import log_path
from hpcspawner.site.profile import Job as JobSettings

RENEWED_AFTER = frozenset({Cause.WALL_TIME, Cause.NODE_FAILED, Cause.PREEMPTED})
"""The ends after which a follow-up job takes over: all that neither the server nor its user wanted."""

# What else ends a job leaves no trace in its log.
_EXPLAINED_BY_LOG = frozenset({Cause.EXITED, Cause.NOT_STARTED, Cause.OUT_OF_MEMORY, Cause.UNKNOWN})
# The launcher calls home some time after its job has begun.
_BEGAN_LATE_S = 10
# The launcher sees that something was killed; who did it and why, only the scheduler knows.
KILLED = "signalled"
_SIGKILL = 9

# How a job exits that could not tell the Hub why, in words; the last lines of its log say more.
_UNTOLD = {
    codes.BROKEN_CODE: _(
        "The Python of the node, {python} (job.python of the site's profile), could not run the "
        "job's launcher: it is broken or older than 3.6."
    ),
    codes.REFUSED_CODE: _(
        "The job called the Hub and was refused: its ticket was no longer valid, or the callback "
        "address (callback_url in the Hub's configuration) is not the Hub's."
    ),
    codes.UNTRUSTED_CODE: _(
        "The node did not accept the Hub's certificate, so the job sent nothing: the node does "
        "not know the authority that signed it (ca_file in the Hub's configuration names it)."
    ),
    codes.UNANSWERED_CODE: _(
        "The job called the Hub and got no answer: the node can't reach the callback address "
        "(callback_url in the Hub's configuration), or the Hub was away for too long."
    ),
    codes.SETTINGS_CODE: _(
        "The job's launcher could not use what the Hub wrote into its script: the callback address "
        "(callback_url in the Hub's configuration) does not begin with https://, or the script arrived incomplete."
    ),
    codes.WRONG_NAME_CODE: _(
        "The node did not accept the Hub's certificate, so the job sent nothing: the "
        "certificate names another host than the callback address (callback_url in the Hub's configuration)."
    ),
    codes.WRONG_TIME_CODE: _(
        "The node did not accept the Hub's certificate, so the job sent nothing: by the node's "
        "clock it is not yet valid or has expired. The node's clock is wrong, or the certificate has expired."
    ),
    codes.NOT_RUN_CODE: _(
        "The Python of the node, {python} (job.python of the site's profile), can't be executed there."
    ),
    codes.NO_PYTHON_CODE: _(
        "The job's launcher needs Python, and the node has none that runs: {python} (job.python of the site's profile)."
    ),
}
# The same exit codes, and the entries of the page about troubleshooting.
_ENTRIES = {
    codes.BROKEN_CODE: "no-python",
    codes.REFUSED_CODE: "job-refused",
    codes.UNTRUSTED_CODE: "node-trust",
    codes.UNANSWERED_CODE: "node-to-hub",
    codes.SETTINGS_CODE: "callback-url",
    codes.WRONG_NAME_CODE: "node-trust",
    codes.WRONG_TIME_CODE: "node-trust",
    codes.NOT_RUN_CODE: "no-python",
    codes.NO_PYTHON_CODE: "no-python",
}
_RECORD_LOST = _("The Hub had lost its record of this job and refused its calls.")


def explain_end(job: Job, record: Record | None, status: JobStatus, settings: JobSettings) -> End:
    """Why this job ended, worded for its owner. `record` is None where the scheduler knows nothing more.

    `settings` are the profile's; where the launcher has reported nothing, the end says where the log is.
    """
    if job.hub_verdict is not None:
        return job.hub_verdict
    if not job.record.wanted:
        return End(Cause.STOPPED, _("The server was stopped."), time.time())
    report = job.report
    code = report.exit_code if report else None
    if code is None and record is not None:
        code = record.exit_code
    cause, message = _cause(job, _in_words(job, record, settings), status)
    if report is None and cause in _EXPLAINED_BY_LOG:
        message = joined([message, where_its_log_is(job, settings, record.node if record else "")])
    log = report.log if report and cause in _EXPLAINED_BY_LOG else ()
    return End(cause, message, time.time(), code, log)


def entry_of(end: End, *, reported: bool) -> str:
    """The entry of the page about troubleshooting for this end.

    `reported` tells that the launcher has said why, so the exit code is not the launcher's own.
    """
    own = "" if reported or end.cause is not Cause.NOT_STARTED else _ENTRIES.get(end.exit_code or 0)
    return own or end.cause.value


def where_its_log_is(job: Job, settings: JobSettings, node: str) -> str:
    """A sentence; `node` is "" where it is not known."""
    path, node = log_path(settings.log, job.label, job.record.job_id), node or job.record.host
    return _("Its log is {path} on {node}.", path=path, node=node) if node else _("Its log is {path}.", path=path)


def _in_words(job: Job, record: Record | None, settings: JobSettings) -> Record | None:
    """What an exit code means of a job that has never got its environment, so that it is not the server's."""
    if record is None or record.cause is not Cause.EXITED or job.record.report_key_hash or record.signal:
        return record
    words = _UNTOLD.get(record.exit_code or 0)
    if job.was_lost and record.exit_code == codes.REFUSED_CODE:
        words = _RECORD_LOST
    if words is None:
        return record
    message = joined([words.fill(python=settings.python), record.message])
    return replace(record, cause=Cause.NOT_STARTED, message=message)


def _cause(job: Job, record: Record | None, status: JobStatus) -> tuple[Cause, str]:
    report = job.report
    if report is not None and not _was_killed(report):
        return _of_report(report, listened=bool(job.record.port)), report.message or _(
            "The server ended ({reason}).", reason=report.reason
        )
    if record is not None and record.cause is not Cause.UNKNOWN and not _says_less(record, report):
        return record.cause, record.message
    if _time_was_up(job):
        return Cause.WALL_TIME, WALL_TIME.message
    if report is not None:
        return Cause.EXITED, report.message
    if status.native_state:
        return Cause.UNKNOWN, _("The job ended. The scheduler says: {state}.", state=status.native_state)
    return Cause.UNKNOWN, _("The job has ended, and the scheduler no longer has a record of why.")


def _was_killed(report: Report) -> bool:
    return report.reason == KILLED or _SIGKILL in (report.signal, (report.exit_code or 0) - 128)


def _time_was_up(job: Job) -> bool:
    """Whether the wall time explains an end that the scheduler says nothing about."""
    ends_at = job.record.ends_at
    return bool(ends_at) and time.time() > ends_at - _BEGAN_LATE_S


def _says_less(record: Record, report: Report | None) -> bool:
    """Whether the record holds less than the launcher's report: only an exit code."""
    return report is not None and record.cause is Cause.EXITED


def _of_report(report: Report, *, listened: bool) -> Cause:
    if report.reason == "idle":
        return Cause.IDLE
    return Cause.EXITED if listened else Cause.NOT_STARTED
