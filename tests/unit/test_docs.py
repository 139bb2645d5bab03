"""The documentation names what there is."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from hpcspawner.cli.app import HPCSpawnerApp
from hpcspawner.hub.traits import Traits
from hpcspawner.request.options import OPTIONS
from hpcspawner.schedulers import slurm_words
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.profile import SiteProfile
from hpcspawner.troubles import troubles

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("flag", ["-p", "-d", "-A", "-b", "-t", "-g", "-i", "-s", "-I"])
def test_every_option_of_start_jupyter_has_a_row(flag):
    rows = (ROOT / "docs/howto/from-start-jupyter.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row.startswith("|") and f"`{flag}`" in row]


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_of_ours_is_in_the_table(option):
    assert f'"{option}"' in (ROOT / "docs/howto/from-start-jupyter.md").read_text(encoding="utf-8")


PAGES = sorted(page for folder in (".", "docs/**", "examples/**", "tests") for page in ROOT.glob(f"{folder}/*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


SECURITY = (ROOT / "docs/explanation/security.md").read_text(encoding="utf-8")


def test_every_threat_has_an_answer_and_tests_that_are_there():
    rows = [row.strip("| ").split(" | ") for row in SECURITY.splitlines() if row.startswith("| ") and "`tests/" in row]
    assert len(rows) > 10
    for attempt, answer, shown in rows:
        files = re.findall(r"`(tests/[\w/]+\.py)`", shown)
        assert answer, attempt
        assert files, attempt
        assert [file for file in files if not (ROOT / file).exists()] == []


def test_every_row_of_threats_is_read():
    table = SECURITY.partition("| what is tried |")[2].partition("\n\n")[0].splitlines()[2:]
    assert all("`tests/" in row for row in table), table


# As it is shown: strings of Python that stand beside each other are one.
SOURCES = re.sub(
    r"\"\s*\n\s*f?\"",
    "",
    "\n".join(
        path.read_text(encoding="utf-8")
        for kind in ("*.py", "*.j2", "*.sh")
        for path in sorted((ROOT / "hpcspawner").rglob(kind))
    ),
)
# The scheduler's own words.
THEIRS = {"Invalid account or account/partition combination"}
QUOTED = [
    part
    for one in troubles().values()
    for quoted in re.findall(r'"([^"]+)"', one.symptom)
    for part in quoted.split(" … ")
]


@pytest.mark.parametrize("words", QUOTED)
def test_a_message_of_the_troubleshooting_page_is_one_that_is_shown(words):
    if words not in THEIRS:
        shown = words.replace("'sbatch'", "{command}").replace("jupyterhub-singleuser", "%s").removesuffix(" …")
        assert shown in SOURCES


def test_the_pages_made_from_the_code_have_every_key_setting_command_and_state():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    pages = generate.pages()
    settings = [name for name, trait in vars(Traits).items() if getattr(trait, "metadata", {}).get("config")]
    assert [name for name in settings if f"## `{name}`" not in pages["settings"]] == []
    assert [name for name in HPCSpawnerApp.subcommands if f"`hpcspawner {name}`" not in pages["commands"]] == []
    for name, (path, _) in HPCSpawnerApp.subcommands.items():
        module, _, found = path.rpartition(".")
        command = getattr(importlib.import_module(module), found)
        section = pages["commands"].partition(f"## `hpcspawner {name}`")[2].partition("\n## ")[0]
        options = [one for one in (*command.aliases, *command.flags) if isinstance(one, str) and len(one) > 1]
        ours = {
            one for one in options if one not in ("debug", "show-config", "show-config-json", "log-level", "config")
        }
        assert [one for one in sorted(ours) if f"| `--{one}" not in section] == [], name
    models = [model for _, model in generate._models("", SiteProfile, set())]
    assert len(models) > 10
    assert [key for model in models for key in model.model_fields if f"| `{key}` |" not in pages["profile-keys"]] == []
    words = [*slurm_words.STATES, *slurm_words.REASON_FAMILIES, *(cause.value for cause in Cause)]
    assert [word for word in words if f"`{word}`" not in pages["states"]] == []


def test_what_lies_outside_of_the_docs_is_no_link_in_them():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    replaced = generate._OUTSIDE.sub(
        lambda match: generate._in_repository(match[1], match[2]),
        "[x](../../SECURITY.md) [`examples/local`](../../examples/local/README.md) [y](../howto/limits.md)",
    )
    assert replaced == "x (`SECURITY.md`) `examples/local/README.md` [y](../howto/limits.md)"
