"""The gateway to the scheduler's commands, with executables that stand in for them and misbehave."""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import pwd
import resource
import shlex
import shutil
import signal
import sys
import time
import tracemalloc
from pathlib import Path

import pytest
from material import NASTY

from hpcspawner.errors import SchedulerError, SchedulerNotSetUp, SchedulerRejected, SchedulerUnreachable
from hpcspawner.schedulers import commands as client_module
from hpcspawner.schedulers import process as process_module
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.local import Local
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.schedulers.torque import Torque
from hpcspawner.site.profile import Access

ME = pwd.getpwuid(os.geteuid()).pw_name
OTHER = "alice" if ME != "alice" else "bob"
RECORDED = Path(__file__).parents[1] / "recorded"
BIN = Path(__file__).parent / "bin"

# Writes down, beside itself, how it was called. Python and not bash, which adds to its environment.
RECORDS = f"""\
#!{sys.executable} -IS
import hashlib, json, os, sys
stdin = sys.stdin.buffer.read()
call = {{
    "argv": sys.argv,
    "environment": open("/proc/self/environ").read().split(chr(0))[:-1],
    "cwd": os.getcwd(),
    "stdin": hashlib.sha256(stdin).hexdigest(),
    "length": len(stdin),
}}
with open(sys.argv[0] + ".calls", "a") as file:
    file.write(json.dumps(call) + chr(10))
print(12)
"""
# Notes its call and becomes the command that it was given, as sudo does.
BECOMES = """\
#!/bin/bash
printf '%s\\0' "$@" >"$0.argv"
while [ $# -gt 0 ] && [ "$1" != -- ]; do shift; done
shift
exec "$@"
"""


def job(script, *options):
    """What is handed to the scheduler."""
    return Submission(options, script)


class Desk:
    """A folder of executables and a client that finds its commands there."""

    def __init__(self, folder):
        self.folder = folder / "bin"
        self.folder.mkdir()

    def program(self, name, text):
        """An executable; a text without a first line of its own is bash."""
        path = self.folder / name
        path.write_text(
            text if text.startswith("#!") else f"#!/bin/bash\nPATH=/usr/bin:/bin\n{text}\n", encoding="utf-8"
        )
        path.chmod(0o755)
        return path

    def client(self, scheduler=None, **access):
        scheduler = scheduler or Slurm()
        # Nothing but this folder: a machine may have the real commands.
        given = {"type": scheduler.name, "path": (str(self.folder),), "command_timeout_s": 10}
        return Client(scheduler, Access(**given | access), logging.getLogger("test"))

    def calls(self, name):
        file = self.folder / f"{name}.calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def text(self, name):
        return (self.folder / name).read_text()


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def eventually(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.02)


# --- what reaches a program


async def test_the_argv_arrives_word_by_word(desk):
    desk.program("sbatch", RECORDS)
    submitted = job("#!/bin/bash\n", ("nodes", "1"), ("exclusive", ""))
    assert await desk.client().submit(ME, submitted) == "12"
    (call,) = desk.calls("sbatch")
    assert call["argv"] == [str(desk.folder / "sbatch"), *Slurm.submit_command[1:], "--nodes=1", "--exclusive"]


@pytest.mark.parametrize("word", NASTY)
async def test_a_word_of_the_prefix_arrives_as_it_is(desk, word):
    desk.program("sbatch", RECORDS)
    desk.program("become", BECOMES)
    client = desk.client(command_prefix=("become", word, "{user}", "as {user}!", "--"))
    await client.submit(OTHER, job("x"))
    argv = desk.text("become.argv").split("\0")[:-1]
    assert argv == [word, OTHER, f"as {OTHER}!", "--", str(desk.folder / "sbatch"), *Slurm.submit_command[1:]]


@pytest.mark.parametrize("name", NASTY)
async def test_a_folder_of_any_name_reaches_the_embedded_scheduler(tmp_path, name):
    client = Client(Local(tmp_path / name, 1), Access(type="local"), logging.getLogger("test"))
    assert (await client.listing()).jobs == {}
    assert (tmp_path / name / "lock").exists()


async def test_nothing_of_the_hubs_environment_arrives(desk, monkeypatch):
    monkeypatch.setenv("JUPYTERHUB_CRYPT_KEY", "a secret of the Hub")
    monkeypatch.setenv("CONFIGPROXY_AUTH_TOKEN", "another")
    monkeypatch.setenv("SBATCH_ACCOUNT", "a choice that is not the user's")
    desk.program("sbatch", RECORDS)
    await desk.client().submit(ME, job("x"))
    (call,) = desk.calls("sbatch")
    assert call["environment"] == [f"PATH={desk.folder}", "LC_ALL=C"]


async def test_a_program_runs_in_the_root_folder_and_a_session_of_its_own(desk):
    desk.program("sbatch", 'pwd >"$0.cwd"; ps -o sid= -p $$ >"$0.session"; echo $$ >"$0.pid"; echo 12')
    await desk.client().submit(ME, job("x"))
    assert desk.text("sbatch.cwd") == "/\n"
    assert desk.text("sbatch.session").strip() == desk.text("sbatch.pid").strip()
    assert desk.text("sbatch.session").strip() != str(os.getsid(0))


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("#!/bin/bash\necho 'ünï' \"çødé\"\n", id="not ascii"),
        pytest.param("x" * 1_000_000 + "\n", id="a megabyte"),
    ],
)
async def test_the_script_arrives_byte_for_byte(desk, script):
    desk.program("sbatch", RECORDS)
    await desk.client().submit(ME, job(script))
    (call,) = desk.calls("sbatch")
    assert call["length"] == len(script.encode())
    assert call["stdin"] == hashlib.sha256(script.encode()).hexdigest()


REFUSED = [
    pytest.param(job("true", ("export-file", "/home/bob/env")), "the option 'export-file' may not be given", id="name"),
    pytest.param(job("true", ("nodes", "1 --uid=0")), "the option nodes may not have the value", id="value"),
    pytest.param(job("true", ("exclusive", "user")), "the option exclusive may not have the value", id="no value"),
    pytest.param(job("#!/bin/bash\n#SBATCH --uid=0\ntrue"), "a line that a scheduler may read", id="line"),
    pytest.param(job("\n"), "the script is empty", id="nothing"),
]


@pytest.mark.parametrize("helped_by", [True, False], ids=["helper", "itself"])
@pytest.mark.parametrize(("submitted", "words"), REFUSED)
async def test_what_is_no_option_of_a_job_reaches_no_program(desk, submitted, words, helped_by):
    desk.program("sbatch", RECORDS)
    client = helped(desk) if helped_by else desk.client()
    with pytest.raises(SchedulerRejected, match=words):
        await client.submit(ME if not helped_by else OTHER, submitted)
    assert not desk.calls("sbatch")
    assert not (desk.folder / "helper.submit").exists()


async def test_what_the_site_adds_to_jobs_is_an_option_in_these_words_alone(desk):
    desk.program("sbatch", RECORDS)
    client = Client(Slurm(), desk.client().access, logging.getLogger("test"), [("mail-user", 'it\'s "me" \\ #1')])
    await client.submit(ME, job("true", ("mail-user", 'it\'s "me" \\ #1')))
    (call,) = desk.calls("sbatch")
    assert call["argv"][-1] == '--mail-user=it\'s "me" \\ #1'
    with pytest.raises(SchedulerRejected, match="mail-user"):
        await client.submit(ME, job("true", ("mail-user", "bob")))


async def test_a_program_that_does_not_read_the_script_is_heard_all_the_same(desk):
    desk.program("sbatch", "echo 'sbatch: error: Invalid account' >&2; exit 1")
    with pytest.raises(SchedulerRejected, match="Invalid account"):
        await desk.client().submit(ME, job("x" * 1_000_000))


async def test_a_submit_that_succeeds_without_reading_is_a_submit(desk):
    desk.program("sbatch", "echo 12")
    assert await desk.client().submit(ME, job("x" * 1_000_000)) == "12"


async def test_the_script_is_a_whole_file_before_the_program_starts(desk):
    """A Hub that ends in the middle leaves no half of it behind: nothing has to be fed."""
    desk.program("sbatch", 'readlink /proc/self/fd/0 >"$0.stdin"; stat -Lc %s /proc/self/fd/0 >"$0.size"; echo 12')
    await desk.client().submit(ME, job("x" * 1_000_000))
    assert "memfd:" in desk.text("sbatch.stdin")
    assert desk.text("sbatch.size") == "1000000\n"


async def test_a_command_without_input_reads_nothing_and_does_not_wait_for_it(desk):
    desk.program("scontrol", 'cat; echo "end of $#"')
    assert await desk.client().details("12") == "end of 3\n"


# --- as whom


async def test_the_prefix_makes_a_command_the_users(desk):
    desk.program("scancel", RECORDS)
    desk.program("sudo", BECOMES)
    client = desk.client(command_prefix=("sudo", "-n", "-u", "{user}", "--"))
    await client.cancel(OTHER, "12")
    assert desk.text("sudo.argv").split("\0")[:-1] == ["-n", "-u", OTHER, "--", str(desk.folder / "scancel"), "12"]


async def test_what_only_asks_is_run_by_the_hubs_own_account(desk):
    desk.program("scontrol", "echo JobId=$3")
    (desk.folder / "squeue").symlink_to(BIN / "squeue")
    (desk.folder / "jobs").write_text("")
    client = desk.client(command_prefix=("no-such-program",))
    assert await client.details("12") == "JobId=12\n"
    assert (await client.listing()).jobs == {}


async def test_sudo_is_the_prefix_unless_the_profile_says_otherwise(desk):
    desk.program("sbatch", RECORDS)
    desk.program("sudo", 'printf "%s\\0" "$@" >"$0.argv"; shift 3; exec "$@"')
    await desk.client().submit(OTHER, job("x"))
    assert desk.text("sudo.argv").split("\0")[:3] == ["-n", "-u", OTHER]


async def test_the_hubs_own_account_needs_no_prefix(desk):
    for name in ("sbatch", "scancel"):
        desk.program(name, RECORDS)
    client = desk.client(command_prefix=("no-such-program",))
    await client.submit(ME, job("x"))
    await client.cancel(ME, "12")
    assert len(desk.calls("sbatch")) == len(desk.calls("scancel")) == 1


@pytest.mark.parametrize(
    "user",
    [
        pytest.param("root;", id="a shell's end of command"),
        pytest.param("-u", id="an option"),
        pytest.param("", id="nothing"),
        pytest.param("alice\n", id="a line break behind it"),
        pytest.param("alice\0", id="a zero byte"),
        pytest.param(" alice", id="a space before it"),
        pytest.param("#0", id="sudo's way to write a number"),
        pytest.param("../alice", id="a path"),
        pytest.param("alice:x", id="what ends a name in the user database"),
        pytest.param("alice\u202e", id="an unseen mark"),
        pytest.param("{user}", id="the placeholder"),
        pytest.param("-u root", id="an option and its value"),
        pytest.param("%hpcusers", id="sudo's way to write a group"),
        pytest.param("+netgroup", id="sudo's way to write a netgroup"),
        pytest.param("!alice", id="sudo's way to write all others"),
        pytest.param("alice;id", id="a shell's words behind it"),
        pytest.param("$(id)", id="a shell's words"),
        pytest.param("a" * 257, id="too long"),
    ],
)
@pytest.mark.parametrize("verb", ["submit", "cancel"])
async def test_what_is_no_name_of_an_account_reaches_no_command(desk, verb, user):
    for name in ("become", "sbatch", "scancel", "scontrol"):
        desk.program(name, RECORDS)
    client = desk.client(command_prefix=("become", "{user}"))
    with pytest.raises(SchedulerRejected, match="No command is run for the account"):
        await getattr(client, verb)(user, "12" if verb == "cancel" else job("x"))
    assert not any(desk.folder.glob("*.calls"))


@pytest.mark.parametrize(
    "user",
    [
        *("alice", "a", "_svc", "ab12", "a.b-c_d", "a" * 32),
        *("Alice", "Ann.Doe", "2456789x", "20231234", "alice@example.org", "EXAMPLE\\alice", "a" * 40),
        *("o'brien", "ålice", "alice~1", "ann doe", "alice+hpc", "a=b,c"),
    ],
)
async def test_ordinary_names_of_accounts_are_let_in(desk, user):
    desk.program("sbatch", RECORDS)
    desk.program("become", BECOMES)
    assert await desk.client(command_prefix=("become", "{user}", "--")).submit(user, job("x")) == "12"
    assert desk.text("become.argv").split("\0")[0] == user


# --- by the helper

# Reads as much as was announced, writes it down, and then waits as it is told to.
TAKES = f"""\
#!{sys.executable} -IS
import os, select, sys
size = int(sys.stdin.buffer.raw.readline())
data = b""
while len(data) < size:
    data += os.read(0, 65536)
open(sys.argv[0] + "." + sys.argv[1], "wb").write(data)
"""


def helped(desk, does="print(12)", scheduler=None, **access):
    """A client with a helper that does this."""
    path = desk.program("helper", TAKES + does + "\n")
    (desk.folder / "env").symlink_to("/usr/bin/env")
    return desk.client(scheduler, command_prefix=("env",), helper=str(path), **access)


async def test_the_helper_is_given_all_on_standard_input(desk):
    client = helped(desk)
    assert await client.submit(OTHER, job("#!/bin/bash\nüx\n", ("nodes", "1"))) == "12"
    await client.cancel(OTHER, "4711")
    assert desk.text("helper.submit") == '[["nodes", "1"]]\n#!/bin/bash\nüx\n'
    assert desk.text("helper.cancel") == "4711"


async def test_the_helper_is_run_by_the_prefix_with_one_word(desk):
    desk.program("become", BECOMES)
    path = desk.program("helper", TAKES + "print(12)")
    client = desk.client(command_prefix=("become", "-u", "{user}", "--"), helper=str(path))
    await client.submit(OTHER, job("x"))
    assert desk.text("become.argv").split("\0")[:-1] == ["-u", OTHER, "--", str(path), "submit"]


async def test_a_listing_of_one_user_goes_by_the_helper_and_the_hubs_own_does_not(desk):
    (desk.folder / "squeue").symlink_to(BIN / "squeue")
    (desk.folder / "jobs").write_text("12|RUNNING|n1|alice|2026-11-21T05:02:49|None|tag\n")
    same = "mark = data.decode(); os.execv(os.path.dirname(sys.argv[0]) + '/squeue', ['squeue', '', '', '--format=' + "
    fields = "mark + mark.join(['%i', '%T', '%B', '%u', '%S', '%r', '%k']) + mark])"
    client = helped(desk, same + fields)
    assert (await client.listing("alice")).jobs["12"].state is JobState.RUNNING
    (desk.folder / "helper.list").unlink()
    assert (await client.listing()).jobs["12"].state is JobState.RUNNING
    assert not (desk.folder / "helper.list").exists()


async def test_a_job_that_has_ended_is_cancelled_without_an_error_by_the_helper_too(desk):
    client = helped(desk, "sys.exit('scancel: error: Kill job error on job id 12: Invalid job id specified')")
    assert await client.cancel(OTHER, "12") is None


async def test_the_helpers_input_stays_open_until_it_has_answered(desk):
    client = helped(desk, "print(12 if not select.select([0], [], [], 1)[0] else 'its input has ended')")
    assert await client.submit(OTHER, job("x")) == "12"


WAITS = "select.select([0], [], [], 60); open(sys.argv[0] + '.ended', 'w').write(repr(os.read(0, 1)))"


async def test_a_helper_that_takes_too_long_is_told_by_the_end_of_its_input(desk, monkeypatch):
    """It is another account's, and can't be killed from here."""
    ask = os.killpg

    def refuse(pid, number):
        if number:
            raise PermissionError
        ask(pid, 0)

    client = helped(desk, WAITS, command_timeout_s=1)
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "killpg", refuse)
    with pytest.raises(SchedulerUnreachable, match="did not answer within 1 s") as caught:
        await client.submit(OTHER, job("x"))
    assert not caught.value.lingering
    assert desk.text("helper.ended") == "b''"


async def test_a_helper_that_is_not_there_is_the_admins_affair(desk):
    client = helped(desk)
    (desk.folder / "helper").unlink()
    with pytest.raises(SchedulerNotSetUp, match="was not found on the Hub") as caught:
        await client.submit(OTHER, job("x"))
    assert "`hpcspawner helper`" in caught.value.cure


async def test_what_the_helper_itself_says_is_the_admins_affair(desk):
    client = helped(desk, "sys.stderr.write('hpcspawner helper: expected one argument\\n'); sys.exit(64)")
    with pytest.raises(SchedulerNotSetUp, match="can't do what it was asked") as caught:
        await client.submit(OTHER, job("x"))
    assert "`hpcspawner helper`" in caught.value.cure


async def test_a_helper_that_has_ended_its_command_knows_nothing(desk):
    does = "print('hpcspawner helper: ended: no answer in time', file=sys.stderr, flush=True); os.kill(os.getpid(), 9)"
    with pytest.raises(SchedulerUnreachable):
        await helped(desk, does).submit(OTHER, job("x"))


async def test_so_does_one_whose_end_by_a_signal_became_an_exit_code(desk):
    """As sudo-rs does it."""
    does = "print('hpcspawner helper: ended: by signal 9', file=sys.stderr, flush=True); sys.exit(137)"
    with pytest.raises(SchedulerUnreachable):
        await helped(desk, does).submit(OTHER, job("x"))


@pytest.mark.parametrize("words", ["", "Your project has expired.", "sudo: a word\n--> project: expired", "a: b"])
async def test_all_is_the_schedulers_that_the_helper_says_its_command_has_said(desk, words):
    """A site's own sbatch says anything."""
    does = (
        f"sys.stderr.write({words + chr(10)!r} + 'hpcspawner helper: the command\\'s exit code is 1\\n'); sys.exit(1)"
    )
    with pytest.raises(SchedulerRejected) as caught:
        await helped(desk, does).submit(OTHER, job("x"))
    assert str(caught.value) == (words.replace("\n", " ") or "exit code 1")


@pytest.mark.parametrize("words", ["", "Permission denied by the site's policy", "Das ist nicht erlaubt.", "x: y"])
async def test_all_else_was_said_before_the_helper_ran(desk, words):
    with pytest.raises(SchedulerNotSetUp, match="may not run the scheduler's commands") as caught:
        await helped(desk, f"sys.exit({words!r} or 1)").submit(OTHER, job("x"))
    assert "`hpcspawner sudoers" in caught.value.cure


# --- what comes back


@pytest.mark.parametrize(
    "words",
    [
        pytest.param("sbatch: error: Batch job submission failed: Invalid partition specified", id="one line"),
        pytest.param("sbatch: error: a\nsbatch: error: b % {} \\ 'c'", id="two lines with signs"),
    ],
)
async def test_a_rejection_keeps_the_schedulers_words(desk, words):
    (desk.folder / "words").write_text(words)
    desk.program("sbatch", 'cat >/dev/null; cat "$(dirname "$0")/words" >&2; exit 1')
    with pytest.raises(SchedulerRejected) as caught:
        await desk.client().submit(ME, job("#!/bin/bash\n"))
    one_line = words.replace("\n", " ")
    assert (str(caught.value), caught.value.words) == (one_line, one_line)
    assert caught.value.command == f"{desk.folder}/" + " ".join(Slurm.submit_command)


async def test_a_rejection_without_a_word_names_its_exit_code(desk):
    desk.program("sbatch", "exit 7")
    with pytest.raises(SchedulerRejected, match="exit code 7"):
        await desk.client().submit(ME, job("x"))


async def test_words_on_standard_output_are_words_too(desk):
    desk.program("sbatch", "echo 'no such queue'; exit 1")
    with pytest.raises(SchedulerRejected, match="no such queue"):
        await desk.client().submit(ME, job("x"))


@pytest.mark.parametrize(
    ("scheduler", "name", "does"),
    [
        pytest.param(
            Slurm(), "squeue", "echo 'Unable to contact slurm controller (connect failure)' >&2; exit 1", id="slurm"
        ),
        pytest.param(Torque(), "qstat", "echo 'pbs_iff: cannot connect' >&2; exit 111", id="torque"),
        pytest.param(Slurm(), "squeue", "kill -9 $$", id="killed"),
        pytest.param(Slurm(), "squeue", "kill -TERM $$", id="terminated"),
    ],
)
async def test_a_scheduler_that_does_not_answer_is_unreachable_and_not_a_refusal(desk, scheduler, name, does):
    desk.program(name, does)
    with pytest.raises(SchedulerUnreachable, match="is not answering"):
        await desk.client(scheduler).listing()


@pytest.mark.parametrize("answer", ["", "Submitted batch job 12", "12;a;b", "12\n13", "Welcome!\n12"])
async def test_a_submit_whose_answer_can_not_be_read_is_neither_a_job_nor_a_refusal(desk, answer):
    desk.program("sbatch", f"cat >/dev/null; printf '%s\\n' '{answer}'")
    with pytest.raises(SchedulerUnreachable, match="accepted the job, but its answer could not be read"):
        await desk.client().submit(ME, job("#!/bin/bash\n"))


@pytest.mark.parametrize("answer", ["", "slurm_load_jobs: nothing to see", "JOBID STATE"])
async def test_a_listing_that_can_not_be_read_is_no_listing(desk, answer):
    desk.program("squeue", f"echo '{answer}'")
    with pytest.raises(SchedulerUnreachable, match="could not be read"):
        await desk.client().listing()


async def test_output_that_is_no_text_hurts_nobody(desk):
    desk.program("scontrol", "printf 'JobId=12 Name=\\xff\\xfe\\n'")
    assert await desk.client().details("12") == "JobId=12 Name=\ufffd\ufffd\n"


async def test_details_are_cut_at_a_length_that_a_page_can_show(desk):
    desk.program("scontrol", "head -c 100000 /dev/zero | tr '\\0' x")
    assert await desk.client().details("12") == "x" * 20_000


async def test_a_listing_is_as_old_as_its_start(desk):
    (desk.folder / "squeue").symlink_to(BIN / "squeue")
    (desk.folder / "jobs").write_text("12|RUNNING|n1|alice|2026-11-21T05:02:49|None|tag\n")
    (desk.folder / "delay").write_text("0.3")
    before = time.monotonic()
    listing = await desk.client().listing()
    assert before <= listing.begun_at
    assert time.monotonic() - listing.begun_at >= 0.3, "it is as old as its end"
    assert listing.jobs["12"].state is JobState.RUNNING


async def test_cancelling_a_job_that_has_ended_is_no_error(desk):
    desk.program("scancel", "echo 'scancel: error: Kill job error on job id 12: Invalid job id specified' >&2; exit 1")
    assert await desk.client().cancel(ME, "12") is None


async def test_a_cancel_that_is_refused_is_an_error(desk):
    desk.program("scancel", "echo 'scancel: error: Kill job error: Access/permission denied' >&2; exit 1")
    with pytest.raises(SchedulerRejected, match="permission denied"):
        await desk.client().cancel(ME, "12")


@pytest.mark.parametrize(
    "call",
    [
        pytest.param(lambda client: client.cancel(ME, "12; id"), id="cancel"),
        pytest.param(lambda client: client.details("12; id"), id="details"),
    ],
)
async def test_what_is_no_job_id_raises_what_everything_else_raises(desk, call):
    for name in ("scancel", "scontrol"):
        desk.program(name, RECORDS)
    with pytest.raises(SchedulerError):
        await call(desk.client())
    assert not any(desk.folder.glob("*.calls"))


# --- how a job ended

ENDS = RECORDED / "slurm-22.05" / "ends"
RECORDED_MARK = "5f0c9a7be1d24386"


def remembers(desk, name, *, controller=True, accounting=True):
    """Stand-ins that print what the real ones printed of this job; its id."""
    forgot = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
    off = "echo 'Slurm accounting storage is disabled' >&2; exit 1"
    marked = f"mark=${{!#}}; sed s/{RECORDED_MARK}/${{mark##*|}}/g {ENDS / name}.squeue"
    desk.program("squeue", marked if controller else forgot)
    desk.program("sacct", f"cat {ENDS / name}.sacct" if accounting else off)
    return (ENDS / f"{name}.sacct").read_text().partition("|")[0]


async def test_an_end_is_told_by_both_together(desk):
    record = await desk.client().record(remembers(desk, "cancelled-by-root"))
    assert (record.cause, record.cancelled_by) == (Cause.CANCELLED, "root")
    assert record.message == "The job was cancelled by root (an administrator)."


async def test_an_account_without_a_name_is_its_number(desk, monkeypatch):
    job_id = remembers(desk, "cancelled-by-user")
    (desk.folder / "row").write_text(f"{job_id}|CANCELLED by 4123456789|0:0|n1\n")
    desk.program("sacct", 'cat "$(dirname "$0")/row"')
    assert (await desk.client().record(job_id)).cancelled_by == "uid 4123456789"


@pytest.mark.parametrize("kept", [{"accounting": False}, {"controller": False}], ids=["controller", "accounting"])
async def test_one_of_them_is_enough_and_the_log_is_told_once(desk, kept, caplog):
    job_id = remembers(desk, "timeout", **kept)
    client = desk.client()
    for _ in range(3):
        assert (await client.record(job_id)).cause is Cause.WALL_TIME
    warnings = [line for line in caplog.records if line.levelno >= logging.WARNING]
    # A controller that has forgotten an old job is nothing to tell.
    assert len(warnings) == (0 if "controller" in kept else 1)


@pytest.mark.parametrize(
    "does",
    [
        pytest.param("exit 1", id="both fail"),
        pytest.param("true", id="both are silent"),
        pytest.param("head -c 4000 /dev/urandom", id="garbage"),
        pytest.param("kill -9 $$", id="killed"),
        pytest.param("exec sleep 60", id="both hang"),
    ],
)
async def test_an_end_that_nobody_knows_is_none_and_no_error(desk, does):
    for name in ("squeue", "sacct"):
        desk.program(name, does)
    assert await desk.client(command_timeout_s=1).record("12") is None


async def test_without_the_commands_there_is_no_end_and_no_error(desk):
    assert await desk.client().record("12") is None
    assert await desk.client().record("12; id") is None


async def test_the_accounting_is_asked_again_who_cancelled(desk, monkeypatch):
    monkeypatch.setattr(client_module, "_ACCOUNTING_LAG_S", 0.05)
    job_id = remembers(desk, "cancelled-by-root")
    late = f"{job_id}|RUNNING|0:0|n1"
    desk.program("sacct", f'[ -e "$0.asked" ] && cat {ENDS}/cancelled-by-root.sacct || echo "{late}"; touch "$0.asked"')
    assert (await desk.client().record(job_id)).cancelled_by == "root"


async def test_an_end_can_be_waited_for_no_longer(desk):
    for name in ("squeue", "sacct"):
        desk.program(name, "exec sleep 60")
    task = asyncio.create_task(desk.client().record("12"))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_how_often_a_job_was_started_is_asked(desk):
    job_id = remembers(desk, "running")
    assert await desk.client().runs(job_id) == 1
    remembers(desk, "running", controller=False)
    with pytest.raises(SchedulerError):
        await desk.client().runs(job_id)
    desk.program("qstat", f"cat {RECORDED / 'torque-6.1.3' / 'qstat-x-exit-0.xml'}")
    assert await desk.client(Torque()).runs("22.vm") == 1
    with pytest.raises(SchedulerNotSetUp, match="how often"):
        await desk.client(Torque()).runs("23.vm")


async def test_who_sees_all_is_asked_and_a_failure_promises_nothing(desk):
    desk.program("scontrol", f"cat {RECORDED / 'slurm-22.05' / 'config.txt'}")
    assert await desk.client().sees_all()
    desk.program("scontrol", "exit 1")
    assert not await desk.client().sees_all()
    assert not await desk.client(Torque()).sees_all()


# --- what is not set up


async def test_a_missing_command_says_where_it_was_sought_and_how_to_cure_it(desk):
    with pytest.raises(SchedulerNotSetUp, match=r"'sbatch' was not found on the Hub") as caught:
        await desk.client().submit(ME, job("x"))
    assert str(desk.folder) in caught.value.words
    assert "add its folder to scheduler.path" in caught.value.cure
    assert caught.value.command == " ".join(Slurm.submit_command)


async def test_a_missing_prefix_is_said_by_its_name(desk):
    desk.program("sbatch", RECORDS)
    with pytest.raises(SchedulerNotSetUp, match="'become'"):
        await desk.client(command_prefix=("become", "{user}")).submit(OTHER, job("x"))


async def test_the_hubs_own_path_is_not_searched(desk, monkeypatch):
    monkeypatch.setenv("PATH", f"{desk.folder}:{os.environ['PATH']}")
    desk.program("sbatch", RECORDS)
    with pytest.raises(SchedulerNotSetUp):
        await desk.client(path=("/usr/sbin/no-such",)).submit(ME, job("x"))
    assert not desk.calls("sbatch")


async def test_a_command_that_can_not_be_started_says_so(desk):
    desk.program("sbatch", "#!/no/such/interpreter\n")
    with pytest.raises(SchedulerNotSetUp, match="can't be started") as caught:
        await desk.client().submit(ME, job("x"))
    assert caught.value.cure


async def test_a_hub_that_has_no_room_for_a_process_is_to_be_asked_again(desk):
    """Nothing is wrong with the site then, so it is no matter of its set-up."""
    desk.program("sbatch", RECORDS)
    client = desk.client()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")), hard))
    try:
        with pytest.raises(SchedulerUnreachable, match="at the moment: Too many open files"):
            await client.submit(ME, job("x"))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert await client.submit(ME, job("x")) == "12"


# What sudo 1.9.13 prints with -n and LC_ALL=C, and the words of older releases.
@pytest.mark.parametrize(
    "words",
    [
        pytest.param("sudo: a password is required", id="no rule in sudoers"),
        pytest.param(
            "sudo: a terminal is required to read the password; either use the -S option to read from standard input "
            "or configure an askpass helper",
            id="no terminal",
        ),
        pytest.param("sudo: sorry, you must have a tty to run sudo", id="requiretty"),
        pytest.param("sudo: no tty present and no askpass program specified", id="1.8"),
        pytest.param("Sorry, user hub is not allowed to execute '/usr/bin/sbatch' as alice on head.", id="other rule"),
        pytest.param("Sorry, user hub may not run sudo on head.", id="not at all"),
        pytest.param("hub is not in the sudoers file.", id="not in sudoers"),
        pytest.param("hub is not in the sudoers file.  This incident will be reported.", id="not in sudoers, 1.8"),
        pytest.param("sudo: unknown user ghost\nsudo: error initializing audit plugin sudoers_audit", id="no account"),
        pytest.param("sudo: /usr/bin/sbatch: command not found", id="no such program"),
        pytest.param(
            'sudo: The "no new privileges" flag is set, which prevents sudo from running as root.\nsudo: If sudo is '
            "running in a container, you may need to adjust the container configuration to disable the flag.",
            id="systemd's NoNewPrivileges",
        ),
        pytest.param(
            "sudo: effective uid is not 0, is /usr/bin/sudo on a file system with the 'nosuid' option set or an NFS "
            "file system without root privileges?",
            id="nosuid",
        ),
        pytest.param(
            "sudo: PAM account management error: Permission denied\nsudo: a password is required", id="FreeIPA"
        ),
        pytest.param("sudo: /usr/bin/sudo must be owned by uid 0 and have the setuid bit set", id="setuid bit"),
        pytest.param("sudo: account validation failure, is your account locked?", id="locked"),
        pytest.param('sudo: Account expired or PAM config lacks an "account" section for sudo', id="expired"),
        pytest.param("sudo: no valid sudoers sources found, quitting", id="no sudoers"),
        pytest.param("sudo: /etc/sudoers is world writable", id="world writable"),
        pytest.param("sudo: unable to open /etc/sudoers: Permission denied", id="not readable"),
        pytest.param("sudo: unable to initialize PAM: Critical error - immediate abort", id="PAM"),
        pytest.param("sudo: policy plugin failed session initialization", id="session"),
        pytest.param("sudo: you do not exist in the passwd database", id="no account of its own"),
        pytest.param("sudo: you are not permitted to use the -n option", id="-n"),
        pytest.param("sudo: some words of a release to come", id="any other"),
        pytest.param("Sorry, user hub is not allowed to run sudo on head.", id="not on this host"),
        pytest.param("sudo-rs: interactive authentication is required", id="sudo-rs"),
        pytest.param("sudo: I'm sorry hub. I'm afraid I can't do that", id="sudo-rs, no rule"),
        pytest.param("sudo-rs: user 'ghost' not found", id="sudo-rs, no account"),
    ],
)
async def test_what_sudo_says_is_for_the_admin_and_not_for_the_user(desk, words):
    (desk.folder / "words").write_text(words)
    desk.program("sbatch", RECORDS)
    desk.program("sudo", 'cat "$(dirname "$0")/words" >&2; exit 1')
    with pytest.raises(SchedulerNotSetUp, match="may not run the scheduler's commands") as caught:
        await desk.client().submit(OTHER, job("x"))
    assert caught.value.words == words.replace("\n", " ")
    assert f"`hpcspawner sudoers SITE.toml --account={ME} --group=GROUP`" in caught.value.cure


@pytest.mark.parametrize(
    "warning",
    [
        "sudo: unable to resolve host head: Name or service not known",
        "sudo: setrlimit(RLIMIT_CORE): Operation not permitted",
        "sudo: unable to send audit message: Operation not permitted",
        "sudo: ldap_sasl_bind_s(): Can't contact LDAP server",
        "sudo: preserving the entire environment is not supported, '-E' is ignored",
        "sudo: unable to mkdir /run/sudo/ts: Read-only file system",
        "/etc/sudoers.d/other:9:14: expecting '=' but found '\\n'",
    ],
)
async def test_a_warning_of_sudo_does_not_hide_what_the_scheduler_said(desk, warning):
    (desk.folder / "words").write_text(f"{warning}\nsbatch: error: Invalid account")
    desk.program("sbatch", RECORDS)
    desk.program("sudo", 'cat "$(dirname "$0")/words" >&2; exit 1')
    with pytest.raises(SchedulerRejected, match="Invalid account"):
        await desk.client().submit(OTHER, job("x"))


@pytest.mark.parametrize("words", ["become: no such project", "/opt/site/become: no such project", "no such project"])
async def test_what_a_program_of_the_sites_says_that_becomes_the_user_is_for_the_admin(desk, words):
    desk.program("sbatch", RECORDS)
    desk.program("become", f"echo '{words.replace('/opt/site/', '')}' >&2; exit 1")
    client = desk.client(command_prefix=("become", "{user}"))
    # Without a name before it, it may as well be of a site's own sbatch.
    error = SchedulerNotSetUp if ": " in words else SchedulerRejected
    with pytest.raises(error):
        await client.submit(OTHER, job("x"))


@pytest.mark.parametrize(
    ("scheduler", "name", "does", "cure"),
    [
        pytest.param(
            Slurm(),
            "sbatch",
            "echo 'sbatch: fatal: Could not establish a configuration source' >&2; exit 1",
            "SLURM_CONF",
            id="no configuration",
        ),
        pytest.param(
            Slurm(),
            "sbatch",
            "echo 'sbatch: error while loading shared libraries: libslurmfull.so: cannot open' >&2; exit 127",
            "LD_LIBRARY_PATH",
            id="no library",
        ),
        pytest.param(Slurm(), "sbatch", "exit 127", "scheduler.path", id="no program"),
        pytest.param(
            Slurm(), "sbatch", "echo 'sbatch: Permission denied' >&2; exit 126", "scheduler.path", id="not to be run"
        ),
        pytest.param(Torque(), "qsub", "echo 'qsub: no default server' >&2; exit 188", "PBS_DEFAULT", id="no server"),
        pytest.param(
            Torque(),
            "qsub",
            "echo 'qsub: submit error (Bad UID MSG=ruserok failed validating x from hub)' >&2; exit 168",
            "submit_hosts",
            id="ruserok",
        ),
    ],
)
async def test_a_command_that_is_not_set_up_is_for_the_admin_and_not_waited_for(desk, scheduler, name, does, cure):
    desk.program(name, does)
    with pytest.raises(SchedulerNotSetUp) as caught:
        await desk.client(scheduler).submit(ME, job("x"))
    assert cure in caught.value.cure


async def test_a_configuration_that_is_not_there_is_not_waited_for(desk, tmp_path):
    """Slurm's commands themselves wait a minute for it."""
    desk.program("sbatch", "sleep 30")
    variables = {"SLURM_CONF": str(tmp_path / "slurm.conf")}
    client = desk.client(variables=variables, command_timeout_s=1)
    with pytest.raises(SchedulerNotSetUp, match=r"slurm\.conf' is not there on the Hub") as caught:
        await client.submit(ME, job("x"))
    assert caught.value.cure == "correct SLURM_CONF in scheduler.variables"
    (tmp_path / "slurm.conf").touch()
    with pytest.raises(SchedulerUnreachable):
        await client.submit(ME, job("x"))


async def test_a_sites_variables_are_the_commands(desk):
    desk.program("sbatch", RECORDS)
    variables = {"SLURM_CONF": "/cm/slurm.conf", "LD_LIBRARY_PATH": "/cm/lib64", "EMPTY": ""}
    await desk.client(variables=variables).submit(ME, job("x"))
    (call,) = desk.calls("sbatch")
    wanted = {f"{name}={value}" for name, value in variables.items()} | {f"PATH={desk.folder}", "LC_ALL=C"}
    assert set(call["environment"]) == wanted


DROPS_VARIABLES = f"""\
#!{sys.executable} -IS
import os, sys
os.execve(sys.argv[1], sys.argv[1:], {{"PATH": "/usr/bin:/bin"}})
"""


async def test_a_sites_variables_reach_a_command_through_a_prefix_that_drops_them(desk):
    desk.program("sbatch", RECORDS)
    desk.program("become", DROPS_VARIABLES)
    (desk.folder / "env").symlink_to(shutil.which("env"))
    variables = {"SLURM_CONF": "/cm/slurm.conf", "LD_LIBRARY_PATH": "/cm/a folder"}
    await desk.client(variables=variables, command_prefix=("become",)).submit(OTHER, job("x"))
    (call,) = desk.calls("sbatch")
    assert {f"{name}={value}" for name, value in variables.items()} <= set(call["environment"])


# --- bounds


def pipes():
    """The pipes that this process holds."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if link.readlink().name.startswith("pipe:"):
                found.add(link.readlink().name)
    return found


LEAVES_A_CHILD = 'sleep 60 & echo $! >"$0.child"; echo $$ >"$0.pid"'


async def test_a_command_that_hangs_is_killed_with_its_children(desk):
    desk.program("squeue", f"{LEAVES_A_CHILD}; trap '' TERM; wait")
    begun = time.monotonic()
    with pytest.raises(SchedulerUnreachable, match="did not answer within 1 s"):
        await desk.client(command_timeout_s=1).listing()
    assert time.monotonic() - begun < 30
    pids = [int(desk.text(f"squeue.{name}")) for name in ("pid", "child")]
    await eventually(lambda: not any(map(is_alive, pids)))


async def test_a_child_that_holds_the_output_of_a_command_that_has_ended_is_killed(desk):
    desk.program("squeue", f"{LEAVES_A_CHILD}; exit 0")
    with pytest.raises(SchedulerUnreachable, match="did not answer within 1 s"):
        await desk.client(command_timeout_s=1).listing()
    child = int(desk.text("squeue.child"))
    try:
        await eventually(lambda: not is_alive(child))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


async def test_a_command_that_reads_nothing_and_hangs_is_killed(desk):
    desk.program("sbatch", f"{LEAVES_A_CHILD}; wait")
    with pytest.raises(SchedulerUnreachable, match="did not answer"):
        await desk.client(command_timeout_s=1).submit(ME, job("x" * 1_000_000))
    await eventually(lambda: not is_alive(int(desk.text("sbatch.pid"))))


@pytest.mark.parametrize("stream", ["1", "2"], ids=["standard output", "standard error"])
async def test_an_answer_without_an_end_is_refused_and_its_writer_killed(desk, stream):
    desk.program("squeue", f'echo $$ >"$0.pid"; exec yes "{"x" * 4000}" >&{stream}')
    with pytest.raises(SchedulerUnreachable, match="longer than 67108864 bytes"):
        await desk.client().listing()
    await eventually(lambda: not is_alive(int(desk.text("squeue.pid"))))


async def test_a_command_that_was_killed_may_not_linger(desk):
    desk.program("sbatch", f"{LEAVES_A_CHILD}; wait")
    with pytest.raises(SchedulerUnreachable) as caught:
        await desk.client(command_timeout_s=1).submit(ME, job("x"))
    assert not caught.value.lingering
    assert not any(is_alive(int(desk.text(f"sbatch.{name}"))) for name in ("pid", "child"))


async def test_a_child_in_a_session_of_its_own_is_killed_too(desk):
    """As sudo starts one where its rules say `use_pty`."""
    desk.program("sbatch", 'setsid bash -c "echo \\$\\$ >$0.child; exec sleep 60 >/dev/null 2>&1" & wait')
    with pytest.raises(SchedulerUnreachable) as caught:
        await desk.client(command_timeout_s=1).submit(ME, job("x"))
    assert not caught.value.lingering
    assert not is_alive(int(desk.text("sbatch.child")))


async def test_whoever_still_holds_the_output_may_still_act_and_that_is_said(desk):
    desk.program("sbatch", "(setsid sleep 40 &); exec sleep 60")
    begun = time.monotonic()
    with pytest.raises(SchedulerUnreachable) as caught:
        await desk.client(command_timeout_s=1).submit(ME, job("x"))
    assert caught.value.lingering
    assert 2.5 < time.monotonic() - begun < 30


async def test_a_command_that_can_not_be_killed_may_still_act_and_that_is_said(desk, monkeypatch):
    """Root's, where the Hub is not root: the kill is refused."""
    desk.program("sbatch", 'echo $$ >"$0.pid"; exec sleep 5 >/dev/null 2>&1')

    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "killpg", refuse)
    monkeypatch.setattr(os, "kill", refuse)
    with pytest.raises(SchedulerUnreachable) as caught:
        await desk.client(command_timeout_s=1).submit(ME, job("x"))
    monkeypatch.undo()
    assert caught.value.lingering
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(desk.text("sbatch.pid")), signal.SIGKILL)


async def test_a_refusal_leaves_nothing_that_lingers(desk):
    desk.program("sbatch", "echo 'Invalid account' >&2; exit 1")
    with pytest.raises(SchedulerRejected) as caught:
        await desk.client().submit(ME, job("x"))
    assert not caught.value.lingering


async def test_a_caller_that_gives_up_takes_its_command_along(desk):
    desk.program("squeue", f"{LEAVES_A_CHILD}; wait")
    task = asyncio.create_task(desk.client().listing())
    await eventually((desk.folder / "squeue.pid").exists)
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pids = [int(desk.text(f"squeue.{name}")) for name in ("pid", "child")]
    await eventually(lambda: not any(map(is_alive, pids)))


@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_that_gives_up_at_any_step_of_a_start_is_let_go_at_once(desk, steps):
    """Also when every task is cancelled, as JupyterHub does when it ends."""
    desk.program("squeue", 'echo $$ >"$0.pid"; exec sleep 60')
    before, us = pipes(), asyncio.current_task()
    task = asyncio.create_task(desk.client().listing())
    for _ in range(steps):
        await asyncio.sleep(0)
    for other in asyncio.all_tasks() - {us}:
        other.cancel()
    done, _ = await asyncio.wait({task}, timeout=30)
    assert done
    assert task.cancelled()
    await eventually(lambda: pipes() <= before)
    # It may have been killed before it could write anything down.
    if (desk.folder / "squeue.pid").exists() and desk.text("squeue.pid"):
        await eventually(lambda: not is_alive(int(desk.text("squeue.pid"))))


@pytest.mark.parametrize(
    "does",
    [
        pytest.param("exec yes", id="too much output"),
        pytest.param("setsid sleep 60 & exit 0", id="a child that can not be killed"),
    ],
)
async def test_a_command_that_was_given_up_leaves_no_pipe_open(desk, does):
    desk.program("squeue", does)
    before = pipes()
    with pytest.raises(SchedulerUnreachable):
        await desk.client(command_timeout_s=1).listing()
    await eventually(lambda: pipes() <= before)


DRILLS = [
    pytest.param("head -c 1000000 /dev/urandom", id="garbage"),
    pytest.param("true", id="nothing"),
    pytest.param("head -c 100000000 /dev/zero", id="a hundred megabytes"),
    pytest.param('"$(dirname "$0")/whole" "$@" | head -n 1; exec sleep 60', id="a header, and then silence"),
    pytest.param('"$(dirname "$0")/whole" "$@"; echo "slurm_load_jobs error" >&2; exit 1', id="all, and a failure"),
]


@pytest.mark.parametrize("does", DRILLS)
async def test_a_listing_that_goes_wrong_is_no_listing(desk, does):
    (desk.folder / "whole").symlink_to(BIN / "squeue")
    (desk.folder / "jobs").write_text("12|RUNNING|n1|alice|2026-11-21T05:02:49|None|tag\n")
    desk.program("squeue", does)
    with pytest.raises(SchedulerError):
        await desk.client(command_timeout_s=2).listing()


async def test_an_answer_without_an_end_takes_a_bounded_amount_of_memory(desk):
    desk.program("squeue", "exec cat /dev/zero")
    tracemalloc.start()
    try:
        with pytest.raises(SchedulerUnreachable, match="longer than"):
            await desk.client().listing()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # What was read, once, and no copy of it.
    assert process_module.OUTPUT_CAP < peak < 1.2 * process_module.OUTPUT_CAP


async def test_many_commands_at_once_keep_their_answers_apart(desk):
    desk.program("scontrol", "sleep 0.1; echo JobId=$3")
    client = desk.client()
    answers = await asyncio.gather(*(client.details(str(number)) for number in range(20)))
    assert answers == [f"JobId={number}\n" for number in range(20)]


# --- forms of a command


async def test_a_torque_is_asked_for_xml(desk):
    desk.program("qstat", f'echo "$*" >>"$0.calls"; cat {RECORDED}/torque-6.1.3/qstat-x.xml')
    client = desk.client(Torque())
    jobs = (await client.listing()).jobs
    assert any(status.state is JobState.RUNNING for status in jobs.values())
    assert desk.text("qstat.calls").splitlines() == ["-x"]


async def test_a_failure_that_is_no_misunderstanding_tries_no_other_form(desk):
    desk.program("qstat", 'echo "$*" >>"$0.calls"; echo "cannot connect to server" >&2; exit 111')
    with pytest.raises(SchedulerUnreachable):
        await desk.client(Torque()).listing()
    assert desk.text("qstat.calls").splitlines() == ["-x"]


@pytest.mark.parametrize(
    ("name", "words", "ask"),
    [
        pytest.param("qsub", "qsub-stdin.err", lambda client: client.submit(ME, job("x")), id="a submit"),
        pytest.param("qstat", "qstat-x.err", lambda client: client.listing(), id="the listing"),
        pytest.param("qstat", "qstat-x.err", lambda client: client.listing(ME), id="a user's listing"),
        pytest.param("qstat", "qstat-x.err", lambda client: client.runs("12"), id="how often it was started"),
    ],
)
async def test_slurms_commands_of_torques_names_are_refused_at_once(desk, name, words, ask):
    (desk.folder / "words").write_text((RECORDED / "slurm-torque-22.05" / words).read_text())
    desk.program(name, 'echo "$*" >>"$0.calls"; cat "$(dirname "$0")/words" >&2; exit 2')
    with pytest.raises(SchedulerNotSetUp, match="not those of the scheduler in the profile, torque") as caught:
        await ask(desk.client(Torque()))
    assert 'type = "slurm"' in caught.value.cure
    assert len(desk.text(f"{name}.calls").splitlines()) == 1


async def test_a_failure_without_a_word_is_no_listing(desk):
    desk.program("qstat", "exit 153")
    with pytest.raises(SchedulerRejected, match="exit code 153"):
        await desk.client(Torque()).listing()


async def test_a_torque_without_jobs_prints_nothing(desk):
    desk.program("qstat", "exit 0")
    assert (await desk.client(Torque()).listing()).jobs == {}


async def test_text_that_looks_like_jobs_is_no_listing_of_torques(desk):
    desk.program("qstat", "printf 'Job Id: 12.head\\n    job_state = C\\n    Job_Owner = alice@head\\n'")
    with pytest.raises(SchedulerUnreachable, match="could not be read"):
        await desk.client(Torque()).listing()


# --- the scheduler's words are somebody else's text


FORGED = "no\n[I 2026-11-26 10:00:00 JupyterHub log:190] 200 GET /hub/admin\r\x1b[2Jend"


async def test_no_word_of_a_scheduler_can_forge_a_line(desk, caplog):
    desk.program("sbatch", f"printf '%b' {shlex.quote(FORGED)} >&2; exit 1")
    with pytest.raises(SchedulerRejected) as refused:
        await desk.client().submit(ME, job("x"))
    assert str(refused.value) == "no [I 2026-11-26 10:00:00 JupyterHub log:190] 200 GET /hub/admin  [2Jend"
    assert refused.value.words == str(refused.value)
    assert all(record.getMessage().isprintable() for record in caplog.records)
