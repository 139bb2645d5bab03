"""`hpcspawner init` and `check` on the real cluster: what is printed starts a server as it stands."""

import json
import tomllib

import pytest
from cluster.conftest import NODES, jobs_of, queue_is_empty_within
from support.commands import hpcspawner
from support.hub import Hub
from support.schedulers import PATHS, SCHEDULERS


def findings(*words):
    code, out, err = hpcspawner("check", "--json", *words)
    assert code in (0, 1), err
    return code, [(one["check"], one["outcome"], f"{one['what']} {one['cure']}") for one in json.loads(out)["findings"]]


OPEN_METRICS = "c.JupyterHub.authenticate_prometheus = False"
METRICS = [
    'hpcspawner_queue_wait_seconds_count{cluster="site",partition="{partition}"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="submit"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="key"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="ticket"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="prepare"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="server"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="report"} 1.0',
    'hpcspawner_start_phase_seconds_count{cluster="site",phase="answer"} 1.0',
    'hpcspawner_jobs{cluster="site",stage="ready"} 0.0',
    'hpcspawner_cluster_up{cluster="site"} 1.0',
    'hpcspawner_queue_jobs{cluster="site"} ',
    'hpcspawner_scheduler_command_seconds_count{cluster="site",command="',
]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
async def test_what_init_prints_starts_a_server_and_check_finds_nothing_wrong(scheduler, lab, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"init-{scheduler}")
    words = [f"--scheduler={scheduler}", f"--path={':'.join(PATHS[scheduler])}", f"--environments={lab}/env"]
    code, text, said = hpcspawner("init", *words)
    assert code == 0, said
    site = folder / "site.toml"
    site.write_text(text)
    assert {one["name"] for one in tomllib.loads(text)["partitions"]} == {"debug", "compute", "gpu-shared"}
    with Hub(folder, site, host="10.77.0.1", users=("alice",), extra=OPEN_METRICS) as hub:
        hub.spawn("alice", {})
        assert await hub.run("alice", "import socket; print(socket.gethostname())") in NODES
        code, found = findings(f"--hub={folder}/jupyterhub_config.py", "--user=alice", "--submit")
        assert [one for one in found if one[1] == "wrong"] == []
        assert any(name == "job" and "reaches the Hub at https://10.77.0.1" in text for name, _, text in found), found
        assert any(name == "callback address" and outcome == "ok" for name, outcome, _ in found), found
        assert code == 0
        # The trial's job is gone, and the server's own is not.
        assert len(jobs_of("alice")) == 1
        hub.stop_server("alice")
        numbers = hub.get("/hub/metrics").text.splitlines()
        for line in METRICS:
            wanted = line.replace("{partition}", tomllib.loads(text)["defaults"]["partition"])
            assert any(one.startswith(wanted) for one in numbers), wanted
    queue_is_empty_within(40, "alice")


SABOTAGED = [
    ("a node's name", 'node_name = "{node}.invalid"', "node names", "such as n1.invalid"),
    ("no python", "", "job", "the node can't run the launcher's Python"),
]


@pytest.mark.parametrize(("change", "name", "cause"), [pytest.param(*one[1:], id=one[0]) for one in SABOTAGED])
def test_a_fault_that_only_the_cluster_shows_is_found(change, name, cause, lab, tmp_path):
    site = tmp_path / "site.toml"
    job = '[job]\npython = "/no/python3"\n' if not change else ""
    site.write_text(
        f'title = "T"\n[scheduler]\ntype = "slurm"\n{change}\n[[partitions]]\nname = "debug"\nmax_walltime = "30m"\n'
        f'[[environments]]\nname = "jupyter"\npath = ["{lab}/env/bin"]\n{job}'
    )
    words = ["--user=alice", "--submit"] if job else []
    code, found = findings(site, *words)
    assert code == 1
    assert any(one[0] == name and one[1] == "wrong" and cause in one[2] for one in found), found
