"""Jobs for tests that need no ledger and no scheduler."""

import logging
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

from hpcspawner.jobs.job import Job
from hpcspawner.jobs.record import JobRecord, columns_of_end
from hpcspawner.schedulers.cluster import Cluster, Clusters
from hpcspawner.site.profile import SiteProfile

COLUMNS = {one.name for one in fields(JobRecord)}
PROFILE = SiteProfile.model_validate(
    {
        "title": "Test cluster",
        "scheduler": {"type": "slurm"},
        "partitions": [{"name": "debug", "max_walltime": "1h"}],
        "environments": [{"name": "jupyter"}],
    }
)


def a_cluster(profile=PROFILE, folder=Path("/nonexistent")):
    return Cluster.of(profile, folder, logging.getLogger("test"))


def clusters_of(*clusters):
    return Clusters(clusters, a_cluster)


def a_record(**columns):
    whose = {"tag": "h1", "cluster": "cluster", "username": "alice", "server": "", "owner": "alice", "name": "jupyter"}
    return JobRecord(**(whose | columns))


def a_job(on=None, ledger=None, **values):
    """A job with these columns of its record, and these fields of its own."""
    columns = {name: value for name, value in values.items() if name in COLUMNS}
    own = {name: value for name, value in values.items() if name not in COLUMNS and name != "end"}
    if "end" in values:
        columns |= columns_of_end(values["end"])
    ledger = ledger or SimpleNamespace(emit=lambda event: None)
    return Job(a_record(**columns), on or a_cluster(), ledger, **own)


def put(job, **columns):
    """Give a job a record as if it had come this far; no move is made, so none is judged."""
    job.record = replace(job.record, **columns)


def put_fields(job, fields):
    """The same for columns, fields of the job itself and an end together."""
    columns = {name: value for name, value in fields.items() if name in COLUMNS}
    if end := fields.get("end"):
        columns |= columns_of_end(end)
    put(job, **columns)
    for name, value in fields.items():
        if name not in COLUMNS and name != "end":
            assert hasattr(job, name)
            setattr(job, name, value)
