"""Templates in layers: the site's own folders, ours, JupyterHub's; each can build on the one below it."""

import re
from collections.abc import Mapping
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader
from jinja2.ext import Extension
from jupyterhub.app import JupyterHub

from hpcspawner.language import SOURCE, _, several, spoken
from hpcspawner.pages import pages, words

OURS = PrefixLoader({"hpcspawner": FileSystemLoader(pages.TEMPLATES)})
"""Ours by a name that no template of a site takes: `{% extends "hpcspawner/home.html" %}`."""

_HTML = re.compile(r"<html lang=[\"']?en[\"']?(?=[\s>])")
# JupyterHub's own pages are in English.
_SPEAKS = f'<html lang="{{{{ page_language | default("{SOURCE}") }}}}"'


class LanguageOfThePage(Extension):
    """A page that sets `page_language` says so to browsers and screen readers."""

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """As Jinja2's own: the text of a template, before it is compiled."""
        return _HTML.sub(_SPEAKS, source)


SENTENCES = {"_": _, "several": several, "hpcspawner_language": spoken, "hpcspawner_words": words.words_of}
"""What templates make sentences by, and what they tell of the language."""


def install(app: JupyterHub, functions: Mapping[str, Any]) -> None:
    """Put the layers into a Hub that has been put together; templates may call `functions`, by their names."""
    for name in ("jinja2_env", "jinja2_env_sync"):
        environment = app.tornado_application.settings[name]
        environment.loader = ChoiceLoader([OURS, environment.loader])
        environment.add_extension(LanguageOfThePage)
        environment.globals.update(SENTENCES, **functions)
        if environment.cache is not None:
            environment.cache.clear()
    form = pages.form_templates()
    form.loader = ChoiceLoader([OURS, FileSystemLoader([*app.template_paths, pages.TEMPLATES])])
