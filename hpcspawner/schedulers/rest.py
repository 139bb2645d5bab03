"""A scheduler's REST service: requests bounded in time and size, each as the user whom its token names."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import re
import ssl
import stat
import time
from collections.abc import Sequence
from typing import Any

from tornado.httpclient import HTTPError, HTTPRequest, HTTPResponse
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from hpcspawner.errors import SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.language import _
from hpcspawner.schedulers import slurm_api_versions as versions
from hpcspawner.schedulers.base import Answer
from hpcspawner.site.profile import Access
from hpcspawner.units import printable

_AT_ONCE = 20
_CONNECT_S = 10.0
# Of slurmrestd's answer about one job 4 kB are its own; a listing of 15,000 fits.
_LONGEST_ANSWER = 64 * 1024 * 1024
# A token lasts as long as its request may take, and a little for clocks that differ.
_CLOCKS_S = 30
_LONGEST_WORDS = 2000
_LONGEST_ERRORS = 200_000
_SHORTEST_KEY = 16
NUMBER = "error "
"""Stands before the service's own number of an error, in the words of an answer."""
# Of the page about troubleshooting.
_ENTRY = "rest-service"
# What the answers of slurmrestd begin with; a proxy's page does not.
_NO_SUCH_PAGE = re.compile(r"Unable (?:to )?find requested URL", re.IGNORECASE)


class Api:
    """The service of one cluster. The Hub's only right is the file of its key, read anew for each token."""

    def __init__(self, access: Access):
        """Starts nothing."""
        self._access = access
        self._made: SimpleAsyncHTTPClient | None = None
        self._version = ""
        self._finding = asyncio.Lock()

    async def run(self, words: Sequence[str], body: bytes = b"") -> Answer:
        """Ask, as `words` say: the user, the method, the path. The answer's code is 1 where it is no success.

        Raises SchedulerNotSetUp where the service is not the one that the Hub knows, SchedulerUnreachable where it is
        not known whether anything was done.
        """
        user, method, path = words
        if versions.PLACE in path:
            version = await self._known_version(user)
            path = path.replace(versions.PLACE, version)
            body = _worded(version, body) if body else body
        return await self._ask(user, method, path, body)

    async def _known_version(self, user: str) -> str:
        """Of the interface, as the service has it; asked for once, and again after it has gone."""
        async with self._finding:
            if not self._version:
                answer = await self._ask(user, "GET", versions.OVERVIEW, b"")
                # A refusal is an overview without any version.
                try:
                    self._version = await asyncio.to_thread(versions.newest, answer.out)
                except LookupError as error:
                    raise self._without_version(
                        f"GET {self._access.api}{versions.OVERVIEW}", f"it has {error}"
                    ) from None
            return self._version

    async def _ask(self, user: str, method: str, path: str, body: bytes) -> Answer:
        line = f"{method} {self._access.api}{path} as {user}"
        ends_at = int(time.time() + self._access.command_timeout_s) + _CLOCKS_S
        request = await asyncio.to_thread(self._request, user, method, path, body, ends_at)
        try:
            # The client's own limit comes first; this one is for what it does not count.
            async with asyncio.timeout(self._access.command_timeout_s + 1):
                response = await self._client().fetch(request, raise_error=False)
        except (HTTPError, OSError, ValueError, TimeoutError) as error:
            said = printable(str(error)[:_LONGEST_WORDS])
            raise self._unknown(_("The scheduler's REST service does not answer."), line, said, ends_at) from error
        return self._answer(response, line, ends_at)

    def _request(self, user: str, method: str, path: str, body: bytes, ends_at: int) -> HTTPRequest:
        """Off the loop: it reads the key and the authorities."""
        return HTTPRequest(
            f"{self._access.api}{path}",
            method=method,
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "X-SLURM-USER-NAME": user,
                "X-SLURM-USER-TOKEN": token(self._key(), user, ends_at),
            },
            body=body or None,
            ssl_options=self._authorities(),
            connect_timeout=_CONNECT_S,
            request_timeout=self._access.command_timeout_s,
            follow_redirects=False,
            allow_nonstandard_methods=True,
            decompress_response=False,
        )

    def _client(self) -> SimpleAsyncHTTPClient:
        if self._made is None:
            # Of its own: neither what JupyterHub sets for its client nor the names of nodes concern it.
            self._made = SimpleAsyncHTTPClient(
                force_instance=True,
                max_clients=_AT_ONCE,
                max_body_size=_LONGEST_ANSWER,
                max_buffer_size=_LONGEST_ANSWER,
            )
        return self._made

    def _authorities(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._access.api_ca)
        except (OSError, ssl.SSLError) as error:
            raise SchedulerNotSetUp(
                _("The file of scheduler.api_ca can't be read."),
                str(self._access.api_ca),
                str(error),
                "name a file with certificates in PEM that the Hub's account may read",
                _ENTRY,
            ) from error

    def _key(self) -> bytes:
        try:
            return read_key(str(self._access.api_key_file))
        except (OSError, ValueError) as error:
            raise SchedulerNotSetUp(
                _("The key for Slurm's tokens can't be used: {why}.", why=error),
                str(self._access.api_key_file),
                str(error),
                "let the file that scheduler.api_key_file names belong to the Hub's account, with mode 0400",
                _ENTRY,
            ) from error

    def _without_version(self, line: str, said: str) -> SchedulerNotSetUp:
        return SchedulerNotSetUp(
            _("The service at scheduler.api has no version of Slurm's REST interface that the Hub speaks."),
            line,
            said,
            f"use a slurmrestd that has one of {', '.join(versions.KNOWN)}, and have it load its plugins "
            "(data_parser, openapi/slurmctld and openapi/slurmdbd)",
            _ENTRY,
        )

    def _unknown(self, message: str, line: str, words: str, ends_at: int) -> SchedulerUnreachable:
        """That it is not known whether it was done. Slurm does nothing by a token that has ended."""
        error = SchedulerUnreachable(message, line, words)
        error.settled_at = ends_at + _CLOCKS_S
        return error

    def _answer(self, response: HTTPResponse, line: str, ends_at: int) -> Answer:
        text = response.body.decode("utf-8", "replace") if response.body else ""
        words = printable(str(response.error or text)[:_LONGEST_WORDS])
        if response.code == 599:
            # Tornado's own, for an answer that did not come, was cut or is too long.
            raise self._unknown(_("The scheduler's REST service does not answer."), line, words, ends_at)
        if response.code == 404 and _NO_SUCH_PAGE.search(text):
            # Perhaps it is another Slurm's by now.
            self._version = ""
            raise self._without_version(line, printable(text[:_LONGEST_WORDS]))
        if response.code in (401, 403):
            raise SchedulerNotSetUp(
                _("The service at scheduler.api does not accept the Hub's tokens."),
                line,
                words,
                "start slurmrestd with `-a rest_auth/jwt`, and compare the file of scheduler.api_key_file with jwt_key "
                "in slurm.conf",
                _ENTRY,
            )
        errors = _errors(text)
        # Which status an error has is another thing in each release.
        if not text.lstrip().startswith("{") or (response.code != 200 and not errors):
            message = _("The scheduler's REST service gave no answer of its own (HTTP status {status}).")
            raise self._unknown(message.fill(status=response.code), line, words, ends_at)
        # The accounting's errors have the status of a success; so has a job that was submitted and is held.
        failed = response.code != 200 or (errors and line.startswith(("GET", "DELETE")))
        return Answer(int(bool(failed)), text, errors)


def read_key(path: str) -> bytes:
    """The key of a file that nobody else may read. Raises OSError, ValueError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if found.st_mode & 0o077:
            raise ValueError(f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, so others could use it")
        if found.st_uid not in (0, os.geteuid()):
            raise ValueError(f"{path} belongs to another account than the Hub's (uid {found.st_uid})")
        key = file.read(65536)
    if len(key) < _SHORTEST_KEY:
        raise ValueError(f"{path} has {len(key)} bytes, which is no key")
    return key


def token(key: bytes, user: str, ends_at: int) -> str:
    """A token of Slurm's auth/jwt (HS256) that makes its bearer this user until `ends_at`, seconds since 1970.

    Raises SchedulerRejected for root, who has no notebooks.
    """
    if user == "root":
        raise SchedulerRejected(_("The Hub makes no token for root."))
    parts = ({"alg": "HS256", "typ": "JWT"}, {"iat": int(time.time()), "exp": ends_at, "sun": user})
    signed = ".".join(_encoded(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signed}.{_encoded(hmac.new(key, signed.encode(), hashlib.sha256).digest())}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _errors(text: str) -> str:
    """What the service says is wrong, with its numbers; "" where it says nothing, or can't be read."""
    if len(text) > _LONGEST_ERRORS:
        # An answer that succeeded; its parser reads it off the loop.
        return ""
    try:
        answer = said(text)
        errors = [*(answer.get("errors") or []), *_of_cancel(answer.get("status"))]
        return "; ".join(_words(one) for one in errors)[:_LONGEST_WORDS]
    except (ValueError, TypeError, AttributeError):
        return ""


def _of_cancel(status: Any) -> list[dict[str, Any]]:
    """The errors of a DELETE, which newer versions have beside each job that was meant."""
    found = [one.get("error") or {} for one in status or () if isinstance(one, dict)]
    return [
        {"error": one.get("string"), "description": one.get("message"), "error_number": one["code"]}
        for one in found
        if isinstance(one, dict) and one.get("code")
    ]


def _worded(version: str, job: bytes) -> bytes:
    try:
        return versions.body(version, job)
    except ValueError as error:
        raise SchedulerRejected(_("This job can't be submitted: {why}.", why=error)) from error


def _words(error: dict[str, Any]) -> str:
    parts = [error[key] for key in ("error", "description") if error.get(key)]
    number = error.get("error_number", error.get("error_code", "?"))
    return f"{': '.join(dict.fromkeys(map(str, parts)))} ({NUMBER}{number})"


def said(text: str) -> dict[str, Any]:
    """The service's JSON. Raises ValueError for anything else."""
    try:
        found = json.loads(text)
    except RecursionError as error:
        raise ValueError("the answer is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError(f"the answer is no object: {text[:100]!r}")
    return found
