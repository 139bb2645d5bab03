"""What looks at files as a user: the program by itself, through the helper, and what the Hub makes of its answers."""

import ast
import asyncio
import json
import logging
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest
from unit.test_helper import PYTHON, USER

from hpcspawner.errors import SchedulerNotSetUp, SchedulerUnreachable
from hpcspawner.hub import asks
from hpcspawner.hub import looks as hub_looks
from hpcspawner.hub.asks import Turns
from hpcspawner.hub.looks import Kept
from hpcspawner.programs import helper, look
from hpcspawner.programs.joined import joined_look
from hpcspawner.request import looks
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers import commands
from hpcspawner.schedulers.commands import Client
from hpcspawner.schedulers.factory import make_scheduler
from hpcspawner.site.profile import Access, parse

ALICE = LocalAccount("alice", "/home/alice")
SITE = {
    "title": "Test",
    "scheduler": {"type": "slurm", "look": True},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "environments": [{"name": "jupyter"}],
    "own_environments": {"folders": ["{home}", "/projects/{group}"]},
}
PROFILE = parse(SITE, "site.toml")


def environment(folder, *packages, conda=True, marker=""):
    """What conda or venv makes, with these packages in it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    if conda:
        (folder / "conda-meta").mkdir()
    else:
        (folder / "pyvenv.cfg").write_text(f"home = /usr/bin\n{marker}")
    for name in packages:
        (folder / "lib" / "python3.11" / "site-packages" / name).mkdir(parents=True)
    return folder


def found(home, *folders):
    return {
        one["path"].removeprefix(f"{home}/"): (one["kind"], one["lacks"])
        for one in look.found(str(home), [str(one) for one in folders], float("inf"))
    }


def test_environments_are_found_where_conda_and_people_put_them(tmp_path):
    all_three = ("jupyterhub", "jupyterlab", "ipykernel")
    environment(tmp_path / "miniforge3" / "envs" / "torch", *all_three)
    environment(tmp_path / ".conda" / "envs" / "old", "ipykernel")
    environment(tmp_path / "venv", conda=False)
    environment(tmp_path / "sees-all", conda=False, marker="include-system-site-packages = true\n")
    environment(tmp_path / "projects" / "shared", *all_three)
    listed = environment(tmp_path / "deep" / "down" / "listed", *all_three)
    (tmp_path / ".conda" / "environments.txt").write_text(f"{listed}\n/nowhere\nrelative\n\n{listed}\n")
    (tmp_path / "no-environment" / "bin").mkdir(parents=True)
    assert found(tmp_path, tmp_path / "projects") == {
        "deep/down/listed": ("conda", []),
        "miniforge3/envs/torch": ("conda", []),
        "sees-all": ("venv", []),
        "venv": ("venv", list(all_three)),
        ".conda/envs/old": ("conda", ["jupyterhub", "jupyterlab"]),
        "projects/shared": ("conda", []),
    }


def test_one_whose_python_is_gone_is_none(tmp_path):
    folder = environment(tmp_path / "venv", conda=False)
    (folder / "bin" / "python").unlink()
    (folder / "bin" / "python").symlink_to("/nowhere/python")
    assert found(tmp_path) == {}


def test_an_environment_with_two_names_is_told_once(tmp_path):
    folder = environment(tmp_path / "a")
    (tmp_path / "b").symlink_to(folder)
    assert list(found(tmp_path)) == ["a"]


def test_what_a_user_can_make_without_end_is_looked_at_to_a_bound(tmp_path):
    for number in range(look.MOST + 10):
        environment(tmp_path / f"env{number}")
    (tmp_path / ".conda").mkdir()
    # Nobody ever writes to it.
    os.mkfifo(tmp_path / ".conda" / "environments.txt")
    assert len(found(tmp_path)) == look.MOST
    assert list(look.found(str(tmp_path), [], 0.0)) == []


def asked(question, user=USER):
    who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    return subprocess.run(
        [PYTHON, "-IS", "-c", joined_look()],
        input=json.dumps(question) + "\n",
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        **who,
    )


def test_as_root_it_looks_at_nothing():
    if os.geteuid():
        pytest.fail("this test needs root, as the suites have it")
    done = asked({"check": {"directory": "/root"}}, user="root")
    assert (done.returncode, done.stdout) == (77, "")
    assert "not for root" in done.stderr


def test_it_answers_with_what_is_wrong_as_the_user_sees_it():
    answer = json.loads(
        asked({"check": {"directory": "/nowhere", "environment": "/usr", "image": "/etc/shadow"}}).stdout
    )
    told = {one["field"]: one["message"] for one in answer["problems"]}
    assert "has no Python that runs (/usr/bin/python)" in told["environment"] or "environment" not in told
    assert told["image"] == "You may not read the image /etc/shadow. Ask its owner to let you, or copy it."
    assert told["directory"].startswith("The directory /nowhere can't be opened on ")
    assert told["directory"].endswith(": No such file or directory. Create it, or choose another.")


def test_it_is_a_program_for_python_3_6_that_imports_nothing_of_ours():
    tree = ast.parse(joined_look(), feature_version=(3, 6))
    names = {one.name for node in ast.walk(tree) if isinstance(node, ast.Import) for one in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not [name for name in names if name not in sys.stdlib_module_names]


class Room:
    """What a file system has left."""

    f_flag, f_frsize, f_bavail, f_files, f_favail = 0, 1, look.LOW_BYTES, 0, 0

    def __init__(self, **left):
        vars(self).update(left)


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ({}, ""),
        ({"f_bavail": look.LOW_BYTES - 1}, "Only 99 MB are left in {}. Remove files there."),
        ({"f_files": 10**6, "f_favail": 999}, "Only 999 more files can be kept in {}. Remove files there."),
        ({"f_files": 10**6, "f_favail": 1000}, ""),
    ],
)
def test_a_file_system_that_is_nearly_full_is_named(tmp_path, monkeypatch, left, why):
    monkeypatch.setattr(look.os, "statvfs", lambda _: Room(**left))
    assert look.why_no_directory(str(tmp_path)) == why.format(tmp_path)


def answer(*entries, home=True):
    return json.dumps({"host": "login1", "home": home, "found": list(entries)})


def entry(path, *lacks, kind="conda"):
    return {"path": path, "kind": kind, "lacks": list(lacks)}


def test_the_question_names_the_site_s_folders():
    user = LocalAccount("alice", "/home/alice", "chem")
    assert json.loads(looks.find(PROFILE, user)) == {"find": ["/home/alice", "/projects/chem"]}


def test_what_was_found_is_offered_as_people_write_it():
    told = looks.environments(
        PROFILE, ALICE, answer(entry("/home/alice/envs/a"), entry("/home/alice/b", "jupyterhub", "ipykernel"))
    )
    assert told["environments"] == [
        {"name": "~/envs/a", "note": "conda"},
        {"name": "~/b", "note": "conda, without jupyterhub, ipykernel"},
    ]


def test_behind_the_site_s_proxy_jupyterhub_is_not_missed():
    profile = parse(SITE | {"job": {"proxy": "/opt/proxy"}}, "site.toml")
    (one,) = looks.environments(profile, ALICE, answer(entry("/home/alice/b", "jupyterhub")))["environments"]
    assert one["note"] == "conda"


@pytest.mark.parametrize(
    "path", ["/etc/env", "/home/alicia/env", "/home/alice/../bob/env", "/home/alice/a\nb", "/home/alice/{user}"]
)
def test_what_the_gate_would_refuse_or_read_as_another_is_not_offered(path):
    assert looks.environments(PROFILE, ALICE, answer(entry(path)))["environments"] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "x" * 100,
        answer({"path": "/home/alice/a"}),
        answer(entry("/home/alice/a", "<script>")),
        answer(entry("/home/alice/a", kind="spack")),
        answer(*[entry("/home/alice/a")] * (look.MOST + 1)),
        answer(entry("/home/alice/" + "a" * look.LONGEST_PATH)),
    ],
)
def test_an_answer_that_is_none_of_the_program_s_is_refused(text):
    with pytest.raises(looks.AnswerUnreadable):
        looks.environments(PROFILE, ALICE, text)
    with pytest.raises(looks.AnswerUnreadable):
        looks.problems(text)


def test_where_the_home_is_not_seen_the_page_says_so():
    assert "login1, where the Hub looks, does not have your home" in str(
        looks.environments(PROFILE, ALICE, answer(home=False))["message"]
    )


def test_the_check_is_of_what_was_chosen():
    request = make({"environment": "~/envs/a", "directory": "~/work"}, PROFILE, ALICE)
    assert json.loads(looks.check(PROFILE, ALICE, request)) == {
        "check": {
            "directory": "/home/alice/work",
            "environment": "/home/alice/envs/a",
            "set_up": {"programs": ["jupyterhub-singleuser"]},
        }
    }


class Desk:
    """Stands for a cluster whose looks wait to be let go."""

    def __init__(self):
        self.name, self.profile, self.client = "here", PROFILE, self
        self.asked, self.go = [], asyncio.Event()
        self.fails = False

    async def look(self, user, _question):
        self.asked.append(user)
        await self.go.wait()
        if self.fails:
            raise SchedulerUnreachable("it hangs", "look", "")
        return answer(entry(f"/home/{user}/env"))


async def test_one_look_serves_all_who_ask_meanwhile_and_for_a_while(monkeypatch):
    desk, kept, bob = Desk(), Kept(Turns()), LocalAccount("bob", "/home/bob")
    waiting = [asyncio.ensure_future(kept.environments(desk, user)) for user in (ALICE, ALICE, bob)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    desk.go.set()
    first, of_bob = await waiting[1], await waiting[2]
    assert first["environments"] == of_bob["environments"] == [{"name": "~/env", "note": "conda"}]
    assert await kept.environments(desk, ALICE) == first
    assert sorted(desk.asked) == ["alice", "bob"]
    monkeypatch.setattr(hub_looks, "_KEPT_S", -1.0)
    await kept.environments(desk, ALICE)
    assert sorted(desk.asked) == ["alice", "alice", "bob"]


async def test_a_look_that_failed_is_told_and_made_again_later(monkeypatch):
    desk, kept = Desk(), Kept(Turns())
    desk.go.set()
    desk.fails = True
    for _ in range(2):
        with pytest.raises(SchedulerUnreachable):
            await kept.environments(desk, ALICE)
    assert desk.asked == ["alice"]
    monkeypatch.setattr(hub_looks, "_KEPT_S", -1.0)
    desk.fails = False
    assert (await kept.environments(desk, ALICE))["environments"]


async def test_no_more_answers_are_kept_than_a_bound(monkeypatch):
    monkeypatch.setattr(hub_looks, "_MOST_KEPT", 3)
    desk, kept = Desk(), Kept(Turns())
    desk.go.set()
    for number in range(9):
        await kept.environments(desk, LocalAccount(f"user{number}", f"/home/user{number}"))
    assert len(kept._answers) == 3


def test_a_user_asks_once_in_three_seconds(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(asks.time, "monotonic", lambda: now[0])
    turns = Turns()
    assert [turns.is_too_soon("alice"), turns.is_too_soon("alice"), turns.is_too_soon("bob")] == [False, True, False]
    now[0] += 3
    assert not turns.is_too_soon("alice")


@pytest.mark.parametrize("program", ["", "import this"])
def test_by_ssh_the_verb_is_there_only_where_the_profile_says_so(monkeypatch, program):
    site = {"questions": {}, "words": {}} | ({"look": program} if program else {})
    monkeypatch.setattr(helper, "SITE", site)
    if program:
        assert helper.asked("look alice%20smith") == ("look", ["alice smith"])
        return
    with pytest.raises(helper.Refusal, match="not for 'look'"):
        helper.asked("look alice")


async def test_without_the_site_s_leave_no_command_is_run(monkeypatch):
    access = Access(type="slurm")
    client = Client(make_scheduler(access, Path("spool")), access, logging.getLogger("test"))
    monkeypatch.setattr(commands, "run", None)
    with pytest.raises(SchedulerNotSetUp, match="may not look at files"):
        await client.look("alice", b"{}\n")
