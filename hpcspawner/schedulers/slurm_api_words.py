"""What slurmrestd calls sbatch's options, and which of them a profile may hold."""

from collections.abc import Mapping
from dataclasses import fields

from hpcspawner.schedulers import slurm_words
from hpcspawner.schedulers.slurm_words import SlurmRules

# By version 0.0.38 of the interface on Slurm 22.05; each was submitted there and looked at by scontrol. What is not
# here was refused, or ended slurmrestd, or has no effect.
JOB_WORDS: Mapping[str, str] = {
    "job-name": "name",
    "comment": "comment",
    "partition": "partition",
    "time": "time_limit",
    "nodes": "nodes",
    "exclusive": "exclusive",
    "mem": "memory_per_node",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "gres": "gres",
    "account": "account",
    "qos": "qos",
    "reservation": "reservation",
    "constraint": "constraints",
    "requeue": "requeue",
    # `requeue: false` is taken and makes no difference.
    "no-requeue": "no_requeue",
    "dependency": "dependency",
    "kill-on-invalid-dep": "kill_on_invalid_dependency",
    # A site's own.
    "begin": "begin_time",
    "cores-per-socket": "cores_per_socket",
    "cpu-freq": "cpu_frequency",
    "deadline": "deadline",
    "delay-boot": "delay_boot",
    "exclude": "exclude_nodes",
    "gpus": "gpus",
    "gpus-per-node": "gpus_per_node",
    "gres-flags": "gres_flags",
    "hold": "hold",
    "licenses": "licenses",
    "mail-type": "mail_type",
    "mail-user": "mail_user",
    "mcs-label": "mcs_label",
    "mem-per-cpu": "memory_per_cpu",
    "mincpus": "minimum_cpus_per_node",
    "nice": "nice",
    "nodelist": "nodelist",
    "ntasks": "tasks",
    "ntasks-per-socket": "tasks_per_socket",
    "sockets-per-node": "sockets_per_node",
    "threads-per-core": "threads_per_core",
    "time-min": "time_minimum",
    "tmp": "temporary_disk_per_node",
}


class SlurmApiRules(SlurmRules):
    """slurmrestd takes whole names alone, and not all."""

    __slots__ = ()

    def why_refused(self, option: str, value: str, tag: str) -> str:
        """As for sbatch, and what slurmrestd has no word for."""
        why = super().why_refused(option, value, tag)
        if why or option in JOB_WORDS:
            return why
        return "slurmrestd has no word for it that the Hub knows; write the option's whole name, or leave it out"


RULES = SlurmApiRules(**{one.name: getattr(slurm_words.RULES, one.name) for one in fields(slurm_words.RULES)})
"""What a profile may say of Slurm where the Hub reaches it by slurmrestd."""
