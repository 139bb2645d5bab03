"""A real JupyterHub with the real proxy over HTTPS, as its own processes, in a folder of its own."""

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import requests
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from hpcspawner.cli.certificate import write_certificate

PASSWORD = "correct horse"

_OURS = """\
import hpcspawner

c = get_config()
hpcspawner.configure(c, {site!r}, callback_url={url!r}, ca_file={folder!r} + "/ca.pem")
"""
_PUBLIC = """
# ---- The public side: HTTPS by the Hub's own proxy.
c.HPCSpawner.callback_url = {url!r}
c.JupyterHub.bind_url = {bind!r}
c.JupyterHub.ssl_cert = {folder!r} + "/server.pem"
c.JupyterHub.ssl_key = {folder!r} + "/server.key"
"""
_PLACE = """
# ---- What is this test's own: addresses, files, who may log in.
c.HPCSpawner.ca_file = {folder!r} + "/ca.pem"
c.HPCSpawner.spool = {folder!r} + "/spool"
c.HPCSpawner.poll_interval_s = 1
# The tests may run as root, and the embedded scheduler runs all jobs as the Hub's own account.
c.HPCSpawner.allow_root = True
c.JupyterHub.hub_bind_url = {hub_url!r}
c.ConfigurableHTTPProxy.api_url = ("https" if c.JupyterHub.get("internal_ssl") else "http") + {api_url!r}
c.ConfigurableHTTPProxy.pid_file = {folder!r} + "/proxy.pid"
c.JupyterHub.db_url = "sqlite:///" + {folder!r} + "/hub.sqlite"
c.JupyterHub.cookie_secret_file = {folder!r} + "/cookie_secret"
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.services = [{{"name": "tests", "api_token": {token!r}}}]
c.JupyterHub.load_roles = [
    {{"name": "tests", "services": ["tests"], "scopes": ["admin:users", "admin:servers", "tokens", "access:servers"]}}
]
{extra}
"""


class Hub:
    """Started by `with`; everything it started is gone afterwards. `config` replaces the one line that is ours."""

    public = _PUBLIC
    programs = Path(sys.executable).parent
    """Where `jupyterhub` is."""

    def __init__(self, folder, site, *, host="127.0.0.1", config=_OURS, extra="", users=()):
        self.folder, self.host = Path(folder), host
        self.port, self.hub_port, api_port = free_ports(3)
        self.url = f"https://{host}:{self.port}"
        self.token = secrets.token_hex(16)
        self.log_file = self.folder / "hub.log"
        self.process = None
        write_certificate(self.folder, [host, "localhost", "127.0.0.1"])
        if config is _OURS:
            config = _OURS.format(site=str(site), url=self.url, folder=str(self.folder))
        place = (self.public + _PLACE).format(
            url=self.url,
            folder=str(self.folder),
            bind=self.url,
            hub_url=f"http://{host}:{self.hub_port}",
            api_url=f"://127.0.0.1:{api_port}",
            password=PASSWORD,
            token=self.token,
            extra=extra,
        )
        (self.folder / "jupyterhub_config.py").write_text(config + place, encoding="utf-8")
        self.users = users
        self.packages = ()

    def __enter__(self):
        self.start()
        for user in self.users:
            self.api("POST", f"/users/{user}")
        return self

    def __exit__(self, *error):
        try:
            self.stop_servers()
        finally:
            self.stop()

    def start(self, prefix=(), limit_s=120):
        """Start it, again if need be; `prefix` is put before its command."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "LANG": "C.UTF-8",
            # Of a checkout beside the one that is installed, and of packages that a test adds.
            "PYTHONPATH": os.pathsep.join(filter(None, [*self.packages, os.environ.get("PYTHONPATH")])),
        }
        self.process = subprocess.Popen(
            [
                *prefix,
                str(self.programs / "jupyterhub"),
                "-f",
                str(self.folder / "jupyterhub_config.py"),
            ],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.log_file.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the Hub ended at its start:\n{self.log()}")
            with contextlib.suppress(requests.RequestException):
                if self.get("/hub/health").ok:
                    return
            time.sleep(0.2)
        raise TimeoutError(f"the Hub was not ready in time:\n{self.log()}")

    def stop(self):
        """End the Hub and its proxy, whatever state they are in."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        # The proxy has a session of its own.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int((self.folder / "proxy.pid").read_text()), signal.SIGKILL)

    def kill(self):
        """End the Hub's process alone, without a chance to do anything; its proxy and its commands live on."""
        self.process.kill()
        self.process.wait()

    def terminate(self):
        """Ask the Hub to end, as a service manager does, and wait until it has; a proxy of its own ends too."""
        self.process.terminate()
        self.process.wait(60)

    def log(self):
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def get(self, path, **kwargs):
        return requests.get(self.url + path, verify=self.folder / "ca.pem", timeout=30, **kwargs)

    def post(self, path, body):
        """One JSON post without any login, as a launcher's."""
        return requests.post(self.url + path, json=body, verify=self.folder / "ca.pem", timeout=30)

    def api(self, method, path, **kwargs):
        """One call of the Hub's REST API as an admin."""
        headers = {"Authorization": f"token {self.token}"}
        return requests.request(
            method, f"{self.url}/hub/api{path}", headers=headers, verify=self.folder / "ca.pem", timeout=60, **kwargs
        )

    def log_in(self, user):
        """A session of the user's own, as a browser has one."""
        session = requests.Session()
        # Else a proxy of the machine's would be asked, and `verify` would not count.
        session.trust_env = False
        session.verify = str(self.folder / "ca.pem")
        form = session.get(f"{self.url}/hub/login", timeout=30)
        token = re.search(r'name="_xsrf" value="([^"]*)"', form.text)[1]
        body = {"username": user, "password": PASSWORD, "_xsrf": token}
        answer = session.post(f"{self.url}/hub/login", data=body, allow_redirects=False, timeout=30)
        assert answer.status_code == 302, f"{user} can't log in: {answer.status_code}"
        return session

    def spawn(self, user, options=None, name="", timeout_s=180):
        """Start a server by REST and wait until it is ready."""
        answer = self.api("POST", server_path(user, name), json=options)
        assert answer.status_code in (201, 202), f"{answer.status_code} {answer.text}\n{self.log()}"
        return self.wait_ready(user, name, timeout_s)

    def wait_ready(self, user, name="", timeout_s=180):
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            server = self.servers(user).get(name)
            if server is None:
                raise AssertionError(f"the server is gone:\n{self.log()}")
            if server["ready"]:
                return server
            time.sleep(0.3)
        raise TimeoutError(f"the server was not ready in {timeout_s} s:\n{self.log()}")

    def servers(self, user):
        """The user's active servers by name, as the Hub's API shows them."""
        return self.api("GET", f"/users/{user}").json()["servers"]

    def stop_server(self, user, name="", timeout_s=90):
        """Stop a server by REST and wait until the Hub has let it go."""
        answer = self.api("DELETE", server_path(user, name))
        assert answer.status_code in (202, 204), f"{answer.status_code} {answer.text}"
        deadline = time.monotonic() + timeout_s
        while self.servers(user).get(name) is not None:
            assert time.monotonic() < deadline, f"the server did not stop:\n{self.log()}"
            time.sleep(0.2)

    def stop_servers(self):
        for user in self.api("GET", "/users").json():
            for name, server in user["servers"].items():
                if server["ready"] or server["pending"]:
                    with contextlib.suppress(AssertionError):
                        self.stop_server(user["name"], name)

    def events(self, user, name=""):
        """The progress events of a start, to its end."""
        headers = {"Authorization": f"token {self.token}"}
        url = f"{self.url}/hub/api{server_path(user, name)}/progress"
        with requests.get(url, headers=headers, verify=self.folder / "ca.pem", stream=True, timeout=120) as answer:
            for line in answer.iter_lines(decode_unicode=True):
                if line.startswith("data:"):
                    yield json.loads(line.removeprefix("data:"))

    async def run(self, user, code, name=""):
        """What a kernel of the user's server prints, asked through the proxy as the user's browser would."""
        kernel = Kernel(self, user, name)
        try:
            return await kernel.run(code)
        finally:
            kernel.end()


class Kernel:
    """A kernel of a user's server, asked through the proxy as the user's browser would."""

    def __init__(self, hub, user, name=""):
        self.hub = hub
        made = hub.api("POST", f"/users/{user}/tokens", json={"scopes": [f"access:servers!user={user}"]})
        self._token = {"Authorization": f"token {made.json()['token']}"}
        self._base = f"{hub.url}/user/{user}" + (f"/{name}" if name else "")
        answer = self.ask("POST", "/api/kernels", json={})
        assert answer.ok, answer.text
        self._path = f"/api/kernels/{answer.json()['id']}"

    async def run(self, code):
        """What the code prints."""
        trust = ssl.create_default_context(cafile=str(self.hub.folder / "ca.pem"))
        address = f"{self._base}{self._path}/channels".replace("https", "wss", 1)
        request = HTTPRequest(address, headers=self._token, ssl_options=trust)
        # A browser knows no limit.
        socket_ = await websocket_connect(request, ping_interval=None, max_message_size=1 << 30)
        try:
            return await _execute(socket_, code)
        finally:
            socket_.close()

    def end(self):
        self.ask("DELETE", self._path)

    def ask(self, method, path, **kwargs):
        """Ask the server itself."""
        ca = self.hub.folder / "ca.pem"
        return requests.request(method, self._base + path, headers=self._token, verify=ca, timeout=60, **kwargs)


async def _execute(socket_, code):
    header = {"msg_id": secrets.token_hex(8), "msg_type": "execute_request", "username": "", "session": "s"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    request = {"header": {**header, "version": "5.3"}, "parent_header": {}, "metadata": {}, "content": content}
    await socket_.write_message(json.dumps({**request, "channel": "shell"}))
    printed = ""
    while True:
        text = await socket_.read_message()
        assert text is not None, "the kernel's channel was closed"
        message = json.loads(text)
        if message["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        if message["msg_type"] == "stream":
            printed += message["content"]["text"]
        assert message["msg_type"] != "error", message["content"].get("traceback")
        if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
            return printed.strip()


def server_path(user, name=""):
    return f"/users/{user}/servers/{name}" if name else f"/users/{user}/server"


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def require(program, path=None):
    """The path of a program that the tests can't do without."""
    found = shutil.which(program, path=path)
    assert found, f"{program} is not on PATH; `make test` installs what the tests need"
    return found


EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name, folder, change=None):
    """An example as an admin would take it: its folder copied; its configuration, with the site's words put in."""
    shutil.copytree(EXAMPLES / name, folder, dirs_exist_ok=True)
    for old, new in (change or {}).items():
        text = (folder / "site.toml").read_text(encoding="utf-8")
        assert old in text, f"{old!r} stands no more in the example {name}"
        (folder / "site.toml").write_text(text.replace(old, new), encoding="utf-8")
    return (folder / "jupyterhub_config.py").read_text(encoding="utf-8")
