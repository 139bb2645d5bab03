"""The gate: what is let in, what is refused, and in which words."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from material import FULL, NASTY

from hpcspawner.errors import RequestError
from hpcspawner.request.gate import make
from hpcspawner.request.model import JobRequest, LocalAccount
from hpcspawner.request.options import OPTIONS
from hpcspawner.site.profile import SiteProfile
from hpcspawner.units import Memory, Walltime

PROFILE = SiteProfile.model_validate(FULL)
ALICE = LocalAccount("alice", "/home/alice")


def refused(options, profile=PROFILE):
    with pytest.raises(RequestError) as caught:
        make(options, profile, ALICE)
    return caught.value


def test_no_options_give_the_site_s_defaults():
    request = make({}, PROFILE, ALICE)
    assert request.resources.partition == "debug"
    assert request.resources.walltime == Walltime(1800)
    assert request.resources.memory == Memory(2048)
    assert request.directory == "/home/alice"
    assert request.environment.name == "science"
    assert request.interface.name == "lab"
    assert request.image is None


def test_every_option_arrives():
    request = make(
        {
            "partition": "gpu",
            "account": "ddp363",
            "environment": "plain",
            "image": "torch",
            "interface": "notebook",
            "walltime": "1d",
            "cpus": 8,
            "memory": "16G",
            "gpus": 2,
            "gpu_type": "a100",
            "directory": "~/work",
            "reservation": "class",
            "details": True,
        },
        PROFILE,
        ALICE,
    )
    resources = request.resources
    assert (resources.partition, resources.account, resources.reservation) == ("gpu", "ddp363", "class")
    assert (resources.walltime, resources.cpus, resources.memory) == (Walltime(86400), 8, Memory(16384))
    assert (resources.gpus, resources.gpu_type) == (2, "a100")
    assert request.directory == "/home/alice/work"
    assert (request.environment.name, request.image.name, request.interface.name) == ("plain", "torch", "notebook")
    assert request.details is True


def test_nodes_qos_and_features_arrive():
    request = make({"nodes": "2", "qos": "debug", "features": ["ssd", "skylake"]}, PROFILE, ALICE)
    assert (request.resources.nodes, request.resources.qos) == (2, "debug")
    assert request.resources.features == ("ssd", "skylake")


def test_the_choices_make_the_same_request_again():
    first = make(
        {"partition": "gpu", "gpus": "2", "memory": "8G", "directory": "~/x", "image": "torch"}, PROFILE, ALICE
    )
    assert make(first.choices, PROFILE, ALICE) == first


def test_defaults_are_brought_within_the_partition_s_limits():
    request = make({"partition": "gpu"}, PROFILE, ALICE)
    assert request.resources.gpus == 1
    assert request.resources.gpu_type is None


def test_a_whole_node_is_given_whole():
    request = make({"partition": "compute", "cpus": "3"}, PROFILE, ALICE)
    assert request.resources.whole_nodes
    assert request.resources.memory is None


def test_a_partition_for_some_accounts_takes_the_first_of_them():
    assert make({"partition": "compute"}, PROFILE, ALICE).resources.account == "tro100"


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        pytest.param({"partition": "nope"}, "partition", "Choose one of: debug, compute, gpu", id="unknown partition"),
        pytest.param({"walltime": "31m"}, "walltime", "at most 30m", id="wall time over the limit"),
        pytest.param({"walltime": "30:00"}, "walltime", "write '90m'", id="ambiguous wall time"),
        pytest.param({"walltime": 60}, "walltime", "write '90m'", id="bare wall time"),
        pytest.param({"cpus": 5}, "cpus", "1 to 4", id="cpus over the limit"),
        pytest.param({"cpus": 0}, "cpus", "1 to 4", id="no cpus"),
        pytest.param({"cpus": "1e3"}, "cpus", "whole number", id="cpus in words"),
        pytest.param({"cpus": True}, "cpus", "whole number", id="cpus as truth"),
        pytest.param({"memory": "5G"}, "memory", "at most 4G", id="memory over the limit"),
        pytest.param({"memory": "4"}, "memory", "write '512M'", id="memory without a unit"),
        pytest.param({"nodes": 3}, "nodes", "1 to 2", id="nodes over the limit"),
        pytest.param({"gpus": 1}, "gpus", "With GPUs: gpu", id="gpus where there are none"),
        pytest.param({"partition": "gpu", "gpus": 5}, "gpus", "1 to 4", id="gpus over the limit"),
        pytest.param({"partition": "gpu", "gpus": 3, "gpu_type": "a100"}, "gpus", "1 to 2", id="limit of the gpu type"),
        pytest.param({"partition": "gpu", "gpu_type": "h100"}, "gpu_type", "v100, a100", id="unknown gpu type"),
        pytest.param({"image": "/home/alice/my.sif"}, "image", "torch", id="unlisted image"),
        pytest.param({"environment": "x"}, "environment", "science, plain", id="unknown environment"),
        pytest.param({"interface": "x"}, "interface", "lab, notebook", id="unknown interface"),
        pytest.param({"account": "other"}, "account", "ddp363, tro100", id="unlisted account"),
        pytest.param({"partition": "compute", "account": "ddp363"}, "account", "tro100", id="account of another"),
        pytest.param({"qos": "x"}, "qos", "normal, debug", id="unknown qos"),
        pytest.param({"features": "gpu"}, "features", "skylake, ssd", id="unknown feature"),
        pytest.param({"features": [1]}, "features", "list of names", id="features of another type"),
        pytest.param({"reservation": "a b"}, "reservation", "letters, digits", id="reservation that is no name"),
        pytest.param({"directory": "/a\nb"}, "directory", "line break", id="directory with a line break"),
        pytest.param({"directory": "/a\ud800b"}, "directory", "control character", id="directory with half a letter"),
        pytest.param({"directory": "relative"}, "directory", "absolute path", id="relative directory"),
        pytest.param({"directory": "/a/../etc"}, "directory", "absolute path", id="directory that goes up"),
        pytest.param({"directory": "/" + "a" * 2000}, "directory", "1000 are allowed", id="endless directory"),
        pytest.param({"directory": ["/a"]}, "directory", "must be text", id="directory as a list"),
        pytest.param({"details": "maybe"}, "details", "true or false", id="details in words"),
        pytest.param({"queue_limit": "8d"}, "queue_limit", "at most 7d is allowed here", id="too long in the queue"),
        pytest.param({"queue_limit": 60}, "queue_limit", "Give up after: not a wall time", id="bare queue limit"),
        pytest.param({"queue_limit": "never"}, "queue_limit", "write '90m'", id="for ever in the queue"),
        pytest.param({"idle_limit": "a while"}, "idle_limit", "write '90m'", id="idle limit in words"),
        pytest.param({"idle_limit": ["1h"]}, "idle_limit", "write '90m'", id="idle limit as a list"),
        pytest.param({"renewals": 4}, "renewals", "0 to 3", id="too many renewals"),
        pytest.param({"renewals": "x"}, "renewals", "whole number", id="renewals in words"),
        pytest.param({"colour": "red"}, "colour", "The options are: cluster, partition", id="unknown option"),
        pytest.param({"env": {"LD_PRELOAD": "x"}}, "env", "There is no option", id="unknown option with an object"),
        pytest.param([], "options", "must be an object", id="not an object"),
        pytest.param("partition=debug", "options", "must be an object", id="text"),
        pytest.param(None, "options", "must be an object", id="nothing at all"),
    ],
)
def test_a_refusal_names_the_field_and_what_is_allowed(options, field, words):
    error = refused(options)
    assert {problem.field for problem in error.problems} == {field}
    assert words in str(error)


def test_every_problem_is_told_at_once():
    error = refused({"walltime": "9d", "cpus": 99, "image": "x"})
    assert {problem.field for problem in error.problems} == {"walltime", "cpus", "image"}


@pytest.mark.parametrize("value", ["", None, []])
def test_an_empty_value_is_no_value(value):
    assert make(dict.fromkeys(OPTIONS, value), PROFILE, ALICE) == make({}, PROFILE, ALICE)


@pytest.mark.parametrize("name", NASTY)
def test_any_printable_name_of_a_directory_is_let_in_as_it_is(name):
    assert make({"directory": f"/scratch/{name}"}, PROFILE, ALICE).directory == f"/scratch/{name}"


@pytest.mark.parametrize("value", ["1d" + " " * 70_000 + "x", "," * 70_000, ["x"] * 70_000])
@pytest.mark.parametrize("name", OPTIONS)
def test_what_is_too_long_is_refused_before_anything_reads_it(name, value):
    (problem, *_) = refused({name: value}).problems
    assert problem.field == name
    assert problem.message.endswith("long; 1000 are allowed.")
    assert len(problem.message) < 200


def test_directories_are_kept_within_the_allowed_ones():
    profile = SiteProfile.model_validate({**FULL, "directories": {"allowed": ["~", "/scratch/{user}"]}})
    assert make({"directory": "/scratch/alice/run"}, profile, ALICE).directory == "/scratch/alice/run"
    assert "is not in one of: /home/alice, /scratch/alice" in str(refused({"directory": "/scratch/alice2"}, profile))


def limited(**limits):
    return SiteProfile.model_validate({**FULL, "limits": limits})


def with_defaults(limits, **defaults):
    return SiteProfile.model_validate({**FULL, "limits": limits, "defaults": defaults})


def life(options, profile=PROFILE):
    request = make(options, profile, ALICE)
    return str(request.queue_limit), request.idle_limit and str(request.idle_limit), request.renewals


def test_limits_of_time_arrive():
    assert life({"queue_limit": "2h", "idle_limit": "1h 30m", "renewals": "2"}) == ("2h", "1h 30m", 2)


def test_who_chooses_no_limit_gets_the_site_s():
    assert life({}) == ("7d", None, 0)
    assert life({}, limited(queue="1d", idle="2h", renewals=3)) == ("1d", "2h", 0)
    defaults = {"queue_limit": "12h", "idle_limit": "1h", "renewals": 1}
    assert life({}, with_defaults({"idle": "2h", "renewals": 3}, **defaults)) == ("12h", "1h", 1)


def test_never_idle_is_for_sites_without_a_limit_of_their_own():
    assert life({"idle_limit": " Never "}, with_defaults({}, idle_limit="1h")) == ("7d", None, 0)
    error = refused({"idle_limit": "never"}, limited(idle="2h"))
    assert str(error) == "Stop when idle for: you asked for never; at most 2h is allowed here."


def test_a_longer_idle_time_than_the_site_s_is_refused():
    error = refused({"idle_limit": "3h"}, limited(idle="2h"))
    assert str(error) == "Stop when idle for: you asked for 3h; at most 2h is allowed here."


@pytest.mark.parametrize("none", [0, "0", "", None])
def test_no_renewal_is_offered_everywhere(none):
    assert life({"renewals": none}, limited()) == ("7d", None, 0)


def test_a_renewal_that_is_not_offered_is_refused():
    assert "does not start servers again" in str(refused({"renewals": 1}, limited()))


@pytest.mark.parametrize(
    ("profile", "options", "kept"),
    [
        pytest.param(PROFILE, {}, {}, id="nothing chosen"),
        pytest.param(
            PROFILE, {"queue_limit": "7d", "idle_limit": "never", "renewals": 0}, {}, id="the defaults chosen"
        ),
        pytest.param(
            PROFILE,
            {"queue_limit": "60m", "idle_limit": "2h", "renewals": "3"},
            {"queue_limit": "1h", "idle_limit": "2h", "renewals": 3},
            id="all chosen",
        ),
        pytest.param(
            with_defaults({"renewals": 3}, idle_limit="1h", renewals=2),
            {"idle_limit": "never", "renewals": 0},
            {"idle_limit": "never", "renewals": 0},
            id="none chosen where the default is some",
        ),
    ],
)
def test_limits_that_differ_from_the_site_s_are_kept(profile, options, kept):
    request = make(options, profile, ALICE)
    assert {name: request.choices[name] for name in OPTIONS[-3:] if name in request.choices} == kept
    assert make(request.choices, profile, ALICE) == request


def test_no_gpu_is_kept_where_the_default_is_one():
    gpu = {**FULL["partitions"][2], "min_gpus": 0}
    profile = SiteProfile.model_validate({**FULL, "partitions": [gpu], "defaults": {"gpus": 1}})
    request = make({"gpus": 0}, profile, ALICE)
    assert make(request.choices, profile, ALICE).resources.gpus == 0


@pytest.mark.parametrize(
    ("warning", "walltime", "seconds"),
    [
        pytest.param("5m", "30m", 300, id="before the end"),
        pytest.param("5m", "5m", 0, id="a job as short as the warning"),
        pytest.param(False, "30m", 0, id="switched off"),
    ],
)
def test_a_job_is_warned_before_its_wall_time_ends(warning, walltime, seconds):
    assert make({"walltime": walltime}, limited(warning=warning), ALICE).resources.warning_s == seconds


@pytest.mark.parametrize("requeue", [True, False])
def test_a_job_is_started_again_where_the_site_says_so(requeue):
    profile = SiteProfile.model_validate({**FULL, "job": {"requeue": requeue}})
    assert make({}, profile, ALICE).resources.requeue is requeue


def test_a_required_account_is_asked_for():
    profile = SiteProfile.model_validate({**FULL, "accounts": [], "account": "required"})
    assert "requires an account" in str(refused({}, profile))


def test_a_hidden_account_is_not_taken():
    profile = SiteProfile.model_validate({**FULL, "account": "hidden"})
    assert "does not accept an account" in str(refused({"account": "ddp363"}, profile))


def test_the_environment_s_image_is_used_and_can_be_declined():
    environments = [{"name": "boxed", "image": "torch"}]
    profile = SiteProfile.model_validate({**FULL, "environments": environments})
    assert make({}, profile, ALICE).image.name == "torch"
    declined = make({"image": "none"}, profile, ALICE)
    assert declined.image is None
    assert make(declined.choices, profile, ALICE).image is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=500, deadline=None)
@given(st.one_of(ANYTHING, st.dictionaries(st.sampled_from(OPTIONS) | st.text(max_size=12), ANYTHING, max_size=6)))
def test_anything_at_all_is_either_a_request_or_a_refusal(options):
    try:
        request = make(options, PROFILE, ALICE)
    except RequestError as error:
        refusal = error
    else:
        assert isinstance(request, JobRequest)
        assert make(request.choices, PROFILE, ALICE) == request
        return
    assert refusal.problems
    assert all(problem.message for problem in refusal.problems)


def site_with(**changes):
    return SiteProfile.model_validate(FULL | {"directories": {}} | changes)


VARIABLES = {"SCRATCH": "/scratch/{group}/{user}", "PROJECT_1": "{home}/project"}


@pytest.mark.parametrize(
    ("rule", "asked", "directory"),
    [
        ("$SCRATCH", None, "/scratch/physics/alice"),
        ("${SCRATCH}/jupyter", None, "/scratch/physics/alice/jupyter"),
        ("~", "$SCRATCH", "/scratch/physics/alice"),
        ("~", "${PROJECT_1}/a b", "/home/alice/project/a b"),
        ("/groups/{group}", None, "/groups/physics"),
        ("~", "/groups/{group}/x", "/groups/physics/x"),
        ("~", "/tmp/$SCRATCH", "/tmp/$SCRATCH"),
    ],
)
def test_a_directory_may_begin_with_a_variable_of_the_site(rule, asked, directory):
    site = site_with(defaults={"directory": rule}, directories={"variables": VARIABLES})
    alice = LocalAccount("alice", "/home/alice", "physics")
    request = make({"directory": asked} if asked else {}, site, alice)
    assert request.directory == directory


@pytest.mark.parametrize("asked", ["$SCRATCHES", "$HOME/x", "$SCRATCH/../bob", "${SCRATCH", "$SCRATCH-x", "$(id)"])
def test_no_other_variable_is_looked_up(asked):
    site = site_with(directories={"variables": VARIABLES})
    with pytest.raises(RequestError, match=r"begins with one of: '~/', '\$SCRATCH/', '\$PROJECT_1/'"):
        make({"directory": asked}, site, LocalAccount("alice", "/home/alice", "physics"))


def test_a_rule_may_name_the_group_and_a_variable():
    site = site_with(
        defaults={"directory": "$SCRATCH"}, directories={"variables": VARIABLES, "allowed": ["/g/{group}", "$SCRATCH"]}
    )
    alice = LocalAccount("alice", "/home/alice", "physics")
    assert make({"directory": "/g/physics/x"}, site, alice).directory == "/g/physics/x"
    assert make({}, site, alice).directory == "/scratch/physics/alice"
    with pytest.raises(RequestError, match="is not in one of: /g/physics, /scratch/physics/alice"):
        make({"directory": "/g/other"}, site, alice)


# --- names as sites have them


@pytest.mark.parametrize("account", ["abc@v100", "abc@cpu", "proj:sub", "phys/lab-1", "_x", "a%b", "x" * 128])
@pytest.mark.parametrize("scheduler", ["slurm", "torque"])
def test_an_account_is_any_word_that_a_scheduler_takes_for_a_name(account, scheduler):
    profile = SiteProfile.model_validate(
        {
            **FULL,
            "accounts": [],
            "scheduler": {"type": scheduler},
            "partitions": [{"name": "debug", "max_walltime": "1h"}],
            "defaults": {},
        }
    )
    assert make({"account": account}, profile, ALICE).resources.account == account


@pytest.mark.parametrize(
    "account", ["-x", "a b", "a'b", 'a"b', "a\\b", "a#b", "a,b", "a;b", "$a", "@a", "x" * 129, "ä"]
)
def test_what_a_scheduler_would_read_as_something_else_is_no_account(account):
    profile = SiteProfile.model_validate(
        {**FULL, "accounts": [], "partitions": [{"name": "debug", "max_walltime": "1h"}], "defaults": {}}
    )
    with pytest.raises(RequestError, match="is not a name: letters, digits and the signs"):
        make({"account": account}, profile, ALICE)


# --- images that users name themselves

OWN = SiteProfile.model_validate(
    FULL | {"own_images": {"folders": ["/shared/images", "{home}"], "references": ["docker://", "oras://site/ours/"]}}
)


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/shared/images/tensorflow-v2.3.0-gpu.simg", "/shared/images/tensorflow-v2.3.0-gpu.simg"),
        ("~/images/it's mine.sif", "/home/alice/images/it's mine.sif"),
        ("docker://jupyter/scipy-notebook:lab-4.0.7", "docker://jupyter/scipy-notebook:lab-4.0.7"),
        ("oras://site/ours/torch@sha256:00ff", "oras://site/ours/torch@sha256:00ff"),
        ("torch", "/images/torch.simg"),
    ],
)
def test_an_image_by_path_or_reference_arrives_and_is_a_choice(asked, path):
    request = make({"image": asked}, OWN, ALICE)
    assert request.image.path == path
    assert make(request.choices, OWN, ALICE).image == request.image


@pytest.mark.parametrize(
    "asked",
    [
        "/shared/images",
        "/shared/images-of-others/x.sif",
        "/shared/images/../../etc/x.sif",
        "/home/bob/x.sif",
        "x.sif",
        "--writable",
        "oras://site/theirs/x",
        "library://x/y",
        "docker://x y",
        "oci-archive:/home/alice/x.tar",
    ],
)
def test_an_image_from_elsewhere_is_refused_with_what_is_allowed(asked):
    (problem,) = refused({"image": asked}, OWN).problems
    assert problem.message.endswith(
        "Or name one of these: an image under /shared/images, an image under /home/alice, a reference that begins with "
        "docker://, a reference that begins with oras://site/ours/."
    )


def test_a_site_that_lists_its_images_takes_no_others():
    (problem,) = refused({"image": "/home/alice/x.sif"}).problems
    assert problem.message == "Image '/home/alice/x.sif' is not offered. Choose one of: torch."


# --- environments that users name themselves

OWN_ENVIRONMENTS = SiteProfile.model_validate(FULL | {"own_environments": {"folders": ["/projects/{group}", "{home}"]}})


@pytest.mark.parametrize(
    ("asked", "conda"),
    [
        ("~/envs/it's mine", "/home/alice/envs/it's mine"),
        ("/home/alice/venv", "/home/alice/venv"),
        ("science", "jupyter"),
    ],
)
def test_an_environment_by_its_folder_arrives_and_is_a_choice(asked, conda):
    request = make({"environment": asked}, OWN_ENVIRONMENTS, ALICE)
    assert request.environment.conda == conda
    assert make(request.choices, OWN_ENVIRONMENTS, ALICE).environment == request.environment


@pytest.mark.parametrize("asked", ["/home/alice", "/home/bob/env", "~/../bob/env", "/opt/env", "--prefix", "env"])
def test_an_environment_from_elsewhere_is_refused_with_where_it_may_lie(asked):
    with pytest.raises(RequestError, match="the folder of a virtual or conda environment of yours, under "):
        make({"environment": asked}, OWN_ENVIRONMENTS, ALICE)
    with pytest.raises(RequestError) as without:
        make({"environment": asked}, PROFILE, ALICE)
    assert "virtual" not in str(without.value)
