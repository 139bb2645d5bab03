"""What every scheduler must do, asked through the real client and queue of whatever scheduler is at hand.

Anywhere that is the embedded one. On the head of the test cluster, with `HPC_LAB` set, it is Slurm, Torque and OpenPBS,
each by commands beside the Hub, Slurm and OpenPBS by SSH too, and Slurm by slurmrestd, for the users u001 and u002.
"""

import asyncio
import contextlib
import functools
import logging
import os
import pwd
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support import rest
from support.entrance import Entrance, ground
from support.schedulers import IN_LAB, PATHS, openpbs, torque

from hpcspawner.errors import SchedulerError, SchedulerRejected
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers import queue as queue_module
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.queue import Found, OwnedJob
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import SiteProfile
from hpcspawner.units import Walltime

LAB = bool(os.environ.get("HPC_LAB"))
KINDS = IN_LAB if LAB else ["local"]
BY_SSH, BY_API = " by ssh", " by api"
# By SSH Torque's commands go the way of OpenPBS's: one of the two shows it.
BY_SSH_TOO = [kind for kind in IN_LAB if kind != "torque"]
ROWS = (
    [*KINDS, *(f"{kind}{BY_SSH}" for kind in BY_SSH_TOO), *([f"slurm{BY_API}"] if rest.IN_LAB else [])]
    if LAB
    else KINDS
)
"""Each scheduler, and each way to it."""


def kind_of(row):
    """The scheduler of a row, whichever the way to it."""
    return row.removesuffix(BY_SSH).removesuffix(BY_API)


ME = pwd.getpwuid(os.geteuid())
USER, OTHER = (pwd.getpwnam("u001"), pwd.getpwnam("u002")) if LAB else (ME, None)

PROFILE = {
    "title": "Test cluster",
    "partitions": [
        {"name": "compute", "max_walltime": "1d", "max_cpus": 2, "max_memory": "1G", "whole_nodes": not LAB},
        {"name": "gpu-shared", "max_walltime": "1d", "gpus": {"any": 4}},
    ],
    "environments": [{"name": "plain"}],
    "defaults": {"memory": "64M", "account": "ddp363" if LAB else None},
}

# How the second of two jobs is made to wait: what the profile says of the scheduler and of the job.
WAITS = {
    "slurm": ({}, {"directives": [{"option": "hold"}]}),
    "torque": ({}, {"directives": [{"option": "h"}]}),
    "openpbs": ({}, {"directives": [{"option": "h"}]}),
    "local": ({"slots": 1}, {}),
}


# Of its own: all labs share the machine's accounts, and other tests may have theirs at the same time.
ACCOUNT, GROUP = "hpccontract", "hpccontracted"

LISTS_NO_ENDS = ("openpbs",)
"""Their listings have no job that has ended: its absence from two shows it, and the history how."""


def new_label(follows=""):
    """As the Hub makes them: a name for people, a tag that no other job has."""
    return JobLabel("hpc-test", f"hc0de{secrets.token_hex(5)}", follows)


class Site:
    """One scheduler as the Hub holds it, and the jobs that a test has submitted.

    `away` is what the profile says where the scheduler is not reached by commands beside the Hub; `entrance` lets the
    Hub in by SSH.
    """

    def __init__(self, kind, folder, waits=False, job=None, entrance=None, away=None):
        self.kind, self.folder, self.by_api = kind, folder, bool(away)
        scheduler, job = WAITS[kind] if waits else ({}, job or {})
        path = {"path": PATHS[kind]} if kind in PATHS else {}
        # The commands' zone is not the Hub's: no time may depend on it.
        zone = {"variables": {"TZ": "Pacific/Kiritimati"}}
        away = entrance.access if entrance else away or {}
        data = PROFILE | {"scheduler": {"type": kind} | zone | path | scheduler | away, "job": job}
        self.profile = SiteProfile.model_validate(data)
        if entrance:
            # Each profile has a helper of its own: the site's options are in it.
            entrance.install_for(self.profile, GROUP, listing=True)
        self.cluster = Cluster.of(self.profile, folder / "spool", logging.getLogger("test"))
        self.client, self.queue = self.cluster.client, self.cluster.queue
        self.jobs = []

    def submission(self, *lines, label=None, changes=None, **options):
        """The real options, and these lines in place of the job script."""
        account = LocalAccount(USER.pw_name, USER.pw_dir)
        request = make({"directory": str(self.folder), "walltime": "5m"} | options, self.profile, account)
        request = replace(request, resources=replace(request.resources, **(changes or {})))
        home = CallHome("https://x", "t")
        whole = submission(request, self.client.scheduler, self.profile.job, label or new_label(), home)
        return replace(whole, script="\n".join(["#!/bin/bash", *lines, ""]))

    async def submit(self, *lines, follows="", **options):
        if self.client.people:
            # As the Hub does: it learns who somebody is before it submits for them.
            await self.client.people.find(USER.pw_name)
        label = new_label(follows)
        job_id = await self.client.submit(USER.pw_name, self.submission(*lines, label=label, **options))
        self.jobs.append(OwnedJob(job_id, USER.pw_name, label.tag, time.monotonic()))
        return self.jobs[-1]

    async def cancel(self, job):
        await self.client.cancel(job.owner, job.job_id)

    async def status(self, job):
        return await self.queue.status(job, time.monotonic())

    async def reaches(self, job, *states, seconds=60):
        deadline = time.monotonic() + seconds
        while (status := await self.status(job)).state not in states:
            assert time.monotonic() < deadline, f"after {seconds} s the job is {status}; {self.queue.error}"
        return status

    async def wrote(self, name, seconds=60):
        """Until the job has written this file in the user's folder."""
        deadline = time.monotonic() + seconds
        while not (self.folder / name).exists():
            assert time.monotonic() < deadline, f"the job wrote no {name} within {seconds} s"
            await asyncio.sleep(0.05)

    async def all_reach(self, jobs, *states):
        """At once, because one listing tells of all."""
        return await asyncio.gather(*(self.reaches(job, *states) for job in jobs))

    async def end(self):
        for job in self.jobs:
            with contextlib.suppress(SchedulerError):
                await self.cancel(job)
        if self.kind not in LISTS_NO_ENDS:
            # There a job's place stays taken for seconds after its last process has gone.
            await self.all_reach(self.jobs, JobState.ENDED)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """A shorter pause between two listings, for the tests' time."""
    monkeypatch.setattr(queue_module, "_SHORTEST_GAP_S", 0.2)


@pytest.fixture
def folder(tmp_path):
    """A folder of the user's that every node sees."""
    if not LAB:
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="contract-", dir=USER.pw_dir))
    os.chown(made, USER.pw_uid, USER.pw_gid)
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def entrances():
    """Of each scheduler that is reached by SSH the login node, made when it is first asked for."""
    with contextlib.ExitStack() as stack:
        ground_of_all = functools.cache(lambda: stack.enter_context(ground(ACCOUNT, GROUP, ("u001", "u002"))))

        @functools.cache
        def entrance(kind):
            folder = ground_of_all() / kind
            folder.mkdir()
            port = 2300 + KINDS.index(kind)
            return stack.enter_context(Entrance(folder, [port], ACCOUNT, f"hpcspawner-{kind}").started())

        yield entrance


@pytest.fixture
def make_site(entrances, folder, tmp_path):
    """The scheduler of a row, by the row's way."""

    def make(row, **more):
        kind = kind_of(row)
        if row.endswith(BY_API):
            away = rest.ACCESS | {"api_key_file": str(rest.key_file(tmp_path))}
            return Site(kind, folder, away=away, **more)
        return Site(kind, folder, entrance=entrances(kind) if row != kind else None, **more)

    return make


@pytest.fixture(params=ROWS)
async def site(request, make_site):
    made = make_site(request.param)
    yield made
    await made.end()


@pytest.fixture(params=ROWS)
async def waiting_site(request, make_site):
    made = make_site(request.param, waits=True)
    yield made
    await made.end()


# --- a job's life


async def test_a_submitted_job_runs_and_can_be_cancelled(site):
    job = await site.submit("sleep 300")
    await site.reaches(job, JobState.RUNNING)
    await site.cancel(job)
    await site.reaches(job, JobState.ENDED)


async def test_a_short_job_ends_and_the_scheduler_says_so(site):
    job = await site.submit("true")
    status = await site.reaches(job, JobState.ENDED)
    # By a state of its own, so that one listing is enough; or by its absence from two.
    assert bool(status.native_state) is (site.kind not in LISTS_NO_ENDS)
    assert status.host is None


async def test_a_job_that_fails_ends_too(site):
    job = await site.submit("exit 3")
    assert bool((await site.reaches(job, JobState.ENDED)).native_state) is (site.kind not in LISTS_NO_ENDS)


async def test_owner_tag_host_and_start_agree(site):
    asked_at = time.time()
    job = await site.submit(f"cd {site.folder} && uname -n > where.new && mv where.new where", "sleep 300")
    await site.wrote("where")
    status = await site.reaches(job, JobState.RUNNING)
    # OpenPBS lists a job as running before it has noted when it began.
    for _ in range(60):
        if status.starts_at:
            break
        await asyncio.sleep(0.5)
        status = await site.status(job)
    assert (status.owner, status.tag) == (USER.pw_name, job.tag)
    assert asked_at - 1 < status.starts_at < time.time() + 1
    node = (site.folder / "where").read_text().strip()
    assert status.host == (node if LAB else "127.0.0.1")


async def test_a_job_with_another_tag_is_not_believed_to_be_ours(site):
    job = await site.submit("sleep 300")
    await site.reaches(job, JobState.RUNNING)
    stranger = replace(job, tag=new_label().tag)
    assert (await site.status(stranger)).state is JobState.UNKNOWN
    assert (await site.status(replace(job, owner="nobody"))).state is JobState.UNKNOWN


async def test_a_job_that_waits_says_so_and_can_be_cancelled(waiting_site):
    await waiting_site.submit("sleep 300")
    job = await waiting_site.submit(f"touch {waiting_site.folder}/started")
    status = await waiting_site.reaches(job, JobState.PENDING, JobState.HELD)
    assert status.host is None
    await waiting_site.cancel(job)
    await waiting_site.reaches(job, JobState.ENDED)
    assert not (waiting_site.folder / "started").exists()


async def test_what_is_asked_arrives(site):
    job = await site.submit("sleep 300", walltime="7m")
    details = await site.client.details(job.job_id)
    words = {"slurm": r"TimeLimit=00:07:00\b", "local": r'"walltime": 420\b'}
    expected = r'"time_limit": 7\b' if site.by_api else words.get(site.kind, r"walltime = 00:07:00\b")
    assert re.search(expected, details)


async def test_details_name_the_job(site):
    job = await site.submit("sleep 300")
    details = await site.client.details(job.job_id)
    assert job.job_id in details
    assert job.tag in details


async def test_how_many_times_a_job_was_started_is_told_where_the_scheduler_counts(site):
    job = await site.submit("sleep 300")
    await site.reaches(job, JobState.RUNNING)
    assert await site.client.runs(job.job_id) == 1


# --- how a job ended


async def test_the_exit_code_is_in_the_record(site):
    job = await site.submit("exit 3")
    await site.reaches(job, JobState.ENDED)
    record = await site.client.record(job.job_id)
    assert (record.cause, record.exit_code, record.signal) == (Cause.EXITED, 3, None)
    assert record.message == "The job ended with exit code 3."


async def test_a_job_that_runs_has_no_record_of_its_end(site):
    job = await site.submit("sleep 300")
    await site.reaches(job, JobState.RUNNING)
    assert await site.client.record(job.job_id) is None


async def test_an_unknown_job_has_no_record(site):
    assert await site.client.record("99999999") is None


async def test_a_job_that_was_cancelled_says_by_whom(site):
    job = await site.submit(f"touch {site.folder}/started", "sleep 300")
    # OpenPBS lists a job as running before its node has begun it, and forgets who cancels it in between.
    await site.wrote("started")
    await site.reaches(job, JobState.RUNNING)
    await site.cancel(job)
    await site.reaches(job, JobState.ENDED)
    record = await site.client.record(job.job_id)
    if site.kind in ("slurm", "openpbs"):
        assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, USER.pw_name)
        assert record.message == f"The job was cancelled by {USER.pw_name}."
    else:
        assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, "")


if LAB:
    SLURM = [row for row in ROWS if kind_of(row) == "slurm"]

    @pytest.mark.parametrize("row", SLURM)
    @pytest.mark.parametrize("waits", [False, True], ids=["running", "waiting"])
    async def test_a_job_that_an_administrator_cancelled_says_so(make_site, row, waits):
        site = make_site(row, waits=waits)
        job = await site.submit("sleep 300")
        await site.reaches(job, JobState.HELD if waits else JobState.RUNNING)
        subprocess.run(["scancel", job.job_id], check=True)
        await site.reaches(job, JobState.ENDED)
        record = await site.client.record(job.job_id)
        assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, "root")
        assert record.message == "The job was cancelled by root (an administrator)."

    @pytest.mark.parametrize("row", SLURM)
    async def test_a_job_that_took_too_much_memory_says_so(make_site, row):
        site = make_site(row)
        job = await site.submit("python3 -c 'print(len(bytearray(10**9)))'")
        await site.reaches(job, JobState.ENDED)
        assert (await site.client.record(job.job_id)).cause is Cause.OUT_OF_MEMORY


# --- one job after another


async def test_a_job_follows_one_that_ended_badly(site):
    first = await site.submit("sleep 3; exit 3")
    second = await site.submit(f"touch {site.folder}/started", follows=first.job_id)
    assert (await site.status(second)).state in (JobState.PENDING, JobState.HELD)
    await site.reaches(second, JobState.ENDED)
    assert (site.folder / "started").exists()


async def test_a_job_does_not_follow_one_that_ended_well(site):
    first = await site.submit("sleep 3")
    second = await site.submit(f"touch {site.folder}/started", follows=first.job_id)
    await site.reaches(first, JobState.ENDED)
    await site.reaches(second, JobState.ENDED)
    assert (await site.client.record(second.job_id)).cause is Cause.NOT_STARTED
    assert not (site.folder / "started").exists()


@pytest.mark.parametrize("requeue", [False, True])
async def test_only_a_job_that_may_start_again_can_be_put_back(site, requeue):
    if not LAB:
        return
    job = await site.submit("sleep 300", changes={"requeue": requeue})
    await site.reaches(job, JobState.RUNNING)
    details = await site.client.details(job.job_id)
    words = f"Requeue={requeue:d} " if site.kind == "slurm" else f"Rerunable = {requeue}\n"
    assert (f'"requeue": {requeue},'.lower() if site.by_api else words) in details


if LAB:
    # How an administrator puts a running job back; Slurm would let it wait for two minutes then.
    PUT_BACK = {"slurm": ["scontrol", "requeue"], "torque": [torque("qrerun")], "openpbs": [openpbs("qrerun")]}

    async def test_a_job_that_was_put_back_has_been_started_twice(site):
        for _ in range(3):
            job = await put_back(site)
            if job is not None:
                break
        assert job is not None, "each of three jobs failed as it was started again"
        status = await site.reaches(job, JobState.RUNNING)
        assert (status.owner, status.tag) == (USER.pw_name, job.tag)
        assert await site.client.runs(job.job_id) == 2
        assert await site.client.record(job.job_id) is None

    async def put_back(site):
        """A job that runs for the second time; None where Slurm started it too soon after its end, and it failed."""
        log = site.folder / "runs"
        log.unlink(missing_ok=True)
        job = await site.submit(f"echo run >>{log}", "sleep 300", changes={"requeue": True})
        await site.reaches(job, JobState.RUNNING)
        # A job that is put back before its script has begun may fail instead.
        while not log.exists():
            await asyncio.sleep(0.2)
        subprocess.run([*PUT_BACK[site.kind], job.job_id], check=True, cwd="/")
        deadline = time.monotonic() + 100
        while not (log.exists() and log.read_text().count("run") == 2):
            status = await site.status(job)
            assert time.monotonic() < deadline, f"not started again: {status}"
            if site.kind == "slurm" and status.state is JobState.ENDED:
                return None
            if site.kind == "slurm":
                # Heeded once the first run has ended.
                at_once = ["scontrol", "update", f"jobid={job.job_id}", "starttime=now"]
                subprocess.run(at_once, capture_output=True, check=False, cwd="/")
            await asyncio.sleep(0.5)
        return job


# --- what is not there


async def test_an_id_that_nobody_knows_is_gone_with_the_second_listing_only(site):
    # A job of the same user shows that the Hub's account sees theirs.
    await site.reaches(await site.submit("sleep 300"), JobState.RUNNING)
    unknown = OwnedJob("99999999", USER.pw_name, "h0de000000000000", time.monotonic())
    states = [(await site.status(unknown)).state for _ in range(3)]
    assert states == [JobState.UNKNOWN, JobState.ENDED, JobState.ENDED]


async def test_a_job_that_has_ended_may_be_cancelled_again(site):
    job = await site.submit("true")
    await site.reaches(job, JobState.ENDED)
    await site.cancel(job)
    await site.cancel(job)


async def test_an_id_that_nobody_knows_may_be_cancelled(site):
    await site.client.cancel(USER.pw_name, "99999999")


async def test_a_job_is_found_by_its_tag(site):
    """For a submit whose answer was lost."""
    job = await site.submit("sleep 300")
    assert await site.queue.search(USER.pw_name, job.tag, time.monotonic()) == queue_module.Found(
        (job.job_id,), proven=True
    )
    assert (await site.queue.search(USER.pw_name, new_label().tag, time.monotonic())).job_ids == ()
    assert (await site.queue.search("nobody", job.tag, time.monotonic())).job_ids == ()


async def test_absence_is_proven_where_the_scheduler_hides_nothing(site):
    owner = "nobody" if site.kind in ("slurm", "openpbs") and not site.by_api else USER.pw_name
    # Their configuration promises it for all; elsewhere, and where slurmrestd does not show the configuration, a job of
    # the same owner has to be seen.
    job = await site.submit("sleep 300")
    await site.reaches(job, JobState.RUNNING)
    tag = new_label().tag
    assert await site.queue.search(owner, tag, time.monotonic()) == Found((), proven=True)
    assert await site.queue.search(USER.pw_name, job.tag, 0.0) == queue_module.Found((job.job_id,), proven=True)


async def test_jobs_that_are_ours_are_listed_until_they_end(site):
    job = await site.submit("sleep 300")
    await site.reaches(job, JobState.RUNNING)
    assert set(await site.queue.ours(lambda owner, tag: tag == job.tag, time.monotonic())) == {job.job_id}
    await site.cancel(job)
    await site.reaches(job, JobState.ENDED)
    assert await site.queue.ours(lambda owner, tag: tag == job.tag, time.monotonic()) == {}


# --- what is refused

REFUSED = {
    "slurm": [
        pytest.param({"partition": "no-such"}, r"invalid partition", id="slurm-partition"),
        pytest.param({"account": "no-such"}, r"Invalid account", id="slurm-account"),
        pytest.param({"gpus": 5, "partition": "gpu-shared"}, r"node configuration is not available", id="slurm-gpus"),
        pytest.param({"qos": "no-such"}, r"Invalid qos", id="slurm-qos"),
    ],
    "torque": [
        pytest.param({"partition": "no-such"}, r"Unknown queue", id="torque-queue"),
        pytest.param({"gpus": 5, "partition": "gpu-shared"}, r"Job exceeds queue resource limits", id="torque-gpus"),
        pytest.param({"features": ("no-such",)}, r"cannot locate feasible nodes", id="torque-feature"),
        pytest.param({"walltime": Walltime(5 * 86400)}, r"walltime", id="torque-walltime"),
    ],
    "openpbs": [
        pytest.param({"partition": "no-such"}, r"Unknown queue", id="openpbs-queue"),
        pytest.param({"features": ("no-such",)}, r"Unknown resource: no-such", id="openpbs-feature"),
        pytest.param({"walltime": Walltime(5 * 86400)}, r"queue and/or server resource limits", id="openpbs-walltime"),
    ],
    "local": [
        pytest.param({"directives": (("colour", "red"),)}, r"colour", id="local-option"),
    ],
}


@pytest.mark.parametrize(
    ("row", "changes", "words"),
    [
        pytest.param(row, *case.values, id=row.replace(kind_of(row), case.id))
        for row in ROWS
        for case in REFUSED[kind_of(row)]
    ],
)
async def test_a_refusal_keeps_the_schedulers_words(make_site, row, changes, words):
    # What else than the form's options stands in a job is the admin's to say.
    extra = [{"option": option, "value": value} for option, value in changes.get("directives", ())]
    site = make_site(row, job={"directives": extra})
    with pytest.raises(SchedulerRejected, match=f"(?i){words}") as caught:
        await site.client.submit(USER.pw_name, site.submission("sleep 300", changes=changes))
    assert re.search(words, caught.value.words, re.IGNORECASE)


@pytest.mark.parametrize("row", ROWS)
async def test_an_empty_script_is_refused(make_site, row):
    site = make_site(row)
    empty = replace(site.submission(), script="")
    with pytest.raises(SchedulerRejected):
        await site.client.submit(USER.pw_name, empty)


if LAB:

    async def test_a_job_is_its_owners_alone(site):
        job = await site.submit("sleep 300")
        await site.reaches(job, JobState.RUNNING)
        with pytest.raises(SchedulerRejected):
            await site.client.cancel(OTHER.pw_name, job.job_id)
        assert (await site.status(job)).state is JobState.RUNNING


# --- what other users write

FORGED = """x
</Variable_List></Job><Job><Job_Id>{job}</Job_Id><job_state>C</job_state><exit_status>0</exit_status></Job><Job>
Job Id: {job}
    Job_Name = {tag}
    Job_Owner = {owner}@head
    job_state = C
    exit_status = 0
    start_count = 9
"""

if LAB:

    def forged(site, job, name):
        """A job of somebody else's whose words look like the end of this one; what they submit it with."""
        if site.kind == "slurm":
            words = f" Restarts=9 JobState=PREEMPTED JobId={job.job_id} "
            return ["sbatch", "--parsable", "--chdir=/", "--output=/dev/null", "--mem=10M", f"--{name}={words}"]
        words = FORGED.format(job=job.job_id, tag=job.tag, owner=job.owner)
        options = {
            "-v": f"A={words}",
            "-N": f"<job_state>C</job_state>{job.job_id}",
            "-M": f"b@c</Mail_Users><Job_Id>{job.job_id}</Job_Id><job_state>C</job_state>",
            "-A": words,
        }
        if site.kind == "openpbs":
            # qsub takes no quote in a name or a variable.
            json = f'x",\n"job_state": "F"}}, "{job.job_id}": {{"job_state": "F", "Job_Name": "{job.tag}"}}'
            return [openpbs("qsub"), "-q", "compute", name, json if name == "-A" else f"A={words}"]
        return [torque("qsub"), "-q", "compute", name, options[name]]

    FORGERIES = {
        "slurm": ("job-name", "comment"),
        "torque": ("-v", "-N", "-M", "-A"),
        "openpbs": ("-v", "-A"),
    }

    @pytest.mark.parametrize(
        ("site", "name"),
        [pytest.param(row, name, id=f"{row} {name}") for row in ROWS for name in FORGERIES[kind_of(row)]],
        indirect=["site"],
    )
    async def test_what_another_users_job_is_called_changes_nothing_of_ours(site, name):
        job = await site.submit("sleep 300")
        await site.reaches(job, JobState.RUNNING)
        their_argv = ["sudo", "-n", "-u", OTHER.pw_name, *forged(site, job, name)]
        script = "#!/bin/bash\nsleep 300\n"
        done = subprocess.run(their_argv, input=script, capture_output=True, text=True, check=True, cwd="/")
        theirs = done.stdout.strip()
        try:
            deadline = time.monotonic() + 60
            while (jobs := (await site.client.listing()).jobs)[theirs].state is not JobState.RUNNING:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.2)
            assert (jobs[job.job_id].state, jobs[job.job_id].owner) == (JobState.RUNNING, USER.pw_name)
            assert (jobs[theirs].owner, jobs[theirs].native_state[0]) == (OTHER.pw_name, "R")
            # It stands in what people are shown.
            assert ("Restarts=9" if site.kind == "slurm" else job.job_id) in await site.client.details(theirs)
            # Of its own job it changes nothing either, but what it is called.
            for job_id in (job.job_id, theirs):
                assert await site.client.runs(job_id) == 1
                assert await site.client.record(job_id) is None
        finally:
            await site.client.cancel(OTHER.pw_name, theirs)


# --- names and sizes


async def test_a_long_script_arrives_whole(site):
    filler = "# " + "x" * 998
    lines = [filler] * 1000
    job = await site.submit(*lines, f"echo whole > {site.folder}/arrived", "sleep 300")
    await site.reaches(job, JobState.RUNNING)
    deadline = time.monotonic() + 10
    while not (site.folder / "arrived").exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_many_submits_at_once_give_each_its_own_job(site):
    jobs = await asyncio.gather(*(site.submit("sleep 300") for _ in range(8)))
    assert len({job.job_id for job in jobs}) == 8
    found = await asyncio.gather(*(site.status(job) for job in jobs))
    assert [status.tag for status in found] == [job.tag for job in jobs]
    for job in jobs:
        await site.cancel(job)
    await site.all_reach(jobs, JobState.ENDED)
