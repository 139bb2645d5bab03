"""The extension that ends an idle Jupyter server: what counts as work, and what happens when there is none."""

import ast
import asyncio
import importlib.util
import logging
import os
import pty
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcspawner.programs import idle
from hpcspawner.programs.launcher import codes

SOURCE = Path(idle.__file__).read_text(encoding="utf-8")


class APIHandler:
    """As jupyter_server has it: notes when a request ends."""

    def __init__(self, method, path):
        self.request = SimpleNamespace(method=method, path=path)
        self.settings = {"base_url": "/user/api/"}
        self.counted = False

    def update_api_activity(self):
        self.counted = True


class Server:
    """A Jupyter server as far as an extension sees it."""

    def __init__(self, limit_s):
        self.config = {"HPCSpawnerIdle": {"limit_s": limit_s}}
        self.log = logging.getLogger("server")
        self.kernels = []
        self.kernel_manager = SimpleNamespace(list_kernels=lambda: self.kernels)
        self.worked_at = now()
        self.terminals = {}
        settings = {"terminal_manager": SimpleNamespace(terminals=self.terminals)}
        self.web_app = SimpleNamespace(settings=settings, last_activity=lambda: self.worked_at)
        self.stopped = asyncio.Event()

    def stop(self):
        self.stopped.set()

    async def ends(self, within_s):
        try:
            await asyncio.wait_for(self.stopped.wait(), within_s)
        except TimeoutError:
            return False
        return True


def now():
    return datetime.now(UTC)


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """The extension as a server imports it, from a folder of its own."""
    path = tmp_path / "hpcspawner_idle.py"
    path.write_text(SOURCE)
    handlers = SimpleNamespace(APIHandler=type("APIHandler", (APIHandler,), {}))
    monkeypatch.setitem(sys.modules, "jupyter_server.base.handlers", handlers)
    spec = importlib.util.spec_from_file_location("hpcspawner_idle", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.handler = handlers.APIHandler
    yield module
    for watch in module._watches:
        watch.stop()


@pytest.mark.parametrize(
    ("method", "path", "work"),
    [
        pytest.param("PUT", "api/contents/a%20b.ipynb", True, id="saving"),
        pytest.param("POST", "api/contents", True, id="a new file"),
        pytest.param("POST", "api/sessions", True, id="a new notebook"),
        pytest.param("POST", "api/kernels/1234/interrupt", True, id="interrupting"),
        pytest.param("DELETE", "api/terminals/1", True, id="closing a terminal"),
        pytest.param("GET", "api/kernels", False, id="JupyterLab asks for kernels"),
        pytest.param("GET", "api/contents/a.ipynb", False, id="JupyterLab looks for changes of a file"),
        pytest.param("HEAD", "api/contents/a.ipynb", False, id="as much"),
        pytest.param("PUT", "lab/api/workspaces/default", False, id="JupyterLab notes where panels are"),
        pytest.param("PUT", "lab/api/workspaces/api/sessions", False, id="a workspace of another name"),
        pytest.param("POST", "git/x/status", False, id="jupyterlab-git asks"),
        pytest.param("POST", "api/contentsofsomething", False, id="another extension's"),
    ],
)
def test_only_requests_that_a_user_causes_count_as_work(extension, method, path, work):
    assert idle.counts(method, path) is work
    handler = extension.handler(method, f"/user/api/{path}")
    extension._heed_only_work(extension.handler)
    handler.update_api_activity()
    assert handler.counted is work


async def test_a_server_without_work_ends_and_says_why(extension, tmp_path, caplog):
    server = Server(limit_s=1)
    extension._load_jupyter_server_extension(server)
    assert await server.ends(within_s=30)
    assert "The server was idle for 1 seconds" in caplog.text
    assert (tmp_path / codes.IDLE_END).exists()


async def test_a_server_that_is_worked_in_goes_on(extension):
    server = Server(limit_s=3)
    extension._load_jupyter_server_extension(server)
    for _ in range(4):
        assert not await server.ends(within_s=1)
        server.worked_at = now()


async def test_a_busy_kernel_is_work_and_an_idle_one_is_not(extension):
    server = Server(limit_s=1)
    server.kernels = [{"execution_state": "idle"}, {"execution_state": "busy"}]
    extension._load_jupyter_server_extension(server)
    assert not await server.ends(within_s=3)
    server.kernels[1]["execution_state"] = "idle"
    began = time.monotonic()
    assert await server.ends(within_s=30)
    assert time.monotonic() - began > 0.5, "the time counts from the end of the cell"


async def test_output_of_a_terminal_without_a_page_is_work(extension):
    server = Server(limit_s=3)
    terminal = SimpleNamespace(last_activity=now(), ptyproc=SimpleNamespace(fd=-1, pid=0))
    server.terminals["1"] = terminal
    extension._load_jupyter_server_extension(server)
    for _ in range(4):
        assert not await server.ends(within_s=1)
        terminal.last_activity = now()
    assert await server.ends(within_s=30)


async def test_a_program_in_a_terminal_is_work_and_a_waiting_shell_is_not(extension):
    pid, fd = pty.fork()
    if not pid:
        os.execv("/bin/bash", ["bash", "--norc", "-i"])
    try:
        server = Server(limit_s=1)
        server.terminals["1"] = SimpleNamespace(ptyproc=SimpleNamespace(fd=fd, pid=pid))
        os.write(fd, b"sleep 1000\n")
        await until(lambda: extension._is_busy(server))
        extension._load_jupyter_server_extension(server)
        assert not await server.ends(within_s=3)
        os.write(fd, b"\x03")
        assert await server.ends(within_s=30)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(fd)


async def until(what, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_loaded_twice_it_watches_once(extension):
    """Notebook 7 reads the configuration of notebook 6, too."""
    server = Server(limit_s=100)
    extension._load_jupyter_server_extension(server)
    extension.load_jupyter_server_extension(server)
    assert len(extension._watches) == 1


@pytest.mark.parametrize(("others", "left"), [("", None), ("/site/config", "/site/config")])
async def test_kernels_do_not_inherit_its_folder(extension, monkeypatch, tmp_path, others, left):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", os.pathsep.join(filter(None, [str(tmp_path), others])))
    extension._load_jupyter_server_extension(Server(limit_s=100))
    assert os.environ.get("JUPYTER_CONFIG_PATH") == left


def test_it_is_python_3_6_and_leaves_the_mark_that_the_launcher_looks_for():
    ast.parse(SOURCE, feature_version=(3, 6))
    assert idle.ENDED == codes.IDLE_END
