"""Templates in layers: the site's own folders, ours, JupyterHub's; each can build on the one below it."""

from collections.abc import Mapping
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader
from jupyterhub.app import JupyterHub

from hpcspawner.pages import pages

OURS = PrefixLoader({"hpcspawner": FileSystemLoader(pages.TEMPLATES)})
"""Ours by a name that no template of a site takes: `{% extends "hpcspawner/home.html" %}`."""


def install(app: JupyterHub, functions: Mapping[str, Any]) -> None:
    """Put the layers into a Hub that has been put together; templates may call `functions`, by their names."""
    for name in ("jinja2_env", "jinja2_env_sync"):
        environment = app.tornado_application.settings[name]
        environment.loader = ChoiceLoader([OURS, environment.loader])
        environment.globals.update(functions)
        if environment.cache is not None:
            environment.cache.clear()
    form = pages.form_templates()
    form.loader = ChoiceLoader([OURS, FileSystemLoader([*app.template_paths, pages.TEMPLATES])])
