"""A site replaces parts of the form, block by block, as docs/howto/own-templates.md says."""

import re
from pathlib import Path

import pytest
from jinja2 import ChoiceLoader, DictLoader
from support.jobs import a_cluster

from hpcspawner.errors import Problem
from hpcspawner.pages import pages, site_templates
from hpcspawner.pages.pages import TEMPLATES, Draft, form_templates, render_form

GUIDE = (Path(__file__).parents[2] / "docs/howto/own-templates.md").read_text(encoding="utf-8")
EXAMPLE = re.search(r"The inside of the form is changed.*?```jinja\n(.*?)```", GUIDE, re.DOTALL)[1]
# Each documented block, and an element of it.
BLOCKS = {
    "hpc_form_note": ">A note<",
    "hpc_form_problems": 'role="alert"',
    "hpc_form_cluster": 'aria-label="Cluster"',
    "hpc_form_cards": 'data-hpc-own-card="mine"',
    "hpc_form_fields": 'id="hpc-partition"',
    "hpc_form_actions": 'id="hpc-start"',
    "hpc_form_save": 'id="hpc-save-preset"',
}


@pytest.fixture
def form(monkeypatch):
    """The form with everything in it, rendered with a site's template."""

    def rendered(template):
        environment = form_templates()
        layers = ChoiceLoader([site_templates.OURS, DictLoader({"hpc_form.html": template}), environment.loader])
        monkeypatch.setattr(pages, "form_templates", lambda: environment.overlay(loader=layers))
        cluster = a_cluster()
        shown = Draft({}, (Problem("cpus", "too many"),), "A note", saved=(("mine", {}),), presets_url="/presets")
        return render_form(cluster, (cluster, cluster), shown)

    return rendered


def test_the_guide_names_every_block():
    text = (TEMPLATES / "hpc_form.html").read_text(encoding="utf-8")
    assert set(re.findall(r"{% block (\w+)", text)) == set(BLOCKS)
    row = next(line for line in GUIDE.splitlines() if line.startswith("| `hpc_form.html`"))
    assert set(re.findall(r"`(hpc_form_\w+)`", row)) == set(BLOCKS)


@pytest.mark.parametrize("block", BLOCKS)
def test_one_block_is_replaced_and_the_rest_stays(form, block):
    extends = '{% extends "hpcspawner/hpc_form.html" %}'
    html = form(f"{extends}{{% block {block} %}}<p>OURS</p>{{% endblock %}}")
    assert "<p>OURS</p>" in html
    assert [name for name, element in BLOCKS.items() if element not in html] == [block]


def test_the_guide_s_example(form):
    html = form(EXAMPLE)
    assert "Ask for what you need" in html
    assert [name for name, element in BLOCKS.items() if element not in html] == ["hpc_form_cards"]
