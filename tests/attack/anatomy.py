"""A job script taken apart: what a scheduler, a shell and the launcher would each read in it."""

import re
from dataclasses import dataclass
from typing import Any

from material import FULL
from support.schedulers import EVERY
from support.scripts import taken_apart

from hpcspawner.request.gate import make
from hpcspawner.request.model import JobRequest, LocalAccount
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.script.render import render
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import SiteProfile

ALICE = LocalAccount("alice", "/home/alice")
LABEL = JobLabel("jupyter-alice", "h3f2a9c0b1d4e55")
HOME = CallHome("https://hub.example.org/hub/api/hpcspawner", "TICKET-STANDS-HERE")
MARKERS = ("#SBATCH", "#PBS", "#HPC", "#BSUB", "#DW", "#BB")


@dataclass(frozen=True)
class Anatomy:
    """`shell` is all but the launcher and its settings."""

    shell: tuple[str, ...]
    settings: dict[str, Any]


def dissect(text: str) -> Anatomy:
    """Take a script apart; an assertion fails where it holds a line that nothing accounts for."""
    lines, settings = taken_apart(text)
    assert not set(text) & set("\0\r\v\f\x1b"), "a control character is in the script"
    assert not [line for line in lines if line.lstrip().startswith(MARKERS)], "the script has an option for a scheduler"
    # The one number that stands in the shell of some schedulers: seconds until the warning.
    return Anatomy(tuple(re.sub(r"\Ahpc_left=\d+\Z", "hpc_left=0", line) for line in lines), settings)


def full_site(kind: str) -> SiteProfile:
    """A site with every option but lines of the users' own, with this scheduler; its users type accounts in."""
    changes: dict[str, Any] = {"scheduler": {"type": kind}, "accounts": [], "own_setup": {}}
    if EVERY[kind].rules.on_hub:
        bare = [{key: value for key, value in one.items() if key != "directives"} for one in FULL["partitions"]]
        changes |= {"partitions": bare, "job": {**FULL["job"], "directives": []}}
    return SiteProfile.model_validate(FULL | changes)


class Scripts:
    """The job scripts of one site."""

    def __init__(self, profile: SiteProfile):
        self.profile = profile
        self.scheduler = EVERY[profile.scheduler.type]
        self._shells: dict[str, tuple[str, ...]] = {}

    def render(self, request: JobRequest) -> str:
        """The script of a request."""
        return render(request, self.scheduler, self.profile.job, LABEL, HOME)

    def check(self, request: JobRequest) -> str:
        """The script, once it is seen to hold what the gate let through, each value as one word, and no more."""
        text = self.render(request)
        found = dissect(text)
        self._check_options(request)
        assert found.shell == self._shell(request.environment.name)
        _check_settings(found.settings, request, self.profile)
        return text

    def _check_options(self, request: JobRequest) -> None:
        """Every word of the submit command is one that the site's rules allow."""
        options = self.scheduler.options(request.resources, LABEL)
        words = submit_words(self.scheduler, options, self.profile.directives)[len(self.scheduler.submit_command) :]
        for option, value in set(options) - set(self.profile.directives):
            assert not set(value) & set(" \t\n\\'\"#`$;<>|"), f"{option} {value}"
        assert len(words) == len(options) + sum(bool(value) for _, value in options) * (not self.scheduler.long_options)

    def _shell(self, environment: str) -> tuple[str, ...]:
        """The lines of bash that all requests for this environment have in common."""
        if environment not in self._shells:
            benign = make({"environment": environment}, self.profile, ALICE)
            self._shells[environment] = dissect(self.render(benign)).shell
        return self._shells[environment]


def _check_settings(told: dict[str, Any], request: JobRequest, profile: SiteProfile) -> None:
    """The launcher's settings: what is the site's is unchanged, what is the user's stands in its own place."""
    folder, interface = request.directory, request.interface
    assert told["directory"] == folder
    assert told["variables"] == {"JUPYTERHUB_DEFAULT_URL": interface.url, "JUPYTERHUB_ROOT_DIR": folder}
    assert (told["callback"], told["ticket"], told["ca"]) == (HOME.url, HOME.ticket, HOME.ca)
    assert told["command"] == list(interface.command)
    assert told["programs"] == [interface.command[0], *interface.programs]
    allowed = {"apptainer", "singularity", *profile.job.container_command, "exec", "--nv", f"--bind={folder}"}
    if request.image:
        allowed |= {request.image.path, *(f"--bind={one}" for one in request.image.binds)}
    assert {word for argv in told["containers"] for word in argv} <= (allowed if request.image else set())
