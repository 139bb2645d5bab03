"""Notify me: a page in another tab tells by a notification, its title and its icon that the server is there."""

import re
import time

import pytest
from hub.conftest import PROFILE
from support.browser import a_page, log_in, press_start

# What a page has told survives the page that comes after it.
RECORD = """
class Recorded {
  constructor(title, options) {
    const told = JSON.parse(localStorage.getItem("told") ?? "[]");
    localStorage.setItem("told", JSON.stringify([...told, [title, options.body]]));
  }
  static permission = window.Notification.permission;
  static async requestPermission() {
    return (Recorded.permission = await real.requestPermission());
  }
}
const real = window.Notification;
window.Notification = Recorded;
"""
TOLD = "JSON.parse(localStorage.getItem('told') ?? '[]')"


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub(profile=PROFILE.replace("slots = 2", "slots = 1")) as running:
        yield running


def until(wanted, what):
    deadline = time.monotonic() + 90
    while not wanted():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def waiting_page(page, hub):
    """Alice's server waits for the one slot, which is bob's."""
    page.add_init_script(RECORD)
    hub.spawn("bob", {"walltime": "10m"})
    log_in(page, hub, "alice")
    page.goto(f"{hub.url}/hub/spawn")
    press_start(page)
    page.locator("#hpc-notify").wait_for()
    until(lambda: page.title().startswith("Waiting"), "the title does not say that it waits")


def icon(page):
    return page.evaluate("document.querySelector('link[rel=icon]').href").rpartition("/")[2]


def test_one_who_allowed_it_is_notified_when_the_server_is_ready(hub):
    with a_page() as page:
        page.context.grant_permissions(["notifications"], origin=hub.url)
        waiting_page(page, hub)
        assert icon(page) == "icon-waiting.svg"
        assert page.evaluate("fetch(document.querySelector('link[rel=icon]').href).then((got) => got.status)") == 200
        page.click("#hpc-notify")
        page.locator("#hpc-notify", has_text="You will be notified").wait_for()
        assert page.evaluate(TOLD) == []
        hub.stop_server("bob")
        page.wait_for_url(re.compile("/user/alice/"), timeout=90_000)
        assert page.evaluate(TOLD) == [["JupyterHub", "Your server is ready."]]
        assert page.complaints == []


def test_one_who_did_not_ask_is_not(hub):
    with a_page() as page:
        page.context.grant_permissions(["notifications"], origin=hub.url)
        waiting_page(page, hub)
        hub.stop_server("bob")
        page.wait_for_url(re.compile("/user/alice/"), timeout=90_000)
        assert page.evaluate(TOLD) == []
