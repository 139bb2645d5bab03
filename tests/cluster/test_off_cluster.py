"""A Hub that reaches its cluster by SSH alone: a real sshd, one key, and the helper that the key is forced to."""

import asyncio
import contextlib
import functools
import json
import logging
import pwd
import time
from pathlib import Path

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within, reserved, shown
from cluster.test_own_environments import check
from support.faults import Lab, within
from support.hub import Hub, server_path
from support.login_nodes import ACCOUNT, HOST, make_key
from support.off_cluster import BARE, GROUP, USER, elsewhere, place
from support.rights import must, processes, write

from hpcspawner.errors import SchedulerNotSetUp, SchedulerUnreachable
from hpcspawner.schedulers.base import Submission
from hpcspawner.schedulers.cluster import Cluster
from hpcspawner.schedulers.standings import Standings
from hpcspawner.schedulers.state import Cause, JobState
from hpcspawner.site.profile import load

__all__ = ["elsewhere", "place"]

OPTIONS = (("partition", "debug"), ("mem", "16M"), ("job-name", "away"), ("comment", "k0000away0000000"))


def job(tag="k0000away0000000"):
    return Submission((*OPTIONS[:-1], ("comment", tag)), "#!/bin/bash\nsleep 600\n")


@pytest.fixture(scope="module")
def hub(place, elsewhere):
    host, entered = elsewhere
    folder = place.hub
    (folder / "machine").mkdir()
    extra = 'c.JupyterHub.tornado_settings = {"slow_spawn_timeout": 1}'
    users = (USER, "bob@example.org", "alice@elsewhere.org")
    hub = Hub(folder, None, host=host, config=place.config, users=users, extra=extra)
    inside = ["nsenter", *entered, "unshare", "--mount", "bash", "-ec", BARE, str(folder / "machine")]
    hub.start = functools.partial(hub.start, inside)
    hub.inside = inside
    with hub:
        yield hub


# --- what it can do


def test_a_user_whom_the_hub_has_never_heard_of_runs_a_cell_on_a_node(hub, place):
    machine = must(*hub.inside, "sh", "-c", "cat /etc/passwd; ls /home; sbatch --version || echo no Slurm")
    assert machine == "root:x:0:0::/:/bin/sh\nno Slurm\n"
    server = hub.spawn(USER, {"partition": "debug"})
    assert server["ready"]
    (job_id,) = jobs_of("alice")
    assert shown(job_id)["UserId"].startswith("alice(")
    said = asyncio.run(hub.run(USER, "import getpass, os; print(getpass.getuser(), os.uname().nodename)"))
    assert said.split() == ["alice", "n1"]
    hub.stop_server(USER)
    queue_is_empty_within(40, "alice")


def test_others_are_told_why_they_get_no_server(hub):
    answers = {user: hub.api("POST", server_path(user), json={}) for user in ("bob@example.org", "alice@elsewhere.org")}
    assert {user: answer.status_code for user, answer in answers.items()} == dict.fromkeys(answers, 400)
    assert f"'bob' is not in the group '{GROUP}'" in answers["bob@example.org"].text
    assert "its domain is not one of those" in answers["alice@elsewhere.org"].text


def test_the_users_files_are_looked_at_on_a_login_node(hub):
    """Own environments on the open form, and the check of a choice before anything is queued."""
    on_head("/usr/bin/python3", "-m", "venv", "--without-pip", "/home/alice/of-hers", user="alice")
    try:
        session = hub.log_in(USER)
        found = session.get(f"{hub.url}/hub/hpcspawner/environments", timeout=60).json()
        (own,) = [one for one in found["environments"] if "of-hers" in json.dumps(one)]
        assert "jupyter" in json.dumps(own), "what it lacks is named"
        said = check(hub, session, directory="/nowhere").json()
        assert "/nowhere" in json.dumps(said), said
        assert jobs_of("alice") == []
    finally:
        on_head("rm", "-r", "/home/alice/of-hers", user="alice")


def test_the_form_has_what_is_free_there(hub):
    session = hub.log_in(USER)

    def debug():
        return session.get(f"{hub.url}/hub/hpcspawner/facts", timeout=10).json()["partitions"]["debug"]

    within(60, lambda: debug()["cores"] == "64 of 64", "the form does not have what is free")
    assert (debug()["nodes"], debug()["waiting"], debug()["open"]) == ("1 free", "0", True)


def test_when_a_job_could_start_is_asked_as_the_user(place):
    async def asked(*options):
        return await place.cluster().client.estimate("alice", (*OPTIONS, *options))

    assert asyncio.run(asked(("time", "00:05:00"))).starts_in_s <= 60
    assert "account" in asyncio.run(asked(("account", "nosuch"))).refusal
    assert jobs_of("alice") == []


def test_accounts_and_reservations_are_those_of_the_cluster(place):
    async def asked():
        standings = Standings(place.cluster().client, accounts=True, reservations=True)
        await standings.fresh()
        return standings.accounts.part.value["alice"], standings.reservations.part.value

    with reserved("course", Users="alice", Nodes="n2"):
        member, reservations = asyncio.run(asked())
    assert "ddp363" in member.accounts
    assert [(one.name, one.nodes) for one in reservations] == [("course", "n2")]


def test_a_connection_that_is_cut_in_a_submit_costs_nothing_and_makes_one_job(hub, place, lab):
    with Lab(lab).controller_hangs():
        asked = hub.api("POST", server_path(USER), json={"partition": "debug"})
        assert asked.status_code == 202, asked.text
        within(30, lambda: processes("alice", "sbatch"), "sbatch was not started")
        for node in place.nodes:
            node.cut()
        # The helper sees the end of its input.
        within(10, lambda: not processes("alice", "sbatch"), "sbatch was not ended")
        assert any("not answering at the moment" in one["message"] for one in hub.events(USER))
    hub.wait_ready(USER)
    assert len(jobs_of("alice")) == 1
    # sshd starts anew, and the server does not notice.
    for node in place.nodes:
        node.stop()
        node.start()
    assert asyncio.run(hub.run(USER, "print(6 * 7)")).strip() == "42"
    # The first login node dies: the next one takes the stop, and the server's listing before it.
    first = place.nodes[0]
    first.stop()
    try:
        hub.stop_server(USER)
        queue_is_empty_within(40, "alice")
    finally:
        first.start()


def test_a_job_is_submitted_listed_and_cancelled_on_a_login_node(place):
    async def life():
        cluster = place.cluster()
        client = cluster.client
        job_id = await client.submit("alice", job())
        while (one := (await client.listing()).jobs[job_id]).state is not JobState.RUNNING:
            await asyncio.sleep(0.3)
        assert (one.owner, one.tag) == ("alice", "k0000away0000000")
        assert await client.sees_all()
        assert await client.runs(job_id) == 1
        assert f"JobId={job_id} " in await client.details(job_id)
        assert await client.record(job_id) is None
        assert not await client.is_unknown(job_id)
        assert await client.is_unknown("99999999")
        await client.cancel("alice", job_id)
        await client.cancel("alice", job_id)
        while (record := await client.record(job_id)) is None:
            await asyncio.sleep(0.3)
        assert record.cause is Cause.CANCELLED

    asyncio.run(life())
    queue_is_empty_within(40, "alice")


# --- what becomes of it when a login node does not answer


def test_a_login_node_that_dies_is_replaced_by_the_next_and_one_that_comes_back_is_used(place):
    first, second = place.nodes

    async def drill():
        client = place.cluster().client
        await client.listing()
        first.stop()
        # The connection is gone with its node: what was asked may be asked again elsewhere.
        await client.listing()
        job_id = await client.submit("alice", job())
        assert job_id in (await client.listing()).jobs
        second.stop()
        with pytest.raises(SchedulerUnreachable) as caught:
            await client.listing()
        assert "ssh" in caught.value.command
        with pytest.raises(SchedulerUnreachable):
            await client.submit("alice", job())
        # What is known of a user serves on; of others nothing is known, which is not that they are none.
        with pytest.raises(SchedulerUnreachable):
            await client.people.find("alice")
        first.start()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(SchedulerUnreachable):
                assert job_id in (await client.listing()).jobs
                break
            assert time.monotonic() < deadline
            await asyncio.sleep(0.5)
        assert (await client.people.find("alice")).entry.pw_dir == "/home/alice"
        await client.cancel("alice", job_id)

    try:
        asyncio.run(drill())
    finally:
        for node in place.nodes:
            node.stop()
            node.start()
    queue_is_empty_within(40, "alice")


def test_a_host_key_or_a_key_that_is_another_is_an_error_with_a_cure(place):
    other = place.folder / "other"
    make_key(other)
    strange = place.folder / "strange_hosts"
    public = Path(f"{other}.pub").read_text()
    write(strange, f"{HOST} {public}[{HOST}]:2222 {public}", 0o600)
    for old, new, message, cure in (
        (place.known_hosts, strange, "did not show the host key", "ask the administrators"),
        (place.key, other, "does not accept the Hub's SSH key", "hpcspawner authorized-key"),
    ):
        site = place.folder / "wrong.toml"
        write(site, place.site.read_text().replace(f'"{old}"', f'"{new}"'), 0o600)
        client = Cluster.of(load(site), Path("/nowhere"), logging.getLogger("test")).client
        with pytest.raises(SchedulerNotSetUp, match=message) as caught:
            asyncio.run(client.submit("alice", job()))
        assert cure in caught.value.cure


# --- what the key can't do

REFUSED = [
    pytest.param("", 64, id="no word, which is a login"),
    pytest.param("id", 64, id="another program"),
    pytest.param("/bin/sh -c id", 64, id="a shell"),
    pytest.param("sbatch --wrap=id", 64, id="sbatch"),
    pytest.param("scp -t /tmp", 64, id="scp"),
    pytest.param("/usr/lib/openssh/sftp-server", 64, id="sftp"),
    pytest.param("hello; id", 64, id="a second command"),
    pytest.param("hello\nid", 64, id="a second line"),
    pytest.param("hello $(id)", 64, id="a shell's words"),
    pytest.param("HELLO", 64, id="capitals"),
    pytest.param(" hello", 64, id="a blank before"),
    pytest.param("serve hpcremote", 64, id="serve"),
    pytest.param("who", 64, id="no user"),
    pytest.param("who alice bob", 64, id="two users"),
    pytest.param("who ../alice", 64, id="a path as it is"),
    pytest.param("who %2E%2E%2Falice", 65, id="a path, encoded"),
    pytest.param("who %2Du", 65, id="an option"),
    pytest.param("who %231000", 65, id="a number"),
    pytest.param("who %25hpcremote", 65, id="a group"),
    pytest.param("who alice%00", 65, id="a null byte"),
    pytest.param("who alice%0Aroot", 65, id="a line break"),
    pytest.param("who %FF%FE", 64, id="no UTF-8"),
    pytest.param("who alice%3Bid", 65, id="a shell's sign"),
    pytest.param("who " + "a" * 3001, 64, id="too long"),
    pytest.param("who nobody-of-this-name", 67, id="no account"),
    pytest.param("who root", 77, id="root"),
    pytest.param("who daemon", 77, id="an account of the system"),
    pytest.param("who slurm", 77, id="the scheduler's account"),
    pytest.param(f"who {ACCOUNT}", 77, id="the Hub's own account"),
    pytest.param("who bob", 77, id="a user outside the group"),
    pytest.param("submit bob", 77, id="a submit as a user outside the group"),
    pytest.param("cancel root", 77, id="a cancel as root"),
    pytest.param(f"submit {ACCOUNT}", 77, id="a submit as itself"),
    pytest.param("jobs", 64, id="a listing without a mark"),
    pytest.param("jobs %25u", 65, id="a listing with a format of its own"),
    pytest.param("details 1%20--oneliner", 65, id="a second word for scontrol"),
    pytest.param("details -a", 65, id="an option for scontrol"),
    pytest.param("runs 1 0123456789abcdeg", 65, id="a mark that is none"),
    pytest.param("list alice", 1, id="a verb that sudo does not allow"),
]


def test_the_key_does_nothing_but_the_verbs(place):
    answers = {case.id: place.ssh(case.values[0], shared=True) for case in REFUSED}
    assert {name: answer[:2] for name, answer in answers.items()} == {case.id: (case.values[1], "") for case in REFUSED}
    for case in REFUSED[:-1]:
        assert "hpcspawner helper: " in answers[case.id][2], f"{case.id}: {answers[case.id]}"
    assert jobs_of("alice") == jobs_of("bob") == []


def test_the_key_tells_of_the_groups_members(place):
    code, out, _ = place.ssh("who alice")
    said = json.loads(out)
    alice = pwd.getpwnam("alice")
    assert (code, said["name"], said["uid"], said["home"]) == (0, "alice", alice.pw_uid, alice.pw_dir)
    assert (said["group"], GROUP in said["groups"]) == ("alice", True)


def test_the_key_opens_no_terminal_and_no_tunnel(place):
    code, out, err = place.ssh("hello", options=("-tt",))
    assert (code, out) == (255, "")
    assert "PTY allocation request failed" in err
    code, _, err = place.ssh(options=("-W", f"{HOST}:22"))
    assert code == 255
    assert "administratively prohibited" in err
    # A local forwarding is refused by the first connection that wants to use it, as -W above; sftp is no verb.
    code, out, err = place.ssh("sftp", options=("-s",))
    assert (code != 0, out) == (True, ""), err
    for words in (("-R", "7022:127.0.0.1:22"), ("-R", "/tmp/away.sock:127.0.0.1:22")):
        code, _, err = place.ssh("hello", options=(*words, "-o", "ExitOnForwardFailure=yes"))
        assert code == 255, err
        assert "forwarding failed" in err
