"""The form's check of what an environment needs, on a cluster: the site's modules, an environment that does not run."""

import json

import pytest
from cluster.conftest import on_head
from cluster.test_own_environments import PLACE, check
from support.commands import hpcspawner

# As a site has it: the prologue says where the modules are, the first environment needs one, the second another too.
SITE = """\
look = true

[own_environments]
folders = ["{{home}}"]

[job]
modules_init = "{modules}/{system}.sh"
prologue = "module use {modules}/modulefiles"

[[environments]]
name = "with-module"
modules = ["jupyter/1.0"]

[[environments]]
name = "gone"
modules = ["jupyter/1.0", "nowhere/9"]

[[environments]]
name = "image"
path = ["{lab}/apptainer/bin"]
image = "hub"

[[images]]
name = "hub"
path = "{lab}/images/hub"

[[images]]
name = "bare"
path = "{lab}/images/bare"

"""
# An environment whose Python has lost its library, and one that counts how often it is run.
ENVIRONMENTS = """\
set -eu
for one in broken counting; do
  mkdir -p ~/$one/bin
  echo 'home = /usr/bin' >~/$one/pyvenv.cfg
  printf '#!/bin/sh\\nexec true\\n' >~/$one/bin/jupyterhub-singleuser
done
printf '#!/bin/sh\\necho "libpython3.so: cannot open shared object file" >&2; exit 127\\n' >~/broken/bin/python
printf '#!/bin/sh\\necho run >>~/counting/runs\\n' >~/counting/bin/python
chmod +x ~/broken/bin/* ~/counting/bin/*
"""


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module", params=["lmod", "modules"])
def running_hub(request, make_hub, lab):
    on_head("bash", "-c", ENVIRONMENTS, user="alice")
    site = SITE.format(lab=lab, modules=lab / "env-modules", system=request.param)
    try:
        with make_hub("slurm", change=(PLACE, site + PLACE)) as hub:
            yield hub
    finally:
        on_head("bash", "-c", "rm -rf ~/broken ~/counting ~/.cache/hpcspawner", user="alice")


def test_a_module_that_is_missing_is_named_before_anything_is_queued(hub):
    session = hub.log_in("alice")
    answer = check(hub, session, environment="gone").json()
    (problem,) = answer["problems"]
    assert problem["field"] == "environment"
    assert problem["message"].startswith("There is no module nowhere/9 on ")
    assert "tell those who run this cluster" in problem["message"]
    good = check(hub, session, environment="with-module").json()
    assert good["problems"] == []
    assert "are usable" in good["message"]


def test_an_image_without_jupyter_is_named_before_anything_is_queued(hub, lab):
    session = hub.log_in("alice")
    (problem,) = check(hub, session, environment="image", image="bare").json()["problems"]
    assert problem == {
        "field": "image",
        "message": f"The image {lab}/images/bare has no jupyterhub-singleuser. Choose another image, or add it there.",
    }
    good = check(hub, session, environment="image", image="hub").json()
    assert good["problems"] == []


def test_an_environment_that_does_not_run_is_named_and_one_that_does_is_run_once(hub):
    session = hub.log_in("alice")
    (problem,) = check(hub, session, environment="~/broken").json()["problems"]
    assert "The Python of the environment /home/alice/broken does not run on " in problem["message"]
    assert "libpython3.so: cannot open shared object file. Make it again." in problem["message"]
    on_head("rm", "-rf", "/home/alice/.cache/hpcspawner", "/home/alice/counting/runs", user="alice")
    for _ in range(2):
        assert check(hub, session, environment="~/counting").json()["problems"] == []
    assert on_head("cat", "/home/alice/counting/runs", user="alice") == "run\n"
    on_head("touch", "/home/alice/counting/pyvenv.cfg", user="alice")
    assert check(hub, session, environment="~/counting").json()["problems"] == []
    assert on_head("cat", "/home/alice/counting/runs", user="alice") == "run\nrun\n"


def test_hpcspawner_check_says_the_same_to_the_admin(hub):
    _, out, said = hpcspawner("check", "--json", "--user=alice", str(hub.folder / "site.toml"))
    found = {one["what"]: one["outcome"] for one in json.loads(out)["findings"] if one["check"] == "set-up"}
    assert found, said
    assert found["with-module: nothing is missing for its set-up"] == "ok"
    assert found["jupyter: nothing is missing for its set-up"] == "ok"
    (gone,) = [what for what in found if what.startswith("gone: ")]
    assert gone.startswith("gone: There is no module nowhere/9 on ")
    assert found[gone] == "warning"
