"""The versions of slurmrestd's interface: which one a service has, what a job is in it, and what its records hold.

0.0.38 is of Slurm 22.05 to 23.02. From 0.0.40 on (Slurm 23.11) numbers, states and exit codes are objects and lists,
and some of the words for a job are others. A record is read by its shape, so there is one reader for all.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hpcspawner.schedulers import slurm_words as words
from hpcspawner.schedulers.slurm_api_words import JOB_WORDS
from hpcspawner.schedulers.state import JobState
from hpcspawner.units import Memory, Walltime

PLACE = "{version}"
"""Stands for the version in a path, until it is known."""
OVERVIEW = "/openapi/v3"
"""Where a service says what it has."""

_OLD = "v0.0.38"
KNOWN = (_OLD, *(f"v0.0.{number}" for number in range(40, 46)))
"""Those that the Hub speaks; of those that a service has, the last one is used."""
_OFFERED = re.compile(r"slurm\\?/(v0\.0\.\d{1,4})\\?/job\\?/submit", re.ASCII)

# Numbers that are an object may also say that there is none, or no limit.
_NUMBER = frozenset({"set", "infinite", "number"})


def newest(overview: str) -> str:
    """The version to use, by a service's overview; LookupError, with what it has, if there is none."""
    offered = set(_OFFERED.findall(overview))
    found = [version for version in KNOWN if version in offered]
    if not found:
        raise LookupError(", ".join(sorted(offered)) or "none")
    return found[-1]


# ---- what is submitted


def neutral(options: Iterable[tuple[str, str]], script: str, environment: Mapping[str, str]) -> bytes:
    """A job before the version is known: sbatch's options with their values."""
    return json.dumps({"script": script, "environment": dict(environment), "options": list(options)}).encode()


def body(version: str, job: bytes) -> bytes:
    """The same in the words of a version. Raises ValueError for an option that this version has no word for."""
    asked = json.loads(job)
    options: list[tuple[str, str]] = [(name, value) for name, value in asked["options"]]
    fixed = {"current_working_directory": "/", "standard_output": "/dev/null"}
    if version == _OLD:
        words_of_job = dict(_old_word(option, value) for option, value in options)
        environment: Any = asked["environment"]
    else:
        words_of_job = _new_words(options)
        environment = [f"{name}={value}" for name, value in asked["environment"].items()]
    return json.dumps(
        {"script": asked["script"], "job": {**fixed, "environment": environment, **words_of_job}}
    ).encode()


def _old_word(option: str, value: str) -> tuple[str, Any]:
    if option == "mem" and value == "0":
        # All of a node's memory; of memory_per_node the interface leaves 0 out.
        return "memory_per_cpu", 0
    if option == "exclusive" and not value:
        return "exclusive", "exclusive"
    if option == "kill-on-invalid-dep":
        return JOB_WORDS[option], value == "yes"
    if option not in JOB_WORDS:
        raise ValueError(f"slurmrestd has no word for the option {option!r}")
    return JOB_WORDS[option], value or True


def _of(number: int) -> dict[str, Any]:
    return {"set": True, "number": number}


def _whole(value: str) -> int:
    if not re.fullmatch(r"-?\d{1,10}", value, re.ASCII):
        raise ValueError(f"{value!r} is no whole number, which this version of slurmrestd wants")
    return int(value)


def _minutes(value: str) -> dict[str, Any]:
    return _of(max(1, -(-Walltime.parse(value).seconds // 60)))


def _mebibytes(value: str) -> int:
    return 0 if value == "0" else Memory.parse(value if value[-1:].isalpha() else f"{value}M").mib


def _list(value: str) -> list[str]:
    return value.split(",")


def _kinds(value: str) -> list[str]:
    return [one.strip().upper() for one in value.split(",")]


def _tres(value: str) -> str:
    return ",".join(f"gres/{one}" for one in value.split(","))


def _gpus(value: str) -> str:
    return f"gres/gpu:{value}"


_Word = tuple[str, Callable[[str], Any]]
# Each was submitted by version 0.0.42 on Slurm 24.11 and looked at by scontrol.
_NEW: Mapping[str, _Word] = {
    **{
        option: (word, str)
        for option, word in {
            **{"job-name": "name", "comment": "comment", "partition": "partition", "nodes": "nodes"},
            **{"account": "account", "qos": "qos", "reservation": "reservation", "constraint": "constraints"},
            **{"dependency": "dependency", "cpu-freq": "cpu_frequency", "licenses": "licenses"},
            **{"mail-user": "mail_user", "mcs-label": "mcs_label"},
        }.items()
    },
    **{
        option: (word, _whole)
        for option, word in {
            **{"ntasks-per-node": "tasks_per_node", "cpus-per-task": "cpus_per_task", "ntasks": "tasks"},
            **{"mincpus": "minimum_cpus_per_node", "nice": "nice", "ntasks-per-socket": "tasks_per_socket"},
            **{"sockets-per-node": "sockets_per_node", "threads-per-core": "threads_per_core"},
        }.items()
    },
    "time": ("time_limit", _minutes),
    "time-min": ("time_minimum", _minutes),
    "mem": ("memory_per_node", lambda value: _of(_mebibytes(value))),
    "mem-per-cpu": ("memory_per_cpu", lambda value: _of(_mebibytes(value))),
    "tmp": ("temporary_disk_per_node", _mebibytes),
    "exclusive": ("shared", lambda value: [value or "none"]),
    "gres": ("tres_per_node", _tres),
    "gpus-per-node": ("tres_per_node", _gpus),
    "gpus": ("tres_per_job", _gpus),
    "requeue": ("requeue", lambda _value: True),
    "no-requeue": ("requeue", lambda _value: False),
    "hold": ("hold", lambda _value: True),
    "exclude": ("excluded_nodes", _list),
    "nodelist": ("required_nodes", _list),
    "mail-type": ("mail_type", _kinds),
    "begin": ("begin_time", lambda value: _of(_whole(value))),
    "deadline": ("deadline", _whole),
    "kill-on-invalid-dep": ("flags", lambda value: ["KILL_INVALID_DEPENDENCY"] if value == "yes" else []),
}


def _new_words(options: Iterable[tuple[str, str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for option, value in options:
        if option not in _NEW:
            raise ValueError(f"slurmrestd has no word for the option {option!r} in the version that it has")
        word, form = _NEW[option]
        if word in found:
            # tres_per_node is what both --gres and --gpus-per-node come to.
            raise ValueError(f"slurmrestd has one word for the option {option!r} and another one that was given")
        found[word] = form(value)
    return found


# ---- what a record holds


def text(row: Mapping[str, Any], name: str) -> str:
    """A value as text; "" where there is none. Of a list the first."""
    value = row.get(name)
    if isinstance(value, list):
        value = value[0] if value else None
    value = _number(value)
    return "" if value is None else str(value)


def plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A record's own values: numbers as such, without what is made of parts."""
    shown = {name: _number(value) for name, value in row.items()}
    return {name: value for name, value in shown.items() if not isinstance(value, Mapping)}


def _number(value: Any) -> Any:
    if isinstance(value, Mapping) and value.keys() >= _NUMBER:
        return value["number"] if value["set"] else None
    return value


def count(row: Mapping[str, Any], name: str) -> int:
    """A number above 0; 0 for anything else."""
    value = _number(row.get(name))
    return value if type(value) is int and value > 0 else 0


def state(row: Mapping[str, Any], name: str) -> str:
    """A job's state as squeue writes it: a list has the base state first, then what hides it."""
    value = row.get(name)
    if not isinstance(value, list):
        return "" if value is None else str(value)
    base, *flags = [str(one) for one in value] or [""]
    hiding = [flag for flag in flags if words.STATES.get(flag) is not None]
    # What keeps its node, or of which Slurm has not decided, is not taken for gone.
    unsure = [flag for flag in hiding if words.STATES[flag] is JobState.UNKNOWN]
    return next(iter([*unsure, *hiding]), base)


def exit_code(value: Any) -> str:
    """As sacct prints it, `code:signal`, or what wait(2) gave, where it is a number."""
    if type(value) is int:
        return str(value) if value > 0 else "0"
    if not isinstance(value, Mapping):
        return ""
    signal = value.get("signal")
    signal = signal if isinstance(signal, Mapping) else {}
    number = count(signal, "signal_id") or count(signal, "id")
    return f"{count(value, 'return_code')}:{number}"
