"""What no part of a profile can see by itself: names that stand twice, defaults that are not offered, limits."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from hpcspawner.programs.helper import DIRECTIVE
from hpcspawner.site import names, scheduler_types, variables
from hpcspawner.site.environments import NO_IMAGE
from hpcspawner.site.fields import VARIABLE
from hpcspawner.site.presets import LAST
from hpcspawner.units import shown

if TYPE_CHECKING:  # the profile imports its checks
    from hpcspawner.site.profile import SiteProfile


def repeated_names(data: dict[str, Any]) -> Iterator[str]:
    """Names that stand twice in a table; `data` is the profile before it is checked."""
    for table in ("partitions", "environments", "images", "interfaces", "presets"):
        entries = data.get(table)
        if isinstance(entries, list):
            names = [str(entry["name"]) for entry in entries if isinstance(entry, dict) and "name" in entry]
            for name, count in Counter(names).items():
                if count > 1:
                    yield f"{table}: {name!r} appears {count} times; give each entry its own name"


def cross_checks(profile: "SiteProfile") -> list[str]:
    """Every mistake that lies between two parts of the profile, with its place."""
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
        *_no_proxy(profile),
    ]


def _unknown_defaults(profile: "SiteProfile") -> Iterator[str]:
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
    if any(preset.name == LAST for preset in profile.presets):
        yield f"presets ({LAST}).name: {LAST!r} stands for a user's last choice; choose another name"
    if profile.accounts and chosen.account and chosen.account not in profile.accounts:
        yield f"defaults.account: {chosen.account!r} is not one of accounts: {', '.join(profile.accounts)}"


def _names_there(profile: "SiteProfile") -> Iterator[str]:
    """Names that this scheduler would read as something else."""
    scheduler, missing = profile.scheduler.type, profile.scheduler.rules.missing
    for place, kind, texts in _scheduler_names(profile):
        if texts and kind in missing:
            yield f"{place}: {missing[kind]}"
            continue
        for text in texts:
            if not names.is_name(text, scheduler, kind):
                allowed = names.allowed(scheduler, kind)
                yield f"{place}: {shown(text)} is not a valid {kind} name for this scheduler: {allowed}"


def _scheduler_names(profile: "SiteProfile") -> Iterator[tuple[str, str, Iterable[str]]]:
    yield "accounts", "account", profile.accounts
    yield "defaults.account", "account", [profile.defaults.account] if profile.defaults.account else []
    further = profile.job.parallel.partition
    yield "job.parallel.partition", "partition", [further] if further else []
    for position, one in enumerate(profile.partitions, 1):
        place = f"partitions[{position}] ({one.name})"
        yield f"{place}.name", "partition", [one.name]
        yield f"{place}.gpus", "gpu type", one.gpus
        yield f"{place}.accounts", "account", one.accounts
        yield f"{place}.qos", "qos", one.qos
        yield f"{place}.features", "feature", one.features


def _defaults_over_limit(profile: "SiteProfile") -> Iterator[str]:
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


def _access_mistakes(profile: "SiteProfile") -> Iterator[str]:
    access = profile.scheduler
    if access.rules.on_hub and access.command_prefix:
        yield f"scheduler.command_prefix: {access.type!r} runs jobs as the Hub's own account; leave the prefix out"
    if access.rules.on_hub and profile.directives:
        yield f"directives: {access.type!r} has no further options; leave them out"
    if access.rules.on_hub and profile.job.parallel:
        yield f"job.parallel: {access.type!r} has no nodes and no queue for further jobs; leave the table out"
    if access.ssh and access.rules.on_hub:
        yield f"scheduler.ssh: {access.type!r} runs jobs on the Hub's machine; leave ssh out"
    if access.ssh and not access.helper:
        yield "scheduler.ssh: needs scheduler.helper, the place of the helper on the login nodes (an absolute path)"
    if access.api and access.type not in scheduler_types.BY_API:
        yield f"scheduler.api: only {', '.join(scheduler_types.BY_API)} can be reached so; leave api out"
    if access.api and profile.cost and profile.cost.balance:
        yield "cost.balance: it is a command, and with scheduler.api the Hub runs none; leave it out"
    if access.helper and not access.prefix:
        yield "scheduler.helper: there is no command_prefix that would run it as the user; leave the helper out"


def _refused_directives(profile: "SiteProfile") -> Iterator[str]:
    """What would take away what the Hub needs of a job, since the site's directives win."""
    access = profile.scheduler
    places = [("job", profile.job.directives)]
    places += [
        (f"partitions[{number}] ({one.name})", one.directives) for number, one in enumerate(profile.partitions, 1)
    ]
    for where, directives in places:
        for number, one in enumerate(directives, 1):
            if why := access.rules.why_refused(one.option, one.value, access.tag):
                yield f"{where}.directives[{number}].option: {one.option!r} can't be set: {why}"


def _refused_variables(profile: "SiteProfile") -> Iterator[str]:
    for name in profile.scheduler.variables:
        if why := variables.why_no_variable(name):
            yield f"scheduler.variables.{name}: can't be set: {why}"


def _kept_options(profile: "SiteProfile") -> Iterator[str]:
    access, allowed = profile.scheduler, profile.scheduler.rules.may_leave_out
    for name in profile.job.leave_out:
        if name not in allowed:
            yield (
                f"job.leave_out: {name!r} can't be left out for scheduler type {access.type!r}; you can leave out: "
                f"{', '.join(allowed) or 'nothing'}"
            )
    if access.tag not in access.rules.tags:
        yield f"scheduler.tag: {access.type!r} has only one place for the tag; leave the key out"


def _options_in_scripts(profile: "SiteProfile") -> Iterator[str]:
    """A scheduler would read such a line as an option; job scripts hold none."""
    for place, text in (("prologue", profile.job.prologue), ("epilogue", profile.job.epilogue)):
        if found := DIRECTIVE.search(text.encode()):
            line = shown(found.group().decode(errors="replace"))
            yield f"job.{place}: {line} is an option for the scheduler; write it as one of job.directives"


def _unknown_placeholders(profile: "SiteProfile") -> Iterator[str]:
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


def _unknown_variables(profile: "SiteProfile") -> Iterator[str]:
    known = profile.directories.variables
    for place, rule in _folder_rules(profile):
        match = VARIABLE.match(rule)
        if match and (match[1] or match[2]) not in known:
            there = ", ".join(f"${name}" for name in known) or "none"
            yield f"{place}: {match[0]} is not defined; directories.variables has: {there}"


def _no_proxy(profile: "SiteProfile") -> Iterator[str]:
    for one in profile.interfaces:
        if one.is_program and not profile.job.proxy:
            yield (
                f"interfaces ({one.name}).command: a program other than Jupyter needs a proxy that asks the Hub; "
                "job.proxy names an environment on the nodes with jupyter-server-proxy"
            )


def _folder_rules(profile: "SiteProfile") -> Iterator[tuple[str, str]]:
    """The rules for folders, each with its place in the profile."""
    yield from (("directories.allowed", rule) for rule in profile.directories.allowed)
    yield from ((f"directories.variables.{name}", rule) for name, rule in profile.directories.variables.items())
    yield "defaults.directory", profile.defaults.directory
    yield from (("own_images.folders", rule) for rule in profile.own_images.folders)
    yield from (("own_environments.folders", rule) for rule in profile.own_environments.folders)
