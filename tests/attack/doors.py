"""Every place where bytes of somebody else come in, and what must hold there whatever they are.

A door is a function of bytes. It raises nothing where they are refused in the words that the door is to use, and
AssertionError, or whatever escapes from the code behind it, where something is wrong.
"""

import json
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from pydantic import ValidationError
from support.jobs import a_cluster
from support.schedulers import EVERY

from attack.anatomy import ALICE, Scripts, full_site
from hpcspawner.errors import ProfileError, RequestError, ServerLost
from hpcspawner.hub import bodies
from hpcspawner.nodes import calls, certificates
from hpcspawner.pages.pages import Draft, as_hub_error, render_form
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import JobRequest
from hpcspawner.request.options import OPTIONS
from hpcspawner.schedulers.base import Scheduler
from hpcspawner.schedulers.state import JobState, JobStatus, Record
from hpcspawner.site.profile import SiteProfile, load
from hpcspawner.units import Memory, Walltime, clock_time

LONGEST_REFUSAL = 20_000
"""Characters of a whole refusal, however much was asked: it goes into a page, an answer and the log."""


# ---- options


def options(data: bytes) -> None:
    """A REST body, or options as the Hub has stored them: any JSON."""
    body = _json(data)
    if body is not _NO_JSON:
        for kind in EVERY:
            judged(body, _scripts(kind))


def form(data: bytes) -> None:
    """Form data, or a link's query string."""
    values = parse_qs(data.decode("utf-8", "replace"), keep_blank_values=True)
    body = read(values)
    assert all(isinstance(name, str) and not name.startswith("_") for name in body)
    judged(body, _scripts("slurm"))
    shown_in_form(body)


def stored(data: bytes) -> None:
    """Options as they were stored long ago, filled into the form."""
    body = _json(data)
    if isinstance(body, dict):
        shown_in_form(body)


def judged(body: Any, scripts: Scripts) -> JobRequest | None:
    """What the gate makes of options of any shape: a request that the site offers, or a refusal in words."""
    try:
        request = make(body, scripts.profile, ALICE)
    except RequestError as error:
        _refused_in_words(error)
        return None
    _offered(request, scripts.profile)
    again = make(json.loads(json.dumps(request.choices)), scripts.profile, ALICE)
    assert again == request, "the choices of a request make another one"
    scripts.check(request)
    return request


def shown_in_form(values: Mapping[str, Any]) -> None:
    """The form with these values filled in, and with its refusal, has the site's elements and no others."""
    profile = _scripts("slurm").profile
    try:
        make(values, profile, ALICE)
        problems: tuple[Any, ...] = ()
    except RequestError as error:
        problems = error.problems
    page = render_form(
        a_cluster(profile), (), Draft(values, problems, note="".join(problem.message for problem in problems))
    )
    page.encode()
    _only_our_elements(page)


def _refused_in_words(error: RequestError) -> None:
    assert error.problems
    assert len(str(error)) <= LONGEST_REFUSAL, f"a refusal of {len(str(error))} characters"
    for problem in error.problems:
        problem.message.encode()
        assert problem.message.isprintable(), repr(problem.message)
    as_hub_error(error, _scripts("slurm").profile)


def _offered(request: JobRequest, profile: SiteProfile) -> None:
    asked = request.resources
    partition = profile.partition(asked.partition)
    assert partition is not None
    assert profile.environment(request.environment.name) is request.environment
    assert profile.interface(request.interface.name) is request.interface
    assert request.image is None or profile.image(request.image.name) is request.image
    assert isinstance(request.details, bool)
    assert 0 < asked.walltime.seconds <= partition.max_walltime.seconds
    assert 1 <= asked.nodes <= partition.max_nodes
    assert asked.cpus is None or 1 <= asked.cpus <= partition.max_cpus
    assert asked.memory is None or partition.max_memory is None or asked.memory <= partition.max_memory
    assert 0 <= asked.gpus <= partition.max_gpus
    assert asked.gpu_type is None or asked.gpus <= partition.gpus[asked.gpu_type]
    assert asked.qos is None or asked.qos in partition.qos
    assert set(asked.features) <= set(partition.features)
    offered = partition.accounts or profile.accounts
    assert asked.account is None or not offered or asked.account in offered
    for name in (asked.account, asked.reservation):
        assert name is None or re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.+@:/%=~^-]{0,127}", name)
    assert request.directory.startswith("/")
    assert ".." not in request.directory.split("/")
    assert 0 < request.queue_limit.seconds <= profile.limits.queue.seconds
    assert request.idle_limit is None or profile.limits.idle is None or request.idle_limit <= profile.limits.idle
    assert 0 <= request.renewals <= profile.limits.renewals
    assert set(request.choices) <= set(OPTIONS)


# ---- profiles


def profile(data: bytes) -> None:
    """A profile file."""
    file = _scratch() / "site.toml"
    file.write_bytes(data)
    try:
        found = load(file)
    except ProfileError as error:
        str(error).encode()
        return
    text = str(render_form(a_cluster(found), (), Draft({})))
    _only_our_elements(text)
    try:
        request = make({}, found, ALICE)
    except RequestError as error:
        # A site may insist on an account, for instance.
        _refused_in_words(error)
        return
    assert make(request.choices, found, ALICE) == request
    Scripts(found).render(request).encode()


# ---- units


def units(data: bytes) -> None:
    """What a user writes for a time or a size."""
    text = data.decode("utf-8", "replace")
    for unit in (Walltime, Memory):
        try:
            value = unit.parse(text)
        except ValueError:
            continue
        assert unit.parse(str(value)) == value
        if isinstance(value, Walltime):
            assert Walltime.parse(value.clock()) == value


# ---- schedulers

MARK = "5f0c9a7be1d24386"
"""Stands where a fresh word stands in a real listing."""
BETWEEN = "\n====\n"
"""Stands between the answers of two commands about one job."""


def squeue(data: bytes) -> None:
    """squeue's listing."""
    out = _text(data)
    jobs = _listing(EVERY["slurm"], out)
    assert jobs is None or MARK in out, "a listing is believed that squeue did not print"


def qstat(data: bytes) -> None:
    """qstat's listing, which is XML."""
    out = _text(data)
    jobs = _listing(EVERY["torque"], out)
    if jobs is not None and out.strip():
        assert "<Data" in out, "a listing is believed that is no XML of qstat's"


def qstat_json(data: bytes) -> None:
    """OpenPBS's listing, which is JSON."""
    out = _text(data)
    jobs = _listing(EVERY["openpbs"], out)
    if jobs is not None:
        assert "pbs_server" in out, "a listing is believed that is no JSON of qstat's"


def qstat_json_job(data: bytes) -> None:
    """OpenPBS's words about one job, which are JSON."""
    _one_job(EVERY["openpbs"], "12.vm", [_text(data)])


def local_list(data: bytes) -> None:
    """The embedded scheduler's listing."""
    _listing(EVERY["local"], _text(data))


def squeue_job(data: bytes) -> None:
    """squeue's and sacct's words about one job, between them a line of equals signs."""
    live, _, past = _text(data).partition(BETWEEN)
    _one_job(EVERY["slurm"], "12", [live, past])


def qstat_job(data: bytes) -> None:
    """qstat's words about one job, which are XML."""
    _one_job(EVERY["torque"], "12.vm", [_text(data)])


def local_show(data: bytes) -> None:
    """The embedded scheduler's file of one job."""
    _one_job(EVERY["local"], "12", [_text(data)])


def submitted(data: bytes) -> None:
    """What a submit prints: the id goes into commands, so it is one harmless word."""
    for scheduler in EVERY.values():
        try:
            job_id = scheduler.parse_submit(_text(data))
        except ValueError:
            continue
        assert shlex.quote(job_id) == job_id or "[" in job_id
        assert job_id[0].isdigit()
        assert job_id.isascii()
        assert job_id.isprintable()


def _listing(scheduler: Scheduler, out: str) -> dict[str, JobStatus] | None:
    """The jobs, or None where the listing is not believed."""
    try:
        jobs = scheduler.parse_query(out, MARK)
    except ValueError as error:
        str(error).encode("utf-8", "backslashreplace")
        return None
    for job_id, job in jobs.items():
        assert isinstance(job_id, str)
        _well_formed(job)
        if job.state is JobState.ENDED:
            assert job.native_state, "an end without a final state's word"
            assert job.native_state in out
        if job.state is JobState.RUNNING:
            assert job.native_state in out
    return jobs


def _well_formed(job: JobStatus) -> None:
    assert isinstance(job.state, JobState)
    assert job.host is None or isinstance(job.host, str)
    for text in (job.reason, job.owner, job.tag, job.native_state):
        assert isinstance(text, str), f"{text!r} is no text"
    assert isinstance(job.hopeless, bool)
    assert isinstance(job.starts_at, float)
    assert clock_time(job.starts_at)


def _one_job(scheduler: Scheduler, job_id: str, outs: list[str]) -> None:
    try:
        runs = scheduler.parse_runs(job_id, outs[0], MARK)
        assert isinstance(runs, int)
        assert runs >= 0
    except ValueError:
        pass
    try:
        record = scheduler.parse_end(job_id, outs, MARK, lambda number: f"uid {number}")
    except ValueError:
        return
    if record is None:
        return
    assert any(job_id in out for out in outs), "an end is told of a job that nobody named"
    assert isinstance(record, Record)
    assert isinstance(record.message, str)
    assert record.message
    assert record.exit_code is None or isinstance(record.exit_code, int)
    assert record.signal is None or isinstance(record.signal, int)


# ---- the launcher's calls


def ticket(data: bytes) -> None:
    """A body for the ticket endpoint."""
    _launcher_call(calls.TICKET, data)


def report(data: bytes) -> None:
    """A body for the report endpoint."""
    call = _launcher_call(calls.REPORT, data)
    if isinstance(call, calls.Listening):
        assert 1024 <= call.port <= 65535
    if isinstance(call, calls.Ended):
        assert call.message.isprintable()
        assert all(line.isprintable() for line in call.log)
        words = ServerLost(call.message, reason=RequestError.reason, log=call.log)
        shown = as_hub_error(words, _scripts("slurm").profile)
        _only_our_elements(str(shown.jupyterhub_html_message or ""))


def _launcher_call(shape: Any, data: bytes) -> Any:
    try:
        call = shape.validate_json(data)
    except ValidationError as error:
        error.errors()
        return None
    for name, value in call:
        if isinstance(value, str):
            value.encode()
            assert len(value) <= bodies.CAP, name
    return call


def csr(data: bytes) -> None:
    """A signing request: read, it has a key of the one kind that is taken, and a mark of one length."""
    try:
        request = certificates.read_request(data.decode("utf-8", "replace"))
    except ValueError:
        return
    assert len(certificates.mark(request)) == len(certificates.KEY) + 64


DOORS: dict[str, Callable[[bytes], None]] = {
    door.__name__: door
    for door in (
        *(options, form, stored, profile, units),
        *(squeue, qstat, qstat_json, local_list, squeue_job, qstat_job, qstat_json_job, local_show, submitted),
        *(ticket, report, csr),
    )
}


# ---- helpers

_NO_JSON = object()


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return _NO_JSON


def _text(data: bytes) -> str:
    # As schedulers/commands.py reads what a command prints.
    return data.decode(errors="replace")


@cache
def _scripts(kind: str) -> Scripts:
    return Scripts(full_site(kind))


@cache
def _scratch() -> Path:
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="hpc-attack-", dir=memory if os.access(memory, os.W_OK) else None))


_TAGS = {
    *("a", "br", "button", "datalist", "details", "div", "fieldset", "h2", "input", "label", "legend", "li", "nav"),
    *("option", "p", "pre", "section", "select"),
    *("small", "span", "summary", "table", "tbody", "td", "textarea", "th", "thead", "tr", "ul"),
}
_ATTRIBUTES = {
    *("aria-describedby", "autocomplete", "checked", "class", "for", "id", "inputmode", "name", "open", "placeholder"),
    *(
        "aria-current",
        "aria-hidden",
        "aria-label",
        "aria-live",
        "disabled",
        "formaction",
        "hidden",
        "href",
        "list",
        "maxlength",
        "role",
        "scope",
        "selected",
        "tabindex",
        "type",
        "value",
    ),
    *(
        f"data-hpc-{name}"
        for name in (
            "as-of",
            "card",
            "closed",
            "cluster",
            "estimate",
            "free",
            "look",
            "mine",
            "now",
            "offer",
            "own-card",
            "standing",
            "unknown",
            "words",
        )
    ),
}


class _OnlyOurs(HTMLParser):
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in _TAGS, f"a tag of somebody else: {tag!r}"
        strange = {name for name, _ in attrs} - _ATTRIBUTES
        assert not strange, f"attributes of somebody else: {strange}"


def _only_our_elements(page: str) -> None:
    """A browser finds no tag and no attribute that our templates have not got."""
    parser = _OnlyOurs()
    parser.feed(page)
    parser.close()


def main() -> None:
    """Send files through a door: `python -m attack.doors DOOR FILE...`."""
    door = DOORS[sys.argv[1]]
    for name in sys.argv[2:]:
        door(Path(name).read_bytes())


if __name__ == "__main__":
    main()
