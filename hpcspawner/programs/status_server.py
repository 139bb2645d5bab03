"""An extension for a Jupyter server on the node, which tells the page in the browser of the batch job around it.

It travels in the job script, so it is one file. It holds no secret and asks nobody: the launcher keeps the facts in a
file beside it and takes what the user asks for from a pipe there (`status_keeper.py`).
"""

import errno
import json
import os
import time
from typing import Any, Dict, List, Optional, Tuple

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web
from tornado.ioloop import IOLoop

_HERE = os.path.dirname(os.path.abspath(__file__))
ASKS = ("renew", "stop")
_MEASURED_S = 5.0
_measured: List[Tuple[float, Optional[int]]] = []


class JobHandler(APIHandler):
    """`GET hpcspawner/job`: the facts. `POST`: `{"ask": "renew"}` or `"stop"`; 202 once the launcher has it."""

    def update_api_activity(self) -> None:
        """Do nothing: an open page is not a user at work."""

    @web.authenticated
    async def get(self) -> None:
        """The facts, with the time left and the memory used now."""
        _forget_folder("JUPYTER_PATH")
        try:
            with open(os.path.join(_HERE, "job.json"), encoding="utf-8") as file:
                facts = json.load(file)
        except (OSError, ValueError):
            raise web.HTTPError(404, "The launcher's facts of this job are not there.") from None
        ends_at = facts.pop("ends_at")
        facts["left_s"] = None if ends_at is None else max(0, round(ends_at - time.time()))
        facts["memory_used"] = await IOLoop.current().run_in_executor(None, memory_used)
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(facts))

    @web.authenticated
    def post(self) -> None:
        """Hand on what the user asks for."""
        body = self.get_json_body()
        asked = body.get("ask") if isinstance(body, dict) else None
        if asked not in ASKS:
            raise web.HTTPError(400, "ask: one of %s" % ", ".join(ASKS))
        try:
            pipe = os.open(os.path.join(_HERE, "asks"), os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise web.HTTPError(503, "The launcher is busy with an earlier request.") from None
            raise web.HTTPError(503, "This server's launcher is not there.") from None
        try:
            os.write(pipe, b"%s\n" % asked.encode())
        finally:
            os.close(pipe)
        self.set_status(202)
        self.finish("{}")


def memory_used() -> Optional[int]:
    """Bytes that the server uses with all that it has started, on this node; None where that can't be told."""
    now = time.monotonic()
    if not _measured or now - _measured[0][0] > _MEASURED_S:
        _measured[:] = [(now, _of_cgroup() or _of_family())]
    return _measured[0][1]


def _of_cgroup() -> Optional[int]:
    """As the kernel counts it against the job's limit, without the cache that it would give back first."""
    try:
        with open("/proc/self/cgroup") as file:
            rows = [row.rstrip("\n").split(":", 2) for row in file]
        for _, controllers, path in rows:
            if controllers == "memory":
                return _counted("/sys/fs/cgroup/memory", path, ("memory.limit_in_bytes", "memory.usage_in_bytes"))
            if controllers == "":
                found = _counted("/sys/fs/cgroup", path, ("memory.max", "memory.current"))
                if found:
                    return found
    except (OSError, ValueError):
        pass
    return None


def _counted(root: str, path: str, names: Tuple[str, str]) -> Optional[int]:
    """The use of the innermost group with a limit: that of the job, or of its step."""
    while path.strip("/"):
        folder = root + path
        with open(os.path.join(folder, names[0])) as file:
            limit = file.read().strip()
        if limit != "max" and int(limit) < 1 << 60:
            with open(os.path.join(folder, names[1])) as file:
                return max(0, int(file.read()) - _cache(folder))
        path = os.path.dirname(path)
    return None


def _cache(folder: str) -> int:
    with open(os.path.join(folder, "memory.stat")) as file:
        found = dict(row.split() for row in file)
    return int(found.get("total_inactive_file", found.get("inactive_file", 0)))


def _of_family() -> Optional[int]:
    """What this process and its descendants have in memory."""
    parents: Dict[int, int] = {}
    pages: Dict[int, int] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name, "rb") as stat:
                fields = stat.read().rpartition(b")")[2].split()
        except OSError:
            continue  # ended meanwhile
        parents[int(name)], pages[int(name)] = int(fields[1]), int(fields[21])
    family = {os.getpid()}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        family |= more
        grown = bool(more)
    return sum(pages.get(pid, 0) for pid in family) * os.sysconf("SC_PAGE_SIZE")


def _forget_folder(name: str) -> None:
    """Take the folder that we came in out of a variable that kernels and terminals inherit: a server there is another.

    JupyterLab may look into JUPYTER_PATH until it serves its page, which then asks us.
    """
    left = [path for path in os.environ.get(name, "").split(os.pathsep) if path and path != _HERE]
    os.environ.pop(name, None)
    if left:
        os.environ[name] = os.pathsep.join(left)


def _load_jupyter_server_extension(app: Any) -> None:
    settings = app.web_app.settings
    app.web_app.add_handlers(".*$", [(url_path_join(settings["base_url"], "hpcspawner/job"), JobHandler)])
    _forget_folder("JUPYTER_CONFIG_PATH")


def _jupyter_server_extension_points() -> List[Dict[str, str]]:
    return [{"module": __name__}]
