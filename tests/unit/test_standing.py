"""What single users may choose: texts of real commands, read; judged in one place; each question failing alone."""

import asyncio
import re
import time

import pytest
from support.jobs import a_cluster

from hpcspawner.errors import RequestError, SchedulerUnreachable
from hpcspawner.pages.free import standing_in_words
from hpcspawner.pages.pages import Draft, render_form
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.request.own import NOT_KNOWN, Own, of_user
from hpcspawner.schedulers.slurm_standing import SlurmStanding
from hpcspawner.schedulers.standing import Listed, Member, Reservation
from hpcspawner.site.profile import SiteProfile

READER = SlurmStanding()
CONFIG = """\
Configuration data as of 2026-11-27T19:32:41
AuthType                = auth/munge
ClusterName             = Lab
"""

# Cluster, account, parent, user, partition, QOS, default QOS, as `sacctmgr show associations` prints them.
ASSOCIATIONS = """\
lab|root||||normal|
lab|root||root||normal|
lab|physics|root|||normal|normal
lab|phys-a|physics|||debug,normal|normal
lab|phys-a||alice||debug,normal|normal
lab|phys-b|physics|||long,normal|normal
lab|phys-b||alice|gpu|long,normal|normal
lab|phys-b||alice|compute|normal|
lab|tro100|root|||+debug,normal|
lab|tro100||bob||+debug,normal|
lab|tro100||carol|||
far|other|root|||normal|
far|other||alice||normal|
"""
DEFAULTS = "alice|phys-a\nbob|gone\ncarol|tro100\nroot|root\n"


def members(associations=ASSOCIATIONS, defaults=DEFAULTS, cluster=CONFIG):
    return READER.parse_accounts({"associations": associations, "defaults": defaults, "cluster": cluster})


def test_a_user_has_several_accounts_with_qos_by_partition_and_those_of_other_clusters_are_left_out():
    alice = members()["alice"]
    assert alice == Member(
        accounts={
            "phys-a": {"": ("debug", "normal")},
            "phys-b": {"gpu": ("long", "normal"), "compute": ("normal",)},
        },
        default="phys-a",
        above={"phys-a": frozenset({"physics", "root"}), "phys-b": frozenset({"physics", "root"})},
    )
    assert alice.may_charge("phys-b", "gpu")
    assert alice.may_charge("PHYS-B", None)
    assert not alice.may_charge("phys-b", "debug")
    assert not alice.may_charge("other", None)
    assert alice.qos("", "anywhere") == ("debug", "normal")
    assert alice.qos("phys-b", "gpu") == ("long", "normal")


@pytest.mark.parametrize("user", ["bob", "carol"])
def test_a_list_of_changes_and_an_empty_one_are_no_known_list(user):
    assert members()[user].qos("tro100", "debug") == ()


def test_a_default_account_that_the_user_has_not_got_is_not_known():
    assert members()["bob"].default == ""


@pytest.mark.parametrize(
    "outs",
    [
        {"associations": "sacctmgr: error: Unable to connect to database\n"},
        {"associations": ""},
        {"associations": "lab|root\n"},
        {"cluster": ""},
        {"cluster": "ClusterName = elsewhere\n"},
    ],
)
def test_what_is_no_list_of_associations_is_refused(outs):
    with pytest.raises(ValueError, match=r"sacctmgr|scontrol"):
        members(**outs)


LINE = (
    "ReservationName={name} StartTime={begins} EndTime={ends} Duration=01:00:00 Nodes={nodes} NodeCnt=1 CoreCnt=64 "
    "Features=(null) PartitionName={partition} Flags={flags} TRES=cpu=64 Users={users} Groups={groups} "
    "Accounts={accounts} Licenses=(null) State=ACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)\n"
)


def reservation(**changes):
    usual = {
        "name": "r1",
        "begins": "2026-11-27T19:32:41",
        "ends": "2126-11-27T20:32:41",
        "nodes": "n[1-3,7]",
        "partition": "(null)",
        "flags": "SPEC_NODES",
        "users": "(null)",
        "groups": "(null)",
        "accounts": "(null)",
    }
    (found,) = READER.parse_reservations(LINE.format(**(usual | changes)))
    return found


@pytest.mark.parametrize(
    ("of", "admitted"),
    [
        ({"users": "alice"}, ["alice"]),
        ({"users": "alice,bob"}, ["alice", "bob"]),
        ({"users": "-bob"}, ["alice", "carol"]),
        ({"users": "-alice,-bob"}, ["carol"]),
        ({"accounts": "tro100"}, ["bob", "carol"]),
        ({"accounts": "phys-b"}, ["alice"]),
        # By the account over it.
        ({"accounts": "physics"}, ["alice"]),
        ({"accounts": "-tro100"}, ["alice"]),
        # Another account of hers will do.
        ({"accounts": "-phys-b"}, ["alice", "bob", "carol"]),
        ({"accounts": "tro100", "users": "-bob"}, ["carol"]),
        ({"accounts": "physics", "users": "bob"}, []),
        # Who is in a group of the system is not known here.
        ({"groups": "staff"}, ["alice", "bob", "carol"]),
        ({"users": "root", "flags": "MAINT,IGNORE_JOBS,SPEC_NODES,ALL_NODES"}, []),
    ],
)
def test_who_may_use_a_reservation(of, admitted):
    known = members()
    assert [name for name in ("alice", "bob", "carol") if reservation(**of).admits(name, known[name])] == admitted


def test_a_reservation_says_where_and_until_when():
    found = reservation(partition="gpu", flags="MAINT,IGNORE_JOBS", users="alice")
    assert (found.name, found.nodes, found.partition) == ("r1", "n[1-3,7]", "gpu")
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(found.ends_at)) == "2126-11-27T20:32:41"
    assert found.flags == {"MAINT", "IGNORE_JOBS"}
    # A comment can't be taken for a field.
    text = LINE.format(**vars_of(found)).replace("\n", " Comment=for Users=bob Accounts=tro100\n")
    assert READER.parse_reservations(text)[0].users == Listed(frozenset({"alice"}))


def vars_of(found):
    return {
        "name": found.name,
        "begins": "2026-11-27T19:32:41",
        "ends": "2126-11-27T20:32:41",
        "nodes": found.nodes,
        "partition": found.partition,
        "flags": "MAINT",
        "users": "alice",
        "groups": "(null)",
        "accounts": "(null)",
    }


def test_no_reservation_is_an_answer_and_garbage_is_none():
    assert READER.parse_reservations("No reservations in the system\n") == ()
    for text in ("garbage\n", "ReservationName=r1 StartTime=soon EndTime=later\n"):
        with pytest.raises(ValueError, match=r"instead of a reservation|isoformat"):
            READER.parse_reservations(text)


# --- judged

PROFILE = SiteProfile.model_validate(
    {
        "title": "Test",
        "scheduler": {"type": "slurm"},
        "reservation": "optional",
        "accounts": ["phys-a", "phys-b", "tro100"],
        "partitions": [
            {"name": "compute", "max_walltime": "1h", "qos": ["normal", "debug"]},
            {"name": "gpu", "max_walltime": "1h", "qos": ["normal", "long"]},
            {"name": "debug", "max_walltime": "1h"},
        ],
        "environments": [{"name": "plain"}],
    }
)
ALICE = LocalAccount("alice", "/home/alice")
OF_ALICE = Own(
    "alice",
    members()["alice"],
    (
        Reservation("hers", 0, 9e9, users=Listed(frozenset({"alice"}))),
        Reservation("of-b", 0, 9e9, accounts=Listed(frozenset({"phys-b"}))),
        Reservation("bobs", 0, 9e9, users=Listed(frozenset({"bob"}))),
        Reservation("over", 0, 1, users=Listed(frozenset({"alice"}))),
        Reservation("far", 8e9, 9e9, users=Listed(frozenset({"alice"}))),
    ),
)


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"account": "tro100"}, "account", "you are not a member of it. Choose one of: phys-a, phys-b."),
        ({"account": "phys-b", "partition": "debug"}, "account", "you may use it only in compute, gpu"),
        ({"account": "strange"}, "account", "is not offered"),
        ({"partition": "gpu", "qos": "long"}, "qos", "the account 'phys-a' may use: debug, normal"),
        ({"account": "phys-b", "qos": "debug"}, "qos", "the account 'phys-b' may use: normal"),
        ({"reservation": "bobs"}, "reservation", "there is none of this name that you may use"),
        ({"account": "phys-a", "reservation": "of-b"}, "reservation", "not with the account 'phys-a'"),
    ],
)
def test_what_is_not_the_user_s_is_refused_with_the_reason(options, field, words):
    with pytest.raises(RequestError) as refused:
        make(options, PROFILE, ALICE, OF_ALICE)
    (problem,) = refused.value.problems
    assert (problem.field, words in problem.message) == (field, True), problem


@pytest.mark.parametrize(
    "options",
    [
        {"account": "phys-b", "partition": "gpu", "qos": "long"},
        {"qos": "debug"},
        {"reservation": "hers"},
        {"account": "phys-b", "partition": "gpu", "reservation": "of-b"},
        # Not in the list: the scheduler knows.
        {"reservation": "new"},
    ],
)
def test_what_is_the_user_s_and_what_is_not_known_goes_to_the_scheduler(options):
    wanted = make(options, PROFILE, ALICE, OF_ALICE).resources
    assert {name: getattr(wanted, name) for name in options} == options


@pytest.mark.parametrize("options", [{"account": "tro100"}, {"partition": "gpu", "qos": "long"}, {"reservation": "x"}])
def test_where_nothing_is_known_the_profile_is_the_limit(options):
    make(options, PROFILE, ALICE, NOT_KNOWN)


def test_where_accounts_are_typed_those_that_the_user_has_are_a_list():
    typed = PROFILE.model_copy(update={"accounts": ()})
    html = render_form(a_cluster(typed), (), Draft({}, own=OF_ALICE))
    assert options_of(html, "account") == ["", "phys-a", "phys-b"]
    with pytest.raises(RequestError, match="not a member"):
        make({"account": "strange"}, typed, ALICE, OF_ALICE)
    assert '<input class="form-control" type="text" id="hpc-account"' in render_form(a_cluster(typed), (), Draft({}))


def options_of(html, name):
    select = re.search(rf'<select[^>]* name="{name}".*?</select>', html, re.DOTALL)[0]
    return re.findall(r'<option value="([^"]*)"(?: selected)?>', select)


def test_the_form_disables_what_is_not_the_user_s_and_says_why():
    html = render_form(a_cluster(PROFILE), (), Draft({}, own=OF_ALICE))
    assert '<option value="tro100" disabled>tro100 (you are not a member)</option>' in html
    assert options_of(html, "account") == ["", "phys-a", "phys-b"]
    assert options_of(html, "reservation") == ["", "hers", "of-b"]
    assert "bobs" not in html


# --- asked


class Fake:
    """Answers of commands by the program's name; an exception is raised, and a query may be held up."""

    def __init__(self, cluster, answers):
        self.answers, self.asked, self.go = answers, [], asyncio.Event()
        self.go.set()
        self._names = {argv: name for name, argv in READER.accounts_commands.items()}
        cluster.client.output = self.output

    async def output(self, argv, verb):
        self.asked.append(argv)
        await self.go.wait()
        answer = self.answers[self._names.get(argv, "reservations")]
        if isinstance(answer, Exception):
            raise answer
        return answer


def good():
    return {
        "associations": ASSOCIATIONS,
        "defaults": DEFAULTS,
        "cluster": CONFIG,
        "reservations": LINE.format(
            name="hers",
            begins="2026-01-01T00:00:00",
            ends="2126-01-01T00:00:00",
            nodes="n1",
            partition="(null)",
            flags="",
            users="alice",
            groups="(null)",
            accounts="(null)",
        ),
    }


async def test_one_question_for_all_who_look():
    cluster = a_cluster(PROFILE)
    fake = Fake(cluster, good())
    fake.go.clear()
    for _ in range(5):
        cluster.standings.look()
        assert of_user(cluster.standings, "alice").member is None
    await asyncio.sleep(0)
    fake.go.set()
    await cluster.standings.fresh()
    assert len(fake.asked) == 4
    known = of_user(cluster.standings, "Alice")
    assert known.member.default == "phys-a"
    await cluster.standings.fresh()
    assert len(fake.asked) == 4
    assert standing_in_words(cluster.standings).startswith("Your accounts as of ")


@pytest.mark.parametrize("wrong", [SchedulerUnreachable("away"), "garbage", ""])
async def test_each_part_fails_alone_and_the_form_says_what_is_unknown(wrong):
    cluster = a_cluster(PROFILE)
    Fake(cluster, good() | {"associations": wrong})
    await cluster.standings.fresh()
    own = of_user(cluster.standings, "alice")
    assert (own.member, [one.name for one in own.usable()]) == (None, ["hers"])
    html = render_form(cluster, (), Draft({}, own=own))
    assert "The scheduler does not tell your accounts at the moment." in html
    assert options_of(html, "account") == ["", "phys-a", "phys-b", "tro100"]


async def test_an_answer_that_fails_leaves_the_one_before_with_its_age():
    cluster = a_cluster(PROFILE)
    fake = Fake(cluster, good())
    await cluster.standings.fresh()
    cluster.standings.accounts.part = type(cluster.standings.accounts.part)(cluster.standings.accounts.part.value, 0.0)
    fake.answers["associations"] = SchedulerUnreachable("away")
    await cluster.standings.accounts.fresh()
    assert of_user(cluster.standings, "alice").member is not None
    assert "The scheduler does not tell your accounts at the moment; they are as of " in standing_in_words(
        cluster.standings
    )


def test_a_site_that_offers_none_of_it_asks_nothing():
    plain = SiteProfile.model_validate(
        {
            "title": "Test",
            "scheduler": {"type": "slurm"},
            "account": "hidden",
            "partitions": [{"name": "compute", "max_walltime": "1h"}],
            "environments": [{"name": "plain"}],
        }
    )
    assert a_cluster(plain).standings.kept == ()
