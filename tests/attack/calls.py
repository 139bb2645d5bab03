"""Calls to the launcher's endpoints as an attacker would make them who holds real secrets. Seeded."""

import json
import random
from dataclasses import dataclass, field
from typing import Any

from attack.options import PAYLOADS, deep

PATH = "/hub/api/hpcspawner"

_METHODS = ("GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
_TYPES = (
    *("application/json", "application/json; charset=utf-16", "text/plain", "application/x-www-form-urlencoded"),
    *("multipart/form-data; boundary=x", "application/xml", "x" * 2000, ""),
)
_OTHER_FIELDS = (
    *("host", "ip", "url", "user", "server", "name", "node", "state", "environment", "certificate", "job_id", "owner"),
    *("port", "__class__", "model_config", "wanted", "row", "tag", "report_key", "ticket", "run", "csr", "", "\u0000"),
)
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 22, 80, 1023, 65536, 1 << 31, 1 << 63, 10**30, 1.5, 1e308, "", " ", [], {}, [[]]),
    *(
        "20000",
        "localhost",
        "10.77.0.99",
        "http://10.77.0.99:1/",
        "../../etc/passwd",
        "\x00",
        "\u2028",
        "\u0661",
        "a" * 5000,
    ),
    *(["20000"], {"port": 20000}, {"$ne": ""}, "'; DROP TABLE jobs; --", "%s%n", "{0.__class__}"),
)
_RAW = (
    *(b"", b" ", b"null", b"[]", b"{}", b'"x"', b"\x00", b"\xff\xfe{\x00}\x00", b"{", b"}", b"<a/>", b"a=b&c=d"),
    *(b"[" * 30_000, b'{"a":' * 10_000, b'{"port":' + b"9" * 10_000 + b"}", b'{"port":1e9999}', b"\xef\xbb\xbf{}"),
    *(b"x" * 70_000, b"{" + b" " * 64 * 1024 + b"}", b'{"a":NaN}', b"{'a':1}", b'{"ticket":"\xed\xa0\x80"}'),
)


@dataclass(frozen=True)
class Call:
    """One request."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Known:
    """What the attacker has: tickets with their jobs, report keys with their ports, tokens, and marks of runs."""

    tickets: tuple[tuple[str, str], ...]
    keys: tuple[tuple[str, int], ...]
    tokens: tuple[str, ...]
    marks: tuple[dict[str, str], ...]
    untraded: frozenset[str] = field(default_factory=frozenset)
    """Those of the tickets that a well-formed call would trade, so that none may be made with them."""


class Calls:
    """The same seed makes the same calls of the same secrets. None of them is one that the Hub should heed.

    But for two: a warning, and the port that has been reported already, are told again now and then.
    """

    def __init__(self, seed: int, known: Known):
        self._random = random.Random(seed)
        self._known = known

    def take(self, count: int) -> list[Call]:
        """The next ones."""
        return [self._call() for _ in range(count)]

    def _call(self) -> Call:
        pick, chance = self._random.choice, self._random.random
        door = pick(("ticket", "report"))
        method = "POST" if chance() < 0.94 else pick(_METHODS)
        headers = {"Content-Type": "application/json" if chance() < 0.8 else pick(_TYPES)}
        if chance() < 0.4:
            headers |= self._more_headers()
        return Call(method, self._path(door), headers, self._body(door))

    def _path(self, door: str) -> str:
        if self._random.random() < 0.93:
            return f"{PATH}/{door}"
        secret = self._secret()
        return self._random.choice(
            (
                f"{PATH}/{door}/",
                f"{PATH}//{door}",
                f"{PATH}/{door}?ticket={secret}&port=22222&host=10.77.0.99",
                f"{PATH}/{door}/{secret}",
                f"{PATH}/../hpcspawner/{door}",
                f"{PATH}/{door.upper()}",
                f"{PATH}/%{ord(door[0]):02x}{door[1:]}",
                f"{PATH}/environment",
                "/hub/api/batchspawner",
            )
        )

    def _more_headers(self) -> dict[str, str]:
        token = self._random.choice(self._known.tokens)
        return self._random.choice(
            (
                {"Authorization": f"token {token}"},
                {"Authorization": f"Bearer {token}"},
                {"Authorization": "Basic " + "x" * 3000},
                {"Cookie": f"jupyterhub-hub-login={token}; _xsrf={token}"},
                {"X-Forwarded-For": "10.77.0.99", "X-Real-IP": "10.77.0.99", "Forwarded": "for=10.77.0.99"},
                {"X-Forwarded-Host": "evil.example.org", "X-Forwarded-Proto": "http"},
                {"X-HTTP-Method-Override": "DELETE"},
                {"Content-Encoding": "gzip"},
                {"Referer": "https://evil.example.org/", "Origin": "https://evil.example.org"},
                {"Accept": "text/html", "Accept-Language": "x" * 3000},
            )
        )

    def _secret(self) -> str:
        known = self._known
        return self._random.choice(
            (known.tickets[0][0], known.keys[0][0], *known.tokens, "hpct_" + "A" * 43, "hpcr_" + "A" * 43)
        )

    def _body(self, door: str) -> bytes:
        if self._random.random() < 0.1:
            return self._random.choice(_RAW)
        body, must_be_spoiled = self._ticket() if door == "ticket" else self._report()
        if not must_be_spoiled and self._random.random() < 0.03:
            return json.dumps(body).encode()
        return self._spoiled(body)

    def _ticket(self) -> tuple[dict[str, Any], bool]:
        ticket, job = self._random.choice((*self._known.tickets, (self._secret(), "1")))
        body: dict[str, Any] = {"ticket": ticket, "job": job, **self._random.choice(self._known.marks)}
        if self._random.random() < 0.3:
            body["job"] = self._random.choice([job for _, job in self._known.tickets] + ["1", "", "1.head", "99999"])
        return body, ticket in self._known.untraded

    def _report(self) -> tuple[dict[str, Any], bool]:
        key, port = self._random.choice((*self._known.keys, (self._secret(), 20000)))
        event = self._random.choice(("listening", "listening", "warned", "renew", "ended"))
        body: dict[str, Any] = {"report_key": key, "event": event}
        if event == "listening":
            body["port"] = port if self._random.random() < 0.2 else self._random.choice((port + 1, 1024, 65535, 22222))
        if event == "ended":
            body |= {"reason": "idle", "message": self._random.choice(PAYLOADS), "exit_code": 1, "log": ["x"] * 3}
        return body, event == "ended"

    def _spoiled(self, body: dict[str, Any]) -> bytes:
        """The body with a fault in it that no strict reader forgives."""
        body = dict(body)
        for _ in range(self._random.choice((1, 1, 2))):
            self._spoil(body)
        # Whatever the faults above have come to: an unknown field is always one.
        body[f"x-{self._random.randrange(1000)}"] = 1
        text = json.dumps(body)
        kind = self._random.random()
        if kind < 0.1:
            name = self._random.choice(list(body))
            text = f"{text[:-1]}, {json.dumps(name)}: {json.dumps(self._random.choice(_ODD))}}}"
        elif kind < 0.15:
            text = text[: self._random.randrange(len(text))]
        elif kind < 0.2:
            text += self._random.choice(("x", "{}", "\x00", ", 1"))
        return text.encode()

    def _spoil(self, body: dict[str, Any]) -> None:
        name = self._random.choice(list(body) or ["x"])
        kind = self._random.random()
        if kind < 0.25:
            body.pop(name, None)
        elif kind < 0.55:
            body[name] = self._random.choice(_ODD)
        elif kind < 0.65:
            body[name] = deep(self._random.choice((5, 100, 150)), self._random.choice((list, dict)))
        elif kind < 0.75:
            body[name] = f"{body[name]}{self._random.choice(PAYLOADS)[:3000]}"
        else:
            body[self._random.choice(_OTHER_FIELDS)] = self._random.choice(_ODD)
