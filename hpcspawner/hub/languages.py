"""Each request is answered in a language that its browser asks for and the site offers."""

from pathlib import Path
from typing import Any

from jupyterhub.app import JupyterHub
from traitlets import List, Unicode
from traitlets.config import Configurable

from hpcspawner import language
from hpcspawner.errors import more


class HubLanguages(Configurable):
    """The languages of the pages."""

    languages = List(
        Unicode(),
        config=True,
        help="""
        The languages that the pages may have, such as `["de", "en"]`; empty: all that there are, `en`, `de` and `es`
        and those of `folder`.

        A browser gets the one that it likes best, and the first one where it likes none of them; with one alone, all
        get this.
        """,
    )
    folder = Unicode(
        "",
        config=True,
        help="""
        A folder of the site's own translations, as `LANGUAGE/LC_MESSAGES/hpcspawner.mo`: of other languages, or of
        single sentences, which then replace ours.
        """,
    )


def install(app: JupyterHub) -> None:
    """Learn the language of each request to a Hub that has been put together; an unknown one ends the Hub's start."""
    wanted = HubLanguages(parent=app)
    if wanted.folder:
        language.look_first_in(Path(wanted.folder))
    there = language.available()
    if strange := [one for one in wanted.languages if one not in there]:
        app.log.critical(
            "hpcspawner: HubLanguages.languages has %s, of which there is no catalog; there are: %s. The Hub stops.%s",
            ", ".join(map(repr, strange)),
            ", ".join(there),
            more("hub-settings"),
        )
        app.exit(1)
    offered = tuple(wanted.languages) or there
    application = app.tornado_application
    make = application.get_handler_delegate

    def listen(request: Any, *args: Any, **kwargs: Any) -> Any:
        # Here, for the task that serves the request, and all that it begins, are made after this and take it with them.
        language.speak(language.wanted(request.headers.get("Accept-Language", ""), offered))
        return make(request, *args, **kwargs)

    application.get_handler_delegate = listen
