"""A scheduler of another package: jobs are processes here. The module is also the command.

toy_scheduler.py submit -tag TAG < SCRIPT | list | cancel ID
"""

import contextlib
import getpass
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

FOLDER = Path(os.environ.get("TOY_JOBS", "/nowhere"))


def submit(option, tag):
    job_id = str(1 + max((int(path.name) for path in FOLDER.iterdir()), default=0))
    folder = FOLDER / job_id
    folder.mkdir()
    (folder / "script").write_text(sys.stdin.read())
    process = subprocess.Popen(
        ["bash", str(folder / "script")],
        **dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL),
        env={**os.environ, "TOY_ID": job_id},
        start_new_session=True,
    )
    (folder / "job").write_text(json.dumps({"pid": process.pid, "tag": tag, "owner": getpass.getuser()}))
    print(job_id)


def show():
    jobs = {path.parent.name: json.loads(path.read_text()) for path in FOLDER.glob("*/job")}
    for job in jobs.values():
        job["runs"] = Path(f"/proc/{job['pid']}").exists()
    print(json.dumps(jobs))


def cancel(job_id):
    with contextlib.suppress(ProcessLookupError):
        os.killpg(json.loads((FOLDER / job_id / "job").read_text())["pid"], signal.SIGTERM)


if __name__ == "__main__":
    {"submit": submit, "list": show, "cancel": cancel}[sys.argv[1]](*sys.argv[2:])
else:
    from hpcspawner.programs.helper import GIVEN
    from hpcspawner.schedulers.base import Scheduler
    from hpcspawner.schedulers.state import JobState, JobStatus
    from hpcspawner.site.scheduler_types import ProfileRules

    class Toy(Scheduler):
        """What must be there, and no more."""

        name, title = "toy", "the toy"
        rules = ProfileRules(on_hub=True)
        listen_ip = "127.0.0.1"
        job_id_pattern, job_variable = "[0-9]{1,9}", "TOY_ID"
        submit_command = (sys.executable, __file__, "submit")
        cancel_words = (sys.executable, __file__, "cancel", GIVEN)
        option_patterns = {"tag": "[a-z0-9]{4,64}"}

        def options(self, resources, label):
            return [("tag", label.tag), *resources.directives]

        def parse_submit(self, out):
            return self.valid_id(out.strip())

        def query_command(self, mark):
            return [sys.executable, __file__, "list"]

        def parse_query(self, out, mark):
            return {job_id: _status(job) for job_id, job in json.loads(out).items()}

        def details_command(self, job_id):
            return ["cat", f"{FOLDER}/{self.valid_id(job_id)}/job"]

        def unreachable(self, answer):
            return True

        def already_gone(self, answer):
            return False

    def _status(job):
        state = JobState.RUNNING if job["runs"] else JobState.ENDED
        host, word = ("127.0.0.1", "runs") if job["runs"] else (None, "over")
        return JobStatus(state, host=host, owner=job["owner"], tag=job["tag"], native_state=word)
