"""What a failed command means: whose word it is, whether it was a refusal, and what the admin can do."""

import logging
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.language import _
from hpcspawner.programs import helper
from hpcspawner.schedulers.base import Answer, Scheduler
from hpcspawner.site.profile import Access

# What begins with the name of a program that becomes another user is its own word: the scheduler's commands begin with
# theirs. sudo goes on after the warning about names of hosts. Of its sentences without its name, all are for one line.
_PREFIX_REFUSES = re.compile(
    r"^(?:sudo|sudo-rs|doas|su|runuser|setpriv): (?!unable to resolve host)|"
    r"^(?:Sorry, user )?\S+ (?:is not in the sudoers file|may not run sudo|is not allowed to (?:execute|run sudo))|"
    r"^Sorry, (?:user \S+|try again)",
    re.MULTILINE,
)
# What a shell, `timeout` and sudo give for a program that can't be run or found; no scheduler's command does.
_NO_PROGRAM = (126, 127)
_NO_LIBRARY = "error while loading shared libraries"

_HELPER_SAYS = re.compile(f"^{helper.SAYS}", re.MULTILINE)
# Its last words; both tell that it has started the scheduler's command.
_COMMAND_FAILED = re.compile(rf"{helper.SAYS}{helper.FAILED}\d+\n?\Z")
_COMMAND_ENDED = re.compile(rf"{helper.SAYS}{helper.ENDED}.*\n?\Z")


class Failures:
    """Of the commands of one cluster."""

    def __init__(self, scheduler: Scheduler, access: Access, account: str, log: logging.Logger):
        """`account` is the one that the Hub has there."""
        self._scheduler, self._access, self._account, self._log = scheduler, access, account, log
        commands = (scheduler.submit_command, scheduler.cancel_command("1"), scheduler.query_command("0"))
        self._commands_words = _lines_of([argv[0] for argv in commands])
        # A site's own program that becomes the user.
        self._prefix_words = _lines_of([os.path.basename(word) for word in access.prefix[:1]])

    def error(self, argv: Sequence[str], answer: Answer) -> SchedulerError:
        """What a command has failed with, which is logged."""
        command, started = shlex.join(argv), self._has_started(answer)
        answer = replace(answer, err=_COMMAND_FAILED.sub("", answer.err))
        self._log.warning("command failed (exit code %s): %s: %s", answer.code, command, answer.message)
        fault = None if started else self._not_started(argv, answer)
        if fault := fault or self._not_set_up(answer):
            message, cure, entry = fault
            return SchedulerNotSetUp(message, command, answer.message, cure, entry)
        if answer.code < 0 or _COMMAND_ENDED.search(answer.err) or self._scheduler.unreachable(answer):
            hint = self._scheduler.hint(answer)
            words = f"{answer.message} ({hint})" if hint else answer.message
            return SchedulerUnreachable(_("The scheduler is not answering."), command, words)
        return SchedulerRejected(answer.message or f"exit code {answer.code}", command, answer.message)

    def _has_started(self, answer: Answer) -> bool:
        """Whether the scheduler's command has surely run: the helper or the command itself says so.

        What comes before may be a warning of sudo's, which goes on after it.
        """
        said = (_COMMAND_FAILED, _COMMAND_ENDED, self._commands_words)
        return any(pattern.search(answer.err) for pattern in said)

    def _not_started(self, argv: Sequence[str], answer: Answer) -> tuple[str, str, str] | None:
        """Message, cure and entry, where the words are of those who were to start the scheduler's command."""
        by_helper = answer.code > 0 and (bool(self._access.ssh) or self._access.helper in argv)
        if by_helper and _HELPER_SAYS.search(answer.err):
            again = f"install what `hpcspawner helper` prints for the site's profile anew at {self._access.helper}"
            return (
                _("The helper program (scheduler.helper) refused the Hub's request; it may be out of date."),
                again,
                "helper",
            )
        by_prefix = self._prefix_words.search(answer.err) and not self._scheduler.unreachable(answer)
        if by_helper or by_prefix or _PREFIX_REFUSES.search(answer.err):
            return _("The Hub may not run the scheduler's commands as this user."), self.cure(), "sudo-rule"
        return None

    def _not_set_up(self, answer: Answer) -> tuple[str, str, str] | None:
        """Message, cure and entry, where the scheduler's command is not fit to ask the scheduler."""
        if cure := self._scheduler.wrong_type(answer):
            name = self._scheduler.name
            message = _("The commands on the Hub are not those of the scheduler in the profile, {name}.", name=name)
            return message, cure, "wrong-scheduler"
        if cure := self._scheduler.not_set_up(answer):
            return _("The scheduler's commands are not set up on the Hub."), cure, "scheduler-configuration"
        if _NO_LIBRARY in answer.err:
            cure = "name the folder of the library as LD_LIBRARY_PATH in scheduler.variables, or have ldconfig know it"
            return _("A command of the scheduler lacks a library on the Hub."), cure, "command-missing"
        if answer.code in _NO_PROGRAM:
            cure = (
                "check that the program and the files it needs exist and can be executed; scheduler.path names its "
                "folder"
            )
            return _("A command of the scheduler can't be run on the Hub."), cure, "command-missing"
        return None

    def cure(self) -> str:
        """How the Hub gets the rights that it needs."""
        lines = f"`hpcspawner sudoers SITE.toml --account={self._account} --group=GROUP`"
        if self._access.helper:
            where = "/etc/sudoers.d" + (" on the login nodes" if self._access.ssh else "")
            return f"put what {lines} prints into {where}, and the user into that group"
        return f"name a helper in the profile (scheduler.helper), and put what {lines} prints into /etc/sudoers.d"


def missing_configuration(access: Access) -> str:
    """What is wrong where Slurm's commands wait a minute for a file that is not there; empty for nothing."""
    path = access.variables.get("SLURM_CONF", "")
    return _("The file {path} is not there on the Hub.", path=repr(path)) if path and not os.path.isfile(path) else ""


def _lines_of(programs: Sequence[str]) -> re.Pattern[str]:
    """What one of these programs says begins with its name."""
    return re.compile(rf"^(?:{'|'.join(map(re.escape, programs))}): " if programs else r"(?!)", re.MULTILINE)
