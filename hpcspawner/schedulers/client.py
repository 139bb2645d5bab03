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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.job.state import Cause, JobStatus, Record
from hpcspawner.schedulers.base import Answer, Scheduler
from hpcspawner.site.profile import Access

# Enough for 360,000 jobs of squeue's (180 bytes each) and 44,000 of Torque's qstat (1500).
_OUTPUT_CAP = 64 * 1024 * 1024
# Seconds after which the accounting, which hears of an end a moment later, is asked once more who cancelled a job.
_ACCOUNTING_LAG_S = 1.5
# Seconds in which a command that was killed must be gone.
_BURIAL_S = 2.0
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
    """Runs one cluster's commands. A method that raises anything raises a SchedulerError."""

    def __init__(self, scheduler: Scheduler, access: Access, log: logging.Logger):
        self.scheduler = scheduler
        self.access = access
        self.log = log
        self.own_account = _own_account()
        self._forms: dict[str, int] = {}
        self._complained: set[str] = set()

    async def submit(self, user: str, script: str) -> str:
        """Hand a job script to the scheduler as this user; the job id, verbatim."""
        commands = self.scheduler.submit_commands(script)
        prefix = [*self._bounded(), *self._as_user(user)]
        answer = await self._first_understood("submit", commands, prefix, script.encode())
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

    async def runs(self, job_id: str) -> int:
        """How many times the scheduler has started a job; SchedulerNotSetUp where it never tells."""
        argv = self._found(_valid(self.scheduler.details_command, job_id))
        answer = await self._checked(argv)
        try:
            return self.scheduler.parse_runs(answer.out)
        except ValueError as error:
            raise SchedulerNotSetUp(
                f"It can't be told how often job {job_id} was started: {error}",
                shlex.join(argv),
                answer.words[:200],
                "leave job.requeue out of the profile: this installation does not say when a job runs again",
            ) from error

    async def record(self, job_id: str) -> Record | None:
        """How a job ended by the scheduler's own record; None where it has not, or nobody knows. Raises nothing."""
        try:
            commands = self.scheduler.end_commands(job_id)
            found = await self._record(job_id, commands)
            if found and found.cause is Cause.CANCELLED and not found.by and len(commands) > 1:
                await asyncio.sleep(_ACCOUNTING_LAG_S)
                found = await self._record(job_id, commands) or found
        except Exception as error:
            self._complain("record", f"how job {job_id} ended could not be found out: {error}")
            return None
        return found

    async def _record(self, job_id: str, commands: Sequence[Sequence[str]]) -> Record | None:
        outs = await asyncio.gather(*(self._quietly(argv) for argv in commands))
        # Off the loop: the names of accounts may come from a directory service.
        return await asyncio.to_thread(self.scheduler.parse_end, job_id, outs, _account)

    async def sees_all(self) -> bool:
        """Whether the scheduler promises to show the jobs of all to the Hub's own account. Raises nothing."""
        argv = self.scheduler.sight_command()
        return bool(argv) and self.scheduler.sees_all(await self._quietly(argv), self.own_account)

    async def _quietly(self, argv: Sequence[str]) -> str:
        """What a command prints; "" if it fails, of which the first time for each program is a warning."""
        try:
            answer = await self._run(self._found(argv))
        except SchedulerError as error:
            self._complain(argv[0], f"{shlex.join(argv)}: {error}")
            return ""
        if answer.code and not self.scheduler.already_gone(answer):
            self._complain(argv[0], f"{shlex.join(argv)} failed (exit code {answer.code}): {answer.words}")
        return "" if answer.code else answer.out

    def _complain(self, about: str, words: str) -> None:
        self.log.log(logging.DEBUG if about in self._complained else logging.WARNING, "%s", words)
        self._complained.add(about)

    async def is_unknown(self, job_id: str) -> bool:
        """Whether the scheduler itself says that it knows no such job; any other answer is a no. Raises nothing."""
        try:
            answer = await self._run(self._found(_valid(self.scheduler.details_command, job_id)))
        except SchedulerError as error:
            self._complain("is_unknown", str(error))
            return False
        return bool(answer.code) and self.scheduler.already_gone(answer)

    async def listing(self, user: str = "") -> Listing:
        """All jobs that the Hub's own account may see, or this user, whose own are always among them."""
        mark = secrets.token_hex(8)
        begun_at = time.monotonic()
        prefix = self._as_user(user) if user else []
        answer = await self._first_understood("query", self.scheduler.query_commands(mark), prefix)
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

    def _bounded(self) -> list[str]:
        """The prefix that ends a command a moment after its time, should the Hub not be there any more to do it."""
        path = shutil.which("timeout", path=os.pathsep.join(self.access.path))
        return [path, "--kill-after=1", f"{self.access.command_timeout_s + 1:g}"] if path else []

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
            with _whole(stdin) as given:
                process = await asyncio.create_subprocess_exec(
                    *argv,
                    stdin=given,
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
                return await _talk(process)
        except (TimeoutError, _TooMuchOutput) as error:
            late = f"The scheduler did not answer within {self.access.command_timeout_s:g} s."
            long = f"The scheduler's answer is longer than {_OUTPUT_CAP} bytes."
            raised = SchedulerUnreachable(late if isinstance(error, TimeoutError) else long, shlex.join(argv))
            raised.lingering = not await _ended(process, _kill(process))
            raise raised from error
        except BaseException:
            _kill(process)
            raise
        finally:
            _close(process)


def _own_account() -> str:
    if os.geteuid() == 0:
        return "root"
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        # A user database that is away must not keep the Hub from starting; a number is nobody's name.
        return str(os.geteuid())


def _valid(command: Callable[[str], list[str]], job_id: str) -> list[str]:
    try:
        return command(job_id)
    except ValueError as error:
        raise SchedulerRejected(str(error)) from error


def _account(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return f"uid {number}"


class _TooMuchOutput(Exception):
    """A command printed more than any honest answer holds."""


@contextlib.contextmanager
def _whole(data: bytes) -> Iterator[int]:
    """A file in memory that holds all of a command's input, so that none of it is lost if the Hub ends just now."""
    if not data:
        yield asyncio.subprocess.DEVNULL
        return
    with os.fdopen(os.memfd_create("hpcspawner", os.MFD_CLOEXEC), "wb") as file:
        file.write(data)
        file.flush()
        file.seek(0)
        yield file.fileno()


async def _talk(process: asyncio.subprocess.Process) -> Answer:
    tasks = [asyncio.ensure_future(_read(stream)) for stream in (process.stdout, process.stderr)]
    try:
        out, err = await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
    code = await process.wait()
    return Answer(code, out.decode(errors="replace"), err.decode(errors="replace"))


async def _read(stream: asyncio.StreamReader | None) -> bytes:
    chunks, size = [], 0
    while stream is not None and (chunk := await stream.read(65536)):
        chunks.append(chunk)
        size += len(chunk)
        if size > _OUTPUT_CAP:
            raise _TooMuchOutput
    return b"".join(chunks)


def _kill(process: asyncio.subprocess.Process) -> set[int]:
    """End a command and its children; the ids of those children that could be found."""
    # sudo may give its child a session of its own, and what belongs to somebody else can't be killed.
    family = _descendants(process.pid)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    for pid in family:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    return family


async def _ended(process: asyncio.subprocess.Process, family: set[int]) -> bool:
    """Whether a command that was killed is proven to be gone within a moment, with all that it has started."""
    try:
        async with asyncio.timeout(_BURIAL_S):
            # Whoever holds the other end of a pipe may still act.
            for stream in (process.stdout, process.stderr):
                while stream is not None and await stream.read(65536):
                    pass
            await process.wait()
            while _group_lives(process.pid) or any(_stat(pid)[0] != "X" for pid in family):
                await asyncio.sleep(0.05)
    except TimeoutError:
        return False
    return True


def _close(process: asyncio.subprocess.Process) -> None:
    """A child in a session of its own keeps the pipes open, and asyncio has no public way to close our ends."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        process._transport.close()  # type: ignore[attr-defined]


def _group_lives(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return any(_stat(int(folder.name))[2] == pid for folder in Path("/proc").glob("[0-9]*"))


def _descendants(pid: int) -> set[int]:
    """All children of a process, theirs included, that /proc shows."""
    parents = {int(folder.name): _stat(int(folder.name))[1] for folder in Path("/proc").glob("[0-9]*")}
    found, new = set[int](), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new} - found
        found |= new
    return found


def _stat(pid: int) -> tuple[str, int, int]:
    """State, parent and process group; what waits only to be buried has none."""
    try:
        # The second field is the program's name in parentheses, which can hold anything.
        state, parent, group = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
    except (OSError, ValueError):
        return "X", 0, 0
    return (state, int(parent), int(group)) if state not in "ZX" else ("X", 0, 0)


def _program(argv: Sequence[str]) -> str:
    """The scheduler's program in an argv that may begin with a prefix."""
    paths = [part for part in argv if part.startswith("/") and not part.endswith("/timeout")]
    return paths[-1] if len(paths) < 2 else paths[1]
