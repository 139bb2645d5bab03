"""The form's fields from a profile, and form data read back; nothing is judged here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hpcspawner.errors import Problem
from hpcspawner.request.gate import OPTIONS
from hpcspawner.site.environments import NO_IMAGE
from hpcspawner.site.profile import ANY_GPU, NEVER, SiteProfile
from hpcspawner.units import shown

_LONGEST_LIST = 10


@dataclass(frozen=True, slots=True)
class Option:
    """One entry of a list: what is sent, what is read, and a line of help."""

    value: str
    label: str
    help: str = ""


@dataclass(frozen=True, slots=True)
class Field:
    """One field as the page shows it.

    `kind` is select, text, lines, number, checkbox or checkboxes; `values` holds what is filled in or ticked; `low` and
    `high` bound a number over all partitions (the gate knows the chosen one's); `error` is the gate's sentence.
    A field that is `folded` waits behind a line to click on, unless something was `chosen` for it.
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

    @property
    def value(self) -> str:
        """The one value of a field that has one."""
        return self.values[0] if self.values else ""


def read(form_data: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Form data or link arguments (lists of text) as options; empty ones and the Hub's own are left out."""
    options: dict[str, Any] = {}
    for name, values in form_data.items():
        texts = [value for value in values if isinstance(value, str) and value.strip()]
        if name.startswith("_") or not texts:
            continue
        options[name] = texts if name == "features" else texts[-1]
    return options


def fields(profile: SiteProfile, values: Mapping[str, Any], problems: Iterable[Problem] = ()) -> list[Field]:
    """Every field that this site offers, filled with `values` and marked with `problems`."""
    errors: dict[str, list[str]] = {}
    for problem in problems:
        errors.setdefault(problem.field, []).append(problem.message)
    offered = [field for field in _all_fields(profile) if field is not None]
    return [
        replace(
            field,
            values=(filled := _filled(field, values)),
            chosen=filled != field.values,
            error=" ".join(errors.get(field.name, ())),
        )
        for field in offered
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


def _all_fields(profile: SiteProfile) -> list[Field | None]:
    return [
        _interface(profile),
        _environment(profile),
        _image(profile),
        _partition(profile),
        _account(profile),
        *_site_extras(profile),
        *_sizes(profile),
        *_limits(profile),
        _directory(profile),
        _own_setup(profile),
        Field(
            "details",
            "More information about the job",
            "checkbox",
            "what",
            options=(Option("true", "show the scheduler's record of the job while it waits"),),
        ),
    ]


def _interface(profile: SiteProfile) -> Field:
    options = tuple(Option(one.name, one.label, one.help or "") for one in profile.interfaces)
    return Field("interface", "Interface", "select", "what", (profile.default_interface.name,), options)


def _environment(profile: SiteProfile) -> Field:
    options = tuple(Option(one.name, one.label, one.help or "") for one in profile.environments)
    return Field(
        "environment",
        "Environment",
        "select",
        "what",
        (profile.default_environment.name,),
        options,
        help=_help_lines(options),
    )


def _image(profile: SiteProfile) -> Field | None:
    if not profile.images and not profile.own_images:
        return None
    listed = tuple(Option(one.name, one.label, one.help or "") for one in profile.images)
    default = profile.defaults.image
    if profile.own_images:
        names = ", ".join(one.name for one in profile.images)
        words = f"A path or a reference{', or one of: ' if names else ''}{names}."
        return Field("image", "Container image", "text", "what", (default or "",), help=words)
    # With a default somewhere, "no image" must be said in a word of its own.
    none = (
        Option("", "the environment's default")
        if any(one.image for one in profile.environments)
        else Option(NO_IMAGE, "none")
    )
    extra = (Option(NO_IMAGE, "none"),) if none.value == "" else ()
    return Field(
        "image",
        "Container image",
        "select",
        "what",
        (default or none.value,),
        (none, *extra, *listed),
        help=_help_lines(listed),
    )


def _partition(profile: SiteProfile) -> Field:
    options = tuple(Option(one.name, one.label, one.help or "") for one in profile.partitions)
    return Field("partition", profile.words.partition, "select", "where", (profile.default_partition.name,), options)


def _account(profile: SiteProfile) -> Field | None:
    if profile.account == "hidden":
        return None
    label, default = profile.words.account, profile.defaults.account
    values = (default,) if default else ()
    names = profile.accounts or _only_accounts(profile)
    if not names:
        return Field("account", label, "text", "where", values, help="The account that is charged for the job.")
    listed = tuple(Option(name, name) for name in names)
    none = () if profile.account == "required" else (Option("", "my default"),)
    return Field("account", label, "select", "where", values, (*none, *listed))


def _only_accounts(profile: SiteProfile) -> tuple[str, ...]:
    """Accounts named by partitions, where every partition names some."""
    if not all(one.accounts for one in profile.partitions):
        return ()
    return tuple(dict.fromkeys(name for one in profile.partitions for name in one.accounts))


def _site_extras(profile: SiteProfile) -> list[Field | None]:
    qos = dict.fromkeys(name for one in profile.partitions for name in one.qos)
    features = dict.fromkeys(name for one in profile.partitions for name in one.features)
    return [
        Field("qos", "QOS", "select", "where", (), (Option("", "default"), *(Option(name, name) for name in qos)))
        if qos
        else None,
        Field("reservation", "Reservation", "text", "where", help="Name of a reservation that you may use.")
        if profile.reservation != "hidden"
        else None,
        Field("features", "Node features", "checkboxes", "where", (), tuple(Option(name, name) for name in features))
        if features
        else None,
    ]


def _sizes(profile: SiteProfile) -> list[Field | None]:
    chosen, partitions = profile.defaults, profile.partitions
    shared = [one for one in partitions if not one.whole_nodes]
    max_nodes = max(one.max_nodes for one in partitions)
    max_gpus = max(one.max_gpus for one in partitions)
    longest = max(one.max_walltime for one in partitions)
    return [
        Field(
            "walltime",
            "Wall time",
            "text",
            "size",
            help=f"Up to {longest}; write it as 30m, 12h or 1d 12h.",
            placeholder=str(chosen.walltime),
        ),
        _number("nodes", "Nodes", (chosen.nodes, 1, max_nodes)) if max_nodes > 1 else None,
        _number("cpus", "CPUs", (chosen.cpus, 1, max(one.max_cpus for one in shared))) if shared else None,
        Field(
            "memory",
            "Memory",
            "text",
            "size",
            help="Memory per node, such as 4G. Empty: the default.",
            placeholder=str(chosen.memory or ""),
        )
        if shared
        else None,
        _number("gpus", "GPUs", (chosen.gpus, 0, max_gpus)) if max_gpus else None,
        _gpu_type(profile),
    ]


def _limits(profile: SiteProfile) -> list[Field | None]:
    limits, chosen = profile.limits, profile.defaults
    return [
        Field(
            "queue_limit",
            "Give up after",
            "text",
            "size",
            help=f"How long to wait in the queue; up to {limits.queue}.",
            placeholder=str(profile.default_queue_limit),
            folded=True,
        ),
        Field(
            "idle_limit",
            "Stop when idle for",
            "text",
            "size",
            help="Idle: no cell is running and no one is working in it, even if the page is open. "
            + (f"Up to {limits.idle}." if limits.idle else f"Such as 2h, or {NEVER}."),
            placeholder=str(profile.default_idle_limit or NEVER),
            folded=True,
        ),
        _renewals(limits.renewals, chosen.renewals) if limits.renewals else None,
    ]


def _renewals(most: int, default: int) -> Field:
    label = "Start again when the wall time ends"
    text = "A new job takes its place at the same address; files are kept, running cells and variables are lost."
    if most > _LONGEST_LIST:
        text = f"How many times, 0 to {most}. {text}"
        return replace(_number("renewals", label, (default, 0, most)), help=text, folded=True)
    options = tuple(Option(str(count), _times(count)) for count in range(most + 1))
    return Field("renewals", label, "select", "size", (str(default),), options, help=text, folded=True)


def _times(count: int) -> str:
    return ("no", "once")[count] if count < 2 else f"{count} times"


def _number(name: str, label: str, default_low_high: tuple[int | None, int, int]) -> Field:
    default, low, high = default_low_high
    # The default is shown, not filled in: left empty, it follows the partition's limits.
    shown = "" if default is None else str(default)
    return Field(name, label, "number", "size", help=f"{low} to {high}.", placeholder=shown, low=low, high=high)


def _gpu_type(profile: SiteProfile) -> Field | None:
    types = dict.fromkeys(kind for one in profile.partitions for kind in one.gpus if kind != ANY_GPU)
    if not types:
        return None
    return Field(
        "gpu_type", "GPU type", "select", "size", (), (Option("", "any"), *(Option(kind, kind) for kind in types))
    )


def _directory(profile: SiteProfile) -> Field:
    allowed = profile.directories.allowed
    return Field(
        "directory",
        "Directory",
        "text",
        "what",
        (profile.defaults.directory,),
        help=f"The folder that opens; within {', '.join(allowed)}." if allowed else "The folder that opens.",
    )


def _own_setup(profile: SiteProfile) -> Field | None:
    most = profile.own_setup.max_chars
    if not most:
        return None
    about = f"Lines of bash, run in your job before the server; {most} characters at most. Put no password here."
    return Field("own_setup", "Own set-up", "lines", "what", help=about)


def _help_lines(options: Sequence[Option]) -> str:
    return " ".join(f"{option.label}: {option.help}" for option in options if option.help)
