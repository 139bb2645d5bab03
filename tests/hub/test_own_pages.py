"""The example with a site's own templates, over hpcspawner's, over JupyterHub's."""

import re

import pytest
from hub.conftest import PROFILE
from support.hub import EXAMPLES

pytestmark = pytest.mark.both_hubs

TEMPLATES = EXAMPLES / "own-pages/templates"
OPERATOR = """
c.JupyterHub.load_roles += [{"name": "operator", "users": ["operator"], "scopes": ["admin-ui", "read:servers"]}]
"""


def lines_of_the_example():
    """The two settings of the example that are not this machine's."""
    text = (EXAMPLES / "own-pages/jupyterhub_config.py").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if re.match(r"c\.JupyterHub\.template_", line)]
    assert len(lines) == 2
    return "\n".join(lines).replace('str(here / "templates")', repr(str(TEMPLATES)))


@pytest.fixture(scope="module")
def running_hub(make_hub):
    with make_hub(profile=PROFILE, extra=lines_of_the_example() + OPERATOR) as running:
        yield running


def test_every_page_has_what_the_site_added_and_what_was_there(hub):
    browser = hub.log_in("operator")
    seen = {
        place: browser.get(f"{hub.url}/hub/{place}").text for place in ("home", "spawn", "hpcspawner/servers", "token")
    }
    for place, text in seen.items():
        assert 'id="site-rules"' in text, place
        assert 'id="hpc-nav-servers"' in text, place
        assert "support@example.org" in text, place
    assert 'id="site-rules-of-use"' in seen["home"]
    assert 'id="hpc-servers"' in seen["home"]
    assert 'id="start"' in seen["home"]  # JupyterHub's own
    assert 'id="site-note"' in seen["spawn"]
    assert 'id="site-below"' in seen["spawn"]
    assert seen["spawn"].index('id="site-before-fields"') < seen["spawn"].index('id="hpc-partition"')
    assert 'id="hpc-start"' in seen["spawn"]
    assert "The operators' view" in seen["hpcspawner/servers"]
    assert "Servers and clusters</h1>" not in seen["hpcspawner/servers"]
    assert 'id="hpc-filter"' in seen["hpcspawner/servers"]
