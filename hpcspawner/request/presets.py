"""Presets: judged when the profile is loaded, so that none is offered that the gate would refuse."""

from collections.abc import Iterator
from pathlib import Path

from hpcspawner.errors import ProfileError, RequestError
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.site import profile as site_profile
from hpcspawner.site.profile import SiteProfile

ANYONE = LocalAccount("someone", "/home/someone", "someone")
"""Stands for a user where what is judged is the same for all."""
# A preset can't choose where it is shown, or another one.
_NOT_HERE = ("preset", "cluster")


def load(path: str | Path) -> SiteProfile:
    """Read and check one profile, its presets included; raise ProfileError with every mistake in it."""
    profile = site_profile.load(path)
    if problems := list(_problems(profile)):
        raise ProfileError(str(path), problems)
    return profile


def _problems(profile: SiteProfile) -> Iterator[str]:
    # Where the site requires an account, the user chooses it.
    judged_for = profile.model_copy(update={"account": "optional"}) if profile.account == "required" else profile
    for position, preset in enumerate(profile.presets, 1):
        place = f"presets[{position}] ({preset.name}).options"
        for name in sorted(preset.options.keys() & set(_NOT_HERE)):
            yield f"{place}.{name}: a preset can't name a {name}"
        try:
            make({name: value for name, value in preset.options.items() if name not in _NOT_HERE}, judged_for, ANYONE)
        except RequestError as error:
            for problem in error.problems:
                yield f"{place}.{problem.field}: {problem.message}"
