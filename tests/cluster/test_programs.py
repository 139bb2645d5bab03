"""Programs other than Jupyter behind the proxy that asks the Hub: marimo, TensorBoard, ttyd, a sender of events."""

import json
import re
import ssl

import pytest
from cluster.conftest import made, on_head, queue_is_empty_within
from cluster.test_bad_input import start
from support.browser import a_page, enter
from support.faults import within
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

SITE = """\
[job]
proxy = "{lab}/env-proxy"

[[environments]]
name = "programs"
path = ["{lab}/env-programs/bin", "{lab}/ttyd/bin"]

[[environments]]
name = "image"
path = ["{lab}/apptainer/bin"]
image = "bare"

[[images]]
name = "bare"
path = "{lab}/images/bare"
binds = ["{ttyd}"]

[[interfaces]]
name = "lab"

[[interfaces]]
name = "marimo"
command = [
    "marimo", "--quiet", "edit", "--headless", "--skip-update-check", "--host", "127.0.0.1", "--port", "{{port}}",
    "--base-url", "{{base_url}}", "--token-password-file", "{{folder}}/secret",
]
files = {{ secret = "{{secret}}" }}
headers = {{ Authorization = "Bearer {{secret}}" }}

[[interfaces]]
name = "tensorboard"
command = [
    "tensorboard", "--logdir", ".", "--host", "127.0.0.1", "--port", "{{port}}", "--path_prefix", "{{base_url}}",
]
polls = ["/data/"]

[[interfaces]]
name = "terminal"
command = ["ttyd", "--writable", "--interface", "{{socket}}", "--base-path", "{{base_url}}", "bash", "--norc"]

[[interfaces]]
name = "by-image"
command = ["{ttyd}/bin/ttyd", "--writable", "--interface", "{{socket}}", "--base-path", "{{base_url}}", "sh"]

[[interfaces]]
name = "listing"
command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "{{port}}"]
url = "/.hpcspawner/"

[[interfaces]]
name = "events"
command = ["python3", "{{folder}}/events.py", "{{port}}", "{{base_url}}"]
files = {{ "events.py" = {events} }}

[[interfaces]]
name = "missing"
command = ["rserver", "--www-socket={{socket}}"]

[[interfaces]]
name = "deaf"
command = ["sh", "-c", "echo the licence has expired >&2; exit 3", "{{socket}}"]

[defaults]"""

# Sends one event, and the next after another request says that the one before has arrived.
EVENTS = """\
import sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

arrived, left = threading.Semaphore(0), []

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if not self.path.endswith("/stream"):
            self.answer("text/plain", b"%d left" % len(left))
            return
        self.answer("text/event-stream", b"")
        while arrived.acquire(blocking=False):
            pass
        try:
            while True:
                self.wfile.write(b"data: %s\\n\\n" % self.headers["Accept"].encode())
                arrived.acquire()
        except OSError:
            left.append(self)

    def do_POST(self):
        arrived.release()
        self.answer("text/plain", b"")

    def answer(self, kind, text):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Set-Cookie", kind[5:] + "=seen; Path=/")
        self.send_header("Set-Cookie", "jupyterhub-session-id=x; Path=/")
        self.end_headers()
        self.wfile.write(text)

ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    site = SITE.format(lab=lab, ttyd=made(lab, "ttyd"), events=json.dumps(EVENTS))
    with make_hub("slurm", change=("[defaults]", site)) as hub:
        yield hub


def asked(interface, **more):
    return {"partition": "debug", "environment": "programs", "interface": interface, "memory": "1G", **more}


def ended(hub, *users):
    for user in users:
        hub.stop_server(user)
    queue_is_empty_within(40, *users)


def token_of(hub, user):
    made = hub.api("POST", f"/users/{user}/tokens", json={"scopes": [f"access:servers!user={user}"]})
    return {"Authorization": f"token {made.json()['token']}"}


async def typed(hub, user, line, until):
    """What the user's terminal shows after a line was typed, once `until` stands there."""
    trust = ssl.create_default_context(cafile=str(hub.folder / "ca.pem"))
    request = HTTPRequest(
        f"{hub.url.replace('https', 'wss', 1)}/user/{user}/ws", headers=token_of(hub, user), ssl_options=trust
    )
    socket_ = await websocket_connect(request, subprotocols=["tty"])
    try:
        await socket_.write_message(json.dumps({"AuthToken": "", "columns": 200, "rows": 50}).encode(), binary=True)
        await socket_.write_message(b"0" + line.encode() + b"\r", binary=True)
        shown = ""
        while not (found := re.search(until, shown)):
            message = await socket_.read_message()
            assert message is not None, shown
            shown += message.decode()[1:] if message[:1] == b"0" else ""
        return found
    finally:
        socket_.close()


async def opens(hub, path, headers):
    """What a WebSocket of alice's server says to one who brings these headers."""
    trust = ssl.create_default_context(cafile=str(hub.folder / "ca.pem"))
    url = hub.url.replace("https", "wss", 1) + path
    try:
        request = HTTPRequest(url, headers=headers, ssl_options=trust)
        (await websocket_connect(request, subprotocols=["tty"])).close()
    except HTTPClientError as error:
        return error.code
    return "open"


def test_pages_of_marimo_and_tensorboard_open_for_two_users_on_one_node(hub, lab):
    hub.spawn("alice", asked("marimo"))
    hub.spawn("bob", asked("tensorboard"))
    alice, bob = hub.log_in("alice"), hub.log_in("bob")
    page = alice.get(f"{hub.url}/user/alice/", timeout=60)
    assert page.status_code == 200
    token = re.search(r'<marimo-server-token[^>]*data-token="([^"]+)"', page.text)[1]
    # A request as its page makes it, which changes something.
    from_page = {
        "Marimo-Server-Token": token,
        "Sec-Fetch-Mode": "cors",
        "Sec-Fetch-Site": "same-origin",
        "Origin": hub.url,
        "Referer": f"{hub.url}/user/alice/",
    }
    files = alice.post(f"{hub.url}/user/alice/api/home/workspace_files", json={}, headers=from_page, timeout=60)
    assert files.status_code == 200, files.text
    strange = {**from_page, "Referer": f"{hub.url}/user/bob/"}
    refused = alice.post(f"{hub.url}/user/alice/api/home/workspace_files", json={}, headers=strange, timeout=60)
    assert refused.status_code == 403
    elsewhere = {**from_page, "Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
    refused = alice.post(f"{hub.url}/user/alice/api/home/workspace_files", json={}, headers=elsewhere, timeout=60)
    assert refused.status_code == 403
    # marimo's cookie would go to every server of this Hub.
    theirs = [one for one in alice.cookies if one.name.startswith("session_")]
    assert [one.path for one in theirs] == ["/user/alice"]
    page = bob.get(f"{hub.url}/user/bob/", timeout=60)
    assert (page.status_code, "TensorBoard" in page.text) == (200, True)
    assert bob.get(f"{hub.url}/user/bob/data/environment", timeout=60).json()["version"]
    assert bob.get(f"{hub.url}/user/alice/", timeout=60).status_code in (403, 404)
    attack_ports(lab)
    ended(hub, "alice", "bob")


PORTS = """\
import http.client, pathlib, re
for name in ("tcp", "tcp6"):
    for row in map(str.split, open("/proc/net/" + name)):
        if row[3] == "0A" and row[7] == "{uid}":
            port = int(row[1].rpartition(":")[2], 16)
            try:
                asking = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                asking.request("{method}", "{path}", "{{}}", {{"Content-Type": "application/json"}})
                print(asking.getresponse().status)
            except (OSError, http.client.HTTPException):
                print("closed")
"""


def attack_ports(lab):
    """Another user of the node reaches marimo's port, and is refused there: it has a secret. TensorBoard takes none."""
    uid = on_head("id", "-u", "alice").strip()
    found = on_head(
        *(str(lab / "n1"), "runuser", "-u", "bob", "--", "python3", "-c"),
        PORTS.format(uid=uid, method="POST", path="/user/alice/api/home/workspace_files"),
    ).split()
    assert "401" in found, found
    assert "200" not in found, found
    found = on_head(
        *(str(lab / "n1"), "runuser", "-u", "alice", "--", "python3", "-c"),
        PORTS.format(uid=on_head("id", "-u", "bob").strip(), method="GET", path="/user/bob/data/environment"),
    ).split()
    assert "200" in found, "the page about other programs says that such a port can be reached"
    arguments = on_head("ps", "-ww", "-u", "alice", "-o", "args")
    assert "--token-password-file" in arguments
    secret = on_head("sh", "-c", "cat /tmp/hpcspawner-*/program/secret")
    assert len(secret) > 30
    assert secret not in arguments


async def test_a_terminal_on_a_socket_is_its_user_s_alone(hub, lab):
    hub.spawn("alice", asked("terminal"), timeout_s=60)
    found = await typed(hub, "alice", "id -un; pwd; env | grep -c JUPYTERHUB_; echo done", r"alice\r\n(\S+)\r\n(\d+)")
    assert found.groups() == ("/home/alice", "0")
    hers, bobs = token_of(hub, "alice"), token_of(hub, "bob")
    assert [await opens(hub, "/user/alice/ws", headers) for headers in (hers, bobs, {})] == ["open", 403, 403]
    (where,) = on_head("sh", "-c", "ls -t /tmp/hpcspawner-*/alone/program.sock | head -n 1").split()
    connect = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({where!r}); print('in')"
    on_n1 = [str(lab / "n1"), "runuser", "-u"]
    assert on_head(*on_n1, "alice", "--", "python3", "-c", connect) == "in\n", "the control finds nothing"
    assert on_head(*on_n1, "bob", "--", "python3", "-c", connect, check=False) == ""
    ended(hub, "alice")
    assert on_head("ls", "-d", where, check=False) == "", "the folder is left on the node"


async def test_a_program_runs_in_an_image(hub):
    hub.spawn("alice", asked("by-image", environment="image"), timeout_s=60)
    found = await typed(hub, "alice", "ls -d /opt/*; cat /etc/debian_version; pwd", r"(12\.\d+)\r\n(\S+)")
    assert found[2] == "/home/alice"
    ended(hub, "alice")


def test_an_idle_program_ends_itself_and_a_poll_is_no_use(hub):
    hub.spawn("alice", asked("tensorboard", idle_limit="10s"))
    session = hub.log_in("alice")
    session.get(f"{hub.url}/user/alice/", timeout=60)

    def is_gone():
        if hub.servers("alice"):
            session.get(f"{hub.url}/user/alice/data/environment", timeout=60)
        return hub.servers("alice") == {}

    within(90, is_gone, "the server did not end")
    queue_is_empty_within(40, "alice")
    assert "The server was idle for 10s and shut down" in hub.log()


def test_a_program_that_knows_no_address_is_below_the_server_s(hub):
    hub.spawn("alice", asked("listing"))
    session = hub.log_in("alice")
    page = session.get(f"{hub.url}/user/alice/", timeout=60)
    assert page.url == f"{hub.url}/user/alice/.hpcspawner/"
    assert "Directory listing for /.hpcspawner/" in page.text
    moved = session.get(f"{hub.url}/user/alice/.hpcspawner", allow_redirects=False, timeout=60)
    assert moved.headers["Location"] == "/user/alice/.hpcspawner/"
    ended(hub, "alice")


def test_events_arrive_one_at_a_time_and_a_reader_that_leaves_is_missed(hub):
    hub.spawn("alice", asked("events"))
    session, url = hub.log_in("alice"), f"{hub.url}/user/alice"
    assert session.get(f"{url}/", timeout=60).text == "0 left"
    session.headers.update({"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin", "Referer": f"{url}/"})
    # As a browser's EventSource asks, and as others do.
    for number, accept in enumerate(["text/event-stream", "application/json, text/event-stream"], start=1):
        reads_events(session, url, accept)
        within(60, lambda number=number: is_missed(session, url, number), "the program sends on to nobody")
    theirs = {one.name: one.path for one in session.cookies if one.value in ("seen", "x")}
    assert theirs == {"plain": "/user/alice/", "event-stream": "/user/alice/"}
    ended(hub, "alice")


def reads_events(session, url, accept):
    with session.get(f"{url}/stream", headers={"Accept": accept}, stream=True, timeout=60) as stream:
        assert stream.headers["Content-Type"] == "text/event-stream"
        lines = stream.iter_lines(chunk_size=1)
        for _ in range(5):
            assert (next(lines), next(lines)) == (b"data: " + accept.encode(), b"")
            assert session.post(f"{url}/arrived", timeout=60).status_code == 200


def is_missed(session, url, number):
    """Whether the program has noticed so many readers' leaving, as it does with the next event."""
    session.post(f"{url}/arrived", timeout=60)
    return session.get(f"{url}/", timeout=60).text == f"{number} left"


def errors_of(page):
    """What the browser's console calls an error, from now on."""
    found = page.complaints
    page.on("console", lambda message: message.type == "error" and found.append(message.text))
    return found


def test_a_cell_of_marimo_runs_in_a_browser(hub, tmp_path):
    hub.spawn("alice", asked("marimo"))
    # Its page has a service worker, for which the browser wants a certificate that it trusts.
    with a_page(arguments=("--ignore-certificate-errors",)) as page:
        page.goto(f"{hub.url}/hub/login?next=/hub/home")
        enter(page, "alice")
        page.wait_for_url(re.compile("/hub/home"))
        errors = errors_of(page)
        page.goto(f"{hub.url}/user/alice/?file=__new__of-test")
        cell = page.locator(".cm-content").first
        cell.wait_for(timeout=60_000)
        cell.click()
        page.keyboard.type("6*7")
        page.keyboard.press("Control+Enter")
        page.locator(".output-area", has_text="42").first.wait_for(timeout=60_000)
        page.screenshot(path=tmp_path / "marimo.png")
        assert errors == []
    ended(hub, "alice")


@pytest.mark.parametrize(
    ("interface", "why"),
    [("missing", "rserver was not found in the environment"), ("deaf", "sh ended with exit code 3")],
)
def test_a_program_that_does_not_start_is_named_on_the_page(hub, interface, why):
    _, message, _ = start(hub, asked(interface))
    assert why in message.replace("&#39;", "'")
    queue_is_empty_within(40, "alice")
