"""What pages ask while they are open is answered in JSON."""

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from jupyterhub.handlers.base import BaseHandler
from jupyterhub.utils import url_path_join
from tornado import web

from hpcspawner.language import all_told


class JsonHandler(BaseHandler):
    """A question of a user who is logged in; the answer is JSON, for this user and this moment."""

    def tell(self, body: dict[str, Any], status: int = HTTPStatus.OK) -> None:
        """Send the answer, its sentences in the language of the user who asks."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(all_told(body)))


def form_of(handler: BaseHandler) -> tuple[str, str]:
    """The user and the server ("" for the default one) of the form that was sent, by its own address in `_form`.

    400 for another address. Nothing is checked: whether there is such a user, and who may act for them.
    """
    prefix = url_path_join(handler.hub.base_url, "spawn")
    address = handler.get_body_argument("_form", prefix)
    user, server, *rest = [*(unquote(part) for part in address.removeprefix(prefix).split("/") if part), "", ""]
    if not address.startswith(prefix) or any(rest):
        raise web.HTTPError(HTTPStatus.BAD_REQUEST, "this is not the form's address")
    return user or handler.current_user.name, server
