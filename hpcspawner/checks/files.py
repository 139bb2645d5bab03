"""Checks of what servers run in: environments, images, the proxy. From here, not from a node."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from hpcspawner.checks.finding import Check, Finding, good, not_checked, warning, wrong
from hpcspawner.programs import look
from hpcspawner.site.environments import Environment, Image
from hpcspawner.site.profile import SiteProfile

_FROM_A_NODE = "where only nodes see it, ignore this, and use --submit to have a node look"


def checks(profile: SiteProfile) -> Iterator[Check]:
    """One for each kind that the profile has."""
    yield Check("environments", lambda: _environments(profile))
    if profile.images:
        yield Check("images", lambda: _images(profile))
    yield Check("files", lambda: _named_files(profile))


def _environments(profile: SiteProfile) -> Iterable[Finding]:
    for one in profile.environments:
        yield from _environment(one, profile)


def _environment(one: Environment, profile: SiteProfile) -> Iterator[Finding]:
    """The folders are there, and in them what the default interface runs."""
    folders = [Path(folder) for folder in one.path if folder.startswith("/")]
    if not folders:
        how = "modules, conda or lines of its own" if one.modules or one.conda or one.setup else "each user's own PATH"
        yield not_checked(f"{one.name} comes from {how}; --submit has a node look")
        return
    for folder in folders:
        if not folder.is_dir():
            yield warning(f"{one.name}: there is no folder {folder} here", f"check the name; {_FROM_A_NODE}")
            return
    interface = profile.default_interface
    commands = [interface.command[0], *(interface.alone[:1] if profile.job.proxy else ())]
    for folder in folders:
        for command in commands:
            program = folder / command
            if program.exists():
                yield from _program(one.name, program)
                return
    if one.modules or one.conda or one.setup or one.image:
        yield not_checked(
            f"{one.name}: {commands[0]} may come from its modules, conda or image; --submit has a node look"
        )
    else:
        yield wrong(
            f"{one.name}: there is no {' or '.join(commands)} in {', '.join(map(str, folders))}",
            f"install jupyterhub and jupyterlab into that environment, or correct environments ({one.name}).path",
        )


def _program(name: str, program: Path) -> Iterator[Finding]:
    """A program that all users can run, by an interpreter that is there."""
    if not program.stat().st_mode & 0o001:
        yield wrong(f"{name}: other users can't run {program}", f"chmod o+rx {program}")
        return
    closed = next((folder for folder in program.resolve().parents if not folder.stat().st_mode & 0o001), None)
    if closed:
        yield wrong(f"{name}: other users can't enter {closed}", f"chmod o+x {closed}, or install it elsewhere")
        return
    with program.open("rb") as file:
        first = file.readline(300).decode(errors="replace").rstrip()
    interpreter = first.removeprefix("#!").strip().split(" ")[0] if first.startswith("#!") else ""
    if interpreter and not Path(interpreter).exists():
        yield wrong(
            f"{name}: {program} begins with {first!r}, and that Python is not there",
            "an environment can't be moved: make it anew at its place, with a Python that the nodes have",
        )
        return
    yield good(f"{name}: {program}")


def _images(profile: SiteProfile) -> Iterable[Finding]:
    for image in profile.images:
        yield from _image(image)


def _image(image: Image) -> Iterator[Finding]:
    if not image.path.startswith("/"):
        yield not_checked(f"{image.name}: {image.path} comes from a registry")
        return
    path = Path(image.path)
    if not path.exists():
        yield warning(f"{image.name}: {path} is not here", f"check the path; {_FROM_A_NODE}")
    elif not path.stat().st_mode & 0o004:
        yield wrong(f"{image.name}: other users can't read {path}", f"chmod o+r {path}")
    elif closed := next((folder for folder in path.resolve().parents if not folder.stat().st_mode & 0o001), None):
        yield wrong(f"{image.name}: other users can't enter {closed}", f"chmod o+x {closed}")
    elif path.is_file() and (why := look.why_not_here(path)):
        yield warning(f"{image.name}: {path} {why}", "make or fetch the image anew, unless the nodes differ from here")
    else:
        yield good(f"{image.name}: {path}")


def _named_files(profile: SiteProfile) -> Iterable[Finding]:
    """Further paths of the profile that nodes will look for."""
    job = profile.job
    named = [
        ("job.proxy", job.proxy and f"{job.proxy}/bin/python"),
        ("job.modules_init", job.modules_init),
        ("job.conda", job.conda and f"{job.conda}/bin/conda"),
        ("job.python", job.python if job.python.startswith("/") else None),
        ("job.container_command", next((word for word in job.container_command[:1] if word.startswith("/")), None)),
    ]
    given = [(key, path) for key, path in named if path and path.startswith("/")]
    if not given:
        yield not_checked("the profile names no further file")
    for key, path in given:
        if missing := _missing_packages(job.proxy or "") if key == "job.proxy" and os.path.exists(path) else []:
            yield wrong(
                f"{key}: {job.proxy} has no {' and no '.join(missing)}",
                f"{job.proxy}/bin/pip install jupyter-server-proxy jupyterhub",
            )
        elif os.path.exists(path):
            yield good(f"{key}: {path}")
        else:
            yield warning(f"{key}: {path} is not here", f"check the path; {_FROM_A_NODE}")


def _missing_packages(environment: str) -> list[str]:
    """What the proxy's environment lacks."""
    packages = ("jupyter_server_proxy", "jupyterhub")
    return [one for one in packages if not any(Path(environment, "lib").glob(f"python3*/site-packages/{one}"))]
