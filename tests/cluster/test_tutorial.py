"""The tutorial's session, run again as its page shows it: `RECORD=write` puts what is printed now into the page.

Numbers may differ, and what lies where: the page's folders and host name stand for this cluster's.
"""

import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from cluster.conftest import NODES, jobs_of, queue_is_empty_within
from support.browser import a_page, log_in, press_start, run_cell
from support.hub import PASSWORD, require
from support.wheel import ROOT, build

from hpcspawner.cli.certificate import write_certificate

PAGE = ROOT / "docs" / "tutorial" / "ten-minutes.md"
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
FACTS = re.compile(r"It has \d+ commands and took [\d.]+ minutes here")
ADDRESS = "10.77.0.1"
# A test can't know a user's password on this machine.
LOGIN = f"""\
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = {PASSWORD!r}
"""
END = "the command has ended"


def outside():
    """The next process above this one in another network, which is the machine's own."""
    pid, here = os.getppid(), os.readlink("/proc/self/ns/net")
    while os.readlink(f"/proc/{pid}/ns/net") == here:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return pid


class Session:
    """A shell in which the page's commands run, one after the other."""

    def __init__(self, folder, places):
        self._places = places
        variables = {
            "PATH": f"{Path(require('configurable-http-proxy')).parent}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            # Where this machine's pip looks for packages.
            **{name: value for name, value in os.environ.items() if name.startswith("PIP_")},
            "PIP_FIND_LINKS": f"{folder}/dist {os.environ.get('PIP_FIND_LINKS', '')}",
        }
        self._errors = (folder / "errors").open("w+b")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        options = {"text": True, "env": variables, "cwd": folder, **pipes}
        self._shell = subprocess.Popen(["bash"], **options)
        # The test cluster's network leads nowhere else.
        self._outside = subprocess.Popen(["nsenter", f"--net=/proc/{outside()}/ns/net", "bash"], **options)

    def run(self, command):
        """What the command prints, in the page's own words."""
        shell = self._outside if " install " in command else self._shell
        print(f"{self._here(command)}\ncode=$?; echo; echo '{END}' $code", file=shell.stdin, flush=True)
        lines = []
        while not (line := shell.stdout.readline()).startswith(END):
            assert line, f"the shell has ended: {command}"
            lines.append(line)
        assert line.split()[-1] == "0", f"{command}\n{''.join(lines)}\n{Path(self._errors.name).read_text()}"
        text = "".join(lines).removesuffix("\n")
        for there, here in self._places.items():
            text = text.replace(here, there)
        return text

    def write(self, name, text):
        (Path(self._places["/etc/jupyterhub"]) / name).write_text(self._here(text))

    def _here(self, text):
        for there, here in self._places.items():
            text = text.replace(there, here)
        return text

    def end(self):
        self._shell.communicate("kill %1\nwait %1\n", timeout=60)
        self._outside.communicate(timeout=60)


@pytest.fixture
def session(lab, tmp_path):
    site = tmp_path / "jupyterhub"
    site.mkdir()
    write_certificate(site, [ADDRESS])
    for name, kind in (("server.pem", "hub.pem"), ("server.key", "hub.key")):
        (site / name).rename(site / kind)
    build(tmp_path / "dist")
    places = {
        "/opt/jupyterhub": f"{tmp_path}/venv",
        "/etc/jupyterhub": str(site),
        "/shared/jupyter": f"{lab}/env",
        "hub.example.org": ADDRESS,
    }
    found = Session(tmp_path, places)
    yield found
    found.end()


def commands(block):
    """The commands of a block, each with what the page shows below it."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def alike(text):
    """Without what differs from run to run: numbers, and how wide they are."""
    return re.sub(r"[ \t]+", " ", re.sub(r"\d+", "0", text))


def open_a_notebook(cell):
    """As the page says: log in, press Start, run the cell; what it prints."""

    class Site:
        url = f"https://{ADDRESS}"

    with a_page() as page:
        log_in(page, Site, "alice")
        page.goto(f"{Site.url}/hub/spawn")
        press_start(page)
        page.wait_for_url("**/user/alice/lab**", timeout=120_000)
        return run_cell(page, cell)


def stop_the_server():
    with a_page() as page:
        page.goto(f"https://{ADDRESS}/hub/login")
        page.fill("input[name=username]", "alice")
        page.fill("input[name=password]", PASSWORD)
        page.click("#login_submit, input[type=submit], button[type=submit]")
        page.wait_for_url("**/user/alice/**")
        page.goto(f"https://{ADDRESS}/hub/home")
        page.locator("[data-hpc-end]").click()
        queue_is_empty_within(40, "alice")


def test_the_session_prints_what_the_page_shows(session):
    began, page, count = time.monotonic(), PAGE.read_text(encoding="utf-8"), 0
    for language, block in BLOCK.findall(page):
        if "hpcspawner.configure" in block:
            session.write("jupyterhub_config.py", block + LOGIN)
        elif language == "python":
            assert open_a_notebook(block.strip()) in NODES
            assert jobs_of("alice")
        for command, shown in commands(block) if language == "console" else ():
            printed = session.run(command)
            count += 1
            if os.environ.get("RECORD") == "write":
                page = page.replace(f"$ {command}\n{shown}", f"$ {command}\n{printed}", 1)
            else:
                assert alike(printed) == alike(shown), command
    stop_the_server()
    minutes = (time.monotonic() - began) / 60
    if os.environ.get("RECORD") == "write":
        page = FACTS.sub(f"It has {count} commands and took {minutes:.1f} minutes here", page)
        PAGE.write_text(page, encoding="utf-8")
    assert f"It has {count} commands and took " in page
