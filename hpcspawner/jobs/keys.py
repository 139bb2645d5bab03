"""What the Hub can work out again and so need not keep: tags of jobs, tickets, tokens of servers, keys for reports."""

import base64
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

# So that a secret is known for one wherever it turns up: `hub/redact.py` looks for these.
TICKET, API_TOKEN, REPORT_KEY = "hpct_", "hpca_", "hpcr_"
# JupyterHub finds a token by its first four characters. Were they the same for all, each request with a token would go
# through the tokens of all servers, so here the mark comes after them.
_TOKEN_INDEX = 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
# The first letter of a tag says of which secret it is made and how many letters after it are no proof of its owner.
# A server's proof is among these: with it, a tag is 15 letters long all in all, for old Torques keep no more.
_OWN, _UNNAMED, _OLDER = "s", "k", "h"
_NONCE_LENGTHS = {_OWN: 7, _UNNAMED: 6, _OLDER: 6}
_TAG_LENGTH, _RANDOM_LENGTH, _SERVER_LENGTH = 15, 4, 3


@dataclass(frozen=True, slots=True)
class Keys:
    """Derives secrets by HMAC-SHA256 (RFC 2104) from one that the Hub keeps across restarts, for nothing else.

    `hub` tells this Hub from another one that might have a copy of the same secret. `older` is JupyterHub's
    `cookie_secret`, of which tags were made before there was a secret of our own; it is to be removed, with its letter,
    as soon as no job from then can run: one minor version later. So is the letter of tags that name no server.
    """

    secret: bytes = field(repr=False)
    hub: str
    older: bytes = field(default=b"", repr=False)

    def token(self, tag: str) -> str:
        """The API token of the server in the job with this tag: the same after every restart of the Hub."""
        token = self._derived(tag, "token", tag)
        return f"{token[:_TOKEN_INDEX]}{API_TOKEN}{token[_TOKEN_INDEX:]}"

    def report_key(self, tag: str, run: str) -> str:
        """What one run of a job's launcher shows with its reports."""
        return REPORT_KEY + self._derived(tag, "report", tag, run)

    def nonce(self, tag: str, run: str) -> str:
        """What names one run's server, and no other: no secret, 16 letters and digits that a host name may hold."""
        return self._derived(tag, "name", tag, run, encode=base64.b32encode)[:16].lower()

    def ticket(self, tag: str, again: str = "") -> str:
        """What the job with this tag trades for its server's environment, once; `again` is another in each submit."""
        return TICKET + self._derived(tag, "ticket", tag, again)

    def new_tag(self, owner: str, username: str, server: str) -> str:
        """A mark for one job of this server of this user, which is this owner's on the cluster; a letter first."""
        nonce = "".join(secrets.choice(_LETTERS) for _ in range(_RANDOM_LENGTH))
        nonce += self._server_proof(nonce, owner, username, server)
        return f"{_OWN}{nonce}{self._proof(_OWN, owner, nonce)}"

    def is_ours(self, owner: str, tag: str) -> bool:
        """Whether this Hub made this tag for a job of this owner; only this Hub can."""
        first, length = tag[:1], _NONCE_LENGTHS.get(tag[:1], 0)
        nonce, proof = tag[1 : 1 + length], tag[1 + length :]
        if not length or not tag.isascii():
            return False
        return secrets.compare_digest(proof, self._proof(first, owner, nonce))

    def is_of(self, tag: str, owner: str, username: str, server: str) -> bool:
        """Whether this tag, which is ours, was made for this server; a wrong server passes once in 32768 times."""
        nonce, proof = tag[1 : 1 + _RANDOM_LENGTH], tag[1 + _RANDOM_LENGTH :][:_SERVER_LENGTH]
        return tag[:1] == _OWN and secrets.compare_digest(proof, self._server_proof(nonce, owner, username, server))

    def _server_proof(self, nonce: str, owner: str, username: str, server: str) -> str:
        # As JSON, for a server's name may hold anything.
        named = json.dumps([username, server])
        return self._derived(_OWN, "server", owner, named, nonce, encode=base64.b32encode)[:_SERVER_LENGTH].lower()

    def _proof(self, first: str, owner: str, nonce: str) -> str:
        length = _TAG_LENGTH - 1 - _NONCE_LENGTHS[first]
        return self._derived(first, "tag", owner, nonce, encode=base64.b32encode)[:length].lower()

    def _derived(self, tag: str, *parts: str, encode: Callable[[bytes], bytes] = base64.urlsafe_b64encode) -> str:
        """Made of the purpose and its parts, with the secret that the tag's first letter names."""
        secret = self.older if self.older and tag[:1] == _OLDER else self.secret
        # No part holds a line break, so no two lists of parts make the same text.
        text = "\n".join(("hpcspawner", self.hub, *parts))
        return encode(hmac.digest(secret, text.encode(), "sha256")).decode().rstrip("=")
