"""What is free, in words: for the form's table and cards, and for a browser that asks again."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from hpcspawner.language import Text, _, joined, several
from hpcspawner.pages.kept import KeptTexts
from hpcspawner.schedulers.base import Resources
from hpcspawner.schedulers.facts import Facts, Free
from hpcspawner.schedulers.nodes import NodeState
from hpcspawner.schedulers.standings import Standings
from hpcspawner.site.profile import ANY_GPU
from hpcspawner.units import Memory

# Facts that are older are said to be old.
_OLD_S = 180.0
_WORDS = {
    NodeState.FREE: _("free"),
    NodeState.PARTLY: _("partly used"),
    NodeState.FULL: _("full"),
    NodeState.RESERVED: _("reserved"),
    NodeState.DOWN: _("down"),
    NodeState.UNKNOWN: _("unknown"),
}


def in_words(facts: Facts, partitions: Sequence[str]) -> dict[str, Any]:
    """The facts as texts by partition, with the time that they are of and what is not known."""
    oldest = facts.oldest_at
    as_of = time.strftime("%H:%M", time.localtime(oldest)) if oldest else ""
    is_old = bool(oldest) and time.time() - oldest > _OLD_S
    unknown = joined(facts.failed, ", ")
    failed = _("The scheduler does not tell: {unknown}.", unknown=unknown) if unknown else ""
    return {
        "age": _("as of {time}", time=as_of) if as_of else _("is not known yet"),
        "unknown": joined([failed, _("These numbers are old.") if is_old else ""]),
        "partitions": _ROWS.of(facts, tuple(partitions)),
    }


def _rows(facts: Facts, partitions: Sequence[str]) -> dict[str, dict[str, Any]]:
    return {name: _row(facts, name) for name in partitions}


_ROWS: KeptTexts[Facts] = KeptTexts(_rows)


def _row(facts: Facts, name: str) -> dict[str, Any]:
    free = facts.free.value.get(name) if facts.free else None
    is_open = facts.open.value.get(name) if facts.open else None
    row = {"cores": "", "nodes": "", "gpus": "", "waiting": "", "largest": "", "open": is_open is not False}
    if facts.queued:
        queued = facts.queued.value.get(name)
        row["waiting"] = str(queued.count if queued else 0)
    if free is not None:
        row |= {
            "cores": _("{idle} of {all}", idle=free.idle_cores, all=free.cores),
            "nodes": joined((_nodes(free, state) for state in NodeState if free.nodes.get(state)), ", "),
            "gpus": joined((_gpus(free, kind) for kind in free.gpus), ", ") or _("none"),
            "largest": _largest(free),
        }
    return row


def _nodes(free: Free, state: NodeState) -> Text:
    return joined([str(free.nodes[state]), _WORDS[state]])


def _gpus(free: Free, kind: str) -> str:
    idle = free.idle_gpus.get(kind)
    counted = _("{idle} of {all}", idle="?" if idle is None else idle, all=free.gpus[kind])
    return counted if kind == ANY_GPU else joined([kind, counted], ": ")


def _largest(free: Free) -> str:
    if not free.widest_cores:
        return _("nothing")
    cores = several("{count} core", "{count} cores", free.widest_cores)
    return joined([cores, _rounded(free.widest_memory) if free.widest_memory else ""], ", ")


def _rounded(mib: int) -> str:
    return f"{mib // 1024}G" if mib >= 1024 else str(Memory(mib))


def standing_in_words(standings: Standings) -> str:
    """As of when the user's accounts, QOS and reservations are known, and what is not; "" where none is asked for."""
    known = [one for one in standings.kept if one.part]
    fresh = [_AS_OF[one.name].fill(time=_clock(one.part.at)) for one in known if one.part and not one.failed]
    old = [_LAST_KNOWN[one.name].fill(time=_clock(one.part.at)) for one in known if one.part and one.failed]
    unknown = [_NOT_TOLD[one.name] for one in standings.kept if one.part is None]
    return joined([*fresh, *old, *unknown])


# By what standings call their parts.
_AS_OF = {"accounts": _("Your accounts as of {time}."), "reservations": _("Your reservations as of {time}.")}
_LAST_KNOWN = {
    "accounts": _("The scheduler does not tell your accounts at the moment; they are as of {time}."),
    "reservations": _("The scheduler does not tell your reservations at the moment; they are as of {time}."),
}
_NOT_TOLD = {
    "accounts": _("The scheduler does not tell your accounts at the moment."),
    "reservations": _("The scheduler does not tell your reservations at the moment."),
}


def _clock(at: float) -> str:
    return time.strftime("%H:%M", time.localtime(at))


def outlook(facts: Facts, wanted: Resources) -> str:
    """What may be said beside a request: "free now", how many jobs wait, or nothing where that is not known."""
    free = facts.free.value.get(wanted.partition) if facts.free else None
    queued = facts.queued.value.get(wanted.partition) if facts.queued else None
    if facts.open and facts.open.value.get(wanted.partition) is False:
        return _("closed now")
    if free is not None and _fits(free, wanted) and not (queued and queued.count):
        return _("free now")
    if queued and queued.count:
        return several("{count} job waiting", "{count} jobs waiting", queued.count)
    return _("in use now") if free is not None and not _fits(free, wanted) else ""


def _fits(free: Free, wanted: Resources) -> bool:
    """Whether some node has room for it, as far as is known; of several nodes, whether as many are free."""
    if wanted.nodes > 1 or wanted.whole_nodes:
        return free.nodes.get(NodeState.FREE, 0) >= wanted.nodes
    if (wanted.cpus or 1) > free.widest_cores:
        return False
    if wanted.memory and free.widest_memory is not None and wanted.memory.mib > free.widest_memory:
        return False
    return not wanted.gpus or _idle_gpus(free.idle_gpus, wanted.gpu_type) >= wanted.gpus


def _idle_gpus(idle: Mapping[str, int], kind: str | None) -> int:
    return idle.get(kind, 0) if kind else max(idle.values(), default=0)
