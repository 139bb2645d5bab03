"""What the examples' configurations say, read as `hpcspawner check --hub` reads them: nothing that defeats servers."""

import configparser
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hpcspawner.site.profile import load

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted(path for path in EXAMPLES.glob("*/jupyterhub_config.py"))
# In one process: to load JupyterHub takes seconds.
READ = """
import json, sys
from pathlib import Path
from hpcspawner.cli.hub_config import HubConfig, checks
from hpcspawner.site.profile import load
found = {}
for path in map(Path, sys.argv[1:]):
    hub = HubConfig.read(path)
    if isinstance(hub, str):
        found[path.parent.name] = [hub]
        continue
    profiles = [load(site) for site in hub.sites]
    found[path.parent.name] = [
        one.text for check in checks(hub.config, profiles) for one in check.run() if one.outcome.value == "wrong"
    ]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples") / "examples"
    shutil.copytree(EXAMPLES, folder)
    places = [folder / path.relative_to(EXAMPLES) for path in CONFIGS]
    for place in places:
        # Some are for any cluster, and have no profile of their own.
        if not list(place.parent.glob("*.toml")):
            shutil.copy(EXAMPLES / "slurm/site.toml", place.parent)
    command = [sys.executable, "-c", READ, *map(str, places)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120, env=os.environ)
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [path.parent.name for path in CONFIGS])
def test_no_setting_of_an_example_defeats_servers(found, name):
    assert found[name] == []


def test_the_unit_starts_the_hub_as_its_account_and_leaves_sudo_its_way():
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str
    unit.read(EXAMPLES / "non-root/jupyterhub.service")
    service = unit["Service"]
    assert service["User"] == "jupyterhub"
    assert service["NoNewPrivileges"] == "no"
    config = (EXAMPLES / "non-root/jupyterhub_config.py").read_text()
    # All that the Hub writes lies in the one folder that it may write to.
    for line in config.splitlines():
        if line.startswith("c.") and "/var/" in line:
            assert service["WorkingDirectory"] in line
    assert load(EXAMPLES / "non-root/site.toml").scheduler.helper == "/usr/local/libexec/hpcspawner"
