"""The one place that checks a user's options, from the form, a link, REST or storage."""

import posixpath
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hpcspawner.errors import Problem, RequestError
from hpcspawner.request.images import own_environment, own_image, what_is_allowed, where_environments_may_lie
from hpcspawner.request.model import Choice, JobRequest, LocalAccount
from hpcspawner.schedulers.base import Resources
from hpcspawner.site import names
from hpcspawner.site.environments import NO_IMAGE, Image
from hpcspawner.site.fields import VARIABLE
from hpcspawner.site.profile import ANY_GPU, NEVER, Partition, SiteProfile
from hpcspawner.units import Memory, Walltime, shown

OPTIONS = (
    "cluster",
    "partition",
    "account",
    "qos",
    "reservation",
    "features",
    "environment",
    "image",
    "interface",
    "walltime",
    "nodes",
    "cpus",
    "memory",
    "gpus",
    "gpu_type",
    "directory",
    "details",
    "queue_limit",
    "idle_limit",
    "renewals",
)
"""Every option there is: the names of form fields, REST keys and link arguments alike."""

# Line breaks and control characters of any alphabet, and halves of characters that no file can hold.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST = 1000
# Of one kind, in one refusal: it goes into a page and the log, and its reader can't use hundreds.
_MOST_TOLD = 10
_YES = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
_DIGITS = re.compile(r"[0-9]{1,7}")


def make(options: object, profile: SiteProfile, user: LocalAccount) -> JobRequest:
    """Check options of any origin and shape; raise RequestError with every problem in them.

    Options that are absent, null or empty take the site's defaults, brought within the partition's limits.
    """
    judge = _Judge(options, profile)
    judge.cluster()
    partition = judge.partition()
    resources = judge.resources(partition) if partition else None
    directory = judge.directory(user)
    environment = judge.environment(user)
    interface = judge.listed("interface", profile.interfaces, profile.default_interface)
    image = judge.image(environment.image if environment else None, user)
    details = judge.flag("details")
    queue_limit = judge.limited("queue_limit", Walltime.parse, profile.limits.queue, profile.default_queue_limit)
    idle_limit = judge.idle_limit()
    renewals = judge.renewals()
    if judge.problems or resources is None:
        raise RequestError(judge.problems)
    request = JobRequest(
        resources=resources,
        directory=directory,
        environment=environment,
        image=image,
        interface=interface,
        details=details,
        queue_limit=queue_limit,
        idle_limit=idle_limit,
        renewals=renewals,
    )
    return replace(request, choices=_choices(request, profile, user))


def directory_of(text: str, user: LocalAccount, variables: Mapping[str, str]) -> str:
    """A folder as an absolute path: `~`, a variable of the site at the start and placeholders replaced."""
    if match := VARIABLE.match(text):
        text = variables.get(match[1] or match[2], match[0]) + text[match.end() :]
    text = text.replace("{user}", user.name).replace("{home}", user.home).replace("{group}", user.group)
    if text == "~" or text.startswith("~/"):
        text = user.home + text[1:]
    return posixpath.normpath("/" + text.lstrip("/")) if text.startswith("/") else text


def _short(path: str, user: LocalAccount) -> str:
    """A folder as people write it: `~` for the home."""
    return "~" + path[len(user.home) :] if f"{path}/".startswith(f"{user.home}/") else path


def _choices(request: JobRequest, profile: SiteProfile, user: LocalAccount) -> dict[str, Choice]:
    resources = request.resources
    asked: dict[str, Any] = {
        "partition": resources.partition,
        "account": None if profile.account == "hidden" else resources.account,
        "qos": resources.qos,
        "reservation": resources.reservation,
        "features": list(resources.features) or None,
        "environment": request.environment.name,
        "image": request.image.name if request.image else NO_IMAGE,
        "interface": request.interface.name,
        "walltime": str(resources.walltime),
        "nodes": resources.nodes,
        "cpus": None if resources.whole_nodes else resources.cpus,
        "memory": str(resources.memory) if resources.memory else None,
        "gpus": resources.gpus if resources.gpus or _has_default_gpus(profile, resources.partition) else None,
        "gpu_type": resources.gpu_type,
        "details": request.details or None,
        "directory": _short(request.directory, user),
        # Limits as the site has them are no choice: they are to follow the site's when it changes them.
        **_unlike("queue_limit", str(request.queue_limit), str(profile.default_queue_limit)),
        **_unlike("idle_limit", str(request.idle_limit or NEVER), str(profile.default_idle_limit or NEVER)),
        **_unlike("renewals", request.renewals, profile.defaults.renewals),
    }
    return {name: value for name, value in asked.items() if value is not None}


def _has_default_gpus(profile: SiteProfile, partition: str) -> bool:
    """Whether no GPU is a choice of its own, because the default is to have one."""
    return profile.defaults.gpus > 0 and any(one.gpus for one in profile.partitions if one.name == partition)


def _unlike(name: str, value: Choice, default: Choice) -> dict[str, Choice]:
    return {} if value == default else {name: value}


class _Judge:
    """Reads options one by one and collects what is wrong with them."""

    def __init__(self, options: object, profile: SiteProfile):
        self.profile = profile
        self.problems: list[Problem] = []
        self.options: dict[str, Any] = {}
        if not isinstance(options, Mapping):
            self.refuse("options", f"The options must be an object with names and values, not {_shown(options)}.")
            return
        strangers = [str(name) for name in options if name not in OPTIONS]
        for name in strangers[:_MOST_TOLD]:
            self.refuse(name[:60], f"There is no option {_shown(name)}. The options are: {', '.join(OPTIONS)}.")
        if len(strangers) > _MOST_TOLD:
            self.refuse("options", f"{len(strangers) - _MOST_TOLD} more unknown options were also given.")
        given = {name: options[name] for name in OPTIONS if name in options}
        self.options = {name: value for name, value in given.items() if self._is_value(name, value)}

    def _is_value(self, name: str, value: object) -> bool:
        """Whether there is something to judge. What is too long is refused here, before anything reads it."""
        if isinstance(value, str | list) and len(value) > _LONGEST:
            long = f"is {len(value)} characters" if isinstance(value, str) else f"is a list {len(value)} entries"
            self.refuse(name, f"{_label(name)} {long} long; {_LONGEST} are allowed.")
            return False
        return value is not None and value not in ("", [])

    def refuse(self, field: str, message: str) -> None:
        """Note one problem."""
        self.problems.append(Problem(field, message))

    def text(self, name: str) -> str | None:
        """One line of text, or None where it isn't given or is refused."""
        value = self.options.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            self.refuse(name, f"{_label(name)} must be text, not {_shown(value)}.")
        elif _CONTROL.search(value):
            self.refuse(name, f"{_label(name)} {_shown(value)} contains a line break or another control character.")
        else:
            return value.strip() or None
        return None

    def flag(self, name: str) -> bool:
        """Yes or no; no where it isn't given."""
        value = self.options.get(name, False)
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in _YES:
            return _YES[value.lower()]
        self.refuse(name, f"{_label(name)} must be true or false, not {_shown(value)}.")
        return False

    def count(self, name: str, low: int, high: int, default: int) -> int:
        """A whole number within the partition's limits; the default is brought within them."""
        value = self.options.get(name)
        if value is None:
            return max(low, min(default, high))
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            self.refuse(name, f"{_label(name)} must be a whole number, not {_shown(value)}.")
        elif not low <= value <= high:
            allowed = f"{low} to {high}" if low < high else f"only {low}"
            self.refuse(name, f"{_label(name)}: you asked for {_shown(value)}; allowed here: {allowed}.")
        else:
            return value
        return low

    def listed(self, name: str, offered: Sequence[Any], default: Any) -> Any:
        """The offered entry of this name, the default where none is given, None where it is refused."""
        asked = self.text(name)
        if asked is None:
            return None if name in self.refused else default
        found = next((entry for entry in offered if entry.name == asked), None)
        if found is None:
            self.refuse(name, _not_offered(name, asked, [entry.name for entry in offered]))
        return found

    @property
    def refused(self) -> set[str]:
        """Names of the options that have a problem."""
        return {problem.field for problem in self.problems}

    def cluster(self) -> None:
        """The profile is one cluster's: options for another one are refused."""
        name = self.options.get("cluster")
        if name not in (None, "", self.profile.name):
            self.refuse("cluster", f"{_shown(name)} is another cluster than {self.profile.name}.")

    def partition(self) -> Partition | None:
        """The partition asked for, or the site's default."""
        found: Partition | None = self.listed("partition", self.profile.partitions, self.profile.default_partition)
        return found

    def environment(self, user: LocalAccount) -> Any:
        """The environment asked for by name or folder, else the site's default; None where it is refused."""
        asked, allowed = self.text("environment"), self.profile.own_environments
        if asked is None or self.profile.environment(asked):
            return self.listed("environment", self.profile.environments, self.profile.default_environment)

        def resolve(folder: str) -> str:
            return directory_of(folder, user, self.profile.directories.variables)

        found = own_environment(asked, allowed, resolve)
        if found is None:
            listed = [one.name for one in self.profile.environments]
            places = where_environments_may_lie(allowed, resolve)
            self.refuse("environment", _not_offered("environment", asked, listed) + places)
        return found

    def image(self, of_environment: str | None, user: LocalAccount) -> Image | None:
        """The image asked for by name or path, else the environment's, else the site's default."""
        asked = self.text("image")
        if asked is None:
            return self.profile.image(of_environment or self.profile.defaults.image or "")
        if asked == NO_IMAGE:
            return None
        allowed = self.profile.own_images

        def resolve(folder: str) -> str:
            return directory_of(folder, user, self.profile.directories.variables)

        found = self.profile.image(asked) or own_image(asked, allowed, resolve)
        if found is None:
            listed = [image.name for image in self.profile.images]
            self.refuse("image", _not_offered("image", asked, listed) + what_is_allowed(allowed, resolve))
        return found

    def resources(self, partition: Partition) -> Resources:
        """Everything that the scheduler is asked for, within this partition's limits."""
        chosen = self.profile.defaults
        gpu_type, gpus = self._gpus(partition)
        cpus = self.count("cpus", 1, partition.max_cpus, chosen.cpus)
        memory = self.limited("memory", Memory.parse, partition.max_memory, chosen.memory)
        walltime = self.limited("walltime", Walltime.parse, partition.max_walltime, chosen.walltime)
        # A whole node gives at least what was asked, so what fits is taken without a word.
        whole = partition.whole_nodes
        return Resources(
            partition=partition.name,
            names_partition=not partition.form_only,
            walltime=walltime,
            nodes=self.count("nodes", 1, partition.max_nodes, chosen.nodes),
            cpus=partition.max_cpus if whole else cpus,
            memory=None if whole else memory,
            gpus=gpus,
            gpu_type=gpu_type,
            account=self._account(partition),
            qos=self._one_of("qos", partition.qos),
            reservation=self._reservation(),
            features=self._features(partition),
            whole_nodes=whole,
            requeue=self.profile.job.requeue,
            warning_s=self._warning_s(walltime),
            directives=tuple((one.option, one.value) for one in (*self.profile.job.directives, *partition.directives)),
        )

    def limited(self, name: str, parse: Callable[[object], Any], limit: Any, default: Any) -> Any:
        """A time or a size up to `limit`; the default is brought within it."""
        value = self.options.get(name)
        if value is None:
            return default if default is None or limit is None else min(default, limit)
        try:
            parsed = parse(value)
        except ValueError as error:
            self.refuse(name, f"{_label(name)}: {error}.")
            return default
        if limit is not None and parsed > limit:
            self.refuse(name, f"{_label(name)}: you asked for {parsed}; at most {limit} is allowed here.")
        return parsed

    def idle_limit(self) -> Walltime | None:
        """How long the server may be idle; None: for ever, which only a site without a limit of its own allows."""
        limit, default = self.profile.limits.idle, self.profile.default_idle_limit
        asked = self.options.get("idle_limit")
        if not isinstance(asked, str) or asked.strip().lower() != NEVER:
            found: Walltime | None = self.limited("idle_limit", Walltime.parse, limit, default)
            return found
        if limit is not None:
            self.refuse(
                "idle_limit", f"{_label('idle_limit')}: you asked for {NEVER}; at most {limit} is allowed here."
            )
        return None

    def renewals(self) -> int:
        """How many times at most the server may start again when its wall time ends."""
        most = self.profile.limits.renewals
        if not most and self.options.get("renewals") not in (None, 0, "0"):
            self.refuse("renewals", "This site does not start servers again; leave it empty.")
            return 0
        return self.count("renewals", 0, most, self.profile.defaults.renewals)

    def _warning_s(self, walltime: Walltime) -> int:
        warning = self.profile.limits.warning
        return warning.seconds if warning and warning < walltime else 0

    def _gpus(self, partition: Partition) -> tuple[str | None, int]:
        if not partition.gpus:
            for name in ("gpus", "gpu_type"):
                if self.options.get(name) not in (None, 0, "0"):
                    self.refuse(name, f"Partition {partition.name!r} has no GPUs. {self._gpu_partitions()}")
            return None, 0
        gpu_type = self._one_of("gpu_type", tuple(partition.gpus))
        most = partition.gpus.get(gpu_type, partition.max_gpus) if gpu_type else partition.max_gpus
        count = self.count("gpus", partition.min_gpus, most, self.profile.defaults.gpus)
        return (gpu_type if count and gpu_type != ANY_GPU else None), count

    def _gpu_partitions(self) -> str:
        names = [one.name for one in self.profile.partitions if one.gpus]
        return f"With GPUs: {', '.join(names)}." if names else "This site offers none."

    def _one_of(self, name: str, offered: Sequence[str]) -> str | None:
        asked = self.text(name)
        if asked is not None and asked not in offered:
            self.refuse(name, _not_offered(name, asked, offered))
        return asked

    def _account(self, partition: Partition) -> str | None:
        profile, asked = self.profile, self.text("account")
        offered = partition.accounts or profile.accounts
        if asked is None:
            default = profile.defaults.account
            if offered and default not in offered:
                # Where only some accounts may be charged, the user's own default might be another one.
                default = offered[0] if partition.accounts else None
            if default is None and profile.account == "required" and "account" not in self.refused:
                self.refuse("account", "This site requires an account.")
            return default
        if profile.account == "hidden":
            self.refuse("account", "This site does not accept an account; leave it empty.")
        elif offered and asked not in offered:
            self.refuse("account", _not_offered("account", asked, offered))
        else:
            self._name("account", asked)
        return asked

    def _reservation(self) -> str | None:
        asked = self.text("reservation")
        if asked is not None and self.profile.reservation == "hidden":
            self.refuse("reservation", "This site does not accept a reservation; leave it empty.")
        elif asked is not None:
            self._name("reservation", asked)
        return asked

    def _name(self, kind: str, asked: str) -> None:
        """Refuse what users type in where the scheduler would read it as something else than a name."""
        scheduler = self.profile.scheduler.type
        if not names.is_name(asked, scheduler, kind):
            self.refuse(kind, f"{_label(kind)} {_shown(asked)} is not a name: {names.allowed(scheduler, kind)}.")

    def _features(self, partition: Partition) -> tuple[str, ...]:
        asked = self.options.get("features", [])
        if isinstance(asked, str):
            asked = [part for part in re.split(r"[,\s]+", asked) if part]
        if not isinstance(asked, list) or not all(isinstance(one, str) for one in asked):
            self.refuse("features", f"Node features must be a list of names, not {_shown(asked)}.")
            return ()
        asked = list(dict.fromkeys(asked))
        strange = [one for one in asked if one not in partition.features]
        for one in strange[:_MOST_TOLD]:
            self.refuse("features", _not_offered("features", one, partition.features))
        return tuple(asked)

    def directory(self, user: LocalAccount) -> str:
        """The folder that opens, as an absolute path on the compute node."""
        asked = self.text("directory")
        rules = self.profile.directories
        path = directory_of(asked or self.profile.defaults.directory, user, rules.variables)
        allowed = [directory_of(folder, user, rules.variables) for folder in rules.allowed]
        if not path.startswith("/") or ".." in path.split("/") or ".." in (asked or "").split("/"):
            begins = " or ".join(["'~/'", *(f"'${name}/'" for name in rules.variables)])
            self.refuse(
                "directory", f"Directory {_shown(asked)}: write an absolute path, or one that begins with {begins}."
            )
        elif allowed and not any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in allowed):
            self.refuse("directory", f"Directory {_shown(path)} is not in one of: {', '.join(allowed)}.")
        return path


_LABELS = {
    "walltime": "Wall time",
    "cpus": "CPUs",
    "gpus": "GPUs",
    "gpu_type": "GPU type",
    "qos": "QOS",
    "queue_limit": "Give up after",
    "idle_limit": "Stop when idle for",
    "renewals": "Start again",
}


def _label(name: str) -> str:
    return _LABELS.get(name, name.capitalize())


def _not_offered(name: str, asked: str, offered: Sequence[str]) -> str:
    choose = f"Choose one of: {', '.join(offered)}." if offered else "This site offers none here; leave it empty."
    return f"{_label(name)} {_shown(asked)} is not offered. {choose}"


def _shown(value: object) -> str:
    return shown(value, 80)
