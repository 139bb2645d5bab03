"""Form, link, REST and stored options lead through one gate; a refusal leaves nothing behind."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import jupyterhub
import pytest
import requests
from support.browser import a_page, fill, log_in, press_start
from support.hub import PASSWORD, server_path

pytestmark = pytest.mark.both_hubs


def no_job(hub):
    jobs = list((hub.folder / "spool").glob("*.sh"))
    assert jobs == []


def rows(hub, user):
    """What a refused start must not leave: an active server and its token."""
    tokens = hub.api("GET", f"/users/{user}/tokens").json()["api_tokens"]
    return hub.servers(user), [token for token in tokens if token["note"].startswith("Server at")]


@pytest.mark.parametrize(
    ("choices", "field", "words"),
    [
        pytest.param({"walltime": "31m"}, "walltime", "at most 30m", id="over the limit"),
        pytest.param({"directory": "/a/../b"}, "directory", "absolute path", id="directory that goes up"),
    ],
)
def test_a_refused_form_comes_back_with_the_value_and_a_mark(hub, choices, field, words):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, memory="1G", **choices)
        with page.expect_response(lambda answer: answer.request.method == "POST") as answer:
            press_start(page)
        assert answer.value.status == 400
        assert page.locator(f"#hpc-{field}").input_value() == choices[field]
        assert page.locator("#hpc-memory").input_value() == "1G"
        assert words in page.locator(f"#hpc-{field}-error").inner_text()
        assert "is-invalid" in page.locator(f"#hpc-{field}").get_attribute("class")
        assert page.complaints == []
    no_job(hub)
    assert rows(hub, "alice") == ({}, [])


def form_post(hub, user, fields):
    """Post the form as a browser without our page's help would."""
    session = requests.Session()
    session.trust_env = False  # an environment's own CA bundle would win over the Hub's
    session.verify = str(hub.folder / "ca.pem")
    page = session.get(f"{hub.url}/hub/login")
    xsrf = session.cookies.get("_xsrf", path="/hub/")
    data = {"username": user, "password": PASSWORD, "_xsrf": xsrf}
    assert session.post(f"{hub.url}/hub/login", data=data).ok, page.text
    form = session.get(f"{hub.url}/hub/spawn").text
    action = re.search(r'action="([^"]*)"', form)[1].replace("&amp;", "&")
    return session.post(f"{hub.url}{action}", data=fields, allow_redirects=False)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        pytest.param({"partition": "nowhere"}, "Choose one of: short, long", id="unknown partition"),
        pytest.param({"image": "/home/alice/own.sif"}, "Choose one of: torch", id="unlisted image"),
        pytest.param({"directory": "/a\nb"}, "line break", id="directory with a line break"),
        pytest.param({"partition": "<script>alert(1)</script>"}, "is not offered", id="markup"),
    ],
)
def test_what_no_browser_sends_is_refused_in_the_form(hub, fields, words):
    answer = form_post(hub, "alice", fields)
    assert answer.status_code == 400
    assert words in answer.text
    assert "<script>alert" not in answer.text
    no_job(hub)
    assert rows(hub, "alice") == ({}, [])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"walltime": "31m"}, "at most 30m", id="over the limit"),
        pytest.param({"partition": "nowhere"}, "Choose one of: short, long", id="unknown partition"),
        pytest.param({"image": "/home/alice/own.sif"}, "Choose one of: torch", id="unlisted image"),
        pytest.param({"directory": "/a\nb"}, "line break", id="directory with a line break"),
        pytest.param({"gpus": 1}, "With GPUs: long", id="gpus where there are none"),
        pytest.param({"req_options": "#SBATCH --uid=0"}, "There is no option", id="unknown option"),
        pytest.param({"cmd": ["sh"]}, "There is no option", id="option that is an attribute of spawners"),
    ],
)
def test_a_refused_rest_call_is_400_with_what_is_allowed(hub, options, words):
    answer = hub.api("POST", server_path("alice"), json=options)
    assert answer.status_code == 400
    assert words in answer.json()["message"]
    no_job(hub)
    assert rows(hub, "alice") == ({}, [])


def test_a_link_fills_the_form_and_starts_nothing(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn?partition=long&walltime=2h&directory=/tmp")
        assert page.locator("#hpc-partition").input_value() == "long"
        assert page.locator("#hpc-walltime").input_value() == "2h"
        assert "A link filled in this form" in page.locator(".alert-info").inner_text()
        assert page.locator(".spawn-error-msg").count() == 0
    assert "LinkFillsForm" not in hub.log(), "what is no error is not logged as one"
    no_job(hub)
    assert rows(hub, "alice") == ({}, [])


def test_text_of_the_profile_is_escaped_in_the_form(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        assert "Long <b>'runs'</b>" in page.locator("#hpc-partition").inner_text()


def test_the_form_is_complete_without_javascript(hub):
    with a_page(javascript=False) as page:
        log_in(page, hub, "bob")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, partition="long", walltime="1h", interface="lab")
        press_start(page)
        page.wait_for_url(re.compile(r"/hub/spawn-pending/|/user/bob/"))
    hub.wait_ready("bob")


def await_address(page, pattern, seconds=60):
    deadline = time.monotonic() + seconds
    while not re.search(pattern, page.url):
        assert time.monotonic() < deadline, page.url
        page.wait_for_timeout(100)


@pytest.mark.parametrize("javascript", [True, False], ids=["with JavaScript", "without"])
def test_start_pressed_twice_leads_to_the_one_server(hub, javascript):
    hub.api("POST", "/users/carol")
    with a_page(javascript=javascript) as page:
        log_in(page, hub, "carol")
        page.goto(f"{hub.url}/hub/spawn")
        page.dblclick("#spawn_form button[type=submit]")
        # The second press may break off the first one's way to the page, which a wait for one navigation reports.
        await_address(page, r"/hub/spawn-pending/|/user/carol/")
        assert page.complaints == []
    hub.wait_ready("carol")
    assert not re.search(r"400 POST /hub/spawn\S* \(carol@", hub.log())


def posted(hub, session):
    form = session.get(f"{hub.url}/hub/spawn", timeout=30)
    token = re.search(r"_xsrf=([^\"&]*)", form.text)[1]

    def post():
        address = f"{hub.url}/hub/spawn?_xsrf={token}"
        return session.post(address, files={"walltime": (None, "10m")}, allow_redirects=False, timeout=60)

    return post


def test_two_forms_at_once_start_one_server_and_both_lead_there(hub):
    session = hub.log_in("alice")
    post = posted(hub, session)
    before = len(list((hub.folder / "spool").glob("*.sh")))
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: post(), range(3)))
    assert [answer.status_code for answer in answers] == [302] * 3, str([answer.text for answer in answers])
    assert {answer.headers["Location"].partition("?")[0] for answer in answers} <= {
        "/hub/spawn-pending/alice",
        "/user/alice/",
    }
    hub.wait_ready("alice")
    # And one that comes late leads to the server.
    assert post().headers["Location"].startswith("/user/alice/")
    assert len(list((hub.folder / "spool").glob("*.sh"))) == before + 1


def test_the_button_says_that_it_works(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        # The browser stays where it is, so that the page can be looked at.
        page.evaluate("document.getElementById('spawn_form').addEventListener('submit', e => e.preventDefault())")
        press_start(page)
        button = page.locator("#spawn_form button[type=submit]")
        assert (button.inner_text(), button.is_disabled(), button.is_visible()) == ("Starting…", True, True)
        assert page.locator("#spawn_form").get_attribute("aria-busy") == "true"
        assert page.complaints == []
    no_job(hub)


def test_nobody_starts_anothers_server_by_pressing_twice(hub):
    hub.spawn("alice", {"walltime": "10m"})
    session = hub.log_in("bob")
    token = re.search(r"_xsrf=([^\"&]*)", session.get(f"{hub.url}/hub/spawn", timeout=30).text)[1]
    address = f"{hub.url}/hub/spawn/alice?_xsrf={token}"
    answer = session.post(address, files={"walltime": (None, "10m")}, allow_redirects=False, timeout=30)
    assert answer.status_code == 404


def test_no_options_mean_the_last_choice_and_an_empty_object_the_defaults(hub):
    hub.spawn("alice", {"walltime": "7m"})
    hub.stop_server("alice")
    hub.spawn("alice")
    assert newest_job(hub)["walltime"] == 420
    hub.stop_server("alice")
    hub.spawn("alice", {"user_options": {}} if jupyterhub.version_info[0] >= 6 else {})
    assert newest_job(hub)["walltime"] == 1800


def newest_job(hub):
    jobs = sorted((hub.folder / "spool").glob("[0-9]*.json"), key=lambda path: int(path.stem))
    return json.loads(jobs[-1].read_text())


def test_a_last_choice_that_no_longer_fits_gives_way_to_the_defaults(hub):
    site = hub.folder / "site.toml"
    profile = site.read_text()
    hub.spawn("alice", {"walltime": "29m"})
    hub.stop_server("alice")
    try:
        site.write_text(profile.replace('max_walltime = "30m"', 'max_walltime = "10m"') + DEFAULT_5M)
        hub.stop()
        hub.start()
        hub.spawn("alice")
        assert newest_job(hub)["walltime"] == 300
    finally:
        hub.stop_servers()
        site.write_text(profile)
        hub.stop()
        hub.start()


DEFAULT_5M = """
[defaults]
walltime = "5m"
"""
