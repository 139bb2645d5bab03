"""Slurm by slurmrestd, its REST service: the same jobs and words as by its commands, in JSON.

By version 0.0.38 of the interface or 0.0.40 and those after it, as `slurm_api_versions` has them.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from hpcspawner.programs.helper import GIVEN
from hpcspawner.schedulers import slurm_api_versions as versions
from hpcspawner.schedulers import slurm_words as words
from hpcspawner.schedulers.base import Answer, JobLabel, Resources
from hpcspawner.schedulers.countdown import countdown
from hpcspawner.schedulers.nodes import Node, Queued
from hpcspawner.schedulers.rest import NUMBER, said
from hpcspawner.schedulers.slurm import Slurm, record_of, stated, status_of
from hpcspawner.schedulers.slurm_api_versions import count, exit_code, state, text
from hpcspawner.schedulers.slurm_api_words import RULES
from hpcspawner.schedulers.slurm_facts import gpus_of, left, state_of
from hpcspawner.schedulers.state import JobState, JobStatus, Record
from hpcspawner.site.profile import Access

_SLURM, _ACCOUNTING = f"/slurm/{versions.PLACE}", f"/slurmdb/{versions.PLACE}"
_NUMBER = re.compile(rf"\({re.escape(NUMBER)}(-?\d{{1,6}})\)", re.ASCII)
# slurm_errno.h: what the controller itself refuses, and what slurmrestd finds wrong in a request. All other numbers
# are of the ways between them; -1 and 5005 are what a token comes to that slurmctld does not accept.
_REFUSALS = (range(2000, 4000), range(9001, 9002))
_NOTHING_FOUND = 9003
_SAYS_NOTHING = frozenset({-1, 1007, 5005})
_HINT = (
    "slurmrestd says no more than this where slurmctld or slurmdbd does not accept the Hub's token: if it stays so, "
    "compare the file of scheduler.api_key_file with jwt_key in slurm.conf, AuthAltTypes, and the clocks"
)


class SlurmApi(Slurm):
    """Slurm without its commands. An argv is a method and a path."""

    rules = RULES
    inventory = None
    standing = None
    submit_command = ("POST", f"{_SLURM}/job/submit")
    cancel_words = ("DELETE", GIVEN)
    query_variables: Mapping[str, str] = {}
    estimate_words = ()

    def __init__(
        self, leave_out: Collection[str] = (), tag: str = "comment", environment: Mapping[str, str] | None = None
    ):
        """`environment` is what jobs find in theirs besides what Slurm sets."""
        super().__init__(leave_out, tag)
        self._environment = dict(environment or {})

    @classmethod
    def from_profile(cls, access: Access, spool: Path, leave_out: Collection[str]) -> Self:
        """With what sbatch would have in its environment."""
        own = {"PATH": os.pathsep.join(access.path), "LC_ALL": "C"}
        return cls(leave_out, access.tag, {**access.variables, **own})

    # ---- submit

    def options(self, resources: Resources, label: JobLabel) -> list[tuple[str, str]]:
        """Without a signal: the interface takes none that would reach the script."""
        return [pair for pair in super().options(resources, label) if pair[0] != "signal"]

    def script_lines(self, resources: Resources) -> str:
        """With the warning before the wall time ends."""
        return f"{super().script_lines(resources)}\n{countdown('slurmrestd', resources)}"

    def submit_input(self, options: Sequence[tuple[str, str]], script: str) -> bytes:
        """Script and options as JSON, which get the version's words when it is known."""
        return versions.neutral(options, script, {**self._environment, **_tasks(dict(options))})

    def parse_submit(self, out: str) -> str:
        """The job's number; a job that is held has an error too."""
        return self.valid_id(str(said(out).get("job_id")))

    # ---- the list of jobs

    def query_command(self, mark: str) -> list[str]:
        """All jobs that the controller remembers, in JSON, which has its own quotation marks."""
        return ["GET", f"{_SLURM}/jobs"]

    def parse_query(self, out: str, mark: str) -> dict[str, JobStatus]:
        """Jobs by id. An answer with an error, or without a list, is not believed."""
        jobs: dict[str, JobStatus] = {}
        for job in _rows(out, "jobs"):
            job_id = self.valid_id(str(job.get("job_id")))
            # Clusters of a federation may both list a job; the listing does not show which of them is right.
            jobs[job_id] = JobStatus(JobState.UNKNOWN) if job_id in jobs else self._status(job)
        return jobs

    def _status(self, job: Mapping[str, Any]) -> JobStatus:
        return status_of(
            state(job, "job_state"),
            text(job, "batch_host"),
            text(job, "user_name"),
            text(job, "start_time"),
            _reason(job),
            text(job, "comment" if self._tag == "comment" else "name"),
        )

    # ---- one job

    def cancel_command(self, job_id: str) -> list[str]:
        """As scancel: SIGTERM first, SIGKILL after the site's KillWait."""
        return ["DELETE", f"{_SLURM}/job/{self.valid_id(job_id)}"]

    def details_command(self, job_id: str) -> list[str]:
        """All that the controller remembers of it."""
        return ["GET", f"{_SLURM}/job/{self.valid_id(job_id)}"]

    def shortened(self, details: str) -> str:
        """Without what newer versions say of each core."""
        try:
            jobs = _rows(details, "jobs")
        except ValueError:
            return details
        return json.dumps([versions.plain(job) for job in jobs], indent=1)

    def runs_command(self, job_id: str, mark: str) -> list[str]:
        """The same record; JSON keeps a user's words apart."""
        return self.details_command(job_id)

    def parse_runs(self, job_id: str, out: str, mark: str) -> int:
        """Slurm counts how often it put the job back; a job that waits has not been started again yet."""
        job = _one(out, job_id)
        if not job or type(job.get("restart_cnt")) is not int:
            raise ValueError(f"slurmrestd does not say how often the job was started: {out[:200]!r}")
        now = state(job, "job_state")
        waits = words.STATES.get(now) in (JobState.PENDING, JobState.HELD)
        return int(job["restart_cnt"]) + (not waits or now == "CONFIGURING")

    def end_commands(self, job_id: str, mark: str) -> list[list[str]]:
        """The controller knows exit codes and reasons, and forgets; the accounting knows who cancelled, and is late."""
        return [self.details_command(job_id), ["GET", f"{_ACCOUNTING}/job/{self.valid_id(job_id)}"]]

    def parse_end(self, job_id: str, outs: Sequence[str], mark: str, account: Callable[[int], str]) -> Record | None:
        """By the controller where it still knows the job: the accounting says CANCELLED before the job is gone."""
        past = _accounted(_one(outs[1], job_id))
        found = _controlled(_one(outs[0], job_id)) or past
        if words.STATES.get(found.get("State", "")) is not JobState.ENDED:
            return None
        return replace(record_of(found, past.get("By", "")), node=stated(found["NodeList"]))

    def visibility_command(self) -> list[str]:
        """The interface does not show the configuration."""
        return []

    # ---- what a failed request means

    def unreachable(self, answer: Answer) -> bool:
        """All that is no refusal by its number."""
        numbers = [int(number) for number in _NUMBER.findall(answer.err)]
        if words.NO_ANSWER.search(answer.err):
            return True
        return not any(number in refusals for number in numbers for refusals in _REFUSALS)

    def hint(self, answer: Answer) -> str:
        """What may be behind an error that says nothing."""
        numbers = {int(number) for number in _NUMBER.findall(answer.err)}
        return _HINT if numbers & _SAYS_NOTHING else ""

    def already_gone(self, answer: Answer) -> bool:
        """By the controller's words, or where the accounting has no such job."""
        return super().already_gone(answer) or f"({NUMBER}{_NOTHING_FOUND})" in answer.err

    def not_set_up(self, answer: Answer) -> str:
        """There is no file of Slurm's on the Hub that could be missing."""
        return ""

    # ---- what is free and who waits

    def nodes_command(self, mark: str) -> list[str]:
        """All nodes."""
        return ["GET", f"{_SLURM}/nodes"]

    def parse_nodes(self, out: str, mark: str) -> Iterator[Node]:
        """With GPUs by type."""
        return (_node(node) for node in _rows(out, "nodes"))

    def waiting_command(self, mark: str) -> list[str]:
        """The list of all jobs: the interface has no shorter one."""
        return self.query_command(mark)

    def parse_waiting(self, out: str, mark: str) -> dict[str, Queued]:
        """In the order of their priorities. A job that may run in several partitions waits in each."""
        order: dict[str, list[tuple[int, int, str]]] = {}
        for position, job in enumerate(_rows(out, "jobs")):
            if state(job, "job_state") == "PENDING":
                for name in text(job, "partition").split(","):
                    order.setdefault(name, []).append((-count(job, "priority"), position, text(job, "job_id")))
        return {name: Queued(len(jobs), tuple(one for *_, one in sorted(jobs))) for name, jobs in order.items()}

    def open_command(self, mark: str) -> list[str]:
        """All partitions."""
        return ["GET", f"{_SLURM}/partitions"]

    def parse_open(self, out: str, mark: str) -> dict[str, bool]:
        """A partition that is down, drained or inactive starts no job."""
        return {text(one, "name"): _partition_state(one) == "UP" for one in _rows(out, "partitions")}


def _tasks(options: Mapping[str, str]) -> dict[str, str]:
    """What sbatch sets for srun and mpirun, and the controller does not."""
    names = {"ntasks-per-node": "SLURM_NTASKS_PER_NODE", "cpus-per-task": "SLURM_CPUS_PER_TASK"}
    return {variable: options[option] for option, variable in names.items() if option in options}


def _rows(out: str, name: str) -> list[dict[str, Any]]:
    answer = said(out)
    rows = answer.get(name)
    if answer.get("errors") or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"no list of {name}: {out[:200]!r}")
    return rows


def _one(out: str, job_id: str) -> dict[str, Any]:
    """What an answer tells of this job; nothing where it does not tell of it, and of it alone."""
    try:
        rows = [row for row in _rows(out, "jobs") if str(row.get("job_id")) == job_id]
    except ValueError:
        return {}
    # The accounting has a record for each time that a number was given anew; the last one counts.
    return rows[-1] if rows else {}


def _reason(job: Mapping[str, Any]) -> str:
    # As squeue has it.
    return text(job, "state_description") or text(job, "state_reason")


def _controlled(job: Mapping[str, Any]) -> dict[str, str]:
    """The controller's record in the words of `record_of`."""
    if not job:
        return {}
    code = exit_code(job.get("exit_code"))
    found = {"State": state(job, "job_state"), "Reason": text(job, "state_reason"), "exit_code": code}
    return {**found, "NodeList": text(job, "nodes")}


def _accounted(job: Mapping[str, Any]) -> dict[str, str]:
    """The accounting's record in the same words; `By` is the account that cancelled it."""
    now, code = job.get("state"), job.get("exit_code")
    if not isinstance(now, dict) or not isinstance(code, dict):
        return {}
    found = {"State": state(now, "current"), "exit_code": exit_code(code)}
    by = text(job, "kill_request_user") if found["State"] == "CANCELLED" else ""
    return {**found, "By": by, "NodeList": text(job, "nodes")}


def _partition_state(partition: Mapping[str, Any]) -> str:
    inner = partition.get("partition")
    return text(inner, "state") if isinstance(inner, dict) else text(partition, "state")


def _node(node: Mapping[str, Any]) -> Node:
    cores = count(node, "cpus")
    idle = max(cores - count(node, "alloc_cpus"), 0)
    gpus, used = gpus_of(text(node, "gres")), gpus_of(text(node, "gres_used"))
    memory = count(node, "real_memory")
    flags, partitions = node.get("state_flags"), node.get("partitions")
    found = node.get("state")
    states = {str(one).upper() for one in (*(found if isinstance(found, list) else [found]), *(flags or ()))}
    return Node(
        partitions=tuple(map(str, partitions or ())),
        state=state_of(states, cores, idle),
        cores=cores,
        idle_cores=idle,
        idle_memory=max(memory - count(node, "alloc_memory"), 0) if memory else None,
        gpus=gpus,
        idle_gpus=left(gpus, used) if node.get("gres_used") else {},
    )
