"""What the page says of a server that did not start or has ended: the cause, what to change, how to start again."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hpcspawner.errors import Reason
from hpcspawner.language import _, joined
from hpcspawner.request.offer import offer
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.profile import SiteProfile
from hpcspawner.units import Memory

_BY_CAUSE = {
    Cause.OUT_OF_MEMORY: _("Start again with more memory, or work on less data at a time."),
    Cause.WALL_TIME: _("Start again with a longer wall time, if the partition allows it."),
    Cause.NODE_FAILED: _("Start again: the scheduler will choose a node that works."),
    Cause.PREEMPTED: _("Start again, or choose a partition in which jobs are not preempted."),
    Cause.CANCELLED: _("Start again, unless there was a reason: whoever cancelled the job knows it."),
    Cause.IDLE: _("Start again when you want to go on."),
}
_BY_REASON = {
    Reason.BAD_OPTIONS: _("Change the request."),
    Reason.REJECTED: _("Change the request as the scheduler's words say."),
    Reason.UNREACHABLE: _("Try again in some minutes; your choices are kept."),
    Reason.QUEUE_LIMIT: _("Ask for less or for a shorter time, choose another partition, or let it wait longer."),
    Reason.START_LIMIT: _("Start again; if it happens again, please tell {contact}."),
    Reason.HELD: _("Change the request: this one can't start."),
    Reason.SERVER_FAILED: _(
        "Look at the last lines of the log. Another environment or directory may help; if not, please tell {contact}."
    ),
    Reason.NOT_SET_UP: _("Please tell {contact}."),
}
_OTHER = _("Start again; if it happens again, please tell {contact}.")


@dataclass(frozen=True, slots=True)
class Failure:
    """One end. `more_memory` is what to start again with, "" where that would not help or is not allowed.

    `entry` is the one of the page about troubleshooting, `help_url` the site's own such page, "" where the Hub's is.
    `choices` are the options of the request, as pairs of a form.
    """

    message: str
    advice: str
    log: tuple[str, ...] = ()
    more_memory: str = ""
    entry: str = ""
    help_url: str = ""
    choices: tuple[tuple[str, str], ...] = field(default=())


def failure(
    message: str, why: Cause | Reason, profile: SiteProfile, choices: Mapping[str, Any], log: Sequence[str] = ()
) -> Failure:
    """What a page says of an end for this cause or reason, of a job with these choices."""
    advice = (_BY_CAUSE.get(why) if isinstance(why, Cause) else _BY_REASON.get(why)) or _OTHER
    more = more_memory(profile, choices) if why is Cause.OUT_OF_MEMORY else ""
    return Failure(
        message,
        advice.fill(contact=contact_of(profile)),
        tuple(log),
        more,
        entry=why.value,
        help_url=profile.contact.help_url or "",
        choices=tuple(_pairs(choices)),
    )


def contact_of(profile: SiteProfile) -> str:
    """Whom to tell, by the site's name for them or by ours."""
    contact = profile.contact
    ours = _("the administrators of this JupyterHub")
    name = ours if contact.name == ours else contact.name
    return joined([name, f"({contact.email})" if contact.email else ""])


def more_memory(profile: SiteProfile, choices: Mapping[str, Any]) -> str:
    """Twice as much memory as was asked for, or the most that is allowed; "" where it was the most already."""
    partition = profile.partition(str(choices.get("partition")))
    try:
        had = Memory.parse(choices.get("memory"))
    except ValueError:
        return ""
    if partition is None or partition.whole_nodes:
        return ""
    most = offer(profile).place(partition).up_to("memory").high
    twice = Memory(had.mib * 2)
    more = twice if most is None else min(twice, most)
    return str(more) if more > had else ""


def _pairs(choices: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in choices.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            yield name, str(one).lower() if isinstance(one, bool) else str(one)
