"""The scheduler's commands, as the user or as the Hub, and what is made of their answers."""

import asyncio
import errno
import logging
import os
import pwd
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.language import _, sentence_of
from hpcspawner.programs import helper
from hpcspawner.programs.joined import joined_look
from hpcspawner.schedulers import sudo
from hpcspawner.schedulers.base import Answer, Scheduler, Submission
from hpcspawner.schedulers.failures import Failures, missing_configuration
from hpcspawner.schedulers.nodes import Estimate
from hpcspawner.schedulers.people import People
from hpcspawner.schedulers.process import Command, GivenUp, run
from hpcspawner.schedulers.questions import DETAILS, END, JOBS, RUNS, VISIBILITY, Question
from hpcspawner.schedulers.records import numbered
from hpcspawner.schedulers.ssh import LoginNodes
from hpcspawner.schedulers.state import Cause, JobStatus, Record
from hpcspawner.site import names
from hpcspawner.site.profile import Access

if TYPE_CHECKING:
    from hpcspawner.schedulers.rest import Api

# Seconds after which the accounting, which hears of an end a moment later, is asked once more who cancelled a job.
_ACCOUNTING_LAG_S = 1.5
# A thousand jobs may end in one moment; each question of a single job is a process.
_QUESTIONS_AT_ONCE = 10
_MACHINE_IS_FULL = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
# With a REST service the first word of what is asked.
_METHODS = ("GET", "POST", "DELETE")


@dataclass(frozen=True, slots=True)
class Listing:
    """All jobs that the scheduler showed in one answer; `begun_at` is the monotonic time before it was asked."""

    begun_at: float
    jobs: dict[str, JobStatus]


class Client:
    """Runs one cluster's commands. A method that raises anything raises a SchedulerError."""

    def __init__(
        self, scheduler: Scheduler, access: Access, log: logging.Logger, directives: Sequence[tuple[str, str]] = ()
    ):
        """`directives` are the pairs of option and value that the site adds to jobs."""
        self.scheduler = scheduler
        self.access = access
        self.log = log
        self._login = LoginNodes(access) if access.ssh else None
        self.people = People(self._ask_who) if self._login else None
        self._api = _api(access) if access.api else None
        self.own_account = self._login.account if self._login else access.api_account or _own_account()
        self.observe: Callable[[str, str, float], object] = lambda *_: None
        """Called after each command with its program's name, its outcome and its seconds."""
        self._complained: set[str] = set()
        self._few = asyncio.Semaphore(_QUESTIONS_AT_ONCE)
        self._directives = directives
        self._failures = Failures(scheduler, access, self.own_account, log)

    async def submit(self, user: str, job: Submission) -> str:
        """Hand a job to the scheduler as this user; the job id, verbatim."""
        script = job.script.encode()
        try:
            helper.checked_script(script)
            argv = sudo.submit_words(self.scheduler, job.options, self._directives)
        except helper.Refusal as error:
            raise SchedulerRejected(_("This job can't be submitted: {why}.", why=error)) from error
        if self.access.helper:
            command = self._by_helper(user, sudo.SUBMIT, helper.packed(list(job.options), script))
        else:
            given = self.scheduler.submit_input(job.options, job.script)
            command = Command([*self._bounded(), *self._directly(user, argv)], given)
        answer = await self._checked(command)
        try:
            return self.scheduler.parse_submit(answer.out)
        except ValueError as error:
            raise SchedulerUnreachable(
                _("The scheduler accepted the job, but its answer could not be read."),
                shlex.join(argv),
                answer.message,
            ) from error

    async def estimate(self, user: str, options: Sequence[tuple[str, str]]) -> Estimate:
        """When a job with these options could start, asked as this user. Nothing is submitted.

        SchedulerNotSetUp where the scheduler never tells.
        """
        words = self.scheduler.estimate_words
        if not self.can_estimate:
            raise SchedulerNotSetUp(
                _("{scheduler} does not say when a job could start.", scheduler=self.scheduler.title),
                "",
                "",
                "leave the question out",
                "no-estimate",
            )
        try:
            argv = [*sudo.submit_words(self.scheduler, options, self._directives), *words]
        except helper.Refusal as error:
            raise SchedulerRejected(_("This job can't be submitted: {why}.", why=error)) from error
        script = b"#!/bin/sh\n"
        if self.access.helper:
            command = self._by_helper(user, sudo.ESTIMATE, helper.packed(list(options), script))
        else:
            direct = [*self._bounded(), *self._directly(user, argv)]
            command = Command(direct, script, variables=self.scheduler.query_variables)
        answer = await self._run(command)
        try:
            return self.scheduler.parse_estimate(answer)
        except ValueError:
            raise self._failures.error(command.argv, answer) from None

    @property
    def can_estimate(self) -> bool:
        """Whether `estimate` may be asked for."""
        return bool(self.scheduler.estimate_words)

    async def look(self, user: str, asked: bytes) -> str:
        """What `programs/look.py` prints for a line of JSON, run as this user. The user may have had a hand in it."""
        if not self.access.look:
            raise SchedulerNotSetUp(
                _("The Hub may not look at files here."), "", "", "write look = true in [scheduler]"
            )
        if self.access.helper:
            command = self._by_helper(user, sudo.LOOK, asked)
        else:
            argv = ["python3", "-IS", "-c", joined_look()]
            command = Command([*self._bounded(), *self._directly(user, argv)], asked)
        return (await self._checked(command)).out

    async def cancel(self, user: str, job_id: str) -> None:
        """End a job as its owner; a job that ended before is no error."""
        argv = _valid(self.scheduler.cancel_command, job_id)
        command = self._by_user(sudo.CANCEL, argv, user, job_id)
        answer = await self._run(command)
        if answer.code and not self.scheduler.already_gone(answer):
            raise self._failures.error(command.argv, answer)

    async def details(self, job_id: str) -> str:
        """All that the scheduler tells the Hub's own account of a job, in its own layout."""
        argv = _valid(self.scheduler.details_command, job_id)
        async with self._few:
            answer = await self._checked(self._by_hub(Question(DETAILS, (job_id,), argv)))
        return self.scheduler.shortened(answer.out)[:20_000]

    async def runs(self, job_id: str) -> int:
        """How many times the scheduler has started a job; SchedulerNotSetUp where it never tells."""
        mark = _new_mark()
        argv = _valid(self.scheduler.runs_command, job_id, mark)
        question = Question(RUNS, (job_id, mark), argv)
        answer = await self._checked(self._by_hub(question)) if argv else Answer(0, "", "")
        try:
            return self.scheduler.parse_runs(job_id, answer.out, mark)
        except ValueError as error:
            raise SchedulerNotSetUp(
                _("The Hub can't find out how often job {id} was started: {why}", id=job_id, why=error),
                shlex.join(argv),
                answer.message[:200],
                "leave job.requeue out of the profile: this installation does not say when a job runs again",
                "runs-unknown",
            ) from error

    async def record(self, job_id: str) -> Record | None:
        """How a job ended by the scheduler's own record; None where it has not ended or has no record. Raises
        nothing."""
        try:
            mark = _new_mark()
            commands = [
                Question(f"{END}{number}", (job_id, mark), argv)
                for number, argv in enumerate(self.scheduler.end_commands(job_id, mark))
            ]
            found = await self._record(job_id, commands, mark)
            if found and found.cause is Cause.CANCELLED and not found.cancelled_by and len(commands) > 1:
                await asyncio.sleep(_ACCOUNTING_LAG_S)
                found = await self._record(job_id, commands, mark) or found
        except Exception as error:
            self.complain("record", f"could not find out how job {job_id} ended: {error}")
            return None
        return found

    async def _record(self, job_id: str, commands: Sequence[Question], mark: str) -> Record | None:
        async with self._few:
            outs = await asyncio.gather(*(self._quietly(question) for question in commands))
        # Off the loop: the names of accounts may come from a directory service.
        account = self.people.name_of if self.people else _account
        return await asyncio.to_thread(self.scheduler.parse_end, job_id, outs, mark, account)

    async def _ask_who(self, name: str) -> Answer:
        return await self._run(Command([helper.WHO, name]))

    async def sees_all(self) -> bool:
        """Whether the scheduler promises to show the jobs of all to the Hub's own account. Raises nothing."""
        question = Question(VISIBILITY, (), self.scheduler.visibility_command())
        if not question.argv:
            return False
        return self.scheduler.parse_visibility(await self._quietly(question), self.own_account)

    async def parsed(self, verb: str, command: Callable[[str], list[str]], parse: Callable[[str, str], Any]) -> Any:
        """What a parser makes of the answer to a question with one mark; None where there is no such command."""
        mark = _new_mark()
        argv = command(mark)
        if not argv:
            return None
        answer = await self._checked(self._by_hub(Question(verb, (mark,), argv)))
        try:
            # Off the loop: a cluster may have ten thousand nodes.
            return await asyncio.to_thread(parse, answer.out, mark)
        except ValueError as error:
            raise SchedulerUnreachable(_("The answer could not be read: {why}", why=error), shlex.join(argv)) from error

    async def quietly(self, argv: Sequence[str]) -> str:
        """What a command prints; "" if it fails, of which the first time for each program is a warning."""
        return await self._quietly(Question("", (), list(argv)))

    async def _quietly(self, question: Question) -> str:
        """What a command prints; "" if it fails, of which the first time for each program is a warning."""
        argv = question.argv
        try:
            answer = await self._run(self._by_hub(question))
        except SchedulerError as error:
            self.complain(argv[0], f"{shlex.join(argv)}: {error}")
            return ""
        if answer.code and not self.scheduler.already_gone(answer):
            self.complain(argv[0], f"{shlex.join(argv)} failed (exit code {answer.code}): {answer.message}")
        return "" if answer.code else answer.out

    def complain(self, about: str, words: str) -> None:
        """Log a warning the first time that something is wrong with this, and at the level of debugging then."""
        self.log.log(logging.DEBUG if about in self._complained else logging.WARNING, "%s", words)
        self._complained.add(about)

    async def is_unknown(self, job_id: str) -> bool:
        """Whether the scheduler itself says that it knows no such job; any other answer is a no. Raises nothing."""
        try:
            argv = _valid(self.scheduler.details_command, job_id)
            async with self._few:
                answer = await self._run(self._by_hub(Question(DETAILS, (job_id,), argv)))
        except SchedulerError as error:
            self.complain("is_unknown", str(error))
            return False
        return bool(answer.code) and self.scheduler.already_gone(answer)

    async def listing(self, user: str = "") -> Listing:
        """All jobs that the Hub's own account may see, or this user, whose own are always among them."""
        mark = _new_mark()
        begun_at = time.monotonic()
        argv = self.scheduler.query_command(mark)
        question = Question(JOBS, (mark,), argv)
        by_hub = replace(self._by_hub(question), variables=self.scheduler.query_variables)
        answer = await self._checked(self._by_user(sudo.LIST, argv, user, mark) if user else by_hub)
        try:
            # Off the loop: a busy cluster lists tens of thousands of jobs.
            jobs = await asyncio.to_thread(self.scheduler.parse_query, answer.out, mark)
            if user:
                # sudo has dropped the variables, so the times may be of any zone.
                jobs = {job_id: replace(job, starts_at=0.0) for job_id, job in jobs.items()}
        except ValueError as error:
            raise SchedulerUnreachable(
                _("The list of jobs could not be read: {why}", why=error), self.scheduler.name, answer.message[:200]
            ) from error
        return Listing(begun_at, jobs)

    async def output(self, argv: Sequence[str], verb: str = "") -> str:
        """What one of the scheduler's commands prints, run under the Hub's own account; login nodes want its verb."""
        return (await self._checked(self._by_hub(Question(verb, (), list(argv))))).out

    async def answer(self, argv: Sequence[str]) -> Answer:
        """The same for a command that may fail."""
        return await self._run(self._by_hub(Question("", (), list(argv))))

    def _by_hub(self, question: Question) -> Command:
        if self._login and not question.verb:
            raise SchedulerNotSetUp(
                _("The helper on the login nodes answers no further questions."),
                shlex.join(question.argv),
                "scheduler.ssh is set",
                "run this on a login node, with a profile without scheduler.ssh",
                "login-node",
            )
        if self._login:
            return Command([question.verb, *question.words])
        if self._api:
            return Command(self._by_token(self.own_account, question.argv))
        return Command(self._found(question.argv))

    def _by_user(self, verb: str, argv: Sequence[str], user: str, word: str) -> Command:
        """A command with one word that varies, done as a user; the helper, where there is one, is given the word."""
        if self.access.helper:
            return self._by_helper(user, verb, word.encode())
        return Command(self._directly(user, argv))

    def _directly(self, user: str, argv: Sequence[str]) -> list[str]:
        """A command as this user. What becomes the user, such as sudo, drops variables; `env` sets the site's again."""
        if self._api:
            return self._by_token(user, argv)
        become = self._as_user(user)
        variables = [f"{name}={value}" for name, value in self.access.variables.items()]
        setting = self._found(["env", *variables]) if become and variables else []
        return [*become, *setting, *self._found(argv)]

    def _by_token(self, user: str, argv: Sequence[str]) -> list[str]:
        """A request as this user, in three words."""
        if argv[0] not in _METHODS:
            raise SchedulerNotSetUp(
                _("With scheduler.api the Hub runs no commands."),
                shlex.join(argv),
                "scheduler.api is set",
                "run this where the scheduler's commands are, with a profile without scheduler.api",
                "rest-service",
            )
        return [_valid_user(user), *argv[:2]]

    def _by_helper(self, user: str, verb: str, data: bytes) -> Command:
        framed = b"%d\n%s" % (len(data), data)
        if self._login:
            return Command([verb, _valid_user(user)], framed)
        return Command([*self._as_user(user), *self._helper(), verb], framed, watched=True)

    def _helper(self) -> list[str]:
        if shutil.which(str(self.access.helper)) is None:
            raise SchedulerNotSetUp(
                _("The program {path} was not found on the Hub.", path=repr(self.access.helper)),
                str(self.access.helper),
                "scheduler.helper names it, but it does not exist or can't be executed",
                "install there, with mode 0755, what `hpcspawner helper` prints for the site's profile",
                "helper",
            )
        return [str(self.access.helper)]

    def _bounded(self) -> list[str]:
        """The prefix that ends a command a moment after its time limit, in case the Hub is no longer there to do it."""
        path = None if self._api else shutil.which("timeout", path=os.pathsep.join(self.access.path))
        return [path, "--kill-after=1", f"{self.access.command_timeout_s + 1:g}"] if path else []

    def _as_user(self, user: str) -> list[str]:
        """The prefix that makes a command this user's; none where the Hub already is this user."""
        if _valid_user(user) == self.own_account:
            return []
        return [part.replace("{user}", user) for part in self._found(self.access.prefix)]

    def _found(self, argv: Sequence[str]) -> list[str]:
        """The same argv with the program's full path, as sudo's rules want it; of none, none."""
        return sudo.found(self.access, argv) if argv else []

    async def _checked(self, command: Command) -> Answer:
        answer = await self._run(command)
        if answer.code:
            raise self._failures.error(command.argv, answer)
        return answer

    def cure(self) -> str:
        """How the Hub gets the rights that it needs."""
        return self._failures.cure()

    async def _run(self, command: Command) -> Answer:
        """One command, measured."""
        began, outcome = time.monotonic(), "not-started"
        try:
            answer = await self._start(command)
            outcome = "failed" if answer.code else "ok"
            return answer
        except SchedulerUnreachable:
            outcome = "timeout"
            raise
        finally:
            self.observe(self._program(command.argv), outcome, time.monotonic() - began)

    def _program(self, argv: Sequence[str]) -> str:
        """Which of the scheduler's programs an argv runs, whoever starts it."""
        if self._api:
            return f"slurmrestd {argv[1]}"
        scheduler = self.scheduler
        of_verb = {
            sudo.SUBMIT: scheduler.submit_command[0],
            sudo.CANCEL: scheduler.cancel_words[0],
            sudo.LIST: scheduler.query_command("0")[0],
        }
        if self.access.helper and self.access.helper in argv:
            return of_verb.get(argv[-1], "other")
        names = [os.path.basename(word) for word in argv]
        # Before a submit and a cancel stand the programs that become the user.
        return next((one for one in names if one in of_verb.values()), names[0])

    async def _start(self, command: Command) -> Answer:
        """One command, in a small explicit environment, so that nothing of the Hub's reaches it."""
        if self._login:
            return await self._login.run(command.argv, command.stdin)
        if self._api:
            return await self._api.run(command.argv, command.stdin)
        own = {"PATH": os.pathsep.join(self.access.path), "LC_ALL": "C"}
        environment = {**self.access.variables, **command.variables, **own}
        line = shlex.join(command.argv)
        try:
            return await run(command, environment, self.access.command_timeout_s)
        except GivenUp as error:
            if fault := missing_configuration(self.access):
                cure, entry = "correct SLURM_CONF in scheduler.variables", "scheduler-configuration"
                raise SchedulerNotSetUp(fault, line, str(error), cure, entry) from error
            raised = SchedulerUnreachable(sentence_of(error), line)
            raised.lingering = error.lingering
            raise raised from error
        except OSError as error:
            if error.errno in _MACHINE_IS_FULL:
                full = _("The Hub's machine can't start {command} at the moment: {why}.")
                raise SchedulerUnreachable(
                    full.fill(command=repr(command.argv[0]), why=error.strerror), line
                ) from error
            raise SchedulerNotSetUp(
                _("The command {command} can't be started: {why}.", command=repr(command.argv[0]), why=error.strerror),
                line,
                str(error),
                "check that the Hub's account may run it",
                "command-missing",
            ) from error


def _api(access: Access) -> "Api":
    # With it comes an HTTP client, which nothing else here needs.
    from hpcspawner.schedulers.rest import Api  # noqa: PLC0415

    return Api(access)


def _own_account() -> str:
    if os.geteuid() == 0:
        return "root"
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # A user database that is away must not keep the Hub from starting; a number is nobody's name.
        return str(os.geteuid())


def _valid_user(name: str) -> str:
    if problem := names.user_problem(name):
        raise SchedulerRejected(_("No command is run for the account {name}: {why}.", name=repr(name), why=problem))
    return name


def _new_mark() -> str:
    """A random word, as `sudo.MARK` describes it."""
    return secrets.token_hex(8)


def _valid(command: Callable[..., list[str]], *words: str) -> list[str]:
    try:
        return command(*words)
    except ValueError as error:
        raise SchedulerRejected(str(error)) from error


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return numbered(number)
