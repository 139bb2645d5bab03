"""A cluster's commands on its login nodes, by OpenSSH's client: which node, which connection, and what a loss means."""

import asyncio
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, SchedulerUnreachable
from hpcspawner.language import _, sentence_of
from hpcspawner.programs import helper
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.process import Command, GivenUp, run
from hpcspawner.site.away import LoginNode
from hpcspawner.site.profile import Access

# Of the page about troubleshooting.
_ENTRY = "login-node"
_CONNECT_S = 10
# Seconds until a connection counts as lost on which nothing comes: a node that is off sends no word of it.
_ALIVE_EVERY_S, _ALIVE_TIMES = 5, 3
# How long a connection without a session stays open; a Hub with servers asks more often.
_KEPT_S = 120
# sshd lets ten sessions share one connection (MaxSessions). Submits may all wait for a scheduler that hangs, and must
# not hold up the questions.
_SESSIONS_OF_USERS, _SESSIONS_OF_HUB = 6, 3
# Of those of users. A look waits for a file system, which may hang for all; submits and cancels keep the rest.
_LOOKS = 2
# A node that did not let us in is left alone for so long, at first and at most.
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 2.0, 30.0
# What was under way when a connection was lost ends with the helper's own time limit; it may have begun late.
_LATE_S = 6.0

_SSH_FAILED = 255
_HELPERS_LAST_WORD = re.compile(rf"^{helper.SAYS}.*\n?\Z", re.MULTILINE)
_UNKNOWN_HOST_KEY = re.compile(r"Host key verification failed|REMOTE HOST IDENTIFICATION HAS CHANGED|host key is known")
_KEY_REFUSED = re.compile(r"Permission denied|Load key|bad permissions|not accessible|Too many authentication failures")


class LoginNodes:
    """The login nodes of one cluster; what they are asked are verbs of the helper's `serve`."""

    def __init__(self, access: Access):
        """Starts nothing."""
        self._access = access
        # Closed to others: who reaches a connection's socket can use the connection. Gone with the Hub.
        self._folder = tempfile.TemporaryDirectory(prefix="hpcspawner-ssh-")
        self._nodes = [
            _Node(one, access, Path(self._folder.name) / str(at)) for at, one in enumerate(access.login_nodes)
        ]
        self._of_users = asyncio.Semaphore(_SESSIONS_OF_USERS)
        self._of_hub = asyncio.Semaphore(_SESSIONS_OF_HUB)
        self._looks = asyncio.Semaphore(_LOOKS)

    @property
    def account(self) -> str:
        """The Hub's account on the login nodes."""
        return self._access.login_nodes[0].account

    async def run(self, words: Sequence[str], stdin: bytes = b"") -> Answer:
        """Ask a verb, on the first node that lets us in; its answer.

        What has been asked is asked again elsewhere after a loss, but for a submit: that is SchedulerUnreachable, with
        the time until which it may still come to something. Raises SchedulerError.
        """
        if words[0] == helper.LOOK:
            # In this order: a look that waits for its turn holds no session.
            async with self._looks, self._of_users:
                return await self._run(words, stdin)
        async with self._of_users if words[0] in (*helper.VERBS, helper.ESTIMATE) else self._of_hub:
            return await self._run(words, stdin)

    async def _run(self, words: Sequence[str], stdin: bytes) -> Answer:
        once = words[0] == "submit"
        failed: list[SchedulerError] = []
        for node in self._in_turn():
            try:
                # This far nothing can have been done.
                await node.open(sure=once)
            except SchedulerError as error:
                failed.append(error)
                continue
            try:
                return await node.ask(words, stdin)
            except _Lost as error:
                if once:
                    raise
                failed.append(error)
        # Where one may come back, waiting helps.
        raise next((one for one in failed if isinstance(one, SchedulerUnreachable)), failed[0])

    def _in_turn(self) -> Iterator["_Node"]:
        """Those that were not found wanting a moment ago, or all if there is none; one that we are on comes first.

        So a node that has died costs nobody its time-out again and again while another one answers.
        """
        rested = [node for node in self._nodes if node.is_rested]
        yield from sorted(rested or self._nodes, key=lambda node: not node.is_open)


class _Lost(SchedulerUnreachable):
    """The connection was lost after something had been asked: whether it was done is not known."""


class _Node:
    """One login node, and the connection that all sessions there share."""

    def __init__(self, address: LoginNode, access: Access, socket: Path):
        self._address, self._access, self._socket = address, access, socket
        self._lock = asyncio.Lock()
        self.is_open = False
        """Whether the last that was heard of it was an answer."""
        self._rests_until, self._pause_s = 0.0, 0.0
        self._refusal: SchedulerError | None = None

    @property
    def is_rested(self) -> bool:
        """Whether it may be tried, or tried again."""
        return time.monotonic() >= self._rests_until

    async def open(self, *, sure: bool) -> None:
        """Have a connection that leads to the helper; `sure` looks whether the one that there was still lives.

        Raises a SchedulerError; then nothing was asked.
        """
        async with self._lock:
            if self.is_open and (not sure or await self._is_alive()):
                return
            if self._refusal is not None and not self.is_rested:
                raise self._refusal
            self.is_open = False
            try:
                await self._greet()
            except SchedulerError as error:
                self._refusal = error
                self._pause_s = min(max(2 * self._pause_s, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
                self._rests_until = time.monotonic() + self._pause_s
                raise
            self.is_open, self._refusal, self._pause_s = True, None, 0.0

    async def ask(self, words: Sequence[str], stdin: bytes) -> Answer:
        """Ask a verb over the connection; raises _Lost where it is lost before the answer is whole."""
        line, limit_s = (
            " ".join([words[0], *(quote(word, safe="") for word in words[1:])]),
            self._access.command_timeout_s,
        )
        try:
            answer = await self._ssh([line], stdin, limit_s)
        except GivenUp as error:
            raise self._unknown(SchedulerUnreachable, sentence_of(error), line) from error
        lost = answer.code == _SSH_FAILED and not _HELPERS_LAST_WORD.search(answer.err)
        if lost or answer.code < 0:
            self.is_open = False
            raise self._unknown(_Lost, f"The connection to {self._address} was lost.", line, answer.message)
        return answer

    def _unknown(
        self, kind: type[SchedulerUnreachable], message: str, line: str, words: str = ""
    ) -> SchedulerUnreachable:
        """That it is not known whether something was done: the helper's own limit ends it, if nothing else does."""
        error = kind(message, f"ssh {self._address} {line}", words)
        error.settled_at = time.time() + self._access.command_timeout_s + _LATE_S
        return error

    async def _is_alive(self) -> bool:
        """Whether the shared connection is there. A node that is off may not have been missed yet."""
        try:
            return (await self._ssh(["-O", "check"], b"", _CONNECT_S, before=True)).code == 0
        except GivenUp:
            return False

    async def _greet(self) -> None:
        """Open the connection by a session that does nothing, and see that the key leads to the helper."""
        line = f"ssh {self._address} {helper.HELLO}"
        try:
            answer = await self._ssh([helper.HELLO], b"", 2 * _CONNECT_S)
        except GivenUp as error:
            raise SchedulerUnreachable(_("{host} did not answer.", host=self._address), line, str(error)) from error
        if answer.code == 0 and answer.out.strip() == helper.GREETING:
            return
        if answer.code == _SSH_FAILED:
            raise self._no_connection(line, answer)
        raise SchedulerNotSetUp(
            _(
                "The Hub's SSH key does not lead to its helper on {host}, or to that of another version.",
                host=self._address,
            ),
            line,
            answer.message,
            f"install what `hpcspawner helper SITE.toml` prints at {self._access.helper} there, and what "
            f"`hpcspawner authorized-key` prints in the authorized_keys of {self._address.account}, whose shell must "
            "be able to run a command, such as /bin/sh",
            _ENTRY,
        )

    def _no_connection(self, line: str, answer: Answer) -> SchedulerError:
        where = self._address
        if _UNKNOWN_HOST_KEY.search(answer.err):
            cure = (
                f"ask the administrators of {where.host} for its host key and put it into "
                f"{self._access.ssh_known_hosts}; if they have not changed it, somebody else answers in its place"
            )
            return SchedulerNotSetUp(
                _("{host} did not show the host key that the Hub knows.", host=where),
                line,
                answer.message,
                cure,
                _ENTRY,
            )
        if _KEY_REFUSED.search(answer.err):
            cure = (
                f"put what `hpcspawner authorized-key SITE.toml --key={self._access.ssh_key}.pub --group=GROUP` prints "
                f"into the authorized_keys of {where.account} there; {self._access.ssh_key} must belong to the Hub's "
                "account, with mode 0600 and without a passphrase"
            )
            refused = _("{host} does not accept the Hub's SSH key.", host=where)
            return SchedulerNotSetUp(refused, line, answer.message, cure, _ENTRY)
        return SchedulerUnreachable(_("The Hub can't reach {host}.", host=where), line, answer.message)

    async def _ssh(self, words: Sequence[str], stdin: bytes, limit_s: float, *, before: bool = False) -> Answer:
        """OpenSSH's client with `words` behind the node's name, or `before` it. Raises GivenUp, SchedulerNotSetUp."""
        argv = [*self._argv(), *(words if before else ()), "--", self._address.host, *(() if before else words)]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
        try:
            # Its end shows the helper that the Hub has gone.
            return await run(Command(argv, stdin, watched=True), environment, limit_s)
        except OSError as error:
            raise SchedulerNotSetUp(
                _("OpenSSH's client can't be started on the Hub's machine: {why}.", why=error.strerror),
                argv[0],
                str(error),
                "install OpenSSH's client there (Debian: openssh-client)",
                _ENTRY,
            ) from error

    def _argv(self) -> list[str]:
        """ssh and its options: no file of the user's or the machine's, no question, no other key, host keys checked."""
        options = {
            "BatchMode": "yes",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "PreferredAuthentications": "publickey",
            "StrictHostKeyChecking": "yes",
            "UserKnownHostsFile": str(self._access.ssh_known_hosts),
            "GlobalKnownHostsFile": "/dev/null",
            "UpdateHostKeys": "no",
            "ClearAllForwardings": "yes",
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "LogLevel": "ERROR",
            "ConnectTimeout": str(_CONNECT_S),
            "ConnectionAttempts": "1",
            "ServerAliveInterval": str(_ALIVE_EVERY_S),
            "ServerAliveCountMax": str(_ALIVE_TIMES),
            "ControlMaster": "auto",
            "ControlPath": str(self._socket),
            "ControlPersist": str(_KEPT_S),
        }
        pairs = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        where = ["-l", self._address.account, "-p", str(self._address.port), "-i", str(self._access.ssh_key)]
        return ["ssh", "-F", "none", "-T", *pairs, *where]
