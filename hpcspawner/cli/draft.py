"""A profile as text with comments, made of what is known of a cluster; what is not known is marked."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from hpcspawner.schedulers.inventory import Inventory, PartitionLimits
from hpcspawner.site import names
from hpcspawner.units import Memory, Walltime

MARK = "# ?"
"""What stands before everything that was not learned and that an admin should look at."""

_LONGEST = Walltime(7 * 86400)
_DEFAULT_WALLTIME = Walltime(3600)
_MOST_ACCOUNTS = 30
_GIB = 1024


@dataclass(frozen=True, slots=True)
class DraftEnvironment:
    """One way to have Jupyter; `unsure` marks one that was not found and has to be corrected."""

    name: str
    path: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    unsure: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """All that goes into a profile. `defaults` and `job` are keys of those tables with their values as TOML."""

    title: str
    scheduler: str
    path: tuple[str, ...] = ()
    command_prefix: tuple[str, ...] | None = None
    inventory: Inventory
    environments: tuple[DraftEnvironment, ...] = ()
    images: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    interfaces: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    defaults: Mapping[str, str] = field(default_factory=dict)
    default_partition: str = ""
    directives: tuple[tuple[str, str], ...] = ()
    job: Mapping[str, str] = field(default_factory=dict)
    qos: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """The profile."""
        parts = [
            self._head(),
            self._scheduler(),
            *(self._partition(one) for one in self._offered()),
            *(_environment(one) for one in self.environments),
            *self._images(),
            *self._interfaces(),
            self._limits(),
            self._defaults(),
            self._job(),
            '[contact]\nname = "the help desk"                 # ? whom users ask\n# email = "help@example.org"',
        ]
        texts = [part if isinstance(part, str) else "\n".join(part) for part in parts]
        return "\n\n".join(filter(None, texts)) + "\n"

    def _offered(self) -> list[PartitionLimits]:
        """Partitions whose names a profile can hold, the default first."""
        fit = [one for one in self.inventory.partitions if names.is_name(one.name, self.scheduler, "partition")]
        return sorted(fit, key=lambda one: one.name != self._default.name)

    @property
    def _default(self) -> PartitionLimits:
        known = self.inventory.partitions
        named = self.inventory.partition(self.default_partition)
        return named or next(
            (one for one in known if one.is_default), next((one for one in known if one.is_up), known[0])
        )

    def _head(self) -> Iterator[str]:
        yield "# Written by `hpcspawner init` from what the cluster says of itself. Every key: docs/reference/profile.md."
        yield f"# Look at each line with `{MARK}`: the cluster does not say it. Then: hpcspawner check SITE.toml"
        yield from (f"{MARK} {note}" for note in filter(None, [self.inventory.note, *self.notes]))
        yield ""
        yield f"title = {_toml(self.title)}"
        accounts = [one for one in self.inventory.accounts or () if names.is_name(one, self.scheduler, "account")]
        accounts = [one for one in accounts if one != "root"]
        yield 'account = "optional"                    # "required" where a job needs one; "hidden" where none is used'
        if accounts and len(accounts) <= _MOST_ACCOUNTS:
            yield f"# accounts = {_toml(accounts)}    # to choose from a list; without it users type theirs in"

    def _scheduler(self) -> Iterator[str]:
        yield "[scheduler]"
        yield f"type = {_toml(self.scheduler)}"
        if self.path:
            yield f"path = {_toml(self.path)}"
        if self.command_prefix is not None:
            yield f"command_prefix = {_toml(self.command_prefix)}"
        yield '# helper = "/usr/local/libexec/hpcspawner"    # for a Hub that is not root: docs/howto/least-privilege.md'

    def _partition(self, one: PartitionLimits) -> Iterator[str]:
        yield "[[partitions]]"
        yield f"name = {_toml(one.name)}"
        if not one.is_up:
            yield f"{MARK} it takes no jobs, or starts none, at the moment"
        if one.max_walltime:
            yield f"max_walltime = {_toml(str(one.max_walltime))}"
        else:
            yield f"max_walltime = {_toml(str(_LONGEST))}                    {MARK} the cluster sets no limit"
        yield f"# max_nodes = {one.max_nodes or 2}                         # more than one: for MPI from a notebook"
        if one.cpus:
            yield f"max_cpus = {one.cpus}                           # per node"
        else:
            yield f"max_cpus = 1                            {MARK} the cluster does not say how many CPUs a node has"
        if one.memory:
            yield f"max_memory = {_toml(rounded(one.memory))}                     # per node"
        else:
            yield f'# max_memory = "4G"                     {MARK} the cluster does not say how much memory a node has'
        if one.gpus:
            yield f"gpus = {{ {', '.join(f'{_toml(kind)} = {count}' for kind, count in one.gpus.items())} }}"
        if one.features:
            fit = [name for name in one.features if names.is_name(name, self.scheduler, "feature")]
            yield f"# features = {_toml(fit)}    # for users to choose from"
        if one.accounts:
            yield f"accounts = {_toml(one.accounts)}"
        if qos := self.qos.get(one.name, one.qos):
            yield f"qos = {_toml(qos)}"

    def _images(self) -> Iterator[list[str]]:
        for name, path in self.images.items():
            yield ["[[images]]", f"name = {_toml(name)}", f"path = {_toml(path)}"]
        if self.modules:
            yield [
                f"{MARK} these modules look like Jupyter's; an environment can load some:",
                "# [[environments]]",
                '# name = "modules"',
                *(f"# modules = {_toml([one])}" for one in self.modules),
            ]

    def _interfaces(self) -> Iterator[list[str]]:
        for name, url, command in self.interfaces:
            yield ["[[interfaces]]", f"name = {_toml(name)}", f"url = {_toml(url)}", f"command = {_toml(command)}"]

    def _limits(self) -> list[str]:
        return [
            "[limits]",
            'queue = "2d"                            # a job that has waited for longer is cancelled',
            '# idle = "8h"                           # a server without activity for this long shuts down',
            "# renewals = 2                          # how many jobs may follow when the wall time ends",
        ]

    def _defaults(self) -> Iterator[str]:
        default = self._default
        walltime = min(default.max_walltime or _LONGEST, _DEFAULT_WALLTIME)
        memory = min(Memory(2 * _GIB), default.memory or Memory(2 * _GIB))
        ours = {
            "partition": _toml(default.name),
            "walltime": _toml(str(walltime)),
            "memory": _toml(str(memory)),
            "environment": _toml(self.environments[0].name) if self.environments else "",
        }
        yield "[defaults]"
        yield from (f"{key} = {value}" for key, value in (ours | dict(self.defaults)).items() if value)

    def _job(self) -> Iterator[str]:
        if not self.job and not self.directives:
            return
        yield "[job]"
        if self.directives:
            rows = [f"  {{ option = {_toml(option)}, value = {_toml(value)} }}," for option, value in self.directives]
            yield "\n".join(["directives = [", *rows, "]"])
        yield from (f"{key} = {value}" for key, value in self.job.items())


def _environment(one: DraftEnvironment) -> Iterator[str]:
    yield "[[environments]]"
    yield f"name = {_toml(one.name)}"
    mark = (
        f"    {MARK} no Jupyter was found: name a folder that compute nodes see (init --environments=…)"
        if one.unsure
        else ""
    )
    yield f"path = {_toml(one.path)}{mark}"
    if one.variables:
        yield f"variables = {{ {', '.join(f'{_toml(name)} = {_toml(value)}' for name, value in one.variables.items())} }}"


def rounded(memory: Memory) -> str:
    """In whole G, downwards, where that loses little."""
    return str(Memory(memory.mib // _GIB * _GIB)) if memory.mib >= 8 * _GIB else str(memory)


def raised(
    limits: PartitionLimits, walltime: Walltime | None, memory: Memory | None, cpus: int | None
) -> PartitionLimits:
    """The same with these limits where the cluster names none."""
    return replace(
        limits,
        max_walltime=limits.max_walltime or walltime,
        memory=limits.memory or memory,
        cpus=limits.cpus or cpus,
    )


def _toml(value: str | int | Iterable[str]) -> str:
    """A value as TOML: a basic string, or a list of some."""
    if isinstance(value, str | int):
        return json.dumps(value, ensure_ascii=False)
    return f"[{', '.join(_toml(one) for one in value)}]"


def multiline(text: str) -> str:
    """Lines of bash as a literal TOML string; as a basic one where they hold its end."""
    return json.dumps(text, ensure_ascii=False) if "'''" in text else f"'''\n{text.rstrip()}\n'''"
