"""A scheduler's REST service: one request at a time, bounded in time and size, as the user whom its token names."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tornado.httpclient import AsyncHTTPClient, HTTPError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError, SimpleAsyncHTTPClient

from hpcspawner.errors import SchedulerNotSetUp, SchedulerUnreachable
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.process import OUTPUT_CAP
from hpcspawner.site.profile import Access
from hpcspawner.units import printable

VERSION = "{version}"
"""Stands in a path for the version of the service's interface."""
VERSIONS = ("v0.0.38",)
_AT_ONCE = 20
_CONNECT_S = 10.0
# Longer than a request may take: Slurm looks at the time when it is handed on, and clocks differ.
_TOKEN_LIFE_S = 60
_LONGEST_WORDS = 2000


class Api:
    """The service of one cluster. Only the file of its key gives it rights, so it is read anew for each token."""

    def __init__(self, access: Access):
        """Starts nothing."""
        self._access = access
        self._made: AsyncHTTPClient | None = None

    async def run(self, words: Sequence[str], body: bytes) -> Answer:
        """Ask, as `words` say: the user, the method, the path. The answer's code is 1 where the service says an error.

        Raises SchedulerNotSetUp where it does not accept the Hub, SchedulerUnreachable where it is not known whether
        anything was done.
        """
        user, method, path = words
        line = f"{method} {path.replace(VERSION, VERSIONS[0])}"
        request = HTTPRequest(
            self._access.api.rstrip("/") + path.replace(VERSION, VERSIONS[0]),
            method=method,
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "X-SLURM-USER-NAME": user,
                "X-SLURM-USER-TOKEN": await asyncio.to_thread(self._token, user),
            },
            body=body or None,
            ca_certs=str(self._access.api_ca) if self._access.api_ca else None,
            connect_timeout=_CONNECT_S,
            request_timeout=self._access.command_timeout_s,
            follow_redirects=False,
            allow_nonstandard_methods=True,
            decompress_response=False,
        )
        try:
            response = await self._client().fetch(request, raise_error=False)
        except (HTTPError, OSError, ValueError) as error:
            raise SchedulerUnreachable(
                "The scheduler's REST service does not answer.", line, printable(str(error)[:_LONGEST_WORDS])
            ) from error
        return self._answer(response, line)

    def _client(self) -> AsyncHTTPClient:
        if self._made is None:
            # Of its own: neither what JupyterHub sets for its client nor a node's names concern it.
            self._made = SimpleAsyncHTTPClient(force_instance=True, max_clients=_AT_ONCE, max_body_size=OUTPUT_CAP)
        return self._made

    def _token(self, user: str) -> str:
        try:
            key = Path(self._access.api_key).read_bytes()
        except OSError as error:
            raise SchedulerNotSetUp(
                "The key for Slurm's tokens can't be read.",
                str(self._access.api_key),
                str(error.strerror),
                "let the Hub's account, and no other, read the file that scheduler.api_key names",
            ) from error
        return token(key, user, int(time.time()))

    def _answer(self, response: HTTPResponse, line: str) -> Answer:
        """What the service says, in its own JSON; anything else is no answer."""
        text = response.body.decode("utf-8", "replace") if response.body else ""
        if response.code in (401, 403):
            raise SchedulerNotSetUp(
                "Slurm's REST service does not accept the Hub's tokens.",
                line,
                printable(text[:_LONGEST_WORDS]),
                "compare the file of scheduler.api_key with jwt_key of AuthAltParameters in slurm.conf, and the clocks",
            )
        if response.code == 404 and not text.startswith("{"):
            raise SchedulerNotSetUp(
                "The service at scheduler.api does not have the version of Slurm's REST interface that the Hub speaks.",
                line,
                printable(text[:_LONGEST_WORDS]),
                f"have slurmrestd load one of {', '.join(VERSIONS)}, and check that scheduler.api is its address",
            )
        try:
            said = json.loads(text)
            errors = said.get("errors") or []
            words = "; ".join(_words(one) for one in errors)
        except (ValueError, AttributeError, TypeError) as error:
            if response.code == 599 or response.code >= 400 or not text:
                raise SchedulerUnreachable(
                    f"The scheduler's REST service does not answer (HTTP status {response.code}).",
                    line,
                    printable(str(response.error or text)[:_LONGEST_WORDS]),
                ) from error
            raise SchedulerUnreachable("The answer is not JSON.", line, printable(text[:200])) from error
        if words or response.code >= 400:
            return Answer(1, "", words or f"HTTP status {response.code}")
        return Answer(0, text, "")


def _words(error: dict[str, Any]) -> str:
    return printable(str(error.get("error") or error.get("description") or error)[:_LONGEST_WORDS])


def token(key: bytes, user: str, now: int) -> str:
    """A token of Slurm's auth/jwt (HS256) that makes its bearer this user for a minute. `now` is in seconds since 1970."""
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iat": now, "exp": now + _TOKEN_LIFE_S, "sun": user})
    signed = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{_encoded(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
