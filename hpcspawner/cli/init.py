"""`hpcspawner init`: a profile written from the live cluster, or from another batch spawner's configuration."""

import asyncio
import glob
import logging
import os
import re
import shutil
import socket
import sys
import tomllib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from traitlets import Unicode

from hpcspawner.checks.finding import Outcome, lines, run_all
from hpcspawner.checks.suite import of_cluster
from hpcspawner.cli.command import Command
from hpcspawner.cli.draft import Draft, DraftEnvironment
from hpcspawner.errors import ProfileError, SchedulerError, more
from hpcspawner.schedulers import survey
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.schedulers.inventory import Inventory
from hpcspawner.site.profile import Access, SiteProfile, parse

if TYPE_CHECKING:  # both load JupyterHub, and only --from needs them
    from hpcspawner.cli import convert

_PLACES = ("/usr/local/bin", "/usr/bin", "/bin")
# Where clusters have them that are not on PATH.
_FURTHER = (
    "/opt/slurm/bin",
    "/usr/local/slurm/bin",
    "/cm/shared/apps/slurm/current/bin",
    "/opt/pbs/bin",
    "/opt/torque/bin",
)
_SERVER = "jupyterhub-singleuser"
_IMAGES = (".sif", ".simg", ".img")
_JUPYTER_MODULES = re.compile(r"jupyter|anaconda|miniconda|miniforge|mambaforge", re.IGNORECASE)


class Init(Command):
    """Print a profile for this cluster, from what its scheduler says; what it does not say is marked with `# ?`."""

    name = "hpcspawner init"
    description = __doc__
    examples = """
hpcspawner init --environments=/shared/jupyter > site.toml
hpcspawner init --from=/etc/jupyterhub/jupyterhub_config.py > site.toml
"""
    scheduler = Unicode(config=True, help="slurm, torque or openpbs. Default: the one whose commands are found.")
    path = Unicode(config=True, help="Folders with the scheduler's commands, separated by colons. Default: PATH.")
    environments = Unicode(config=True, help="Folders to search for environments with jupyterhub-singleuser.")
    images = Unicode(config=True, help="Folders with container images.")
    title = Unicode(config=True, help="What users call the cluster. Default: its own name or this machine's.")
    old = Unicode(config=True, help="A jupyterhub_config.py for batchspawner or wrapspawner, to be converted.")
    aliases = {
        "scheduler": "Init.scheduler",
        "path": "Init.path",
        "environments": "Init.environments",
        "images": "Init.images",
        "title": "Init.title",
        "from": "Init.old",
    }

    def start(self) -> None:
        """Print the profile; on standard error what was found and what is to do. Exit code 1 without a scheduler."""
        logging.getLogger("hpcspawner.init").setLevel(logging.CRITICAL)
        if self.extra_args:
            self.usage(
                f"{self.extra_args[0]!r} is not expected; the profile goes to standard output: hpcspawner init > site.toml"
            )
        old = self._old()
        client = self._client(old.scheduler if old else "")
        inventory = self._inventory(client)
        draft = Draft(
            title=self.title or socket.gethostname().partition(".")[0],
            scheduler=client.scheduler.name,
            path=() if tuple(client.access.path) == _PLACES else tuple(client.access.path),
            inventory=inventory,
            environments=tuple(_found_environments(self.environments)) or _NO_ENVIRONMENT,
            images=dict(_found_images(self.images)),
            modules=tuple(_jupyter_modules()),
        )
        if old:
            draft = old.into(draft)
        text = draft.text()
        print(text, end="")
        self._report(text, client, draft)

    def _old(self) -> "convert.Old | None":
        if not self.old:
            return None
        config = import_module("hpcspawner.cli.hub_config").HubConfig.read(Path(self.old))
        if isinstance(config, str):
            self._fail(config)
        try:
            old: convert.Old = import_module("hpcspawner.cli.convert").read(config.config)
            return old
        except ValueError as error:
            self._fail(f"{self.old}: {error}")

    def _client(self, known: str) -> Client:
        name = self.scheduler or known or _detected(self._folders())
        if not name:
            self._fail(
                f"no scheduler's commands were found in {', '.join(self._folders())}; name their folder: "
                "--path=/opt/slurm/bin --scheduler=slurm"
            )
        program = {"slurm": "sbatch"}.get(name, "qsub")
        own = [folder for folder in self._folders() if os.access(f"{folder}/{program}", os.X_OK)][:1]
        path = list(_PLACES) if not own or own[0] in _PLACES else [own[0], *_PLACES]
        try:
            access = Access.model_validate({"type": name, "path": path})
        except ValueError:
            self._fail(f"{name!r} is not a scheduler; write slurm, torque or openpbs")
        return Client(make_scheduler(access, Path("/")), access, logging.getLogger("hpcspawner.init"))

    def _folders(self) -> list[str]:
        given = self.path.split(":") if self.path else [*os.environ.get("PATH", "").split(":"), *_PLACES, *_FURTHER]
        return [folder for folder in dict.fromkeys(given) if folder.startswith("/")]

    def _inventory(self, client: Client) -> Inventory:
        try:
            return asyncio.run(survey.inventory(client))
        except SchedulerError as error:
            cure = getattr(error, "cure", "") or f"--scheduler={client.scheduler.name} may be the wrong one"
            self._fail(f"{error} {getattr(error, 'words', '')} ({cure}){more(error.entry)}")

    def _report(self, text: str, client: Client, draft: Draft) -> None:
        """What the checks say of the new profile, and the next step."""
        try:
            profile = parse(tomllib.loads(text) | {"name": "cluster"}, "site.toml")
        except ProfileError as error:
            self._say(f"{error}\nThis is a bug of hpcspawner; correct the lines by hand.")
            return
        for line in asyncio.run(_faults(profile, client)):
            self._say(line)
        unsure = text.count("# ?") - 1
        self._say(
            f"{len(profile.partitions)} partitions, {len(draft.environments)} environments, {len(profile.images)} images."
        )
        self._say(
            f"{unsure} lines are marked with `# ?`. Look at them; then: hpcspawner check SITE.toml --user=NAME --submit"
        )

    def _say(self, words: str) -> None:
        print(words, file=sys.stderr)

    def _fail(self, words: str) -> NoReturn:
        print(f"{self.name}: {words}", file=sys.stderr)
        raise SystemExit(1)


_NO_ENVIRONMENT = (DraftEnvironment("jupyter", ("/opt/jupyter/bin",), unsure=True),)


async def _faults(profile: SiteProfile, client: Client) -> list[str]:
    wanted = ("commands", "version", "listing", "partitions", "environments", "images", "node names")
    checks = [one for one in of_cluster(profile, client, "") if one.name in wanted]
    return list(lines([one async for one in run_all(checks) if one[1].outcome in (Outcome.WARNING, Outcome.WRONG)]))


def _detected(folders: list[str]) -> str:
    path = os.pathsep.join(folders)
    if shutil.which("sinfo", path=path):
        return "slurm"
    qsub = shutil.which("qsub", path=path)
    if not qsub:
        return ""
    # OpenPBS prints one key more than Torque has commands for.
    return "openpbs" if shutil.which("pbs_rstat", path=str(Path(qsub).parent)) else "torque"


def _found_environments(folders: str) -> Iterator[DraftEnvironment]:
    """Environments in these folders, or where sites have them, by the program that starts a server."""
    searched = folders.split(":") if folders else ["/opt", "/opt/apps", "/shared", "/apps"]
    names: set[str] = set()
    for folder in searched:
        for pattern in (_SERVER, f"bin/{_SERVER}", f"*/bin/{_SERVER}"):
            for program in sorted(glob.glob(f"{glob.escape(folder)}/{pattern}")):
                place = Path(program).parent
                name = _name(place.parent.name if place.name == "bin" else place.name, names)
                yield DraftEnvironment(name, (str(place),))


def _found_images(folders: str) -> Iterator[tuple[str, str]]:
    names: set[str] = set()
    for folder in folders.split(":") if folders else []:
        for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else []:
            if path.suffix in _IMAGES:
                yield _name(path.stem, names), str(path)


def _jupyter_modules() -> Iterator[str]:
    """Modules with a name that promises Jupyter, as the folders of MODULEPATH have them."""
    for folder in dict.fromkeys(os.environ.get("MODULEPATH", "").split(":")):
        if not folder or not Path(folder).is_dir():
            continue
        for name in sorted(os.listdir(folder)):
            if _JUPYTER_MODULES.search(name):
                versions = sorted(Path(folder, name).glob("[!.]*")) if Path(folder, name).is_dir() else []
                yield f"{name}/{versions[-1].name.removesuffix('.lua')}" if versions else name.removesuffix(".lua")


def _name(text: str, taken: set[str]) -> str:
    """A name that a profile can hold, and that none before it has."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text).strip("-._+")[:60] or "one"
    unique, number = name, 2
    while unique in taken:
        unique, number = f"{name}-{number}", number + 1
    taken.add(unique)
    return unique
