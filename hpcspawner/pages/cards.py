"""The cards above the form: the user's last choice and the site's presets, each started with one click."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from hpcspawner.errors import RequestError
from hpcspawner.language import Text, _, joined, several
from hpcspawner.pages.free import outlook
from hpcspawner.request.cost import amount, most
from hpcspawner.request.gate import judge
from hpcspawner.request.model import JobRequest
from hpcspawner.request.offer import Offer
from hpcspawner.request.presets import ANYONE
from hpcspawner.schedulers.facts import Facts
from hpcspawner.site.presets import LAST


@dataclass(frozen=True, slots=True)
class Card:
    """One card. `name` is the preset that its button sends, `link` fills the form with its choices.

    `own` tells that its user has saved it; `problem` is why it can't be started now, "" where it can.
    """

    name: str
    title: str
    help: str
    facts: tuple[str, ...]
    link: str
    outlook: str
    own: bool = False
    problem: str = ""


def own_cards(offered: Offer, saved: Iterable[tuple[str, Mapping[str, Any]]], facts: Facts) -> list[Card]:
    """The user's own presets, by name and options; one that is not possible now says why."""
    return [_own_card(offered, name, options, facts) for name, options in saved]


def _own_card(offered: Offer, name: str, options: Mapping[str, Any], facts: Facts) -> Card:
    link = f"?{urlencode({'cluster': offered.profile.name, 'saved': name})}"
    try:
        request = judge({key: value for key, value in options.items() if key != "cluster"}, offered, ANYONE)
    except RequestError as error:
        return Card(name, name, "", (), link, "", own=True, problem=joined(one.message for one in error.problems))
    return Card(name, name, "", tuple(_facts(offered, request)), link, outlook(facts, request.resources), own=True)


def cards(offered: Offer, last: Mapping[str, Any], facts: Facts) -> list[Card]:
    """The last choice first; none for a choice that the site no longer offers."""
    return list(_cards(offered, last, facts))


def _cards(offered: Offer, last: Mapping[str, Any], facts: Facts) -> Iterator[Card]:
    named = [(LAST, _("As last time"), "", last)] if last else []
    presets = [(one.name, one.title, one.help or "", one.options) for one in offered.profile.presets]
    for name, title, help_line, options in (*named, *presets):
        try:
            request = judge({key: value for key, value in options.items() if key != "cluster"}, offered, ANYONE)
        except RequestError:
            continue
        link = _link(offered, request)
        yield Card(name, title, help_line, tuple(_facts(offered, request)), link, outlook(facts, request.resources))


def _facts(offered: Offer, request: JobRequest) -> Iterator[str]:
    """What the scheduler is asked for, in a few words each."""
    wanted = request.resources
    partition = offered.profile.partition(wanted.partition)
    if len(offered.profile.partitions) > 1:
        yield partition.label if partition else wanted.partition
    yield str(wanted.walltime)
    if wanted.nodes > 1 or wanted.whole_nodes:
        yield _nodes(wanted.nodes, whole=wanted.whole_nodes)
    if wanted.cpus and not wanted.whole_nodes:
        yield several("{count} core", "{count} cores", wanted.cpus)
    if wanted.memory:
        yield str(wanted.memory)
    if wanted.gpus:
        yield _gpus(wanted.gpus, wanted.gpu_type or "")
    cost = most(offered.profile, wanted)
    if cost is not None:
        yield _("at most {most}", most=amount(offered.profile, cost))
    if len(offered.profile.environments) > 1:
        yield request.environment.label
    if len(offered.profile.interfaces) > 1:
        yield request.interface.label
    if request.image:
        yield request.image.label


def _nodes(count: int, *, whole: bool) -> Text:
    if whole:
        return several("{count} whole node", "{count} whole nodes", count)
    return several("{count} node", "{count} nodes", count)


def _gpus(count: int, kind: str) -> Text:
    if kind:
        return several("{count} {kind} GPU", "{count} {kind} GPUs", count, kind=kind)
    return several("{count} GPU", "{count} GPUs", count)


def _link(offered: Offer, request: JobRequest) -> str:
    pairs = {"cluster": offered.profile.name, **request.choices}
    texts = {name: str(value).lower() if isinstance(value, bool) else value for name, value in pairs.items()}
    return f"?{urlencode(texts, doseq=True)}"
