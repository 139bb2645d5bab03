"""What the Hub can work out again and so need not keep: tags of jobs, tokens of servers, keys for reports."""

import base64
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field

# So that a secret is known for one wherever it turns up: `hub/redact.py` looks for these.
TICKET, API_TOKEN, REPORT_KEY = "hpct_", "hpca_", "hpcr_"
# JupyterHub finds a token by its first four characters. Were they the same for all, each request with a token would go
# through the tokens of all servers, so here the mark comes after them.
_TOKEN_INDEX = 4
_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_NONCE_LENGTH, _PROOF_LENGTH = 6, 8


def new_ticket() -> str:
    """What a job trades for its server's environment: random, for nothing can be worked out of it."""
    return TICKET + secrets.token_urlsafe(32)


@dataclass(frozen=True, slots=True)
class Keys:
    """Derives secrets by HMAC-SHA256 (RFC 2104) from one that the Hub keeps across restarts.

    `hub` tells this Hub from another one that might have a copy of the same secret.
    """

    secret: bytes = field(repr=False)
    hub: str

    def token(self, tag: str) -> str:
        """The API token of the server in the job with this tag: the same after every restart of the Hub."""
        token = self._derived("token", tag)
        return f"{token[:_TOKEN_INDEX]}{API_TOKEN}{token[_TOKEN_INDEX:]}"

    def report_key(self, tag: str, run: str) -> str:
        """What one run of a job's launcher shows with its reports."""
        return REPORT_KEY + self._derived("report", tag, run)

    def nonce(self, tag: str, run: str) -> str:
        """What names one run's server, and no other: no secret, 16 letters and digits that a host name may hold."""
        return self._derived("name", tag, run, encode=base64.b32encode)[:16].lower()

    def new_tag(self, owner: str) -> str:
        """A mark for one job of this owner: a letter first and 15 characters long, for old Torques keep no more."""
        nonce = "".join(secrets.choice(_LETTERS) for _ in range(_NONCE_LENGTH))
        return f"h{nonce}{self._proof(owner, nonce)}"

    def is_ours(self, owner: str, tag: str) -> bool:
        """Whether this Hub made this tag for a job of this owner; nobody else can."""
        nonce, proof = tag[1 : 1 + _NONCE_LENGTH], tag[1 + _NONCE_LENGTH :]
        return tag[:1] == "h" and tag.isascii() and secrets.compare_digest(proof, self._proof(owner, nonce))

    def _proof(self, owner: str, nonce: str) -> str:
        return self._derived("tag", owner, nonce, encode=base64.b32encode)[:_PROOF_LENGTH].lower()

    def _derived(self, purpose: str, *parts: str, encode: Callable[[bytes], bytes] = base64.urlsafe_b64encode) -> str:
        # No part holds a line break, so no two lists of parts make the same text.
        text = "\n".join(("hpcspawner", self.hub, purpose, *parts))
        return encode(hmac.digest(self.secret, text.encode(), "sha256")).decode().rstrip("=")
