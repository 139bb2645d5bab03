"""What sites change in a Slurm itself: plugins that set or demand options, /tmp for each job, names of hosts."""

import contextlib
import os
import subprocess

import pytest
from cluster.conftest import jobs_of, on_head, queue_is_empty_within, shown
from cluster.test_bad_input import start
from cluster.test_site_options import Site
from cluster.test_sites import HABITS, hub_with
from support.browser import a_page, fill, log_in, press_start
from support.faults import Lab, usable, within

from hpcspawner.errors import SchedulerRejected
from hpcspawner.schedulers.state import JobState

SETS_THE_COMMENT = """\
function slurm_job_submit(job, partitions, uid)
    job.comment = "cost-centre-7"
    return slurm.SUCCESS
end
"""
DEMANDS_A_COMMENT = """\
function slurm_job_submit(job, partitions, uid)
    if job.comment == nil or string.sub(job.comment, 1, 12) ~= "cost-centre-" then
        slurm.log_user("every job needs a cost centre as its comment")
        return slurm.ERROR
    end
    return slurm.SUCCESS
end
"""
NO_MORE = """\
function slurm_job_modify(job, record, partitions, uid)
    return slurm.SUCCESS
end
return slurm.SUCCESS
"""


@contextlib.contextmanager
def configured(lab, more, files, apply):
    """Slurm with these lines in its slurm.conf and these files beside it; `apply` has it read them."""
    folder = lab / "etc" / "slurm"
    conf = folder / "slurm.conf"
    kept = conf.read_text()
    for name, text in files.items():
        (folder / name).write_text(text)
    conf.write_text(kept + more)
    try:
        apply()
        yield
    finally:
        conf.write_text(kept)
        for name in files:
            (folder / name).unlink()
        apply()


def submit_plugin(lab, text):
    """A job_submit.lua of the site's."""
    files = {"job_submit.lua": text + NO_MORE}
    return configured(lab, "JobSubmitPlugins=lua\n", files, lambda: on_head("scontrol", "reconfigure"))


@pytest.mark.parametrize("place", ["comment", "job-name"])
def test_a_plugin_that_sets_the_comment(make_hub, lab, place):
    change = ('type = "slurm"\n', f'type = "slurm"\ntag = "{place}"\n')
    with submit_plugin(lab, SETS_THE_COMMENT), make_hub("slurm", change=change, extra=HABITS) as hub:
        if place == "comment":
            _, message, _ = start(hub, {"partition": "debug"})
            assert "this site changes the tag by which the Hub recognises its jobs" in message
            assert "scheduler.tag of the profile, which is 'comment'" in hub.log()
        else:
            hub.spawn("alice", {"partition": "debug"})
            (job_id,) = jobs_of("alice")
            assert shown(job_id)["Comment"] == "cost-centre-7"
            hub.stop_server("alice")
        queue_is_empty_within(40, "alice")


async def test_a_plugin_that_demands_a_comment(lab, tmp_path):
    with submit_plugin(lab, DEMANDS_A_COMMENT):
        with pytest.raises(SchedulerRejected, match="every job needs a cost centre as its comment"):
            await Site(tmp_path).submit()
        comment = {"directives": [{"option": "comment", "value": "cost-centre-7"}]}
        site = Site(tmp_path, {"tag": "job-name"}, job=comment)
        job = await site.submit()
        await site.reaches(job, JobState.RUNNING)
        await site.cancel(job)


async def test_a_resource_of_the_sites_comes_beside_the_gpus(tmp_path):
    partition = {"name": "gpu-shared", "max_walltime": "1h", "gpus": {"v100": 4}, "max_memory": "1G"}
    scratch = {"directives": [{"option": "gres", "value": "lscratch:10"}]}
    site = Site(tmp_path, job=scratch, partitions=[partition])
    job = await site.submit(gpus=2, gpu_type="v100", memory="64M")
    await site.reaches(job, JobState.RUNNING)
    asked = shown(job.job_id)
    assert asked["TresPerNode"] == "gres/gpu:v100:2,gres/lscratch:10"
    assert "gres/gpu=2" in asked["TRES"]
    await site.cancel(job)


ACCOUNTS = ("abc@v100", "abc@cpu")


@pytest.fixture
def accounts(lab):
    for name in ACCOUNTS:
        on_head("sacctmgr", "-iQ", "add", "account", name, check=False)
        on_head("sacctmgr", "-iQ", "add", "user", "alice", f"account={name}", check=False)
    yield
    for name in ACCOUNTS:
        on_head("sacctmgr", "-iQ", "delete", "user", "alice", f"account={name}", check=False)
        on_head("sacctmgr", "-iQ", "delete", "account", name, check=False)


def test_accounts_with_an_at_sign_by_form_link_and_rest(make_hub, accounts):
    """As at a site whose accounts name the kind of node."""

    def ran_under(hub):
        (job_id,) = jobs_of("alice")
        account = shown(job_id)["Account"]
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
        return account

    offered = ("[defaults]\n", f'[defaults]\naccount = "{ACCOUNTS[0]}"\n')
    with make_hub("slurm", change=offered, extra=HABITS) as hub, a_page() as page:
        hub.spawn("alice", {"partition": "debug", "account": ACCOUNTS[1]})
        assert ran_under(hub) == ACCOUNTS[1]
        log_in(page, hub, "alice")
        page.goto(f"{hub.url}/hub/spawn?account=abc%40cpu&partition=debug&walltime=10m")
        press_start(page)
        # The link's choices stay behind it.
        page.wait_for_url(f"{hub.url}/user/alice/lab?*", timeout=60_000)
        assert ran_under(hub) == ACCOUNTS[1]
        page.goto(f"{hub.url}/hub/spawn")
        fill(page, partition="debug", account=ACCOUNTS[0])
        press_start(page)
        page.wait_for_url(f"{hub.url}/user/alice/lab", timeout=60_000)
        assert ran_under(hub) == ACCOUNTS[0]


@contextlib.contextmanager
def called(lab, node, name):
    """This node's machine has another name than Slurm's for it (NodeName and NodeHostname)."""
    inside = ["nsenter", f"--target={Lab(lab).pid(f'slurmd.{node}')}", "--uts", "hostname"]
    subprocess.run([*inside, name], check=True)
    try:
        yield
    finally:
        subprocess.run([*inside, node], check=True)


async def test_a_node_whose_machine_has_another_name(make_hub, lab):
    with called(lab, "n1", "cn0001.cluster"), hub_with(make_hub) as hub:
        hub.spawn("alice", {"partition": "debug"})
        assert await hub.run("alice", "import os; print(os.uname().nodename)") == "cn0001.cluster"
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
        _, message, _ = start(hub, {"partition": "debug", "environment": "broken"})
        assert " on n1 " in message


@contextlib.contextmanager
def on_one_cpu():
    """What is started meanwhile. Linux compares ages of mount namespaces, which are in order on one CPU alone.

    The namespace of the lab's node counts too, so its command has to begin there.
    """
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(all_of_them)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


def private_tmp(lab):
    """Slurm's own way to give each job a /tmp, on node n1."""

    def restart():
        cluster = Lab(lab)
        cluster.end("slurmctld")
        cluster.on("head", "slurmctld")
        cluster.end("slurmd.n1")
        with on_one_cpu():
            cluster.on("n1", "slurmd", "-N", "n1")
        within(60, lambda: cluster.controllers_answer() and usable("n1"), "Slurm does not come back")

    more = "JobContainerType=job_container/tmpfs\nPrologFlags=contain\n"
    files = {"job_container.conf": f"AutoBasePath=true\nBasePath={lab}/run/private\n"}
    return configured(lab, more, files, restart)


async def test_a_tmp_for_each_job_by_slurm_s_own_plugin(make_hub, lab):
    """Nothing that the Hub does may need what one job has in /tmp: another job, and the node, have another."""
    failing = 'log = "/proc/nowhere"\nprologue = "if [ -e ~/.fails ]; then echo this was said before; exit 3; fi"'
    with private_tmp(lab), hub_with(make_hub, job=failing) as hub:
        asked = {"partition": "debug"}
        hub.spawn("alice", asked)
        seen = "import os; print(os.stat('/tmp').st_uid == os.getuid())"
        assert await hub.run("alice", seen) == "True"
        hub.stop_server("alice")
        queue_is_empty_within(40, "alice")
        on_head("touch", "/home/alice/.fails", user="alice")
        try:
            _, message, _ = start(hub, asked)
        finally:
            on_head("rm", "/home/alice/.fails", user="alice")
        # The log lay in the job's own /tmp, and is gone with it.
        assert "this was said before" in message
        queue_is_empty_within(40, "alice")
