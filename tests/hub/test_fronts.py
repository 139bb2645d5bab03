"""The examples for HTTPS: the Hub's own proxy, nginx, Apache, Traefik, and a host name for each user.

The fronts run on unprivileged ports of the loopback network, with the examples' own files; a visitor is known by the
loopback address that it comes from.
"""

import base64
import contextlib
import json
import re
import secrets
import socket
import ssl
import threading
import time
from http.client import HTTPConnection, HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
from hub.conftest import PROFILE
from support.browser import a_page, enter, fill, log_in, press_start, run_cell
from support.fronts import ExampleHub, front_server
from support.hub import PASSWORD
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.websocket import websocket_connect

FRONTS = {"own-certificate": None, "behind-nginx": "nginx", "behind-apache": "apache2", "behind-traefik": "traefik"}
VISITOR = "127.0.0.2"
HSTS = ["max-age=63072000"]
# What a visitor may claim about itself; the address is one of those kept for documentation.
CLAIMS = {
    "X-Forwarded-For": "203.0.113.9",
    "X-Real-IP": "203.0.113.9",
    "X-Forwarded-Proto": "http",
    "X-Forwarded-Host": "203.0.113.9",
    "X-Scheme": "http",
    "Forwarded": "for=203.0.113.9;proto=http",
}


class Echo(BaseHTTPRequestHandler):
    """Answers with the address and the headers that it was sent, and would have browsers come by plain HTTP again."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Strict-Transport-Security", "max-age=0")
        self.end_headers()
        self.wfile.write(json.dumps({"address": self.path, **self.headers}).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def profile(jupyter_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("work")
    return PROFILE.replace("@JUPYTER@", str(jupyter_folder)).replace("@FOLDER@", str(folder))


@pytest.fixture(scope="module")
def echo():
    """Where a server listens that answers with what it was sent."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module", params=FRONTS)
def hub(request, profile, echo, tmp_path_factory):
    """The example's Hub behind its front; beside it a route to the echo, and one to where nobody listens."""
    folder = tmp_path_factory.mktemp(request.param)
    routes = f"c.Proxy.extra_routes = {{'/echo/': '{echo}', '/nobody/': 'http://127.0.0.1:1'}}"
    hub = ExampleHub(request.param, folder, profile, extra=routes)
    server = FRONTS[request.param]
    with front_server(server, hub) if server else contextlib.nullcontext(), hub:
        hub.spawn("alice", {"walltime": "10m", "directory": str(folder)})
        yield hub


def trust(hub):
    return ssl.create_default_context(cafile=str(hub.folder / "ca.pem"))


def ask(hub, path, **headers):
    """One request of the visitor."""
    connection = HTTPSConnection("127.0.0.1", hub.port, context=trust(hub), source_address=(VISITOR, 0), timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"Host": f"{hub.domain}:{hub.port}", **headers})
        answer = connection.getresponse()
        answer.text = answer.read().decode()
        return answer


def address_seen_by(hub, **headers):
    """From where, says the Hub's log, the visitor came with these headers."""
    mark = secrets.token_hex(8)
    ask(hub, f"/hub/{mark}", **headers)
    # The Hub writes it down after it has answered.
    deadline = time.monotonic() + 30
    while True:
        found = re.search(rf"GET /hub/{mark} \(@(\S+)\)", hub.log())
        if found:
            return found[1]
        assert time.monotonic() < deadline, hub.log()
        time.sleep(0.1)


def test_an_address_arrives_as_it_was_sent(hub):
    address = "/echo/a%2Fb/%5Bc%5D%20d%25?e=%2Ff%26"
    assert json.loads(ask(hub, address).text)["address"] == address


def test_every_answer_keeps_browsers_on_https(hub):
    token = {"Authorization": f"token {hub.token}"}
    found = {}
    for path in ["/", "/hub/login", "/hub/nothing", "/hub/api/users", "/nobody/", "/echo/", "/user/alice/api/status"]:
        answer = ask(hub, path, **(token if path.startswith("/user") else {}))
        assert answer.headers.get_all("Strict-Transport-Security") == HSTS, path
        found[path] = answer.status
    assert list(found.values()) == [302, 200, 404, 403, 503, 200, 200], found


def test_plain_http_is_sent_to_https(hub):
    connection = HTTPConnection("127.0.0.1", hub.plain_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/hub/login?next=%2Fhub%2Fhome", headers={"Host": hub.domain})
        answer = connection.getresponse()
    assert answer.status == 301
    assert answer.headers["Location"] == f"{hub.url}/hub/login?next=%2Fhub%2Fhome"


@pytest.mark.parametrize(
    ("version", "spoken"),
    [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True)],
    ids=["1.1", "1.2", "1.3"],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(hub, version, spoken):
    context = trust(hub)
    # By default this client would not speak the old versions either.
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection(("127.0.0.1", hub.port), timeout=30) as plain:
        if spoken:
            with context.wrap_socket(plain, server_hostname=hub.domain) as wrapped:
                assert wrapped.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        else:
            with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
                context.wrap_socket(plain, server_hostname=hub.domain)


def test_the_hub_knows_where_a_visitor_comes_from(hub):
    assert address_seen_by(hub) == VISITOR


def test_what_a_visitor_claims_about_itself_is_not_believed(hub):
    assert address_seen_by(hub, **CLAIMS) == VISITOR
    passed_on = ask(hub, "/echo/", **CLAIMS).text
    assert "203.0.113.9" not in passed_on
    headers = {name.lower(): value for name, value in json.loads(passed_on).items()}
    # A proxy that listens for IPv6 too writes addresses in its way.
    assert headers["x-forwarded-for"].split(",")[0].removeprefix("::ffff:") == headers["x-real-ip"] == VISITOR
    assert headers["x-forwarded-proto"].split(",")[0] == headers.get("x-scheme", "https") == "https"


@pytest.fixture(scope="module")
def visit(hub):
    """A browser's session, logged in at the Hub and at alice's server, and the answers on the way there."""
    with requests.Session() as session:
        session.verify = str(hub.folder / "ca.pem")
        session.trust_env = False  # where a variable names other authorities
        page = session.get(f"{hub.url}/hub/login")
        form = {"username": "alice", "password": PASSWORD, "_xsrf": session.cookies["_xsrf"]}
        entered = session.post(f"{hub.url}/hub/login?next=%2Fhub%2Fhome", data=form)
        server = session.get(f"{hub.url}/user/alice/lab")
        assert (entered.url, server.url) == (f"{hub.url}/hub/home", f"{hub.url}/user/alice/lab")
        yield session, [page, *entered.history, entered, *server.history, server]


def test_what_lets_a_visitor_in_is_for_https_alone(visit):
    cookies = [cookie for answer in visit[1] for cookie in answer.raw.headers.getlist("Set-Cookie")]
    # The mark against forged forms lets nobody in; it is for every connection, and so is the removal of a cookie.
    cookies = [cookie for cookie in cookies if not cookie.startswith("_xsrf=") and '=""' not in cookie]
    assert {"jupyterhub-hub-login", "jupyterhub-user-alice"} <= {cookie.split("=")[0] for cookie in cookies}
    assert [cookie for cookie in cookies if not re.search(r";\s*secure\b", cookie, re.IGNORECASE)] == []


async def test_a_page_s_websocket_is_taken_for_the_server_s_own(hub, visit):
    """The server compares where the page is from with the host that it was asked for."""
    (mark,) = (cookie.value for cookie in visit[0].cookies if (cookie.name, cookie.path) == ("_xsrf", "/user/alice/"))
    wanted = requests.Request("GET", f"{hub.url}/user/alice/api/events/subscribe", params={"_xsrf": mark})
    prepared = visit[0].prepare_request(wanted)

    async def opened_from(origin):
        headers = {"Cookie": prepared.headers["Cookie"], "Origin": origin}
        url = prepared.url.replace("https", "wss", 1)
        return await websocket_connect(HTTPRequest(url, headers=headers, ssl_options=trust(hub)))

    (await opened_from(hub.url)).close()
    with pytest.raises(HTTPClientError, match="403"):
        await opened_from("https://www.example.org")


async def test_a_kernel_runs_a_cell_through_the_front(hub):
    assert await hub.run("alice", "print(6 * 7)") == "42"


def test_a_large_file_comes_in(hub):
    size = 8 << 20
    content = {"type": "file", "format": "base64", "content": base64.b64encode(bytes(size)).decode()}
    kept = requests.put(
        f"{hub.url}/user/alice/api/contents/large",
        json=content,
        headers={"Authorization": f"token {hub.token}"},
        verify=hub.folder / "ca.pem",
        timeout=60,
    )
    assert kept.status_code == 201, kept.text
    assert (hub.folder / "large").stat().st_size == size


# ---- A part of the site's address


def test_a_hub_may_have_a_part_of_an_address(profile, tmp_path):
    """All else there is the site's: nothing that the Hub, its jobs or a browser ask for lies outside."""
    hub = ExampleHub("behind-nginx", tmp_path, profile, base_url="/panel/jhub/")
    with front_server("nginx", hub), hub:
        with a_page() as page:
            asked = []
            page.on("request", lambda request: asked.append(request.url))
            log_in(page, hub, "alice")
            page.goto(f"{hub.url}/hub/spawn")
            fill(page, partition="short", walltime="10m", directory=str(tmp_path))
            press_start(page)
            page.wait_for_url(f"{hub.url}/user/alice/lab", timeout=60_000)
            assert run_cell(page, "print(6 * 7)") == "42"
        outside = [url for url in asked if url.startswith("http") and not url.startswith(hub.url)]
        assert outside == []
        hub.stop_server("alice")
        assert "has ended" in hub.log()
        assert ask(hub, "/hub/login").status == 404


# ---- A host name for each user

DOMAIN = "hub.test"
# What a script gets, with this browser's cookies and the page's own mark against forged requests.
FETCH = """url => fetch(url + "?" + document.cookie.match(/_xsrf=[^;]*/), {credentials: "include"})
    .then(answer => answer.text(), error => `refused: ${error}`)"""


@pytest.fixture
def found_here(monkeypatch):
    """This process finds the names of the test's domain on this machine, as the site's DNS would have it."""
    ask_system = socket.getaddrinfo

    def look_up(host, *arguments, **words):
        here = host == DOMAIN or str(host).endswith(f".{DOMAIN}")
        return ask_system("127.0.0.1" if here else host, *arguments, **words)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


@pytest.mark.both_hubs
def test_each_user_s_notebooks_have_a_host_of_their_own(found_here, profile, tmp_path):
    # A colleague who may use bob's server: her browser is logged in at all three hosts.
    role = {"name": "help", "users": ["alice"], "scopes": ["access:servers!user=bob"]}
    rules = f"--host-resolver-rules=MAP {DOMAIN} 127.0.0.1, MAP *.{DOMAIN} 127.0.0.1"
    with ExampleHub(
        "subdomains", tmp_path, profile, domain=DOMAIN, extra=f"c.JupyterHub.load_roles.append({role})"
    ) as hub:
        alices, bobs = (f"https://{user}.{DOMAIN}:{hub.port}/user/{user}" for user in ("alice", "bob"))
        hub.api("POST", "/users/bob/server", json={"walltime": "10m", "directory": str(tmp_path)})
        with a_page(arguments=[rules]) as page:
            log_in(page, hub, "alice")
            page.goto(f"{hub.url}/hub/spawn")
            fill(page, partition="short", walltime="10m", directory=str(tmp_path))
            press_start(page)
            page.wait_for_url(f"{alices}/lab", timeout=60_000)
            assert run_cell(page, "print(6 * 7)") == "42"
            a_link_leads_there_through_the_login(page, alices)
            scripts_stay_where_they_are(page, hub, alices, bobs)
            cookies_stay_where_they_are(page, hub, alices)


def a_link_leads_there_through_the_login(page, alices):
    page.context.clear_cookies()
    page.goto(f"{alices}/tree")
    enter(page, "alice")
    page.wait_for_url(f"{alices}/tree", timeout=30_000)


def scripts_stay_where_they_are(page, hub, alices, bobs):
    home, status = f"{hub.url}/hub/home", f"{alices}/api/status"
    assert '"kernels"' in page.evaluate(FETCH, status), "alice's own page may"
    assert "refused" in page.evaluate(FETCH, home)
    hub.wait_ready("bob")
    page.goto(f"{bobs}/tree")
    # It is somebody else's server: JupyterHub asks first.
    page.click("input[type=submit], button[type=submit]")
    page.wait_for_url(f"{bobs}/tree", timeout=30_000)
    assert '"kernels"' in page.evaluate(FETCH, f"{bobs}/api/status"), "bob's page may ask bob's server"
    assert "refused" in page.evaluate(FETCH, status)
    assert "refused" in page.evaluate(FETCH, home)
    page.goto(home)
    assert "alice" in page.evaluate(FETCH, home), "the Hub's page may"


def cookies_stay_where_they_are(page, hub, alices):
    hosts = {cookie["name"]: cookie["domain"] for cookie in page.context.cookies()}
    assert hosts["__Host-jupyterhub-hub-login"] == DOMAIN
    assert hosts["__Host-jupyterhub-user-alice"] == f"alice.{DOMAIN}"
    page.goto(f"{alices}/tree")
    for name, path in (("jupyterhub-hub-login", "/hub/"), ("__Host-jupyterhub-hub-login", "/")):
        page.evaluate("cookie => document.cookie = cookie", f"{name}=forged; domain={DOMAIN}; path={path}; secure")
    page.goto(f"{hub.url}/hub/home")
    assert page.url == f"{hub.url}/hub/home", "the Hub took a cookie that a notebook's page had set"
