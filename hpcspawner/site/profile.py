"""What a cluster offers, read from one TOML file and checked as a whole."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator, ValidationError, model_validator

from hpcspawner.errors import ProfileError
from hpcspawner.programs.helper import DIRECTIVE
from hpcspawner.site import names, options
from hpcspawner.units import Memory, Walltime, shown

ANY_GPU = "any"
"""The type of GPUs that the scheduler does not tell apart."""
NO_IMAGE = "none"
"""What a user picks to have no image though the environment or the site has a default; no image may be called so."""
NEVER = "never"
"""What a user writes to have a server never end for being idle, though the site has a default."""


VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})(?=/|$)", re.ASCII)
"""A variable at the start of a folder, as shells write it: `$SCRATCH` or `${SCRATCH}`."""


def _one_line(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("control characters and line breaks are not allowed here")
    return text


def _absolute(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("write an absolute path")
    return text


def _absolute_or_home(text: str) -> str:
    if not re.match(r"(/|~/|~$)", text):
        raise ValueError("write an absolute path, or one that begins with '~/'")
    return text


def _rule(text: str) -> str:
    return text if re.match(r"\{home\}(/|$)", text) else _absolute_or_home(text)


def _folder(text: str) -> str:
    return text if VARIABLE.match(text) else _rule(text)


def _walltime_or_false(value: object) -> Walltime | None:
    try:
        return None if value is False else Walltime.parse(value)
    except ValueError as error:
        raise ValueError(f"{error}; false switches it off") from None


def _modules(line: str) -> str:
    for word in line.split():
        if not _MODULE.fullmatch(word):
            raise ValueError(
                f"{shown(word)} is not a module name: it begins with '-' or contains a quote, '$', '`', ';' or '&'"
            )
    return line


def _one_by_one(lines: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for line in lines for word in line.split())


# Module names have signs of many kinds (`python@3.10`, `+mpi`, `~cuda`, `.hidden/1`); the job script quotes them.
_MODULE = re.compile(r"(?!-)[A-Za-z0-9_.~@+:=%,^!*/-]{1,256}")

Line = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
SchedulerName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_one_line)]
"""A name that the scheduler gave; what may stand in it differs from one to the other, see `_names_there`."""
Value = Annotated[str, Field(max_length=500), AfterValidator(_one_line)]
Module = Annotated[Line, AfterValidator(_modules)]
"""One module, or several in a line as `module load` takes them."""
Modules = Annotated[tuple[Module, ...], AfterValidator(_one_by_one)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
PathText = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_absolute)]
# Signs that mean nothing in sudoers.
HelperPath = Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_+-][A-Za-z0-9._+-]{0,63}){1,10}$")]
HomePath = Annotated[
    str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_absolute_or_home)
]
FolderRule = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_folder)]
HomeRule = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_one_line), AfterValidator(_rule)]
Script = Annotated[str, Field(max_length=20_000)]
WalltimeText = Annotated[Walltime, PlainValidator(Walltime.parse)]
WalltimeOrFalse = Annotated[Walltime | None, PlainValidator(_walltime_or_false)]
MemoryText = Annotated[Memory, PlainValidator(Memory.parse)]
Count = Annotated[int, Field(ge=1, le=100_000, strict=True)]


class Frozen(BaseModel):
    """A part of a profile: unchangeable, and unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class Directive(Frozen):
    """One option for the scheduler that the admin adds to every job, such as `mail-type` and `NONE`."""

    option: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,40}$")]
    value: Value = ""


class Access(Frozen):
    """Which batch system it is and how the Hub reaches its commands."""

    type: Literal["slurm", "torque", "local"]
    command_prefix: Annotated[tuple[Line, ...] | None, Field(description="argv put before submit and cancel.")] = None
    helper: Annotated[HelperPath | None, Field(description="Program that the prefix runs in place of them.")] = None
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
    def has_nodes(self) -> bool:
        """Whether jobs run on other machines than the Hub's."""
        return self.type != "local"

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix in force: become the user by sudo, except for `local`."""
        if self.command_prefix is not None:
            return self.command_prefix
        return () if self.type == "local" else ("sudo", "-n", "-u", "{user}")


class Partition(Frozen):
    """A Slurm partition or a Torque queue, with the most that one notebook may ask of it."""

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


class Image(Frozen):
    """A container image that a server may run in."""

    name: Name
    title: Line | None = None
    help: Line | None = None
    path: PathText
    binds: Annotated[tuple[PathText, ...], Field(description="Folders of the node to show inside.")] = ()
    gpu_options: Annotated[tuple[Line, ...] | None, Field(description="None: as job.gpu_options says.")] = None

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name


class Environment(Frozen):
    """A named way to have Jupyter on a compute node."""

    name: Name
    title: Line | None = None
    help: Line | None = None
    purge_modules: bool = False
    modules: Modules = ()
    conda: Annotated[Line | None, Field(description="A conda environment, by name or path.")] = None
    path: Annotated[tuple[HomePath, ...], Field(description="Folders put in front of PATH.")] = ()
    setup: Annotated[tuple[Line, ...], Field(description="Further lines of bash, run in order.")] = ()
    variables: dict[Variable, Value] = {}
    image: Annotated[Name | None, Field(description="The image used when the user picks none.")] = None

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name


class Interface(Frozen):
    """What opens in the browser."""

    name: Name
    title: Line | None = None
    help: Line | None = None
    url: Annotated[str, Field(pattern=r"^/[A-Za-z0-9_./-]{0,200}$", description="Page shown first.")] = "/lab"
    command: Annotated[tuple[Line, ...], Field(min_length=1)] = ("jupyterhub-singleuser",)
    programs: Annotated[tuple[Line, ...], Field(description="Programs that must be found, besides the command.")] = ()

    @property
    def label(self) -> str:
        """What the form calls it."""
        return self.title or self.name


_INTERFACES = (
    Interface(name="lab", title="JupyterLab", url="/lab", programs=("jupyter-lab",)),
    Interface(name="notebook", title="Jupyter Notebook", url="/tree", programs=("jupyter-notebook",)),
)


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
    container_command: Annotated[tuple[Line, ...], Field(min_length=1)] = ("apptainer",)
    gpu_options: Annotated[tuple[Line, ...], Field(description="Options that give a container the node's GPUs.")] = (
        "--nv",
    )
    ports: Annotated[tuple[int, int] | None, Field(description="First and last port servers may use.")] = None
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
    scheduler: Access
    partitions: Annotated[tuple[Partition, ...], Field(min_length=1)]
    environments: Annotated[tuple[Environment, ...], Field(min_length=1)]
    images: tuple[Image, ...] = ()
    interfaces: Annotated[tuple[Interface, ...], Field(min_length=1)] = _INTERFACES
    accounts: Annotated[tuple[SchedulerName, ...], Field(description="Accounts to choose from; none: typed in.")] = ()
    account: Literal["optional", "required", "hidden"] = "optional"
    reservation: Literal["optional", "hidden"] = "hidden"
    defaults: Defaults = Defaults()
    limits: Limits = Limits()
    directories: Directories = Directories()
    job: Job = Job()
    contact: Contact = Contact()
    words: Words = Words()

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
    return _checked(data, str(path))


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


def _checked(data: dict[str, Any], path: str) -> SiteProfile:
    problems = list(_repeated_names(data))
    try:
        profile = SiteProfile.model_validate(data)
    except ValidationError as error:
        problems += [_described(entry, data) for entry in error.errors(include_url=False) if not _is_echo(entry)]
        raise ProfileError(path, problems) from None
    problems += _cross_checks(profile)
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


def _repeated_names(data: dict[str, Any]) -> Iterator[str]:
    for table in ("partitions", "environments", "images", "interfaces"):
        entries = data.get(table)
        if isinstance(entries, list):
            names = [str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry]
            for name, count in Counter(names).items():
                if count > 1:
                    yield f"{table}: {name!r} appears {count} times; give each entry its own name"


def _cross_checks(profile: SiteProfile) -> list[str]:
    return [
        *_unknown_defaults(profile),
        *_names_there(profile),
        *_defaults_over_limit(profile),
        *_access_mistakes(profile),
        *_refused_directives(profile),
        *_refused_variables(profile),
        *_kept_options(profile),
        *_options_in_scripts(profile),
        *_unknown_placeholders(profile),
        *_unknown_variables(profile),
    ]


def _unknown_defaults(profile: SiteProfile) -> Iterator[str]:
    chosen = profile.defaults
    named: list[tuple[str, str | None, Iterable[Any]]] = [
        ("defaults.partition", chosen.partition, profile.partitions),
        ("defaults.environment", chosen.environment, profile.environments),
        ("defaults.interface", chosen.interface, profile.interfaces),
        ("defaults.image", chosen.image, profile.images),
    ]
    named += [(f"environments ({one.name}).image", one.image, profile.images) for one in profile.environments]
    for place, name, offered in named:
        names = [entry.name for entry in offered]
        if name is not None and name not in names:
            yield f"{place}: {name!r} is not one of: {', '.join(names) or 'none (no [[images]] are listed)'}"
    if any(image.name == NO_IMAGE for image in profile.images):
        yield f"images ({NO_IMAGE}).name: {NO_IMAGE!r} means that no image is used; choose another name"
    if profile.accounts and chosen.account and chosen.account not in profile.accounts:
        yield f"defaults.account: {chosen.account!r} is not one of accounts: {', '.join(profile.accounts)}"


def _names_there(profile: SiteProfile) -> Iterator[str]:
    """Names that this scheduler would read as something else."""
    scheduler = profile.scheduler.type
    for place, kind, texts in _scheduler_names(profile):
        for text in texts:
            if not names.is_name(text, scheduler, kind):
                allowed = names.allowed(scheduler, kind)
                yield f"{place}: {shown(text)} is not a valid {kind} name for this scheduler: {allowed}"


def _scheduler_names(profile: SiteProfile) -> Iterator[tuple[str, str, Iterable[str]]]:
    yield "accounts", "account", profile.accounts
    yield "defaults.account", "account", [profile.defaults.account] if profile.defaults.account else []
    for position, one in enumerate(profile.partitions, 1):
        place = f"partitions[{position}] ({one.name})"
        yield f"{place}.name", "partition", [one.name]
        yield f"{place}.gpus", "gpu type", one.gpus
        yield f"{place}.accounts", "account", one.accounts
        yield f"{place}.qos", "qos", one.qos
        yield f"{place}.features", "feature", one.features


def _defaults_over_limit(profile: SiteProfile) -> Iterator[str]:
    chosen, partition = profile.defaults, profile.default_partition
    limits: list[tuple[str, Any, Any]] = [
        ("walltime", chosen.walltime, partition.max_walltime),
        ("nodes", chosen.nodes, partition.max_nodes),
        ("gpus", chosen.gpus, partition.max_gpus),
    ]
    if not partition.whole_nodes:
        limits += [("cpus", chosen.cpus, partition.max_cpus), ("memory", chosen.memory, partition.max_memory)]
    for key, value, limit in limits:
        # A default that the admin did not write is brought within the limits by the gate.
        if key in chosen.model_fields_set and value is not None and limit is not None and value > limit:
            yield f"defaults.{key}: {value} is more than partition {partition.name!r} allows ({limit})"
    of_site: list[tuple[str, Any, str, Any]] = [
        ("queue_limit", chosen.queue_limit, "queue", profile.limits.queue),
        ("idle_limit", chosen.idle_limit, "idle", profile.limits.idle),
        ("renewals", chosen.renewals, "renewals", profile.limits.renewals),
    ]
    for key, value, name, limit in of_site:
        if value is not None and limit is not None and value > limit:
            yield f"defaults.{key}: {value} is more than limits.{name} allows ({limit})"


def _access_mistakes(profile: SiteProfile) -> Iterator[str]:
    access = profile.scheduler
    if access.type == "local" and access.command_prefix:
        yield "scheduler.command_prefix: 'local' runs jobs as the Hub's own account; leave the prefix out"
    if access.type == "local" and profile.directives:
        yield "directives: 'local' has no further options; leave them out"
    if access.helper and not access.prefix:
        yield "scheduler.helper: there is no command_prefix that would run it as the user; leave the helper out"


def _refused_directives(profile: SiteProfile) -> Iterator[str]:
    """What would take away what the Hub needs of a job, since the site's directives win."""
    access = profile.scheduler
    places = [("job", profile.job.directives)]
    places += [
        (f"partitions[{number}] ({one.name})", one.directives) for number, one in enumerate(profile.partitions, 1)
    ]
    for where, directives in places:
        for number, one in enumerate(directives, 1):
            if why := options.why_refused(access.type, one.option, one.value, tag=access.tag):
                yield f"{where}.directives[{number}].option: {one.option!r} can't be set: {why}"


def _refused_variables(profile: SiteProfile) -> Iterator[str]:
    for name in profile.scheduler.variables:
        if why := options.why_no_variable(name):
            yield f"scheduler.variables.{name}: can't be set: {why}"


def _kept_options(profile: SiteProfile) -> Iterator[str]:
    access, allowed = profile.scheduler, options.may_leave_out(profile.scheduler.type)
    for name in profile.job.leave_out:
        if name not in allowed:
            yield (
                f"job.leave_out: {name!r} can't be left out for scheduler type {access.type!r}; you can leave out: "
                f"{', '.join(allowed) or 'nothing'}"
            )
    if access.tag != "comment" and access.type != "slurm":
        yield f"scheduler.tag: {access.type!r} has only one place for the tag; leave the key out"


def _options_in_scripts(profile: SiteProfile) -> Iterator[str]:
    """A scheduler would read such a line as an option; job scripts hold none."""
    for place, text in (("prologue", profile.job.prologue), ("epilogue", profile.job.epilogue)):
        if found := DIRECTIVE.search(text.encode()):
            line = shown(found.group().decode(errors="replace"))
            yield f"job.{place}: {line} is an option for the scheduler; write it as one of job.directives"


def _unknown_placeholders(profile: SiteProfile) -> Iterator[str]:
    access, folders = profile.scheduler, {"user", "home", "group"}
    texts = [
        ("scheduler.node_name", access.node_name, {"node"}),
        *(("scheduler.command_prefix", part, {"user"}) for part in access.prefix),
        *((place, rule, folders) for place, rule in _folder_rules(profile)),
    ]
    for place, text, known in texts:
        for word in re.findall(r"(?<!\$)\{([^{}]*)\}", text):
            if word not in known:
                there = " and ".join(f"{{{one}}}" for one in sorted(known, reverse=True))
                yield f"{place}: {{{word}}} is not a placeholder here; use {there}"


def _unknown_variables(profile: SiteProfile) -> Iterator[str]:
    known = profile.directories.variables
    for place, rule in _folder_rules(profile):
        match = VARIABLE.match(rule)
        if match and (match[1] or match[2]) not in known:
            there = ", ".join(f"${name}" for name in known) or "none"
            yield f"{place}: {match[0]} is not defined; directories.variables has: {there}"


def _folder_rules(profile: SiteProfile) -> Iterator[tuple[str, str]]:
    """The rules for folders, each with its place in the profile."""
    yield from (("directories.allowed", rule) for rule in profile.directories.allowed)
    yield from ((f"directories.variables.{name}", rule) for name, rule in profile.directories.variables.items())
    yield "defaults.directory", profile.defaults.directory


_Entry = TypeVar("_Entry", Partition, Image, Environment, Interface)


def _by_name(entries: Iterable[_Entry], name: str) -> _Entry | None:
    return next((entry for entry in entries if entry.name == name), None)
