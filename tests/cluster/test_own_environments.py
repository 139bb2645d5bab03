"""A user's own environments: found as the user, offered on the open form, started; and the check of a choice before that."""

import pytest
from cluster.conftest import on_head, queue_is_empty_within
from support.browser import a_page, fill, log_in, look_at, press_start, unfold
from support.faults import within

SITE = """\
[own_environments]
folders = ["{home}"]

[own_images]
folders = ["/"]

[defaults]"""
# What conda makes, but for its packages: its list, a folder with `conda-meta`, and scripts that activating reads.
CONDA = """\
set -eu
env=~/miniforge3/envs/torch
mkdir -p ~/.conda "$env/conda-meta" "$env/etc/conda/activate.d" "$env/bin"
touch "$env/conda-meta/history"
for one in "$LAB_ENV"/bin/*; do case "$one" in */[Aa]ctivate*) ;; *) ln -sfn "$one" "$env/bin/";; esac; done
ln -sfn "$LAB_ENV/lib" "$env/lib"
echo 'export TORCH_SAYS=hello' > "$env/etc/conda/activate.d/torch.sh"
printf '%s\\n' "$env" /home/bob/secret ~/gone > ~/.conda/environments.txt
/usr/bin/python3 -m venv --without-pip ~/bare
"""
GONE = "rm -rf ~/miniforge3 ~/.conda ~/bare"


@pytest.fixture(scope="module")
def scheduler():
    return "slurm"


@pytest.fixture(scope="module")
def running_hub(make_hub, lab):
    on_head("env", f"LAB_ENV={lab}/env", "bash", "-c", CONDA, user="alice")
    # Closed to alice, and not to root.
    secret = "mkdir -p ~/secret/conda-meta ~/secret/bin; ln -sf /usr/bin/python3 ~/secret/bin/python; chmod 700 ~/secret"
    on_head("bash", "-c", secret, user="bob")
    change = ("[defaults]", SITE)
    try:
        with make_hub("slurm", change=change, change_too=("[scheduler]\n", "[scheduler]\nlook = true\n")) as hub:
            yield hub
    finally:
        on_head("bash", "-c", GONE, user="alice")
        on_head("bash", "-c", "rm -rf ~/secret", user="bob")
