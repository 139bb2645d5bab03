"""Which variables the scheduler's commands may find in their environment."""

import re

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
