"""Settings of batchspawner and wrapspawner as a profile; what has no place in a profile is named, not dropped."""

import inspect
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

import batchspawner
from traitlets.config.loader import LazyConfigValue

from hpcspawner.cli.draft import Draft, DraftEnvironment, multiline, raised
from hpcspawner.schedulers.inventory import PartitionLimits
from hpcspawner.site import names, scheduler_types
from hpcspawner.units import Memory, Walltime

_SCHEDULERS = {
    "SlurmSpawner": "slurm",
    "MultiSlurmSpawner": "slurm",
    "TorqueSpawner": "torque",
    "PBSSpawner": "openpbs",
}
_WRAPPERS = ("ProfilesSpawner", "WrapSpawner")
# Settings that are JupyterHub's own go on as they are; these of a spawner have nothing to do here.
_NEEDLESS = {
    "start_timeout": "configure() sets it",
    "http_timeout": "HPCSpawner.start_limit_s is the limit",
    "startup_poll_interval": "HPCSpawner.poll_interval_s is the interval",
    "poll_interval": "HPCSpawner.poll_interval_s is the interval",
    "batch_query_cmd": "hpcspawner has its own",
    "batch_cancel_cmd": "hpcspawner has its own",
    "req_srun": "the server is started without srun",
    "req_keepvars": "the job gets a small environment of its own; write environments[].variables",
    "req_keepvars_extra": "the job gets a small environment of its own; write environments[].variables",
    "req_homedir": "it is the user's",
    "req_username": "it is the user's",
    "hub_connect_ip": "it stays a setting of the Hub",
    "hub_connect_url": "it stays a setting of the Hub",
}
_DONE = frozenset(
    [
        "req_partition",
        "req_queue",
        "req_runtime",
        "req_memory",
        "req_nprocs",
        "req_ngpus",
        "req_gres",
        "req_account",
        "req_qos",
        "req_reservation",
        "req_options",
        "req_prologue",
        "req_epilogue",
        "exec_prefix",
        "cmd",
        "batchspawner_singleuser_cmd",
        "default_url",
        "notebook_dir",
        "environment",
        "batch_script",
        "batch_submit_cmd",
        "profiles",
    ]
)
_OPTION = re.compile(r"#(?:SBATCH|PBS)\s+(.*)")
_PLACEHOLDER = re.compile(r"\{\{?.*?\}?\}|\{%.*?%\}")
_OURS = frozenset(
    {"output", "error", "job-name", "chdir", "export", "get-user-env", "parsable", "N", "o", "e", "j", "v", "V"}
)
_ACCOUNT = ("account", "A")

Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Profile:
    """One choice of wrapspawner's: its title, and the settings that it adds."""

    title: str
    settings: Settings


@dataclass(slots=True)
class Old:
    """What another batch spawner was configured with; `lost` says what could not be carried over."""

    scheduler: str
    profiles: Sequence[Profile]
    lost: list[str] = field(default_factory=list)

    def into(self, draft: Draft) -> Draft:
        """The draft with the old settings in it. The first profile makes the defaults."""
        first = self.profiles[0].settings
        directives = dict(self._directives(first))
        prologue, epilogue = self._script(first)
        job = {"prologue": multiline(prologue) if prologue else "", "epilogue": multiline(epilogue) if epilogue else ""}
        environments = self._environments(first) or draft.environments
        # What may be lost has been found by now.
        defaults = {key: value for key, value in self._defaults(first) if value}
        partitions = tuple(self._partitions(draft))
        changed = replace(
            draft,
            inventory=replace(draft.inventory, partitions=partitions),
            default_partition=_partition(first),
            environments=environments,
            interfaces=tuple(self._interfaces(first)),
            defaults=defaults,
            directives=tuple(directives.items()),
            job={key: value for key, value in job.items() if value},
            qos=self._qos(),
            command_prefix=self._prefix(first),
        )
        self._rest()
        shown = [f"was the choice {one.title!r}: {_described(one.settings)}" for one in self.profiles if one.title]
        return replace(changed, notes=(*shown, *(f"not carried over: {one}" for one in dict.fromkeys(self.lost))))

    def _partitions(self, draft: Draft) -> Iterator[PartitionLimits]:
        """Those that were used; all of the cluster's where none was named."""
        used: dict[str, list[Settings]] = {}
        for one in self.profiles:
            used.setdefault(_partition(one.settings), []).append(one.settings)
        if set(used) <= {""}:
            yield from draft.inventory.partitions
            return
        for name, some in used.items():
            known = draft.inventory.partition(name)
            if not name:
                continue
            if known is None:
                self.lost.append(f"partition {name!r}: the cluster has none of this name")
                continue
            walltimes = [span for settings in some if (span := walltime(settings.get("req_runtime"), self.scheduler))]
            sizes = [size for settings in some if (size := memory(settings.get("req_memory"), self.scheduler))]
            counts = [int(text) for settings in some if (text := str(settings.get("req_nprocs", ""))).isdecimal()]
            yield raised(known, max(walltimes, default=None), max(sizes, default=None), max(counts, default=None))

    def _defaults(self, first: Settings) -> Iterator[tuple[str, str]]:
        value: Walltime | Memory | None
        span = walltime(first.get("req_runtime"), self.scheduler)
        size = memory(first.get("req_memory"), self.scheduler)
        for key, value, text in (("req_runtime", span, "walltime"), ("req_memory", size, "memory")):
            if first.get(key) and not value:
                self.lost.append(f"{key} = {first[key]!r}: write defaults.{text} by hand")
            yield text, f'"{value}"' if value else ""
        cpus = str(first.get("req_nprocs", ""))
        yield "cpus", cpus if cpus.isdecimal() else ""
        yield "gpus", str(_gpus(first) or "")
        # Of batchspawner's own scripts that for Slurm does not ask for req_account, so sites write the option.
        asked = dict(_pairs(str(first.get("req_options", ""))))
        account = next((one for name in _ACCOUNT if (one := asked.get(name))), str(first.get("req_account", "")))
        if account and names.is_name(account, self.scheduler, "account"):
            yield "account", f'"{account}"'
        elif account:
            self.lost.append(f"req_account = {account!r}: it is no name of one account")
        folder = str(first.get("notebook_dir", ""))
        if folder and not _PLACEHOLDER.search(folder):
            yield "directory", f'"{folder}"'
        elif folder:
            self.lost.append(f"notebook_dir = {folder!r}: write defaults.directory with {{user}} and {{home}}")

    def _environments(self, first: Settings) -> tuple[DraftEnvironment, ...]:
        # batchspawner's own program for the node stands before the server's.
        command = [*_words(first.get("batchspawner_singleuser_cmd")), *_words(first.get("cmd"))]
        command = [word for word in command if not word.endswith("batchspawner-singleuser")]
        folder = str(PurePosixPath(command[0]).parent) if command and command[0].startswith("/") else ""
        kept = {name: text for name, text in dict(first.get("environment") or {}).items() if isinstance(text, str)}
        if len(kept) < len(first.get("environment") or {}):
            self.lost.append("environment: values that are no text")
        for word in command[1:]:
            self.lost.append(f"an argument of cmd, {word!r}: write it as interfaces[].command")
        return (DraftEnvironment("jupyter", (folder,), kept),) if folder else ()

    def _interfaces(self, first: Settings) -> Iterator[tuple[str, str, tuple[str, ...]]]:
        url = str(first.get("default_url", ""))
        if url and url not in ("/lab", "/tree"):
            if re.fullmatch(r"/[A-Za-z0-9_./-]{0,200}", url):
                yield "first", url, ("jupyterhub-singleuser",)
            else:
                self.lost.append(f"default_url = {url!r}")

    def _directives(self, first: Settings) -> Iterator[tuple[str, str]]:
        """Options that the user's form does not set."""
        given = [str(first.get("req_options", ""))]
        submit = _words(first.get("batch_submit_cmd"))[1:]
        given.append(shlex.join(submit) if submit != ["--parsable"] else "")
        given += [match[1] for line in self._own_script(first) if (match := _OPTION.match(line.strip()))]
        if reservation := first.get("req_reservation"):
            given.append(f"--reservation={reservation}")
        rules = scheduler_types.rules(self.scheduler)
        for text in given:
            for option, content in _pairs(text):
                why = rules.why_refused(option, content, rules.tags[0])
                if _PLACEHOLDER.search(content) or option in _OURS or (option in _ACCOUNT and text is given[0]):
                    continue
                if why:
                    self.lost.append(f"the option {option}: {why}")
                else:
                    yield option, content

    def _own_script(self, first: Settings) -> list[str]:
        """Lines of a script that the site has changed; none where it is batchspawner's own."""
        script = str(first.get("batch_script", ""))
        return script.splitlines() if script else []

    def _script(self, first: Settings) -> tuple[str, str]:
        """Lines before and after the server's command, with those of req_prologue and req_epilogue."""
        texts = []
        parts = before_and_after(self._own_script(first))
        for key, part in zip(("req_prologue", "req_epilogue"), parts, strict=True):
            own = [line for line in part if line.strip().strip("{} ") not in ("prologue", "epilogue")]
            self.lost += [f"the line {line.strip()!r} of batch_script" for line in own if _PLACEHOLDER.search(line)]
            own = [line for line in own if not _PLACEHOLDER.search(line)]
            text = "\n".join([*own, *([str(first[key])] if first.get(key) else [])]).strip("\n")
            if _PLACEHOLDER.search(text.replace("${", "")):
                self.lost.append(f"{key}, for it has places that batchspawner fills in: {text[:60]!r}")
                text = ""
            texts.append(text)
        return texts[0], texts[1]

    def _qos(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for one in self.profiles:
            if qos := str(one.settings.get("req_qos", "")):
                name = _partition(one.settings)
                found[name] = tuple(dict.fromkeys([*found.get(name, ()), qos]))
        if unplaced := found.pop("", ()):
            self.lost.append(f"req_qos = {', '.join(unplaced)}: write it as partitions[].qos")
        return found

    def _prefix(self, first: Settings) -> tuple[str, ...] | None:
        prefix = _words(first.get("exec_prefix"))
        if not prefix or prefix[0] == "sudo":
            return None
        if any("{" in word and word != "{username}" for word in prefix):
            self.lost.append(f"exec_prefix = {shlex.join(prefix)!r}: write scheduler.command_prefix")
            return None
        return tuple(word.replace("{username}", "{user}") for word in prefix)

    def _rest(self) -> None:
        for one in self.profiles:
            for key, content in one.settings.items():
                if key in _DONE:
                    continue
                self.lost.append(
                    f"{key} = {str(content)[:60]!r} ({_NEEDLESS.get(key, 'it has no place in a profile')})"
                )


def read(config: Any) -> Old:
    """Of a JupyterHub's configuration. Raises ValueError where it is for no batch system that hpcspawner knows."""
    spawner = _class_name(_plain(config.JupyterHub.get("spawner_class", "")))
    if spawner in _WRAPPERS:
        chosen = list(_plain(config.ProfilesSpawner.get("profiles", [])))
        if not chosen:
            raise ValueError("wrapspawner has no profiles (c.ProfilesSpawner.profiles)")
        of_batch = [one for one in chosen if _class_name(one[2]) in _SCHEDULERS]
        if not of_batch:
            raise ValueError("none of wrapspawner's profiles is for Slurm, Torque or PBS")
        spawner = _class_name(of_batch[0][2])
        profiles = [Profile(str(one[0]), _settings(config, spawner) | dict(one[3])) for one in of_batch]
        lost = [f"the choice {one[0]!r}, a {_class_name(one[2])}" for one in chosen if one not in of_batch]
        lost += [
            f"the choice {one[0]!r} is of another scheduler: write a profile of its own for it"
            for one in of_batch
            if _SCHEDULERS[_class_name(one[2])] != _SCHEDULERS[spawner]
        ]
        return Old(_SCHEDULERS[spawner], profiles, lost)
    if spawner not in _SCHEDULERS:
        known = ", ".join([*_SCHEDULERS, *_WRAPPERS])
        raise ValueError(f"its JupyterHub.spawner_class is {spawner or 'not set'!r}; init converts: {known}")
    return Old(_SCHEDULERS[spawner], [Profile("", _settings(config, spawner))])


def _settings(config: Any, spawner: str) -> dict[str, Any]:
    """What reaches a spawner of this class, the nearest section last."""
    parents = [one.__name__ for one in reversed(inspect.getmro(getattr(batchspawner, spawner)))]
    return {name: _plain(content) for one in parents if one in config for name, content in config[one].items()}


def _plain(content: Any) -> Any:
    return content.get_value([]) if isinstance(content, LazyConfigValue) else content


def _class_name(name: Any) -> str:
    return getattr(name, "__name__", None) or str(name).rpartition(".")[2].rpartition(":")[2]


def _words(content: Any) -> list[str]:
    if isinstance(content, str):
        return shlex.split(content)
    return [str(word) for word in content or []]


def _partition(settings: Settings) -> str:
    return str(settings.get("req_partition") or settings.get("req_queue") or "")


def _described(settings: Settings) -> str:
    told = {
        name.removeprefix("req_"): settings[name] for name in sorted(settings) if name in _DONE and name[:4] == "req_"
    }
    return ", ".join(f"{name} {content}" for name, content in told.items() if content)[:200]


def _gpus(settings: Settings) -> int:
    text = str(settings.get("req_ngpus") or "") or str(settings.get("req_gres") or "").rpartition(":")[2]
    return int(text) if text.isdecimal() and int(text) else 0


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    """Options of a submit command and their values."""
    try:
        words = shlex.split(text, comments=False)
    except ValueError:
        words = text.split()
    for number, word in enumerate(words):
        if word.startswith("--"):
            name, _, content = word[2:].partition("=")
            follows = words[number + 1 : number + 2]
            yield (
                name,
                content or (follows[0] if follows and not follows[0].startswith("-") and "=" not in word else ""),
            )
        elif word.startswith("-") and len(word) == 2:
            follows = words[number + 1 : number + 2]
            yield word[1:], follows[0] if follows and not follows[0].startswith("-") else ""


def before_and_after(script: Sequence[str]) -> tuple[list[str], list[str]]:
    """A batch_script's own lines before and after the server's command, without options, comments and batchspawner's."""
    ours = set(str(batchspawner.SlurmSpawner.batch_script.default_value).splitlines())
    parts: tuple[list[str], list[str]] = ([], [])
    place = 0
    for line in script:
        if re.search(r"\{\{?\s*cmd\s*\}?\}", line):
            place = 1
        elif line.strip() and not line.lstrip().startswith("#") and line not in ours and "{%" not in line:
            parts[place].append(line)
    return parts


def walltime(text: Any, scheduler: str) -> Walltime | None:
    """A run time as the scheduler reads it: `30` is minutes to Slurm and seconds to PBS; None for what it does not say."""
    parts = str(text or "").strip()
    if match := re.fullmatch(r"(\d{1,5})(?::(\d{1,2}))?", parts, re.ASCII):
        first, second = int(match[1]), int(match[2] or 0)
        # Minutes and seconds, or one number.
        is_minutes = bool(match[2]) or scheduler == "slurm"
        seconds = first * (60 if is_minutes else 1) + second
        return Walltime(seconds) if seconds else None
    try:
        return Walltime.parse(parts)
    except ValueError:
        return None


def memory(text: Any, scheduler: str) -> Memory | None:
    """An amount of memory; without a unit it is MiB to Slurm and bytes to PBS, which nobody means."""
    amount = str(text or "").strip()
    if amount.isdecimal() and scheduler == "slurm":
        amount += "M"
    if re.fullmatch(r"\d+[kK][bB]?", amount):
        amount = f"{int(amount.rstrip('kKbB')) // 1024}M"
    try:
        return Memory.parse(amount)
    except ValueError:
        return None
