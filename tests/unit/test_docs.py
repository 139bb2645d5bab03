"""The documentation names what there is."""

import re
from pathlib import Path

import pytest

from hpcspawner.request.gate import OPTIONS

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
