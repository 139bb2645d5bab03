"""What root starts and another account does: root opens nothing that the other account could turn against it."""

import os
import pwd
import signal
import socket
import subprocess
import sys

import pytest

from hpcspawner.site.profile import find_shipped

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")

CODE = """\
import os, pwd, signal, sys, time
from hpcspawner.cli.become import become
from hpcspawner.cli.demo import _interrupt
def work():
{work}
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, _interrupt)
sys.exit(become(pwd.getpwnam("nobody"), work))
"""


def argv(work):
    lines = "\n".join(f"    {line}" for line in work.strip().splitlines())
    return [sys.executable, "-c", CODE.format(work=lines)]


def became(work, **environment):
    return subprocess.run(
        argv(work),
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        timeout=60,
    )


def test_every_right_is_dropped_before_the_work_begins():
    done = became("print(os.getresuid(), os.getresgid(), os.getgroups(), os.getcwd())")
    nobody = pwd.getpwnam("nobody")
    assert done.stdout == f"{(nobody.pw_uid,) * 3} {(nobody.pw_gid,) * 3} [] /\n"
    assert (done.stderr, done.returncode) == ("", 0)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param("os.setuid(0)", id="user"),
        pytest.param("os.setgid(0)", id="group"),
        pytest.param("open('/etc/shadow')", id="file"),
        pytest.param("open('/proc/%d/environ' % os.getppid())", id="parent"),
    ],
)
def test_nothing_of_root_s_comes_back(work):
    done = became(work)
    assert done.returncode == 1
    assert "PermissionError" in done.stderr


def test_no_descriptor_and_no_variable_of_root_s_is_there(tmp_path):
    done = became(
        "print(sorted(os.environ), sorted(os.listdir('/proc/self/fd')), os.isatty(1), os.getsid(0) == os.getpid())",
        A_SECRET="x",
        PATH="/usr/bin:/bin",
        LANG="C.UTF-8",
        TMPDIR=str(tmp_path),
    )
    # The fourth is the listing's own.
    assert done.stdout == "['HOME', 'LANG', 'PATH', 'TMPDIR', 'USER'] ['0', '1', '2', '3'] False True\n"


def test_what_it_prints_comes_line_by_line_and_forges_none():
    done = became("print('one\\x1b[2J\\rtwo'); print('three', file=sys.stderr)")
    assert (done.stdout, done.stderr) == ("one [2J two\n", "three\n")


@pytest.mark.parametrize(
    ("work", "code"),
    [
        pytest.param("pass", 0, id="done"),
        pytest.param("sys.exit(3)", 3, id="an exit code"),
        pytest.param("sys.exit('why')", 1, id="a sentence"),
        pytest.param("1 / 0", 1, id="a fault"),
        pytest.param("os.kill(os.getpid(), signal.SIGKILL)", 137, id="a signal"),
    ],
)
def test_how_it_ended_is_told(work, code):
    assert became(work).returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupt_ends_the_work_in_order(number):
    work = "try:\n    print('begun', flush=True)\n    time.sleep(60)\nexcept KeyboardInterrupt:\n    print('in order')"
    running = subprocess.Popen(argv(work), stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    assert running.stdout.readline() == "begun\n"
    running.send_signal(number)
    assert running.communicate(timeout=60)[0] == "in order\n"
    assert running.returncode == 0


# --- the demo, which root runs for another account

# At the moment when the work folder has been made, its owner puts a link where the Hub's log will be.
LINKED = """\
import os, subprocess
from hpcspawner.cli import demo
# Python itself may lie where only root reads: what is imported late is imported now.
"localhost".encode("idna")
def write_certificate(folder, names):
    owner = {"user": "daemon"} if os.geteuid() == 0 else {}
    subprocess.run(["ln", "-s", "VICTIM", f"{folder}/hub.log"], check=True, **owner)
    print("linked", flush=True)
demo.write_certificate = write_certificate
demo.Demo.launch_instance(["--port=PORT", "--user=daemon", "--site=SITE"])
"""


def test_a_link_in_the_demo_s_folder_leads_root_nowhere(tmp_path):
    """Else a file of root's is emptied, filled with the Hub's log and given to the account."""
    victim = tmp_path / "victim"
    victim.write_text("root's own")
    for name in ("jupyterhub", "configurable-http-proxy", "node"):
        (tmp_path / name).symlink_to("/bin/true")
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    site = tmp_path / "site.toml"
    site.write_text(find_shipped("local.toml").read_text().replace("[scheduler]", "[scheduler]\nmin_uid = 1"))
    code = LINKED.replace("VICTIM", str(victim)).replace("PORT", str(port)).replace("SITE", str(site))
    environment = os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin", "TMPDIR": "/tmp"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert "linked" in done.stdout, done.stderr
    assert victim.read_text() == "root's own"
    assert victim.stat().st_uid == 0
    assert done.returncode == 1


@pytest.mark.parametrize("user", ["root", "daemon"])
def test_the_demo_is_for_accounts_of_people(user):
    code = f"from hpcspawner.cli.demo import _named; _named({user!r}, 1000)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"hpcspawner demo: The account {user!r} ")
