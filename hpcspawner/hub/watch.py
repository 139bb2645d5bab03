"""What the Hub does to see that a server is still where it sends its users."""

import asyncio
import contextlib
from contextvars import ContextVar

from cryptography.x509 import CertificateSigningRequest

from hpcspawner.hub.doors import Doors
from hpcspawner.jobs.job import Job, now
from hpcspawner.jobs.wait import moved
from hpcspawner.nodes.address import Naming, Patience, ServerAddress, Sign, Tls
from hpcspawner.nodes.certificates import AUTHORITY
from hpcspawner.schedulers.state import JobState

# At least a second apart: a listing is never asked for sooner.
_TRIES_TO_SEE_AN_END = 10
# JupyterHub's check at its start must not hang on a scheduler that hangs.
_BOOT_LISTING_S = 5.0

leaving: ContextVar[bool] = ContextVar("hpcspawner_leaving", default=False)
"""While True, `poll` reports the server as gone, so that JupyterHub drops it without `stop`; the job runs on."""


class Watch(Doors):
    """The spawner's regular look at its server."""

    # JupyterHub looks at each server when it starts; until it has seen one, nothing may end its job.
    _checked_at_boot = False
    _patience: Patience

    async def _watch(self) -> None:
        """The regular look: a server whose job has moved is let go of, which ends no job."""
        if not self.pending and await self._must_leave() and not self.pending:
            # Of this task and what it calls; a stop by the user that comes meanwhile is another.
            leaving.set(True)
        await self.poll_and_notify()

    @property
    def unpolled(self) -> bool:
        """Whether JupyterHub has stopped polling this server: it failed while it let go of it."""
        return self.active and not self.pending and self.poll_interval > 0 and self._poll_callback is None

    async def leave(self) -> None:
        """Let go of the server; housekeeping takes its job up again."""
        leaving.set(True)
        await self.user.stop(self.name)

    async def _must_leave(self) -> bool:
        """Whether the job is wanted but its server is no longer where the Hub sends its users."""
        job = self.job
        if job is None or not job.record.job_id or not job.record.wanted or job.end is not None:
            return False
        if not job.record.port:
            return True  # another run has traded the ticket
        status = await self.cluster.queue.status(job.listed, now() - self.poll_interval_s)
        if job.record.port and moved(job, status):
            self.log.warning("%s: job %s is %s again", self._log_name, job.record.job_id, status.state.value)
            await self.ledger.put_back(job)
            return True
        return status.state is JobState.RUNNING and await self._is_silent(job)

    async def _is_silent(self, job: Job) -> bool:
        sign = await (await self._address()).sign(job)
        if sign is Sign.NONE:
            self.log.warning("%s: nothing answers on %s:%s", self._log_name, job.record.host, job.record.port)
        elif sign is Sign.MUTE:
            self.log.warning(
                "%s: %s:%s takes connections and does not prove who it is",
                self._log_name,
                job.record.host,
                job.record.port,
            )
        return self._patience.ends(sign, now())

    async def _recheck(self, job: Job) -> None:
        """Have the Hub look at once when the launcher reports something, and not at its next poll."""
        for _ in range(_TRIES_TO_SEE_AN_END):
            if self.job is not job or self.pending:
                return
            status = await self.cluster.queue.status(job.listed, now())
            if not job.record.port or status.state in (JobState.ENDED, JobState.PENDING, JobState.HELD):
                await self._watch()
                return

    async def _is_there(self, job: Job) -> bool:
        """Whether a server from before the Hub's start answers where its job still is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BOOT_LISTING_S):
                status = await self.cluster.queue.status(job.listed, now() - self.poll_interval_s)
                if status.state is JobState.ENDED or moved(job, status):
                    return False
        return await self._answers()

    async def _answers(self) -> bool:
        if self.job is None or self.server is None:
            return False
        return await (await self._address()).answers(self.job, f"{self.server.base_url}api")

    async def _certify(self, job: Job, request: CertificateSigningRequest) -> dict[str, str]:
        return await (await self._address()).certify(job, request)

    async def _address(self) -> ServerAddress:
        zone = self.certificate_zone if self.certificate_names == "job" else ""
        naming = Naming(self.ledger.keys, self.cluster.profile.scheduler.node_name, zone)
        if not self.internal_ssl:
            return ServerAddress(naming, None)
        hub = self.hub
        files = [self.internal_certs_location, self.internal_trust_bundles[AUTHORITY]]
        return ServerAddress(naming, await Tls.kept(*files, hub.certfile, hub.keyfile, hub.cafile))
