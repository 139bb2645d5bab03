"""Every option there is, one row each: the names of form fields, REST keys and link arguments alike."""

from dataclasses import dataclass
from typing import Literal

from hpcspawner.language import _

Kind = Literal["name", "list", "time", "memory", "count", "folder", "lines", "flag"]


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    `label` stands beside its field, `word` in sentences about it. `kind` says how a value is read, `group` under which
    heading the form asks for it ("": nowhere of its own). A `folded` field waits behind a line to click on.
    """

    name: str
    label: str
    kind: Kind
    group: str = ""
    word: str = ""
    folded: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "word", self.word or self.label)


TABLE = (
    Option("cluster", _("Cluster"), "name"),
    Option("partition", _("Partition"), "name", "where"),
    Option("preset", _("Preset"), "name"),
    Option("account", _("Account"), "name", "where"),
    Option("qos", _("QOS"), "name", "where"),
    Option("reservation", _("Reservation"), "name", "where"),
    Option("features", _("Node features"), "list", "where", word=_("Features")),
    Option("environment", _("Environment"), "name", "what"),
    Option("image", _("Container image"), "name", "what", word=_("Image")),
    Option("interface", _("Interface"), "name", "what"),
    Option("walltime", _("Wall time"), "time", "size"),
    Option("nodes", _("Nodes"), "count", "size"),
    Option("cpus", _("CPUs"), "count", "size"),
    Option("memory", _("Memory"), "memory", "size"),
    Option("gpus", _("GPUs"), "count", "size"),
    Option("gpu_type", _("GPU type"), "name", "size"),
    Option("directory", _("Directory"), "folder", "what"),
    Option("own_setup", _("Own set-up"), "lines", "what"),
    Option("details", _("More information about the job"), "flag", "what", word=_("Details")),
    Option("queue_limit", _("Give up after"), "time", "size", folded=True),
    Option("idle_limit", _("Stop when idle for"), "time", "size", folded=True),
    Option("renewals", _("Start again when the wall time ends"), "count", "size", word=_("Start again"), folded=True),
)
"""In the order in which a refusal lists them."""

OPTIONS = tuple(option.name for option in TABLE)
"""Their names."""

BY_NAME = {option.name: option for option in TABLE}
"""The rows by name."""


def word(name: str) -> str:
    """What a sentence calls an option."""
    return BY_NAME[name].word if name in BY_NAME else name.capitalize()
