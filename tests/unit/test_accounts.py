"""Whose jobs may be submitted: a login may be called anything, so the uid counts."""

import grp
import logging
import os
import pwd
import types

import pytest
from support.jobs import PROFILE, a_cluster, a_job, clusters_of

from hpcspawner.errors import AccountRefused, RequestError
from hpcspawner.hub import startup_checks
from hpcspawner.request import accounts
from hpcspawner.request.own import NOT_KNOWN
from hpcspawner.site.profile import Access
from hpcspawner.spawner import HPCSpawner

APP = types.SimpleNamespace(log=logging.getLogger("test"))
# What every system has.
SYSTEM = [entry for entry in pwd.getpwall() if 0 < entry.pw_uid < 1000]


def named(name, uid):
    return pwd.struct_passwd((name, "x", uid, uid, "", "/", "/bin/sh"))


def test_root_gets_no_job():
    with pytest.raises(
        AccountRefused, match=r"The account 'root' is root's \(uid 0\), and the Hub submits no job for root"
    ):
        accounts.of_user("root", 1)


@pytest.mark.parametrize("entry", SYSTEM, ids=lambda entry: entry.pw_name)
def test_an_account_of_the_system_gets_no_job(entry):
    with pytest.raises(
        AccountRefused, match=f"has uid {entry.pw_uid}, and the Hub submits jobs only|is a system account"
    ):
        accounts.of_user(entry.pw_name, 1000)


@pytest.mark.parametrize(
    ("entry", "min_uid", "refused"),
    [
        pytest.param(named("toor", 0), 1, True, id="root by another name"),
        pytest.param(named("ntp", 999), 1000, True, id="just below"),
        pytest.param(named("slurm", 64030), 1000, True, id="the scheduler's own on Debian"),
        pytest.param(named("nobody", 65534), 1000, True, id="whom file servers take root for"),
        pytest.param(named("munge", 1001), 1000, True, id="the scheduler's own where an admin has made it"),
        pytest.param(named("alice", 1000), 1000, False, id="the first"),
        pytest.param(named("alice", 500), 500, False, id="a site that begins at 500"),
        pytest.param(named("alice", 1000), 10000, True, id="a site that begins at 10000"),
    ],
)
def test_the_uid_decides(entry, min_uid, refused):
    assert bool(accounts.refusal(entry, min_uid)) is refused


@pytest.mark.parametrize("name", ["no-such-account", "", "a\0b", "a\nb"])
def test_no_account_is_another_error(name):
    """A user database that is away says the same, so this one is tried again."""
    with pytest.raises(RequestError, match="There is no account") as caught:
        accounts.of_user(name, 1000)
    assert not isinstance(caught.value, AccountRefused)


def test_no_job_runs_as_a_hub_that_is_root(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(AccountRefused, match="The Hub runs as root, and this site runs all jobs as the Hub's own"):
        accounts.of_hub(allow_root=False)


def test_a_container_of_root_alone_may_say_so(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert accounts.of_hub(allow_root=True).name == "root"


async def test_allow_root_lets_no_user_be_root(profile):
    spawner = spawner_of("root", profile)
    spawner.allow_root = True
    with pytest.raises(AccountRefused):
        await spawner._judge({})


@pytest.mark.parametrize(("helper", "refused"), [("/usr/local/libexec/hpcspawner", True), (None, False)])
async def test_who_logs_in_as_the_hub_gets_no_job_of_the_hubs(profile, monkeypatch, helper, refused):
    """It would not even pass sudo. A Hub without a helper may be a person's own."""
    hub = named("jupyterhub", 1500)
    monkeypatch.setattr(pwd, "getpwnam", lambda _: hub)
    monkeypatch.setattr(os, "geteuid", lambda: hub.pw_uid)
    access = profile.scheduler.model_copy(update={"helper": helper})
    asked = spawner_of("jupyterhub", profile.model_copy(update={"scheduler": access}))._judge({})
    if not refused:
        assert await asked
        return
    with pytest.raises(AccountRefused, match="'jupyterhub' is the Hub's own"):
        await asked


def test_a_hub_of_an_ordinary_account_may_have_jobs(monkeypatch):
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    assert accounts.of_hub(allow_root=False).name == "nobody"


def spawner_of(name, profile, prefix=("sudo", "-n", "-u", "{user}")):
    """As much of a spawner as judging takes."""
    profile = profile.model_copy(update={"scheduler": profile.scheduler.model_copy(update={"command_prefix": prefix})})
    cluster = a_cluster(profile)
    spawner = types.SimpleNamespace(
        user=types.SimpleNamespace(name=name),
        cluster=cluster,
        ledger=types.SimpleNamespace(clusters=clusters_of(cluster)),
        allow_root=False,
        log=None,
        # No presets of the user's own, and nothing known of accounts at the scheduler's.
        _with_saved=lambda options, _cluster: options,
        _own_on=lambda _cluster, _account: NOT_KNOWN,
    )
    for method in ("_judge", "judged", "_judge_kept", "account_on"):
        setattr(spawner, method, types.MethodType(getattr(HPCSpawner, method), spawner))
    return spawner


@pytest.mark.parametrize("name", ["root", SYSTEM[0].pw_name])
async def test_nothing_is_judged_for_an_account_of_the_system(profile, name):
    with pytest.raises(AccountRefused):
        await spawner_of(name, profile)._judge({})


@pytest.mark.parametrize("job_id", ["", "12"])
async def test_no_row_of_an_account_of_the_system_is_taken_up(profile, desk, job_id):
    """Nothing is ended either: a wrong number in the profile must not cost those who work."""
    row = await desk.submitted(job_id)
    with pytest.raises(AccountRefused):
        await spawner_of("root", profile)._judge_kept(row)
    assert row.record.wanted
    assert "end" not in row.tasks


async def test_a_job_is_judged_for_its_own_cluster_when_another_is_the_default_now(profile, monkeypatch):
    """It was asked for when its cluster was the only one, so its choices name none."""
    monkeypatch.setattr(os, "geteuid", lambda: pwd.getpwnam("nobody").pw_uid)
    spawner = spawner_of("alice", profile, prefix=())
    own, default = spawner.cluster, a_cluster(PROFILE.model_copy(update={"name": "another"}))
    spawner.ledger.clusters = clusters_of(default, own)
    job = a_job(own, cluster=own.name, job_id="12", choices={"walltime": "10m"})
    request = await spawner._judge_kept(job)
    assert spawner._chosen is own
    assert request.choices["cluster"] == own.name
    assert own.profile.partition(request.resources.partition)


async def test_nothing_is_judged_for_a_hub_that_is_root(profile, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(AccountRefused, match="run it as an ordinary account"):
        await spawner_of("alice", profile, prefix=())._judge({})


# --- said at the Hub's start


def cluster_of(scheduler):
    return a_cluster(PROFILE.model_copy(update={"scheduler": Access(type=scheduler)}))


@pytest.mark.parametrize(
    ("uid", "allow_root", "told"),
    [
        pytest.param(65534, False, "That account is nobody.", id="an ordinary account"),
        pytest.param(0, False, "That account is root, so the Hub submits no job", id="root"),
        pytest.param(0, True, "That account is root.", id="root, allowed"),
        pytest.param(54321, False, "That account is uid 54321.", id="an account without a name"),
    ],
)
def test_a_hub_that_runs_all_jobs_as_itself_says_so(monkeypatch, caplog, uid, allow_root, told):
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    startup_checks.tell_whose_jobs(APP, [cluster_of("local")], allow_root=allow_root)
    assert len(caplog.records) == 1
    assert "ALL USERS' JOBS RUN AS THE HUB'S OWN ACCOUNT (scheduler.type is 'local', its" in caplog.text
    assert told in caplog.text


def test_a_hub_that_runs_jobs_as_their_users_has_nothing_to_say(caplog):
    startup_checks.tell_whose_jobs(APP, [cluster_of("slurm")], allow_root=False)
    assert caplog.text == ""


def test_an_account_has_its_primary_group_by_name_or_by_number():
    root = pwd.getpwnam("root")
    assert accounts.account(root).group == grp.getgrgid(root.pw_gid).gr_name
    without = pwd.struct_passwd((*root[:3], 4_000_000_123, *root[4:]))
    assert accounts.account(without).group == "4000000123"


API = {"api": "https://head:6843", "api_key_file": "/etc/jupyterhub/slurm-jwt.key"}


@pytest.mark.parametrize(
    ("access", "whose"),
    [({}, "alice"), ({"command_prefix": ()}, "hub"), (API, "alice")],
    ids=["by sudo", "by nothing", "by a token"],
)
def test_a_job_is_the_hubs_own_only_where_nothing_says_whose(profile, access, whose):
    scheduler = Access(type="slurm", **access)
    cluster = types.SimpleNamespace(
        profile=profile.model_copy(update={"scheduler": scheduler}), client=types.SimpleNamespace(own_account="hub")
    )
    assert accounts.name_on(cluster, "alice") == whose
