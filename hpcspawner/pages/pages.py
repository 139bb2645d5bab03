"""What a user sees in the Hub: the form, the messages of a waiting job, the text of a failure."""

import json
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import unquote, urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from tornado import web

from hpcspawner.errors import (
    HPCSpawnerError,
    Problem,
    Reason,
    RequestError,
    SchedulerError,
    SchedulerNotSetUp,
    SchedulerUnreachable,
    ServerLost,
    more,
)
from hpcspawner.jobs.saved import LONGEST_NAME
from hpcspawner.language import Text, _, joined, several
from hpcspawner.pages.cards import cards, own_cards
from hpcspawner.pages.failure import Failure, contact_of, failure
from hpcspawner.pages.free import in_words, standing_in_words
from hpcspawner.pages.kept import KeptTexts
from hpcspawner.pages.words import words_of
from hpcspawner.request.form import fields, own_word, unplaced_problems
from hpcspawner.request.offer import offer
from hpcspawner.request.own import NOT_KNOWN, Own, as_data
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.facts import Facts
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.presets import LAST
from hpcspawner.site.profile import ANY_GPU, Partition, SiteProfile

TEMPLATES = Path(__file__).parent / "templates"
STATIC = Path(__file__).parent / "static"

_GROUPS = (("what", _("What to open")), ("where", _("Where it runs")), ("size", _("How much")))


@dataclass(slots=True)
class Draft:
    """What the form shows in one web request: the values asked for, what was wrong with them, a note above.

    `last` is the choice of the user's last start, for a card of its own. `filled_in` tells that the values are to be
    looked at, as those of a link are. `own` is what the scheduler lets the user choose.

    `saved` are the user's own presets, by name and options, and `presets_url` is where they are saved ("": nowhere).
    `saving` is the name of one that was not saved for the problems. With `to_judge` the form says what is wrong with
    the values.

    Not frozen: the Hub judges form data in a task of its own, which sees the request's draft but can't replace it.
    """

    values: Mapping[str, Any]
    problems: tuple[Problem, ...] = ()
    note: str = ""
    last: Mapping[str, Any] = field(default_factory=dict)
    filled_in: bool = False
    own: Own = NOT_KNOWN
    saved: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    presets_url: str = ""
    saving: str | None = None
    to_judge: bool = False


_NO_FACTS = Facts()

# Travels with the web request, never on a spawner: two tabs must not see each other's mistakes.
draft: ContextVar[Draft | None] = ContextVar("hpcspawner_draft", default=None)


def render_form(cluster: Cluster, offered: Sequence[Cluster], shown: Draft, facts: Facts = _NO_FACTS) -> str:
    """The inside of the Hub's spawn form as HTML, for one of the clusters that are offered."""
    profile, offer_here = cluster.profile, offer(cluster.profile, shown.own)
    every = fields(offer_here, shown.values, shown.problems)
    groups = [(title, [one for one in every if one.group == key]) for key, title in _GROUPS]
    above = cards(offer_here, shown.last, facts)
    # The last choice comes first, then what the user has saved.
    own_at = 1 if above and above[0].name == LAST else 0
    above[own_at:own_at] = own_cards(offer_here, shown.saved, facts)
    return (
        form_templates()
        .get_template("hpc_form.html")
        .render(
            profile=profile,
            partition_word=own_word(profile.words.partition),
            what_each_allows=_what_each_allows(profile.words.partition),
            words=words_of("form"),
            clusters=offered if len(offered) > 1 else (),
            groups=[(title, members) for title, members in groups if members],
            others=unplaced_problems(shown.problems, every),
            problems=shown.problems,
            note=shown.note,
            cards=above,
            # What was filled in for the user to look at must be seen.
            is_open=not above or bool(shown.problems) or shown.filled_in,
            tells_facts=cluster.board.offered,
            can_estimate=cluster.client.can_estimate,
            can_look=profile.scheduler.look,
            free=in_words(facts, [one.name for one in profile.partitions]),
            gpus_allowed=_GPUS_ALLOWED.of(profile),
            # The same text for all users; what is one user's comes beside it.
            offer=offer(profile).as_json,
            mine=json.dumps(mine, separators=(",", ":")) if (mine := as_data(shown.own)) else "",
            presets_url=shown.presets_url,
            saving=shown.saving,
            longest_name=LONGEST_NAME,
            standing=standing_in_words(cluster.standings),
        )
    )


def _what_each_allows(partition: str) -> Text:
    if isinstance(own_word(partition), Text):
        return _("What each partition allows")
    return _("What each {partition} allows", partition=partition.lower())


def _gpus_allowed(profile: SiteProfile) -> dict[str, str]:
    return {one.name: _gpus_of(one) for one in profile.partitions}


_GPUS_ALLOWED: KeptTexts[SiteProfile] = KeptTexts(_gpus_allowed)


def _gpus_of(partition: Partition) -> str:
    """How many GPUs one may ask for, by type."""
    least = partition.min_gpus
    each = (
        joined([_("{low} to {high}", low=least, high=most), "" if kind == ANY_GPU else kind])
        for kind, most in partition.gpus.items()
    )
    return joined(each, ", ") or _("none")


@cache
def form_templates() -> Environment:
    """What renders the inside of the form, which JupyterHub takes as a text."""
    made = Environment(
        loader=PackageLoader("hpcspawner.pages"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update({"_": _, "several": several})
    return made


class LinkFillsForm(Exception):
    """Not an error: a link fills the form and starts nothing. The Hub shows the form when it is raised."""

    jupyterhub_message = ""
    jupyterhub_html_message = ""

    def __init__(self) -> None:
        super().__init__("not an error: a link fills the form and starts nothing")


_STATUS_CODES = {
    Reason.BAD_OPTIONS: 400,
    Reason.REJECTED: 400,
    Reason.UNREACHABLE: 503,
}


# Causes that say more than the reason does.
_SAY_MORE = frozenset(set(Cause) - {Cause.EXITED, Cause.NOT_STARTED, Cause.UNKNOWN, Cause.STOPPED})
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class ShownError(web.HTTPError):
    """An error that the Hub shows; JupyterHub 5 and 6 read the two attributes."""

    jupyterhub_message: str
    jupyterhub_html_message: str | None = None
    hpcspawner_failure: Failure


def as_hub_error(error: HPCSpawnerError, profile: SiteProfile, choices: Mapping[str, Any] = _NOTHING) -> ShownError:
    """One of our errors as the Hub shows it to the user: on pages, and over REST, where 5.5 shows the log's message.

    `choices` are the options of the request that failed.
    """
    # tornado formats the log message with its arguments: a percent sign in the scheduler's words is no format.
    text = _for_the_user(error, profile)
    shown = ShownError(_STATUS_CODES.get(error.reason, 500), "%s", text)
    shown.jupyterhub_message = text
    log = error.log if isinstance(error, ServerLost) else ()
    why = Cause(error.cause) if isinstance(error, ServerLost) and error.cause in _SAY_MORE else error.reason
    shown.hpcspawner_failure = replace(failure(text, why, profile, choices, log), entry=error.entry)
    if log:
        lines = Markup("\n").join(escape(line) for line in log)
        shown.jupyterhub_html_message = Markup(
            '{}</p><p>{}</p><pre class="text-start border rounded p-2 hpc-log">{}</pre><p>'
        ).format(text, _("The last lines of its log:"), lines)
    return shown


def server_of(address: str) -> str:
    """The name of the server that a form is for, by the form's address; "" for the default server."""
    of_user = urlsplit(address).path.partition("/hub/spawn/")[2]
    return unquote(of_user.partition("/")[2])


def _for_the_user(error: HPCSpawnerError, profile: SiteProfile) -> str:
    if isinstance(error, SchedulerNotSetUp):
        message = _(
            "This site is not set up for starting servers yet: {error} Please contact {contact}; the Hub's log has the "
            "details."
        )
        return message.fill(error=error.sentence, contact=contact_of(profile))
    if isinstance(error, SchedulerUnreachable):
        message = _(
            "No server was started. If the job was submitted anyway, the Hub will cancel it. Please try again later."
        )
        return joined([error.sentence, message])
    if isinstance(error, SchedulerError):
        return _("The scheduler did not accept the job: {error}", error=error.sentence)
    return error.sentence


def for_the_log(error: HPCSpawnerError) -> str:
    """The same with what only the admin should read: the command, the scheduler's words, the cure."""
    if isinstance(error, SchedulerError):
        cure = f"; to allow it: {error.cure}" if isinstance(error, SchedulerNotSetUp) else ""
        return f"{error} [command: {error.command}] [it said: {error.words}]{cure}{more(error.entry)}"
    if isinstance(error, RequestError):
        return f"refused: {error.explained}"
    return error.explained
