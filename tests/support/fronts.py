"""Examples as a site puts them up: the Hub, and before it the real nginx, Apache or Traefik, with their own files."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from hpcspawner.cli.certificate import write_certificate
from support.hub import EXAMPLES, Hub, example, free_ports, require

# Debian's programs lie where only root looks.
_PATH = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])

_NGINX = """\
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/hub.conf;
}}
"""
# The modules that the example's README.md has switched on, after those without which Apache is none.
_APACHE = """\
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
ErrorLog {folder}/front.log
DefaultRuntimeDir {folder}
Mutex file:{folder}
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule alias_module /usr/lib/apache2/modules/mod_alias.so
LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
LoadModule headers_module /usr/lib/apache2/modules/mod_headers.so
Listen 127.0.0.1:{plain}
Listen 127.0.0.1:{port}
Include {folder}/hub.conf
"""


_MAIN = {"nginx": _NGINX, "apache2": _APACHE}
# An example's files, and where the front looks for them.
_FILES = {
    "nginx": {"hub.conf": "hub.conf"},
    "apache2": {"hub.conf": "hub.conf"},
    "traefik": {"traefik.yml": "traefik.yml", "hub.yml": "dynamic/hub.yml"},
}
_COMMANDS = {
    "nginx": ["nginx", "-c", "main.conf"],
    "apache2": ["apache2", "-DFOREGROUND", "-f", "main.conf"],
    "traefik": ["traefik", "--configfile", "traefik.yml"],
}


class ExampleHub(Hub):
    """The Hub of an example, its own configuration kept but for what every site fills in: names, ports and paths."""

    public = ""

    def __init__(self, name, folder, profile, *, domain="localhost", base_url="/", extra=""):
        super().__init__(folder, None, config="", extra=extra, users=("alice", "bob"))
        self.domain = domain
        self._found = NamedHosts(folder, [domain, *(f"{user}.{domain}" for user in self.users)])
        self.plain_port, self.inner_port = free_ports(2)
        self.url = f"https://{domain}:{self.port}"
        write_certificate(self.folder, [domain, f"*.{domain}", "127.0.0.1"])
        place = (self.folder / "jupyterhub_config.py").read_text(encoding="utf-8")
        config = filled_in(example(name, self.folder), self._words())
        (self.folder / "jupyterhub_config.py").write_text(config + place, encoding="utf-8")
        (self.folder / "site.toml").write_text(profile, encoding="utf-8")
        # As the example's README.md says.
        self.base_url = base_url
        if base_url != "/":
            self.url += base_url.rstrip("/")
            with (self.folder / "jupyterhub_config.py").open("a", encoding="utf-8") as file:
                file.write(f'c.JupyterHub.bind_url = "http://127.0.0.1:{self.inner_port}{base_url}"\n')
                file.write(f'c.JupyterHub.public_url = "{self.url}/"\n')

    def start(self, prefix=()):
        super().start([*self._found.prefix, *prefix])

    def _words(self):
        return {
            "https://hub.example.org": self.url,
            "hub.example.org": self.domain,
            "https://:443": f"https://:{self.port}",
            "http://127.0.0.1:8000": f"http://127.0.0.1:{self.inner_port}",
            "redirect_port=80": f"redirect_port={self.plain_port}",
            "/etc/jupyterhub/hub.pem": f"{self.folder}/server.pem",
            "/etc/jupyterhub/hub.key": f"{self.folder}/server.key",
        }


class NamedHosts:
    """Makes a process find these names on this machine, as the site's DNS would; `prefix` goes before its command."""

    _HIDE = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'

    def __init__(self, folder, names):
        hosts = Path(folder) / "hosts"
        known = Path("/etc/hosts").read_text(encoding="utf-8").rstrip("\n")
        hosts.write_text("\n".join([known, *(f"127.0.0.1 {name}" for name in names), ""]), encoding="utf-8")
        hosts.chmod(0o644)
        # Whoever is not root may mount in a user namespace of his own.
        alone = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        own = ["unshare", *alone, "--mount", "--propagation=private"]
        self.prefix = [*own, "sh", "-c", self._HIDE, "-", str(hosts)]


@contextlib.contextmanager
def front_server(name, hub):
    """The front server of an example, "nginx", "apache2" or "traefik", before this Hub; under no root account."""
    account = pwd.getpwnam("www-data") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="front-"))
    try:
        _fill(folder, name, hub)
        if account:
            for path in (folder, *folder.rglob("*")):
                os.chown(path, account.pw_uid, account.pw_gid)
        with _running(name, folder, account) as process:
            _wait_for(process, folder, hub.port)
            yield
    finally:
        shutil.rmtree(folder)


def _fill(folder, name, hub):
    shutil.copy(hub.folder / "server.pem", folder / "fullchain.pem")
    shutil.copy(hub.folder / "server.key", folder / "privkey.pem")
    words = {
        "/etc/letsencrypt/live/hub.example.org": str(folder),
        "https://hub.example.org": f"https://{hub.domain}:{hub.port}",
        "hub.example.org": hub.domain,
        "location / {": f"location {hub.base_url} {{",
        "127.0.0.1:8000": f"127.0.0.1:{hub.inner_port}",
        # For IPv6, which not every machine has.
        "[::]:80": f"127.0.0.3:{hub.plain_port}",
        "[::]:443": f"127.0.0.3:{hub.port}",
        "listen 80": f"listen {hub.plain_port}",
        "listen 443": f"listen {hub.port}",
        "*:80": f"*:{hub.plain_port}",
        "*:443": f"*:{hub.port}",
    }
    if name == "traefik":
        words |= {
            '":80"': f'"127.0.0.1:{hub.plain_port}"',
            '":443"': f'"127.0.0.1:{hub.port}"',
            # The port is in the address to go to where it is not HTTPS's own.
            "to: secure": f'to: ":{hub.port}"',
            "/etc/traefik/dynamic": str(folder / "dynamic"),
        }
        (folder / "dynamic").mkdir()
    for file, place in _FILES[name].items():
        text = (EXAMPLES / f"behind-{name.rstrip('2')}" / file).read_text(encoding="utf-8")
        (folder / place).write_text(filled_in(text, words), encoding="utf-8")
    (folder / "front.log").touch()
    if name in _MAIN:
        main = _MAIN[name].format(folder=folder, port=hub.port, plain=hub.plain_port)
        (folder / "main.conf").write_text(main, encoding="utf-8")


def filled_in(text, words):
    """The text with the site's words in place of the example's."""
    for old, new in words.items():
        text = text.replace(old, new)
    assert "example.org" not in text
    return text


@contextlib.contextmanager
def _running(name, folder, account):
    program, *options, main = _COMMANDS[name]
    command = [require(program, path=_PATH), *options, str(folder / main)]
    who = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}
    with (folder / "front.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd="/", env={"HOME": str(folder)}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **who
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(process, folder, port):
    deadline = time.monotonic() + 30
    while True:
        complaint = (folder / "front.log").read_text(encoding="utf-8")
        assert process.poll() is None, complaint
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return
        assert time.monotonic() < deadline, complaint
        time.sleep(0.1)
