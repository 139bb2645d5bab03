"""The Hub's own questions to a scheduler, as a closed list: each a verb, its words, and the command that asks it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpcspawner.schedulers.base import Scheduler

JOBS, DETAILS, RUNS, VISIBILITY, END = "jobs", "details", "runs", "visibility", "end"
"""The verbs about jobs; a scheduler may have several commands that ask how one ended: `end0`, `end1` …"""
NODES, WAITING, OPEN, RESERVATIONS, ACCOUNTS = "nodes", "waiting", "open", "reservations", "accounts-"
"""Those about the cluster; the accounting may be asked by several commands, each with its name behind `accounts-`."""

# What stands for a job's id and a mark while a template is made: one of these is an id to every scheduler.
_SAMPLE_IDS = ("9182736455", "9182736455.hpcspawner")
_SAMPLE_MARK = "5a17b0c4d9e2f386"


@dataclass(frozen=True, slots=True)
class Question:
    """A verb as it is asked: its words, and the command with these words put in."""

    verb: str
    words: tuple[str, ...]
    argv: Sequence[str]


@dataclass(frozen=True, slots=True)
class Template:
    """The command of a verb: `kinds` are those of its words, which stand in it as `{job}` and `{mark}`.

    `variables` are what its environment has besides the site's.
    """

    kinds: tuple[str, ...]
    template: list[str]
    variables: Mapping[str, str]


def questions(scheduler: Scheduler) -> dict[str, Template]:
    """All verbs that this scheduler can answer. Raises ValueError for one whose ids are of no known form."""
    job_id = next((one for one in _SAMPLE_IDS if re.fullmatch(scheduler.job_id_pattern, one, re.ASCII)), None)
    if job_id is None:
        raise ValueError(
            f"the scheduler {scheduler.name!r} can't be asked by SSH: its job ids have a form of their own"
        )
    asked: dict[str, tuple[tuple[str, ...], Sequence[str]]] = {
        JOBS: (("mark",), scheduler.query_command(_SAMPLE_MARK)),
        DETAILS: (("job",), scheduler.details_command(job_id)),
        RUNS: (("job", "mark"), scheduler.runs_command(job_id, _SAMPLE_MARK)),
        VISIBILITY: ((), scheduler.visibility_command()),
        NODES: (("mark",), scheduler.nodes_command(_SAMPLE_MARK)),
        WAITING: (("mark",), scheduler.waiting_command(_SAMPLE_MARK)),
        OPEN: (("mark",), scheduler.open_command(_SAMPLE_MARK)),
    }
    if standing := scheduler.standing:
        asked[RESERVATIONS] = ((), standing.reservations_command)
        asked |= {f"{ACCOUNTS}{name}": ((), argv) for name, argv in standing.accounts_commands.items()}
    for number, argv in enumerate(scheduler.end_commands(job_id, _SAMPLE_MARK)):
        asked[f"{END}{number}"] = (("job", "mark"), argv)
    return {
        verb: Template(
            kinds,
            [word.replace(job_id, "{job}").replace(_SAMPLE_MARK, "{mark}") for word in argv],
            scheduler.query_variables if verb == JOBS else {},
        )
        for verb, (kinds, argv) in asked.items()
        if argv
    }
