"""The only place on the Hub that starts a process: argv, as the user, bounded in time and output."""

import asyncio
import contextlib
import errno
import logging
import os
import pwd
import re
import secrets
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.job.state import JobStatus
from hpcspawner.schedulers.base import Answer, Scheduler
from hpcspawner.site.profile import Access

_OUTPUT_CAP = 64 * 1024 * 1024
_MACHINE_IS_FULL = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_USER = re.compile(r"[a-z_][a-z0-9_.-]{0,31}")
# What sudo says when it will not run a command, in the C locale.
_SUDO_REFUSES = re.compile(
    r"^sudo: (a password is required|a terminal is required|.*command not found|unknown user|.*not allowed|"
    r"unable to (?!resolve host)|sorry, you must have a tty|The \"no new privileges\" flag|effective uid is not 0|"
    r"no tty present)|is not in the sudoers file|is not allowed to execute|may not run sudo",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Listing:
    """All jobs that the scheduler showed in one answer; `begun_at` is the monotonic time before it was asked."""

    begun_at: float
    jobs: dict[str, JobStatus]


class Client:
    """Runs one cluster's commands. Every method raises a SchedulerError and nothing else."""

    def __init__(self, scheduler: Scheduler, access: Access, log: logging.Logger):
        self.scheduler = scheduler
        self.access = access
        self.log = log
        self.own_account = pwd.getpwuid(os.geteuid()).pw_name
        self._forms: dict[str, int] = {}

    async def submit(self, user: str, script: str) -> str:
        """Hand a job script to the scheduler as this user; the job id, verbatim."""
        commands = self.scheduler.submit_commands()
        answer = await self._first_understood("submit", commands, self._as_user(user), script.encode())
        try:
            return self.scheduler.parse_submit(answer.out)
        except ValueError as error:
            raise SchedulerUnreachable(
                "The scheduler took the job but its answer could not be read.", shlex.join(commands[0]), answer.words
            ) from error

    async def cancel(self, user: str, job_id: str) -> None:
        """End a job as its owner; a job that ended before is no error."""
        argv = [*self._as_user(user), *self._found(_valid(self.scheduler.cancel_command, job_id))]
        answer = await self._run(argv)
        if answer.code and not self.scheduler.already_gone(answer):
            raise self._error(argv, answer)

    async def details(self, job_id: str) -> str:
        """All that the scheduler tells the Hub's own account of a job, in its own layout."""
        argv = self._found(_valid(self.scheduler.details_command, job_id))
        return (await self._checked(argv)).out[:20_000]

    async def listing(self) -> Listing:
        """All jobs that the Hub's own account may see."""
        mark = secrets.token_hex(8)
        begun_at = time.monotonic()
        answer = await self._first_understood("query", self.scheduler.query_commands(mark))
        try:
            # Off the loop: a busy cluster lists tens of thousands of jobs.
            jobs = await asyncio.to_thread(self.scheduler.parse_query, answer.out, mark)
        except ValueError as error:
            raise SchedulerUnreachable(
                f"The list of jobs could not be read: {error}", self.scheduler.name, answer.words[:200]
            ) from error
        return Listing(begun_at, jobs)

    async def _first_understood(
        self, verb: str, commands: Sequence[Sequence[str]], prefix: Sequence[str] = (), stdin: bytes = b""
    ) -> Answer:
        """The answer of the first form of a command that this installation knows; which one is remembered."""
        while True:
            form = self._forms.get(verb, 0)
            argv = [*prefix, *self._found(commands[form])]
            answer = await self._run(argv, stdin)
            if not answer.code or (verb == "query" and self.scheduler.lists_nothing(answer)):
                return answer
            if not self.scheduler.misunderstood(answer) or form + 1 >= len(commands):
                raise self._error(argv, answer)
            self._forms[verb] = form + 1

    def _as_user(self, user: str) -> list[str]:
        """The prefix that makes a command this user's; none where the Hub already is this user."""
        if not _USER.fullmatch(user):
            raise SchedulerRejected(f"{user!r} is not the name of a local account, so no job can be submitted for it.")
        if user == self.own_account:
            return []
        return [part.replace("{user}", user) for part in self._found(self.access.prefix)]

    def _found(self, argv: Sequence[str]) -> list[str]:
        """The same argv with the program's full path, as sudo's rules want it."""
        if not argv:
            return []
        path = shutil.which(argv[0], path=os.pathsep.join(self.access.path))
        if path is None:
            raise SchedulerNotSetUp(
                f"The command {argv[0]!r} was not found on the Hub.",
                shlex.join(argv),
                f"not found in {', '.join(self.access.path)}",
                f"install it on the Hub's machine, or add its folder to scheduler.path (now {list(self.access.path)})",
            )
        return [path, *argv[1:]]

    async def _checked(self, argv: Sequence[str], stdin: bytes = b"") -> Answer:
        answer = await self._run(argv, stdin)
        if answer.code:
            raise self._error(argv, answer)
        return answer

    def _error(self, argv: Sequence[str], answer: Answer) -> SchedulerError:
        command = shlex.join(argv)
        self.log.warning("command failed (exit code %s): %s: %s", answer.code, command, answer.words)
        if _SUDO_REFUSES.search(answer.err):
            return SchedulerNotSetUp(
                "The Hub may not run the scheduler's commands as this user.",
                command,
                answer.words,
                f"allow it in sudoers, e.g. `{self.own_account} ALL=(%hpcusers) NOPASSWD: {_program(argv)}`",
            )
        if answer.code < 0 or self.scheduler.unreachable(answer):
            return SchedulerUnreachable("The scheduler does not answer.", command, answer.words)
        return SchedulerRejected(answer.words or f"exit code {answer.code}", command, answer.words)

    async def _run(self, argv: Sequence[str], stdin: bytes = b"") -> Answer:
        """One command, in a small explicit environment, so that nothing of the Hub's reaches it."""
        environment = {"PATH": os.pathsep.join(self.access.path), "LC_ALL": "C"}
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            if error.errno in _MACHINE_IS_FULL:
                raise SchedulerUnreachable(
                    f"The Hub's machine can't start {argv[0]!r} at the moment: {error.strerror}.", shlex.join(argv)
                ) from error
            raise SchedulerNotSetUp(
                f"The command {argv[0]!r} can't be started: {error.strerror}.",
                shlex.join(argv),
                str(error),
                "check that the Hub's account may run it",
            ) from error
        try:
            async with asyncio.timeout(self.access.command_timeout_s):
                return await _talk(process, stdin)
        except (TimeoutError, _TooMuchOutput) as error:
            _give_up(process)
            late = f"The scheduler did not answer within {self.access.command_timeout_s:g} s."
            long = f"The scheduler's answer is longer than {_OUTPUT_CAP} bytes."
            raise SchedulerUnreachable(late if isinstance(error, TimeoutError) else long, shlex.join(argv)) from error
        except BaseException:
            _give_up(process)
            raise


def _valid(command: Callable[[str], list[str]], job_id: str) -> list[str]:
    try:
        return command(job_id)
    except ValueError as error:
        raise SchedulerRejected(str(error)) from error


class _TooMuchOutput(Exception):
    """A command printed more than any honest answer holds."""


async def _talk(process: asyncio.subprocess.Process, stdin: bytes) -> Answer:
    talking = [_feed(process, stdin), _read(process.stdout), _read(process.stderr)]
    tasks: list[asyncio.Task[bytes]] = [asyncio.ensure_future(one) for one in talking]
    try:
        _, out, err = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    code = await process.wait()
    return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))


async def _feed(process: asyncio.subprocess.Process, data: bytes) -> bytes:
    if process.stdin is not None:
        # A command that refuses its arguments may be gone before it has read the script; its exit code tells.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(data)
            await process.stdin.drain()
        process.stdin.close()
    return b""


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    chunks, size = [], 0
    while stream is not None and (chunk := await stream.read(65536)):
        chunks.append(chunk)
        size += len(chunk)
        if size > _OUTPUT_CAP:
            raise _TooMuchOutput
    return b"".join(chunks)


def _give_up(process: asyncio.subprocess.Process) -> None:
    """End a command, its children and the pipes to them."""
    # sudo's child belongs to somebody else; what can't be killed ends when its pipes close.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    # A child in a session of its own keeps the pipes open, and asyncio has no public way to close our ends.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        process._transport.close()  # type: ignore[attr-defined]


def _program(argv: Sequence[str]) -> str:
    """The scheduler's program in an argv that may begin with a prefix."""
    paths = [part for part in argv if part.startswith("/")]
    return paths[-1] if len(paths) < 2 else paths[1]
