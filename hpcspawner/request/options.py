"""Every option there is, one row each: the names of form fields, REST keys and link arguments alike."""

from dataclasses import dataclass
from typing import Literal

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
    Option("cluster", "Cluster", "name"),
    Option("partition", "Partition", "name", "where"),
    Option("preset", "Preset", "name"),
    Option("account", "Account", "name", "where"),
    Option("qos", "QOS", "name", "where"),
    Option("reservation", "Reservation", "name", "where"),
    Option("features", "Node features", "list", "where", word="Features"),
    Option("environment", "Environment", "name", "what"),
    Option("image", "Container image", "name", "what", word="Image"),
    Option("interface", "Interface", "name", "what"),
    Option("walltime", "Wall time", "time", "size"),
    Option("nodes", "Nodes", "count", "size"),
    Option("cpus", "CPUs", "count", "size"),
    Option("memory", "Memory", "memory", "size"),
    Option("gpus", "GPUs", "count", "size"),
    Option("gpu_type", "GPU type", "name", "size"),
    Option("directory", "Directory", "folder", "what"),
    Option("own_setup", "Own set-up", "lines", "what"),
    Option("details", "More information about the job", "flag", "what", word="Details"),
    Option("queue_limit", "Give up after", "time", "size", folded=True),
    Option("idle_limit", "Stop when idle for", "time", "size", folded=True),
    Option("renewals", "Start again when the wall time ends", "count", "size", word="Start again", folded=True),
)
"""In the order in which a refusal lists them."""

OPTIONS = tuple(option.name for option in TABLE)
"""Their names."""

BY_NAME = {option.name: option for option in TABLE}
"""The rows by name."""


def word(name: str) -> str:
    """What a sentence calls an option."""
    return BY_NAME[name].word if name in BY_NAME else name.capitalize()
