"""A Hub that reaches Slurm by slurmrestd alone: where it runs is no command of Slurm's, no configuration, no munge."""

import pytest
from cluster.conftest import jobs_of, queue_is_empty_within, shown
from support import rest

WHERE = "import socket, os; print(socket.gethostname(), os.getcwd(), os.environ['HOME'])"
COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sacct", "sinfo", "sudo", "munge")
# Of the Hub's own view of the file system: gone when it ends.
HIDE = """
for name in $COMMANDS; do mount --bind /dev/null "/usr/bin/$name"; done
mount --bind "$EMPTY" /etc/slurm
mount --bind "$EMPTY" /run/munge
sbatch --version && exit 9
exec "$@"
"""


@pytest.fixture(scope="module")
def api_hub(make_hub, tmp_path_factory):
    folder = tmp_path_factory.mktemp("api")
    (folder / "empty").mkdir()
    access = rest.ACCESS | {"api_key_file": str(rest.key_file(folder))}
    lines = "".join(f'\n{name} = "{value}"' for name, value in access.items())
    made = make_hub("slurm", change=('type = "slurm"', f'type = "slurm"{lines}'))
    words = ["env", f"COMMANDS={' '.join(COMMANDS)}", f"EMPTY={folder}/empty"]
    made.start(["unshare", "--mount", *words, "bash", "-e", "-c", HIDE, "-"])
    try:
        made.api("POST", "/users/alice")
        yield made
        made.stop_servers()
    finally:
        made.stop()


if rest.IN_LAB:

    async def test_a_server_starts_and_ends_by_slurmrestd_alone(api_hub):
        api_hub.spawn("alice", {"partition": "compute", "memory": "1G", "walltime": "30m", "account": "ddp363"})
        (job_id,) = jobs_of("alice")
        record = shown(job_id)
        host, directory, home = (await api_hub.run("alice", WHERE)).split()
        assert (record["BatchHost"], directory, home) == (host, "/home/alice", "/home/alice")
        assert record["UserId"].startswith("alice(")
        assert record["Requeue"] == "0"
        api_hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
        assert "not answering" not in api_hub.log()
        assert "HUB'S OWN ACCOUNT" not in api_hub.log()
        key = rest.AUTHORITY.parent.parent / "jwt_hs256.key"
        assert key.read_bytes() not in api_hub.log_file.read_bytes()
        # Of a token, how each begins.
        assert "eyJhbGciOiJIUzI1NiI" not in api_hub.log()
