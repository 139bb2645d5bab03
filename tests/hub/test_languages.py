"""The pages in German and Spanish, by axe-core's word in light and dark, on a screen and a phone; an English log."""

import re
import subprocess

import pytest
from hub.conftest import PROFILE
from support.browser import a_page, fill, log_in, look_at, press_start, unfold

from hpcspawner.programs import spool

PRESETS = """
[[presets]]
name = "quick"
title = "Quick look"
options = { walltime = "5m", cpus = 1 }

[[presets]]
name = "without"
title = "Without Jupyter"
options = { environment = "without" }

[cost]
unit = "SU"
core_hour = 3

[limits]
renewals = 2
"""
CONFIG = """
c.JupyterHub.load_roles += [
    {"name": "operator", "users": ["operator"], "scopes": ["admin-ui", "admin:servers", "access:servers"]}
]
"""
WORDS = {
    "de": {
        "start": "Starten",
        "at_most": "Laufzeit: Sie haben 4h angefordert; höchstens 30m ist hier erlaubt.",
        "no_gpus": "short hat keine GPUs.",
        "cpus": "CPUs: Sie haben 99 angefordert; hier erlaubt: 1 bis 2.",
        "walltime": "Laufzeit: keine Laufzeit: '7 weeks' (schreiben Sie '90m', '12h', '1d 12h' oder '1-12:00:00').",
        "cost": "Das kostet höchstens 1 SU, wenn der Job die ganze Laufzeit von 10m ausschöpft.",
        "failed": "Ihr Server ist nicht gestartet",
        "advice": "Was Sie tun können: Sehen Sie sich die letzten Zeilen des Logs an.",
        "waiting": "Wartet · JupyterHub",
        "reason": "Dieser Rechner hat seine Grenze laufender Server erreicht; Ihrer startet, wenn einer davon endet.",
        "stopped": "Ihr Server ist beendet",
        "ended": "Ihr letzter Server endete: ",
        "cancelled": "Der Job wurde abgebrochen.",
        "running": "in Ausführung",
        "script": "Der Befehl",
        "servers": "Server und Cluster",
    },
    "es": {
        "start": "Iniciar",
        "at_most": "Tiempo límite: pidió 4h; aquí se permite 30m como máximo.",
        "no_gpus": "short no tiene GPU.",
        "cpus": "CPU: pidió 99; aquí se permite de 1 a 2.",
        "walltime": "Tiempo límite: no es un tiempo límite: '7 weeks' (escriba '90m', '12h', '1d 12h' o '1-12:00:00').",
        "cost": "Cuesta 1 SU como máximo, si dura todo el tiempo límite de 10m.",
        "failed": "Su servidor no se inició",
        "advice": "Qué puede hacer: Mire las últimas líneas del registro.",
        "waiting": "En espera · JupyterHub",
        "reason": "Esta máquina ha alcanzado su límite de servidores en ejecución; el suyo empezará cuando termine uno",
        "stopped": "Su servidor se ha detenido",
        "ended": "Su último servidor terminó: ",
        "cancelled": "El trabajo fue cancelado.",
        "running": "en ejecución",
        "script": "La orden",
        "servers": "Servidores y clústeres",
    },
}

pytestmark = pytest.mark.parametrize("language", list(WORDS))


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub(profile=PROFILE + PRESETS, extra=CONFIG) as running:
        yield running


def speaks(page):
    return page.evaluate("document.documentElement.lang")


def test_the_form_a_failure_and_the_last_jobs(hub, language):
    words = WORDS[language]
    with a_page(language=language) as page:
        page.goto(f"{hub.url}/hub/login")
        assert speaks(page) == "en", "JupyterHub's own page is in English"
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        assert speaks(page) == language
        assert look_at(page, f"cards-{language}") == []
        unfold(page)
        page.locator("#hpc-options details").evaluate_all("all => all.forEach(one => { one.open = true })")
        page.select_option("#hpc-partition", "short")
        page.fill("#hpc-walltime", "4h")
        # By the script.
        assert page.locator("#hpc-walltime-error").inner_text() == words["at_most"]
        assert page.locator("#hpc-gpus-help").inner_text() == words["no_gpus"]
        assert look_at(page, f"form-{language}") == []
        page.fill("#hpc-walltime", "10m")
        page.fill("#hpc-cpus", "2")
        page.click("#hpc-cost")
        page.locator("#hpc-answer", has_text=words["cost"]).wait_for()
        page.locator('[data-hpc-card="without"]').get_by_role("button", name=words["start"]).click()
        page.wait_for_selector("#hpc-advice", timeout=60_000)
        assert speaks(page) == language
        assert page.locator("h1").inner_text() == words["failed"]
        assert page.locator("#hpc-advice").inner_text().startswith(words["advice"])
        assert look_at(page, f"failed-{language}") == []
        page.goto(f"{hub.url}/hub/spawn")
        page.click("#hpc-history summary")
        assert look_at(page, f"history-{language}") == []
        assert page.complaints == []


def test_a_refusal_without_javascript(hub, language):
    words = WORDS[language]
    with a_page(javascript=False, language=language) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        page.locator("#hpc-more summary").first.click()
        page.select_option("#hpc-partition", "short")
        page.fill("#hpc-cpus", "99")
        page.fill("#hpc-walltime", "7 weeks")
        page.press("#hpc-cpus", "Enter")
        page.locator("#hpc-cpus-error").wait_for()
        assert speaks(page) == language
        assert page.locator("#hpc-cpus-error").inner_text() == words["cpus"]
        assert page.locator("#hpc-walltime-error").inner_text() == words["walltime"]
    assert hub.servers("alice") == {}


def test_what_waits_and_what_runs(hub, language):
    words = WORDS[language]
    for user in ("bob", "carol"):
        hub.api("POST", f"/users/{user}")
        hub.spawn(user, {"walltime": "10m"})
    with a_page(language=language) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        # The last choice may be one without Jupyter.
        fill(page, environment="jupyter", walltime="7m")
        press_start(page)
        page.wait_for_selector('#hpc-steps [data-hpc-key="waiting"][aria-current="step"]')
        while page.title() != words["waiting"]:
            page.wait_for_timeout(100)
        assert speaks(page) == language
        assert words["reason"] in page.locator("#progress-message").inner_text()
        assert look_at(page, f"waiting-{language}") == []
        # The same news, read in English meanwhile.
        english = hub.log_in("alice").get(page.url, headers={"Accept-Language": "en"}, timeout=30).text
        assert '<html lang="en">' in english
        assert "This machine has reached its limit of running servers" in english
        assert words["reason"] not in english
        hub.stop_server("bob")
        assert hub.wait_ready("alice")["ready"]
        page.wait_for_url(re.compile("/user/alice/"), timeout=60_000)
        page.goto(f"{hub.url}/hub/home")
        assert speaks(page) == language
        assert page.locator('[data-hpc-cell="state"]').inner_text() == words["running"]
        assert look_at(page, f"home-{language}") == []
        assert page.complaints == []


def test_an_end_that_the_ledger_has_kept(hub, language):
    words = WORDS[language]
    with a_page(language=language) as page:
        log_in(page, hub, "alice")
        hub.spawn("alice", {"walltime": "10m"})
        job = max((hub.folder / "spool").glob("*.sh"), key=lambda path: int(path.stem)).stem
        # As an administrator would, so that the scheduler's record has the cause.
        place = ["--spool", str(hub.folder / "spool"), "--slots", "2"]
        subprocess.run([*spool.COMMAND, "cancel", job, *place], check=True)
        while hub.servers("alice"):
            page.wait_for_timeout(100)
        page.goto(f"{hub.url}/hub/user/alice/")
        page.locator("#hpc-last-end").wait_for()
        assert speaks(page) == language
        assert page.locator("h1").inner_text() == words["stopped"]
        message = page.locator("#hpc-last-end").inner_text()
        assert message.startswith(words["ended"])
        assert message.endswith(words["cancelled"])
        assert look_at(page, f"ended-{language}") == []


def test_the_job_script_and_the_page_of_all_servers(hub, language):
    words = WORDS[language]
    with a_page(language=language) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        unfold(page)
        with page.context.expect_page() as opened:
            page.click("#hpc-script")
        script = opened.value
        script.locator("h2", has_text=words["script"]).wait_for()
        assert speaks(script) == language
        assert look_at(script, f"job-script-{language}") == []
    hub.spawn("alice", {"walltime": "10m"})
    with a_page(language=language) as page:
        log_in(page, hub, "operator")
        page.goto(f"{hub.url}/hub/hpcspawner/servers")
        assert speaks(page) == language
        assert page.locator("h1").inner_text() == words["servers"]
        assert look_at(page, f"servers-{language}") == []
        assert page.complaints == []


def test_the_log_is_in_english(hub, language):
    with a_page(javascript=False, language=language) as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        page.locator("#hpc-more summary").first.click()
        page.fill("#hpc-cpus", "99")
        page.press("#hpc-cpus", "Enter")
        page.locator("#hpc-cpus-error").wait_for()
    log = hub.log()
    assert "allowed here: 1 to" in log
    for words in WORDS.values():
        assert not [one for one in words.values() if len(one) > 20 and one in log]
