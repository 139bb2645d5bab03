"""The source of the documentation: the pages of this folder, and reference pages made from the code.

python docs/generate.py build/docs/source
"""

import importlib
import inspect
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from traitlets import TraitType

from hpcspawner.cli.app import HPCSpawnerApp
from hpcspawner.errors import Reason
from hpcspawner.hub.traits import Traits
from hpcspawner.jobs.events import MOVES, Stage
from hpcspawner.schedulers import openpbs, pbs_words, slurm_words, torque
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.site.profile import SiteProfile

HERE = Path(__file__).parent
FURTHER = "reference/generated"
FOLDERS = {"Tutorial": "tutorial", "How to": "howto", "Reference": "reference", "Explanation": "explanation"}
_OUTSIDE = re.compile(
    r"\[([^\]]+)\]\(((?:\.\./)+(?:README|SECURITY|CHANGELOG|examples|tests|profiles|benchmarks)[^)]*)\)"
)


def main(out: Path) -> None:
    """Write everything below `out`."""
    shutil.copytree(HERE, out, ignore=shutil.ignore_patterns("__pycache__", "generate.py"), dirs_exist_ok=True)
    (out / FURTHER).mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (out / FURTHER / f"{name}.md").write_text(text, encoding="utf-8")
    for page in out.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        # What lies beside the docs in the repository is no page of them.
        page.write_text(_OUTSIDE.sub(lambda match: _in_repository(match[1], match[2]), text), encoding="utf-8")
    index = out / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + "".join(contents(out)), encoding="utf-8")


def pages() -> dict[str, str]:
    """Every page that is made from the code, by its name."""
    return {
        "profile-keys": "".join(profile_keys()),
        "settings": "".join(settings()),
        "commands": "".join(commands()),
        "states": "".join(states()),
    }


def _in_repository(text: str, target: str) -> str:
    path = re.sub(r"^(?:\.\./)+", "", target)
    return f"`{path}`" if text.strip("`") in path else f"{text} (`{path}`)"


def contents(out: Path) -> Iterator[str]:
    """What Sphinx makes the navigation of."""
    for caption, folder in FOLDERS.items():
        names = sorted(page.relative_to(out).with_suffix("").as_posix() for page in (out / folder).rglob("*.md"))
        yield f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"


# ---- the profile


def profile_keys() -> Iterator[str]:
    """A table for each table of a profile."""
    yield "# Every key of a profile\n\nMade from the models that read a profile. "
    yield "What each is good for: [The site profile](../profile.md).\n"
    for place, model in _models("", SiteProfile, set()):
        yield f"\n## {f'`[{place}]`' if place else 'At the top'}\n\n{_sentence(model.__doc__)}\n\n"
        yield "| key | kind | default | |\n|---|---|---|---|\n"
        for name, field in model.model_fields.items():
            default = "required" if field.is_required() else _shown(field.default)
            yield f"| `{name}` | {_kind(field.annotation)} | {default} | {_cell(field.description or '')} |\n"


def _models(place: str, model: type[BaseModel], seen: set[type]) -> Iterator[tuple[str, type[BaseModel]]]:
    if model in seen:
        return
    seen.add(model)
    yield place, model
    for name, field in model.model_fields.items():
        for inner in _inside(field.annotation):
            yield from _models(f"{place}.{name}" if place else name, inner, seen)


def _inside(annotation: Any) -> Iterator[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _inside(part)


def _kind(annotation: Any) -> str:
    """A type in the words of TOML."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in parts if part is not type(None))
    if origin is tuple:
        kinds = dict.fromkeys(_kind(part) for part in parts if part is not Ellipsis)
        return f"list of {', '.join(kinds)}"
    if origin is dict:
        return f"table of {_kind(parts[1])}"
    if str(origin) == "typing.Literal":
        return " or ".join(f'`"{part}"`' for part in parts)
    if origin is not None and parts:
        return _kind(parts[0])
    names = {"str": "text", "int": "number", "float": "number", "bool": "`true` or `false`", "Walltime": "time"}
    names |= {"Memory": "memory"}
    name = getattr(annotation, "__name__", str(annotation))
    return names.get(name, "table" if inspect.isclass(annotation) and issubclass(annotation, BaseModel) else name)


def _shown(value: Any) -> str:
    if value in (None, (), {}, "") or value is PydanticUndefined:
        return ""
    if isinstance(value, BaseModel):
        return "see its table"
    if isinstance(value, tuple):
        return _code(", ".join(str(getattr(one, "name", one)) for one in value))
    return _code(str(value).lower() if isinstance(value, bool) else str(value))


# ---- settings of the Hub


def settings() -> Iterator[str]:
    """A section for each trait of HPCSpawner."""
    yield "# Settings of HPCSpawner\n\nMade from the code. Write them in `jupyterhub_config.py` after `configure()`, "
    yield "as `c.HPCSpawner.NAME = VALUE`.\n"
    for name, trait in sorted(vars(Traits).items()):
        if isinstance(trait, TraitType) and trait.metadata.get("config"):
            yield f"\n## `{name}`\n\n{type(trait).__name__}, default {_default(trait)}\n\n"
            yield f"{inspect.cleandoc(trait.help)}\n"


def _default(trait: TraitType[Any, Any]) -> str:
    value = trait.default_value
    return _code(repr(value)) if value not in ("", None) and "Undefined" not in repr(value) else "as described"


# ---- commands


def commands() -> Iterator[str]:
    """A section for each subcommand."""
    yield "# Commands\n\nMade from the code; `hpcspawner COMMAND --help` says the same.\n"
    for name, (path, summary) in HPCSpawnerApp.subcommands.items():
        module, _, found = path.rpartition(".")
        command = getattr(importlib.import_module(module), found)
        yield f"\n## `hpcspawner {name}`\n\n{summary}\n\n{inspect.cleandoc(command.__doc__)}\n"
        if examples := str(
            command.examples.default_value if hasattr(command.examples, "default_value") else command.examples
        ):
            yield f"\n```console\n{textwrap.indent(textwrap.dedent(examples).strip(), '$ ')}\n```\n"
        rows = list(_options(command))
        if rows:
            yield "\n| option | |\n|---|---|\n" + "".join(rows)


def _options(command: Any) -> Iterator[str]:
    for alias, target in command.aliases.items():
        trait = command.class_traits().get(target.partition(".")[2])
        if isinstance(alias, str) and trait is not None and target.startswith(command.__name__):
            yield f"| `--{alias}=…` | {_cell(trait.help)} |\n"
    for flag, (_, words) in command.flags.items():
        if flag not in ("debug", "show-config", "show-config-json", "y"):
            yield f"| `--{flag}` | {_cell(words)} |\n"


# ---- states, reasons, causes


def states() -> Iterator[str]:
    """Words of the Hub and of the schedulers, each with what it means here."""
    yield "# States, reasons, causes\n\nMade from the code.\n"
    yield "\n## Stages of a job\n\n| stage | may become |\n|---|---|\n"
    for stage in Stage:
        yield f"| `{stage.value}` | {', '.join(f'`{one.value}`' for one in Stage if one in MOVES[stage])} |\n"
    yield "\n## Why a job ended\n\nThe causes of the event log and of `hpcspawner_job_ends`: "
    yield ", ".join(f"`{one.value}`" for one in Cause) + ".\n"
    yield "\n## Why a start failed\n\nThe reasons in the Hub's log: "
    yield ", ".join(f"`{one.value}`" for one in Reason) + ".\n"
    for title, table in (("Slurm", slurm_words.STATES), ("Torque", torque.STATES), ("OpenPBS", openpbs.STATES)):
        yield f"\n## States of {title}\n\n| {title} | here |\n|---|---|\n"
        yield from (f"| `{word}` | {_state(state)} |\n" for word, state in table.items())
    yield "\n## Reasons of Slurm\n\n| Slurm | the waiting page | what a user can do |\n|---|---|---|\n"
    told = {word: text for word, text in slurm_words.REASONS.items() if text}
    advise = Slurm().advise
    yield from (f"| `{word}` | {_cell(text)} | {_cell(advise(word))} |\n" for word, text in told.items())
    yield from (f"| `{word}`… | {_cell(text)} | |\n" for word, text in slurm_words.REASON_FAMILIES.items())
    yield "\n## Comments of PBS\n\n| PBS | the waiting page | what a user can do |\n|---|---|---|\n"
    yield from (f"| {_cell(word)} | {_cell(text)} | {_cell(advice)} |\n" for word, text, advice in pbs_words.texts())


def _state(state: JobState) -> str:
    return _code(state.value)


def _sentence(text: str | None) -> str:
    return inspect.cleandoc(text or "")


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
