"""The program that sudo lets the Hub run as its users, as a process of its own and as an ordinary user."""

import ast
import contextlib
import functools
import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.schedulers import EVERY, ON_CLUSTERS

from hpcspawner.programs import helper
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers import sudo
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.torque import Torque
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import Access, Directive, Job, SiteProfile, find_shipped, load

# It acts for no root, and the suites run as root on the test machines.
USER = "daemon" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
PYTHON = "/usr/bin/python3"

# Writes down, beside itself, how it was called.
RECORDS = f"""\
#!{PYTHON} -IS
import json, os, sys
call = {{"argv": sys.argv, "environment": dict(os.environ), "cwd": os.getcwd(), "umask": os.umask(0)}}
call["stdin"] = sys.stdin.buffer.read().decode("latin-1")
call["session"] = os.getsid(0) == os.getpid()
with open(os.path.join(os.path.dirname(sys.argv[0]), "calls"), "a") as file:
    file.write(json.dumps(call) + chr(10))
"""
LEAVES_A_CHILD = 'sleep 60 & echo $! >"$here/child"; echo $$ >"$here/pid"'


class Desk:
    """A folder with stand-ins for the scheduler's commands, and the helper made for them."""

    def __init__(self, folder):
        self.folder = folder

    def program(self, name, text):
        """An executable; a text without a first line of its own is bash."""
        head = '#!/bin/bash\nPATH=/usr/bin:/bin\nhere=$(dirname "$0")\n'
        path = self.folder / name
        path.write_text(text if text.startswith("#!") else f"{head}{text}\n", encoding="utf-8")
        path.chmod(0o755)

    def make(self, scheduler=None, limit_s=20, **access):
        scheduler = scheduler or Slurm()
        for name in ("sbatch", "scancel", "squeue", "qsub", "qdel", "qstat"):
            if not (self.folder / name).exists():
                self.program(name, RECORDS)
        self.program("helper", sudo.program(profile_of(scheduler, self.folder, limit_s, **access), scheduler, PYTHON))

    def start(self, *words, user=USER, **environment):
        pipe = subprocess.PIPE
        who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        return subprocess.Popen(
            [str(self.folder / "helper"), *words], stdin=pipe, stdout=pipe, stderr=pipe, env=environment, **who
        )

    def ask(self, *words, given=b"", whole=True, **kwargs):
        """Exit code, output and error output. The input stays open if what is given is whole."""
        with self.start(*words, **kwargs) as process:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(given)
                process.stdin.flush()
            if not whole:
                process.stdin.close()
            out, err = process.stdout.read(), process.stderr.read()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        return process.returncode, out.decode(), err.decode()

    def calls(self):
        file = self.folder / "calls"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def pids(self):
        """The command and its child, once both have been written down."""
        files = [self.folder / name for name in ("pid", "child")]
        eventually(lambda: all(file.exists() and file.read_text().strip() for file in files))
        return [int(file.read_text()) for file in files]


def frame(data):
    return b"%d\n%s" % (len(data), data)


def job(script=b"true", options="[]"):
    """What a submit is given."""
    return frame(options.encode() + b"\n" + script)


def profile_of(scheduler, folder, limit_s=20, **access):
    """A site whose commands lie in this folder; it adds one option of its own to jobs."""
    given = {"type": scheduler.name, "path": (str(folder),), "command_timeout_s": limit_s - 1, "min_uid": 1}
    own = [{"option": "m", "value": "it's #1"}] if scheduler.name != "local" else []
    return SiteProfile(
        title="Test",
        scheduler=Access(**given | access),
        partitions=[{"name": "p", "max_walltime": "1h"}],
        environments=[{"name": "e"}],
        job={"directives": own},
    )


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def eventually(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def desk():
    # Not pytest's own folder, which is closed to others.
    folder = Path(tempfile.mkdtemp(prefix="hpcspawner-helper-"))
    folder.chmod(0o777)
    yield Desk(folder)
    shutil.rmtree(folder)


# --- what it does


def test_a_script_arrives_whole_in_an_environment_of_the_users_own(desk):
    desk.make()
    script = b"#!/bin/bash\n\xff\0" + b"x" * 1_000_000
    assert desk.ask("submit", given=job(script), SBATCH_ACCOUNT="x", PATH="/tmp", PYTHONPATH="/tmp") == (0, "", "")
    (call,) = desk.calls()
    account = pwd.getpwnam(USER)
    assert call["stdin"].encode("latin-1") == script
    assert call["argv"] == [str(desk.folder / "sbatch"), *Slurm.submit_command[1:]]
    assert call["environment"] == {
        "PATH": str(desk.folder),
        "HOME": account.pw_dir,
        "USER": USER,
        "LOGNAME": USER,
        "SHELL": account.pw_shell,
        "LC_ALL": "C",
    }
    assert (call["cwd"], call["umask"], call["session"]) == ("/", 0o022, True)


@pytest.mark.parametrize(
    ("scheduler", "verb", "given", "argv"),
    [
        (Slurm(), "cancel", "4711", ["scancel", "4711"]),
        (Torque(), "cancel", "12[3].head.cluster", ["qdel", "12[3].head.cluster"]),
        (Torque(), "list", "0123456789abcdef", ["qstat", "-x"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_verb_is_one_fixed_command(desk, scheduler, verb, given, argv):
    desk.make(scheduler)
    assert desk.ask(verb, given=frame(given.encode())) == (0, "", "")
    (call,) = desk.calls()
    assert call["argv"] == [str(desk.folder / argv[0]), *argv[1:]]
    assert call["stdin"] == ""


def test_a_listing_gets_the_mark(desk):
    desk.make()
    desk.ask("list", given=frame(b"0123456789abcdef"))
    (call,) = desk.calls()
    wanted = Slurm().query_command("0123456789abcdef")
    assert call["argv"][1:] == wanted[1:]


@pytest.mark.parametrize("code", [0, 1, 2, 7, 153, 255])
def test_an_answer_passes_as_it_is(desk, code):
    desk.program("sbatch", f"printf 'out\\xff'; printf 'a\\nb' >&2; exit {code}")
    desk.make()
    with desk.start("submit") as process:
        process.stdin.write(job())
        process.stdin.flush()
        out, err = process.stdout.read(), process.stderr.read()
    last = b"hpcspawner helper: the command's exit code is %d\n" % code if code else b""
    assert (process.returncode, out, err) == (code, b"out\xff", b"a\nb" + last)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGHUP])
def test_an_end_by_a_signal_passes_too(desk, number):
    desk.program("sbatch", f"kill -{int(number)} $$")
    desk.make()
    assert desk.ask("submit", given=job())[0] == -number


# --- when it is over


def test_the_end_of_the_input_ends_the_command_and_its_children(desk):
    desk.program("sbatch", f"{LEAVES_A_CHILD}; trap '' TERM; wait")
    desk.make()
    with desk.start("submit") as process:
        process.stdin.write(job())
        process.stdin.flush()
        pids = desk.pids()
        assert all(map(is_alive, pids))
        process.stdin.close()
        eventually(lambda: not any(map(is_alive, pids)))
    assert process.returncode == -signal.SIGKILL


def test_how_a_command_failed_is_said_last(desk):
    """So the Hub knows what came from the command, and what from sudo, which may not have started the helper."""
    desk.program("sbatch", "echo no >&2; exit 3")
    desk.make()
    assert desk.ask("submit", given=job()) == (3, "", "no\nhpcspawner helper: the command's exit code is 3\n")
    desk.program("sbatch", "kill -9 $$")
    assert desk.ask("submit", given=job()) == (-9, "", "hpcspawner helper: ended: by signal 9\n")


def test_the_time_limit_ends_it(desk):
    desk.program("sbatch", f"{LEAVES_A_CHILD}; wait")
    desk.make(limit_s=2)
    code, out, err = desk.ask("submit", given=job())
    assert (code, out) == (-signal.SIGKILL, "")
    assert err == "hpcspawner helper: ended: no answer in time\n"
    eventually(lambda: not any(map(is_alive, desk.pids())))


def test_a_signal_ends_it(desk):
    desk.program("sbatch", f"{LEAVES_A_CHILD}; wait")
    desk.make()
    with desk.start("submit") as process:
        process.stdin.write(job())
        process.stdin.flush()
        pids = desk.pids()
        process.terminate()
        assert b"ended: signal 15" in process.stderr.read()
        eventually(lambda: not any(map(is_alive, pids)))


def test_it_does_not_outlive_its_parent(desk):
    """Its input stays open all the time."""
    desk.program("sbatch", f"{LEAVES_A_CHILD}; wait")
    desk.make()
    between = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    helper = [str(desk.folder / "helper"), "submit"]
    who = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    with subprocess.Popen([PYTHON, "-c", between, *helper], stdin=subprocess.PIPE, **who) as parent:
        parent.stdin.write(job())
        parent.stdin.flush()
        pids = desk.pids()
        parent.kill()
        eventually(lambda: not any(map(is_alive, pids)))


def test_what_a_command_leaves_behind_does_not_hold_up_the_answer(desk):
    desk.program("sbatch", f"{LEAVES_A_CHILD}; echo 12")
    desk.make()
    began = time.monotonic()
    assert desk.ask("submit", given=job()) == (0, "12\n", "")
    assert time.monotonic() - began < 30
    eventually(lambda: not any(map(is_alive, desk.pids())))


# --- what it does not do


@pytest.mark.parametrize("words", [(), ("submit", "submit"), ("root",), ("--help",), ("submit-2",), ("",)])
def test_it_knows_its_verbs_and_nothing_else(desk, words):
    desk.make()
    code, out, err = desk.ask(*words, given=job())
    assert (code, out) == (64, "")
    assert err == "hpcspawner helper: expected one argument, one of: submit, cancel, list, estimate\n"
    assert not desk.calls()


@pytest.mark.parametrize("wrong", [{"getuid": 0, "geteuid": 0}, {"geteuid": 0}, {"getuid": 0}, {"getuid": 1234}])
def test_it_acts_for_no_root(wrong, monkeypatch):
    namespace = loaded()
    for name in ("getuid", "geteuid"):
        monkeypatch.setattr(os, name, functools.partial(wrong.get, name, 1000))
    namespace["SITE"]["min_uid"] = 1000
    with pytest.raises(namespace["Refusal"], match="only for ordinary users, not for root") as caught:
        namespace["check_account"]()
    assert caught.value.code == 77


@functools.cache
def loaded():
    """The program's own functions and classes."""
    namespace = {"__name__": "helper"}
    exec(compile(Path(sudo.helper.__file__).read_text(encoding="utf-8"), "helper", "exec"), namespace)
    return namespace


@pytest.mark.parametrize(
    ("given", "whole"),
    [
        pytest.param(b"", False, id="nothing"),
        pytest.param(b"5", False, id="half a length"),
        pytest.param(b"\n12345", True, id="no length"),
        pytest.param(b"five\n12345", True, id="a length in words"),
        pytest.param(b"-5\n12345", True, id="a negative one"),
        pytest.param(b"+5\n12345", True, id="one with a sign"),
        pytest.param(b" 5\n12345", True, id="one with a space"),
        pytest.param("\u0665\n12345".encode(), True, id="other digits"),
        pytest.param(b"5\n1234", False, id="too little"),
        pytest.param(b"5\n123456", True, id="too much"),
        pytest.param(b"4194305\n", True, id="more than is taken"),
        pytest.param(b"00000005\n12345", True, id="a long length"),
    ],
)
def test_nothing_is_submitted_of_an_input_that_is_not_as_announced(desk, given, whole):
    desk.make()
    code, out, err = desk.ask("submit", given=given, whole=whole)
    assert (code, out) == (65, "")
    assert err.startswith("hpcspawner helper: the input ")
    assert not desk.calls()


def test_a_script_that_stops_coming_is_given_up_in_time(desk):
    desk.make(limit_s=2)
    code, _, err = desk.ask("submit", given=b"5\n1234")
    assert (code, err) == (65, "hpcspawner helper: the input was incomplete: no answer in time\n")
    assert not desk.calls()


PARTITION = '["partition", "compute"]'
OPTIONS = [
    pytest.param('[["export-file", "/home/alice/secret"]]', id="export-file"),
    pytest.param('[["bbf", "/home/alice/secret"]]', id="bbf"),
    pytest.param('[["error", "/tmp/x"]]', id="error"),
    pytest.param('[["output", "/tmp/x"]]', id="output"),
    pytest.param('[["chdir", "/home/alice"]]', id="chdir"),
    pytest.param('[["uid", "0"]]', id="uid"),
    pytest.param('[["wrap", "id"]]', id="wrap"),
    pytest.param('[["export", "NIL"]]', id="export"),
    pytest.param('[["partition=x --uid", "0"]]', id="two in a name"),
    pytest.param('[["partition", "a b"]]', id="a blank"),
    pytest.param('[["partition", "a,b"]]', id="a list"),
    pytest.param('[["partition", ""]]', id="no value"),
    pytest.param('[["partition", "compute\\n"]]', id="a line break"),
    pytest.param('[["partition", "\\u0661"]]', id="other digits"),
    pytest.param('[["requeue", "yes"]]', id="a value where there is none"),
    pytest.param('[["dependency", "singleton"]]', id="another dependency"),
    pytest.param('[["time", "UNLIMITED"]]', id="for ever"),
    pytest.param('[["m", "another"]]', id="the site's option with another value"),
    pytest.param('[["partition"]]', id="half a pair"),
    pytest.param('[["partition", 1]]', id="a number"),
    pytest.param('{"partition": "compute"}', id="an object"),
    pytest.param('[["partition", "a\\u0000b"]]', id="a null byte"),
    pytest.param('[["partition", "\\ud800"]]', id="half a character"),
    pytest.param('[["mem", "1\\u212a"]]', id="a letter that folds to one of ASCII"),
    pytest.param('[["Partition", "compute"]]', id="an option in capitals"),
    pytest.param(f'[["partition", {"9" * 5000}]]', id="a number that is too long"),
    pytest.param('[["partition", NaN]]', id="no number"),
    pytest.param('"partition"', id="text"),
    pytest.param("1", id="one number"),
    pytest.param("", id="nothing"),
    pytest.param("[" * 100_000, id="nested too deeply"),
    pytest.param(f"[{PARTITION}] [{PARTITION}]", id="two lists"),
]


@pytest.mark.parametrize("options", OPTIONS)
def test_an_option_that_is_not_the_sites_reaches_no_command(desk, options):
    desk.make()
    code, out, err = desk.ask("submit", given=job(options=options))
    assert (code, out) == (65, "")
    assert err.startswith("hpcspawner helper: the ")
    assert err.isascii()
    assert err.count("\n") == 1
    assert not desk.calls()


@pytest.mark.parametrize("line", ['["qa"]', '{"qa": 1}', '"qa"', '[{"q": 1, "a": 2}]', '[["q", "a"], "Ab"]'])
def test_only_lists_of_two_are_pairs(line):
    with pytest.raises(helper.Refusal, match="not a list of options"):
        helper.unpacked(f"{line}\ntrue".encode())


LINES = [
    "#SBATCH --export-file=/home/alice/secret",
    "#PBS -o /x",
    "#BSUB -e x",
    "#BB x",
    "#DW y",
    "#SBATCHx --uid=0",
    " \t#PBS -o /x",
]


@pytest.mark.parametrize("place", ["#!/bin/bash\n{line}\ntrue\n", "{line}", "true\n{line}\n", "#!/bin/sh\n\n#\n{line}"])
@pytest.mark.parametrize("line", LINES)
def test_a_script_with_options_of_its_own_is_refused(desk, line, place):
    desk.make()
    code, _, err = desk.ask("submit", given=job(place.format(line=line).encode()))
    assert code == 65
    assert err.startswith("hpcspawner helper: the script has a line that a scheduler may read as an option: '")
    assert not desk.calls()


@pytest.mark.parametrize("scheduler", ON_CLUSTERS, ids=lambda scheduler: scheduler.name)
def test_options_become_words_of_the_command(desk, scheduler):
    desk.make(scheduler)
    slurm = scheduler.name == "slurm"
    size = "nodes=1:ppn=2:gpus=1" if scheduler.name == "torque" else "select=1:ncpus=2:ngpus=1"
    mine = '["partition", "compute"], ["exclusive", ""]' if slurm else f'["q", "compute"], ["l", "{size}"]'
    assert desk.ask("submit", given=job(options=f'[{mine}, ["m", "it\'s #1"]]')) == (0, "", "")
    (call,) = desk.calls()
    words = ["--partition=compute", "--exclusive", "--m=it's #1"]
    if not slurm:
        words = ["-q", "compute", "-l", size, "-m", "it's #1"]
    assert call["argv"][1:] == [*scheduler.submit_command[1:], *words]


def test_the_sites_variables_reach_the_command_and_change_none_of_the_users(desk):
    desk.make(variables={"SLURM_CONF": "/cm/slurm.conf", "LD_LIBRARY_PATH": "/cm/lib64"})
    assert desk.ask("submit", given=job(), SLURM_CONF="/tmp/theirs")[0] == 0
    (call,) = desk.calls()
    found = call["environment"]
    assert (found["SLURM_CONF"], found["LD_LIBRARY_PATH"], found["USER"]) == ("/cm/slurm.conf", "/cm/lib64", USER)


def test_an_option_of_the_sites_is_joined_to_the_users(desk):
    slurm = Slurm()
    desk.make()
    own = Job(directives=[Directive(option="gres", value="lscratch:10")])
    profile = profile_of(slurm, desk.folder).model_copy(update={"job": own})
    desk.program("helper", sudo.program(profile, slurm, PYTHON))
    assert desk.ask("submit", given=job(options='[["gres", "gpu:v100:1,lscratch:10"]]')) == (0, "", "")
    assert desk.calls()[0]["argv"][-1] == "--gres=gpu:v100:1,lscratch:10"
    assert desk.ask("submit", given=job(options='[["gres", "gpu:v100:1,lscratch:11"]]'))[0] == 65


def test_it_acts_for_no_account_of_the_system(desk):
    uid = pwd.getpwnam(USER).pw_uid
    desk.make(min_uid=uid + 1)
    code, out, err = desk.ask("submit", given=job())
    assert (code, out) == (77, "")
    assert err == (
        "hpcspawner helper: it acts only for ordinary users: "
        f"uid {uid} is lower than the site's scheduler.min_uid, {uid + 1}\n"
    )
    assert not desk.calls()


@pytest.mark.parametrize("name", ["slurm", "munge", "torque", "pbs", "nobody", "nfsnobody"])
def test_it_acts_for_no_account_of_the_schedulers(name, monkeypatch):
    namespace = loaded()
    for function in ("getuid", "geteuid"):
        monkeypatch.setattr(os, function, lambda: 64030)
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd((name, "x", uid, uid, "", "/", "")))
    namespace["SITE"]["min_uid"] = 1000
    with pytest.raises(namespace["Refusal"], match=f"only for ordinary users, not for {name}") as caught:
        namespace["check_account"]()
    assert caught.value.code == 77


@pytest.mark.parametrize("verb", ["submit", "cancel", "list"])
def test_a_closed_standard_input_is_said_in_one_line(desk, verb):
    desk.make()
    who = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    shell = ["/bin/sh", "-c", '"$@" <&-', "sh", str(desk.folder / "helper"), verb]
    done = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=60, **who)
    assert (done.returncode, done.stdout) == (65, "")
    assert done.stderr == "hpcspawner helper: standard input is closed\n"


WRONG = ["", "12\n", "\n12", "12 13", " 12", "-u", "--user=alice", "12;id", "$(id)", "12\0", "\u0663", "1e3", "1" * 301]


@pytest.mark.parametrize("scheduler", ON_CLUSTERS, ids=lambda scheduler: scheduler.name)
@pytest.mark.parametrize("word", WRONG, ids=ascii)
def test_what_is_no_job_id_reaches_no_command(desk, scheduler, word):
    desk.make(scheduler)
    code, out, err = desk.ask("cancel", given=frame(word.encode()))
    assert (code, out) == (65, "")
    assert err.isascii()
    assert err.count("\n") == 1
    assert not desk.calls()


@pytest.mark.parametrize("word", ["", "0123456789abcde", "0123456789abcdef0", "%i%i%i%i%i%i%i%i", "0123456789ABCDEF"])
def test_what_is_no_mark_reaches_no_command(desk, word):
    desk.make()
    assert desk.ask("list", given=frame(word.encode()))[0] == 65
    assert not desk.calls()


@pytest.mark.parametrize("scheduler", EVERY.values(), ids=EVERY)
@settings(deadline=None)
@given(word=st.text(max_size=20) | st.from_regex(r"[0-9]{1,11}(\[[0-9]?\])?(\.\w{0,3})?\n?"))
def test_the_helper_and_the_hub_agree_what_a_job_id_is(scheduler, word):
    """By the pattern that is written into it."""
    namespace = loaded()
    try:
        scheduler.cancel_command(word)
    except ValueError:
        with pytest.raises(namespace["Refusal"]):
            namespace["checked"](word.encode(errors="surrogatepass"), scheduler.job_id_pattern)
    else:
        assert namespace["checked"](word.encode(), scheduler.job_id_pattern) == word


def test_a_command_that_is_not_there_is_said(desk):
    desk.make()
    (desk.folder / "sbatch").unlink()
    code, _, err = desk.ask("submit", given=job())
    assert code == 69
    assert err == f"hpcspawner helper: {desk.folder}/sbatch can't be started: No such file or directory\n"


# --- how it is made


@pytest.mark.parametrize("name", ["comet.toml", "stratus.toml", "tscc.toml", "rhea.toml", "hydra.toml"])
def test_every_job_of_a_shipped_profile_is_taken(name):
    profile = load(find_shipped(name))
    scheduler = EVERY[profile.scheduler.type]
    home = CallHome("https://hub.example.org/hub/api/hpcspawner", "ticket")
    label = JobLabel("jupyter-alice", "h0000example", follows="12")
    for partition in profile.partitions:
        account = None if profile.account == "hidden" else (*profile.accounts, "abc123")[0]
        request = make({"partition": partition.name, "account": account}, profile, LocalAccount("alice", "/home/alice"))
        job = submission(request, scheduler, profile.job, label, home)
        sudo.submit_words(scheduler, job.options, profile.directives)
        assert helper.checked_script(job.script.encode())


@pytest.mark.parametrize("python", ["python3", "/usr/bin/env python3", "/x\n/bin/sh", ""])
def test_what_can_be_no_first_line_is_refused(desk, python):
    desk.make()
    with pytest.raises(sudo.RightsError, match="give the full path of a Python"):
        sudo.program(profile_of(Slurm(), desk.folder), Slurm(), python)


WITH_HELPER = Access(type="slurm", helper="/usr/local/libexec/hpcspawner-comet")


@pytest.mark.parametrize(
    ("account", "group"),
    [
        pytest.param("root", "hpcusers", id="root needs none"),
        pytest.param("ALL", "hpcusers", id="everybody"),
        pytest.param("ADMINS", "hpcusers", id="a list of accounts"),
        pytest.param("%wheel", "hpcusers", id="a group as the account"),
        pytest.param("jupyterhub, bob", "hpcusers", id="two accounts"),
        *(
            pytest.param("jupyterhub", group, id=f"group {group}")
            for name in ("root", "sudo", "wheel", "admin", "docker", "lxd", "disk", "adm", "shadow", "kmem", "staff")
            for group in (name, name.upper(), name.capitalize())
        ),
        pytest.param("jupyterhub", "hpcusers, ALL", id="two groups"),
        pytest.param("jupyterhub", "#0", id="a group by number"),
        pytest.param("jupyterhub", "a) NOPASSWD: ALL", id="a rule of its own"),
        pytest.param("jupyterhub", "a\nx", id="a line of its own"),
    ],
)
def test_a_rule_that_would_allow_more_is_refused(account, group):
    with pytest.raises(sudo.RightsError, match="can't be the"):
        sudo.sudoers(WITH_HELPER, account, group, listing=False)


@pytest.mark.parametrize("group", ["hpcusers", "Domain_Users", "sudoku", "wheelers"])
def test_a_group_of_users_is_let_in(group):
    assert f"(%{group}, !root, !#0)" in sudo.sudoers(WITH_HELPER, "jupyterhub", group, listing=False)


def test_why_a_group_is_refused_is_said():
    with pytest.raises(sudo.RightsError, match=r"'Docker' can't be the users' group: its members can become root"):
        sudo.sudoers(WITH_HELPER, "jupyterhub", "Docker", listing=False)


def test_names_that_sudo_rs_reads_in_its_own_way_are_numbers_in_its_rule(monkeypatch):
    """Its releases differ in what may be escaped or quoted; all of them match a number."""
    groups = {"domain users": 10001, "hpc@EXAMPLE.ORG": 10002, "EXAMPLE\\hpc": 10003}
    monkeypatch.setattr(sudo.grp, "getgrnam", lambda name: SimpleNamespace(gr_gid=groups[name]))
    monkeypatch.setattr(sudo.pwd, "getpwnam", lambda name: SimpleNamespace(pw_uid={"svc@EXAMPLE.ORG": 901}[name]))

    def rule(account, group, access=WITH_HELPER, **which):
        return sudo.sudoers(access, account, group, listing=False, **which).splitlines()[-1].partition(" NOPASSWD")[0]

    assert rule("svc@EXAMPLE.ORG", "hpcusers", sudo_rs=True) == "#901 ALL = (%hpcusers, !root, !#0)"
    for name, number in groups.items():
        assert rule("hub", name, sudo_rs=True) == f"hub ALL = (%#{number}, !root, !#0)"
    debians = WITH_HELPER.model_copy(update={"command_prefix": ("/usr/bin/sudo-rs", "-n", "-u", "{user}")})
    assert rule("hub", "domain users", debians) == "hub ALL = (%#10001, !root, !#0)"
    assert rule("hub", "#10000", debians) == "hub ALL = (%#10000, !root, !#0)"


@pytest.mark.parametrize("prefix", [("become", "{user}"), ("/usr/bin/su", "{user}"), ()])
def test_without_sudo_there_is_no_rule(prefix):
    access = WITH_HELPER.model_copy(update={"command_prefix": prefix})
    with pytest.raises(sudo.RightsError, match="so sudo is not asked"):
        sudo.sudoers(access, "jupyterhub", "hpcusers", listing=False)


def test_rules_of_two_sites_stand_side_by_side():
    text = sudo.sudoers(WITH_HELPER, "jupyterhub", "Domain_Users", listing=True)
    (alias, *_), (rule,) = ([line for line in text.splitlines() if line.startswith(w)] for w in ("Cmnd", "jupyterhub"))
    assert alias.startswith("Cmnd_Alias HPC_HPCSPAWNER_COMET = /usr/local/libexec/hpcspawner-comet submit")
    assert rule == "jupyterhub ALL = (%Domain_Users, !root, !#0) NOPASSWD: NOSETENV: HPC_HPCSPAWNER_COMET"


def test_it_is_a_program_for_python_3_6():
    text = Path(sudo.helper.__file__).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 6))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    known = {
        "contextlib",
        "grp",
        "json",
        "os",
        "pwd",
        "re",
        "select",
        "signal",
        "subprocess",
        "sys",
        "tempfile",
        "time",
        "typing",
        "urllib.parse",
    }
    assert imported | modules <= known
    assert text.startswith("#!/usr/bin/python3 -IS\n")


def test_a_look_runs_the_program_written_into_it_with_the_user_s_rights(desk):
    desk.make(look=True)
    question = b'{"check": {"directory": "/nowhere"}}\n'
    code, out, err = desk.ask("look", given=b"%d\n%s" % (len(question), question))
    assert (code, err) == (0, "")
    (problem,) = json.loads(out)["problems"]
    assert problem["message"].startswith("The directory /nowhere can't be opened on ")
    assert not desk.calls()


def test_without_the_site_s_leave_the_helper_looks_at_nothing(desk):
    desk.make()
    code, out, err = desk.ask("look", given=b"2\n{}")
    assert (code, out) == (64, "")
    assert err == "hpcspawner helper: expected one argument, one of: submit, cancel, list, estimate\n"


def test_a_question_that_is_too_long_is_not_read(desk):
    desk.make(look=True)
    code, out, err = desk.ask("look", given=b"20001\n" + b"x" * 20001)
    assert (code, out) == (65, "")
    assert "at most 20000 are taken" in err


def test_the_rule_has_the_verb_only_where_the_profile_says_so():
    access = WITH_HELPER.model_copy(update={"look": True})
    helper_path = str(WITH_HELPER.helper)
    text = sudo.sudoers(access, "jupyterhub", "hpcusers", listing=False)
    assert f"{helper_path} look" in text
    assert (
        "may submit and cancel jobs, and look at files, as any member of the group hpcusers,\n# and nothing else"
        in text
    )
    assert f"{helper_path} look" not in sudo.sudoers(WITH_HELPER, "jupyterhub", "hpcusers", listing=True)


def framed(data):
    return b"%d\n%s" % (len(data), data)


def test_an_estimate_is_checked_as_a_submit_and_has_the_words_that_submit_nothing(desk):
    desk.make()
    given = helper.packed([("time", "00:10:00")], b"#!/bin/sh\n")
    assert desk.ask("estimate", given=framed(given))[0] == 0
    (call,) = desk.calls()
    assert call["argv"][-2:] == ["--time=00:10:00", "--test-only"]
    assert call["environment"]["SLURM_TIME_FORMAT"] == "%s"
    for options, script in (([("wrap", "id")], b"#!/bin/sh\n"), ([], b"#!/bin/sh\n#SBATCH --wrap=id\n"), ([], b"")):
        assert desk.ask("estimate", given=framed(helper.packed(options, script)))[0] == helper.BAD_INPUT
    assert len(desk.calls()) == 1
