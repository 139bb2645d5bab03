"""A running server as root sees it on its node: its processes, their variables, their memory."""

import re
from pathlib import Path


class Processes:
    """The server of one user's job on a node of the lab, the launcher that started it, and the script's shell."""

    def __init__(self, lab, node, job_id):
        daemon = (Path(lab) / "run" / f"slurmd.{node}.pid").read_text().strip()
        # All hosts share one table of processes, and another lab may have a job of the same number.
        here = Path(f"/proc/{daemon}/ns/net").readlink()
        self.server = next(pid for pid in _pids() if _is_server(pid, here, job_id))
        self.launcher = _parent(self.server)
        self.shell = _parent(self.launcher)
        # The server's variables, also for when it is gone.
        self.environment = environment(self.server)

    def in_launchers_memory(self, pattern):
        """What the launcher holds that matches a pattern of bytes."""
        found = set()
        with open(f"/proc/{self.launcher}/mem", "rb") as memory:
            for line in Path(f"/proc/{self.launcher}/maps").read_text().splitlines():
                span, rights, *_ = line.split()
                if not rights.startswith("rw"):
                    continue
                start, end = (int(edge, 16) for edge in span.split("-"))
                memory.seek(start)
                found.update(re.findall(pattern, memory.read(end - start)))
        return {text.decode() for text in found}


def environment(pid):
    """The variables that a process began with."""
    text = Path(f"/proc/{pid}/environ").read_text(errors="surrogateescape")
    return dict(entry.split("=", 1) for entry in text.split("\0") if "=" in entry)


def _pids():
    return sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())


def _is_server(pid, network, job_id):
    """Kernels have the server's variables too, but so has their parent."""
    try:
        if Path(f"/proc/{pid}/ns/net").readlink() != network:
            return False
        own, parents = environment(pid), environment(_parent(pid))
    except OSError:
        return False
    name = "JUPYTERHUB_API_TOKEN"
    return job_id in (own.get("SLURM_JOB_ID"), own.get("PBS_JOBID")) and name in own and name not in parents


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
