"""A real Hub on the embedded scheduler: the same job scripts, on this machine."""

import shutil
import sys
from pathlib import Path

import pytest
from support.hub import Hub

PROFILE = """\
title = "This machine"

[scheduler]
type = "local"
slots = 2

# Of two Hubs side by side each has a first job, whose log would have the same name in the one home.
[job]
log = "@FOLDER@/job-logs"

[[partitions]]
name = "short"
max_walltime = "30m"
max_cpus = 2
max_memory = "2G"

[[partitions]]
name = "long"
title = "Long <b>'runs'</b>"
max_walltime = "2d"
max_cpus = 4
gpus = { any = 2 }

[[interfaces]]
name = "lab"
title = "JupyterLab"
# The tests may run as root, which Jupyter refuses without a word of its own.
command = ["jupyterhub-singleuser", "--allow-root"]
programs = ["jupyter-lab"]

[[environments]]
name = "jupyter"
path = ["@JUPYTER@"]
# What one test leaves open is nothing for the next.
variables = { JUPYTERLAB_WORKSPACES_DIR = "@FOLDER@/workspaces" }

[[environments]]
name = "without"
title = "Python without Jupyter"
setup = ["echo this environment has no Jupyter"]

[[environments]]
name = "broken"
setup = ["echo the module system is away", "module load nothing/1.0"]

[[images]]
name = "torch"
path = "/images/torch.simg"
"""


@pytest.fixture(scope="session")
def jupyter_folder():
    """Where jupyterhub-singleuser and jupyter-lab are: the Hub's own environment, or the main one of the checkout."""
    checkout = Path(__file__).parents[2]
    for folder in (Path(sys.executable).parent, checkout / ".venv" / "bin"):
        if (folder / "jupyter-lab").exists():
            return folder
    found = shutil.which("jupyter-lab")
    assert found, "JupyterLab is not installed; `make test` installs what the tests need"
    return Path(found).parent


@pytest.fixture(scope="session")
def make_hub(tmp_path_factory, jupyter_folder):
    """A Hub for a profile, of any kind."""

    def make(profile=PROFILE, kind=Hub, **kwargs):
        folder = tmp_path_factory.mktemp("hub")
        site = folder / "site.toml"
        site.write_text(
            profile.replace("@JUPYTER@", str(jupyter_folder)).replace("@FOLDER@", str(folder)), encoding="utf-8"
        )
        return kind(folder, site, users=("alice", "bob"), **kwargs)

    return make


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub() as running:
        yield running


@pytest.fixture
def hub(running_hub):
    yield running_hub
    running_hub.stop_servers()
