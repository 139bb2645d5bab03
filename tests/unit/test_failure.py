"""What the page says of an end: the cause, what to change, and how to start again."""

import pytest
from material import FULL

from hpcspawner.errors import Reason, SchedulerUnreachable, ServerLost
from hpcspawner.pages.failure import failure, more_memory
from hpcspawner.pages.pages import as_hub_error
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.state import Cause
from hpcspawner.site.profile import SiteProfile

PROFILE = SiteProfile.model_validate(FULL)
CHOICES = {"partition": "debug", "memory": "1G", "features": ["skylake", "ssd"], "details": True, "cpus": 2}


@pytest.mark.parametrize("why", [*Cause, *Reason])
def test_every_end_comes_with_advice(why):
    advice = failure("It ended.", why, PROFILE, CHOICES).advice
    assert advice.endswith(".")
    assert "{" not in advice


@pytest.mark.parametrize(
    ("choices", "more"),
    [
        pytest.param({"partition": "debug", "memory": "1G"}, "2G", id="twice"),
        pytest.param({"partition": "debug", "memory": "3G"}, "4G", id="the limit"),
        pytest.param({"partition": "debug", "memory": "4G"}, "", id="at the limit"),
        pytest.param({"partition": "compute", "memory": "4G"}, "", id="whole nodes"),
        pytest.param({"partition": "gone", "memory": "4G"}, "", id="no such partition"),
        pytest.param({"partition": "debug"}, "", id="none was asked for"),
        pytest.param({"partition": "debug", "memory": "much"}, "", id="no amount"),
    ],
)
def test_twice_as_much_memory_within_the_limits(choices, more):
    assert more_memory(PROFILE, choices) == more


def test_more_memory_is_offered_where_it_ran_out_alone():
    assert failure("", Cause.OUT_OF_MEMORY, PROFILE, CHOICES).more_memory == "2G"
    assert failure("", Cause.WALL_TIME, PROFILE, CHOICES).more_memory == ""


def test_the_choices_come_back_through_a_form():
    pairs = failure("", Cause.OUT_OF_MEMORY, PROFILE, CHOICES).choices
    form = {}
    for name, value in pairs:
        form.setdefault(name, []).append(value)
    request = make(read(form | {"memory": ["2G"]}), PROFILE, LocalAccount("alice", "/home/alice"))
    assert request.choices["memory"] == "2G"
    assert (request.resources.features, request.resources.cpus, request.details) == (("skylake", "ssd"), 2, True)


def test_an_error_carries_what_its_page_says():
    lost = ServerLost("It used more memory.", Reason.JOB_ENDED, ("last line",), Cause.OUT_OF_MEMORY.value)
    shown = as_hub_error(lost, PROFILE, CHOICES).hpcspawner_failure
    assert (shown.message, shown.log, shown.more_memory) == ("It used more memory.", ("last line",), "2G")
    away = as_hub_error(SchedulerUnreachable("The scheduler is not answering."), PROFILE).hpcspawner_failure
    assert "Try again in some minutes" in away.advice
    assert away.choices == ()
