"""The Hub's own copy of the page about troubleshooting, to which its other pages link."""

from jupyterhub.handlers.base import BaseHandler
from tornado import web

from hpcspawner.pages.troubles import shown_troubles


class HelpHandler(BaseHandler):
    """`GET hpcspawner/help`, with an anchor for each entry."""

    @web.authenticated
    async def get(self) -> None:
        """The whole page; it needs no script and asks no other host for anything."""
        self.finish(await self.render_template("hpc_help.html", troubles=shown_troubles()))
