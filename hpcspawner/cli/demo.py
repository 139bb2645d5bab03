"""`hpcspawner demo`: a whole Hub with HTTPS on this machine, gone without a trace when it is stopped."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NoReturn

from traitlets import Integer, Unicode

from hpcspawner.cli.become import become
from hpcspawner.cli.certificate import write_certificate
from hpcspawner.cli.command import Command
from hpcspawner.errors import ProfileError
from hpcspawner.request.accounts import refusal
from hpcspawner.schedulers.local import Local
from hpcspawner.site.profile import SiteProfile, find_shipped, load

_READY_S = 90
_STOP_S = 30
_ACCOUNT = "hpcdemo"

_CONFIG = """\
import hpcspawner

c = get_config()
hpcspawner.configure(c, {site!r}, callback_url={url!r}, ca_file={folder!r} + "/ca.pem")
c.HPCSpawner.fallback_path = [{programs!r}]
c.HPCSpawner.spool = {folder!r} + "/spool"
c.HPCSpawner.poll_interval_s = 2

c.JupyterHub.bind_url = {bind!r}
c.JupyterHub.ssl_cert = {folder!r} + "/server.pem"
c.JupyterHub.ssl_key = {folder!r} + "/server.key"
c.JupyterHub.hub_bind_url = {hub_bind!r}
c.JupyterHub.hub_connect_url = {hub_connect!r}
c.ConfigurableHTTPProxy.api_url = "https://127.0.0.1:{api_port}"
c.ConfigurableHTTPProxy.pid_file = {folder!r} + "/proxy.pid"
c.JupyterHub.db_url = "sqlite:///" + {folder!r} + "/hub.sqlite"
c.JupyterHub.cookie_secret_file = {folder!r} + "/cookie_secret"

# A demo leaves nothing behind: its servers end with it.
c.JupyterHub.cleanup_servers = True

c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = {password!r}
c.Authenticator.allowed_users = {{{user!r}}}
"""


class Demo(Command):
    """Start a Hub with HTTPS on this machine, for trying out; Ctrl-C ends everything it started.

    hpcspawner demo [--port=8443] [--site=profiles/local.toml] [--user=NAME]
    """

    name = "hpcspawner demo"
    description = __doc__
    port = Integer(8443, min=1, max=65535, config=True, help="Port of the Hub's address.")
    site = Unicode("local.toml", config=True, help="Site profile; a shipped one by its name.")
    user = Unicode(
        config=True,
        help="Existing account to run the Hub and its servers. Default: your own; if you are root, one made for this "
        "run.",
    )
    aliases = {"port": "Demo.port", "site": "Demo.site", "user": "Demo.user"}

    def start(self) -> None:
        """Run until a signal comes."""
        # SIGINT too: a process that a script starts in the background is born deaf to it.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _interrupt)
        profile, path = self._profile()
        self._check_port()
        for program in ("jupyterhub", "configurable-http-proxy", "node"):
            if shutil.which(program) is None:
                self._fail(f"{program} is not on PATH; `make demo` installs what the demo needs")
        site = path.read_bytes()
        with _account(self.user, profile.scheduler.min_uid) as account:
            if account.pw_uid == os.geteuid():
                self._run_until_stopped(account, profile, site)
            else:
                raise SystemExit(become(account, lambda: self._run_until_stopped(account, profile, site)))

    def _run_until_stopped(self, account: pwd.struct_passwd, profile: SiteProfile, site: bytes) -> None:
        with contextlib.ExitStack() as stack:
            try:
                self._run(stack, account, profile, site)
            except KeyboardInterrupt:
                print("\nStopping: ending the servers and the Hub …", flush=True)

    def _run(self, stack: contextlib.ExitStack, account: pwd.struct_passwd, profile: SiteProfile, site: bytes) -> None:
        folder = Path(stack.enter_context(_work_folder()))
        local = profile.scheduler.type == "local"
        stack.callback(_end_local_jobs, folder) if local else None
        host = "127.0.0.1" if local else socket.getfqdn()
        address = f"https://localhost:{self.port}/" if local else f"https://{host}:{self.port}/"
        password = secrets.token_urlsafe(9)
        (folder / "site.toml").write_bytes(site)
        write_certificate(
            folder, ["localhost", "127.0.0.1", *({socket.gethostname(), socket.getfqdn()} - {"localhost"})]
        )
        config = self._config(folder, account, password, "127.0.0.1" if local else host)
        file = folder / "jupyterhub_config.py"
        file.touch(mode=0o600)
        file.write_text(config, encoding="utf-8")
        hub = stack.enter_context(_hub(folder, account))
        self._wait_until_ready(hub, folder)
        print(
            _WELCOME.format(
                address=address, user=account.pw_name, password=password, title=profile.title, folder=folder
            ),
            flush=True,
        )
        code = hub.wait()
        self._fail(f"the Hub ended with exit code {code}:\n{_tail(folder / 'hub.log')}")

    def _profile(self) -> tuple[SiteProfile, Path]:
        path = Path(self.site)
        try:
            if not path.exists() and path.parent == Path():
                path = find_shipped(path.name)
            return load(path), path
        except (ProfileError, FileNotFoundError) as error:
            self._fail(getattr(error, "explained", str(error)))

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", self.port))
            except OSError as error:
                self._fail(
                    f"port {self.port} can't be used ({error.strerror}); choose another: make demo PORT={self.port + 1000}"
                )

    def _config(self, folder: Path, account: pwd.struct_passwd, password: str, host: str) -> str:
        hub_port, api_port = _free_ports(2)
        everywhere = "127.0.0.1" if host == "127.0.0.1" else "0.0.0.0"  # noqa: S104 - compute nodes must reach it
        return _CONFIG.format(
            site=str(folder / "site.toml"),
            url=f"https://{host}:{self.port}",
            folder=str(folder),
            programs=str(Path(sys.executable).parent),
            bind=f"https://{everywhere}:{self.port}",
            hub_bind=f"https://{everywhere}:{hub_port}",
            hub_connect=f"https://{host}:{hub_port}",
            api_port=api_port,
            password=password,
            user=account.pw_name,
        )

    def _wait_until_ready(self, hub: subprocess.Popen[bytes], folder: Path) -> None:
        trust = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        for _ in range(_READY_S * 5):
            if hub.poll() is not None:
                self._fail(f"the Hub did not start:\n{_tail(folder / 'hub.log')}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"https://127.0.0.1:{self.port}/hub/health", context=trust, timeout=2).close()
                return
            time.sleep(0.2)
        self._fail(f"the Hub was not ready within {_READY_S} s:\n{_tail(folder / 'hub.log')}")

    def _fail(self, message: str) -> NoReturn:
        print(f"hpcspawner demo: {message}", file=sys.stderr)
        raise SystemExit(1)


_WELCOME = """
  {title}

  Address:   {address}
  User name: {user}
  Password:  {password}
  Hub's log: {folder}/hub.log

  The certificate was made for this run, so the browser asks whether to trust it.
  Ctrl-C stops the Hub and every server, and removes what the demo made.
"""


@contextlib.contextmanager
def _account(name: str, min_uid: int) -> Any:
    """The account that runs the Hub: the one named, our own, or as root one made for this run."""
    if name:
        yield _named(name, min_uid)
        return
    if os.geteuid() != 0:
        yield pwd.getpwuid(os.geteuid())
        return
    made = f"{_ACCOUNT}-{secrets.token_hex(3)}"
    subprocess.run(["/usr/sbin/useradd", "--create-home", "--shell", "/bin/bash", made], check=True)
    try:
        yield pwd.getpwnam(made)
    finally:
        subprocess.run(["/usr/sbin/userdel", "--remove", made], check=False, stderr=subprocess.DEVNULL)


def _named(name: str, min_uid: int) -> pwd.struct_passwd:
    try:
        account = pwd.getpwnam(name)
    except (KeyError, ValueError):
        raise SystemExit(f"hpcspawner demo: there is no account {name!r} on this machine") from None
    if why := refusal(account, min_uid):
        raise SystemExit(f"hpcspawner demo: {why}")
    if os.geteuid() not in (0, account.pw_uid):
        raise SystemExit(f"hpcspawner demo: only root can run it as {name!r}; leave out --user to run it as yourself")
    return account


def _work_folder() -> contextlib.AbstractContextManager[str]:
    return tempfile.TemporaryDirectory(prefix="hpcspawner-demo-", ignore_cleanup_errors=True)


@contextlib.contextmanager
def _hub(folder: Path, account: pwd.struct_passwd) -> Any:
    """The Hub in a session of its own, so that Ctrl-C reaches us alone and the end is in order."""
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LANG": os.environ.get("LANG", "C.UTF-8"),
    }
    with (folder / "hub.log").open("wb") as log:
        hub = subprocess.Popen(
            ["jupyterhub", "-f", str(folder / "jupyterhub_config.py")],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield hub
    finally:
        # A second Ctrl-C must not leave half of it running.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        hub.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            hub.wait(_STOP_S)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(hub.pid, signal.SIGKILL)
        hub.wait()


def _end_local_jobs(folder: Path) -> None:
    """Cancel what a Hub that died could not; the scheduler's own processes end with their jobs."""
    local = Local(folder / "spool", slots=1)
    deadline = time.monotonic() + _STOP_S
    while time.monotonic() < deadline and (folder / "spool").exists():
        mark = secrets.token_hex(8)
        listed = subprocess.run(local.query_command(mark), capture_output=True, text=True, check=False, cwd="/")
        jobs = local.parse_query(listed.stdout, mark)
        alive = [job_id for job_id, status in jobs.items() if status.state.value != "ended"]
        if not alive:
            return
        for job_id in alive:
            subprocess.run(local.cancel_command(job_id), capture_output=True, check=False, cwd="/")
        time.sleep(0.5)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _tail(path: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-25:])


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt
