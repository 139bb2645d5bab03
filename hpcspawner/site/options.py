"""Which options of a submit command a site may add or take away, and which carry the life of a job."""

import re
from collections.abc import Mapping

# Option: what to do in its place.
_SLURM: Mapping[str, str] = {
    "job-name": "the Hub names its jobs itself",
    "comment": 'the Hub recognises its jobs by it; write tag = "job-name" in [scheduler], and the comment is yours',
    "output": "the job script opens its own log; job.log names the folder",
    "error": "the job script opens its own log; job.log names the folder",
    "input": "the job script reads nothing",
    "chdir": "the launcher goes to the user's folder; defaults.directory and [directories] name it",
    "export": "the job gets the environment of the scheduler's commands; scheduler.variables adds to it, and "
    'job.leave_out = ["export"] leaves the option out',
    "export-file": "the job gets the environment of the scheduler's commands; scheduler.variables adds to it",
    "array": "each server is one job",
    "dependency": "the Hub makes follow-up jobs by it",
    "kill-on-invalid-dep": "the Hub makes follow-up jobs by it",
    "clusters": "the Hub asks only one cluster; give the other one its own Hub or profile",
    "cluster-constraint": "the Hub asks only one cluster; give the other one its own Hub or profile",
    "requeue": "write job.requeue = true",
    "no-requeue": "it is the default without job.requeue",
    "signal": "write limits.warning",
    "uid": "the job is submitted as its user",
    "gid": "the job is submitted as its user",
    "wrap": "the Hub writes the job script",
    "wait": "the Hub does not wait for the end of a job in sbatch",
    "test-only": "no job would be submitted",
    "parsable": "the Hub's own",
    "ignore-pbs": "the Hub's own",
    "quiet": "the Hub reads what sbatch prints",
    "verbose": "the Hub reads what sbatch prints",
    "help": "no job would be submitted",
    "usage": "no job would be submitted",
    "version": "no job would be submitted",
}
# Full names that begin like one of those; other beginnings sbatch completes itself.
_SLURMS_OWN_WORDS = frozenset({"wait-all-nodes"})
_TORQUE: Mapping[str, str] = {
    "N": "the Hub recognises its jobs by it",
    "o": "the job script opens its own log; job.log names the folder",
    "e": "the job script opens its own log; job.log names the folder",
    "j": "the job script opens its own log; job.log names the folder",
    "k": "the job script opens its own log; job.log names the folder",
    "C": "the job script contains no options",
    "S": "the job script is bash",
    "t": "each server is one job",
    "r": "write job.requeue",
    "q": "partitions[].name is the queue; write another profile for another server's queue",
    "P": "the job is submitted as its user",
    "u": "the job is submitted as its user",
    "I": "the Hub's jobs are not interactive",
    "X": "the Hub's jobs are not interactive",
    "z": "the Hub reads what qsub prints",
    "F": "the job script takes no arguments",
}

# What may be left out. Torque's are options, and the names of resources of `-l`.
_MAY_GO: Mapping[str, tuple[str, ...]] = {
    "slurm": (
        *("partition", "nodes", "ntasks-per-node", "cpus-per-task", "mem", "exclusive", "gres", "account", "qos"),
        *("reservation", "constraint", "export", "no-requeue"),
    ),
    "torque": ("q", "A", "r", "nodes", "mem", "pmem", "naccesspolicy", "qos", "advres"),
    "local": (),
}


def why_refused(scheduler: str, option: str, value: str = "", *, tag: str = "comment") -> str:
    """What to do in place of a directive that would change what the Hub needs of a job; "" for all others.

    sbatch completes the beginning of a long option, so that counts as the option. `tag` is the option that has the
    Hub's mark.
    """
    if scheduler == "torque":
        if option == "W" and "depend" in value:
            return "the Hub makes follow-up jobs by depend"
        return _TORQUE.get(option, "")
    if scheduler == "slurm" and "constraint".startswith(option) and 2 < len(option) < len("constraint"):
        return "write constraint in full, so that it is joined to what users choose"
    if scheduler == "slurm" and option not in _SLURMS_OWN_WORDS:
        for name, instead in _SLURM.items():
            if name.startswith(option) and len(option) > 2 and not (name == "comment" and tag != "comment"):
                return instead
    return ""


def may_leave_out(scheduler: str) -> tuple[str, ...]:
    """Options that a job's life does not hang on."""
    return _MAY_GO[scheduler]


# Of the environment of a scheduler's command.
_OWN = {
    "PATH": "write scheduler.path",
    "LC_ALL": "the Hub reads what the commands print, which must not be translated",
    "LANG": "the Hub reads what the commands print, which must not be translated",
    "LANGUAGE": "the Hub reads what the commands print, which must not be translated",
    "LD_PRELOAD": "install a library for every command system-wide",
    **dict.fromkeys(("HOME", "USER", "LOGNAME", "SHELL"), "they belong to the user"),
}
# They stand for options of commands and for layouts of their answers.
_OPTIONS = re.compile(
    r"SBATCH_.*|S(?:QUEUE|CANCEL|CONTROL|ACCT|INFO)_.*|SLURM_(?:CLUSTERS|TIME_FORMAT|JSON|YAML)|PBS_DPREFIX|PBSDEBUG"
)


def why_no_variable(name: str) -> str:
    """What to do in place of a variable for the commands that would change their answers; "" for others."""
    if _OPTIONS.fullmatch(name):
        return "it sets an option of a command or changes what the command prints; write options as job.directives"
    return _OWN.get(name, "")
