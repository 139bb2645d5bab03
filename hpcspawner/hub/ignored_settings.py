"""What a configuration for another batch spawner sets, and this one reads nowhere: said once, with where each went."""

from collections.abc import Iterator
from typing import Any

_SCRIPT = "the job script comes from the profile: job.prologue, job.epilogue, environments[].setup and directives"
_COMMAND = "scheduler.type, scheduler.path and scheduler.command_prefix"
_WENT = {
    "cmd": "interfaces[].command",
    "batchspawner_singleuser_cmd": "interfaces[].command",
    "default_url": "interfaces[].url",
    "notebook_dir": "defaults.directory, and [directories] for the allowed ones",
    "cpu_limit": "partitions[].max_cpus and defaults.cpus",
    "cpu_guarantee": "partitions[].max_cpus and defaults.cpus",
    "mem_limit": "partitions[].max_memory and defaults.memory",
    "mem_guarantee": "partitions[].max_memory and defaults.memory",
    "batch_script": _SCRIPT,
    "batch_submit_cmd": _COMMAND,
    "batch_query_cmd": _COMMAND,
    "batch_cancel_cmd": _COMMAND,
    "exec_prefix": "scheduler.command_prefix",
    "startup_poll_interval": "HPCSpawner.poll_interval_s",
    "req_account": "accounts and defaults.account",
    "req_cluster": "each profile is for one cluster",
    "req_epilogue": "job.epilogue",
    "req_gres": "partitions[].gpus",
    "req_host": "job.directives",
    "req_keepvars": "environments[].variables",
    "req_keepvars_extra": "environments[].variables",
    "req_memory": "partitions[].max_memory and defaults.memory",
    "req_ngpus": "partitions[].gpus and defaults.gpus",
    "req_nprocs": "partitions[].max_cpus and defaults.cpus",
    "req_options": "job.directives",
    "req_partition": "partitions and defaults.partition",
    "req_prologue": "job.prologue",
    "req_qos": "partitions[].qos",
    "req_queue": "partitions and defaults.partition",
    "req_reservation": "reservation",
    "req_runtime": "partitions[].max_walltime and defaults.walltime",
    "req_srun": "interfaces[].command",
}
_ELSEWHERE = "the site's profile"
# What HPCSpawner reads is set by one of these names; what only another class reads is not.
_OURS = ("Spawner", "BatchSpawnerBase", "HPCSpawner")


def ignored_settings(config: Any) -> Iterator[tuple[str, str]]:
    """Every such setting, and where its value belongs."""
    for section in sorted(name for name in config if name.endswith("Spawner") or name in _OURS):
        for trait in sorted(config[section]):
            if trait in _WENT or trait.startswith("req_"):
                yield f"{section}.{trait}", _WENT.get(trait, _ELSEWHERE)
            elif section not in _OURS:
                yield (
                    f"{section}.{trait}",
                    f"c.HPCSpawner.{trait}, if it is a setting of JupyterHub; else {_ELSEWHERE}",
                )
