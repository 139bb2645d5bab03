"""Where a server is, and whether it can be reached: for probes, for the proxy, and for its certificate.

Probes go by asyncio alone: HTTP clients that bring a resolver of their own may ask the machine's user and host database
on the loop, which then stands still for as long as that database is silent.
"""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

from cryptography.x509 import CertificateSigningRequest
from jupyterhub.utils import make_ssl_context

from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.tasks import once
from hpcspawner.nodes.certificates import KEY, Authority
from hpcspawner.nodes.server_names import server_name

_log = logging.getLogger(__name__)
_PROBE_S = 5.0
_LOOK_AGAIN_S = 10.0
_NOT_FOUND = b"404"
# Of a job whose choices were lost: not shorter than it may run.
_LONG_S = 30 * 24 * 3600


# A busy node misses a connection or two; a dead one misses them all.
_NONE_S = 60.0
# A server whose node swaps, or whose process was stopped for a while, takes connections and is too slow for a
# handshake. So does a stranger's process on its port that sends nothing, so there is a time limit.
_MUTE_S = 600.0


class Sign(Enum):
    """What a server shows of itself: it proves who it is, it takes a connection and says nothing, or nothing at all."""

    PROVEN = auto()
    MUTE = auto()
    NONE = auto()


@dataclass(slots=True)
class Patience:
    """For how long a server that does not prove itself still counts as there; times are those of `jobs.job.now`."""

    unproven_since: float | None = None
    silent_since: float | None = None

    def ends(self, sign: Sign, at: float) -> bool:
        """Whether the server counts as gone, with this sign of it."""
        if sign is Sign.PROVEN:
            self.unproven_since = self.silent_since = None
            return False
        if self.unproven_since is None:
            self.unproven_since = at
        if sign is Sign.MUTE:
            self.silent_since = None
        elif self.silent_since is None:
            self.silent_since = at
        silent = self.silent_since is not None and at - self.silent_since >= _NONE_S
        return silent or at - self.unproven_since >= _MUTE_S


@dataclass(frozen=True, slots=True)
class Naming:
    """How servers are named: `node` is how the Hub resolves a node ("{node}.cluster"), `zone` where names lie.

    `zone` "" means that a certificate names the node alone, which does not tell servers on one node apart.
    """

    keys: Keys
    node: str
    zone: str


@dataclass(frozen=True, slots=True)
class Tls:
    """What the Hub signs servers' keys with, and how it proves itself to them and checks them."""

    authority: Authority
    context: ssl.SSLContext

    @classmethod
    def of(cls, folder: str, bundle: str, *own: str) -> "Tls":
        """JupyterHub's `internal_ssl`: folder, trust bundle of servers, and the Hub's certificate, key and authorities.

        Reads files: not on the loop.
        """
        return cls(Authority.of(folder, bundle), make_ssl_context(own[1], own[0], cafile=own[2]))

    @classmethod
    async def kept(cls, *place: str) -> "Tls":
        """As `of`, read once and kept until a file changes, which is noticed after a few seconds."""
        kept = _kept.get(place)
        if kept is None or now() - kept.looked_at > _LOOK_AGAIN_S:
            # Once for all who ask meanwhile: to read an authority's key takes a tenth of a second.
            kept = await once(_reading, "\n".join(place), lambda: _look_at(place), _log)
        return kept.tls


@dataclass(frozen=True, slots=True)
class _Kept:
    tls: Tls
    stamp: tuple[Any, ...]
    looked_at: float


_kept: dict[tuple[str, ...], _Kept] = {}
_reading: dict[str, asyncio.Task[Any]] = {}


async def _look_at(place: tuple[str, ...]) -> _Kept:
    _kept[place] = await asyncio.to_thread(_looked_at, place, _kept.get(place))
    return _kept[place]


def _looked_at(place: tuple[str, ...], kept: _Kept | None) -> _Kept:
    folder, *files = place
    found = [Path(file).stat() for file in (f"{folder}/certipy.json", *files)]
    stamp = tuple((file.st_mtime_ns, file.st_size, file.st_ino) for file in found)
    return _Kept(kept.tls if kept is not None and kept.stamp == stamp else Tls.of(*place), stamp, now())


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """The way from the Hub to its servers."""

    naming: Naming
    tls: Tls | None

    def address(self, job: Job) -> str:
        """What the proxy is given."""
        host = self._host(job)
        return f"{'https' if _has_key(job) else 'http'}://{f'[{host}]' if ':' in host else host}:{job.record.port}"

    async def certify(self, job: Job, request: CertificateSigningRequest) -> dict[str, str]:
        """A certificate for this run of the job, on the node that the scheduler has named."""
        if self.tls is None:
            return {}
        life_s = job.record.walltime_s or _LONG_S
        return await self.tls.authority.certify(request, self._host(job), life_s)

    async def answers(self, job: Job, path: str) -> bool:
        """Whether the server answers within a few seconds, and knows the place: another on that port would not."""
        host = self._host(job)
        # No answer in words that are HTTP is a ValueError, and so is a name that no host can have.
        with contextlib.suppress(OSError, ValueError):
            async with asyncio.timeout(_PROBE_S):
                reader, writer = await asyncio.open_connection(
                    self._place(job), job.record.port, **self._checked(job, host)
                )
                try:
                    writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
                    version, status = (await reader.readline()).split()[:2]
                finally:
                    writer.close()
                return version.startswith(b"HTTP/") and status != _NOT_FOUND
        return False

    async def sign(self, job: Job) -> Sign:
        """The cheapest sign of life: whether the server takes a connection and proves who it is; nothing is asked.

        A busy one may be slow to prove it; one that proves to be somebody else is not the server. Without TLS there is
        nothing to prove.
        """
        with contextlib.suppress(OSError, ValueError):
            async with asyncio.timeout(_PROBE_S):
                _, writer = await asyncio.open_connection(self._place(job), job.record.port)
            try:
                if checked := self._checked(job, self._host(job)):
                    async with asyncio.timeout(_PROBE_S):
                        await writer.start_tls(checked["ssl"], server_hostname=checked["server_hostname"])
            except TimeoutError:
                return Sign.MUTE
            finally:
                writer.close()
            return Sign.PROVEN
        return Sign.NONE

    def _host(self, job: Job) -> str:
        """The name in the server's address and certificate."""
        naming, place = self.naming, self._place(job)
        if not naming.zone or not _has_key(job):
            return place
        return server_name(naming.keys.nonce(job.tag, job.record.run), place, naming.zone)

    def _place(self, job: Job) -> str:
        """The node's name as the Hub resolves it."""
        return self.naming.node.replace("{node}", job.record.host)

    def _checked(self, job: Job, host: str) -> dict[str, Any]:
        if self.tls is None or not _has_key(job):
            return {}
        return {"ssl": self.tls.context, "server_hostname": host}


def _has_key(job: Job) -> bool:
    """Whether the server speaks TLS. A job says so itself: the setting may have changed since its job began."""
    return job.record.run.startswith(KEY)
