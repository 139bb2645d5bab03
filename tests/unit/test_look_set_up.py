"""The look at what an environment's set-up needs: the site's modules, the environment's Python and its Jupyter."""

import json
import logging
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from unit.test_helper import PYTHON, USER

from hpcspawner.checks import set_ups
from hpcspawner.checks.finding import run_all
from hpcspawner.programs import look, usable
from hpcspawner.programs.joined import joined_look
from hpcspawner.request import looks
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.site.profile import Access, parse

# A module system: a module is a file below MODULEPATH, which loading reads.
MODULES = """\
module() {
  local folder
  case $1 in
    use) MODULEPATH=$2:${MODULEPATH-}; return ;;
    load) ;;
    *) return 1 ;;
  esac
  IFS=: read -ra folders <<<"$MODULEPATH"
  for folder in "${folders[@]}"; do
    if [ -f "$folder/$2" ]; then . "$folder/$2"; LOADEDMODULES=${LOADEDMODULES-}:$2; return; fi
  done
  return 1
}
"""
JUPYTER = ["jupyterhub-singleuser"]
IDS = ("--reuid={user}", f"--regid={pwd.getpwnam(USER).pw_gid}", "--clear-groups")
GONE = "Choose another environment, and tell those who run this cluster."


@pytest.fixture
def place():
    """A folder that all users may enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def modules(place):
    """The file that brings `module`, with two modules: `outer` shows where `inner/1` is."""
    (place / "inside").mkdir()
    (place / "core").mkdir()
    (place / "core" / "outer").write_text(f"module use {place}/inside\n")
    (place / "inside" / "inner").write_text("export FROM_MODULE=inner\n")
    init = place / "init.sh"
    init.write_text(MODULES)
    return {"init": str(init), "use": [str(place / "core")]}


def environment(folder, python="exit 0", program="jupyterhub-singleuser"):
    """A virtual environment whose Python is this script."""
    (folder / "bin").mkdir(parents=True)
    (folder / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (folder / "lib" / "python3.11" / "site-packages").mkdir(parents=True)
    for name, text in (("python", f"#!/bin/sh\n{python}\n"), (program, f"#!{folder}/bin/python\n")):
        (folder / "bin" / name).write_text(text)
        (folder / "bin" / name).chmod(0o755)
    return folder


def problems(unsure=False, **check):
    """What the program answers, as an ordinary user."""
    who = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [PYTHON, "-IS", "-c", joined_look()],
        input=json.dumps({"check": check}) + "\n",
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
        **who,
    )
    answer = json.loads(done.stdout)
    assert answer.get("unsure", False) is unsure
    return [one["message"] for one in answer["problems"]]


def host():
    return os.uname().nodename


def test_a_module_that_is_missing_is_named_and_one_that_another_brings_is_not(modules):
    set_up = modules | {"modules": ["outer", "inner", "nowhere/9", "it's"]}
    assert problems(set_up=set_up) == [f"There is no module {one} on {host()}. {GONE}" for one in ("nowhere/9", "it's")]
    assert problems(set_up=modules | {"modules": ["outer", "inner"]}) == []


def test_words_of_a_module_are_no_lines_of_bash(modules, place):
    for word in (f"$(touch {place}/made)", f"`touch {place}/made`", f"x; touch {place}/made", "-v"):
        assert problems(set_up=modules | {"modules": [word]}) == [f"There is no module {word} on {host()}. {GONE}"]
    assert not (place / "made").exists()


@pytest.mark.parametrize("text", ["", "exit 0", "set -e; false", "set -- a b c", "unset -f module"])
def test_where_nothing_brings_modules_nothing_is_said_of_them(place, text):
    init = place / "init.sh"
    init.write_text(text)
    assert problems(set_up={"init": str(init), "modules": ["nowhere/9"]}, unsure=True) == []
    assert problems(set_up={"init": "/nowhere", "modules": ["nowhere/9"]}, unsure=True) == []


def test_what_a_module_system_leaves_to_the_shell_is_no_word_of_ours(modules, place):
    noisy = place / "noisy.sh"
    noisy.write_text(f"{MODULES}\nset -- other words; echo hello; echo oops >&2; read line\n")
    assert problems(set_up=modules | {"init": str(noisy), "modules": ["outer", "gone"]}) == [
        f"There is no module gone on {host()}. {GONE}"
    ]


def test_a_python_that_does_not_run_is_named_with_its_last_words(place):
    folder = environment(place / "env", "echo first; echo 'libpython3.11.so: cannot open' >&2; exit 127")
    why = f"The Python of the environment {folder} does not run on {host()}: libpython3.11.so: cannot open."
    assert problems(environment=str(folder), set_up={"programs": JUPYTER}) == [f"{why} Make it again."]
    silent = environment(place / "silent", "exit 4")
    (told,) = problems(environment=str(silent), set_up={"programs": JUPYTER})
    assert "exit code 4. Make it again." in told


def test_one_that_hangs_is_ended_with_all_that_it_started(place):
    folder = environment(place / "env", "sleep 600 & exec sleep 600")
    text = joined_look().replace("RUN_S = 8", "RUN_S = 1")
    assert text.count("RUN_S = 1\n") == 1
    asked = json.dumps({"check": {"environment": str(folder)}}) + "\n"
    who = {"user": USER, "group": pwd.getpwnam(USER).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    # Its standard error ends when the last process that has it does.
    done = subprocess.run(
        [PYTHON, "-IS", "-c", text], input=asked, capture_output=True, text=True, check=True, cwd="/", **who
    )
    (told,) = json.loads(done.stdout)["problems"]
    assert told["message"] == f"The Python of the environment {folder} did not answer on {host()} within 1 s."


def test_an_environment_without_jupyter_or_with_half_of_it_is_named(place):
    bare = environment(place / "bare", program="other")
    assert problems(environment=str(bare), set_up={"programs": JUPYTER}) == [
        f"jupyterhub-singleuser was not found in {bare}. Add the package jupyterhub to that environment, with pip "
        "or conda."
    ]
    assert problems(environment=str(bare)) == []
    half = environment(place / "half", "exit 3")
    (told,) = problems(environment=str(half), set_up={"programs": JUPYTER})
    assert "its Python can't find the package jupyterhub" in told
    # Behind the site's proxy another Jupyter will do.
    behind = environment(place / "behind", program="jupyter-lab")
    assert problems(environment=str(behind), set_up={"programs": [*JUPYTER, "jupyter-lab"]}) == []
    moved = environment(place / "moved")
    (moved / "bin" / "jupyterhub-singleuser").write_text("#!/nowhere/python\n")
    (told,) = problems(environment=str(moved), set_up={"programs": JUPYTER})
    assert "jupyterhub-singleuser was not found" in told


def test_the_package_is_asked_of_the_program_s_own_python(place):
    folder, other = environment(place / "env"), environment(place / "other", "exit 3")
    (folder / "bin" / "jupyterhub-singleuser").write_text(f"#!{other}/bin/python\n")
    (told,) = problems(environment=str(folder), set_up={"programs": JUPYTER})
    assert f"The environment {folder} has jupyterhub-singleuser, and its Python can't find" in told
    # As pip writes it where the path is long.
    (folder / "bin" / "jupyterhub-singleuser").write_text("#!/bin/sh\n")
    assert problems(environment=str(folder), set_up={"programs": JUPYTER}) == []


def test_a_real_environment_is_usable():
    prefix = Path(sys.prefix)
    why = usable.why_not_running(str(prefix), {"programs": JUPYTER}, dict(os.environ), usable.Kept("/nowhere"))
    assert why == ""


def test_an_environment_is_found_by_its_name_and_by_its_folder_in_the_path(place, modules):
    conda = place / "conda"
    environment(conda / "envs" / "torch", "exit 5")
    (conda / "bin").mkdir()
    (conda / "bin" / "conda").symlink_to("/bin/true")
    (told,) = problems(set_up={"conda": "torch", "roots": [str(conda)], "programs": JUPYTER})
    assert f"The Python of the environment {conda}/envs/torch does not run" in told
    # One that only conda itself can find is left to it.
    assert problems(set_up={"conda": "other", "roots": [str(conda)], "programs": JUPYTER}) == []
    (told,) = problems(set_up={"path": [f"{conda}/envs/torch/bin"], "programs": JUPYTER})
    assert "exit code 5" in told


def counting(folder):
    """An environment whose Python counts its calls."""
    return environment(folder, f"echo run >>{folder}/runs")


def runs(folder):
    return len((folder / "runs").read_text().split())


def look_at(folder, home):
    asked = {"environment": str(folder), "set_up": {"programs": JUPYTER}}
    return look.checked(asked, str(home))["problems"]


@pytest.mark.parametrize("changed", ["lib/python3.11/site-packages/new", "bin/python", "pyvenv.cfg"])
def test_what_was_usable_and_has_not_changed_is_not_run_again(tmp_path, changed):
    folder, home = counting(tmp_path / "env"), tmp_path / "home"
    home.mkdir()
    assert [look_at(folder, home) for _ in range(3)] == [[], [], []]
    assert runs(folder) == 1
    kept = home / usable.KEPT
    assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    with (folder / changed).open("a") as file:
        file.write("\n")
    assert look_at(folder, home) == []
    assert runs(folder) == 2


def test_what_was_not_usable_is_run_again(tmp_path):
    folder = environment(tmp_path / "env", f"echo run >>{tmp_path}/env/runs; exit 1")
    assert [len(look_at(folder, tmp_path)) for _ in range(2)] == [1, 1]
    assert runs(folder) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": 1}', "null", "x" * 100_000, '{"x": [[], "y"]}'])
def test_a_file_that_is_none_of_ours_is_taken_for_none(tmp_path, text):
    folder = counting(tmp_path / "env")
    (tmp_path / usable.KEPT).parent.mkdir(parents=True)
    (tmp_path / usable.KEPT).write_text(text)
    assert look_at(folder, tmp_path) == look_at(folder, tmp_path) == []
    assert runs(folder) == 1


@pytest.mark.parametrize("how", ["link", "writable", "other's", "pipe", "old", "ahead"])
def test_what_another_may_have_written_is_not_believed(tmp_path, how):
    folder, kept = counting(tmp_path / "env"), tmp_path / usable.KEPT
    look_at(folder, tmp_path)
    if how == "link":
        kept.rename(tmp_path / "elsewhere")
        kept.symlink_to(tmp_path / "elsewhere")
    elif how == "writable":
        kept.chmod(0o620)
    elif how == "other's":
        os.chown(kept, pwd.getpwnam(USER).pw_uid, -1)
    elif how == "pipe":
        kept.unlink()
        os.mkfifo(kept)
    else:
        entries = json.loads(kept.read_text())
        away = usable.KEPT_S + 1 if how == "old" else -3600
        kept.write_text(json.dumps({key: [state, at - away] for key, (state, at) in entries.items()}))
    assert look_at(folder, tmp_path) == []
    assert runs(folder) == 2


def test_a_home_that_takes_no_file_is_no_matter(tmp_path):
    folder = counting(tmp_path / "env")
    (tmp_path / ".cache").write_text("no folder")
    assert look_at(folder, tmp_path) == look_at(folder, tmp_path) == []
    assert runs(folder) == 2
    # Its place is taken; what was begun is gone.
    (tmp_path / "other" / usable.KEPT).mkdir(parents=True)
    assert look_at(folder, tmp_path / "other") == []
    assert os.listdir((tmp_path / "other" / usable.KEPT).parent) == [Path(usable.KEPT).name]


def test_no_more_is_kept_than_a_bound_and_the_newest_of_it(tmp_path):
    kept = usable.Kept(str(tmp_path / usable.KEPT))
    for number in range(usable.MOST + 5):
        kept.keep(str(number), [number])
    kept.write()
    again = usable.Kept(str(tmp_path / usable.KEPT))
    assert list(again.entries) == [str(number) for number in range(5, usable.MOST + 5)]


SITE = {
    "title": "Test",
    "scheduler": {"type": "slurm", "look": True},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "own_setup": {"max_chars": 100},
}
ALICE = LocalAccount("alice", "/home/alice")


def asked(environment, job=(), fallback=(), **options):
    profile = parse(SITE | {"environments": [{"name": "one", **environment}], "job": dict(job)}, "site.toml")
    request = make({"environment": "one", **options}, profile, ALICE)
    return json.loads(looks.check(profile, ALICE, request, fallback))["check"].get("set_up")


def test_the_question_has_what_the_set_up_needs():
    told = asked(
        {"modules": ["a/1 b"], "purge_modules": True, "conda": "torch", "path": ["~/bin"]},
        {"prologue": "# Ours.\nmodule use /a /b\n", "modules_init": "/init.sh", "conda": "/opt/conda", "proxy": "/p"},
    )
    homes = [f"/home/alice/{one}" for one in ("miniconda3", "miniforge3", "anaconda3", ".conda")]
    assert told == {
        "init": "/init.sh",
        "use": ["/a", "/b"],
        "purge": True,
        "modules": ["a/1", "b"],
        "path": ["/home/alice/bin"],
        "conda": "torch",
        "roots": ["/opt/conda", *homes],
        "programs": told["programs"],
    }
    assert told["programs"][0] == "jupyterhub-singleuser"


@pytest.mark.parametrize(
    "prologue",
    ["module load base", "export MODULEPATH=/x", "source /x", ". /x", "module use $HERE", "module use /a; . /b"],
)
def test_where_a_prologue_may_bring_modules_none_is_looked_for(prologue):
    told = asked({"modules": ["a"]}, {"prologue": prologue})
    assert "modules" not in told
    assert "programs" not in told


@pytest.mark.parametrize(
    "what",
    [
        {"environment": {"setup": ["x"]}},
        {"environment": {"variables": {"PATH": "/x"}}},
        {"environment": {}, "fallback": ["/x"]},
        {"environment": {}, "job": {"prologue": "export PATH=/x:$PATH"}},
        {"environment": {}, "own_setup": "PATH=/x:$PATH"},
    ],
)
def test_where_something_else_may_bring_jupyter_it_is_not_missed(what):
    assert "programs" in asked({})
    assert "programs" not in asked(**what)


def client(**access):
    access = Access(type="slurm", path=("/usr/bin", "/bin"), **access)
    return Client(make_scheduler(access, Path("spool")), access, logging.getLogger("test"))


async def findings(job, desk, user="", **environments):
    listed = [{"name": name, **one} for name, one in environments.items()]
    profile = parse(SITE | {"environments": listed, "job": job}, "site.toml")
    return [one async for _, one in run_all(set_ups.checks(profile, desk, user))]


async def test_hpcspawner_check_names_modules_that_are_missing_and_an_environment_that_does_not_run(modules, place):
    job = {"modules_init": modules["init"], "prologue": f"module use {place}/core"}
    environment(place / "env", "exit 5")
    own = {"gone": {"modules": ["outer", "nowhere/9"]}, "there": {"modules": ["outer"]}}
    own |= {"broken": {"path": [f"{place}/env/bin"]}, "nothing": {}, "far": {"conda": "/nowhere"}}
    # As this account, or as root for a user of the Hub's.
    desk, user = (
        (client(command_prefix=["setpriv", *IDS, "--"], look=True), USER) if os.geteuid() == 0 else (client(), "")
    )
    found = await findings(job, desk, user, **own)
    host_ = host()
    assert [(one.outcome.value, one.what) for one in found] == [
        ("warning", f"gone: There is no module nowhere/9 on {host_}."),
        ("ok", "there: nothing is missing for its set-up"),
        (
            "warning",
            f"broken: The Python of the environment {place}/env does not run on {host_}: exit code 5. Make it again.",
        ),
        ("warning", f"far: There is no environment in /nowhere on {host_}. Make it again, or choose another."),
    ]
    assert found[0].cure.startswith("correct environments (gone)")
    (one,) = await findings({"modules_init": "/nowhere"}, desk, user, one={"modules": ["outer"]})
    assert (one.outcome.value, "no module system here" in one.what) == ("not checked", True)


async def test_hpcspawner_check_says_where_it_could_not_look(place):
    away = client(ssh=["hub@login1"], ssh_key="/k", ssh_known_hosts="/k", helper="/usr/local/libexec/hpcspawner")
    (one,) = await findings({}, away, one={"modules": ["x"]})
    assert (one.outcome.value, "scheduler.look and --user=NAME" in one.what) == ("not checked", True)
    if os.geteuid() == 0:
        (one,) = await findings({}, client(), one={"modules": ["x"]})
        assert "run this as the Hub's account" in one.what


def test_an_image_is_entered_once_and_asked_for_one_of_the_programs(place):
    """The container program records how it is called, and runs what it is given."""
    image, programs = place / "image.simg", place / "programs"
    image.write_bytes(b"hsqs" + bytes(100))
    programs.mkdir()
    apptainer = programs / "apptainer"
    apptainer.write_text(f'#!/bin/sh\necho "$*" >>{place}/calls\nshift 4\nPATH={place}/inside exec "$@"\n')
    apptainer.chmod(0o755)
    (place / "inside").mkdir()
    os.chmod(place, 0o777)
    asked = {
        "image": str(image),
        "inside": ["jupyterhub-singleuser", "jupyter-lab"],
        "set_up": {"path": [str(programs)]},
    }
    (told,) = problems(**asked)
    assert told == (
        f"The image {image} has no jupyterhub-singleuser or jupyter-lab. Choose another image, or add it there."
    )
    (place / "inside" / "jupyter-lab").symlink_to("/bin/true")
    for _ in range(2):
        assert problems(**asked) == []
    calls = (place / "calls").read_text().splitlines()
    assert len(calls) >= 2
    assert all(call.startswith(f"exec --containall --cleanenv {image} /bin/sh -c ") for call in calls)
    # Where there is no such program, nothing is said of it.
    assert problems(**asked | {"set_up": {"path": []}}) == []
