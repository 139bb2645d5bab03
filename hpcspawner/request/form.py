"""The form's fields from what a site offers, and form data read back; nothing is judged here."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpcspawner.errors import Problem
from hpcspawner.language import _, joined
from hpcspawner.request.offer import Offer
from hpcspawner.request.options import BY_NAME, OPTIONS
from hpcspawner.schedulers.standing import Reservation
from hpcspawner.site.environments import NO_IMAGE
from hpcspawner.site.profile import ANY_GPU, NEVER, SiteProfile
from hpcspawner.units import Walltime, shown

_LONGEST_LIST = 10
_HALF_A_DAY_S = 12 * 3600
_OUR_WORDS = (_("Partition"), _("Account"))
# Wall times that people ask for.
_TIMES = ("30m", "1h", "2h", "4h", "8h", "12h", "1d", "2d", "3d", "7d")


@dataclass(frozen=True, slots=True)
class Option:
    """One entry of a list: what is sent, what is read, and a line of help; `why` it can't be chosen, "" if it can."""

    value: str
    label: str
    help: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as the page shows it.

    `kind` is select, text, lines, number, checkbox or checkboxes; `values` holds what is filled in or ticked; `low` and
    `high` bound a number over all partitions (the gate knows the chosen one's); `error` is the gate's sentence.
    A field that is `folded` waits behind a line to click on, unless something was `chosen` for it. `suggested` are
    values to pick where others may be typed.
    """

    name: str
    label: str
    kind: str
    group: str
    values: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
    help: str = ""
    placeholder: str = ""
    error: str = ""
    low: int | None = None
    high: int | None = None
    folded: bool = False
    chosen: bool = False
    suggested: tuple[str, ...] = ()

    @property
    def value(self) -> str:
        """The one value of a field that has one."""
        return self.values[0] if self.values else ""


def read(form_data: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Form data or link arguments (lists of text) as options; empty ones and the Hub's own are left out.

    A preset is started by a button of its own, so the fields that a browser sends with it count for nothing.
    """
    for button in ("preset", "own_preset"):
        if named := _texts(form_data.get(button, ())):
            cluster = _texts(form_data.get("cluster", ()))
            return {button: named[-1], **({"cluster": cluster[-1]} if cluster else {})}
    options: dict[str, Any] = {}
    for name, values in form_data.items():
        texts = _texts(values)
        if name.startswith("_") or not texts:
            continue
        options[name] = texts if name == "features" else texts[-1]
    return options


def _texts(values: Sequence[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value.strip()]


def fields(offered: Offer, values: Mapping[str, Any], problems: Iterable[Problem] = ()) -> list[Field]:
    """Every field that this site offers, filled with `values` and marked with `problems`."""
    errors: dict[str, list[str]] = {}
    for problem in problems:
        errors.setdefault(problem.field, []).append(problem.message)
    shown_fields = [field for field in _all_fields(offered) if field is not None]
    return [
        replace(
            field,
            values=(filled := _filled(field, values)),
            chosen=filled != field.values,
            error=joined(errors.get(field.name, ())),
        )
        for field in shown_fields
    ]


def unplaced_problems(problems: Iterable[Problem], shown: Iterable[Field]) -> list[Problem]:
    """Problems that belong to no field on the page; the page shows them above the form."""
    names = {field.name for field in shown}
    return [problem for problem in problems if problem.field not in names]


def _filled(field: Field, values: Mapping[str, Any]) -> tuple[str, ...]:
    value = values.get(field.name)
    if field.name not in OPTIONS or value is None or value == "":
        return field.values
    if isinstance(value, bool):
        return ("true",) if value else ()
    entries = value if isinstance(value, list | tuple) else [value]
    texts = (entry if isinstance(entry, str) else shown(entry) for entry in entries)
    # A stored choice may hold what no page can, such as half a character.
    return tuple(text.encode("utf-8", "replace").decode() for text in texts)


def _field(name: str, kind: str, **of_field: Any) -> Field:
    row = BY_NAME[name]
    return Field(**({"label": row.label} | of_field), name=name, kind=kind, group=row.group, folded=row.folded)


def _all_fields(offered: Offer) -> list[Field | None]:
    profile = offered.profile
    return [
        _interface(profile),
        _environment(profile),
        _image(profile),
        _partition(profile),
        _account(offered),
        *_site_extras(offered),
        *_sizes(offered),
        *_limits(offered),
        _directory(profile),
        _own_setup(profile),
        _field(
            "details", "checkbox", options=(Option("true", _("show the scheduler's record of the job while it waits")),)
        ),
    ]


def own_word(text: str) -> str:
    """A site's word for partitions or accounts; where it has chosen none, ours in the reader's language."""
    return next((ours for ours in _OUR_WORDS if ours == text), text)


def _listed(entries: Iterable[Any]) -> tuple[Option, ...]:
    return tuple(Option(one.name, one.label, one.help or "") for one in entries)


def _named(names: Iterable[str]) -> tuple[Option, ...]:
    return tuple(Option(name, name) for name in names)


def _interface(profile: SiteProfile) -> Field:
    return _field("interface", "select", values=(profile.default_interface.name,), options=_listed(profile.interfaces))


def _environment(profile: SiteProfile) -> Field:
    options = _listed(profile.environments)
    chosen = (profile.default_environment.name,)
    if profile.own_environments:
        suggested = tuple(one.value for one in options)
        words = _("The folder of an environment of your own, or one of: {names}.", names=", ".join(suggested))
        about = joined([words, _help_lines(options)])
        return _field("environment", "text", values=chosen, help=about, suggested=suggested)
    return _field("environment", "select", values=chosen, options=options, help=_help_lines(options))


def _image(profile: SiteProfile) -> Field | None:
    if not profile.images and not profile.own_images:
        return None
    listed = _listed(profile.images)
    default = profile.defaults.image
    if profile.own_images:
        suggested = tuple(one.name for one in profile.images)
        words = _("A path or a reference, or one of: {names}.") if suggested else _("A path or a reference.")
        words = words.fill(names=", ".join(suggested))
        return _field("image", "text", values=(default or "",), help=words, suggested=suggested)
    # With a default somewhere, "no image" must be said in a word of its own.
    none = (
        Option("", _("the environment's default"))
        if any(one.image for one in profile.environments)
        else Option(NO_IMAGE, _("no image"))
    )
    extra = (Option(NO_IMAGE, _("no image")),) if none.value == "" else ()
    return _field(
        "image",
        "select",
        values=(default or none.value,),
        options=(none, *extra, *listed),
        help=_help_lines(listed),
    )


def _partition(profile: SiteProfile) -> Field:
    chosen = (profile.default_partition.name,)
    label = own_word(profile.words.partition)
    return _field("partition", "select", label=label, values=chosen, options=_listed(profile.partitions))


def _account(offered: Offer) -> Field | None:
    profile, own = offered.profile, offered.own
    places = [place for place in offered.places if "account" in place.limits]
    if not places:
        return None
    label, default = own_word(profile.words.account), profile.defaults.account
    values = (default,) if default else ()
    if own.member is None and any(place.names("account").typed for place in places):
        help_line = _("The account that is charged for the job.")
        return _field("account", "text", label=label, values=values, help=help_line, suggested=offered.names("account"))
    mine = dict.fromkeys(one for place in places for one in offered.accounts(place).names)
    if own.member is not None and default not in mine:
        values = ()
    usual = own.member.default if own.member else ""
    by_default = _("my default ({account})", account=usual) if usual else _("my default")
    none = () if profile.account == "required" else (Option("", by_default),)
    names = dict.fromkeys((*offered.names("account"), *mine))
    options = tuple(Option(one, one, why="" if one in mine or own.member is None else _NOT_A_MEMBER) for one in names)
    return _field("account", "select", label=label, values=values, options=(*none, *options))


_NOT_A_MEMBER = _("you are not a member")


def _site_extras(offered: Offer) -> list[Field | None]:
    features = offered.names("features")
    return [
        _qos(offered),
        _reservation(offered) if "reservation" in offered.limits else None,
        _field("features", "checkboxes", options=_named(features)) if features else None,
    ]


def _qos(offered: Offer) -> Field | None:
    names, own = offered.names("qos"), offered.own
    if not names:
        return None
    # The account is not chosen yet: what none of the user's accounts may use.
    rows = [qos for places in own.member.accounts.values() for qos in places.values()] if own.member else [()]
    known = set().union(*rows) if all(rows) else set(names)
    options = (Option(one, one, why="" if one.lower() in known or one in known else _NO_QOS) for one in names)
    return _field("qos", "select", options=(Option("", _("default")), *options))


_NO_QOS = _("none of your accounts may use it")


def _reservation(offered: Offer) -> Field:
    """A list of those that the user may use, where there are some; else a name may be typed."""
    usable, profile = offered.own.usable(), offered.profile
    if not usable:
        return _field("reservation", "text", help=_("Name of a reservation that you may use."))
    names = {one.name for one in profile.partitions}
    options = (Option(one.name, _when_and_where(one), why=_elsewhere(one, names)) for one in usable)
    return _field("reservation", "select", options=(Option("", _("none")), *options))


def _when_and_where(one: Reservation) -> str:
    now = time.time()
    begins = _("from {time}", time=_clock(one.starts_at)) if one.starts_at > now else ""
    ends = _("until {time}", time=_clock(one.ends_at))
    return joined([f"{one.name}:", joined((one.partition, one.nodes, begins, ends), ", ")])


def _clock(at: float) -> str:
    far = abs(at - time.time()) > _HALF_A_DAY_S
    return time.strftime("%Y-%m-%d %H:%M" if far else "%H:%M", time.localtime(at))


def _elsewhere(one: Reservation, partitions: Collection[str]) -> str:
    if not one.partition or one.partition in partitions:
        return ""
    return _("the Hub does not offer {partition}", partition=one.partition)


def _sizes(offered: Offer) -> list[Field | None]:
    chosen, partitions = offered.profile.defaults, offered.profile.partitions
    shared = [one for one in partitions if not one.whole_nodes]
    longest, most_nodes, most_gpus = offered.most("walltime"), offered.most("nodes"), offered.most("gpus")
    return [
        _field(
            "walltime",
            "text",
            help=_("Up to {most}; write it as 30m, 12h or 1d 12h.", most=longest),
            placeholder=str(chosen.walltime),
            suggested=tuple(text for text in _TIMES if Walltime.parse(text) <= longest),
        ),
        _number("nodes", chosen.nodes, 1, most_nodes) if most_nodes > 1 else None,
        _number("cpus", chosen.cpus, 1, max(one.max_cpus for one in shared)) if shared else None,
        _field(
            "memory",
            "text",
            help=_("Memory per node, such as 4G. Empty: the default."),
            placeholder=str(chosen.memory or ""),
        )
        if shared
        else None,
        _number("gpus", chosen.gpus, 0, most_gpus) if most_gpus else None,
        _gpu_type(offered),
    ]


def _limits(offered: Offer) -> list[Field | None]:
    queue, idle, renewals = offered.up_to("queue_limit"), offered.up_to("idle_limit"), offered.counts("renewals")
    return [
        _field(
            "queue_limit",
            "text",
            help=_("How long to wait in the queue; up to {most}.", most=queue.high),
            placeholder=str(queue.default),
        ),
        _field(
            "idle_limit",
            "text",
            help=joined(
                [
                    _("Idle: no cell is running and no one is working in it, even if the page is open."),
                    _("Such as 2h, or {never}.", never=NEVER) if idle.endless else _("Up to {most}.", most=idle.high),
                ]
            ),
            placeholder=str(idle.default or NEVER),
        ),
        _renewals(renewals.high, renewals.default) if renewals.high else None,
    ]


def _renewals(most: int, default: int) -> Field:
    text = _("A new job takes its place at the same address; files are kept, running cells and variables are lost.")
    if most > _LONGEST_LIST:
        times = _("How many times, 0 to {most}.", most=most)
        return replace(_number("renewals", default, 0, most), help=joined([times, text]))
    options = tuple(Option(str(count), _times(count)) for count in range(most + 1))
    return _field("renewals", "select", values=(str(default),), options=options, help=text)


def _times(count: int) -> str:
    return (_("no"), _("once"))[count] if count < 2 else _("{count} times", count=count)


def _number(name: str, default: int, low: int, high: int) -> Field:
    # The default is shown, not filled in: left empty, it follows the partition's limits.
    return _field(
        name, "number", help=_("{low} to {high}.", low=low, high=high), placeholder=str(default), low=low, high=high
    )


def _gpu_type(offered: Offer) -> Field | None:
    types = [kind for kind in offered.names("gpu_type") if kind != ANY_GPU]
    return _field("gpu_type", "select", options=(Option("", _("any")), *_named(types))) if types else None


def _directory(profile: SiteProfile) -> Field:
    allowed = profile.directories.allowed
    inside = _("The folder that opens; within {folders}.", folders=", ".join(allowed))
    help_line = inside if allowed else _("The folder that opens.")
    return _field("directory", "text", values=(profile.defaults.directory,), help=help_line)


def _own_setup(profile: SiteProfile) -> Field | None:
    most = profile.own_setup.max_chars
    if not most:
        return None
    about = _("Lines of bash, run in your job before the server; {most} characters at most. Put no password here.")
    return _field("own_setup", "lines", help=about.fill(most=most))


def _help_lines(options: Sequence[Option]) -> str:
    return " ".join(f"{option.label}: {option.help}" for option in options if option.help)
