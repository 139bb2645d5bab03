"""The documentation names what there is."""

import re
from pathlib import Path

import pytest

from hpcspawner.request.options import OPTIONS

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
