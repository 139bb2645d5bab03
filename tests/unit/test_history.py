"""The last jobs of a user: how long they ran, what that cost, how they ended."""

import pytest
from support.jobs import PROFILE, a_cluster, a_job

from hpcspawner.jobs.record import End
from hpcspawner.pages.history import past_jobs
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.profile import SiteProfile

PRICED = SiteProfile.model_validate(
    PROFILE.model_dump(mode="json", include={"title"})
    | {
        "scheduler": {"type": "slurm"},
        "partitions": [{"name": "debug", "max_walltime": "10h", "max_cpus": 8}],
        "environments": [{"name": "jupyter"}],
        "cost": {"unit": "SU", "core_hour": 3},
    }
)
CHOICES = {"cluster": "cluster", "partition": "debug", "cpus": 4}


def past(profile=PRICED, message="Idle.", **columns):
    end = End(Cause.IDLE, message, 10_000.0)
    (found,) = past_jobs([a_job(a_cluster(profile), end=end, **{"choices": CHOICES, "job_id": "12"} | columns)])
    return found


def test_a_run_costs_what_it_took_and_not_what_was_asked_for():
    found = past(started_at=10_000.0 - 1800)
    assert (found.job_id, found.partition, found.ran, found.cost) == ("12", "debug", "30m", "6 SU")
    assert found.end == "Idle."


@pytest.mark.parametrize(
    ("profile", "columns"),
    [
        pytest.param(PRICED, {}, id="never ran"),
        pytest.param(PRICED, {"started_at": 10_001.0}, id="a clock that went back"),
        pytest.param(PROFILE, {"started_at": 9000.0}, id="no rates"),
        pytest.param(PRICED, {"started_at": 9000.0, "choices": {"partition": "gone"}}, id="no longer offered"),
    ],
)
def test_a_cost_that_is_not_known_is_not_guessed(profile, columns):
    assert past(profile, **columns).cost == ""


def test_an_end_without_words_is_its_users():
    assert past(message="").end == "Its user stopped it."


def test_a_job_that_lives_is_no_past_one():
    assert past_jobs([a_job()]) == []
