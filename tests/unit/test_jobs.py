"""`hpcspawner jobs`: the ledger beside the queue."""

import asyncio
import json
import logging
import time

import pytest
from support.jobs import a_cluster
from unit.test_cli import GOOD, run

from hpcspawner.cli.hub_config import HubConfig
from hpcspawner.cli.jobs import LOST, ORPHAN, UNSEEN, hub_id, joined, keys, ledger
from hpcspawner.jobs.keys import Keys
from hpcspawner.jobs.record import JobRecord
from hpcspawner.jobs.table import Store
from hpcspawner.schedulers.base import JobLabel, Resources, Submission
from hpcspawner.schedulers.cluster import Clusters
from hpcspawner.schedulers.state import JobState, JobStatus
from hpcspawner.units import Walltime

KEYS = Keys(b"s" * 32, "hub")
CLUSTER = a_cluster()
ENDED = JobStatus(JobState.ENDED)


def record(tag, **values):
    known = JobRecord(tag, CLUSTER.name, "alice", "", "alice", "jupyter", job_id="7", host="n1").columns()
    return known | values


def listed(tag, state=JobState.RUNNING, owner="alice"):
    return JobStatus(state, "n1", owner=owner, tag=tag)


def kinds(known, jobs):
    return [(row.job_id, row.kind) for row in joined(CLUSTER, known, jobs, KEYS)]


def test_a_job_that_both_know_is_in_order():
    tag = KEYS.new_tag("alice", "alice", "")
    (row,) = joined(CLUSTER, [record(tag)], {"7": listed(tag)}, KEYS)
    assert (row.job_id, row.state, row.host, row.server, row.remark) == ("7", "running", "n1", "alice", "")


def test_jobs_of_ours_that_no_server_needs_are_orphans():
    ended, unknown = KEYS.new_tag("alice", "alice", ""), KEYS.new_tag("bob", "bob", "")
    known = [record(ended, ended_at=time.time())]
    jobs = {
        "7": listed(ended),
        "8": listed(unknown, owner="bob"),
        "9": listed("s" + "a" * 14),
        "10": listed(ended, JobState.ENDED),
    }
    assert kinds(known, jobs) == [("7", ORPHAN), ("8", ORPHAN)]


def test_a_job_that_is_gone_or_somebody_elses_by_now_is_lost():
    tag = KEYS.new_tag("alice", "alice", "")
    assert kinds([record(tag)], {}) == [("7", LOST)]
    assert kinds([record(tag)], {"7": listed("other", owner="carol")}) == [("7", LOST)]
    assert kinds([record(tag, job_id="")], {}) == [("-", "")]


def test_without_a_listing_nothing_is_said_to_be_gone():
    tag = KEYS.new_tag("alice", "alice", "")
    assert kinds([record(tag)], None) == [("7", UNSEEN)]


def test_jobs_of_another_cluster_are_not_this_ones():
    assert kinds([record("t", cluster="other")], {}) == []


@pytest.fixture
def hub(tmp_path):
    """A Hub's folder with its ledger and its secret; its scheduler is the embedded one."""
    (tmp_path / "site.toml").write_text(GOOD.replace('"slurm"', '"local"'))
    config = tmp_path / "jupyterhub_config.py"
    config.write_text(
        "import hpcspawner\nc = get_config()\n"
        f"hpcspawner.configure(c, {str(tmp_path / 'site.toml')!r}, callback_url='https://hub.example.org')\n"
        f"c.HPCSpawner.spool = '{tmp_path}/spool'\n"
        f"c.JupyterHub.db_url = 'sqlite:///{tmp_path}/jupyterhub.sqlite'\n"
    )
    (tmp_path / "hpcspawner_secret").write_text("ab" * 32)
    (tmp_path / "hpcspawner_secret").chmod(0o600)
    return config


async def kept(hub, *records):
    read = HubConfig.read(hub)
    store = Store(read.ledger_url, hub_id(read), None)
    for one in records:
        await store.write(one)
    store.close()
    return read


async def test_the_ledger_is_read_and_left_as_it_is(hub):
    read = await kept(hub, record("t1", cluster="site"), record("t2", cluster="site", ended_at=1.0))
    before = (hub.parent / "hpcspawner.sqlite").stat().st_mtime_ns
    assert {one["tag"] for one in ledger(read)} == {"t1", "t2"}
    assert keys(read).secret == bytes.fromhex("ab" * 32)
    assert (hub.parent / "hpcspawner.sqlite").stat().st_mtime_ns == before


async def test_the_command_prints_a_table_or_json(hub):
    await kept(hub, record("t1", cluster="site", server="two"))
    done = run("jobs", f"--hub={hub}")
    assert done.returncode == 0, done.stderr
    head, row = done.stdout.splitlines()
    assert head.split() == ["cluster", "job_id", "owner", "server", "state", "host", "remark"]
    assert row.split()[:5] == ["site", "7", "alice", "alice/two", "unknown"]
    assert row.endswith("the scheduler lists it no longer")
    done = run("jobs", f"--hub={hub}", "--json", "--orphans")
    assert json.loads(done.stdout) == []


async def test_an_orphan_is_cancelled_when_that_is_asked_for_and_no_other_job(hub):
    read = await kept(hub, record("t1", cluster="other"))
    client = Clusters.of(read.sites, read.spool, logging.getLogger("test")).default.client
    me = client.own_account
    ids = []
    for tag in (keys(read).new_tag(me, me, ""), "sbelongstoother"):
        options = tuple(client.scheduler.options(Resources("debug", Walltime(60)), JobLabel("jupyter", tag)))
        ids.append(await client.submit(me, Submission(options, "#!/bin/bash\nsleep 600\n")))
    orphan, other = ids
    try:
        done = run("jobs", f"--hub={hub}", "--orphans")
        assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == [orphan], done.stderr
        done = run("jobs", f"--hub={hub}", "--orphans", "--cancel")
        assert f"cancelled job {orphan} of {me}" in done.stderr
        while (await client.listing()).jobs.get(orphan, ENDED).state is not JobState.ENDED:
            await asyncio.sleep(0.1)
        assert (await client.listing()).jobs[other].state is not JobState.ENDED
    finally:
        await client.cancel(me, other)


def test_what_it_needs_is_asked_for(tmp_path, hub):
    done = run("jobs", f"--hub={hub}")
    assert (done.returncode, done.stdout) == (1, "")
    assert "there is no ledger" in done.stderr
    assert "is not there" in run("jobs", f"--hub={tmp_path}/none.py").stderr
    done = run("jobs", f"--hub={hub}", "--cancel")
    assert done.returncode == 2
    assert "write --orphans --cancel" in done.stderr
