"""What a job finds out before it starts a server: its directory, its quota, and the user's own set-up lines."""

import contextlib
import html
import os
import re
import stat
import subprocess

import pytest
from cluster.conftest import on_head, queue_is_empty_within
from cluster.test_bad_input import start

SITE = """\
[own_setup]
max_chars = 500

[defaults]"""


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub("slurm", change=("[defaults]", SITE)) as hub:
        yield hub


# Until the user reads it, on a machine with much to do, too.
SOON_S = 60


def asked(**more):
    return {"partition": "debug", "environment": "jupyter", "memory": "1G", **more}


def refused(hub, **more):
    """Why the start failed, which is known soon after the job's start."""
    _, message, seconds = start(hub, asked(**more))
    assert seconds < SOON_S, f"after {seconds:.1f} s: {message}"
    queue_is_empty_within(40, "alice")
    return html.unescape(message)


@contextlib.contextmanager
def small_disk(lab, folder):
    """A file system of 32 kB in this folder, on the node."""
    daemon = (lab / "run" / "slurmd.n1.pid").read_text().strip()
    on_head(
        "nsenter", "-t", daemon, "-m", "-r", "mount", "-t", "tmpfs", "-o", "size=32k,mode=1777", "tmpfs", str(folder)
    )
    try:
        yield
    finally:
        on_head("nsenter", "-t", daemon, "-m", "-r", "umount", "-l", str(folder))


def test_a_directory_that_is_missing_closed_or_full_is_named_with_its_cure(hub, lab):
    folder = lab / "small-of-test"
    folder.mkdir(exist_ok=True)
    assert "The directory /nowhere can't be opened on n1: No such file or directory. Create it, or choose another" in (
        refused(hub, directory="/nowhere")
    )
    assert "The directory /root can't be opened on n1: Permission denied" in refused(hub, directory="/root")
    assert "You may not write to the directory /usr on n1. Choose another directory." in refused(hub, directory="/usr")
    with small_disk(lab, folder):
        message = refused(hub, directory=str(folder))
    assert f"Nothing more can be written to {folder} on n1: its file system is full. Remove files there" in message


# A file system whose server says nothing, as a file server does that is down.
SILENT = """\
import ctypes, os, sys
libc, server = ctypes.CDLL(None, use_errno=True), os.open(sys.argv[2], os.O_RDWR)
options = b"fd=%d,rootmode=40777,user_id=0,group_id=0,allow_other" % server
if libc.mount(b"silent", sys.argv[1].encode(), b"fuse", 0, options):
    sys.exit(os.strerror(ctypes.get_errno()))
print("mounted", flush=True)
sys.stdin.read()
MNT_DETACH = 2
libc.umount2(sys.argv[1].encode(), MNT_DETACH)
"""


@contextlib.contextmanager
def silent_disk(lab, folder):
    """In this folder of the node is a file system that does not answer; whoever waits for it is let go at the end."""
    daemon = (lab / "run" / "slurmd.n1.pid").read_text().strip()
    device = lab / "dev" / "fuse"
    if not device.exists():
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(10, 229))  # /dev of another release has none
    argv = ["nsenter", "-t", daemon, "-m", "-r", "python3", "-c", SILENT, str(folder), str(device)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as server:
        assert server.stdout.readline() == "mounted\n"
        yield


def test_a_directory_that_does_not_answer_is_named(hub, lab):
    folder = lab / "silent-of-test"
    folder.mkdir(exist_ok=True)
    with silent_disk(lab, folder):
        message = refused(hub, directory=str(folder))
    assert f"The directory {folder} did not answer on n1 within 8 s: its file system may be down there." in message


LINES = """\
greet() { echo "own lines: $1"; }
for one in a b; do greet "$one's"; done
cat <<END
END
export OWN_LINES="as $(id -un) on $(uname -n)"
"""


async def test_own_lines_run_in_the_job_as_the_user(hub):
    hub.spawn("alice", asked(own_setup=LINES))
    assert await hub.run("alice", "import os; print(os.environ['OWN_LINES'])") == "as alice on n1"
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


def sent(hub, session, lines):
    """What the form answers to these lines."""
    page = session.get(f"{hub.url}/hub/spawn", timeout=60).text
    xsrf = re.search(r"_xsrf=([^\"&]*)", page)[1]
    form = asked(own_setup=lines)
    return session.post(f"{hub.url}/hub/spawn?_xsrf={xsrf}", data=form, allow_redirects=False, timeout=60)


async def test_own_lines_of_the_form_are_text_on_the_page_and_run_as_they_were_typed(hub):
    session = hub.log_in("alice")
    lines = "export MARKUP='</textarea><script>alert(1)</script>&amp;'\r\n"
    too_long = sent(hub, session, lines + "#" * 500)
    assert too_long.status_code == 400
    assert "500 are allowed" in too_long.text
    assert "<script>alert(1)" not in too_long.text
    shown_again = re.search(r'<textarea[^>]* name="own_setup"[^>]*>\n(.*?)</textarea>', too_long.text, re.DOTALL)
    assert html.unescape(shown_again[1]).replace("\r\n", "\n") == lines.replace("\r\n", "\n") + "#" * 500
    assert hub.servers("alice") == {}
    assert sent(hub, session, lines).status_code == 302
    hub.wait_ready("alice")
    told = await hub.run("alice", "import os; print(os.environ['MARKUP'])")
    assert told == "</textarea><script>alert(1)</script>&amp;"
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


@pytest.mark.parametrize(
    ("lines", "end"),
    [
        ("true\nfalse", "failed at: your own set-up lines"),
        ("if true", "failed at: your own set-up lines"),
        ("exit 7", "failed at: your own set-up lines, which ended the job's script with exit code 7"),
    ],
)
def test_own_lines_that_fail_are_named(hub, lines, end):
    message = refused(hub, own_setup=lines)
    assert re.search(re.escape(end), message), message


def test_own_lines_of_a_link_are_not_on_the_form_and_those_of_the_form_are(hub):
    session = hub.log_in("alice")
    page = session.get(f"{hub.url}/hub/spawn?own_setup=touch+pwned&walltime=7m", timeout=60).text
    assert 'value="7m"' in page
    assert re.search(r'<textarea[^>]* name="own_setup"[^>]*>\s*</textarea>', page)
