"""What the launcher does for the status bar: it keeps the facts, and asks the Hub for what the user wants.

The launcher imports it from its own folder on the node, so it is one file, for Python 3.6 and later. The page in the
browser asks `status_server.py`, which runs in the user's Jupyter server, and reads and writes beside this file alone:
it gets `job.json`, and leaves what the user asks for in the pipe `asks`. So no secret of the launcher's is there.
"""

import contextlib
import json
import os
import threading
import time
from typing import Any, Callable, Dict, Optional

FOLDER = "status"
FACTS = "job.json"
PIPE = "asks"
ASKS = ("renew", "stop")
MOST_OF_AN_ASK = 100

_NOT_ASKED = {
    "renew": "The Hub did not answer, so the server is not renewed. Try again.",
    "stop": "The Hub did not answer, so the server is not stopped. Try again, or use the Hub's page.",
}


class Keeper:
    """The facts of one job, for as long as its launcher lives."""

    def __init__(self, folder: str, told: Dict[str, Any], call: Callable[[Dict[str, Any]], Dict[str, Any]]):
        """`folder` is the launcher's, `told` what the Hub wrote into the script, `call` posts a report to the Hub.

        Raises OSError where the folder can't be written.
        """
        self._folder = os.path.join(folder, FOLDER)
        self._call = call
        self._lock = threading.Lock()
        facts = dict(told)
        walltime_s = facts.pop("walltime_s")
        self._facts = dict(facts, cluster="", renewals=None, asked=None, warned=False, ends_at=_end(walltime_s))
        os.mkfifo(os.path.join(self._folder, PIPE), 0o600)
        self._write()
        threading.Thread(target=self._listen, daemon=True).start()

    def variables(self, server: Dict[str, str]) -> Dict[str, str]:
        """What points a server with these variables to us; what it has of its own stays."""
        made = {}
        for name in ("JUPYTER_PATH", "JUPYTER_CONFIG_PATH"):
            earlier = server.get(name)
            made[name] = self._folder + (os.pathsep + earlier if earlier else "")
        return made

    def change(self, **facts: Any) -> None:
        """Note what is new."""
        with self._lock:
            self._facts.update(facts)
            self._write()

    def heard(self, answer: Any) -> None:
        """Note what the Hub says of the job in an answer; an older Hub says nothing."""
        known = {name: answer[name] for name in ("cluster", "renewals") if name in answer}
        if known:
            self.change(**known)

    def _write(self) -> None:
        """As a whole or not at all: a full disk must not end the server."""
        path = os.path.join(self._folder, FACTS)
        with contextlib.suppress(OSError):
            with open(os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self._facts, file)
            os.replace(path + ".new", path)

    def _listen(self) -> None:
        """Do what the user asks for, one thing after the other."""
        while True:
            try:
                # Waits until the server opens it to write.
                with open(os.path.join(self._folder, PIPE), "rb") as pipe:
                    asked = pipe.read(MOST_OF_AN_ASK).decode("ascii", "replace").split("\n")[0]
            except OSError:
                return  # the folder has gone, and the job with it
            if asked in ASKS:
                self._ask(asked)

    def _ask(self, what: str) -> None:
        self.change(asked={"what": what, "state": "sent", "message": ""})
        try:
            answer = self._call({"event": what})
            self.heard(answer)
            state, message = ("done" if answer.get("done") else "failed"), str(answer.get("message", ""))
        except Exception:
            state, message = "failed", _NOT_ASKED[what]
        self.change(asked={"what": what, "state": state, "message": message})


def _end(walltime_s: int) -> Optional[float]:
    """When the scheduler ends the job, in seconds since 1970."""
    with contextlib.suppress(KeyError, ValueError):  # Slurm says it from 22.05 on
        return float(os.environ["SLURM_JOB_END_TIME"])
    began = _began(os.getppid())
    return began + walltime_s if began and walltime_s else None


def _began(pid: int) -> Optional[float]:
    """When a process began; that of the job's script is when the job did."""
    try:
        with open("/proc/%d/stat" % pid, "rb") as stat, open("/proc/uptime") as uptime:
            ticks = int(stat.read().rpartition(b")")[2].split()[19])
            return time.time() - float(uptime.read().split()[0]) + ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return None
