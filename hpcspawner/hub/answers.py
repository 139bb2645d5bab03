"""What pages ask while they are open is answered in JSON."""

import json
from http import HTTPStatus
from typing import Any

from jupyterhub.handlers.base import BaseHandler

from hpcspawner.language import all_told


class JsonHandler(BaseHandler):
    """A question of a user who is logged in; the answer is JSON, for this user and this moment."""

    def tell(self, body: dict[str, Any], status: int = HTTPStatus.OK) -> None:
        """Send the answer, its sentences in the language of the user who asks."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Cache-Control", "no-store")
        self.finish(json.dumps(all_told(body)))
