"""Real images in a real Apptainer, each to a cell run in a kernel; what can't be started is named on the page."""

import base64
import contextlib
import hashlib
import html
import json
import os
import re
import shutil
import ssl
from pathlib import Path

import pytest
import requests
from cluster.conftest import made, on_head, queue_is_empty_within
from cluster.test_bad_input import start
from support.faults import within
from support.hub import Kernel, require
from support.oci import write_archive
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

SITE = """\
[job]
proxy = "{lab}/env-proxy"

[own_images]
folders = ["{lab}/images"]
references = ["docker://", "oci-archive:/"]

[own_environments]
folders = ["{{home}}"]

[[environments]]
name = "alone"
path = ["{lab}/alone-of-test"]

[[environments]]
name = "classic"
path = ["{lab}/env-classic/bin"]

[[environments]]
name = "classic-image"
path = ["{lab}/apptainer/bin"]
image = "classic"
variables = {{ APPTAINERENV_PREPEND_PATH = "{classic}/bin" }}

[[images]]
name = "classic"
path = "{lab}/images/bare"
binds = ["{classic}"]

[[environments]]
name = "images"
path = ["{lab}/apptainer/bin"]

[[environments]]
name = "fetched"
path = ["{lab}/apptainer/bin"]
setup = [
    'export APPTAINER_CACHEDIR="{lab}/fetched-of-test/cache/$USER"',
    "export APPTAINER_TMPDIR={lab}/fetched-of-test/temporary",
]

{images}
[defaults]"""
# As start-jupyter's own examples name them after -i.
OLD_PLACE = Path("/share/apps/gpu/singularity/images")
OLD_IMAGES = {
    "tensorflow-gpu": (OLD_PLACE / "tensorflow/tensorflow-v2.3.0-gpu-20200929.simg", "lab.sif"),
    "pytorch-gpu": (OLD_PLACE / "pytorch/pytorch-gpu.simg", "lab"),
}
IMAGES = ("hub", "lab", "bare", "lab.sif", "arm64.sif", "damaged.sif", "unreadable.sif", "gone.sif")
IMAGE = '[[images]]\nname = "{name}"\npath = "{lab}/images/{name}"\n'


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    require("apptainer", path=f"{lab}/apptainer/bin")
    alone = lab / "alone-of-test"
    alone.mkdir(exist_ok=True)
    if not (alone / "jupyter-lab").is_symlink():
        (alone / "jupyter-lab").symlink_to(lab / "env" / "bin" / "jupyter-lab")
    images = "\n".join(IMAGE.format(name=name, lab=lab) for name in IMAGES)
    images += "".join(f'\n[[images]]\nname = "{name}"\npath = "{path}"\n' for name, (path, _) in OLD_IMAGES.items())
    with (
        old_images(lab),
        make_hub(
            "slurm", change=("[defaults]", SITE.format(lab=lab, classic=made(lab, "env-classic"), images=images))
        ) as hub,
    ):
        yield hub


@contextlib.contextmanager
def old_images(lab):
    """Stand-ins at the paths of start-jupyter's images; what was made for them is gone afterwards."""
    made_here = next((path for path in reversed(OLD_PLACE.parents) if not path.exists()), OLD_PLACE)
    assert not OLD_PLACE.exists(), f"{OLD_PLACE} is somebody's"
    for path, image in OLD_IMAGES.values():
        path.parent.mkdir(parents=True)
        path.symlink_to(lab / "images" / image)
    try:
        yield
    finally:
        shutil.rmtree(made_here)


def asked(image):
    return {"partition": "debug", "environment": "images", "image": image, "memory": "2G"}


WHERE = "import os, socket, sys; print(socket.gethostname(), sys.prefix, os.environ['IMAGE_SAYS'], os.getcwd())"


@pytest.mark.parametrize("image", ["hub", "lab", "lab.sif"])
async def test_a_cell_runs_in_an_image(hub, image):
    hub.spawn("alice", asked(image))
    assert await hub.run("alice", WHERE) == "n1 /opt/jupyter hello /home/alice"
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


@pytest.mark.parametrize("option", [*OLD_IMAGES, str(OLD_IMAGES["pytorch-gpu"][0])])
async def test_what_start_jupyter_was_given_after_i_runs(hub, option):
    hub.spawn("alice", {**asked(option), "partition": "gpu-shared", "gpus": 1, "walltime": "30m"})
    assert await hub.run("alice", WHERE) == "n3 /opt/jupyter hello /home/alice"
    assert len(await hub.run("alice", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")) == 1
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_an_image_by_path_runs_as_a_listed_one(hub, lab):
    hub.spawn("alice", asked(f"{lab}/images/lab"))
    assert await hub.run("alice", WHERE) == "n1 /opt/jupyter hello /home/alice"
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


NOT_NEEDED = ("aiohttp", "babel/locale-data", "cryptography", "debugpy", "jupyterhub", "notebook", "sqlalchemy")
"""What of the packages JupyterLab starts without: Apptainer packs the image anew, which takes its time."""


@pytest.fixture
def fetched(lab):
    """A folder with an archive, and with folders for what Apptainer makes of it, which have never been written to."""
    folder = lab / "fetched-of-test"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("cache", "temporary"):
        (folder / name).mkdir(parents=True)
        shutil.chown(folder / name, "alice")
        os.utime(folder / name, (0, 0))
    root = (lab / "images" / "lab").resolve()
    (packages,) = root.glob("opt/jupyter/lib/python3*/site-packages")
    not_needed = [str((packages / name).relative_to(root)) for name in NOT_NEEDED] + ["opt/jupyter/share/jupyterhub"]
    variables = {"PATH": "/opt/jupyter/bin:/usr/bin:/bin", "IMAGE_SAYS": "hello"}
    write_archive(folder / "lab.tar", root, variables, not_needed)
    yield folder
    shutil.rmtree(folder)


def end_from_within(hub, user):
    """As File > Shut Down of JupyterLab ends a server."""
    answer = Kernel(hub, user).ask("POST", "/api/shutdown")
    assert answer.ok, answer.text


async def test_an_archive_named_by_reference_runs_and_is_kept_where_the_profile_says(hub, fetched):
    hub.spawn("alice", asked(f"oci-archive:{fetched}/lab.tar") | {"environment": "fetched"}, timeout_s=300)
    assert await hub.run("alice", WHERE) == "n1 /opt/jupyter hello /home/alice"
    # Ended by its user, from within: Apptainer has all the time that it needs to remove what it unpacked. A job that is
    # cancelled has Slurm's KillWait for it.
    end_from_within(hub, "alice")
    queue_is_empty_within(120, "alice")
    kept = [
        path for path in (fetched / "cache" / "alice").rglob("*") if path.is_file() and path.stat().st_size > 1 << 20
    ]
    assert kept, "the image was not kept"
    assert (fetched / "temporary").stat().st_mtime > 0, "nothing was made in the folder for it"
    assert list((fetched / "temporary").iterdir()) == [], "something is left there"
    names = [word for path in kept for word in ("-o", "-name", path.name)][1:]
    assert on_head("find", "/home/alice/.apptainer", *names) == "", "the home has it, too"


async def test_an_environment_without_jupyterhub_needs_no_image(hub, lab):
    hub.spawn("alice", {"partition": "debug", "environment": "alone"})
    where = "import os, sys; print(sys.prefix, 'JUPYTERHUB_API_TOKEN' in os.environ)"
    assert await hub.run("alice", where) == f"{made(lab, 'env')} False"
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_an_environment_of_the_user_s_own_runs_and_is_named_once_it_is_gone(hub, lab):
    own = "/home/alice/environment-of-test"
    on_head("ln", "-sfn", str(lab / "env"), own, user="alice")
    asked_for = {"partition": "debug", "environment": "~/environment-of-test"}
    hub.spawn("alice", asked_for)
    assert await hub.run("alice", "import sys; print(sys.prefix)") == made(lab, "env")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
    on_head("rm", own, user="alice")
    _, message, _ = start(hub, asked_for)
    assert f"The set-up of the environment '{own}' on n1 failed at: " in html.unescape(message)
    assert f"there is no folder {own}/bin on n1" in html.unescape(message)
    queue_is_empty_within(40, "alice")


@pytest.mark.parametrize("environment", ["classic", "classic-image"])
async def test_the_classic_notebook_alone_stands_behind_the_proxy(hub, lab, environment):
    asked = {"partition": "debug", "environment": environment, "interface": "notebook", "memory": "2G"}
    hub.spawn("alice", asked, timeout_s=90)
    where = "import os, sys; print(sys.prefix, 'JUPYTERHUB_API_TOKEN' in os.environ, os.path.exists('/usr/bin/squeue'))"
    assert await hub.run("alice", where) == f"{made(lab, 'env-classic')} False {environment == 'classic'}"
    page = hub.log_in("alice").get(f"{hub.url}/user/alice/", timeout=60)
    assert page.url == f"{hub.url}/user/alice/tree"
    assert 'data-notebook-path=""' in page.text
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


def test_an_idle_server_behind_the_proxy_ends_itself_and_says_so(hub):
    hub.spawn("alice", asked("lab") | {"idle_limit": "10s"})
    within(60, lambda: hub.servers("alice") == {}, "the server did not end")
    queue_is_empty_within(40, "alice")
    assert "The server was idle for 10s and shut down" in hub.log()


CANNOT = {
    "bare": "jupyterhub-singleuser or jupyter-lab was not found in the environment",
    "gone.sif": "gone.sif",
    "unreadable.sif": "unreadable.sif is not readable by the current user",
    "arm64.sif": "arm64",
    "damaged.sif": "apptainer could not enter",
    "oci-archive:/nowhere/image.tar": "lstat /nowhere: no such file or directory",
}


@pytest.mark.parametrize("image", CANNOT)
def test_an_image_that_cannot_be_started_is_named_on_the_page(hub, image):
    _, message, _ = start(hub, asked(image))
    message = html.unescape(message)
    assert CANNOT[image] in message
    assert f"image {image}" in message
    assert "exit code 255" not in re.split("Last lines", message)[0]
    queue_is_empty_within(40, "alice")


ATTACK = """\
import glob, json, socket, sys
found = []
for folder in glob.glob("/tmp/hpcspawner-*/alone") + glob.glob("/tmp/hpcspawner-*"):
    for name in ("settings.json", "socket", "alone/settings.json"):
        try:
            open(folder + "/" + name)
            found.append(folder + "/" + name)
        except OSError:
            pass
print("reached" if found else "nothing", found)
"""


async def test_another_user_of_the_node_reaches_nothing_of_the_server_behind_and_it_leaves_nothing(hub, lab):
    hub.spawn("alice", asked("lab"))
    # The newest: servers whose launcher was killed leave theirs.
    newest = "import glob, os; print(max(glob.glob('/tmp/hpcspawner-*/alone/socket'), key=os.path.getctime))"
    where = await hub.run("alice", newest)
    assert where.startswith("/tmp/hpcspawner-")
    connect = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({where!r}); print('in')"
    on_n1 = [str(lab / "n1"), "runuser", "-u"]
    assert on_head(*on_n1, "alice", "--", "python3", "-c", connect) == "in\n", "the control finds nothing"
    assert on_head(*on_n1, "bob", "--", "python3", "-c", connect, check=False) == ""
    assert on_head(*on_n1, "bob", "--", "python3", "-c", ATTACK).startswith("nothing")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")
    assert on_head("ls", "-d", where, check=False) == "", "the folder is left on the node"
    assert "front.py" not in on_head("ps", "-u", "alice", "-o", "args", check=False)


async def opens(hub, path, headers):
    """What a WebSocket of alice's server says to one who brings these headers."""
    trust = ssl.create_default_context(cafile=str(hub.folder / "ca.pem"))
    url = hub.url.replace("https", "wss", 1) + path
    try:
        (await websocket_connect(HTTPRequest(url, headers=headers, ssl_options=trust))).close()
    except HTTPClientError as error:
        return error.code
    return "open"


def token_of(hub, user, scope):
    made = hub.api("POST", f"/users/{user}/tokens", json={"scopes": [scope]})
    return {"Authorization": f"token {made.json()['token']}"}


@pytest.fixture
def alone(hub):
    """alice's server in an image that knows no Hub."""
    hub.spawn("alice", asked("lab"))
    yield hub
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_only_who_may_use_the_server_gets_past_the_proxy(alone):
    hers, bobs = (token_of(alone, user, f"access:servers!user={user}") for user in ("alice", "bob"))
    made = alone.post("/user/alice/api/terminals", {})
    assert made.status_code == 403
    made = alone.get("/user/alice/api/status", headers=bobs)
    assert made.status_code in (403, 404)
    assert alone.get("/user/alice/api/status", headers=hers).status_code == 200
    path = "/user/alice/api/events/subscribe"
    assert [await opens(alone, path, headers) for headers in (hers, bobs, {})] == ["open", 403, 403]


def test_a_page_of_another_server_can_not_use_the_cookie(alone):
    session = alone.log_in("alice")
    page = session.get(f"{alone.url}/user/alice/lab", timeout=60)
    assert (page.status_code, "jupyter-config-data" in page.text) == (200, True)
    url = f"{alone.url}/user/alice/api/contents"
    from_page = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    assert session.post(url, json={}, headers=from_page, timeout=30).status_code == 403
    token = next(one.value for one in session.cookies if one.name == "_xsrf" and one.path == "/user/alice/")
    answer = session.post(url, json={}, headers={**from_page, "X-XSRFToken": token}, timeout=30)
    assert answer.status_code == 201, answer.text
    session.delete(f"{url}/{answer.json()['path']}", headers={**from_page, "X-XSRFToken": token}, timeout=30)


async def test_kernels_behind_the_proxy_have_no_secret_of_the_hub(alone):
    shown = await alone.run(
        "alice", "import os; print(sorted(n for n in os.environ if 'JUPYTERHUB' in n or 'TOKEN' in n))"
    )
    assert shown == "[]"


async def test_a_terminal_of_jupyter_works_behind_the_proxy(alone):
    made = alone.api("POST", "/users/alice/tokens", json={"scopes": ["access:servers!user=alice"]})
    headers = {"Authorization": f"token {made.json()['token']}"}
    url = f"{alone.url}/user/alice"
    answer = requests.post(f"{url}/api/terminals", headers=headers, verify=alone.folder / "ca.pem", timeout=60)
    assert answer.ok, answer.text
    trust = ssl.create_default_context(cafile=str(alone.folder / "ca.pem"))
    address = f"{url.replace('https', 'wss', 1)}/terminals/websocket/{answer.json()['name']}"
    socket_ = await websocket_connect(HTTPRequest(address, headers=headers, ssl_options=trust))
    try:
        await socket_.write_message(json.dumps(["stdin", "echo $((6*7)) by $(id -un)\r"]))
        shown = ""
        while "42 by alice" not in shown:
            message = await socket_.read_message()
            assert message is not None, shown
            kind, *words = json.loads(message)
            shown += words[0] if kind == "stdout" else ""
    finally:
        socket_.close()


async def test_a_long_message_of_a_kernel_passes_the_proxy(alone):
    code = (
        "from comm import create_comm; create_comm(target_name='of-test', data={'x': 'x' * 40_000_000}); print('there')"
    )
    assert await alone.run("alice", code) == "there"


CHUNK = 1 << 20  # as JupyterLab cuts a file


def uploaded(session, url, chunks):
    """The SHA-256 of a file of so many chunks, uploaded by JupyterLab's way."""
    digest = hashlib.sha256()
    for number in range(1, chunks + 1):
        chunk = os.urandom(CHUNK)
        digest.update(chunk)
        content = base64.b64encode(chunk).decode()
        body = {"type": "file", "format": "base64", "content": content, "chunk": -1 if number == chunks else number}
        answer = session.put(url, json=body, timeout=60)
        assert answer.ok, f"chunk {number}: {answer.status_code} {answer.text}"
    return digest.hexdigest()


def test_a_gigabyte_is_uploaded_behind_the_proxy(alone):
    session = alone.log_in("alice")
    session.get(f"{alone.url}/user/alice/lab", timeout=60)
    token = next(one.value for one in session.cookies if one.name == "_xsrf" and one.path == "/user/alice/")
    session.headers.update({"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "X-XSRFToken": token})
    path = "/home/alice/gigabyte-of-test.bin"
    try:
        digest = uploaded(session, f"{alone.url}/user/alice/api/contents/{Path(path).name}", 1024)
        assert on_head("sha256sum", path).split()[0] == digest
        assert int(on_head("stat", "-c", "%s", path)) == 1 << 30
    finally:
        on_head("rm", "-f", path)
