"""`hpcspawner check`: what is wrong with a profile, the cluster's commands, the Hub, before users meet it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from traitlets import Bool, Float, Unicode

from hpcspawner.checks import suite
from hpcspawner.checks.finding import Check as OneCheck
from hpcspawner.checks.finding import Checked, Outcome, as_data, lines, run_all, wrong
from hpcspawner.checks.trial import Home
from hpcspawner.cli.command import Command
from hpcspawner.errors import ProfileError
from hpcspawner.request.presets import load
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.site.profile import SiteProfile

if TYPE_CHECKING:  # JupyterHub takes seconds to load, and only --hub needs it
    from hpcspawner.cli.hub_config import HubConfig


class Check(Command):
    """Check profiles, the scheduler's commands, the Hub's rights and its settings: one line for each, with its cure.

    Run it as the Hub's account on the Hub's machine. The exit code is 0 where nothing is wrong, 1 where something is,
    2 for bad usage.
    """

    name = "hpcspawner check"
    description = __doc__
    examples = """
hpcspawner check site.toml
hpcspawner check --hub=jupyterhub_config.py --user=alice
hpcspawner check --hub=jupyterhub_config.py --user=alice --submit
"""
    user = Unicode(config=True, help="One of the Hub's users, for whom rights and accounts are tried.")
    hub = Unicode(config=True, help="The Hub's configuration file: its profiles, settings, address and certificate.")
    submit = Bool(config=True, help="Also run a small job as the user.")
    wait_s = Float(300.0, config=True, help="Seconds that the job may wait in the queue.")
    as_json = Bool(config=True, help="Print JSON.")
    strict = Bool(config=True, help="Exit with 1 for warnings too.")
    profile_only = Bool(config=True, help="Read the profiles alone.")
    aliases = {"user": "Check.user", "hub": "Check.hub", "wait": "Check.wait_s"}
    flags = {
        "submit": (
            {"Check": {"submit": True}},
            "Also run a small job as the user, which shows the ways between node and Hub, TLS, Python, clocks and files.",
        ),
        "json": ({"Check": {"as_json": True}}, "Print the findings as JSON, for monitoring."),
        "strict": ({"Check": {"strict": True}}, "Exit with 1 for warnings too."),
        "profile-only": (
            {"Check": {"profile_only": True}},
            "Read the profiles alone: for a machine without the scheduler's commands.",
        ),
    }

    def start(self) -> None:
        """Check all that is named; exit code 1 where something is wrong, 2 where the usage is."""
        hub = self._hub_config()
        paths = list(self.extra_args) or ([] if hub is None or isinstance(hub, str) else hub.sites)
        if not paths and not self.hub:
            self.usage("name at least one profile, such as: hpcspawner check site.toml")
        if self.submit and not self.user:
            self.usage("--submit runs a job as one of the Hub's users: name one by --user=NAME")
        # What commands say stands in the findings.
        logging.getLogger("hpcspawner.check").setLevel(logging.CRITICAL)
        found = asyncio.run(self._all(paths, hub))
        if self.as_json:
            print(json.dumps({"ok": not self._bad(found), "findings": as_data(found)}, indent=1))
        else:
            counts = ", ".join(f"{_count(found, one)} {one.value}" for one in Outcome if _count(found, one))
            print(counts)
        self.exit(1 if self._bad(found) else 0)

    def _bad(self, found: Iterable[Checked]) -> bool:
        return any(one.outcome is Outcome.WRONG or (self.strict and not one.ok) for _, one in found)

    def _hub_config(self) -> "HubConfig | str | None":
        """The Hub's configuration, or why it can't be read; None where none was named."""
        return hub_config().HubConfig.read(Path(self.hub)) if self.hub else None

    async def _all(self, paths: list[str], hub: "HubConfig | str | None") -> list[Checked]:
        found = []
        async for name, finding in self._each(paths, hub):
            found.append((name, finding))
            if not self.as_json:
                print(*lines([(name, finding)]), flush=True)
        return found

    async def _each(self, paths: list[str], hub: "HubConfig | str | None") -> AsyncIterator[Checked]:
        if isinstance(hub, str):
            yield (
                "Hub settings",
                wrong(hub, "correct the file; `jupyterhub -f FILE` would not start either", "hub-settings"),
            )
            hub = None
        profiles = []
        for path in paths:
            before = f"{path}: " if len(paths) > 1 else ""
            profile = None
            for finding in _profile_findings(path):
                yield f"{before}profile", finding
                profile = load(path) if finding.outcome is Outcome.GOOD else None
            if profile is None:
                continue
            profiles.append(profile)
            if not self.profile_only:
                async for name, finding in run_all(self._of_cluster(profile, hub)):
                    yield f"{before}{name}", finding
        if hub is not None and not self.profile_only:
            checks = [*hub_config().checks(hub.config, profiles), *suite.of_address(hub.public)]
            async for name, finding in run_all(checks):
                yield name, finding

    def _of_cluster(self, profile: SiteProfile, hub: "HubConfig | None") -> Iterable[OneCheck]:
        client = _client(profile)
        yield from suite.of_cluster(profile, client, self.user)
        if self.submit:
            home = hub.public.home if hub is not None else Home()
            yield from suite.of_job(profile, client, self.user, home, self.wait_s)


def hub_config() -> Any:
    """The module that reads a Hub's configuration, loaded when it is needed."""
    return import_module("hpcspawner.cli.hub_config")


def _profile_findings(path: str) -> Any:
    try:
        return [suite.described(load(path))]
    except ProfileError as error:
        return suite.of_profile(error)


def _client(profile: SiteProfile) -> Client:
    scheduler = make_scheduler(profile.scheduler, Path("hpcspawner-spool").absolute(), profile.job.leave_out)
    return Client(scheduler, profile.scheduler, logging.getLogger("hpcspawner.check"), profile.directives)


def _count(found: Iterable[Checked], outcome: Outcome) -> int:
    return sum(one.outcome is outcome for _, one in found)
