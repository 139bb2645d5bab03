"""What we take from the parent class and what must never run: one place for each release of batchspawner."""

from typing import Any

from batchspawner import BatchSpawnerBase
from jupyterhub import apihandlers

OVERRIDES = {
    "start": "submits through our client and waits for the launcher's report; two clocks instead of one",
    "stop": "never raises; confirms by the listing; what could not be cancelled is tried again",
    "poll": "reads the shared listing; an error of the scheduler is no end; never raises",
    "progress": "tells what changes, when it changes",
    "options_from_query": "a link fills the form and starts nothing",
    "run_auth_state_hook": "a pause in the midst of JupyterHub's start, which is one long step otherwise",
    "run_post_stop_hook": "the same for its stop",
    "start_polling": "the regular look also sees that a job has moved; the Hub's check at its start is over",
    "get_state": "keeps the ledger's job, which is the one that counts as long as it is there",
    "load_state": "finds the job in the ledger",
    "clear_state": "lets go of the job, which the ledger keeps",
    "create_certs": "a server's key is made on its node; see nodes/certificates.py",
    "move_certs": "there is nothing to move",
    "get_env": "nothing of the Hub's own environment is for a compute node",
    "state_ispending": "the parent reads raw text here; ours has values",
    "state_isrunning": "as state_ispending",
    "state_isunknown": "as state_ispending",
    "state_gethost": "as state_ispending",
    "submit_batch_script": "would run the parent's shell command",
    "query_job_status": "would run the parent's shell command",
    "cancel_batch_job": "would run the parent's shell command",
    "run_command": "would run a shell line",
    "get_req_subvars": "evaluates the user database in every poll",
}
"""Every method of the parent that we replace, and why; a test keeps it complete."""


def remove_its_endpoint() -> None:
    """Take away the endpoint that importing batchspawner adds, which takes more than a port from a job.

    Ours is `nodes/endpoints.py`; `hub/startup_checks.py` proves at start-up that the other one is gone. Not at import:
    JupyterHub imports every spawner that is installed, and a Hub that runs with batchspawner needs it.
    """
    apihandlers.default_handlers[:] = [
        entry for entry in apihandlers.default_handlers if not entry[1].__module__.startswith("batchspawner")
    ]


class Parent(BatchSpawnerBase):  # type: ignore[misc]
    """batchspawner's spawner without its shell commands."""

    def state_ispending(self) -> bool:
        """Not used: states are values here."""
        raise _never_used("state_ispending")

    def state_isrunning(self) -> bool:
        """Not used: states are values here."""
        raise _never_used("state_isrunning")

    def state_isunknown(self) -> bool:
        """Not used: states are values here."""
        raise _never_used("state_isunknown")

    def state_gethost(self) -> str:
        """Not used: states are values here."""
        raise _never_used("state_gethost")

    async def submit_batch_script(self) -> str:
        """Not used: `schedulers/commands.py` submits."""
        raise _never_used("submit_batch_script")

    async def query_job_status(self) -> str:
        """Not used: `schedulers/queue.py` asks once for all."""
        raise _never_used("query_job_status")

    async def cancel_batch_job(self) -> None:
        """Not used: `schedulers/commands.py` cancels."""
        raise _never_used("cancel_batch_job")

    async def run_command(self, cmd: str, input: Any = None, env: Any = None) -> str:
        """Not used: `schedulers/commands.py` runs commands, without a shell."""
        raise _never_used("run_command")

    def get_req_subvars(self) -> dict[str, Any]:
        """Not used: a script comes from a judged request, not from traits."""
        raise _never_used("get_req_subvars")


def _never_used(name: str) -> RuntimeError:
    return RuntimeError(f"HPCSpawner does not use {name}() of its parent class")
