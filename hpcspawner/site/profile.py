"""What a cluster offers, read from one TOML file and checked as a whole."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, ValidationError, model_validator

from hpcspawner.errors import ProfileError
from hpcspawner.site import api, scheduler_types
from hpcspawner.site.away import UserNames
from hpcspawner.site.checks import cross_checks, repeated_names
from hpcspawner.site.cost import Cost, Rates
from hpcspawner.site.environments import Environment, Image, OwnEnvironments, OwnImages, OwnSetup
from hpcspawner.site.fields import (
    Count,
    FolderRule,
    Frozen,
    HelperPath,
    HomePath,
    HomeRule,
    Line,
    MemoryText,
    Name,
    PathText,
    SchedulerName,
    Script,
    Value,
    Variable,
    WalltimeOrFalse,
    WalltimeText,
)
from hpcspawner.site.interfaces import DEFAULT_INTERFACES, Interface
from hpcspawner.site.parallel import Parallel
from hpcspawner.site.presets import Preset
from hpcspawner.site.renamed import with_new_keys
from hpcspawner.units import Walltime, shown

ANY_GPU = "any"
"""The type of GPUs that the scheduler does not tell apart."""
NEVER = "never"
"""What a user writes to have a server never end for being idle, though the site has a default."""


def _known_scheduler(name: str) -> str:
    scheduler_types.find(name)
    return name


class Directive(Frozen):
    """One option for the scheduler that the admin adds to every job, such as `mail-type` and `NONE`."""

    option: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,40}$")]
    value: Value = ""


class Access(api.ByApi):
    """Which batch system it is and how the Hub reaches its commands."""

    type: Annotated[str, AfterValidator(_known_scheduler)]
    command_prefix: Annotated[tuple[Line, ...] | None, Field(description="argv put before submit and cancel.")] = None
    helper: Annotated[HelperPath | None, Field(description="Program that the prefix runs in place of them.")] = None
    look: Annotated[
        bool, Field(description="The Hub may look at files as its users: own environments, a check of a choice.")
    ] = False
    path: Annotated[tuple[PathText, ...], Field(description="Folders with the scheduler's commands.")] = (
        "/usr/local/bin",
        "/usr/bin",
        "/bin",
    )
    command_timeout_s: Annotated[float, Field(ge=1, le=600)] = 30.0
    variables: Annotated[
        dict[Variable, Value], Field(description="What the scheduler's commands find in their environment.")
    ] = {}
    tag: Annotated[
        Literal["comment", "job-name"], Field(description="Where the Hub writes its tag of a job (slurm only).")
    ] = "comment"
    min_uid: Annotated[
        int, Field(ge=1, le=2**31, strict=True, description="Jobs run only for accounts with this uid or a higher one.")
    ] = 1000
    node_name: Annotated[Line, Field(description="How the Hub resolves a node, e.g. '{node}.cluster'.")] = "{node}"
    slots: Annotated[Count, Field(description="Jobs that run at once (local only).")] = 2

    @property
    def rules(self) -> scheduler_types.ProfileRules:
        """What this scheduler lets a profile say."""
        return scheduler_types.rules(self.type, bool(self.api))

    @property
    def has_nodes(self) -> bool:
        """Whether jobs run on other machines than the Hub's."""
        return not self.rules.on_hub

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix in force: become the user by sudo, except where jobs are the Hub's own or a token says whose."""
        if self.command_prefix is not None:
            return self.command_prefix
        return ("sudo", "-n", "-u", "{user}") if self.has_nodes and not self.api else ()

    @property
    def acts_for_users(self) -> bool:
        """Whether jobs are their users' own, by a prefix that becomes the user or by a token; else the Hub's."""
        return bool(self.prefix or self.api)


class Partition(Frozen):
    """A Slurm partition or a PBS queue, with the most that one notebook may ask of it."""

    name: SchedulerName
    title: Line | None = None
    help: Line | None = None
    form_only: Annotated[
        bool, Field(description="The name is for the form alone; the scheduler is asked for no partition.")
    ] = False
    max_walltime: WalltimeText
    max_nodes: Count = 1
    whole_nodes: Annotated[
        bool, Field(description="The scheduler gives whole nodes: the form does not ask for cpus and memory.")
    ] = False
    max_cpus: Annotated[Count, Field(description="Per node.")] = 1
    max_memory: Annotated[MemoryText | None, Field(description="Per node.")] = None
    gpus: Annotated[dict[SchedulerName, Count], Field(description="Most GPUs of each type, per node.")] = {}
    min_gpus: Annotated[int, Field(ge=0, strict=True)] = 0
    accounts: Annotated[tuple[SchedulerName, ...], Field(description="The only accounts allowed here.")] = ()
    qos: tuple[SchedulerName, ...] = ()
    features: Annotated[tuple[SchedulerName, ...], Field(description="Node features to choose from.")] = ()
    directives: tuple[Directive, ...] = ()
    cost: Annotated[Rates | None, Field(description="Rates of its own, in place of the site's.")] = None

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name

    @property
    def max_gpus(self) -> int:
        """The most GPUs of one type."""
        return max(self.gpus.values(), default=0)

    @model_validator(mode="after")
    def _gpus_fit(self) -> Self:
        if self.min_gpus > self.max_gpus:
            raise ValueError(f"min_gpus is {self.min_gpus}, but gpus allows {self.max_gpus} at most")
        return self


class Defaults(Frozen):
    """What a user gets who chooses nothing."""

    partition: SchedulerName | None = None
    walltime: WalltimeText = Walltime(1800)
    nodes: Count = 1
    cpus: Count = 1
    memory: MemoryText | None = None
    gpus: Annotated[int, Field(ge=0, strict=True)] = 0
    account: SchedulerName | None = None
    environment: Name | None = None
    image: Name | None = None
    interface: Name | None = None
    directory: FolderRule = "~"
    queue_limit: Annotated[WalltimeText | None, Field(description="None: as limits.queue says.")] = None
    idle_limit: Annotated[WalltimeText | None, Field(description="None: as limits.idle says.")] = None
    renewals: Annotated[int, Field(ge=0, strict=True)] = 0


class Limits(Frozen):
    """How long jobs may wait and servers may live; a user may choose less."""

    queue: Annotated[WalltimeText, Field(description="Longest time in the queue.")] = Walltime(7 * 86400)
    idle: Annotated[
        WalltimeText | None, Field(description="Servers idle for this long end by themselves; None: no limit.")
    ] = None
    renewals: Annotated[
        int, Field(ge=0, le=1000, strict=True, description="How often a server may start again; 0: not offered.")
    ] = 0
    warning: Annotated[
        WalltimeOrFalse, Field(description="How long before the wall time's end a job is warned; false: not at all.")
    ] = Walltime(300)


class Job(Frozen):
    """What the admin adds to every job."""

    directives: tuple[Directive, ...] = ()
    leave_out: Annotated[tuple[Line, ...], Field(description="Options left out of the submit command.")] = ()
    prologue: Annotated[Script, Field(description="Bash, run before the environment is set up.")] = ""
    epilogue: Annotated[Script, Field(description="Bash, run after the server has ended.")] = ""
    log: Annotated[HomePath, Field(description="Folder for the jobs' log files, on the compute node.")] = (
        "~/.hpcspawner"
    )
    python: Annotated[Line, Field(description="Python (3.6 or later) on the node that runs the launcher.")] = "python3"
    umask: Annotated[
        str | None, Field(pattern=r"^0?[0-7]{3}$", description="The jobs' umask; none: the node's own, as at a login.")
    ] = None
    modules_init: Annotated[
        HomePath | None, Field(description="File that defines `module`; none: the files that a login reads.")
    ] = None
    conda: Annotated[HomePath | None, Field(description="Folder of the conda that activates the environments.")] = None
    container_command: Annotated[
        tuple[Line, ...], Field(description="argv that runs an image; none: `apptainer`, or `singularity`.")
    ] = ()
    proxy: Annotated[
        PathText | None, Field(description="Environment with jupyter-server-proxy, for Jupyter without jupyterhub.")
    ] = None
    writable_directory: Annotated[bool, Field(description="A server starts only where its user may write.")] = True
    kernel_token: Annotated[
        bool, Field(description="Kernels and terminals find the Hub's token; jobs that they start may, too.")
    ] = False
    parallel: Parallel = Parallel()
    gpu_options: Annotated[tuple[Line, ...], Field(description="Options that give a container the node's GPUs.")] = (
        "--nv",
    )
    ports: Annotated[tuple[int, int] | None, Field(description="First and last port servers may use.")] = None
    status_bar: Annotated[
        bool, Field(description="JupyterLab and Notebook show the job: time left, node, memory, with Renew and Stop.")
    ] = True
    reminders: Annotated[
        tuple[WalltimeText, ...],
        Field(max_length=10, description="How long before the end JupyterLab and Notebook warn their user."),
    ] = (Walltime(900), Walltime(300))
    requeue: Annotated[
        bool, Field(description="The scheduler may start a job again after a failure of its node or a preemption.")
    ] = False

    @model_validator(mode="after")
    def _ports_are_a_range(self) -> Self:
        if self.ports and not 1024 <= self.ports[0] <= self.ports[1] <= 65535:
            raise ValueError(f"ports: {list(self.ports)} is not a range within 1024 to 65535, lower one first")
        return self


class Contact(Frozen):
    """Whom a user tells when the site is not set up."""

    name: Line = "the administrators of this JupyterHub"
    email: Line | None = None
    help_url: Annotated[
        str | None,
        Field(
            pattern=r"^(?:https?:/)?/[^\s\"'<>#]*$",
            description="Your own page about troubleshooting, to which pages link; default: the Hub's.",
        ),
    ] = None

    def __str__(self) -> str:
        return f"{self.name} ({self.email})" if self.email else self.name


class Directories(Frozen):
    """Where a server may start; `{user}`, `{home}`, `{group}` and the site's variables are replaced."""

    allowed: Annotated[
        tuple[FolderRule, ...], Field(description="Folders under which it must lie; none: anywhere.")
    ] = ()
    variables: Annotated[
        dict[Variable, HomeRule], Field(description="Folders by names such as SCRATCH, to write as $SCRATCH.")
    ] = {}


class Words(Frozen):
    """The site's own words on the form."""

    partition: Line = "Partition"
    account: Line = "Account"


class SiteProfile(Frozen):
    """All that one cluster offers."""

    title: Line
    name: Annotated[
        str,
        Field(
            pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$",
            description="The cluster in the ledger, in options and events; it must stay. Default: the file's name.",
        ),
    ] = "cluster"
    scheduler: Access
    partitions: Annotated[tuple[Partition, ...], Field(min_length=1)]
    environments: Annotated[tuple[Environment, ...], Field(min_length=1)]
    images: tuple[Image, ...] = ()
    own_images: OwnImages = OwnImages()
    own_setup: OwnSetup = OwnSetup()
    own_environments: OwnEnvironments = OwnEnvironments()
    interfaces: Annotated[tuple[Interface, ...], Field(min_length=1)] = DEFAULT_INTERFACES
    presets: tuple[Preset, ...] = ()
    accounts: Annotated[tuple[SchedulerName, ...], Field(description="Accounts to choose from; none: typed in.")] = ()
    account: Literal["optional", "required", "hidden"] = "optional"
    reservation: Literal["optional", "hidden"] = "hidden"
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    directories: Directories = Directories()
    job: Job = Job()
    contact: Contact = Contact()
    words: Words = Words()
    users: UserNames = UserNames()
    cost: Annotated[Cost | None, Field(description="What computing time costs; none: the pages say nothing.")] = None

    def partition(self, name: str) -> Partition | None:
        """The partition of this name, or None."""
        return _by_name(self.partitions, name)

    def environment(self, name: str) -> Environment | None:
        """The environment of this name, or None."""
        return _by_name(self.environments, name)

    def image(self, name: str) -> Image | None:
        """The image of this name or path, or None."""
        return _by_name(self.images, name) or next((image for image in self.images if image.path == name), None)

    def interface(self, name: str) -> Interface | None:
        """The interface of this name, or None."""
        return _by_name(self.interfaces, name)

    @property
    def directives(self) -> tuple[tuple[str, str], ...]:
        """Every option that the admin adds to some jobs or to all, with its value."""
        added = (self.job.directives, *(one.directives for one in self.partitions))
        return tuple((one.option, one.value) for some in added for one in some)

    @property
    def default_queue_limit(self) -> Walltime:
        """How long a job may wait whose user chose nothing."""
        return self.defaults.queue_limit or self.limits.queue

    @property
    def default_idle_limit(self) -> Walltime | None:
        """How long a server may be idle whose user chose nothing; None: for ever."""
        return self.defaults.idle_limit or self.limits.idle

    @property
    def default_partition(self) -> Partition:
        """The one named in the defaults, else the first."""
        return self.partition(self.defaults.partition or "") or self.partitions[0]

    @property
    def default_environment(self) -> Environment:
        """The one named in the defaults, else the first."""
        return self.environment(self.defaults.environment or "") or self.environments[0]

    @property
    def default_interface(self) -> Interface:
        """The one named in the defaults, else the first."""
        return self.interface(self.defaults.interface or "") or self.interfaces[0]


def load(path: str | Path) -> SiteProfile:
    """Read and check one profile; raise ProfileError with every mistake in it."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(str(path), [f"can't be read: {error.strerror}"]) from error
    except RecursionError:
        raise ProfileError(str(path), ["is not TOML that can be read: lists or tables are nested too deeply"]) from None
    except ValueError as error:
        # A TOMLDecodeError, bytes that are no UTF-8, or a number longer than Python reads.
        raise ProfileError(str(path), [f"is not TOML: {error}"]) from error
    data.setdefault("name", _name_of(Path(path)))
    return parse(data, str(path))


def _name_of(path: Path) -> str:
    """The name of a cluster whose profile gives none: that of its file, in letters that a name may have."""
    return re.sub(r"[^a-z0-9_-]+", "-", path.stem.lower()).strip("-_")[:40] or "cluster"


def find_shipped(name: str) -> Path:
    """Path of a profile that comes with the package, such as `comet.toml`; FileNotFoundError lists what there is."""
    for folder in _shipped_folders():
        if (folder / name).is_file():
            return folder / name
    have = sorted({path.name for folder in _shipped_folders() for path in folder.glob("*.toml")})
    raise FileNotFoundError(f"no profile named {name!r} is shipped; the shipped ones are: {', '.join(have) or 'none'}")


def _shipped_folders() -> Iterator[Path]:
    here = Path(__file__).resolve()
    yield here.parents[2] / "profiles"  # a checkout
    # An installed package: PREFIX/lib/pythonX.Y/site-packages/hpcspawner/site -> PREFIX/share/hpcspawner/profiles
    yield from (parent / "share" / "hpcspawner" / "profiles" for parent in here.parents)


def parse(data: dict[str, Any], path: str) -> SiteProfile:
    """Check what a profile holds; `path` names it in errors. Raises ProfileError with every mistake in it."""
    data = with_new_keys(data)
    problems = list(repeated_names(data))
    try:
        profile = SiteProfile.model_validate(data)
    except ValidationError as error:
        problems += [_described(entry, data) for entry in error.errors(include_url=False) if not _is_echo(entry)]
        raise ProfileError(path, problems) from None
    problems += cross_checks(profile)
    if problems:
        raise ProfileError(path, problems)
    return profile


def _is_echo(entry: Any) -> bool:
    """Whether pydantic calls a list too short only because it left out the entries that have mistakes of their own."""
    return entry["type"] == "too_short" and bool(entry["input"])


def _described(entry: Any, data: dict[str, Any]) -> str:
    place = _place(entry["loc"], data)
    kind, message = entry["type"], entry["msg"].removeprefix("Value error, ")
    if kind == "extra_forbidden":
        message = "unknown key (see the profile reference for the keys that exist)"
    elif kind == "missing":
        message = "is missing"
    elif kind == "string_pattern_mismatch":
        message = f"{entry['input']!r} has characters that are not allowed here (pattern {entry['ctx']['pattern']})"
    elif kind not in ("value_error", "assertion_error"):
        given = entry["input"] if isinstance(entry["input"], str) else shown(entry["input"])
        message = f"{message}; got {given[:60]!r}"
    return f"{place}: {message}"


def _place(loc: Sequence[str | int], data: Any) -> str:
    """A key path, with the name of a table's entry beside its position: `partitions[2] (gpu).max_walltime`."""
    place, node = "", data
    for step in loc:
        try:
            node = node[step]
        except (KeyError, IndexError, TypeError):
            node = None
        if isinstance(step, int):
            name = node.get("name") if isinstance(node, dict) else None
            place += f"[{step + 1}]" + (f" ({name})" if isinstance(name, str) else "")
        else:
            place += f".{step}" if place else step
    return place or "profile"


_Entry = TypeVar("_Entry", Partition, Image, Environment, Interface)


def _by_name(entries: Iterable[_Entry], name: str) -> _Entry | None:
    return next((entry for entry in entries if entry.name == name), None)
