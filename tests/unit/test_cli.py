"""The command `hpcspawner`, run as a process of its own."""

import json
import os
import pwd
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import hpcspawner

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "profiles").glob("*.toml"))

GOOD = """\
title = "Test cluster"
[scheduler]
type = "slurm"
[[partitions]]
name = "debug"
max_walltime = "30m"
[[partitions]]
name = "long"
max_walltime = "2d"
[[environments]]
name = "jupyter"
"""
BAD = GOOD.replace('"slurm"', '"pbs"').replace('"30m"', '"30:00"')


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from hpcspawner.cli.app import main; main()", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        timeout=60,
    )


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "site.toml"
    path.write_text(GOOD, encoding="utf-8")
    return path


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(BAD, encoding="utf-8")
    return path


# --- the command itself


def test_without_a_command_it_says_which_there_are():
    done = run()
    assert done.returncode == 2
    for name in ("init", "check", "render", "helper", "sudoers", "authorized-key", "jobs", "demo"):
        assert name in done.stdout


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        pytest.param("chek", " Did you mean 'check'?", id="a slip"),
        pytest.param("xyz", "", id="nothing like it"),
    ],
)
def test_a_command_that_there_is_not_is_answered_with_the_nearest(word, hint):
    done = run(word)
    assert done.returncode == 2
    assert (
        done.stderr
        == f"hpcspawner: There is no command {word!r}.{hint} The commands are: init, check, render, helper, "
        "sudoers, authorized-key, explain, jobs, demo.\n"
    )


def test_the_version_is_told():
    assert run("--version").stdout.strip() == hpcspawner.__version__


def test_the_console_script_is_the_same_program():
    script = Path(sys.executable).parent / "hpcspawner"
    done = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == hpcspawner.__version__


# --- check


def test_every_shipped_profile_is_good():
    done = run("check", "--profile-only", *PROFILES)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()[:-1]
    assert [line.partition(": profile: ")[0] for line in lines] == [f"ok           {path}" for path in PROFILES]


def test_a_good_profile_is_described_in_a_line(site):
    done = run("check", "--profile-only", site)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "ok           profile: Test cluster (slurm): debug, long\n1 ok\n"


def test_every_mistake_of_every_file_is_told(site, bad, tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("title = \n")
    done = run("check", "--profile-only", bad, site, broken, tmp_path / "nope.toml")
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"wrong        {bad}: profile: scheduler.type: ")
    assert "partitions[1] (debug).max_walltime: not a wall time: '30:00' (write '90m'" in lines[1]
    assert lines[2] == f"ok           {site}: profile: Test cluster (slurm): debug, long"
    assert lines[3].startswith(f"wrong        {broken}: profile: is not TOML: ")
    assert f"{tmp_path}/nope.toml: profile: can't be read: No such file or directory" in lines[4]
    assert lines[5] == "1 ok, 4 wrong"


def test_the_findings_are_there_for_programs(site, commands):
    text = site.read_text().replace('type = "slurm"', f'type = "slurm"\npath = ["{commands}"]')
    site.write_text(text)
    done = run("check", "--json", site)
    assert (done.returncode, done.stderr) == (1, "")
    said = json.loads(done.stdout)
    assert said["ok"] is False
    assert said["findings"][0] == {
        "check": "profile",
        "outcome": "ok",
        "what": "Test cluster (slurm): debug, long",
        "cure": "",
        "entry": "",
    }
    by_name = {one["check"]: one for one in said["findings"]}
    assert {"commands", "version", "listing", "partitions", "sudo rule", "environments", "ports"} <= set(by_name)
    assert by_name["listing"]["outcome"] == "wrong"
    assert by_name["listing"]["cure"]
    assert by_name["listing"]["entry"] == "command-missing"


def test_a_hubs_configuration_that_can_not_be_read_is_a_finding(tmp_path, site):
    config = tmp_path / "jupyterhub_config.py"
    config.write_text("import hpcspawner\nhpcspawner.configure(get_config(), 'site.toml', callback_url='http://x')\n")
    done = run("check", f"--hub={config}", site, "--profile-only")
    assert done.returncode == 1
    assert done.stdout.startswith("wrong        Hub settings: hpcspawner: ")
    config.unlink()
    assert f"{config} is not there" in run("check", f"--hub={config}").stdout


def test_check_without_a_file_is_bad_usage():
    done = run("check")
    assert done.returncode == 2
    assert "hpcspawner check site.toml" in done.stderr


def test_a_trial_job_needs_a_user(site):
    done = run("check", site, "--submit")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--user=NAME" in done.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["check", "--usr=alice"], " Did you mean --user?"),
        (["check", "--jsn"], " Did you mean --json?"),
        (["render", "--usr=alice"], " Did you mean --user?"),
        (["sudoers", "--grup=x"], " Did you mean --group?"),
        (["demo", "--prot=1"], " Did you mean --port?"),
        (["helper", "--xyz"], ""),
    ],
)
def test_an_option_that_there_is_not_is_refused_with_the_nearest(words, hint):
    done = run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    asked = words[1].partition("=")[0]
    assert done.stderr.startswith(f"hpcspawner {words[0]}: there is no option {asked!r}.{hint} The options are: ")


# --- render


def test_a_job_script_is_printed_and_apart_from_it_the_command_that_submits_it(site):
    done = run("render", site, "partition=long", "walltime=1d", "directory=/scratch/it's here", "--user=alice")
    assert done.returncode == 0
    assert done.stderr.startswith("$ sbatch --parsable ")
    assert " --partition=long --time=1-00:00:00 " in done.stderr
    assert "it's here" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "#!/bin/bash"
    assert lines[-1] == 'exit "$hpc_code"'
    assert "A-TICKET-STANDS-HERE" in done.stdout
    subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)


def test_a_refused_request_names_every_problem(site):
    done = run("render", site, "walltime=9d", "partition=debug", "colour=red")
    assert (done.returncode, done.stdout) == (1, "")
    assert "at most 30m" in done.stderr
    assert "There is no option 'colour'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bad_profile_renders_nothing(bad):
    done = run("render", bad)
    assert (done.returncode, done.stdout) == (1, "")
    assert "2 mistakes" in done.stderr


@pytest.mark.parametrize("words", [[], ["site.toml", "partition"]], ids=["no profile", "no value"])
def test_render_says_how_it_is_used(words):
    done = run("render", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "usage: hpcspawner render PROFILE [OPTION=VALUE …]; options: cluster, partition, preset, account,"
    )


# --- helper and sudoers: what is printed here is tried with the real sudo on the test cluster

PLACE = "/usr/local/libexec/hpcspawner"


@pytest.fixture
def commands(tmp_path):
    """A folder with what a profile needs to find."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    for name in ("sbatch", "scancel", "squeue"):
        (folder / name).touch(mode=0o755)
    return folder


@pytest.fixture
def with_helper(tmp_path, commands):
    path = tmp_path / "with-helper.toml"
    ours = f'type = "slurm"\nhelper = "{PLACE}"\npath = ["{commands}"]\n'
    path.write_text(GOOD.replace('type = "slurm"\n', ours), encoding="utf-8")
    return path


def test_the_helper_is_printed_with_the_full_paths_of_the_sites_commands(with_helper, commands):
    done = run("helper", with_helper)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("#!/usr/bin/python3 -IS\n")
    assert f"'{commands}/sbatch'," in done.stdout
    assert f"['{commands}/scancel', '{{given}}']" in done.stdout
    compile(done.stdout, "helper", "exec")
    assert run("helper", with_helper, "--python=/opt/python3").stdout.startswith("#!/opt/python3 -IS\n")


def test_a_command_that_the_helper_could_not_find_is_said(with_helper, commands):
    (commands / "scancel").unlink()
    done = run("helper", with_helper)
    assert (done.returncode, done.stdout) == (1, "")
    assert "'scancel' was not found on the Hub. Run this on the Hub's machine; install it" in done.stderr


def rules(done):
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.replace("\\\n", "").splitlines()
    return [" ".join(line.split()) for line in lines if not line.startswith("#")]


def test_the_rule_is_for_one_group_and_the_verbs_alone(with_helper):
    alias, defaults, rule = rules(run("sudoers", with_helper, "--group=hpcusers", "--account=jupyterhub"))
    assert alias == f"Cmnd_Alias HPC_HPCSPAWNER = {PLACE} submit, {PLACE} cancel, {PLACE} estimate"
    assert defaults == (
        "Defaults!HPC_HPCSPAWNER env_reset, !env_keep, !env_check, !setenv, !requiretty, !log_input, !log_output"
    )
    assert rule == "jupyterhub ALL = (%hpcusers, !root, !#0) NOPASSWD: NOSETENV: HPC_HPCSPAWNER"


def test_a_list_is_allowed_only_where_it_is_asked_for(with_helper):
    alias, *_ = rules(run("sudoers", with_helper, "--group=hpcusers", "--account=jupyterhub", "--list"))
    assert alias == f"Cmnd_Alias HPC_HPCSPAWNER = {PLACE} submit, {PLACE} cancel, {PLACE} list, {PLACE} estimate"


@pytest.mark.parametrize("command", ["helper", "sudoers"])
def test_without_a_helper_in_the_profile_there_is_nothing_to_print(site, command):
    done = run(command, site, *(["--group=x"] if command == "sudoers" else []))
    assert (done.returncode, done.stdout) == (1, "")
    assert 'add this line to its table [scheduler]: helper = "/usr/local/libexec/hpcspawner"' in done.stderr


@pytest.mark.parametrize("command", ["helper", "sudoers"])
def test_what_is_printed_is_of_one_profile(command):
    done = run(command)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"name one profile, such as: hpcspawner {command} site.toml" in done.stderr


def test_a_rule_without_a_group_is_none(with_helper):
    done = run("sudoers", with_helper)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--group=GROUP" in done.stderr


def test_a_rule_that_would_allow_more_is_refused(with_helper):
    done = run("sudoers", with_helper, "--group=hpcusers", "--account=ALL")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("hpcspawner sudoers: 'ALL' can't be the Hub's account")


@pytest.mark.parametrize(
    ("group", "written"),
    [
        ("domain users", "domain\\ users"),
        ("hpc@EXAMPLE.ORG", "hpc\\@EXAMPLE.ORG"),
        ("EXAMPLE\\hpc", "EXAMPLE\\\\hpc"),
        ("#10000", "#10000"),
        ("2hpc", "2hpc"),
        ("a=b", "a\\=b"),
    ],
)
def test_a_group_of_a_directory_service_is_one_name_in_the_rule(with_helper, group, written):
    *_, rule = rules(run("sudoers", with_helper, f"--group={group}", "--account=jupyterhub"))
    assert rule == f"jupyterhub ALL = (%{written}, !root, !#0) NOPASSWD: NOSETENV: HPC_HPCSPAWNER"


@pytest.mark.parametrize(
    ("account", "written"),
    [
        ("svc@EXAMPLE.ORG", "svc\\@EXAMPLE.ORG"),
        ("EXAMPLE\\svc", "EXAMPLE\\\\svc"),
        ("Svc.Hub", "Svc.Hub"),
        ("20231", "20231"),
    ],
)
def test_a_hub_account_of_a_directory_service_is_one_name_in_the_rule(with_helper, account, written):
    *_, rule = rules(run("sudoers", with_helper, "--group=hpcusers", f"--account={account}"))
    assert rule.startswith(f"{written} ALL = (%hpcusers,")


@pytest.mark.parametrize(
    "group",
    [
        *("#0", "#27", "wheel@EXAMPLE.ORG", "EXAMPLE\\wheel", "Domain Admins", "EXAMPLE\\Domain Admins", "DOCKER"),
        *("%users", ":users", "a\nb", "-x", "#x", "a:b"),
    ],
)
def test_a_group_that_would_allow_more_is_refused(with_helper, group):
    done = run("sudoers", with_helper, f"--group={group}", "--account=jupyterhub")
    assert (done.returncode, done.stdout) == (1, "")
    assert "can't be the users' group" in done.stderr


def test_settings_that_sudo_rs_has_not_are_left_out_for_it(with_helper):
    _, defaults, _ = rules(run("sudoers", with_helper, "--group=hpcusers", "--account=jupyterhub", "--sudo-rs"))
    # As visudo of sudo-rs 0.2.5 and 0.2.15 takes it.
    assert defaults == "Defaults!HPC_HPCSPAWNER env_reset, !env_keep, !env_check"


def test_a_name_that_sudo_rs_reads_in_its_own_way_must_be_a_number(with_helper):
    done = run("sudoers", with_helper, "--group=no such group", "--account=jupyterhub", "--sudo-rs")
    assert (done.returncode, done.stdout) == (1, "")
    assert "write '#' and the number in its place" in done.stderr


# --- demo: what is wrong is said at once, and nothing stays behind


@pytest.fixture
def programs(tmp_path):
    """A PATH with stand-ins for what the demo starts; whoever starts one of them leaves a trace."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("jupyterhub", "configurable-http-proxy", "node"):
        program = folder / name
        program.write_text(f"#!/bin/bash\ntouch '{folder}/{name}.started'\nexit 1\n")
        program.chmod(0o755)
    return folder


def demo(programs, *words, path="/usr/bin:/bin"):
    temporary = programs.parent / "tmp"
    temporary.mkdir()
    began = time.monotonic()
    done = run("demo", *words, PATH=f"{programs}:{path}", TMPDIR=str(temporary))
    assert time.monotonic() - began < 60
    assert list(temporary.iterdir()) == []
    return done


@pytest.fixture
def taken_port():
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        yield holder.getsockname()[1]


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def test_a_port_that_is_taken_is_said_at_once(programs, taken_port):
    done = demo(programs, f"--port={taken_port}")
    assert done.returncode == 1
    assert done.stderr == (
        f"hpcspawner demo: port {taken_port} can't be used (Address already in use); "
        f"choose another: make demo PORT={taken_port + 1000}\n"
    )


@pytest.mark.parametrize("port", ["70000", "eighty"])
def test_what_is_no_port_is_said_at_once(programs, port):
    done = demo(programs, f"--port={port}")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert port in done.stderr


def test_an_account_that_there_is_not_is_said_at_once(programs, free_port):
    with pytest.raises(KeyError):
        pwd.getpwnam("no-such-account")
    done = demo(programs, f"--port={free_port}", "--user=no-such-account")
    assert done.returncode == 1
    assert done.stderr == "hpcspawner demo: there is no account 'no-such-account' on this machine\n"
    assert not list(programs.glob("*.started"))


def test_a_profile_that_there_is_not_is_said_at_once(programs, free_port):
    done = demo(programs, f"--port={free_port}", "--site=nope.toml")
    assert done.returncode == 1
    assert done.stderr.startswith(
        "hpcspawner demo: no profile named 'nope.toml' is shipped; the shipped ones are: comet.toml, "
    )


def test_a_profile_with_mistakes_is_said_at_once(programs, free_port, bad):
    done = demo(programs, f"--port={free_port}", f"--site={bad}")
    assert done.returncode == 1
    assert "2 mistakes" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["configurable-http-proxy", "node"])
def test_a_program_that_is_missing_is_said_at_once(programs, free_port, name):
    (programs / name).unlink()
    done = demo(programs, f"--port={free_port}", path="/nowhere")
    assert done.returncode == 1
    assert done.stderr == f"hpcspawner demo: {name} is not on PATH; `make demo` installs what the demo needs\n"
