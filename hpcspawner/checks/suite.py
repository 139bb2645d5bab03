"""The checks of one cluster, in the order in which their answers help."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hpcspawner.checks import files, https, nodes, partitions, rights, scheduler, set_ups
from hpcspawner.checks.finding import Check, Finding, good, wrong
from hpcspawner.checks.trial import Home, Trial
from hpcspawner.errors import ProfileError
from hpcspawner.schedulers.commands import Client
from hpcspawner.site.profile import SiteProfile


@dataclass(frozen=True, slots=True)
class PublicSide:
    """What the Hub's configuration says of its address: the URL that jobs call, its path, the files of its TLS."""

    callback_url: str
    base_url: str = "/"
    ca_file: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def home(self) -> Home:
        """What a job on a node would call."""
        ca = Path(self.ca_file).read_text(encoding="utf-8") if self.ca_file else ""
        return Home(f"{self.callback_url.rstrip('/')}{self.base_url.rstrip('/')}/hub/api/", ca)


def of_cluster(profile: SiteProfile, client: Client, user: str) -> Iterator[Check]:
    """Everything that can be seen without a job. `user` is one of the Hub's users, "" for none."""
    yield from scheduler.checks(client)
    yield Check("partitions", lambda: partitions.compare(client, profile))
    yield from rights.checks(profile, client, user)
    yield from files.checks(profile)
    yield from set_ups.checks(profile, client, user)
    yield Check("node names", lambda: nodes.names_resolve(client))
    yield Check("ports", lambda: nodes.ports(profile))


def at_start(profile: SiteProfile, client: Client) -> Iterator[Check]:
    """What a Hub looks at in the background once it serves: nothing that loads the scheduler or asks for a user."""
    wanted = {"commands", "partitions", "environments", "images", "ports"}
    if profile.scheduler.acts_for_users:
        wanted.add("helper")
    yield from (check for check in of_cluster(profile, client, "") if check.name in wanted)


def of_address(public: PublicSide) -> Iterator[Check]:
    """The Hub's public address and its certificate."""
    yield Check("certificate", lambda: https.files(public.certificate, public.key, public.callback_url))
    yield Check("callback address", lambda: https.address(public.callback_url, public.ca_file))


def of_job(profile: SiteProfile, client: Client, user: str, home: Home, wait_s: float) -> Iterator[Check]:
    """A real job."""
    yield Check("job", lambda: Trial(profile, client, user, home).run(wait_s))


def of_profile(error: ProfileError) -> list[Finding]:
    """Every mistake of a profile."""
    return [wrong(problem, "", error.entry) for problem in error.problems]


def described(profile: SiteProfile) -> Finding:
    """A profile without mistakes."""
    names = ", ".join(partition.name for partition in profile.partitions)
    return good(f"{profile.title} ({profile.scheduler.type}): {names}")
