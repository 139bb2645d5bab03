"""A real job that shows what only a node can: its way to the Hub and back, TLS, Python, clocks, files."""

import asyncio
import contextlib
import json
import random
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hpcspawner.checks.finding import Finding, good, not_checked, warning, wrong
from hpcspawner.checks.scheduler import skew
from hpcspawner.errors import RequestError, SchedulerError
from hpcspawner.programs import trial as program
from hpcspawner.programs.joined import source
from hpcspawner.request import accounts
from hpcspawner.request.gate import make
from hpcspawner.schedulers.base import JobLabel, Submission
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.script.text import quote
from hpcspawner.site.profile import SiteProfile
from hpcspawner.units import printable

_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_LOOK_S = 1.0
_CONNECT_S = 60.0
_ONE_TRY_S = 3.0
_CANDIDATES = 5
# Where servers take any port: those that no registry gives away.
_ANY_PORT = (49152, 60999)
_WALLTIME = "5m"
_NO_PYTHON = 127

_SCRIPT = """\
#!/bin/bash
# A trial of hpcspawner check. It ends by itself.
cd 2>/dev/null || cd /
hpc_python=$(command -v {python}) || exit {no_python}
exec "$hpc_python" -I -c {program} {settings}
"""


@dataclass(frozen=True, slots=True)
class Home:
    """Where the node is to call: the Hub's public address with its path ("" for nowhere), and the PEM text to trust."""

    url: str = ""
    ca: str = ""


class Trial:
    """One job, from its submit to its end."""

    def __init__(self, profile: SiteProfile, client: Client, user: str, home: Home):
        self.profile, self.client, self.user, self.home = profile, client, user, home
        first, last = profile.job.ports or _ANY_PORT
        span = range(first, last + 1)
        self.ports = random.sample(span, min(_CANDIDATES, len(span)))
        self.word = secrets.token_hex(8)
        self.job_id = ""

    async def run(self, wait_s: float) -> list[Finding]:
        """Submit, wait for at most `wait_s` seconds in the queue, ask, cancel."""
        try:
            job = self._job()
        except RequestError as error:
            return [wrong(str(error), "name another user, or correct the profile's defaults")]
        try:
            self.job_id = await self.client.submit(self.user, job)
            return [good(f"job {self.job_id} submitted as {self.user}"), *await self._follow(wait_s)]
        finally:
            if self.job_id:
                with contextlib.suppress(SchedulerError):
                    await self.client.cancel(self.user, self.job_id)

    def _job(self) -> Submission:
        access = self.profile.scheduler
        account = accounts.of_user(self.user, access.min_uid) if access.has_nodes else accounts.of_hub(allow_root=True)
        try:
            request = make({"walltime": _WALLTIME}, self.profile, account)
        except RequestError:
            request = make({}, self.profile, account)
        self.user = account.name
        label = JobLabel("hpcspawner-check", "c" + "".join(secrets.choice(_LETTERS) for _ in range(14)))
        return Submission(tuple(self.client.scheduler.options(request.resources, label)), self.script())

    def script(self) -> str:
        """The job script; the program and what it is given are words of one command."""
        settings = {
            "url": self.home.url,
            "ca": self.home.ca,
            "ports": self.ports,
            "word": self.word,
            "limit_s": _CONNECT_S,
            "paths": list(_paths(self.profile)),
        }
        return _SCRIPT.format(
            python=quote(self.profile.job.python),
            no_python=_NO_PYTHON,
            program=quote(source("trial.py")),
            settings=quote(json.dumps(settings)),
        )

    async def _follow(self, wait_s: float) -> list[Finding]:
        status = await self._until_it_runs(wait_s)
        if status is None:
            return await self._over()
        if status.state is not JobState.RUNNING:
            why = self.client.scheduler.explain(status.reason) or "the scheduler gives no reason"
            cure = "wait longer (--wait=SECONDS), or try a partition that is free (defaults.partition)"
            return [warning(f"job {self.job_id} did not start within {wait_s:g} s: {why}", cure)]
        host = self.client.access.node_name.replace("{node}", str(status.host))
        answer, why = await self._asked(host)
        if answer is None:
            return [await self._not_reached(host, why)]
        return [good(f"the Hub reaches {host}"), *self._told(answer)]

    async def _until_it_runs(self, wait_s: float) -> JobStatus | None:
        """Its state when it runs or the time is up; None where it has ended."""
        ends, status = time.monotonic() + wait_s, JobStatus(JobState.PENDING)
        while time.monotonic() < ends:
            status = (await self.client.listing()).jobs.get(self.job_id, status)
            if status.state is JobState.ENDED:
                return None
            if status.state is JobState.RUNNING and status.host:
                return status
            await asyncio.sleep(_LOOK_S)
        return status

    async def _asked(self, host: str) -> tuple[dict[str, Any] | None, str]:
        """What the job answers, or why it can't be reached."""
        ends, why = time.monotonic() + _CONNECT_S / 2, ""
        while time.monotonic() < ends:
            for port in self.ports:
                try:
                    async with asyncio.timeout(_ONE_TRY_S):
                        if answer := await self._asked_at(host, port):
                            return answer, ""
                except (OSError, ValueError, TimeoutError) as error:
                    why = getattr(error, "strerror", None) or str(error) or "no answer"
            await asyncio.sleep(_LOOK_S / 2)
        return None, why

    async def _asked_at(self, host: str, port: int) -> dict[str, Any] | None:
        reader, writer = await asyncio.open_connection(host, port)
        try:
            writer.write(self.word.encode() + b"\n")
            text = await reader.read(65536)
        finally:
            writer.close()
        found = json.loads(text) if text else None
        return found if isinstance(found, dict) else None

    async def _not_reached(self, host: str, why: str) -> Finding:
        ports = f"{self.profile.job.ports[0]} to {self.profile.job.ports[1]}" if self.profile.job.ports else "all"
        for _ in range(3):
            listing = await self.client.listing()
            known = listing.jobs.get(self.job_id)
            if known is not None and known.state is JobState.RUNNING:
                return wrong(
                    f"the job runs on {host}, and the Hub can't connect to it: {why}",
                    f"open the nodes' firewall for the Hub's machine (job.ports: {ports}), and check "
                    f"that {host} is the node's address in a network that the Hub is in",
                )
            await asyncio.sleep(_LOOK_S)
        return (await self._over())[0]

    async def _over(self) -> list[Finding]:
        """Why it ended before the Hub had asked it."""
        record = await self.client.record(self.job_id)
        code = record.exit_code if record else None
        said = printable(record.message) if record else "the scheduler keeps no record of why"
        if code in (_NO_PYTHON, 126):
            cure = (
                f"install Python 3.6 or later on the nodes, or name it as job.python (now {self.profile.job.python!r})"
            )
            return [wrong(f"the node can't run the launcher's Python: {said}", cure)]
        if code == program.NO_PORT_CODE:
            return [wrong("the node has no free port for a server", "widen job.ports")]
        cure = (
            f"look at the job with the scheduler's own commands: {self.client.scheduler.details_command(self.job_id)}"
        )
        return [wrong(f"job {self.job_id} ended before the Hub had asked it: {said}", cure)]

    def _told(self, answer: dict[str, Any]) -> Iterator[Finding]:
        """What the program on the node has seen. A user's job could say anything; here it is a text for the admin."""
        node = printable(str(answer.get("node")))
        yield _python(answer)
        if not answer.get("key_maker"):
            yield warning(
                f"{node} has neither openssl nor Python's cryptography, so only an environment can make keys",
                "install openssl on the nodes",
            )
        with contextlib.suppress(TypeError, ValueError):
            yield skew(float(answer["time"]) - time.time(), f"node {node}")
        yield self._way_to_the_hub(node, answer.get("hub"))
        missing = [printable(str(one)) for one in answer.get("missing", [])]
        for one in missing:
            yield wrong(
                f"{node} has not what the profile names: {one}", "correct the path, or make it known on the nodes"
            )
        if not missing:
            yield good(f"{node} has what the profile names")

    def _way_to_the_hub(self, node: str, said: Any) -> Finding:
        if said is None:
            return not_checked("whether nodes reach the Hub: name its configuration (--hub=jupyterhub_config.py)")
        kind, words = (printable(str(one)) for one in said)
        if not kind:
            return good(f"{node} reaches the Hub at {self.home.url} by TLS")
        cures = {
            "tls": "name in ca_file who signed the Hub's certificate; callback_url must be a name of it",
            "name": "make the host of callback_url known on the nodes, by DNS or /etc/hosts",
            "way": "open the Hub's firewall for the nodes, and check that its proxy listens at their network's address",
            "answer": "another program answers there: correct callback_url",
        }
        return wrong(f"{node} can't use the Hub at {self.home.url}: {words}", cures.get(kind, ""))


def _python(answer: dict[str, Any]) -> Finding:
    version = tuple(int(part) for part in answer.get("python", ()))
    told = f"{printable(str(answer.get('python_path')))} is Python {'.'.join(map(str, version))}"
    if version < program.OLDEST:
        return wrong(f"{told}, which is too old for the launcher", "name Python 3.6 or later as job.python")
    return good(told)


def _paths(profile: SiteProfile) -> Iterator[tuple[str, str, str]]:
    """What the node must have: what it is called here, the path (or several, of which one will do), and "r" or "x"."""
    command = profile.default_interface.command[0]
    for one in profile.environments:
        if one.path and not (one.modules or one.conda or one.setup or one.image):
            programs = ":".join(f"{folder.rstrip('/')}/{command}" for folder in one.path)
            yield f"environments ({one.name}): {command}", programs, "x"
    for image in profile.images:
        if image.path.startswith("/"):
            yield f"images ({image.name}): {image.path}", image.path, "r"
    if profile.job.modules_init:
        yield f"job.modules_init: {profile.job.modules_init}", profile.job.modules_init, "r"
    if profile.job.conda:
        yield f"job.conda: {profile.job.conda}", f"{profile.job.conda}/bin/conda", "x"
    if profile.job.proxy:
        yield f"job.proxy: {profile.job.proxy}", f"{profile.job.proxy}/bin/python", "x"
