"""Presets of users' own: saved, started, changed and deleted in the form, with a script and without."""

import re
import time

import pytest
from hub.conftest import PROFILE
from support.browser import a_page, fill, log_in, look_at, unfold
from support.hub import server_path

pytestmark = pytest.mark.both_hubs

PRESETS = """
[[presets]]
name = "quick"
title = "Quick look"
options = { partition = "short", walltime = "10m" }
"""
OPERATOR = """
c.JupyterHub.load_roles += [{"name": "operator", "users": ["operator"], "scopes": ["admin:servers", "list:users"]}]
"""


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub(profile=PROFILE + PRESETS, extra=OPERATOR) as running:
        yield running


@pytest.fixture(autouse=True)
def none_saved(hub):
    yield
    for user in ("alice", "bob"):
        session = hub.log_in(user)
        for name in cards(form(session, hub)):
            send(session, hub, _delete=name)


def form(session, hub, query=""):
    answer = session.get(f"{hub.url}/hub/spawn{query}", timeout=30)
    assert answer.status_code == 200
    return answer.text


def cards(page):
    return re.findall(r'data-hpc-own-card="([^"]*)"', page)


def send(session, hub, *, path="/hub/spawn", xsrf=None, **fields):
    """What a browser without JavaScript sends for a button of the form."""
    token = re.search(r'name="_xsrf" value="([^"]*)"', form(session, hub))[1] if xsrf is None else xsrf
    body = {"_xsrf": token, "_form": path, **fields}
    return session.post(f"{hub.url}/hub/hpcspawner/presets", data=body, timeout=30)


def test_saved_started_and_deleted_without_a_script(hub):
    with a_page(javascript=False) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        page.click("#hpc-more > summary")
        page.select_option("#hpc-partition", "short")
        page.fill("#hpc-walltime", "11m")
        page.click("#hpc-save > summary")
        page.fill("#hpc-preset-name", "  Mine & <b>yours</b> “1” ")
        page.click("#hpc-save-preset")
        # The form with it, and no server.
        assert "The form shows your preset “Mine & <b>yours</b> “1””" in page.locator(".alert-info").inner_text()
        assert page.input_value("#hpc-walltime") == "11m"
        card = page.locator("[data-hpc-own-card]")
        assert card.get_attribute("data-hpc-own-card") == "Mine & <b>yours</b> “1”"
        assert "short · 11m" in card.inner_text()
        assert hub.servers("alice") == {}
        page.goto(f"{hub.url}/hub/spawn")
        page.locator("[data-hpc-own-card]").get_by_role("button", name="Start").click()
        assert hub.wait_ready("alice")["user_options"]["walltime"] == "11m"
        hub.stop_server("alice")
        page.goto(f"{hub.url}/hub/spawn")
        page.locator("[data-hpc-own-card]").get_by_role("button", name="Delete").click()
        page.wait_for_url(re.compile("/hub/spawn"))
        assert page.locator("[data-hpc-own-card]").count() == 0
        assert hub.servers("alice") == {}


def test_enter_in_the_name_saves_and_the_same_name_replaces(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        for walltime in ("11m", "12m"):
            page.goto(f"{hub.url}/hub/spawn")
            fill(page, partition="short", walltime=walltime)
            page.click("#hpc-save > summary")
            page.fill("#hpc-preset-name", "Daily")
            page.press("#hpc-preset-name", "Enter")
            page.wait_for_url(re.compile("saved=Daily"))
        assert page.locator("[data-hpc-own-card]").count() == 1
        assert "12m" in page.locator("[data-hpc-own-card]").inner_text()
        assert hub.servers("alice") == {}
        unfold(page)
        assert look_at(page, "form-own-preset") == []
        assert page.complaints == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"_preset": ""}, "Write a name for the preset."),
        ({"_preset": "x" * 61}, "61 characters long; 60 are allowed"),
        ({"_preset": "two\nlines"}, "control character"),
        ({"_preset": "mine", "partition": "short", "walltime": "31m"}, "at most 30m is allowed here"),
    ],
)
def test_what_is_refused_is_not_saved_and_the_form_stays_filled_in(hub, fields, words):
    session = hub.log_in("alice")
    answer = send(session, hub, cpus="2", **fields)
    assert answer.status_code == 400
    assert "The preset was not saved." in answer.text
    assert words in answer.text
    assert re.search(r'name="cpus" value="2"', answer.text)
    # Its other buttons still start servers.
    assert re.search(r'action="/hub/spawn\?_xsrf=', answer.text)
    assert cards(form(session, hub)) == []


def test_twenty_are_the_most_and_one_of_the_same_name_may_still_be_replaced(hub):
    session = hub.log_in("alice")
    for number in range(20):
        assert send(session, hub, _preset=f"n{number}").status_code == 200
    refused = send(session, hub, _preset="n20")
    assert (refused.status_code, "You have 20 presets" in refused.text) == (400, True)
    assert send(session, hub, _preset="n7", walltime="13m").status_code == 200
    assert len(cards(form(session, hub))) == 20


def test_a_preset_is_its_user_s_alone_and_an_admin_acts_for_another(hub):
    alice, bob, admin = hub.log_in("alice"), hub.log_in("bob"), hub.log_in("operator")
    send(alice, hub, _preset="hers")
    assert cards(form(bob, hub)) == []
    # Neither seen nor deleted nor started by another.
    assert "no preset of yours" in form(bob, hub, "?saved=hers")
    send(bob, hub, _delete="hers")
    assert cards(form(alice, hub)) == ["hers"]
    assert send(bob, hub, path="/hub/spawn/alice", _preset="planted").status_code in (403, 404)
    assert hub.api("POST", server_path("bob"), json={"own_preset": "hers"}).status_code == 400
    send(admin, hub, path="/hub/spawn/alice", _preset="by admin")
    assert cards(form(alice, hub)) == ["by admin", "hers"]
    seen = admin.get(f"{hub.url}/hub/spawn/alice", timeout=30).text
    assert cards(seen) == ["by admin", "hers"]
    assert cards(form(admin, hub)) == []


def test_a_page_of_another_site_can_t_save(hub):
    session = hub.log_in("alice")
    assert send(session, hub, xsrf="wrong", _preset="planted").status_code == 403
    assert cards(form(session, hub)) == []


def test_over_rest_a_name_is_the_site_s_preset_first_and_then_the_user_s(hub):
    session = hub.log_in("alice")
    send(session, hub, _preset="quick", partition="short", walltime="14m")
    send(session, hub, _preset="mine", partition="short", walltime="15m")
    for options, walltime in (
        ({"preset": "quick"}, "10m"),
        ({"preset": "mine"}, "15m"),
        ({"own_preset": "quick"}, "14m"),
    ):
        hub.spawn("alice", options)
        hub.stop_server("alice")
        last = re.search(r'data-hpc-card="last".*?text-break">([^<]*)<', form(session, hub), re.DOTALL)[1]
        assert walltime in last, f"{options}: {last}"
    # One that there is not is refused, and does not stand in the way of the next start.
    assert hub.api("POST", server_path("alice"), json={"own_preset": "nope"}).status_code == 400
    hub.spawn("alice")


def test_presets_outlive_the_hub_are_judged_by_its_new_profile_and_go_with_their_user(make_hub):
    with make_hub(profile=PROFILE + PRESETS) as hub:
        session = hub.log_in("alice")
        send(session, hub, _preset="long one", partition="long", walltime="1d")
        send(hub.log_in("bob"), hub, _preset="his")
        hub.stop()
        site = hub.folder / "site.toml"
        site.write_text(site.read_text().replace('max_walltime = "2d"', 'max_walltime = "12h"'))
        hub.start()
        session = hub.log_in("alice")
        page = form(session, hub)
        card = page[page.index('data-hpc-own-card="long one"') :]
        assert "at most 12h is allowed here" in card
        assert re.search(r'name="own_preset"[^>]* disabled>', card)
        filled = form(session, hub, "?saved=long+one")
        assert re.search(r'is-invalid" type="text" id="hpc-walltime" name="walltime" value="1d"', filled)
        assert hub.api("DELETE", "/users/bob").status_code == 204
        assert hub.api("POST", "/users/bob").status_code == 201
        deadline = time.monotonic() + 30
        while cards(form(hub.log_in("bob"), hub)):
            assert time.monotonic() < deadline, "bob's presets are still there"
            time.sleep(0.2)


def test_set_up_lines_of_one_s_own_are_kept_filled_in_shown_and_run(make_hub):
    # As many as the site allows, each of a kind that takes the most bytes.
    lines = "export KEPT='\"\U0001f40d\"'\n\t# <b>&amp;\n"
    lines += "#" + "\U0001f40d" * (10_000 - len(lines) - 1)
    site = PROFILE.replace("[[partitions]]", "[own_setup]\nmax_chars = 10000\n\n[[partitions]]", 1)
    with make_hub(profile=site) as hub:
        session = hub.log_in("alice")
        # A form sends each line break as two characters.
        sent = send(session, hub, _preset="mine", partition="short", own_setup=lines.replace("\n", "\r\n"))
        assert sent.status_code == 200
        hub.stop()
        hub.start()
        with a_page(javascript=False) as page:
            log_in(page, hub, "alice")
            page.goto(f"{hub.url}/hub/spawn")
            page.locator("[data-hpc-own-card]").get_by_role("link", name="Change").click()
            assert page.input_value("#hpc-own_setup") == lines
            with page.context.expect_page() as opened:
                page.click("#hpc-script")
            assert "export KEPT=" in opened.value.locator("#hpc-job-script").inner_text()
        refused = send(session, hub, _preset="longer", partition="short", own_setup=lines + "x")
        assert (refused.status_code, "10001 characters long; 10000 are allowed" in refused.text) == (400, True)
        # A stranger's link fills in none of the user's preset but by its name.
        assert "export KEPT" not in form(session, hub, "?own_setup=export+KEPT")
        hub.api("POST", server_path("alice"), json={"own_preset": "mine"})
        assert hub.wait_ready("alice")["user_options"]["own_setup"] == lines
