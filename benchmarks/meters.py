"""What is measured from outside: processor time, the API's answers, and how long something takes."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import requests

from benchmarks.hubs import Measured

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> tuple[float, float]:
    """Seconds of processor time that a process has used, and the children that it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system, children_user, children_system = (int(field) / _TICK for field in fields[11:15])
    return user + system, children_user + children_system


def memory_kib(pid: int) -> int:
    """What a process has in memory that no other has."""
    return sum(int(line.split()[1]) for line in Path(f"/proc/{pid}/smaps_rollup").open() if line.startswith("Private_"))


def until(condition: Callable[[], bool], limit_s: float, every_s: float = 0.2) -> float:
    """Seconds until the condition holds; TimeoutError after the limit."""
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > limit_s:
            raise TimeoutError(f"not within {limit_s} s")
        time.sleep(every_s)
    return time.monotonic() - began


def have_started(hub: Measured, servers: int) -> bool:
    """Whether the Hub's log has told of so many starts since the mark."""
    return hub.logged("seconds to start") >= servers


class Probe:
    """Asks the Hub's API for one user, 20 times a second, for as long as the block takes."""

    def __init__(self, measured: Measured, user: str = "alice"):
        self._hub, self._user = measured.hub, user
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self.answers_s: list[float] = []
        self.failed = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        session = requests.Session()
        session.trust_env = False
        session.verify = str(self._hub.folder / "ca.pem")
        session.headers["Authorization"] = f"token {self._hub.token}"
        url = f"{self._hub.url}/hub/api/users/{self._user}"
        while not self._over.wait(0.05):
            began = time.perf_counter()
            try:
                session.get(url, timeout=60).raise_for_status()
                self.answers_s.append(time.perf_counter() - began)
            except requests.RequestException:
                self.failed += 1

    def percentile_ms(self, share: float) -> float:
        """The answer time that this share of the calls stayed under."""
        times = sorted(self.answers_s)
        return round(1000 * times[min(len(times) - 1, int(share * len(times)))], 1) if times else float("nan")
