"""The form's fields: what a profile offers, how form data is read back, and where a refusal appears."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import FULL, NASTY

from hpcspawner.errors import Problem, RequestError
from hpcspawner.request.form import Option, fields, read, unplaced_problems
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.request.offer import offer
from hpcspawner.request.options import OPTIONS
from hpcspawner.site.profile import SiteProfile, load

PROFILES = sorted((Path(__file__).parents[2] / "profiles").glob("*.toml"))
ALICE = LocalAccount("alice", "/home/alice")

SMALL = {
    "title": "Smallest",
    "scheduler": {"type": "slurm"},
    "partitions": [{"name": "debug", "max_walltime": "30m"}],
    "environments": [{"name": "plain"}],
}


def shown(profile=FULL, values=None, problems=()):
    """The fields by name; `profile` is the data of one."""
    made = fields(offer(SiteProfile.model_validate(profile)), values or {}, problems)
    assert len({field.name for field in made}) == len(made)
    return {field.name: field for field in made}


def choices(field):
    return [option.value for option in field.options]


# --- what is offered


# Cluster and preset are chosen above the fields.
FIELDS = set(OPTIONS) - {"cluster", "preset"}


def test_a_full_profile_offers_every_option():
    assert set(shown()) == FIELDS


def test_a_small_profile_asks_only_what_it_must():
    assert set(shown(SMALL)) == {
        "interface",
        "environment",
        "partition",
        "account",
        "walltime",
        "cpus",
        "memory",
        "directory",
        "details",
        "queue_limit",
        "idle_limit",
    }


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        pytest.param({"account": "hidden"}, {"account"}, id="account"),
        pytest.param({"reservation": "hidden"}, {"reservation"}, id="reservation"),
        pytest.param({"images": []}, {"image"}, id="image"),
        pytest.param({"partitions": [FULL["partitions"][1]]}, {"cpus", "memory", "nodes", "qos"}, id="whole nodes"),
        pytest.param({"partitions": [FULL["partitions"][0]]}, {"gpus", "gpu_type"}, id="GPUs"),
        pytest.param({"partitions": [FULL["partitions"][2]]}, {"features", "qos", "nodes"}, id="features"),
    ],
)
def test_what_the_site_does_not_take_is_not_asked(changes, gone):
    assert not gone & set(shown(FULL | changes))


def test_lists_hold_what_the_profile_names_in_its_order():
    made = shown()
    assert choices(made["partition"]) == ["debug", "compute", "gpu"]
    assert made["environment"].options[0] == Option("science", "Science stack")
    assert choices(made["interface"]) == ["lab", "notebook"]
    assert choices(made["qos"]) == ["", "normal", "debug"]
    assert choices(made["features"]) == ["skylake", "ssd"]
    assert choices(made["gpu_type"]) == ["", "v100", "a100"]
    assert choices(made["account"]) == ["", "ddp363", "tro100"]


def test_titles_and_the_sites_own_words_are_labels():
    profile = SMALL | {
        "words": {"partition": "Queue", "account": "Project"},
        "partitions": [{"name": "debug", "title": "For tests", "help": "Short.", "max_walltime": "30m"}],
    }
    made = shown(profile)
    assert (made["partition"].label, made["account"].label) == ("Queue", "Project")
    assert made["partition"].options == (Option("debug", "For tests", "Short."),)


@pytest.mark.parametrize(
    ("changes", "kind", "offered"),
    [
        pytest.param({}, "text", [], id="none named"),
        pytest.param({"accounts": ["a", "b"]}, "select", ["", "a", "b"], id="named"),
        pytest.param({"accounts": ["a", "b"], "account": "required"}, "select", ["a", "b"], id="required"),
        pytest.param(
            {"partitions": [{"name": "p", "max_walltime": "1h", "accounts": ["c", "d"]}]},
            "select",
            ["", "c", "d"],
            id="named by each partition",
        ),
        pytest.param(
            {
                "partitions": [
                    {"name": "p", "max_walltime": "1h", "accounts": ["c"]},
                    {"name": "q", "max_walltime": "1h"},
                ]
            },
            "text",
            [],
            id="named by some partitions",
        ),
    ],
)
def test_accounts_are_a_list_where_all_are_known(changes, kind, offered):
    field = shown(SMALL | changes)["account"]
    assert (field.kind, choices(field)) == (kind, offered)


def test_no_image_is_offered_in_a_word_of_its_own():
    assert choices(shown()["image"]) == ["none", "torch"]
    boxed = FULL | {"environments": [{"name": "boxed", "image": "torch"}]}
    field = shown(boxed)["image"]
    assert choices(field) == ["", "none", "torch"]
    assert field.value == ""


def test_numbers_say_their_bounds_over_all_partitions():
    made = shown()
    bounds = {name: (made[name].low, made[name].high) for name in ("nodes", "cpus", "gpus")}
    assert bounds == {"nodes": (1, 2), "cpus": (1, 16), "gpus": (0, 4)}
    assert made["cpus"].help == "1 to 16."
    assert "Up to 2d" in made["walltime"].help


def test_the_directory_says_where_it_may_lie():
    assert shown(SMALL | {"directories": {"allowed": ["~", "/scratch/{user}"]}})["directory"].help.endswith(
        "within ~, /scratch/{user}."
    )


def test_a_default_is_shown_and_sizes_are_not_filled_in():
    """Left empty, a size follows the partition that is chosen."""
    profile = FULL | {
        "defaults": {
            "partition": "gpu",
            "walltime": "2h",
            "cpus": 3,
            "memory": "6G",
            "gpus": 1,
            "account": "tro100",
            "environment": "plain",
            "interface": "notebook",
            "image": "torch",
            "directory": "/scratch/{user}",
        }
    }
    made = shown(profile)
    filled = {name: field.value for name, field in made.items() if field.values}
    assert filled == {
        "partition": "gpu",
        "account": "tro100",
        "environment": "plain",
        "interface": "notebook",
        "image": "torch",
        "directory": "/scratch/{user}",
        "renewals": "0",
    }
    hints = {name: made[name].placeholder for name in ("walltime", "cpus", "memory", "gpus")}
    assert hints == {"walltime": "2h", "cpus": "3", "memory": "6G", "gpus": "1"}


def test_limits_are_folded_away_until_something_is_chosen_or_refused():
    made = shown(FULL | {"limits": {"renewals": 3, "idle": "8h"}}, {"idle_limit": "2h"})
    assert [(name, field.chosen) for name, field in made.items() if field.folded] == [
        ("queue_limit", False),
        ("idle_limit", True),
        ("renewals", False),
    ]


def test_limits_say_what_is_allowed_and_what_is_taken():
    made = shown(FULL | {"limits": {"queue": "2d", "idle": "8h"}, "defaults": {"queue_limit": "6h"}})
    assert "up to 2d" in made["queue_limit"].help
    assert "Up to 8h" in made["idle_limit"].help
    assert (made["queue_limit"].placeholder, made["idle_limit"].placeholder) == ("6h", "8h")
    free = shown(SMALL)
    assert "never" in free["idle_limit"].help
    assert (free["queue_limit"].placeholder, free["idle_limit"].placeholder) == ("7d", "never")


def test_renewals_are_offered_in_words_and_many_as_a_number():
    field = shown(FULL | {"defaults": {"renewals": 1}})["renewals"]
    assert [(one.value, one.label) for one in field.options] == [
        ("0", "no"),
        ("1", "once"),
        ("2", "2 times"),
        ("3", "3 times"),
    ]
    assert field.value == "1"
    many = shown(FULL | {"limits": {"renewals": 50}})["renewals"]
    assert (many.kind, many.low, many.high, many.placeholder, many.folded) == ("number", 0, 50, "0", True)


# --- what was chosen


def test_values_are_filled_in_whatever_door_they_came_through():
    made = shown(values={"cpus": 3, "walltime": "9h", "features": ["ssd"], "details": True, "partition": "gpu"})
    assert (made["cpus"].value, made["walltime"].value, made["partition"].value) == ("3", "9h", "gpu")
    assert (made["features"].values, made["details"].values) == (("ssd",), ("true",))


@pytest.mark.parametrize(
    ("value", "ticked"), [(True, ("true",)), (False, ()), ("true", ("true",)), (None, ()), ("", ())]
)
def test_a_box_is_ticked_where_it_was_chosen(value, ticked):
    assert shown(values={"details": value})["details"].values == ticked


@pytest.mark.parametrize("text", NASTY)
def test_a_refused_value_is_kept_as_it_was_written(text):
    made = shown(values={"directory": text, "partition": text, "cpus": text})
    assert [made[name].value for name in ("directory", "partition", "cpus")] == [text] * 3


def test_an_option_that_there_is_not_fills_nothing():
    assert shown(values={"colour": "red", "label": "x"}) == shown()


def test_the_choices_of_a_request_fill_the_form_so_that_it_makes_the_same_request():
    profile = SiteProfile.model_validate(FULL)
    request = make(
        {"partition": "gpu", "gpus": 2, "gpu_type": "a100", "features": [], "details": True, "image": "torch"},
        profile,
        ALICE,
    )
    made = fields(offer(profile), request.choices)
    # What a browser sends: every value that is filled in or ticked.
    sent = {field.name: list(field.values) for field in made if field.values}
    assert make(read(sent), profile, ALICE) == request


# --- what was wrong


def test_a_problem_marks_its_field_and_no_other():
    made = shown(problems=[Problem("walltime", "Too long."), Problem("walltime", "Not a time."), Problem("x", "What?")])
    marked = {name: field.error for name, field in made.items() if field.error}
    assert marked == {"walltime": "Too long. Not a time."}


def test_a_problem_without_a_field_is_a_stranger():
    problems = [Problem("cpus", "a"), Problem("colour", "b"), Problem("image", "c")]
    made = fields(offer(SiteProfile.model_validate(SMALL)), {}, problems)
    assert unplaced_problems(problems, made) == problems[1:]


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_whatever_the_gate_refuses_has_a_place_on_the_page(name):
    profile = SiteProfile.model_validate(FULL)
    with pytest.raises(RequestError) as caught:
        make({name: {"not": "this"}}, profile, ALICE)
    marked = [field.name for field in fields(offer(profile), {}, caught.value.problems) if field.error]
    assert marked == [name]


# --- reading


@pytest.mark.parametrize(
    ("data", "options"),
    [
        pytest.param({}, {}, id="nothing"),
        pytest.param({"cpus": ["2"]}, {"cpus": "2"}, id="text stays text"),
        pytest.param({"cpus": ["", "2"]}, {"cpus": "2"}, id="empty ones are left out"),
        pytest.param({"cpus": [""], "memory": ["  "]}, {}, id="only empty ones"),
        pytest.param({"cpus": ["1", "2"]}, {"cpus": "2"}, id="the last one counts"),
        pytest.param({"features": ["ssd", "", "skylake"]}, {"features": ["ssd", "skylake"]}, id="features are a list"),
        pytest.param({"_xsrf": ["2|abc"], "_other": ["x"]}, {}, id="the Hub's own fields"),
        pytest.param({"colour": ["red"]}, {"colour": "red"}, id="unknown ones are for the gate to refuse"),
        pytest.param({"directory": ["  /a b "]}, {"directory": "  /a b "}, id="nothing is judged or trimmed"),
        pytest.param({"image": [{"filename": "x"}]}, {}, id="an upload is no text"),
        pytest.param({"cpus": []}, {}, id="no values at all"),
    ],
)
def test_form_data_is_read_as_options(data, options):
    assert read(data) == options


TEXTS = st.dictionaries(st.sampled_from(OPTIONS) | st.text(max_size=10), st.lists(st.text(max_size=20), max_size=3))


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_any_form_data_makes_a_form_again(data):
    values = read(data)
    made = shown(values=values)
    assert set(made) == FIELDS
    for name in set(values) & FIELDS - {"features"}:
        assert made[name].value == values[name]


# --- shipped profiles


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_form_of_a_shipped_profile_left_as_it_is_makes_the_default_request(path):
    profile = load(path)
    made = fields(offer(profile), {})
    assert {field.name for field in made} <= set(OPTIONS)
    sent = {field.name: list(field.values) for field in made if field.values}
    assert make(read(sent), profile, ALICE) == make({}, profile, ALICE)
