"""The set-up of a job, run by bash: what ends it early, what it may not break, where `module` and conda come from."""

import contextlib
import os
import shlex
import sys
import time

import pytest
from support.scripts import SMALL_SITE, job_runs, with_setup

from hpcspawner.programs.launcher import codes

NODE = os.uname().nodename
# Shows a folder as another one to what follows; users have a namespace of their own for it.
SHOWN_AS = [
    "unshare",
    *([] if os.geteuid() == 0 else ["--map-root-user"]),
    *("--mount", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"),
]
# A module system as OpenHPC and SUSE have it, and the command of one.
MODULE = 'module() { echo "module $*: $MODULEPATH"; export "LOADED=$2"; }\n'
NOT_IN_JOBS = 'if [ -n "$SLURM_NODELIST" ] || [ -n "$PBS_NODEFILE" ]; then\n  return\nfi\n'


@pytest.fixture
def run(tmp_path):
    with job_runs(tmp_path) as start:
        yield start


@pytest.fixture
def profile_d(tmp_path):
    """A function that gives a node these files in /etc/profile.d: the words that put a command on such a node."""

    def make(**files):
        folder = tmp_path / "profile.d"
        folder.mkdir()
        for name, text in files.items():
            (folder / f"{name}.sh").write_text(text)
        return [*SHOWN_AS, str(folder), "/etc/profile.d"]

    return make


# --- what ends a set-up early


PROLOGUE = "the site's prologue (job.prologue), which ended the job's script with exit code"


@pytest.mark.parametrize(
    ("prologue", "code"),
    [
        pytest.param("exit 3", 3, id="exit"),
        pytest.param("exit 0", 0, id="exit without an error"),
        pytest.param("set -e\n. /no/such/file\necho not reached", 1, id="set -e and a missing file"),
        pytest.param("set -eu\ncd /no/such/folder\necho not reached", 1, id="set -eu and a missing folder"),
        pytest.param('set -u\necho "$NOT_SET"\necho not reached', 1, id="a variable that is not set"),
        pytest.param("set -o posix\n. /no/such/file\necho not reached", 1, id="posix and a missing file"),
        pytest.param("trap 'echo cleared away' EXIT\nexit 4", 4, id="with a trap of its own"),
        pytest.param("if true; then", 2, id="a syntax error"),
        pytest.param("echo 'no end", 2, id="a quotation without an end"),
    ],
)
def test_a_prologue_that_ends_the_script_is_reported(run, prologue, code):
    job = run(profile=with_setup(job={"prologue": prologue}))
    assert job.ends() == 0, "the launcher's own"
    assert job.recorded("setup-failed") == f"{PROLOGUE} {code}"
    assert job.recorded("launcher")
    assert "not reached" not in job.log.read_text()


@pytest.mark.parametrize(
    ("prologue", "told"),
    [
        pytest.param("trap 'echo cleared away' EXIT", True, id="EXIT"),
        pytest.param("trap -- 'echo cleared away' 0 USR2", True, id="0, with another"),
        pytest.param("tidy() { echo cleared away; }; trap tidy exit", True, id="a function"),
        pytest.param("trap 'echo cleared away' EXIT; trap - EXIT", False, id="taken back"),
        pytest.param("trap 'echo cleared away' USR2; trap -p; trap; trap - USR2", False, id="other signals"),
    ],
)
@pytest.mark.parametrize("then", ["", "\nexit 5"], ids=["", "and an early end"])
def test_what_a_prologue_leaves_for_the_end_of_the_script_runs_there(run, prologue, told, then):
    job = run(profile=with_setup(job={"prologue": prologue + then}))
    assert job.ends() == 0
    text = job.log.read_text()
    assert text.endswith("the launcher's words\ncleared away\n") is told
    assert job.recorded("setup-failed") == (f"{PROLOGUE} 5" if then else "")


@pytest.mark.parametrize(
    ("lines", "failed"),
    [
        pytest.param(["exit 3"], "exit 3, which ended the job's script with exit code 3", id="exit"),
        pytest.param(
            ["set -euo pipefail", 'echo "$NOT_SET"'],
            'echo "$NOT_SET", which ended the job\'s script with exit code 1',
            id="a variable that is not set",
        ),
        pytest.param(["set -euo pipefail", "false | true"], "false | true", id="a part of a pipe"),
        pytest.param(
            ["trap 'true' EXIT", "exit 9"], "exit 9, which ended the job's script with exit code 9", id="trap"
        ),
    ],
)
def test_a_line_that_ends_the_script_is_reported(run, lines, failed):
    job = run(profile=with_setup(*lines))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == failed


def test_options_of_the_shell_end_with_the_set_up(run):
    """With -e, a server that ends with an error would take the epilogue with it."""
    job = run(does="exit 7", profile=with_setup("set -euo pipefail", job={"epilogue": 'echo "the epilogue $NOT_SET"'}))
    assert job.ends() == 7
    assert job.recorded("setup-failed") == ""
    assert job.log.read_text().endswith("the epilogue \n")


@pytest.mark.parametrize("option", ["set -x", "set -v", "set -a", "set -xva"])
def test_no_option_of_the_shell_tells_the_ticket(run, option):
    job = run(profile=with_setup("true", job={"prologue": option}))
    assert job.ends() == 0
    assert "TICKET-STANDS-HERE" in job.recorded("settings")
    assert "TICKET-STANDS-HERE" not in job.log.read_text() + job.recorded("environment")


def test_a_job_that_is_cancelled_in_its_set_up_starts_no_launcher(run, tmp_path):
    job = run(profile=with_setup(f"touch {shlex.quote(str(tmp_path / 'begun'))}; read <> <(:)"))
    job.wait_until(tmp_path / "begun")
    # One that comes just before bash waits in its `read` is heeded when another one wakes it.
    while job.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(job.process.pid, 15)
        time.sleep(0.1)
    assert job.ends() in (143, -15)
    assert not (job.record / "launcher").exists()


@pytest.mark.parametrize("shell", ["5.0", "4.4", ""])
def test_a_node_without_room_for_a_file_starts_the_launcher(run, tmp_path, shell):
    """Bash up to 5.0 keeps here-documents in files."""
    full = tmp_path / "full"
    full.mkdir()
    command = 'mount -t tmpfs -o size=4k full "$0" && { yes >"$0/all"; exec "$@"; } 2>/dev/null'
    within = [*SHOWN_AS[: SHOWN_AS.index("-c")], "-c", command, str(full)]
    job = run(within=within, variables={"TMPDIR": str(full)} | ({"BASH_COMPAT": shell} if shell else {}))
    assert job.ends() == 0
    assert job.recorded("launcher")
    assert "TICKET-STANDS-HERE" in job.recorded("settings")


# --- what a set-up may not break


@pytest.mark.parametrize("name", ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_BIND_NOW", "SSL_CERT_FILE", "OPENSSL_CONF"])
@pytest.mark.parametrize("found", ["/as/found", None])
def test_the_launcher_is_loaded_as_the_script_was(run, name, found):
    if name == "LD_PRELOAD" and found:
        found = ""
    job = run(profile=with_setup(f"export {name}='/of/the set-up'"), variables={} if found is None else {name: found})
    assert job.ends() == 0
    environment = job.environment()
    assert environment.get(name) == found
    assert environment[f"HPC_SET_{name}"] == "/of/the set-up"


@pytest.mark.parametrize(
    "variable", ["LD_LIBRARY_PATH={}", "LD_PRELOAD={}/libssl.so.3", "PYTHONHOME={0} PYTHONPATH={0}"]
)
@pytest.mark.parametrize("where", ["setup", "prologue"])
def test_a_library_of_the_set_up_does_not_end_the_launcher(run, tmp_path, variable, where):
    """The real one; its answer to a callback address that is not of https."""
    for name in ("libssl.so.3", "libssl.so.1.1", "libcrypto.so.3", "libpython3.11.so.1.0", "ssl.py"):
        (tmp_path / name).write_text("broken")
    line = f"export {variable.format(shlex.quote(str(tmp_path)))}"
    job = {"python": sys.executable} | ({"prologue": line} if where == "prologue" else {})
    profile = with_setup(*([line] if where == "setup" else []), job=job)
    assert run(profile=profile, url="http://hub/").ends() == codes.SETTINGS_CODE


# --- modules


@pytest.mark.parametrize("where", ["modules", "setup", "prologue"])
@pytest.mark.parametrize("name", ["modules", "lmod", "z00_lmod", "00-modulepath", "zz-site"])
@pytest.mark.parametrize("variable", ["SLURM_NODELIST", "PBS_NODEFILE"])
def test_module_is_there_wherever_it_is_used(run, profile_d, where, name, variable):
    node = profile_d(**{name: NOT_IN_JOBS + MODULE, "z_paths": "export MODULEPATH=/opt/modules\n"})
    site = {
        "modules": with_setup(modules=["anaconda/3"]),
        "setup": with_setup("module load anaconda/3"),
        "prologue": with_setup(job={"prologue": "module load anaconda/3"}),
    }[where]
    job = run(profile=site, within=node, variables={variable: "n[1-2]"})
    assert job.ends() == 0
    assert job.recorded("setup-failed") == ""
    assert "module load anaconda/3: /opt/modules" in job.log.read_text()
    environment = job.environment()
    assert (environment["LOADED"], environment[variable]) == ("anaconda/3", "n[1-2]")


def test_files_of_red_hat_that_change_the_path_are_read(run, profile_d):
    node = profile_d(a="pathmunge /opt/first\npathmunge /opt/last after\npathmunge /usr/bin\n", b=MODULE)
    job = run(profile=with_setup(modules=["x"]), within=node)
    assert job.ends() == 0
    path = job.environment()["PATH"]
    assert path == f"/opt/first:{job.folder}/bin:/usr/bin:/bin:/opt/last"


def test_a_file_that_ends_the_shell_is_named(run, profile_d):
    job = run(profile=with_setup("true"), within=profile_d(bad="exit 1\n"))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == (
        "reading /etc/profile.d/bad.sh, which ended the job's script with exit code 1"
    )


def test_a_node_that_has_module_already_is_left_alone(run, profile_d):
    node = [*profile_d(bad="export READ=1\n"), "env", 'BASH_FUNC_module%%=() { export "LOADED=$2"; }']
    job = run(profile=with_setup(modules=["anaconda/3"]), within=node)
    assert job.ends() == 0
    assert job.environment()["LOADED"] == "anaconda/3"
    assert "READ" not in job.environment()


def test_the_profile_names_what_brings_module(run, profile_d, tmp_path):
    (tmp_path / "the home").mkdir()
    (tmp_path / "the home" / "init it").write_text(NOT_IN_JOBS + MODULE)
    site = with_setup(modules=["anaconda/3"], job={"modules_init": "~/init it"})
    job = run(profile=site, within=profile_d(bad="export READ=1\n"), home=False, variables={"SLURM_NODELIST": "n1"})
    assert job.ends() == 0
    assert job.environment()["LOADED"] == "anaconda/3"
    assert "READ" not in job.environment()


@pytest.mark.parametrize("line", ["module load anaconda/3", "ml anaconda/3", "true && module purge"])
def test_without_module_it_is_said_where_it_was_looked_for(run, profile_d, line):
    job = run(profile=with_setup(line, job={"modules_init": "/opt/no such"}), within=profile_d())
    assert job.ends() == 0
    said = (
        f"no `module` command on {NODE}; looked in /opt/no such; job.modules_init of the site's profile names the file"
    )
    assert job.recorded("setup-failed") == f"{line} ({said} to read)"
    assert said in job.log.read_text()


def test_a_set_up_that_asks_whether_there_is_a_module_command_gets_the_truth(run, profile_d):
    job = run(profile=with_setup("if type module; then exit 1; fi"), within=profile_d())
    assert job.ends() == 0
    assert job.recorded("setup-failed") == ""


# --- conda


CONDA = """\
#!/bin/bash
[ "$*" = "shell.bash hook" ] || exit 9
echo 'conda() { [ -d "{root}/envs/$2" ] || return 1; export CONDA_PREFIX="{root}/envs/$2" USED="{root}"; }'
"""


def conda_at(root, *environments):
    """A folder that holds a conda with these environments."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "conda").write_text(CONDA.replace("{root}", str(root)))
    (root / "bin" / "conda").chmod(0o755)
    for name in environments:
        (root / "envs" / name / "bin").mkdir(parents=True)
    return root


@pytest.mark.parametrize("place", ["miniconda3", "miniforge3", "anaconda3", ".conda"])
def test_a_conda_in_the_home_is_found(run, tmp_path, place):
    root = conda_at(tmp_path / "the home" / place, "example_env")
    job = run(profile=with_setup(conda="example_env"), home=False)
    assert job.ends() == 0
    assert job.recorded("setup-failed") == ""
    assert job.environment()["CONDA_PREFIX"] == f"{root}/envs/example_env"


@pytest.mark.parametrize("how", ["path", "CONDA_EXE", "job.conda"])
def test_a_conda_that_all_share_is_found(run, tmp_path, how):
    root = conda_at(tmp_path / "shared conda", "jupyter")
    conda_at(tmp_path / "the home" / "miniconda3", "jupyter")
    environment = {"path": [str(root / "bin")]} if how == "path" else {}
    site = with_setup(conda="jupyter", job={"conda": str(root)} if how == "job.conda" else {}, **environment)
    variables = {"CONDA_EXE": str(root / "bin" / "conda")} if how == "CONDA_EXE" else {}
    job = run(profile=site, home=False, variables=variables)
    assert job.ends() == 0
    assert job.recorded("setup-failed") == ""
    assert job.environment()["USED"] == str(root)


def test_a_conda_without_the_environment_leaves_it_to_the_next(run, tmp_path):
    shared = conda_at(tmp_path / "shared")
    root = conda_at(tmp_path / "the home" / "miniconda3", "mine")
    job = run(profile=with_setup(conda="mine", path=[str(shared / "bin")]), home=False)
    assert job.ends() == 0
    assert job.environment()["USED"] == str(root)


def test_an_environment_in_the_home_needs_no_conda(run, tmp_path):
    prefix = tmp_path / "the home" / ".conda" / "envs" / "mine"
    (prefix / "bin").mkdir(parents=True)
    job = run(profile=with_setup(conda="mine"), home=False)
    assert job.ends() == 0
    assert job.environment()["PATH"].startswith(f"{prefix}/bin:")


def test_a_folder_is_activated_by_its_own_script(run, tmp_path):
    prefix = tmp_path / "an env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "bin" / "activate").write_text('export ACTIVATED="$#"\n')
    job = run(profile=with_setup(conda=str(prefix)))
    assert job.ends() == 0
    assert job.environment()["ACTIVATED"] == "0"


@pytest.mark.parametrize("how", ["absolute", "home"])
def test_a_folder_without_a_script_is_activated_as_conda_would(run, tmp_path, how):
    prefix = tmp_path / "the home" / "an env"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "etc" / "conda" / "activate.d").mkdir(parents=True)
    (prefix / "etc" / "conda" / "activate.d" / "gdal.sh").write_text('export FROM_ACTIVATE="$CONDA_PREFIX"\n')
    job = run(profile=with_setup(conda=str(prefix) if how == "absolute" else "~/an env"), home=False)
    assert job.ends() == 0
    environment = job.environment()
    assert environment["PATH"].startswith(f"{prefix}/bin:")
    assert environment["FROM_ACTIVATE"] == environment["CONDA_PREFIX"] == str(prefix)


def test_what_is_wrong_with_an_environment_is_said(run, tmp_path):
    root = conda_at(tmp_path / "the home" / "miniconda3")
    job = run(profile=with_setup(conda="absent"), home=False)
    assert job.ends() == 0
    assert job.recorded("setup-failed") == (
        f"the conda environment absent ({root}/bin/conda could not activate it on {NODE}; the job's log says why;"
        " job.conda of the site's profile names the folder of another conda)"
    )


def test_a_folder_that_is_not_there_is_named(run):
    job = run(profile=with_setup(conda="/no/such env"))
    assert job.ends() == 0
    assert job.recorded("setup-failed") == (
        f"the conda environment /no/such env (there is no folder /no/such env/bin on {NODE})"
    )


# --- umask


@pytest.mark.parametrize(
    ("lines", "mask"),
    [
        pytest.param("UMASK\t\t077\n", "0077", id="a closed system"),
        pytest.param("# UMASK 077\nUMASK 027\nUSERGROUPS_ENAB no\n", "0027", id="with a comment"),
        pytest.param("USERGROUPS_ENAB yes\nUMASK 022\n", None, id="groups of one's own"),
        pytest.param("UMASK nonsense\n", "0026", id="nonsense"),
        pytest.param("", "0026", id="nothing"),
    ],
)
def test_the_umask_is_that_of_a_login(run, tmp_path, lines, mask):
    file = tmp_path / "login.defs"
    file.write_text(lines)
    if mask is None:
        own = os.popen("[ $(id -un) = $(id -gn) ] && echo yes").read() or os.geteuid() != 0
        mask = "0002" if own else "0022"
    within = [*SHOWN_AS, str(file), "/etc/login.defs", "bash", "-c", 'umask 026; exec "$@"', "bash"]
    job = run(profile=with_setup('export MASK="$(umask)"'), within=within)
    assert job.ends() == 0
    assert job.environment()["MASK"] == mask


@pytest.mark.parametrize("umask", ["007", "0027"])
def test_the_umask_is_the_sites(run, umask):
    job = run(profile=with_setup('export MASK="$(umask)"', job={"umask": umask}))
    assert job.ends() == 0
    assert int(job.environment()["MASK"], 8) == int(umask, 8)


def test_a_set_up_may_change_the_umask(run):
    job = run(profile=SMALL_SITE | {"job": {"umask": "027", "prologue": "umask 077; export MASK=$(umask)"}})
    assert job.ends() == 0
    assert job.environment()["MASK"] == "0077"
