"""What the drills found, as a table: written to a file, and compared with the page that shows it."""

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path

import jupyterhub

ROOT = Path(__file__).parents[3]
# Two suites run drills, on one JupyterHub each.
RESULTS = ROOT / "build" / f"drills-jupyterhub-{jupyterhub.__version__}.json"
PAGE = ROOT / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- drills: begin -->", "<!-- drills: end -->"
COLUMNS = ("fault", "stage", "scheduler", "jobs", "user_sees", "token", "within_s", "log")
TITLES = (
    "Fault",
    "Server was",
    "Scheduler",
    "Jobs in the end",
    "User sees",
    "Server's token",
    "Within",
    "The Hub logs",
)


@dataclass(frozen=True)
class Row:
    """One drill's result; all but `measured_s` is the same in every run."""

    fault: str
    stage: str
    scheduler: str
    jobs: str
    user_sees: str
    token: str
    within_s: int
    log: str
    measured_s: float

    @property
    def key(self):
        return (self.fault, self.stage, self.scheduler)

    @property
    def line(self):
        """The row in Markdown."""
        values = {**asdict(self), "within_s": f"{self.within_s} s"}
        return "| " + " | ".join(values[name].replace("|", "\\|") or "-" for name in COLUMNS) + " |"


rows: list[Row] = []


def record(seat, fault, within_s, *, told="", log=""):
    """Note what one seat's drill came to, read from the cluster, the Hub and its log.

    `told` and `log` are patterns: of what the user must be told in the end, of a line that the Hub must have logged.
    """
    ground = seat.ground
    line = matched(ground.log(), log.format(user=seat.user)) if log else ""
    seen = ground.sees(seat.user)
    assert re.search(told, seen, re.IGNORECASE), f"{seat.user} is not told {told!r} but {seen!r}"
    after = stable(seen, seat.user)
    before = stable(seat.during, seat.user)
    rows.append(
        Row(
            fault=fault,
            stage=seat.stage,
            scheduler=ground.scheduler,
            jobs=ground.jobs(seat.user),
            user_sees=f"{before} → {after}" if before and before != after else after,
            token=ground.token(seat.user),
            within_s=within_s,
            log=stable(line, seat.user),
            measured_s=round(seat.seconds, 1),
        )
    )


def matched(log, pattern):
    """The first line of the Hub's log that has the pattern, without its time and place."""
    for line in log.splitlines():
        words = re.sub(r"^\[\w [^\]]*\]\s*", "", line)
        if re.search(pattern, words):
            return words
    raise AssertionError(f"the Hub's log has no line with {pattern!r}:\n{log}")


def stable(text, user):
    """The text without what differs from run to run.

    That is numbers of jobs, names of nodes, times, which of two jobs is next in line, the list of the last jobs, and a
    program's log, which may come through or not.
    """
    for pattern, word in (
        (r" More about this(?= |$)", ""),
        (r"The last lines of its log .*?(?=(Start again with \S+ of memory )?Start again Change and try again|$)", ""),
        (
            r" (Launch Server|(Start again with \S+ of memory )?Start again Change and try again)( The last jobs .*)?$",
            "",
        ),
        (rf"\b{user}\b", "USER"),
        (r"/\S*/light-server\b", "light-server"),
        (r"\b([Jj]ob|id) \d+(\.head)?\b", r"\1 N"),
        (r"-\d+(\.head)?-\w+\.log\b", "-N-TAG.log"),
        (r"\bn[123]\b", "NODE"),
        (r"\b\d\d:\d\d on \d+ \w+ 20\d\d \(\w+\)", "TIME"),
        (r" Expected start: TIME\.?", ""),
        (
            r"The job is next in line and is waiting for nodes to become free|Jobs with a higher priority are ahead of "
            r"this one",
            "Others come first",
        ),
        # Whether the Hub gives a silent server up before Slurm gives its node up is a matter of seconds.
        (
            r"Your server (did not start|has stopped Your last server ended at TIME\.) "
            r"(Node NODE failed, which ended the job \(NODE_FAIL\)\.)( \(job N\))?",
            r"\2",
        ),
    ):
        text = re.sub(pattern, word, text.strip())
    return " ".join(text.split())


def save():
    """Keep the rows of this session for people and for the page's test."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def written():
    """The page's rows: {(fault, stage, scheduler): line}."""
    text = PAGE.read_text(encoding="utf-8")
    lines = text.partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    return {tuple(line.strip("| ").split(" | ")[:3]): line for line in lines}


def rewrite(found):
    """Put the rows into the page; rows of drills that did not run in this session stay as they are."""
    kept = written() | {row.key: row.line for row in found}
    head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    lines = ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES), *kept.values()]
    PAGE.write_text("\n".join([head + BEGIN, "", *lines, "", END + rest.partition(END)[2]]), encoding="utf-8")


def wants_writing():
    """Whether the page is to be written, not read."""
    return os.environ.get("DRILLS") == "write"
