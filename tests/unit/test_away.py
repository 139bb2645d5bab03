"""A cluster elsewhere: what its profile may say, what users are called there, and what is known of them."""

import asyncio
import contextlib
import json
import os

import pytest
from support.schedulers import EVERY

from hpcspawner.errors import AccountRefused, RequestError, SchedulerUnreachable
from hpcspawner.programs import helper
from hpcspawner.request import accounts
from hpcspawner.schedulers import ssh as ssh_module
from hpcspawner.schedulers.base import Answer
from hpcspawner.schedulers.people import NotAUser, People
from hpcspawner.schedulers.questions import questions
from hpcspawner.schedulers.sudo import RightsError, authorized_key
from hpcspawner.site.away import LoginNode, UserNames
from hpcspawner.site.profile import Access

PUBLIC_KEY = "ssh-ed25519 " + "A" * 68 + " hub@example"
SSH = {
    "type": "slurm",
    "ssh": ["hub@login1", "hub@login2:2222"],
    "ssh_key": "/etc/hub/id",
    "ssh_known_hosts": "/etc/hub/known_hosts",
    "helper": "/usr/local/libexec/hpcspawner",
}
ALICE = {"name": "alice", "uid": 1001, "gid": 100, "group": "users", "groups": ["users"], "home": "/home/alice"}


# --- the profile


def test_login_nodes_are_taken_apart():
    nodes = Access(**SSH | {"ssh": ["hub@login1", "hub@10.0.0.1:2222", "hub@[fd00::1]:22"]}).login_nodes
    assert nodes == (LoginNode("hub", "login1"), LoginNode("hub", "10.0.0.1", 2222), LoginNode("hub", "fd00::1"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ssh": ["login1"]}, "write an account, '@' and a host"),
        ({"ssh": ["hub@-oProxyCommand=id"]}, "write an account"),
        ({"ssh": ["-l@login1"]}, "write an account"),
        ({"ssh": ["hub@login1 id"]}, "write an account"),
        ({"ssh": ["hub@login1:0"]}, "write an account"),
        ({"ssh": ["hub@login1:70000"]}, "write an account"),
        ({"ssh": ["root@login1"]}, "does not log in as root"),
        ({"ssh": ["hub@login1", "bob@login2"]}, "the same on all login nodes"),
        ({"ssh": ["hub@login1", "hub@login1:22"]}, "named twice"),
        ({"ssh_key": None}, "ssh needs ssh_key"),
        ({"ssh_known_hosts": None}, "ssh needs ssh_known_hosts"),
        ({"ssh": []}, "name its login nodes in ssh"),
        ({"ssh_known_hosts": "/etc/a b"}, "should match pattern"),
        ({"ssh_key": "/etc/%h"}, "should match pattern"),
    ],
)
def test_what_ssh_could_misread_is_a_mistake(changes, words):
    with pytest.raises(ValueError, match=words):
        Access(**SSH | changes)


# --- names


@pytest.mark.parametrize(
    ("rule", "name", "account"),
    [
        ({}, "Alice@Example.org", "Alice@Example.org"),
        ({"lower": True}, "ALICE", "alice"),
        ({"strip_domain": ["example.org"]}, "alice@example.org", "alice"),
        ({"strip_domain": ["Example.ORG"]}, "alice@EXAMPLE.org", "alice"),
        ({"strip_domain": ["example.org"]}, "alice", "alice"),
        ({"strip_domain": ["example.org"], "lower": True}, "A.Lice@example.org", "a.lice"),
        ({"table": {"marie@x.org": "mcurie"}}, "marie@x.org", "mcurie"),
        ({"strip_domain": ["example.org"], "table": {"marie@x.org": "mcurie"}}, "marie@x.org", "mcurie"),
    ],
)
def test_names_of_a_login_service_become_the_clusters(rule, name, account):
    assert accounts.cluster_name(name, UserNames(**rule)) == account


@pytest.mark.parametrize(
    ("rule", "name", "why"),
    [
        ({"strip_domain": ["example.org"]}, "alice@evil.org", "not one of those"),
        ({"strip_domain": ["example.org"]}, "alice@example.org.evil.org", "not one of those"),
        ({"strip_domain": ["example.org"]}, "alice@sub.example.org", "not one of those"),
        ({"strip_domain": ["example.org"]}, "alice@example.org@evil.org", "not one of those"),
        ({"table": {"marie@x.org": "mcurie"}}, "mcurie", "another user's"),
        ({"table": {"marie@x.org": "mcurie"}, "lower": True}, "MCurie", "another user's"),
        ({"table": {"m@x.org": "mc"}, "strip_domain": ["y.org"]}, "mc@y.org", "another user's"),
    ],
)
def test_a_name_that_could_be_somebody_elses_account_is_refused(rule, name, why):
    with pytest.raises(AccountRefused, match=why):
        accounts.cluster_name(name, UserNames(**rule))


@pytest.mark.parametrize("rule", [{"strip_domain": ["@example.org"]}, {"table": {"a": "-u"}}, {"table": {"a": "b;c"}}])
def test_a_rule_that_can_be_no_names_is_a_mistake(rule):
    with pytest.raises(ValueError, match=r"write a domain|no account's name"):
        UserNames(**rule)


# --- users


def answers(*given):
    """`ask` of People that gives these in turn, and how often it was asked."""
    left, asked = list(given), []

    async def ask(name):
        asked.append(name)
        if isinstance(left[0], Exception):
            raise left.pop(0)
        return left.pop(0)

    return ask, asked


async def test_a_user_is_asked_for_once_in_ten_minutes_and_is_remembered_while_nobody_answers():
    ask, asked = answers(Answer(0, json.dumps(ALICE), ""), SchedulerUnreachable("away"))
    time = [0.0]
    people = People(ask, lambda: time[0])
    for moment in (0.0, 599.0, 601.0):
        time[0] = moment
        found = await accounts.of_login_node("alice", 1000, people)
        assert (found.name, found.home, found.group) == ("alice", "/home/alice", "users")
    assert asked == ["alice", "alice"]
    assert [people.name_of(uid) for uid in (0, 1001, 7)] == ["root", "alice", "uid 7"]


async def test_where_no_login_node_answers_nobody_is_said_not_to_exist():
    with pytest.raises(SchedulerUnreachable):
        await accounts.of_login_node("alice", 1000, People(answers(SchedulerUnreachable("away"))[0]))


@pytest.mark.parametrize("code", [helper.NO_USER, helper.NOT_PERMITTED])
async def test_who_is_no_user_there_gets_no_job(code):
    people = People(answers(Answer(code, "", f"{helper.SAYS}he is not in the group x\n"))[0])
    with pytest.raises(RequestError, match="'bob' on the cluster: he is not in the group x"):
        await accounts.of_login_node("bob", 1000, people)


@pytest.mark.parametrize(
    "out", ["", "[]", "{}", "nonsense", json.dumps(ALICE | {"uid": "0"}), json.dumps(ALICE | {"uid": True})]
)
async def test_an_answer_that_is_none_is_unknown(out):
    with pytest.raises(SchedulerUnreachable, match="could not be read"):
        await People(answers(Answer(0, out, ""))[0]).find("alice")


@pytest.mark.parametrize("uid", [0, 999])
async def test_an_account_of_the_system_gets_no_job_whatever_the_helper_says(uid):
    people = People(answers(Answer(0, json.dumps(ALICE | {"uid": uid}), ""))[0])
    with pytest.raises(AccountRefused):
        await accounts.of_login_node("alice", 1000, people)


async def test_a_name_that_sudo_could_misread_is_never_asked_for():
    ask, asked = answers()
    with pytest.raises(AccountRefused):
        await accounts.of_login_node("-u", 1000, People(ask))
    assert asked == []
    with pytest.raises(NotAUser):
        await People(answers(Answer(helper.BAD_INPUT, "", "no"))[0]).find("x")


# --- what is asked, and by which key


@pytest.mark.parametrize("scheduler", EVERY.values(), ids=EVERY)
def test_a_question_is_the_command_that_the_hub_would_run_itself(scheduler):
    job_id, mark = "4711", "0123456789abcdef"
    wanted = {
        "jobs": scheduler.query_command(mark),
        "details": scheduler.details_command(job_id),
        "runs": scheduler.runs_command(job_id, mark),
        "visibility": scheduler.visibility_command(),
        **{f"end{at}": argv for at, argv in enumerate(scheduler.end_commands(job_id, mark))},
        "nodes": scheduler.nodes_command(mark),
        "waiting": scheduler.waiting_command(mark),
        "open": scheduler.open_command(mark),
    }
    if standing := scheduler.standing:
        wanted["reservations"] = standing.reservations_command
        wanted |= {f"accounts-{name}": argv for name, argv in standing.accounts_commands.items()}
    made = {
        verb: [word.replace("{job}", job_id).replace("{mark}", mark) for word in one.template]
        for verb, one in questions(scheduler).items()
    }
    assert made == {verb: list(argv) for verb, argv in wanted.items() if argv}
    # What makes a listing print its times so that they can be read.
    assert questions(scheduler)["jobs"].variables == scheduler.query_variables


def test_the_key_is_forced_to_the_helper():
    assert authorized_key(Access(**SSH), PUBLIC_KEY + "\n", "domain users") == (
        'restrict,command="/usr/local/libexec/hpcspawner serve domain%20users" '
        + PUBLIC_KEY.rpartition(" ")[0]
        + " hpcspawner\n"
    )


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "hpcusers"),
        (f'command="id" {PUBLIC_KEY}', "hpcusers"),
        (f"{PUBLIC_KEY}\n{PUBLIC_KEY}", "hpcusers"),
        (PUBLIC_KEY, "wheel"),
        (PUBLIC_KEY, "-x"),
    ],
)
def test_no_line_is_made_of_what_is_no_public_key_or_no_users_group(key, group):
    with pytest.raises(RightsError):
        authorized_key(Access(**SSH), key, group)


# --- the connection, with a client that fails


@pytest.fixture
def client(tmp_path, monkeypatch):
    """LoginNodes over a program in place of ssh; `ssh` writes it, `calls` are the words after each host."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def ssh(text, timeout_s=5):
        path = tmp_path / "ssh"
        path.write_text(
            f'#!/bin/bash\nwhile [ "$1" != -- ]; do shift; done\nhost=$2 line=$3\n'
            f'echo "$host $line" >>{tmp_path}/calls\n{text}\n'
        )
        path.chmod(0o755)
        return ssh_module.LoginNodes(Access(**SSH | {"command_timeout_s": timeout_s}))

    ssh.calls = lambda: (tmp_path / "calls").read_text().splitlines()
    return ssh


async def test_what_was_refused_before_it_began_goes_to_the_next_node(client):
    nodes = client(
        '[ $host = login1 ] && { echo "ssh: connect to host login1: refused" >&2; exit 255; }\n'
        '[ "$line" = hello ] && { echo hpcspawner 1; exit; }\necho 4711'
    )
    assert (await nodes.run(["submit", "alice smith"], b"x")).out == "4711\n"
    assert client.calls() == ["login1 hello", "login2 hello", "login2 submit alice%20smith"]
    # The one that answered is stayed with, however long the first one is away.
    for node in nodes._nodes:
        node._rests_until = 0.0
    await nodes.run(["jobs", "0123456789abcdef"])
    assert client.calls()[3:] == ["login2 jobs 0123456789abcdef"]


async def test_a_submit_whose_connection_is_lost_is_not_repeated_and_a_question_is(client):
    nodes = client('[ "$line" = hello ] && { echo hpcspawner 1; exit; }\n[ $host = login2 ] && exit\nexit 255')
    with pytest.raises(SchedulerUnreachable, match=r"connection to hub@login1 was lost") as caught:
        await nodes.run(["submit", "alice"], b"x")
    assert caught.value.settled_at > 0
    assert not caught.value.lingering
    assert (await nodes.run(["jobs", "0123456789abcdef"])).code == 0
    assert [line for line in client.calls() if "hello" not in line] == [
        "login1 submit alice",
        "login1 jobs 0123456789abcdef",
        "login2 jobs 0123456789abcdef",
    ]


async def test_an_exit_code_of_255_that_the_helper_reports_is_the_commands_own(client):
    nodes = client(
        '[ "$line" = hello ] && { echo hpcspawner 1; exit; }\n'
        'echo "hpcspawner helper: the command\'s exit code is 255" >&2; exit 255'
    )
    assert (await nodes.run(["submit", "alice"], b"x")).code == 255


async def test_looks_that_hang_hold_two_sessions_and_all_else_goes_on(client, tmp_path):
    pipe = tmp_path / "hangs"
    os.mkfifo(pipe)
    nodes = client(
        f'[ "$line" = hello ] && {{ echo hpcspawner 1; exit; }}\n[[ $line = look* ]] && cat {pipe}\necho done',
        timeout_s=300,
    )
    looks = [asyncio.create_task(nodes.run(["look", f"user{number}"])) for number in range(9)]

    def begun():
        return [line for line in client.calls() if " look " in line]

    # The connection is there once this is answered.
    await nodes.run(["jobs", "0123456789abcdef"])
    while len(begun()) < 2:
        await asyncio.sleep(0.01)
    others = [["submit", "alice"], ["cancel", "alice"], ["jobs", "0123456789abcdef"]] * 3
    async with asyncio.timeout(100):
        answers = await asyncio.gather(*map(nodes.run, others))
    assert {one.out for one in answers} == {"done\n"}
    assert len(begun()) == 2
    while not all(one.done() for one in looks):
        # What reads it meanwhile goes on.
        with contextlib.suppress(OSError):
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        await asyncio.sleep(0.01)
    assert [one.result().out for one in looks] == ["done\n"] * 9
