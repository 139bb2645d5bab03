"""The examples with a part beside the Hub, on the real parts: PostgreSQL, JupyterHub's own culler."""

import os
import pwd
import time

from hub.conftest import PROFILE
from support.faults import within
from support.fronts import ExampleHub
from support.postgresql import postgresql


def profile(jupyter_folder, folder):
    return PROFILE.replace("@JUPYTER@", str(jupyter_folder)).replace("@FOLDER@", str(folder))


def filled(hub, words):
    """The example's configuration as this test needs it; what is changed has to stand in it."""
    path = hub.folder / "jupyterhub_config.py"
    text = path.read_text()
    for old, new in words.items():
        assert old in text, f"{old!r} stands no more in the example"
        text = text.replace(old, new)
    path.write_text(text)


async def test_the_hubs_database_may_be_postgresqls(jupyter_folder, tmp_path):
    hub = ExampleHub("postgresql", tmp_path, profile(jupyter_folder, tmp_path))
    with postgresql(pwd.getpwuid(os.geteuid()).pw_name) as socket:
        # The tests' own line for the database would win.
        filled(
            hub,
            {
                "/run/postgresql": str(socket),
                f'c.JupyterHub.db_url = "sqlite:///" + {str(tmp_path)!r}': "unused = str()",
            },
        )
        with hub:
            hub.spawn("alice", {"walltime": "10m", "directory": str(tmp_path)})
            hub.kill()
            # Started again, it knows from its database who has a server, and takes the job up.
            hub.start()
            hub.wait_ready("alice")
            assert await hub.run("alice", "print(6 * 7)") == "42"
            assert not (tmp_path / "hub.sqlite").exists()
            hub.stop_server("alice")
            assert hub.servers("alice") == {}


def test_the_example_with_jupyterhubs_culler_ends_an_idle_server(jupyter_folder, tmp_path):
    hub = ExampleHub("idle-culling", tmp_path, profile(jupyter_folder, tmp_path))
    # The tests' own service comes beside the example's.
    beside = {
        "c.JupyterHub.services = [{": "c.JupyterHub.services += [{",
        'c.JupyterHub.load_roles = [\n    {"name": "tests"': 'c.JupyterHub.load_roles += [\n    {"name": "tests"',
    }
    filled(hub, {"--timeout=14400": "--timeout=2", "--cull-every=600": "--cull-every=2", **beside})
    with hub:
        began = time.monotonic()
        hub.api("POST", "/users/alice/server", json={"walltime": "10m", "directory": str(tmp_path)})
        within(90, lambda: "Culling server" in hub.log(), hub.log)
        within(60, lambda: hub.servers("alice") == {}, hub.log)
        assert time.monotonic() - began > 2
        assert "alice: job 1 has ended (stopped)" in hub.log()
