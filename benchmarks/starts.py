"""How long a start takes: by a Hub, and without one; JupyterLab in each case, on a cluster that has room."""

import pwd
import shlex
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from cluster.conftest import drained, on_head
from support.hub import server_path

from benchmarks.hubs import USERS, Measured, measured
from benchmarks.meters import have_started, until

NODE_ADDRESS = "10.77.0.11"
SIZE = ("--mem=1G", "--time=10", "--chdir=/home/alice", "--output=/dev/null", "--parsable")


def start(lab: Path, spawner: str, rounds: int = 5) -> dict[str, Any]:
    """Bare `sbatch` of `jupyter lab`, of `jupyterhub-singleuser`, and a click on Start, in turn, until each answers."""
    seconds: dict[str, list[float]] = {"bare_lab": [], "bare_singleuser": [], "by_hub": []}
    with measured(lab, spawner, ["alice", *USERS], server="jupyterhub-singleuser") as hub, drained("n2", "n3"):
        _bare(lab, _lab)
        for number in range(rounds):
            seconds["bare_lab"].append(_bare(lab, _lab))
            seconds["bare_singleuser"].append(_bare(lab, partial(_singleuser, hub)))
            seconds["by_hub"].append(_by_hub(hub, USERS[number]))
        phases = hub.phases() if spawner == "ours" else {}
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "rounds": rounds,
        "by_hub_to_bare_lab": round(medians["by_hub"] / medians["bare_lab"], 2),
        "by_hub_to_bare_singleuser": round(medians["by_hub"] / medians["bare_singleuser"], 2),
        **{f"{name}_median_s": round(median, 2) for name, median in medians.items()},
        **{f"{name}_least_to_most_s": f"{min(taken):.2f} to {max(taken):.2f}" for name, taken in seconds.items()},
        **{f"phase_{phase}_s": round(taken / rounds, 3) for phase, taken in phases.items()},
        **{f"{name}_s": [round(one, 2) for one in taken] for name, taken in seconds.items()},
    }


def _by_hub(hub: Measured, user: str) -> float:
    hub.mark()
    began = time.monotonic()
    hub.hub.api("POST", server_path(user), json={"interface": "lab", "memory": "1G"})
    until(partial(have_started, hub, 1), 120, 0.01)
    took_s = time.monotonic() - began
    hub.hub.stop_server(user)
    return took_s


def _bare(lab: Path, script: Callable[[Path, int], tuple[str, str]]) -> float:
    """As somebody without a Hub would: a job, and a look whether it answers."""
    port = 30000 + time.monotonic_ns() % 20000
    command, path = script(lab, port)
    began = time.monotonic()
    job = on_head("sbatch", *SIZE, f"--wrap={command}", user="alice").strip()
    until(partial(_answers, port, path), 120, 0.02)
    took_s = time.monotonic() - began
    on_head("scancel", job)
    until(lambda: not on_head("squeue", "--noheader", "--user=alice").strip(), 60)
    return took_s


def _lab(lab: Path, port: int) -> tuple[str, str]:
    """A script, and what to ask for."""
    command = f"exec {lab}/env/bin/jupyter-lab --no-browser --ip=0.0.0.0 --port={port} --ServerApp.token= 2>/dev/null"
    return command, "/api"


def _singleuser(hub: Measured, lab: Path, port: int) -> tuple[str, str]:
    """The same with what it needs to know of a Hub, which does not know of it; its token is in alice's own file."""
    path, api = "/user/alice/", f"{hub.hub.url}/hub/api"
    told = {
        "JUPYTERHUB_API_TOKEN": hub.hub.token,
        "JUPYTERHUB_API_URL": api,
        "JUPYTERHUB_ACTIVITY_URL": f"{api}/users/alice/activity",
        "JUPYTERHUB_BASE_URL": "/",
        "JUPYTERHUB_CLIENT_ID": "jupyterhub-user-alice",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{path}oauth_callback",
        "JUPYTERHUB_SERVICE_PREFIX": path,
        "JUPYTERHUB_SERVICE_URL": f"http://0.0.0.0:{port}{path}",
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_USER": "alice",
        "SSL_CERT_FILE": f"{hub.folder}/ca.pem",
    }
    shutil.copy(hub.hub.folder / "ca.pem", hub.folder / "ca.pem")
    (hub.folder / "ca.pem").chmod(0o644)
    file = hub.folder / "singleuser.sh"
    file.touch(0o600)
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in told.items()))
    alice = pwd.getpwnam("alice")
    shutil.chown(file, alice.pw_uid, alice.pw_gid)
    return f". {file}; exec {lab}/env/bin/jupyterhub-singleuser 2>/dev/null", f"{path}api"


def _answers(port: int, path: str) -> bool:
    argv = ["curl", "-sf", "--noproxy", "*", "-m", "5", "-o", "/dev/null", f"http://{NODE_ADDRESS}:{port}{path}"]
    return subprocess.run(argv, check=False).returncode == 0
