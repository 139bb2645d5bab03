"""A scheduler that is down, slow, or talks nonsense: the form opens in full, works, and says what is not known."""

import contextlib
import re
import time

import pytest
from support.browser import a_page, log_in
from support.hub import Hub, server_path

PROFILE = """\
title = "A cluster"
accounts = ["physics", "chemistry"]
reservation = "optional"

[scheduler]
type = "slurm"
path = ["@COMMANDS@"]
command_timeout_s = 60

[[partitions]]
name = "compute"
max_walltime = "2d"
max_cpus = 4
qos = ["normal", "long"]

[[environments]]
name = "plain"
"""
# What each prints when all is well; the first word of the arguments that matters chooses.
WELL = {
    "sinfo": "echo 'compute|up'",
    "squeue": "",
    "sacctmgr": """case "$*" in
*associations*) echo 'lab|root||||normal|'; echo 'lab|physics|root|||normal|'; echo 'lab|physics||alice||normal|' ;;
*) echo 'alice|physics' ;;
esac""",
    "scontrol": """case "$*" in
*config*) echo 'ClusterName = lab' ;;
*reservation*) echo 'No reservations in the system' ;;
*) echo 'NodeName=n1 CPUAlloc=0 CPUTot=8 RealMemory=1000 AllocMem=0 State=IDLE Partitions=compute ' ;;
esac""",
    "sbatch": "exit 1",
    "scancel": "exit 1",
    "sudo": "exit 1",
}
DOWN = "echo 'slurm_load: Unable to contact slurm controller (connect failure)' >&2; exit 1"
GARBAGE = "printf 'no such\\n\\377\\000line\\n<b>of ours</b>\\n'"


@pytest.fixture
def opened(lab, tmp_path):
    """A Hub whose scheduler's commands are these lines of shell; None leaves a command out."""
    with contextlib.ExitStack() as stack:

        def start(**changed):
            commands = tmp_path / "commands"
            commands.mkdir()
            for name, lines in (WELL | changed).items():
                if lines is not None:
                    (commands / name).write_text(f"#!/bin/bash\n{lines}\n")
                    (commands / name).chmod(0o755)
            site = tmp_path / "site.toml"
            site.write_text(PROFILE.replace("@COMMANDS@", str(commands)), encoding="utf-8")
            return stack.enter_context(Hub(tmp_path, site, host="10.77.0.1", users=("alice", "bob")))

        yield start


def form(hub, session):
    answer = session.get(f"{hub.url}/hub/spawn", timeout=30)
    assert answer.status_code == 200
    return answer.text


def until(hub, session, *wanted):
    deadline = time.monotonic() + 60
    while not all(text in (page := form(hub, session)) for text in wanted):
        assert time.monotonic() < deadline, f"{wanted}: {page[-6000:]}\n{hub.log()[-3000:]}"
        time.sleep(0.3)
    return page


def works(hub, session, page):
    """All fields are there, and a request is judged by the profile."""
    names = ("account", "qos", "reservation", "partition", "walltime", "cpus", "memory")
    assert [name for name in names if f'name="{name}"' not in page] == []
    assert 'id="hpc-start"' in page
    token = re.search(r'name="_xsrf" value="([^"]*)"', page)[1]
    body = {"_xsrf": token, "partition": "compute", "walltime": "1h", "account": "physics", "qos": "normal"}
    script = session.post(f"{hub.url}/hub/hpcspawner/script", data=body, timeout=30)
    assert script.status_code == 200, script.text
    assert "--account=physics" in script.text
    refused = session.post(f"{hub.url}/hub/hpcspawner/script", data=body | {"walltime": "3d"}, timeout=30)
    assert "at most 2d is allowed here" in refused.text


def test_all_is_well(opened):
    hub = opened()
    session = hub.log_in("alice")
    page = until(hub, session, "Your accounts as of", "reservations as of", "8 of 8")
    assert '<option value="chemistry" disabled>chemistry (you are not a member)</option>' in page
    works(hub, session, page)
    # The form of a named server, whose job has its name.
    token = re.search(r'name="_xsrf" value="([^"]*)"', page)[1]
    for address, name in (("/hub/spawn", "jupyter"), ("/hub/spawn/alice/second", "jupyter-second")):
        body = {"_xsrf": token, "_form": address}
        script = session.post(f"{hub.url}/hub/hpcspawner/script", data=body, timeout=30)
        assert f"--job-name={name} " in script.text
    elsewhere = {"_xsrf": token, "_form": "https://elsewhere.example.org/hub/spawn"}
    assert session.post(f"{hub.url}/hub/hpcspawner/script", data=elsewhere, timeout=30).status_code == 400


OF_TWO = """case "$*" in
*associations*) echo 'lab|physics||alice||normal|'; echo 'lab|chemistry||alice|compute|long|' ;;
*) echo 'alice|physics' ;;
esac"""


def test_in_the_page_the_qos_follow_the_account(opened):
    hub = opened(sacctmgr=OF_TWO)
    until(hub, hub.log_in("alice"), "Your accounts as of")
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        assert "my default (physics)" in page.locator("#hpc-account option").first.inner_text()
        for account, qos in (("chemistry", "long"), ("physics", "normal"), ("", "normal")):
            page.select_option("#hpc-account", account)
            enabled = page.locator("#hpc-qos option:not([disabled])").evaluate_all(
                "found => found.map((one) => one.value)"
            )
            assert enabled == ["", qos], account
        assert page.complaints == []
    refused = hub.api("POST", server_path("alice"), json={"account": "chemistry", "qos": "normal"})
    assert (refused.status_code, "may use: long" in refused.json()["message"]) == (400, True)


@pytest.mark.parametrize("lines", [DOWN, GARBAGE], ids=["down", "garbage"])
def test_a_scheduler_that_is_down_or_talks_nonsense(opened, lines):
    hub = opened(**dict.fromkeys(("sinfo", "squeue", "sacctmgr", "scontrol"), lines))
    session = hub.log_in("alice")
    page = until(
        hub,
        session,
        "The scheduler does not tell: nodes, waiting jobs, open partitions",
        "The scheduler does not tell your accounts at the moment.",
        "The scheduler does not tell your reservations at the moment.",
    )
    assert "of ours" not in page
    assert '<option value="chemistry">' in page
    works(hub, session, page)


def test_without_sacctmgr_the_rest_is_known(opened):
    hub = opened(sacctmgr=None)
    session = hub.log_in("alice")
    page = until(hub, session, "does not tell your accounts at the moment", "Your reservations as of", "8 of 8")
    assert '<option value="chemistry">' in page
    works(hub, session, page)


@pytest.mark.parametrize("slow", ["sinfo", "sacctmgr"])
def test_the_form_does_not_wait_for_a_command_that_takes_30_s(opened, slow, tmp_path):
    over = tmp_path / "over"
    hub = opened(**{slow: f"/usr/bin/sleep 30; /usr/bin/touch {over}; {WELL[slow]}"})
    session = hub.log_in("alice")
    works(hub, session, form(hub, session))
    works(hub, session, form(hub, session))
    assert not over.exists(), "the form waited for the command"
    until(hub, session, "Your accounts as of", "reservations as of", "8 of 8")
    assert over.exists()
