"""The configuration of peers that start servers on Slurm, the same as ours: a light one, or `jupyterhub-singleuser`."""

from pathlib import Path

# slurmformspawner is batchspawner's spawner for Slurm with a form: most settings are the same.
_BOTH = """\
import batchspawner

c = get_config()
c.JupyterHub.extra_handlers = []
c.JupyterHub.cleanup_servers = False
c.JupyterHub.concurrent_spawn_limit = 0
c.Spawner.start_timeout = 86400
c.Spawner.cmd = [{command!r}]
c.BatchSpawnerBase.batchspawner_singleuser_cmd = {wrapper!r}
# As it comes, but by a command that counts.
c.SlurmSpawner.batch_query_cmd = "{squeue} -h -j {{job_id}} -o '%T %B'"
"""
_SCRIPT = """\
#!/bin/bash
#SBATCH --output=/dev/null
#SBATCH --chdir=/
#SBATCH --export={{keepvars}}
#SBATCH --time={{runtime}}
#SBATCH --mem={{memory}}
{{cmd}}
"""
_OWN = {
    "batchspawner": """
c.JupyterHub.spawner_class = "batchspawner.SlurmSpawner"
c.BatchSpawnerBase.exec_prefix = "sudo -n -E -u {{username}}"
c.BatchSpawnerBase.req_memory = "{memory}M"
c.BatchSpawnerBase.req_runtime = "00:20:00"
c.SlurmSpawner.req_srun = ""
c.SlurmSpawner.batch_script = {script!r}
""",
    # By REST a server gets what the form has from the start. The default of its memory would ask Slurm for JSON, which
    # the lab's does not print yet.
    "slurmformspawner": """
c.JupyterHub.spawner_class = "slurmformspawner.SlurmFormSpawner"
c.SlurmFormSpawner.slurm_bin_path = "/usr/bin"
c.SlurmFormSpawner.submit_template_path = {template!r}
c.SbatchForm.runtime = {{"def": 1 / 3}}
c.SbatchForm.memory = {{"def": {memory}}}
""",
}
SLURM_PEERS = tuple(_OWN)


def configuration(name: str, programs: Path, folder: Path, server: str) -> str:
    """Of the peer with this name and these programs; its jobs reach the folder, in which it finds what it needs."""
    template = folder / "submit.sh"
    template.write_text(_SCRIPT, encoding="utf-8")
    return (_BOTH + _OWN[name]).format(
        command=str(programs / server if server else folder / "bin" / "light-server"),
        wrapper=str(programs / "batchspawner-singleuser"),
        squeue=folder / "bin" / "squeue",
        memory=1024 if server else 100,
        script=_SCRIPT,
        template=str(template),
    )
