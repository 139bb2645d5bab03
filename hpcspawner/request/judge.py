"""Reads options one by one, against what the site offers, and collects what is wrong with them."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hpcspawner.errors import Problem
from hpcspawner.language import _, joined, sentence_of
from hpcspawner.request import own_setup
from hpcspawner.request.folders import directory_of
from hpcspawner.request.images import own_environment, own_image, what_is_allowed, where_environments_may_lie
from hpcspawner.request.model import LocalAccount
from hpcspawner.request.offer import Counts, Names, Offer, Place, UpTo
from hpcspawner.request.options import BY_NAME, OPTIONS, word
from hpcspawner.schedulers.base import Resources
from hpcspawner.site import names
from hpcspawner.site.environments import NO_IMAGE, Image
from hpcspawner.site.profile import ANY_GPU, NEVER, Partition
from hpcspawner.units import Memory, Walltime, shown

# Line breaks and control characters of any alphabet, and halves of characters that no file can hold.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_LONGEST = 1000
# Of one kind, in one refusal: it goes into a page and the log, and its reader can't use hundreds.
_MOST_TOLD = 10
_YES = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}
_NONE_HERE = _("This site offers none here; leave it empty.")
_DIGITS = re.compile(r"[0-9]{1,7}")
_PARSERS: Mapping[str, Callable[[object], Any]] = {"time": Walltime.parse, "memory": Memory.parse}


class Judge:
    """Reads options one by one and collects what is wrong with them."""

    def __init__(self, options: object, offered: Offer):
        self.offered = offered
        self.profile = offered.profile
        self.problems: list[Problem] = []
        self.options: dict[str, Any] = {}
        if not isinstance(options, Mapping):
            self.refuse(
                "options", _("The options must be an object with names and values, not {value}.", value=_shown(options))
            )
            return
        strangers = [str(name) for name in options if name not in OPTIONS]
        for name in strangers[:_MOST_TOLD]:
            known = ", ".join(OPTIONS)
            self.refuse(
                name[:60], _("There is no option {name}. The options are: {known}.", name=_shown(name), known=known)
            )
        if len(strangers) > _MOST_TOLD:
            more = len(strangers) - _MOST_TOLD
            self.refuse("options", _("{count} more unknown options were also given.", count=more))
        given = {name: options[name] for name in OPTIONS if name in options}
        self.options = {name: value for name, value in given.items() if self._is_value(name, value)}
        self.options = {**self._of_preset(), **self.options}

    def _of_preset(self) -> Mapping[str, Any]:
        """What the preset that was asked for chooses; the other options win."""
        preset = self.listed("preset", self.profile.presets, None)
        return preset.options if preset else {}

    def _is_value(self, name: str, value: object) -> bool:
        """Whether there is something to judge. What is too long is refused here, before anything reads it."""
        # A form sends each line break as two characters.
        most = max(_LONGEST, 2 * self.profile.own_setup.max_chars) if name == "own_setup" else _LONGEST
        if isinstance(value, str | list) and len(value) > most:
            long = (
                _("{option} is {count} characters long; {most} are allowed.")
                if isinstance(value, str)
                else _("{option} is a list {count} entries long; {most} are allowed.")
            )
            self.refuse(name, long.fill(option=word(name), count=len(value), most=most))
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
            self.refuse(name, _("{option} must be text, not {value}.", option=word(name), value=_shown(value)))
        elif _CONTROL.search(value):
            message = _("{option} {value} contains a line break or another control character.")
            self.refuse(name, message.fill(option=word(name), value=_shown(value)))
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
        message = _("{option} must be true or false, not {value}.", option=word(name), value=_shown(value))
        self.refuse(name, message)
        return False

    def count(self, name: str, limit: Counts) -> int:
        """A whole number within the limit."""
        value = self.options.get(name)
        if value is None:
            return limit.default
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            message = _("{option} must be a whole number, not {value}.", option=word(name), value=_shown(value))
            self.refuse(name, message)
        elif not limit.low <= value <= limit.high:
            self.refuse(name, limit.refusal.fill(option=word(name), asked=_shown(value)))
        else:
            return value
        return limit.low

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
            message = _("{name} is another cluster than {this}.", name=_shown(name), this=self.profile.name)
            self.refuse("cluster", message)

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
            self.refuse("environment", joined([_not_offered("environment", asked, listed), places]))
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
            places = what_is_allowed(allowed, resolve)
            self.refuse("image", joined([_not_offered("image", asked, listed), places]))
        return found

    def own_setup(self) -> str:
        """The user's own lines of bash; empty where none are given or they are refused."""
        value = self.options.get("own_setup")
        if value is None:
            return ""
        why = own_setup.why_refused(value, self.profile.own_setup.max_chars)
        if why:
            self.refuse("own_setup", why)
        return "" if why else own_setup.as_lines(value)

    def resources(self, partition: Partition) -> Resources:
        """Everything that the scheduler is asked for, within this partition's limits."""
        place = self.offered.place(partition)
        gpu_type, gpus = self._gpus(place)
        cpus = self.count("cpus", place.counts("cpus"))
        memory = self.limited("memory", place.up_to("memory"))
        walltime = self.limited("walltime", place.up_to("walltime"))
        # A whole node gives at least what was asked, so what fits is taken without a word.
        whole = partition.whole_nodes
        account = self._account(place)
        return Resources(
            partition=partition.name,
            names_partition=not partition.form_only,
            walltime=walltime,
            nodes=self.count("nodes", place.counts("nodes")),
            cpus=partition.max_cpus if whole else cpus,
            memory=None if whole else memory,
            gpus=gpus,
            gpu_type=gpu_type,
            account=account,
            qos=self._qos(place, account or ""),
            reservation=self._reservation(account or ""),
            features=self._features(place.names("features")),
            whole_nodes=whole,
            requeue=self.profile.job.requeue,
            warning_s=self._warning_s(walltime),
            directives=tuple((one.option, one.value) for one in (*self.profile.job.directives, *partition.directives)),
        )

    def limited(self, name: str, limit: UpTo) -> Any:
        """A time or a size within the limit; None where it has no end, or where the scheduler chooses."""
        value = self.options.get(name)
        if value is None:
            return limit.default
        if limit.endless and isinstance(value, str) and value.strip().lower() == NEVER:
            return None
        try:
            parsed = _PARSERS[BY_NAME[name].kind](value)
        except ValueError as error:
            self.refuse(name, _("{option}: {why}.", option=word(name), why=sentence_of(error)))
            return limit.default
        if limit.high is not None and parsed > limit.high:
            self.refuse(name, _at_most(name, parsed, limit.high))
        return parsed

    def of_site(self, name: str) -> Any:
        """A time of the site's own limits."""
        return self.limited(name, self.offered.up_to(name))

    def idle_limit(self) -> Walltime | None:
        """How long the server may be idle; None: for ever, which only a site without a limit of its own allows."""
        limit, asked = self.offered.up_to("idle_limit"), self.options.get("idle_limit")
        if not limit.endless and isinstance(asked, str) and asked.strip().lower() == NEVER:
            self.refuse("idle_limit", _at_most("idle_limit", NEVER, limit.high))
            return None
        found: Walltime | None = self.limited("idle_limit", limit)
        return found

    def renewals(self) -> int:
        """How many times at most the server may start again when its wall time ends."""
        limit = self.offered.counts("renewals")
        if not limit.high and self.options.get("renewals") not in (None, 0, "0"):
            self.refuse("renewals", _("This site does not start servers again; leave it empty."))
            return 0
        return self.count("renewals", limit)

    def _warning_s(self, walltime: Walltime) -> int:
        warning = self.profile.limits.warning
        return warning.seconds if warning and warning < walltime else 0

    def _gpus(self, place: Place) -> tuple[str | None, int]:
        if "gpus" not in place.limits:
            for name in ("gpus", "gpu_type"):
                if self.options.get(name) not in (None, 0, "0"):
                    message = _("Partition {partition} has no GPUs.", partition=repr(place.partition.name))
                    self.refuse(name, joined([message, self._gpu_partitions()]))
            return None, 0
        gpu_type = self._one_of("gpu_type", place.names("gpu_type"))
        count = self.count("gpus", place.gpus_of(gpu_type))
        return (gpu_type if count and gpu_type != ANY_GPU else None), count

    def _gpu_partitions(self) -> str:
        names = [one.name for one in self.profile.partitions if one.gpus]
        return _("With GPUs: {names}.", names=", ".join(names)) if names else _("This site offers none.")

    def _one_of(self, name: str, limit: Names) -> str | None:
        asked = self.text(name)
        if asked is not None and asked not in limit.names:
            self.refuse(name, _not_offered(name, asked, limit.names))
        return asked

    def _account(self, place: Place) -> str | None:
        asked = self.text("account")
        if "account" not in place.limits:
            if asked is not None:
                self.refuse("account", _("This site does not accept an account; leave it empty."))
                return asked
            return self.profile.defaults.account
        limit, own = self.offered.accounts(place), self.offered.own
        if asked is None:
            if limit.required and "account" not in self.refused:
                self.refuse("account", _("This site requires an account."))
            return limit.default
        of_site = place.names("account")
        if not of_site.typed and asked not in of_site.names:
            self.refuse("account", _not_offered("account", asked, limit.names))
        elif why := own.no_account(asked, place.partition):
            self.refuse("account", _not_yours("account", asked, why, limit.names))
        else:
            self._name("account", asked)
        return asked

    def _qos(self, place: Place, account: str) -> str | None:
        asked = self._one_of("qos", place.names("qos"))
        if asked and "qos" not in self.refused and (why := self.offered.own.no_qos(asked, account, place.partition)):
            self.refuse("qos", _not_yours("qos", asked, why))
        return asked

    def _reservation(self, account: str) -> str | None:
        asked = self.text("reservation")
        if asked is not None and "reservation" not in self.offered.limits:
            self.refuse("reservation", _("This site does not accept a reservation; leave it empty."))
        elif asked is not None and (why := self.offered.own.no_reservation(asked, account)):
            self.refuse("reservation", _not_yours("reservation", asked, why))
        elif asked is not None:
            self._name("reservation", asked)
        return asked

    def _name(self, kind: str, asked: str) -> None:
        """Refuse what users type in where the scheduler would read it as something else than a name."""
        scheduler = self.profile.scheduler.type
        if not names.is_name(asked, scheduler, kind):
            message = _("{option} {value} is not a name: {rule}.")
            rule = names.allowed(scheduler, kind)
            self.refuse(kind, message.fill(option=word(kind), value=_shown(asked), rule=rule))

    def _features(self, limit: Names) -> tuple[str, ...]:
        asked = self.options.get("features", [])
        if isinstance(asked, str):
            asked = [part for part in re.split(r"[,\s]+", asked) if part]
        if not isinstance(asked, list) or not all(isinstance(one, str) for one in asked):
            self.refuse("features", _("Node features must be a list of names, not {value}.", value=_shown(asked)))
            return ()
        asked = list(dict.fromkeys(asked))
        strange = [one for one in asked if one not in limit.names]
        for one in strange[:_MOST_TOLD]:
            self.refuse("features", _not_offered("features", one, limit.names))
        return tuple(asked)

    def directory(self, user: LocalAccount) -> str:
        """The folder that opens, as an absolute path on the compute node."""
        asked = self.text("directory")
        rules = self.profile.directories
        path = directory_of(asked or self.profile.defaults.directory, user, rules.variables)
        allowed = [directory_of(folder, user, rules.variables) for folder in rules.allowed]
        if not path.startswith("/") or ".." in path.split("/") or ".." in (asked or "").split("/"):
            begins = ", ".join(["'~/'", *(f"'${name}/'" for name in rules.variables)])
            message = _("Directory {value}: write an absolute path, or one that begins with one of: {begins}.")
            self.refuse("directory", message.fill(value=_shown(asked), begins=begins))
        elif allowed and not any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in allowed):
            message = _("Directory {value} is not in one of: {allowed}.")
            self.refuse("directory", message.fill(value=_shown(path), allowed=", ".join(allowed)))
        return path


def _not_offered(name: str, asked: str, offered: Sequence[str]) -> str:
    choose = _("Choose one of: {offered}.", offered=", ".join(offered)) if offered else _NONE_HERE
    return joined([_("{option} {value} is not offered.", option=word(name), value=_shown(asked)), choose])


def _at_most(name: str, asked: object, most: object) -> str:
    message = _("{option}: you asked for {asked}; at most {most} is allowed here.")
    return message.fill(option=word(name), asked=asked, most=most)


def _not_yours(name: str, asked: str, why: str, yours: Sequence[str] = ()) -> str:
    refused = _("{word} {asked}: {why}.", word=word(name), asked=_shown(asked), why=why)
    return joined([refused, _("Choose one of: {offered}.", offered=", ".join(yours)) if yours else ""])


def _shown(value: object) -> str:
    return shown(value, 80)
