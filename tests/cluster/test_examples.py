"""The examples for clusters, started as they stand; only the folders of programs are this cluster's own."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from cluster.conftest import NODES, jobs_of, made, on_head, queue_is_empty_within
from support.browser import a_page, press_start, run_cell
from support.faults import within
from support.hub import Hub, example, free_ports
from support.schedulers import PATHS, SCHEDULERS


@pytest.mark.parametrize("name", SCHEDULERS)
async def test_the_example_serves_a_kernel_on_a_compute_node(name, lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"example-{name}")
    changes = {"/opt/jupyter/bin": f"{lab}/env/bin", f'type = "{name}"': f'type = "{name}"\npath = {PATHS[name]}'}
    config = example(name, folder, changes)
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {"partition": "debug"})
        host = await hub.run("alice", "import socket; print(socket.gethostname())")
        # Slurm's partition has one node.
        assert host == "n1" if name == "slurm" else host in NODES
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_the_example_with_containers_serves_a_kernel_in_an_image(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("example-containers")
    changes = {
        "/opt/apptainer/bin": f"{lab}/apptainer/bin",
        "/opt/jupyter-proxy": f"{lab}/env-proxy",
        "/shared/images/lab": f"{lab}/images/lab",
    }
    config = example("containers", folder, changes)
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {})
        assert await hub.run("alice", "import os; print(os.environ['IMAGE_SAYS'])") == "hello"
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


async def test_the_example_with_other_programs_serves_a_page_of_marimo(lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp("example-other-programs")
    changes = {
        "/opt/jupyter-proxy": f"{lab}/env-proxy",
        "/opt/jupyter/bin": f"{lab}/env/bin",
        "/opt/programs/bin": f"{lab}/env-programs/bin",
        "/opt/ttyd/bin": f"{lab}/ttyd/bin",
    }
    config = example("other-programs", folder, changes)
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {"environment": "programs", "interface": "marimo"})
        page = hub.log_in("alice").get(f"{hub.url}/user/alice/", timeout=60)
        assert "marimo-server-token" in page.text


ENVIRONMENTS = {
    "parallel": ({"/opt/parallel/bin": "{lab}/env-parallel/bin"}, "env-parallel"),
    "conda": ({"/shared/envs/jupyter": "{lab}/env"}, "env"),
    "modules": (
        {"/etc/profile.d/lmod.sh": "{lab}/env-modules/lmod.sh", "/shared/modulefiles": "{lab}/env-modules/modulefiles"},
        "env",
    ),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
async def test_the_example_of_an_environment_serves_a_kernel_of_it(name, lab, tmp_path_factory):
    changes, prefix = ENVIRONMENTS[name]
    folder = tmp_path_factory.mktemp(f"example-{name}")
    config = example(name, folder, {old: new.format(lab=lab) for old, new in changes.items()})
    with Hub(folder, None, host="10.77.0.1", config=config, users=("alice",)) as hub:
        hub.spawn("alice", {})
        assert await hub.run("alice", "import sys; print(sys.prefix)") == made(lab, prefix)
        hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


LOGIN = (
    {"sub": "1", "email": "Alice@example.org"},
    {"sub": "2", "email": "eve@elsewhere.org"},
    {"sub": "3", "email": "nemo.of.nowhere@example.org"},
)
"""Users of the login service: one of the cluster's, one of another domain, one without an account."""


@pytest.fixture
def provider(tmp_path_factory):
    """The address of an OpenID Connect provider with these users, a process of its own."""
    (port,) = free_ports(1)
    users = [f"--user-claims={json.dumps(one)}" for one in LOGIN]
    log = tmp_path_factory.mktemp("provider") / "log"
    argv = [Path(sys.executable).with_name("oidc-provider-mock"), f"--port={port}", *users]
    with log.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{port}"
        within(60, lambda: answers(f"{url}/.well-known/openid-configuration"), log.read_text)
        yield url
        process.terminate()


def answers(url):
    with contextlib.suppress(requests.RequestException):
        return requests.get(url, timeout=10).ok


SECRET = "no-secret-but-of-this-test"
AS_A_CLIENT = ("env", "OAUTH_CLIENT_ID=hpcspawner", f"OAUTH_CLIENT_SECRET={SECRET}")


@pytest.fixture
def login_hub(provider, lab, tmp_path_factory):
    """The example as it stands, with that provider; the secret is in the Hub's environment."""
    folder = tmp_path_factory.mktemp("example-oauth-login")
    config = example("oauth-login", folder, {"/opt/jupyter/bin": f"{lab}/env/bin"})
    assert "https://login.example.org" in config
    extra = 'c.JupyterHub.authenticator_class = "generic-oauth"'  # the tests' own stands before it
    config = config.replace("https://login.example.org", provider)
    hub = Hub(folder, None, host="10.77.0.1", config=config, extra=extra)
    file = folder / "jupyterhub_config.py"
    file.write_text(file.read_text().replace("https://hub.example.org", hub.url))
    hub.start(AS_A_CLIENT)
    yield hub
    hub.stop_servers()
    hub.stop()


def come_in(page, hub, sub):
    """Log in at the provider as one of its users, on the way to the form."""
    page.goto(f"{hub.url}/hub/login?next=%2Fhub%2Fspawn")
    page.get_by_text("Sign in with your organisation's account").click()
    page.get_by_role("button", name=sub, exact=True).click()


def test_the_example_with_a_login_service_starts_servers_under_the_clusters_names(login_hub):
    with a_page() as page:
        come_in(page, login_hub, "1")
        page.wait_for_url("**/hub/spawn*")
        press_start(page)
        page.wait_for_url("**/user/alice@example.org/lab**", timeout=120_000)
        (job_id,) = jobs_of("alice")
        cell = "import getpass, os; print(getpass.getuser(), [one for one in os.environ if 'OAUTH_CLIENT_' in one])"
        assert run_cell(page, cell) == "alice ['JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES']"
        assert SECRET not in on_head("scontrol", "show", "job", job_id)
    login_hub.stop_server("alice@example.org")
    queue_is_empty_within(40, "alice")


@pytest.mark.parametrize(
    ("sub", "why"),
    [("2", "its domain is not one of those"), ("3", "no account")],
    ids=["another domain", "no account on the cluster"],
)
def test_a_name_without_an_account_is_told_why_it_gets_no_server(login_hub, sub, why):
    with a_page() as page:
        come_in(page, login_hub, sub)
        page.wait_for_url("**/hub/**")
        page.goto(f"{login_hub.url}/hub/spawn")
        press_start(page)
        page.wait_for_load_state()
        assert why in page.inner_text("body")
    assert not on_head("squeue", "--noheader").strip()
