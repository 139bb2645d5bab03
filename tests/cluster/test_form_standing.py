"""Accounts, QOS and reservations of a user, on the real cluster: the form offers them and the Hub judges by them."""

import re
import time

import pytest
from cluster.conftest import reserved, shown
from support.browser import a_page, log_in, look_at, press_start, unfold
from support.faults import within
from support.hub import server_path

SITE = 'reservation = "optional"\naccounts = ["ddp363", "tro100"]\ntitle = "Test cluster"'


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub("slurm", change=('title = "Test cluster"', SITE)) as running:
        yield running


def form_until(session, hub, wanted):
    """The form's page, once it has a text; the Hub asks the scheduler once a minute."""
    deadline = time.monotonic() + 120
    while True:
        page = session.get(f"{hub.url}/hub/spawn", timeout=10).text
        if wanted in page:
            return page
        assert time.monotonic() < deadline, f"{wanted!r} is not on the page: {page[-4000:]} {hub.log()[-2000:]}"
        time.sleep(1)


def field(page, name):
    return re.search(rf'<select[^>]* name="{name}".*?</select>', page, re.DOTALL)[0]


def test_only_the_users_own_accounts_can_be_chosen(hub):
    of_bob = form_until(hub.log_in("bob"), hub, "Your accounts")
    assert "disabled" in re.search(r'<option value="ddp363".*', field(of_bob, "account"))[0]
    assert "my default (tro100)" in field(of_bob, "account")
    assert "disabled" not in field(form_until(hub.log_in("alice"), hub, "Your accounts"), "account")
    refused = hub.api("POST", server_path("bob"), json={"account": "ddp363"})
    assert refused.status_code == 400
    assert "you are not a member of it. Choose one of: tro100" in refused.json()["message"]


def test_a_reservation_that_only_one_user_may_use(hub):
    with reserved("course", Users="alice", Nodes="n2"), a_page() as page:
        form_until(hub.log_in("alice"), hub, "course: n2, until")
        of_bob = form_until(hub.log_in("bob"), hub, "Your accounts as of")
        assert "course" not in of_bob
        # Refused in the form, which typed it in, and over REST, with the words for one that is not there.
        log_in(page, hub, "bob")
        page.goto(f"{hub.url}/hub/spawn")
        unfold(page)
        page.fill("#hpc-reservation", "course")
        page.click("#hpc-start")
        error = page.locator("#hpc-reservation-error")
        assert "there is none of this name that you may use" in error.inner_text()
        refused = hub.api("POST", server_path("bob"), json={"reservation": "course"})
        assert (refused.status_code, "course" in refused.json()["message"]) == (400, True)
        page.context.clear_cookies()
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        unfold(page)
        page.select_option("#hpc-reservation", "course")
        page.click("#hpc-when")
        page.locator("#hpc-answer", has_text="It could start now").wait_for()
        assert look_at(page, "form-reservation") == []
        press_start(page)
        page.wait_for_selector('[data-hpc="id"]:not(:empty)', state="attached")
        job_id = page.locator('[data-hpc="id"]').text_content().strip()
        within(60, lambda: shown(job_id)["JobState"] == "RUNNING", "the job in the reservation does not run")
        assert (shown(job_id)["Reservation"], shown(job_id)["NodeList"]) == ("course", "n2")
        assert page.complaints == []
        hub.stop_server("alice")
