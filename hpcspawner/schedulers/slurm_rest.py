"""Slurm by its REST service, slurmrestd: the same jobs and words as by its commands, in JSON."""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Self

from hpcspawner.programs.helper import GIVEN
from hpcspawner.schedulers.rest import VERSION
from hpcspawner.schedulers.slurm import Slurm, record_of, status_of
from hpcspawner.schedulers.state import JobStatus, Record

_SLURM, _ACCOUNTING = f"/slurm/{VERSION}", f"/slurmdb/{VERSION}"
# sbatch's long names in the words of the interface, and the form of their values.
_TEXT = {
    **{name: name for name in ("comment", "partition", "account", "qos", "reservation", "gres", "signal")},
    **{"job-name": "name", "constraint": "constraints", "dependency": "dependency"},
}
_COUNTS = {"ntasks-per-node": "tasks_per_node", "cpus-per-task": "cpus_per_task"}
_FLAGS = {
    "exclusive": ("exclusive", "exclusive"),
    "requeue": ("requeue", True),
    "no-requeue": ("requeue", False),
    "hold": ("hold", True),
    "kill-on-invalid-dep": ("kill_on_invalid_dependency", True),
}


def submission(options: Sequence[tuple[str, str]], script: str, environment: dict[str, str]) -> bytes:
    """The body of a submit. Raises ValueError for an option that the interface has no word for."""
    job: dict[str, Any] = {
        "current_working_directory": "/",
        "standard_output": "/dev/null",
        "standard_error": "/dev/null",
        "environment": environment,
    }
    for option, value in options:
        name, said = _property(option, value)
        job[name] = said
    return json.dumps({"script": script, "job": job}).encode()


def _property(option: str, value: str) -> tuple[str, Any]:
    if option in _TEXT:
        return _TEXT[option], value
    if option in _COUNTS:
        return _COUNTS[option], int(value)
    if option in _FLAGS:
        return _FLAGS[option]
    if option == "nodes":
        return "nodes", [int(value), int(value)]
    if option == "time":
        return "time_limit", _minutes(value)
    if option == "mem":
        return "memory_per_node", int(value.removesuffix("M"))
    raise ValueError(f"Slurm's REST interface has no word for the option {option!r}; leave it out of the profile")


def _minutes(clock: str) -> int:
    days, _, rest = clock.rpartition("-")
    hours, minutes, seconds = map(int, rest.split(":"))
    return (int(days or 0) * 24 + hours) * 60 + minutes + bool(seconds)
