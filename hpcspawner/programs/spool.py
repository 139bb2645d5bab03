"""The embedded scheduler: job scripts run on this machine, a few at a time, from a locked folder.

Started by file path, so it needs the standard library only (`COMMAND` has no site-packages):

    spool.py submit    --spool DIR --slots N OPTIONS < SCRIPT     prints the job's id
    spool.py list      --spool DIR --slots N                      prints all jobs as one JSON array
    spool.py show ID   --spool DIR --slots N                      prints one job
    spool.py cancel ID --spool DIR --slots N

OPTIONS say what is kept of a job: `--name`, `--tag`, `--walltime` in seconds, `--cpus`, and `--follows` with the id of
the job after whose unsuccessful end this one may start.

Nothing is resident. Each job has a small process beside it (`run`), which watches its time, writes down how it ended
and starts the next one. It belongs to no terminal and no parent, so it outlives the Hub.

The folder holds `lock`, `last-id`, and for each job `ID.json` (what is known of it) and `ID.sh` (its script).
"""

import argparse
import contextlib
import fcntl
import json
import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMAND = (sys.executable, "-I", "-S", __file__)

LOCK_PATIENCE_S = 10.0
# No process waits for a supervisor; what it does not write down is lost.
SUPERVISOR_PATIENCE_S = 600.0
KILL_WAIT_S = 5.0
KEEP_ENDED_S = 300.0
DEFAULT_WALLTIME_S = 1800

# Exit codes, as sysexits.h numbers them.
UNKNOWN_JOB = 3
BAD_SCRIPT = 65
IO_ERROR = 74
BUSY = 75
NOT_OURS = 77

# States of a job that has a supervisor and takes up a slot.
ACTIVE = ("running", "ending")
# Both mark every process of a job, whatever session or parent it has.
ID_VARIABLE = "HPC_LOCAL_JOBID"
SPOOL_VARIABLE = "HPC_LOCAL_SPOOL"

Job = dict[str, Any]


class SpoolError(Exception):
    """A command that can't be done; holds the exit code and says why."""

    def __init__(self, code: int, words: str):
        self.code = code
        super().__init__(words)


class Spool:
    """The folder. Read and changed only while `locked`."""

    def __init__(self, folder: str):
        self.folder = Path(folder).absolute()

    @contextlib.contextmanager
    def locked(self, patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
        """Alone with the folder; gives up after `patience_s`, so that a stuck process never stops the Hub."""
        self._keep_to_ourselves()
        with (self.folder / "lock").open("a") as lock:
            _wait_for(lock.fileno(), patience_s)
            yield

    def _keep_to_ourselves(self) -> None:
        """Scripts run from here, so no other account may write to it, and it may not be a link."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except NotADirectoryError:
            raise SpoolError(NOT_OURS, f"{self.folder} is a symbolic link; name the folder itself") from None
        try:
            if os.fstat(folder).st_uid != os.getuid():
                raise SpoolError(NOT_OURS, f"{self.folder} belongs to another account")
            os.fchmod(folder, 0o700)
        finally:
            os.close(folder)

    def jobs(self) -> list[Job]:
        """All jobs, oldest first."""
        return [self.read(int(path.stem)) for path in sorted(self.folder.glob("[0-9]*.json"), key=_number)]

    def read(self, number: int) -> Job:
        """One job by its number; FileNotFoundError if there is none."""
        job: Job = json.loads((self.folder / f"{number}.json").read_text(encoding="utf-8"))
        return job

    def write(self, job: Job) -> None:
        """Keep what is known of a job, whole or not at all."""
        self._replace(f"{job['id']}.json", json.dumps(job, sort_keys=True).encode())

    def add(self, job: Job, script: bytes) -> Job:
        """Give a job its number, never given before, and keep it with its script."""
        counter = self.folder / "last-id"
        last = int(counter.read_text()) if counter.exists() else 0
        last = max([last, *(_number(path) for path in self.folder.glob("[0-9]*.json"))]) + 1
        self._replace("last-id", b"%d" % last)
        job = {"id": str(last), **job}
        self._replace(f"{last}.sh", script)
        try:
            self.write(job)
        except OSError:
            self.forget(job)
            raise
        return job

    def script(self, job: Job) -> Path:
        """Where a job's script lies until it ends."""
        return self.folder / f"{job['id']}.sh"

    def end(self, job: Job, reason: str, code: int | None = None) -> None:
        """Write down that a job has ended."""
        job.update(state="ended", reason=reason, exit=code, ended=time.time())
        self.write(job)
        self.script(job).unlink(missing_ok=True)

    def forget(self, job: Job) -> None:
        """Leave nothing of a job but the fact that its number is used."""
        self.script(job).unlink(missing_ok=True)
        (self.folder / f"{job['id']}.json").unlink(missing_ok=True)

    def _replace(self, name: str, content: bytes) -> None:
        new = self.folder / f".{name}.new"
        try:
            with new.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.folder / name)
        except OSError:
            new.unlink(missing_ok=True)
            raise


def _number(path: Path) -> int:
    return int(path.stem)


def _wait_for(lock: int, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise SpoolError(BUSY, "the spool folder is locked by another process") from None
            time.sleep(0.02)


# --- the commands


def submit(spool: Spool, asked: argparse.Namespace) -> None:
    """Take a script from standard input, print its id, start it if a slot is free."""
    script = sys.stdin.buffer.read()
    if not script.strip():
        raise SpoolError(BAD_SCRIPT, "the script is empty")
    job = {
        **{name: getattr(asked, name) for name in ("name", "tag", "walltime", "cpus", "follows")},
        "state": "pending",
        "owner": pwd.getpwuid(os.getuid()).pw_name,
        "reason": "Follows" if asked.follows else "Slots",
        "submitted": time.time(),
    }
    with spool.locked():
        job = spool.add(job, script)
        print(job["id"], flush=True)
        _tidy(spool, asked.slots)


def list_(spool: Spool, asked: argparse.Namespace) -> None:
    """Print all jobs. Also cleans up jobs whose supervisor was killed."""
    with spool.locked():
        jobs = _tidy(spool, asked.slots)
    print(json.dumps([_shown(job) for job in jobs]))


def show(spool: Spool, asked: argparse.Namespace) -> None:
    """Print all that is known of one job."""
    with spool.locked():
        _tidy(spool, asked.slots)
        print(json.dumps(_find(spool, asked.id), indent=2, sort_keys=True))


def cancel(spool: Spool, asked: argparse.Namespace) -> None:
    """End a job. A running one gets SIGTERM, and SIGKILL if it is still there after 5 s."""
    with spool.locked():
        _tidy(spool, asked.slots)
        job = _find(spool, asked.id)
        if job["state"] == "pending":
            spool.end(job, "cancelled")
        elif job["state"] == "running":
            # The supervisor was seen alive a moment ago, under the lock that it needs in order to end.
            os.kill(job["supervisor"][0], signal.SIGTERM)
            spool.write({**job, "state": "ending", "reason": "cancelled"})


def run(spool: Spool, asked: argparse.Namespace) -> None:
    """Be the supervisor of one job from its start to its end."""
    with spool.locked(SUPERVISOR_PATIENCE_S):
        job = _find(spool, asked.id)
        # Where that could not be written down (a full disk), the job still waits and somebody else will start it.
        if job.get("supervisor", [0])[0] != os.getpid():
            return
        process, reason = _launch(spool, job)
    if process:
        reason = _watch(process, job["walltime"]) or _ending(process.returncode)
        _kill_rest(spool, job)
    with spool.locked(SUPERVISOR_PATIENCE_S):
        spool.end(job, reason, process.returncode if process else None)
        _tidy(spool, asked.slots)


def _find(spool: Spool, number: str | None) -> Job:
    try:
        return spool.read(int(number or ""))
    except (ValueError, FileNotFoundError):
        raise SpoolError(UNKNOWN_JOB, f"unknown job: {number!r}") from None


def _shown(job: Job) -> Job:
    started = job.get("started")
    return {
        "id": job["id"],
        "state": job["state"],
        "host": "127.0.0.1" if job["state"] in ACTIVE else None,
        "owner": job["owner"],
        "reason": job["reason"],
        "tag": job["tag"],
        "starts": time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(started)) if started else "",
    }


def _tidy(spool: Spool, slots: int) -> list[Job]:
    """End what is lost, forget what is old, start what may start; the jobs as they are then.

    A full disk must not hide what is seen: what can't be written down now is found again by the next call.
    """
    jobs = spool.jobs()
    for job in jobs:
        with contextlib.suppress(OSError):
            _settle(spool, job)
    for job in jobs:
        with contextlib.suppress(OSError):
            _follow(spool, job, jobs)
    jobs = [job for job in jobs if not _is_old(job)]
    free = slots - sum(job["state"] in ACTIVE for job in jobs)
    waiting = [job for job in jobs if job["state"] == "pending" and job["reason"] != "Follows"]
    for job in waiting[: max(free, 0)]:
        with contextlib.suppress(OSError):
            _supervise(spool, slots, job)
    return jobs


def _settle(spool: Spool, job: Job) -> None:
    if job["state"] in ACTIVE and not _is_alive(job["supervisor"]):
        _kill_rest(spool, job)
        spool.end(job, "cancelled" if job["state"] == "ending" else "lost")
    elif _is_old(job):
        spool.forget(job)


def _follow(spool: Spool, job: Job, jobs: list[Job]) -> None:
    """A job that follows another may start when that one has ended badly, or is not known, and is dropped otherwise."""
    if job["state"] != "pending" or job["reason"] != "Follows":
        return
    other = next((other for other in jobs if other["id"] == job["follows"]), None)
    if other is None or (other["state"] == "ended" and other["reason"] != _ending(0)):
        job["reason"] = "Slots"
        spool.write(job)
    elif other["state"] == "ended":
        spool.end(job, "dropped")


def _is_old(job: Job) -> bool:
    # A clock that was set back must not keep jobs for ever.
    return job["state"] == "ended" and not 0 <= time.time() - job["ended"] <= KEEP_ENDED_S


def _supervise(spool: Spool, slots: int, job: Job) -> None:
    """Start a job's supervisor, away from everything that the caller belongs to."""
    # It finds SIGTERM blocked and takes it when it is ready: a cancel that comes at once is not lost.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGCHLD})
    try:
        child = subprocess.Popen(
            [*COMMAND, "run", job["id"], "--spool", str(spool.folder), "--slots", str(slots)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath)},
            start_new_session=True,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    started = {"state": "running", "reason": "", "supervisor": _identity(child.pid), "started": time.time()}
    spool.write({**job, **started})
    job.update(started)


def _identity(pid: int) -> list[Any]:
    """A process for good: numbers are used again, a number with its start time on one boot is not."""
    return [pid, _start_time(pid), Path("/proc/sys/kernel/random/boot_id").read_text().strip()]


def _is_alive(identity: list[Any]) -> bool:
    try:
        return _identity(identity[0]) == identity
    except (OSError, IndexError):
        return False


def _start_time(pid: int) -> str:
    """In clock ticks since the boot; an error for what is gone or waits only to be buried."""
    # The second field is the program's name in parentheses, which can hold anything.
    fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return fields[19]


def _launch(spool: Spool, job: Job) -> tuple[subprocess.Popen[bytes] | None, str]:
    """The job's first process, or why there is none."""
    if job["state"] == "ending":
        return None, "cancelled"
    try:
        return _start(spool, job), ""
    except OSError as error:
        return None, f"could not be started: {error}"


def _start(spool: Spool, job: Job) -> subprocess.Popen[bytes]:
    account = pwd.getpwuid(os.getuid())
    script = spool.script(job)
    return subprocess.Popen(
        [*_interpreter(script), str(script)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={
            "HOME": account.pw_dir,
            "LANG": "C.UTF-8",
            "LOGNAME": account.pw_name,
            "PATH": os.environ["PATH"],
            "SHELL": account.pw_shell or "/bin/sh",
            "USER": account.pw_name,
            ID_VARIABLE: job["id"],
            SPOOL_VARIABLE: str(spool.folder),
        },
        start_new_session=True,
        umask=0o022,
        preexec_fn=_unblock_signals,  # noqa: PLW1509 - there are no threads here
    )


def _unblock_signals() -> None:
    """The supervisor's signal mask would be inherited."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _interpreter(script: Path) -> list[str]:
    """By the first line, read here because the folder may lie on a file system that runs nothing."""
    with script.open(encoding="utf-8", errors="replace") as file:
        first = file.readline()
    return shlex.split(first[2:]) if first.startswith("#!") else ["/bin/sh"]


def _watch(process: subprocess.Popen[bytes], walltime_s: int) -> str:
    """Wait for the end, and bring it about when the time is up or a cancel comes; the reason, "" if it came by itself.

    SIGTERM (a cancel) and SIGCHLD (the end) are blocked, so none is missed between two looks.
    """
    deadline, reason = time.monotonic() + walltime_s, ""
    while process.poll() is None:
        left = deadline - time.monotonic()
        news = signal.sigtimedwait({signal.SIGTERM, signal.SIGCHLD}, max(0.0, min(left, 3600.0)))
        cancelled = news is not None and news.si_signo == signal.SIGTERM
        late = time.monotonic() >= deadline
        if reason and late:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        elif not reason and (cancelled or late):
            reason = "cancelled" if cancelled else "walltime"
            deadline = time.monotonic() + KILL_WAIT_S
            os.killpg(process.pid, signal.SIGTERM)
    return reason


def _kill_rest(spool: Spool, job: Job) -> None:
    """SIGKILL whatever carries the job's mark, kernels in sessions of their own included, until nothing does."""
    for _ in range(100):
        found = list(_processes_of(spool, job))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _processes_of(spool: Spool, job: Job) -> Iterator[int]:
    marks = {f"{ID_VARIABLE}={job['id']}".encode(), f"{SPOOL_VARIABLE}={spool.folder}".encode()}
    for folder in Path("/proc").glob("[0-9]*"):
        # Gone meanwhile, or somebody else's. What is dead and not yet buried has no environment.
        with contextlib.suppress(OSError):
            if marks <= set((folder / "environ").read_bytes().split(b"\0")):
                yield int(folder.name)


def _ending(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"


COMMANDS = {"submit": submit, "list": list_, "show": show, "cancel": cancel, "run": run}


def main() -> int:
    """Run one command; its exit code."""
    parser = argparse.ArgumentParser(description="The embedded scheduler of hpcspawner.", allow_abbrev=False)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--spool", required=True, help="folder that holds the jobs")
    parser.add_argument("--slots", type=int, required=True, help="most jobs that run at once")
    parser.add_argument("id", nargs="?", help="a job's id")
    parser.add_argument("--name", default="", help="a new job's name")
    parser.add_argument("--tag", default="", help="its mark in the list")
    parser.add_argument("--walltime", type=int, default=DEFAULT_WALLTIME_S, help="seconds that it may run")
    parser.add_argument("--cpus", type=int, default=1, help="cores that it may use")
    parser.add_argument("--follows", default="", help="id of the job after whose unsuccessful end it may start")
    asked = parser.parse_args()
    os.umask(0o077)
    try:
        COMMANDS[asked.command](Spool(asked.spool), asked)
    except SpoolError as refused:
        print(f"spool: {refused}", file=sys.stderr)
        return refused.code
    except OSError as error:
        print(f"spool: {error}", file=sys.stderr)
        return IO_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
