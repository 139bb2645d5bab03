"""`hpcspawner check` against set-ups that are sabotaged in one place each: the right cause, and its cure."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from hpcspawner.checks import rights, scheduler, suite
from hpcspawner.checks.finding import Check, Outcome, as_data, good, lines, not_checked, run_all, warning, wrong
from hpcspawner.cli.check import _client
from hpcspawner.schedulers import sudo
from hpcspawner.site.profile import load

ROOT = Path(__file__).parents[2]
SINFO = """\
debug|up|30:00|1-infinite|64|128000|(null)|skylake
compute*|up|2-00:00:00|1-infinite|64|128000|(null)|skylake
gpu|up|1-00:00:00|1-2|16|32000|gpu:v100:4(S:0-1),lscratch:100|volta
"""
RULES = """\
PartitionName=debug AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL MaxNodes=UNLIMITED State=UP
PartitionName=compute AllowGroups=ALL AllowAccounts=ddp363 AllowQos=ALL MaxNodes=UNLIMITED State=UP
"""
# What squeue prints of an empty queue: its own header line.
EMPTY_QUEUE = """\
for word; do case $word in --format=*) format=${word#--format=};; esac; done
mark=${format:0:16}
echo "${mark}JOBID${mark}STATE${mark}HOST${mark}USER${mark}START${mark}REASON${mark}COMMENT${mark}"
"""
ALICE = "daemon"  # an account that every machine has


class SetUp:
    """A profile, and a folder with the commands that it finds; at first all is well."""

    def __init__(self, folder):
        self.folder, self.bin, self.env = folder, folder / "bin", folder / "env/bin"
        self.helper = folder / "libexec/hpcspawner"
        for one in (self.bin, self.env, self.helper.parent):
            one.mkdir(parents=True)
        self.text = f"""\
title = "Test cluster"
accounts = ["ddp363", "tro100"]
[scheduler]
type = "slurm"
path = ["{self.bin}"]
helper = "{self.helper}"
min_uid = 1
[[partitions]]
name = "debug"
max_walltime = "30m"
max_cpus = 4
max_memory = "4G"
[[partitions]]
name = "compute"
max_walltime = "2d"
accounts = ["ddp363"]
qos = ["normal"]
features = ["skylake"]
[[partitions]]
name = "gpu"
max_walltime = "1d"
gpus = {{ v100 = 4 }}
[[environments]]
name = "jupyter"
path = ["{self.env}"]
[job]
ports = [20000, 21000]
"""
        # No other commands: this machine may have a scheduler's own.
        for tool in ("bash", "cat", "date", "env", "timeout"):
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.program(
            "sinfo",
            f'case "$*" in *version*) echo slurm-wlm 22.05.8;; *Node*) echo localhost;; *) cat <<END\n{SINFO}END\nesac',
        )
        self.program("scontrol", f'case "$*" in *config*) echo "PrivateData = none";; *) cat <<END\n{RULES}END\nesac')
        self.program("sacctmgr", 'case "$*" in *account*) echo ddp363; echo tro100;; *) echo normal;; esac')
        self.program("sdiag", 'echo "sdiag output at Thu ($(date +%s))"')
        self.program("squeue", EMPTY_QUEUE)
        for name in ("sbatch", "scancel", "sacct"):
            self.program(name, "exit 0")
        # The Hub may do what the rule says: the helper's verbs as a user, nothing as root, no shell.
        self.program(
            "sudo", 'case "$*" in *" root "*|*/bin/sh*) echo "sudo: a password is required" >&2; exit 1;; esac'
        )
        self.write(self.env / "jupyterhub-singleuser", f"#!{sys.executable}\n")
        self.hub_uid = 1

    def write(self, path, text, mode=0o755):
        path.write_text(text)
        path.chmod(mode)

    def program(self, name, lines_):
        self.write(self.bin / name, f"#!/bin/bash\n{lines_}\n")

    def change(self, old, new):
        assert old in self.text
        self.text = self.text.replace(old, new)

    @property
    def profile(self):
        (self.folder / "site.toml").write_text(self.text)
        return load(self.folder / "site.toml")

    def install_helper(self):
        profile = self.profile
        self.write(self.helper, sudo.program(profile, _client(profile).scheduler, sys.executable))

    async def findings(self, user=ALICE):
        profile = self.profile
        return [one async for one in run_all(suite.of_cluster(profile, _client(profile), user))]


@pytest.fixture
def set_up(monkeypatch):
    # Not one of pytest's own folders, which no other account may enter: the checks ask what others may do.
    folder = Path(tempfile.mkdtemp(prefix="hpcspawner-checks-"))
    folder.chmod(0o755)
    # Where the tests do not run as root.
    monkeypatch.setattr(rights, "_ROOT", os.getuid())
    made = SetUp(folder)
    made.install_helper()
    monkeypatch.setattr(rights.os, "geteuid", lambda: made.hub_uid)
    # The test's own Python may lie in a home that others can't enter.
    made.write(made.env / "jupyterhub-singleuser", "#!/bin/sh\n")
    yield made
    shutil.rmtree(folder)


def told(found, outcomes=(Outcome.WRONG, Outcome.WARNING)):
    return [(name, one.text) for name, one in found if one.outcome in outcomes]


async def test_a_set_up_without_faults_has_none(set_up):
    found = await set_up.findings()
    assert told(found) == []
    names = list(dict.fromkeys(name for name, _ in found))
    assert names[:5] == ["commands", "version", "listing", "clock", "partitions"]


def sinfo(old, new):
    def sabotage(one):
        one.program("sinfo", (one.bin / "sinfo").read_text().partition("\n")[2].replace(old, new))

    return sabotage


def profile(old, new):
    def sabotage(one):
        one.change(old, new)
        one.install_helper()

    return sabotage


def program(name, text):
    return lambda one: one.program(name, text)


def without(name):
    return lambda one: (one.bin / name).unlink()


def helper(change):
    return lambda one: change(one.helper)


def environment(change):
    return lambda one: change(one.env)


NO_CONTROLLER = 'echo "slurm_load_jobs error: Unable to contact slurm controller (connect failure)" >&2; exit 1'
PRIVATE = 'case "$*" in *config*) echo "PrivateData = jobs";; esac'

CASES = [
    ("no sbatch", without("sbatch"), "commands", "sbatch was not found", "Install it on the Hub's machine"),
    ("no sacct", without("sacct"), "commands", "sacct was not found, so the Hub can say less", "Install it"),
    ("old slurm", sinfo("22.05.8", "20.11.9"), "version", "Slurm 20.11.9 is older than 22.5", "not tested"),
    (
        "no version",
        sinfo("echo slurm-wlm 22.05.8", "echo hello"),
        "version",
        "could not be read: 'hello'",
        "Check that",
    ),
    ("no controller", program("squeue", NO_CONTROLLER), "listing", "Unable to contact slurm controller", "may be down"),
    ("garbage", program("squeue", "echo hello"), "listing", "could not be read", "Run the command by hand"),
    ("hidden jobs", program("scontrol", PRIVATE), "listing", "does not promise", "operator of Slurm"),
    (
        "clock",
        program("sdiag", 'echo "sdiag output at x ($(( $(date +%s) + 600 )))"'),
        "clock",
        "s ahead of the Hub's",
        "chrony",
    ),
    (
        "clock a bit",
        program("sdiag", 'echo "sdiag output at x ($(( $(date +%s) - 60 )))"'),
        "clock",
        "s behind",
        "chrony",
    ),
    (
        "partition",
        profile('"debug"', '"debgu"'),
        "partitions",
        "partitions[1] (debgu)",
        "Did you mean 'debug'? it has: debug,",
    ),
    (
        "partition down",
        sinfo("debug|up", "debug|down"),
        "partitions",
        "(debug): the partition takes no jobs",
        "take it out",
    ),
    ("wall time", sinfo("30:00", "20:00"), "partitions", "max_walltime: 30m is more than", "Write 20m or less"),
    ("nodes", profile("gpus = {", "max_nodes = 3\ngpus = {"), "partitions", "max_nodes: 3 is more", "Write 2 or less"),
    (
        "cpus",
        sinfo("64|128000", "2|128000"),
        "partitions",
        "max_cpus: 4 is more than the cluster allows",
        "Write 2 or less",
    ),
    ("memory", sinfo("64|128000", "64|2000"), "partitions", "max_memory: 4G is more", "Write 2000M or less"),
    (
        "gpu type",
        sinfo("gpu:v100:4", "gpu:a100:4"),
        "partitions",
        "has GPUs of type 'v100'",
        "Its nodes have: a100 = 4",
    ),
    ("gpus", sinfo("gpu:v100:4", "gpu:v100:2"), "partitions", "v100 = 4 is more", "Write 2 or less"),
    ("feature", sinfo("|skylake", "|icelake"), "partitions", "no node has 'skylake'", "Its nodes have: icelake"),
    (
        "qos",
        program("sacctmgr", 'case "$*" in *account*) echo ddp363; echo tro100;; *) echo long;; esac'),
        "partitions",
        "no QOS 'normal'",
        "It has: long",
    ),
    (
        "account",
        program("sacctmgr", 'case "$*" in *account*) echo ddp363;; *) echo normal;; esac'),
        "partitions",
        "accounts: the cluster has no account 'tro100'",
        "It has: ddp363",
    ),
    (
        "closed",
        profile('accounts = ["ddp363"]', 'accounts = ["tro100"]'),
        "partitions",
        "does not allow 'tro100'",
        "It allows: ddp363",
    ),
    (
        "no sinfo",
        program("sinfo", 'case "$*" in *version*) echo slurm 22.05.8;; *) exit 3;; esac'),
        "partitions",
        "exit code 3",
        "Run the command by hand",
    ),
    (
        "sinfo's words",
        sinfo("debug|up", "debug"),
        "partitions",
        "could not be read: sinfo printed this instead of a partition",
        "Run the command",
    ),
    (
        "uid",
        profile("min_uid = 1\n", "min_uid = 90000\n"),
        "account",
        "only for accounts with uid 90000",
        "scheduler.min_uid",
    ),
    ("no helper there", helper(Path.unlink), "helper", "is not there", "As root: hpcspawner helper SITE.toml"),
    (
        "helper for all",
        helper(lambda path: path.chmod(0o777)),
        "helper",
        "can be changed by others than root",
        "Chmod go-w",
    ),
    (
        "helper's folder",
        helper(lambda path: path.parent.chmod(0o777)),
        "helper",
        "libexec can be changed by others",
        "Chmod go-w",
    ),
    ("helper closed", helper(lambda path: path.chmod(0o700)), "helper", "users can't run", "Chmod 0755"),
    (
        "helper stale",
        helper(lambda path: path.write_text(path.read_text() + "\n")),
        "helper",
        "made for another profile",
        "install -D -m 0755",
    ),
    (
        "helper's Python",
        helper(lambda path: path.write_text("#!/no/python -IS\n")),
        "helper",
        "/no/python, which runs",
        "Install it, or name another",
    ),
    (
        "no rule",
        program("sudo", 'echo "sudo: a password is required" >&2; exit 1'),
        "sudo rule",
        "may not run",
        "hpcspawner sudoers",
    ),
    (
        "a wide rule",
        program("sudo", "exit 0"),
        "sudo rule",
        "may run /bin/sh as root",
        "Let the rule allow the helper alone",
    ),
    (
        "users' shells",
        program("sudo", 'case "$*" in *" root "*) exit 1;; esac'),
        "sudo rule",
        f"may run /bin/sh as {ALICE}",
        "the helper alone",
    ),
    ("own way", profile("min_uid = 1\n", 'min_uid = 1\ncommand_prefix = ["sudo-not-there", "{user}"]\n'), None, "", ""),
    ("no folder", environment(shutil.rmtree), "environments", "there is no folder", "Check the name"),
    (
        "no server",
        environment(lambda path: (path / "jupyterhub-singleuser").unlink()),
        "environments",
        "no jupyterhub-singleuser",
        "Install jupyterhub and jupyterlab",
    ),
    (
        "moved",
        environment(lambda path: (path / "jupyterhub-singleuser").write_text("#!/gone/python\n")),
        "environments",
        "that Python is not there",
        "can't be moved: make it anew",
    ),
    (
        "closed program",
        environment(lambda path: (path / "jupyterhub-singleuser").chmod(0o700)),
        "environments",
        "other users can't run",
        "Chmod o+rx",
    ),
    (
        "closed folder",
        environment(lambda path: path.chmod(0o700)),
        "environments",
        "other users can't enter",
        "Chmod o+x",
    ),
    (
        "no image",
        profile("[job]", '[[images]]\nname = "t"\npath = "/no/image.sif"\n[job]'),
        "images",
        "/no/image.sif is not here",
        "Check the path",
    ),
    (
        "conda",
        profile("[job]", '[job]\nconda = "/no/conda"'),
        "files",
        "job.conda: /no/conda/bin/conda is not here",
        "Check the path",
    ),
    ("names", sinfo("localhost", "n1.invalid"), "node names", "such as n1.invalid", "scheduler.node_name"),
    ("few ports", profile("[20000, 21000]", "[20000, 20009]"), "ports", "job.ports has 10 ports", "at least 100"),
]


def test_there_are_more_than_twenty_faults():
    assert len(CASES) > 40
    assert len({name for _, _, name, *_ in CASES}) > 10


@pytest.mark.parametrize(("sabotage", "name", "cause", "cure"), [pytest.param(*case[1:], id=case[0]) for case in CASES])
async def test_a_fault_is_found_with_its_cause_and_its_cure(set_up, sabotage, name, cause, cure):
    sabotage(set_up)
    found = told(await set_up.findings())
    if name is None:
        assert found == []
        return
    # Nothing else is called a fault, so that whoever reads it looks at the right place.
    assert {one for one, _ in found} == {name}
    assert any(cause in text for _, text in found), found
    assert any(cure in text for _, text in found), found


async def test_an_image_for_another_processor_is_told_of(set_up):
    image = set_up.folder / "image.sif"
    image.write_bytes(b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\x0001\x0099\0")
    image.chmod(0o644)
    for folder in (set_up.folder, *set_up.folder.parents):
        if folder.stat().st_uid == os.getuid() and str(folder) not in ("/", "/tmp"):
            folder.chmod(folder.stat().st_mode | 0o011)
    set_up.change("[job]", f'[[images]]\nname = "t"\npath = "{image}"\n[job]')
    ((name, said),) = told(await set_up.findings())
    assert name == "images"
    assert f"t: {image} is made for another architecture; this machine is " in said


async def test_an_image_that_users_can_not_read_is_told_of(set_up):
    image = set_up.folder / "image.sif"
    set_up.write(image, "", 0o600)
    set_up.change("[job]", f'[[images]]\nname = "t"\npath = "{image}"\n[job]')
    set_up.install_helper()
    assert told(await set_up.findings()) == [("images", f"t: other users can't read {image}. Chmod o+r {image}")]


async def test_a_listing_that_takes_long_is_slow(set_up, monkeypatch):
    monkeypatch.setattr(scheduler, "_SLOW_S", 0)
    ((name, text),) = told(await set_up.findings())
    assert name == "listing"
    assert "0 jobs listed in" in text
    assert "which is slow" in text


async def test_a_user_that_there_is_not_is_told_of(set_up):
    found = told(await set_up.findings("no-such-user"))
    assert ("account", "there is no account 'no-such-user' on this machine. Make the cluster's accounts known here, by "
            "sssd or nslcd for instance; `getent passwd` must show them") in found  # fmt: skip


async def test_root_as_a_user_is_refused(set_up):
    assert any("root's (uid 0)" in text for name, text in told(await set_up.findings("root")) if name == "account")


async def test_a_hub_of_root_is_told_that_it_needs_a_helper(set_up):
    set_up.change(f'helper = "{set_up.helper}"\n', "")
    set_up.hub_uid = 0
    assert told(await set_up.findings()) == [
        ("helper", "the Hub would run as root. Run it as an ordinary account with a helper (scheduler.helper)")
    ]


async def test_commands_of_another_scheduler_are_told_of(set_up):
    said = (ROOT / "tests/recorded/slurm-torque-22.05/qstat-x.err").read_text()
    for name in ("qsub", "qdel", "qstat", "pbsnodes"):
        set_up.program(name, f"cat >&2 <<'END'\n{said}END\nexit 2")
    set_up.change('type = "slurm"', 'type = "torque"')
    set_up.change('qos = ["normal"]\n', "")
    set_up.install_helper()
    found = told(await set_up.findings())
    assert any(name == "version" and "these are not the commands of torque" in text for name, text in found), found
    assert all("Slurm" in text or "slurm" in text for name, text in found if name == "version")


# --- the value


async def test_a_check_that_fails_is_a_finding_and_the_others_go_on():
    def broken():
        raise RuntimeError("oh")

    async def later():
        return [warning("late", "hurry")]

    checks = [Check("one", broken), Check("two", later), Check("three", lambda: [good("fine"), wrong("bad", "do it")])]
    found = [one async for one in run_all(checks)]
    assert list(lines(found)) == [
        "wrong        one: the check itself failed: RuntimeError('oh'). Report this as a bug of hpcspawner",
        "warning      two: late. Hurry",
        "ok           three: fine",
        "wrong        three: bad. Do it",
    ]
    told_of = {"check": "two", "outcome": "warning", "what": "late", "cure": "hurry", "entry": ""}
    assert as_data(found)[1] == told_of


def test_what_others_have_written_stays_on_its_line():
    found = [("x", wrong("a\nok           y: all is well", "b\x1b[2J"))]
    assert len(list(lines(found))) == 1
    assert "\n" not in "".join(lines(found))
    assert "\x1b" not in as_data(found)[0]["cure"]


def test_what_was_not_checked_is_no_fault():
    assert not_checked("x").ok
    assert good("x").ok
    assert not warning("x", "y").ok
    assert not wrong("x", "y").ok


async def test_of_a_cluster_by_ssh_nothing_is_looked_for_on_the_hubs_machine(set_up):
    for path in (set_up.helper, *(set_up.bin / name for name in ("sbatch", "squeue", "scancel", "scontrol", "sinfo"))):
        path.unlink()
    key = set_up.folder / "key"
    lines_ = f'ssh = ["hub@login1"]\nssh_key = "{key}"\nssh_known_hosts = "{key}"\ntype = "slurm"\n'
    set_up.change('type = "slurm"\n', lines_)
    profile = set_up.profile
    named = {"commands", "version", "helper"}
    checks = (one for one in suite.of_cluster(profile, _client(profile), "") if one.name in named)
    found = [one async for one in run_all(checks)]
    assert {name for name, _ in found} == named
    assert {one.outcome for _, one in found} == {Outcome.NOT_CHECKED}
    assert "login nodes" in found[0][1].what
