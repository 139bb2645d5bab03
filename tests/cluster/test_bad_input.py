"""What a user and an admin read when the scheduler or the site says no."""

import re
import time

import pytest
from cluster.conftest import jobs_of, on_head
from support.browser import a_page, fill, log_in, press_start
from support.hub import server_path

pytestmark = pytest.mark.both_hubs


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


def start(hub, options, user="alice"):
    """A start that must fail: its message, and how many seconds it took."""
    began = time.monotonic()
    answer = hub.api("POST", server_path(user), json=options)
    if answer.status_code in (201, 202):
        *_, last = hub.events(user)
        assert last.get("failed"), f"{last}"
        return 202, last.get("html_message") or last["message"], time.monotonic() - began
    return answer.status_code, answer.json()["message"], time.monotonic() - began


SOON_S = 60
"""What a server that never answers would take is several times as long."""

OWN_WORDS = "Required partition not available"


@pytest.fixture
def closed():
    """A partition that takes no jobs, which the scheduler alone knows."""
    on_head("scontrol", "update", "partitionname=gpu-shared", "state=INACTIVE")
    yield "gpu-shared"
    on_head("scontrol", "update", "partitionname=gpu-shared", "state=UP")


def test_the_scheduler_s_own_words_are_shown(hub, closed):
    code, message, seconds = start(hub, {"partition": closed})
    assert code == 400
    assert OWN_WORDS in message
    assert seconds < SOON_S
    assert jobs_of("alice") == []
    assert hub.servers("alice") == {}
    assert re.search(r"sudo -n -u alice \S*/sbatch --parsable", hub.log())


@pytest.mark.parametrize("user", ["root", "munge", "slurm"])
def test_a_login_with_the_name_of_an_account_of_the_system_gets_no_job(hub, user):
    """A login service may let anybody be called so, and a Hub that is root could submit as any of them."""
    hub.api("POST", f"/users/{user}")
    code, message, _ = start(hub, {}, user=user)
    assert code == 400
    assert f"The account {user!r} is " in message
    assert "the Hub submits no job for" in message
    assert jobs_of(user) == []
    assert f"-u {user} " not in hub.log()


def test_an_account_of_others_is_refused_before_anything_is_submitted(hub):
    code, message, _ = start(hub, {"account": "nobodys"})
    assert code == 400
    assert "Account 'nobodys': you are not a member of it. Choose one of: ddp363, tro100." in message
    assert jobs_of("alice") == []


def test_the_scheduler_s_own_words_are_shown_on_the_page(hub, closed):
    with a_page() as page:
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, partition=closed, memory="2G")
        press_start(page)
        page.wait_for_selector(f"text={OWN_WORDS}", timeout=60_000)
        # JupyterHub answers with the form for a second; afterwards the words stand on the server's page.
        if page.locator("#hpc-partition").count() == 0:
            page.get_by_text("Change and try again").click()
            page.locator("#hpc-partition").wait_for(state="attached")
        assert page.locator("#hpc-partition").input_value() == closed
        assert page.locator("#hpc-memory").input_value() == "2G"
    assert jobs_of("alice") == []


def test_an_environment_without_jupyter_is_named_soon_after_the_start(hub):
    code, message, seconds = start(hub, {"environment": "bare", "partition": "debug"})
    assert code in (202, 500)
    assert "jupyterhub-singleuser was not found in the environment" in message
    assert "Python without Jupyter" in message
    assert re.search(r"\bon n1\b", message)
    assert seconds < SOON_S


def test_a_directory_that_is_not_there_is_named(hub):
    _, message, _ = start(hub, {"directory": "/nowhere/at all", "partition": "debug"})
    assert "/nowhere/at all" in message
    assert "No such file or directory" in message


def test_a_site_without_the_commands_says_whom_to_tell(make_hub, tmp_path):
    (tmp_path / "sudo").symlink_to("/usr/bin/sudo")
    with make_hub("slurm", change=('path = ["/usr/local/bin", "/usr/bin", "/bin"]', f'path = ["{tmp_path}"]')) as hub:
        code, message, _ = start(hub, {})
        assert code == 500
        assert "not set up" in message
        assert "the administrators of this JupyterHub" in message
        assert "' was not found on the Hub" in message
        assert "scheduler.path" in hub.log()


def test_a_sudo_rule_that_is_missing_is_told_with_its_cure(make_hub):
    # bob may run nothing as alice.
    prefix = 'type = "slurm"\ncommand_prefix = ["sudo", "-n", "-u", "bob", "sudo", "-n", "-u", "{user}"]'
    with make_hub("slurm", change=('type = "slurm"', prefix)) as hub:
        code, message, _ = start(hub, {})
        assert code == 500
        assert "not set up" in message
        assert "The Hub may not run the scheduler's commands as this user." in message
        log = hub.log()
        assert "hpcspawner sudoers" in log
        assert "a password is required" in log
        assert "sbatch" in log
