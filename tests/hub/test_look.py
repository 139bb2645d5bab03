"""The pages as researchers meet them: by card, by keyboard, without JavaScript; no violation by axe-core's word."""

import re

import pytest
from hub.conftest import PROFILE
from support.browser import a_page, fill, log_in, look_at, press_start, unfold

PRESETS = """
[[presets]]
name = "quick"
title = "Quick look"
help = "For reading and plotting."
options = { walltime = "5m", cpus = 1 }

[[presets]]
name = "without"
title = "Without Jupyter"
options = { environment = "without" }

[cost]
unit = "SU"
core_hour = 3
balance = ["echo", "{user} may use 40 SU"]
"""


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub(profile=PROFILE + PRESETS) as running:
        yield running


def test_the_form_and_the_page_of_a_failure(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        assert page.locator("[data-hpc-card]").count() == 2
        assert look_at(page, "cards") == []
        unfold(page)
        page.locator("#hpc-options details").evaluate_all("all => all.forEach(one => { one.open = true })")
        page.select_option("#hpc-partition", "long")
        page.get_by_role("button", name="4h of wall time").click()
        assert page.locator("#hpc-walltime").input_value() == "4h"
        page.select_option("#hpc-partition", "short")
        assert "at most 30m" in page.locator("#hpc-walltime-error").inner_text()
        assert page.locator("#hpc-gpus").is_disabled()
        assert look_at(page, "form-local") == []
        page.locator('[data-hpc-card="without"]').get_by_role("button", name="Start").click()
        page.wait_for_selector("#hpc-advice", timeout=180_000)
        assert "was not found in the environment" in page.locator("#hpc-last-end").inner_text()
        assert look_at(page, "failed") == []
        page.click("#hpc-again")
        page.wait_for_selector("#hpc-advice", timeout=180_000)
        page.click("#hpc-explained")
        page.wait_for_url(re.compile("/hub/hpcspawner/help#not-started$"))
        assert "The job ran, and the server in it did not start." in page.locator("#not-started + p").inner_text()
        assert look_at(page, "help") == []
        page.goto(f"{hub.url}/hub/spawn")
        page.click("#hpc-history summary")
        assert page.locator("#hpc-history tbody tr").count() == 2
        newest = page.locator("#hpc-history tbody tr").first
        assert "was not found in the environment" in newest.inner_text()
        assert re.fullmatch(r"(\d+[dhms] ?)+|did not run", newest.locator("td").nth(1).inner_text())
        assert look_at(page, "history") == []
        last = page.locator("[data-hpc-card]").first
        assert last.get_attribute("data-hpc-card") == "last"
        assert "Python without Jupyter" in last.inner_text()
        last.get_by_role("link", name="Change").click()
        assert page.locator("#hpc-environment").input_value() == "without"
        assert page.locator("#hpc-more").get_attribute("open") is not None
        assert page.complaints == []


def test_the_waiting_page_cancels_and_changes(hub):
    for user in ("bob", "carol"):
        hub.api("POST", f"/users/{user}")
        hub.spawn(user, {"walltime": "10m"})
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, walltime="7m")
        press_start(page)
        page.wait_for_selector('#hpc-steps [data-hpc-key="waiting"][aria-current="step"]')
        # The page says it by its script. (Playwright's own wait is a script that the page's policy refuses.)
        while page.title() != "Waiting · JupyterHub":
            page.wait_for_timeout(100)
        assert re.fullmatch(r"\d\d?:\d\d.*", page.locator('[data-hpc="since"]').inner_text())
        assert look_at(page, "waiting") == []
        page.click("#hpc-change")
        page.wait_for_url(re.compile("/hub/spawn$"), timeout=60_000)
        unfold(page)
        assert page.locator("#hpc-walltime").input_value() == "7m"
        assert page.complaints == []
    assert hub.servers("alice") == {}
    with a_page(javascript=False) as page:
        log_in(page, hub, "alice")
        for address in ("spawn", "spawn/alice/second"):
            page.goto(f"{hub.url}/hub/{address}")
            assert ("second" in page.locator("h1").inner_text()) is address.endswith("second")
            page.locator('[data-hpc-card="quick"]').get_by_role("button", name="Start").click()
            page.wait_for_url(re.compile("/hub/spawn-pending/alice"))
            page.locator('[data-hpc="id"]:not(:empty)').wait_for(timeout=30_000)
            assert "limit of running servers" in page.locator("#progress-message").inner_text()
            page.click("#hpc-cancel")
            page.wait_for_url(re.compile("/hub/home"), timeout=60_000)
    assert hub.servers("alice") == {}


def test_a_server_is_started_by_keyboard_alone(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('[data-hpc-card=quick]')?.tagName"):
                break
        assert page.evaluate("document.activeElement.value") == "quick"
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/user/alice/lab"), timeout=60_000)
        assert page.complaints == []


def test_what_it_costs_is_said_on_cards_and_when_asked(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        assert "at most 0.25 SU" in page.locator('[data-hpc-card="quick"]').inner_text()
        fill(page, partition="short", walltime="20m", cpus="2")
        page.click("#hpc-cost")
        page.locator("#hpc-answer", has_text="It costs 2 SU at most, if it runs for all of 20m.").wait_for()
        assert re.search(r"may use 40 SU \(as of \d\d:\d\d\)", page.locator("#hpc-answer").inner_text())
        page.fill("#hpc-walltime", "2 weeks")
        page.click("#hpc-cost")
        page.locator("#hpc-answer", has_text="Wall time").wait_for()
        assert page.complaints == []
    assert hub.servers("alice") == {}


def test_the_job_script_is_shown_and_nothing_is_submitted(hub):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, partition="short", walltime="7m")
        with page.context.expect_page() as opened:
            page.click("#hpc-script")
        script = opened.value
        text = script.locator("#hpc-job-script").inner_text()
        assert text.startswith("#!/bin/bash")
        assert "A-TICKET-STANDS-HERE" in text
        assert "(the launcher stands here)" in text
        assert "--walltime=420" in script.locator("#hpc-command").inner_text()
        assert script.locator("#hpc-costs").inner_text().startswith("It costs 0.35 SU at most")
        assert look_at(script, "job-script") == []
        assert page.locator("#hpc-start").inner_text() == "Start"
        assert page.locator("#hpc-start").is_enabled()
        assert page.complaints == []
    assert hub.servers("alice") == {}


def test_the_job_script_needs_no_script_and_says_why_a_request_is_refused(hub):
    with a_page(javascript=False) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        page.locator("#hpc-more summary").first.click()
        page.fill("#hpc-walltime", "7 weeks")
        with page.context.expect_page() as opened:
            page.click("#hpc-script")
        assert "wall time" in opened.value.locator("#hpc-refused").inner_text().lower()
    assert hub.servers("alice") == {}


def test_enter_in_a_field_sends_the_fields_and_not_the_first_card(hub):
    with a_page(javascript=False) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        page.locator("#hpc-more summary").first.click()
        page.fill("#hpc-cpus", "99")
        page.press("#hpc-cpus", "Enter")
        page.locator("#hpc-cpus-error").wait_for()
        assert page.locator("#hpc-cpus").input_value() == "99"
    assert hub.servers("alice") == {}
