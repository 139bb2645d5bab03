"""A command as a process: argv without a shell, bounded in time and output, ended when its caller stops waiting."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from hpcspawner.language import _
from hpcspawner.schedulers.base import Answer

# Enough for 360,000 jobs of squeue's (180 bytes each) and 44,000 of Torque's qstat (1500).
OUTPUT_CAP = 64 * 1024 * 1024
# Seconds in which a command that was killed must be gone.
_BURIAL_S = 10.0
_LONGEST_PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Command:
    """An argv and what it reads.

    Its standard input is a whole file, of which nothing is lost if the Hub ends just now. If it is `watched`, it is a
    pipe instead, open until the answer is there: its end shows the command that the Hub no longer waits. `variables`
    are for its environment alone.
    """

    argv: Sequence[str]
    stdin: bytes = b""
    watched: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


class GivenUp(Exception):
    """A command was ended here, for want of an answer that could be used; the text says which.

    `lingering` tells that it could not be ended (it may be another account's) and may still do what it was asked.
    """

    def __init__(self, message: str, lingering: bool):
        self.lingering = lingering
        super().__init__(message)


async def run(command: Command, environment: Mapping[str, str], limit_s: float) -> Answer:
    """Run a command with exactly this environment; its exit code and output.

    Raises OSError where it can't be started, GivenUp where it takes longer than `limit_s` seconds or says too much.
    """
    process = _Process(command, environment)
    try:
        async with asyncio.timeout(limit_s):
            return await process.answer()
    except (TimeoutError, _TooMuchOutput) as error:
        seconds = f"{limit_s:g}"
        late = _("The scheduler did not answer within {limit} s.", limit=seconds)
        long = _("The scheduler's answer is longer than {most} bytes.", most=OUTPUT_CAP)
        lingering = not await process.ended(process.kill())
        raise GivenUp(late if isinstance(error, TimeoutError) else long, lingering) from error
    except BaseException:
        process.kill()
        raise
    finally:
        process.close()


class _TooMuchOutput(Exception):
    """A command printed more than any honest answer holds."""


class _Process:
    """A process that was started, and our ends of its pipes.

    Not asyncio's own: that one starts by way of tasks, and whoever cancels these in the middle, as JupyterHub does with
    all tasks when it ends, may wait for ever (Python 3.11.7). Here there is no moment at which that could happen.
    """

    def __init__(self, command: Command, environment: Mapping[str, str]):
        with _input(command) as stdin:
            self._popen = subprocess.Popen(
                list(command.argv),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=dict(environment),
                cwd="/",
                start_new_session=True,
            )
        self._input = command.stdin
        self._streams: list[asyncio.StreamReader] = []
        self._transports: list[asyncio.ReadTransport] = []
        self._feed: asyncio.WriteTransport | None = None

    async def answer(self) -> Answer:
        """All that it says, and how it ends."""
        loop = asyncio.get_running_loop()
        for pipe in (self._popen.stdout, self._popen.stderr):
            await self._listen(pipe)
        if self._popen.stdin is not None:
            self._feed, _ = await loop.connect_write_pipe(asyncio.Protocol, self._popen.stdin)
            self._feed.write(self._input)
        tasks = [asyncio.ensure_future(_read(stream)) for stream in self._streams]
        try:
            out, err = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return Answer(await self._exit_code(), out.decode(errors="replace"), err.decode(errors="replace"))

    async def _listen(self, pipe: IO[bytes] | None) -> None:
        stream = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), pipe
        )
        self._streams.append(stream)
        self._transports.append(transport)

    async def _exit_code(self) -> int:
        # What has closed its output is about to end, so this is over at once, and it needs no thread.
        pause_s = 0.001
        while (code := self._popen.poll()) is None:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        return code

    def kill(self) -> set[int]:
        """End it and its children; the ids of those children that could be found."""
        pid = self._popen.pid
        # sudo may give its child a session of its own, and what belongs to somebody else can't be killed.
        family = _descendants(pid)
        self._end_input()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        for child in family:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(child, signal.SIGKILL)
        return family

    def _end_input(self) -> None:
        # It closes by itself once there is no reader.
        if self._feed is not None and not self._feed.is_closing():
            self._feed.abort()

    async def ended(self, family: set[int]) -> bool:
        """Whether, once killed, it is proven to be gone within a moment, with all that it has started."""
        try:
            async with asyncio.timeout(_BURIAL_S):
                # Whoever holds the other end of a pipe may still act.
                for stream in self._streams:
                    while await stream.read(65536):
                        pass
                await self._exit_code()
                while _group_lives(self._popen.pid) or any(_stat(pid)[0] != "X" for pid in family):
                    await asyncio.sleep(_LONGEST_PAUSE_S)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Let go of the pipes: a child in a session of its own may keep their other ends open."""
        for transport in self._transports:
            transport.close()
        self._end_input()
        for pipe in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def _input(command: Command) -> Iterator[Any]:
    if command.watched:
        yield subprocess.PIPE
        return
    if not command.stdin:
        yield subprocess.DEVNULL
        return
    with os.fdopen(os.memfd_create("hpcspawner", os.MFD_CLOEXEC), "wb") as file:
        file.write(command.stdin)
        file.flush()
        file.seek(0)
        yield file.fileno()


async def _read(stream: asyncio.StreamReader) -> bytes:
    chunks, size = [], 0
    while chunk := await stream.read(65536):
        chunks.append(chunk)
        size += len(chunk)
        if size > OUTPUT_CAP:
            raise _TooMuchOutput
    return b"".join(chunks)


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
