"""A Hub that is not root: it runs as an account of its own, and sudo lets that account do as little as was printed."""

import contextlib
import functools
import json
import os
import pwd
import re
import shutil
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import requests
from cluster.conftest import jobs_of, on_head, profile, queue_is_empty_within, shown
from support.faults import Lab, within
from support.hub import Hub, server_path
from support.rights import accounts, frame, mounted, must, processes, run, write
from support.schedulers import HAS_TORQUE, SCHEDULERS

ROOT = Path(__file__).parents[2]
HUBBER, GROUP = "hubber", "hpcusers"
HELPER = "/usr/local/libexec/hpcspawner"
SCRIPT = b'[["partition", "debug"], ["mem", "16M"]]\n#!/bin/bash\nsleep 600\n'
RUN_HUB = "import sys; sys.argv = sys.argv[1:]; from jupyterhub.app import main; main()"
BY_CLIENT = """
import asyncio, logging, sys
from pathlib import Path
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.site.profile import load

async def main(site, *words):
    client = Cluster.of(load(site), Path("/nowhere"), logging.getLogger()).client
    options = tuple(word.split("=", 1) for word in words)
    job_id = await client.submit("alice", Submission(options, "#!/bin/bash\\nsleep 600\\n"))
    jobs = [(await client.listing(user)).jobs for user in ("alice", "")]
    await client.cancel("alice", job_id)
    await client.cancel("alice", job_id)
    print(job_id, *(job_id in some for some in jobs))

asyncio.run(main(*sys.argv[1:]))
"""


SUBMITTED = frame(SCRIPT)


def hubber(*argv, given=SUBMITTED, whole=True, **environment):
    return run(*argv, given=given, user=HUBBER, whole=whole, **environment)


def as_alice(verb, given, whole=True, **environment):
    return hubber("sudo", "-n", "-u", "alice", HELPER, verb, given=given, whole=whole, **environment)


def all_jobs():
    return on_head("squeue", "--noheader", "--format=%i %u").splitlines()


class Place:
    """What an admin prepares: the code where the account can read it, the profile, the helper, the rule."""

    def __init__(self, folder, lab):
        self.folder = folder
        self.python = folder / "env/bin/python"
        self.sites = {scheduler: self.profile(scheduler, lab) for scheduler in SCHEDULERS}
        self.site = self.sites["slurm"]

    def profile(self, scheduler, lab):
        text = profile(scheduler, lab)
        helper = HELPER if scheduler == "slurm" else f"{HELPER}-torque"
        ours = f'type = "{scheduler}"\nhelper = "{helper}"\ncommand_timeout_s = 15\n'
        # Torque's helper has the other verb that a site may add.
        ours += "look = true\n" if scheduler == "slurm" else ""
        site = self.folder / f"{scheduler}.toml"
        write(site, text.replace(f'type = "{scheduler}"\n', ours), 0o644)
        return site

    def printed(self, *words):
        return must(str(Path(sys.executable).parent / "hpcspawner"), *map(str, words))

    def install(self, site, helper, *flags):
        write(Path(helper), self.printed("helper", site), 0o755)
        lines = self.printed("sudoers", site, f"--group={GROUP}", f"--account={HUBBER}", *flags)
        rule = Path("/etc/sudoers.d") / Path(helper).name
        write(rule, lines, 0o440)
        must("visudo", "--check", "--strict", f"--file={rule}")

    def make_environment(self):
        """A virtual environment like that of the tests, under names that the account can follow."""
        site_packages = self.folder / "env/lib" / f"python3.{sys.version_info.minor}/site-packages"
        site_packages.mkdir(parents=True)
        self.python.parent.mkdir()
        self.python.symlink_to(self.folder / "python/bin" / f"python3.{sys.version_info.minor}")
        write(self.folder / "env/pyvenv.cfg", f"home = {self.folder}/python/bin\n", 0o644)
        theirs = self.folder / "venv" / site_packages.relative_to(self.folder / "env")
        write(site_packages / "tests.pth", f"{theirs}\n{self.folder / 'code'}\n", 0o644)

    def command(self):
        """The beginning of a command that runs this environment's Python, with the tests' own PATH as it is here."""
        words = os.environ["PATH"]
        for real, seen in ((sys.prefix, "venv"), (str(ROOT), "code")):
            words = words.replace(real, str(self.folder / seen))
        # Where Python's own library is shared it has to be found, too.
        return ["env", f"PATH={words}", f"LD_LIBRARY_PATH={self.folder}/python/lib", "HOME=/", str(self.python)]


@pytest.fixture(scope="module")
def place(lab):
    folder = Path(tempfile.mkdtemp(prefix="hpcspawner-", dir="/run"))
    folder.chmod(0o755)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        stack.enter_context(accounts(HUBBER, GROUP))
        for name, real in (("python", sys.base_prefix), ("venv", sys.prefix), ("code", str(ROOT))):
            stack.enter_context(mounted(str(folder / name), "--bind", real))
        for name in ("/etc/sudoers.d", str(Path(HELPER).parent)):
            stack.enter_context(mounted(name, "-t", "tmpfs", "-o", "mode=755", "tmpfs"))
        place = Place(folder, lab)
        place.make_environment()
        place.install(place.site, HELPER)
        if "torque" in place.sites:
            place.install(place.sites["torque"], f"{HELPER}-torque", "--list")
        yield place


@pytest.fixture(scope="module")
def hub(place):
    folder = place.folder / "hub"
    folder.mkdir(mode=0o700)
    extra = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}'
    hub = Hub(folder, place.site, host="10.77.0.1", users=("alice", "bob"), extra=extra)
    for path in (folder, *folder.iterdir()):
        shutil.chown(path, HUBBER, HUBBER)
    identity = [f"--reuid={HUBBER}", f"--regid={HUBBER}", "--init-groups"]
    hub.start = functools.partial(hub.start, ["setpriv", *identity, *place.command(), "-c", RUN_HUB])
    with hub:
        yield hub


# --- what it can do


def test_a_hub_of_its_own_account_starts_and_ends_a_server(hub, place):
    assert os.stat(f"/proc/{hub.process.pid}").st_uid == pwd.getpwnam(HUBBER).pw_uid
    assert hubber("ls", "/root")[0] != 0
    server = hub.spawn("alice", {"partition": "debug"})
    assert server["ready"]
    (job_id,) = jobs_of("alice")
    assert shown(job_id)["UserId"].startswith("alice(")
    hub.stop_server("alice")
    queue_is_empty_within(40, "alice")


def test_a_server_of_somebody_outside_the_group_is_refused_and_the_log_says_what_to_do(hub):
    hub.api("POST", server_path("bob"), json={"partition": "debug"})
    within(15, lambda: "hpcspawner sudoers SITE.toml --account=hubber" in hub.log(), hub.log)
    assert all_jobs() == []


if HAS_TORQUE:

    def test_torque_is_asked_through_the_helper(place):
        words = ("N=h3f2a9c0b1d4e55", "q=debug", "l=nodes=1:ppn=1", "r=n")
        site = str(place.sites["torque"])
        out = must(*place.command(), "-c", BY_CLIENT, site, *words, user=HUBBER, whole=False)
        job_id, *seen = out.split()
        assert job_id.endswith(".head")
        assert seen == ["True", "True"]
        queue_is_empty_within(40, "alice")


def check_of(hub, session, **choices):
    """The answer to a check of these choices, by the form's own button."""
    xsrf = re.search(r"_xsrf=([^\"&]*)", session.get(f"{hub.url}/hub/spawn", timeout=60).text)[1]
    answer = session.post(f"{hub.url}/hub/hpcspawner/check", data={"_xsrf": xsrf, **choices}, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()["message"]


def test_a_look_is_with_the_rights_of_the_user_who_asks_and_no_others(hub, secret):
    message = check_of(hub, hub.log_in("alice"), partition="debug", directory=str(hub.folder))
    assert f"The directory {hub.folder} can't be opened on head: Permission denied" in message
    question = b'{"check": {"directory": "%s", "image": "%s"}}\n' % (b"/root", bytes(secret))
    code, out, err = as_alice("look", frame(question))
    assert (code, err) == (0, "")
    told = {one["field"]: one["message"] for one in json.loads(out)["problems"]}
    # Her own file can be read; no byte of it is told.
    assert told[
        "image"
    ] == f"The image {secret} is no image that Apptainer knows. Choose another image, or make it " + (
        "for these machines."
    )
    assert told["directory"].startswith("The directory /root can't be opened on head: Permission denied")


# --- what it can't do

TORQUES_VERBS = ("submit", "cancel", "list")


def test_sudo_tells_of_nothing_but_the_verbs(place):
    code, out, _ = hubber("sudo", "-n", "-l")
    assert code == 0
    rules = " ".join(out.partition("may run the following commands")[2].partition(":")[2].split())
    run_as = f"(%{GROUP}, !root, !#0) NOSETENV: NOPASSWD: "
    wanted = {
        "slurm": (HELPER, ("submit", "cancel", "estimate", "look")),
        "torque": (f"{HELPER}-torque", TORQUES_VERBS),
    }
    lines = (", ".join(f"{helper} {verb}" for verb in verbs) for helper, verbs in map(wanted.get, place.sites))
    assert rules == " ".join(f"{run_as}{line}" for line in lines)


SUDO_REFUSES = [
    pytest.param("-u alice {helper}", id="no verb"),
    pytest.param("-u alice {helper} list", id="a verb of the other rule"),
    pytest.param("-u alice {helper} submit --wrap=id", id="a word more"),
    pytest.param("-u alice {helper} --wrap=id", id="an option"),
    pytest.param("-u alice {helper} submit submit", id="twice"),
    pytest.param("-u alice {helper} SUBMIT", id="in capitals"),
    pytest.param("-u root {helper} submit", id="as root"),
    pytest.param("-u #0 {helper} submit", id="as number 0"),
    pytest.param("-u #4294967295 {helper} submit", id="as number -1"),
    pytest.param("{helper} submit", id="as the default, which is root"),
    pytest.param("-u bob {helper} submit", id="as a user outside the group"),
    pytest.param("-u root {helper} look", id="a look as root"),
    pytest.param("-u bob {helper} look", id="a look as a user outside the group"),
    pytest.param("-u alice {helper} look /home/alice", id="a look with a word more"),
    pytest.param("-u hubber {helper} submit", id="as itself"),
    pytest.param("-u alice -g root {helper} submit", id="with root's group"),
    pytest.param("-u %hpcusers {helper} submit", id="as a group"),
    pytest.param("-u alice;id {helper} submit", id="a shell's words as a name"),
    pytest.param("-u -u {helper} submit", id="an option as a name"),
    pytest.param("-u alice /usr/bin/sbatch --parsable", id="sbatch itself"),
    pytest.param("-u alice /usr/bin/scancel 1", id="scancel itself"),
    pytest.param("-u alice /bin/bash -c id", id="a shell"),
    pytest.param("-u alice -s", id="a shell by option"),
    pytest.param("-u alice -i", id="a login"),
    pytest.param("-u alice -e /home/alice/.bashrc", id="sudoedit"),
    pytest.param("-u alice /usr/bin/python3 -IS {helper} submit", id="its interpreter"),
    pytest.param("-u alice PATH=/tmp {helper} submit", id="a variable"),
    pytest.param("-u alice SBATCH_ACCOUNT=x {helper} submit", id="a variable of sbatch's"),
    pytest.param("-u alice LD_PRELOAD=/tmp/x.so {helper} submit", id="a library"),
    pytest.param("-u alice --preserve-env {helper} submit", id="the whole environment"),
    pytest.param("-u alice --preserve-env=PYTHONPATH {helper} submit", id="a part of it"),
    pytest.param("-u alice -D /tmp {helper} submit", id="another folder"),
    pytest.param("-u alice -R / {helper} submit", id="another root"),
    pytest.param("-u alice -T 1 {helper} submit", id="a time limit of its own"),
    pytest.param("-u alice -C 10 {helper} submit", id="open files"),
    pytest.param("-u ALICE {helper} submit", id="a name in capitals"),
    pytest.param("-u #0001 {helper} submit", id="a number with noughts"),
]


@pytest.mark.parametrize("words", SUDO_REFUSES)
def test_sudo_refuses(place, words):
    code, out, err = hubber("sudo", "-n", *words.format(helper=HELPER).split(), PYTHONPATH="/tmp")
    assert (code, out) == (1, "")
    assert err
    assert "hpcspawner helper: " not in err
    assert all_jobs() == []


def test_a_program_of_the_same_name_is_not_the_helper(place):
    fake = place.folder / "fake" / "hpcspawner"
    fake.parent.mkdir()
    shutil.copy("/usr/bin/id", fake)
    code, out, _ = hubber("sudo", "-n", "-u", "alice", str(fake), "submit")
    assert (code, out) == (1, "")


BAD_SCRIPTS = [
    pytest.param(b"", False, id="nothing"),
    pytest.param(SCRIPT, True, id="no length"),
    pytest.param(b"%d\n%s" % (len(SCRIPT) + 1, SCRIPT), False, id="not whole"),
    pytest.param(b"%d\n%s" % (len(SCRIPT) + 1, SCRIPT), True, id="not whole, and no more comes"),
    pytest.param(b"%d\n%s" % (len(SCRIPT) - 1, SCRIPT), True, id="longer than announced"),
    pytest.param(b"-1\n" + SCRIPT, True, id="a negative length"),
    pytest.param(b"10000000\n" + SCRIPT, True, id="a length of eight digits"),
    pytest.param(frame(SCRIPT + b"#" * 4 * 1024 * 1024), True, id="too long"),
]


@pytest.mark.parametrize(("given", "whole"), BAD_SCRIPTS)
def test_the_helper_submits_no_script_that_is(place, given, whole):
    code, out, err = as_alice("submit", given, whole)
    assert (code, out) == (65, "")
    assert err.startswith("hpcspawner helper: the input ")
    assert all_jobs() == []


WRITES = ("export-file", "bbf", "error", "output", "chdir", "wrap", "uid", "gid", "get-user-env", "clusters", "batch")


@pytest.fixture
def secret():
    """A file that only alice may read."""
    path = Path("/home/alice/secret")
    path.write_text("HER_SECRET=open sesame\n")
    path.chmod(0o600)
    shutil.chown(path, "alice", "alice")
    yield path
    path.unlink()


@pytest.mark.parametrize("option", WRITES)
def test_the_helper_gives_no_option_that_reads_or_writes_a_file_or_becomes_somebody(place, secret, option):
    options = json.dumps([["partition", "debug"], [option, str(secret)]]).encode()
    code, out, err = as_alice("submit", frame(options + b"\n#!/bin/bash\nenv\n"))
    assert (code, out) == (65, "")
    assert err == f"hpcspawner helper: the option '{option}' may not be given\n"
    assert all_jobs() == []


@pytest.mark.parametrize("option", WRITES)
def test_the_helper_takes_no_script_with_such_an_option_either(place, secret, option):
    script = f"[]\n#!/bin/bash\n#SBATCH --partition=debug --{option}={secret}\nenv\n"
    code, out, err = as_alice("submit", frame(script.encode()))
    assert (code, out) == (65, "")
    assert "a line that a scheduler may read as an option" in err
    assert all_jobs() == []


def test_the_helper_acts_for_no_account_of_the_system(place):
    """Though sudo would: whoever made the rule put it into the group."""
    must("usermod", "--append", "--groups", GROUP, "munge")
    try:
        code, out, err = hubber("sudo", "-n", "-u", "munge", HELPER, "submit")
    finally:
        must("gpasswd", "--delete", "munge", GROUP)
    assert (code, out) == (77, "")
    assert "only for ordinary users" in err
    assert all_jobs() == []


def test_the_helper_cancels_nothing_but_by_one_whole_id(place):
    job_id = must(
        "sudo", "-n", "-u", HUBBER, "sudo", "-n", "-u", "alice", HELPER, "submit", given=frame(SCRIPT)
    ).strip()
    wrong = [
        "",
        f"{job_id}\n",
        f"{job_id} {job_id}",
        "--user=alice",
        "-u",
        f"{job_id};id",
        f"{job_id}_1",
        f"{job_id}\0",
    ]
    answers = {word: as_alice("cancel", frame(word.encode())) for word in [*wrong, "\u0661", "1" * 301]}
    assert {word: answer[0] for word, answer in answers.items()} == dict.fromkeys(answers, 65)
    assert jobs_of("alice") == [job_id]
    assert as_alice("cancel", frame(job_id.encode())) == (0, "", "")
    queue_is_empty_within(40, "alice")


def test_the_helper_acts_for_no_root(place):
    code, out, err = run(HELPER, "submit", given=frame(SCRIPT))
    assert (code, out) == (77, "")
    assert "not for root" in err


def test_nothing_of_the_callers_environment_reaches_the_scheduler_or_the_job(place, lab):
    """Also not what sudo lets through by its own defaults, and what speaks to Python before a program's first line."""
    trap = place.folder / "trap"
    trap.mkdir()
    trap.chmod(0o777)
    write(trap / "sitecustomize.py", f"open({str(trap / 'sprung')!r}, 'w')", 0o644)
    write(trap / "sbatch", "#!/bin/sh\necho 666\n", 0o755)
    injected = {
        "SBATCH_PARTITION": "gpu-shared",
        "SBATCH_JOB_NAME": "injected",
        "SBATCH_EXPORT": "NONE",
        "SLURM_CONF": "/nowhere",
        "PYTHONPATH": str(trap),
        "PYTHONSTARTUP": str(trap / "sitecustomize.py"),
        "PYTHONINSPECT": "1",
        "LD_PRELOAD": str(trap / "none.so"),
        "BASH_ENV": str(trap / "sitecustomize.py"),
        "PATH": f"{trap}:/usr/bin:/bin",
        "LC_ALL": "C.UTF-8",
        "DISPLAY": ":7",
        "HOME": str(trap),
    }
    environment = trap / "environment"
    options = '[["partition", "debug"], ["job-name", "honest"], ["mem", "16M"]]'
    script = f"{options}\n#!/bin/bash\nenv >{environment}.new; mv {environment}.new {environment}\n"
    code, out, _ = as_alice("submit", frame(script.encode()), **injected)
    assert code == 0
    record = shown(out.strip())
    assert (record["JobName"], record["Partition"], record["WorkDir"]) == ("honest", "debug", "/")
    within(30, environment.exists, "the job did not run")
    got = dict(line.partition("=")[::2] for line in environment.read_text().splitlines())
    known = {"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LC_ALL", "PWD", "SHLVL", "_", "TMPDIR", "ENVIRONMENT"}
    assert {name for name in got if not name.startswith("SLURM") and name not in known} <= {
        "CUDA_VISIBLE_DEVICES",
        "GPU_DEVICE_ORDINAL",
        "ROCR_VISIBLE_DEVICES",
        "HOSTNAME",
        "I_MPI_HYDRA_BOOTSTRAP",  # newer Slurms'
    }
    assert (got["HOME"], got["USER"], got["LC_ALL"]) == ("/home/alice", "alice", "C")
    assert got["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert not (trap / "sprung").exists()
    queue_is_empty_within(40, "alice")


# --- what becomes of it when somebody does not answer


@contextlib.contextmanager
def asked_for_server(hub, name=""):
    """Somebody presses the button, and waits for an answer meanwhile."""

    def ask():
        # Of a Hub that is killed there is none.
        with contextlib.suppress(requests.ConnectionError):
            hub.api("POST", server_path("alice", name), json={"partition": "debug"})

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        asking.join()


def test_a_submit_ends_with_its_time_and_with_the_hub_and_there_is_one_job_each(hub, lab):
    """The Hub can't kill what is not its own: the end of the input does it."""
    with Lab(lab).controller_hangs():
        with asked_for_server(hub):
            within(30, lambda: processes("alice", "sbatch"), "sbatch was not started")
            within(60, lambda: not processes("alice", "sbatch"), "sbatch was not ended")
            within(
                60, lambda: any("not answering at the moment" in one["message"] for one in hub.events("alice")), hub.log
            )
        with asked_for_server(hub, "second"):
            within(30, lambda: processes("alice", "sbatch"), "sbatch was not started")
            hub.kill()
            # Long before its time is up.
            within(10, lambda: not processes("alice", "sbatch"), "sbatch was not ended")
            within(10, lambda: not processes("alice", "hpcspawner"), "the helper is left")
    hub.start()
    for name in ("", "second"):
        hub.wait_ready("alice", name)
    assert len(jobs_of("alice")) == 2
    hub.stop_servers()
    queue_is_empty_within(40, "alice")


# --- what `hpcspawner check` says of it, as the Hub's account

CHECK = "import sys; from hpcspawner.cli.app import main; main(sys.argv[1:])"


def rights_found(place, *words):
    """What the checks of rights find: name, outcome, text."""
    command = [*place.command(), "-c", CHECK, "check", "--json", "--user=alice", str(place.site), *words]
    code, out, err = run(*command, user=HUBBER, whole=False)
    assert code in (0, 1), err
    found = [(one["check"], one["outcome"], f"{one['what']} {one['cure']}") for one in json.loads(out)["findings"]]
    return [one for one in found if one[0] in ("helper", "sudo rule", "account", "job")]


def test_check_finds_the_printed_rule_right_and_a_job_by_it_shows_the_way(place):
    found = rights_found(place, "--submit")
    faults = [one for one in found if one[1] == "wrong" and "has not what the profile names" not in one[2]]
    assert faults == []
    texts = [text for _, _, text in found]
    assert "the Hub may submit and cancel jobs as alice " in texts
    assert "the Hub's account may run no shell as root or as a user " in texts
    assert "it is what `hpcspawner helper` prints for this profile " in texts
    assert any(text.startswith("the Hub reaches n") for text in texts)
    queue_is_empty_within(40, "alice")


def test_check_finds_a_rule_that_is_too_wide_and_a_helper_that_users_could_change(place):
    wide = Path("/etc/sudoers.d/wide")
    write(wide, f"{HUBBER} ALL = (ALL) NOPASSWD: ALL\n", 0o440)
    Path(HELPER).chmod(0o777)
    try:
        found = rights_found(place)
    finally:
        wide.unlink()
        Path(HELPER).chmod(0o755)
    faults = " ".join(text for _, outcome, text in found if outcome == "wrong")
    assert "the Hub may run /bin/sh as root" in faults
    assert f"{HELPER} can be changed by others than root chmod go-w {HELPER}" in faults
