"""A real browser: Debian's Chromium, driven by Playwright."""

import contextlib
import os
import re
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from support.hub import PASSWORD

_CHROMIUM = "/usr/bin/chromium"
# As root there is no sandbox; the rest keeps the browser from calling home.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]


@contextlib.contextmanager
def a_page(javascript=True, arguments=(), language="en-US"):
    """A fresh browser's page; the errors of its console are collected in `page.complaints`."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_ARGUMENTS, *arguments])
        context = browser.new_context(
            ignore_https_errors=True,
            java_script_enabled=javascript,
            viewport={"width": 1100, "height": 900},
            locale=language,
        )
        page = context.new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        try:
            yield page
        finally:
            browser.close()


def log_in(page, hub, user):
    """Through the Hub's own login page."""
    page.goto(f"{hub.url}/hub/login")
    enter(page, user)
    page.wait_for_url(re.compile(r"/hub/(spawn|home)"))


def enter(page, user):
    """Fill in the Hub's login page, wherever it leads."""
    page.fill("input[name=username]", user)
    page.fill("input[name=password]", PASSWORD)
    page.click("#login_submit, input[type=submit], button[type=submit]")


def fill(page, **choices):
    """Fill the form; a value that is listed is selected, any other is typed."""
    unfold(page)
    for name, value in choices.items():
        field = page.locator(f"#hpc-{name}")
        if field.evaluate("element => element.tagName") == "SELECT":
            field.select_option(value)
        else:
            field.fill(value)


def unfold(page):
    """Show the fields, where cards stand above them."""
    page.locator("#hpc-start").wait_for(state="attached")
    page.evaluate("document.querySelectorAll('#hpc-more').forEach(details => { details.open = true })")


def press_start(page):
    """Start with the fields as they are."""
    unfold(page)
    page.click("#hpc-start")


LISTENS = """selector => {
    const events = element => (element && window.jQuery && jQuery._data(element, "events")) || {};
    const element = document.querySelector(selector);
    return "click" in events(element) || "submit" in events(element && element.form);
}"""


def press(page, selector):
    """Press a button of JupyterHub's own pages once its script listens to it; the pages are there before that."""
    page.locator(selector).wait_for()
    deadline = time.monotonic() + 60
    while not page.evaluate(LISTENS, selector):
        assert time.monotonic() < deadline, f"no script listens to {selector}"
        time.sleep(0.05)
    page.click(selector)


def run_cell(page, code):
    """Open a notebook from JupyterLab's launcher, run one cell in it, return what it printed."""
    # What an earlier test left open would come up in place of the launcher.
    page.goto(page.url.partition("?")[0] + "?reset")
    page.locator(".jp-LauncherCard", has_text="Python 3").first.click(timeout=60_000)
    cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first
    cell.wait_for(timeout=60_000)
    # The status bar knows when the kernel is connected; the notebook's own mark says "idle" before that.
    page.locator(".jp-StatusBar-TextItem", has_text="| Idle").wait_for(timeout=60_000)
    cell.click()
    page.keyboard.type(code)
    # By the button: the completer takes keys while its list is open.
    page.locator('[data-command="notebook:run-cell-and-select-next"], [data-jp-item-name="run"] button').first.click()
    output = page.locator(".jp-OutputArea-output pre").first
    output.wait_for(timeout=60_000)
    return output.inner_text().strip()


AXE = Path(__file__).parents[2] / "build" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
"""The accessibility checker, installed beside the proxy (requirements/proxy-npm)."""


def violations(page):
    """What axe-core finds wrong with the page as it is now: a rule and the elements that break it, one line each."""
    assert AXE.exists(), f"{AXE} is missing; `make test` installs what the tests need"
    # Not by a script tag, which the page's policy would refuse.
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


ANIMATIONS_END = """() => Promise.race([
    Promise.allSettled(document.getAnimations().map(one => one.finished)),
    new Promise(done => setTimeout(done, 3000)),
])"""

LOOKS = [("light", 1100), ("dark", 1100), ("light", 390), ("dark", 390)]
"""Colour scheme and width of each look at a page."""


def look_at(page, name):
    """Every violation on the page in light and dark, on a screen and a phone, and what is wider than the page.

    With HPC_SCREENSHOTS the folder gets a picture of the first two.
    """
    wrong, height = [], page.viewport_size["height"]
    for scheme, width in LOOKS:
        page.emulate_media(color_scheme=scheme)
        page.evaluate("scheme => document.documentElement.setAttribute('data-bs-theme', scheme)", scheme)
        page.set_viewport_size({"width": width, "height": height})
        # Until colours that change slowly are there; what is never at an end, such as a spinner, is not waited for.
        page.evaluate(ANIMATIONS_END)
        here = f"{name}, {scheme}, {width} px wide"
        wrong += [f"{here}: {one}" for one in violations(page)]
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            wrong.append(f"{here}: wider than the page")
        if (folder := os.environ.get("HPC_SCREENSHOTS")) and width > 1000:
            suffix = "" if scheme == "light" else "-dark"
            page.screenshot(path=Path(folder) / f"{name}{suffix}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size({"width": 1100, "height": height})
    return wrong
