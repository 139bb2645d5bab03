"""What a site offers: one set of limits, by which the gate judges and which the form and the browser get."""

import json

import pytest
from material import FULL

from hpcspawner.errors import ProfileError, RequestError
from hpcspawner.request import presets
from hpcspawner.request.form import read
from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.request.offer import Counts, UpTo, as_data, offer
from hpcspawner.request.options import OPTIONS, TABLE
from hpcspawner.site.profile import SiteProfile, parse
from hpcspawner.units import Memory, Walltime

ALICE = LocalAccount("alice", "/home/alice")
QUICK = {"name": "quick", "title": "Quick look", "options": {"walltime": "10m", "cpus": 2}}
ON_GPU = {"name": "gpu", "title": "One GPU", "options": {"partition": "gpu", "gpus": 1, "walltime": "4h"}}
PROFILE = SiteProfile.model_validate(FULL | {"presets": [QUICK, ON_GPU]})


def place(name):
    return offer(PROFILE).place(PROFILE.partition(name))


def test_every_option_has_one_row():
    assert len(set(OPTIONS)) == len(TABLE)
    assert {row.group for row in TABLE} == {"", "what", "where", "size"}


def test_a_partition_s_limits_hold_its_defaults():
    assert place("debug").counts("cpus") == Counts(1, 4, 1)
    assert place("debug").up_to("memory") == UpTo(Memory(4096), Memory(2048))
    assert place("debug").up_to("walltime") == UpTo(Walltime(1800), Walltime(1800))
    assert place("gpu").counts("gpus") == Counts(1, 4, 1)
    assert place("gpu").gpus_of("a100") == Counts(1, 2, 1)


def test_what_a_partition_does_not_have_has_no_limit_there():
    assert "gpus" not in place("debug").limits
    assert place("gpu").names("qos").names == ()


def test_the_accounts_are_those_of_the_partition_or_the_site_s():
    assert place("debug").names("account").names == ("ddp363", "tro100")
    assert place("compute").names("account").names == ("tro100",)
    assert place("compute").names("account").default == "tro100"


@pytest.mark.parametrize("partition", ["debug", "gpu"])
@pytest.mark.parametrize("name", ["nodes", "cpus", "gpus"])
def test_the_gate_judges_by_the_offer_s_counts(partition, name):
    if name not in place(partition).limits:
        return
    limit = place(partition).counts(name)
    for count in (limit.low, limit.high):
        request = make({"partition": partition, name: count}, PROFILE, ALICE)
        assert getattr(request.resources, name) == count
    with pytest.raises(RequestError, match=f"allowed here: .*{limit.high}"):
        make({"partition": partition, name: limit.high + 1}, PROFILE, ALICE)


@pytest.mark.parametrize(("name", "over"), [("walltime", "31m"), ("memory", "5G")])
def test_the_gate_judges_by_the_offer_s_bounds(name, over):
    limit = place("debug").up_to(name)
    assert getattr(make({name: str(limit.high)}, PROFILE, ALICE).resources, name) == limit.high
    with pytest.raises(RequestError, match=f"at most {limit.high}"):
        make({name: over}, PROFILE, ALICE)


def test_a_browser_gets_the_same_limits():
    data = json.loads(json.dumps(as_data(offer(PROFILE))))
    assert list(data["partitions"]) == ["debug", "compute", "gpu"]
    debug = data["partitions"]["debug"]
    assert debug["cpus"] == [1, 4, 1]
    assert debug["walltime"] == [1800, "30m", "30m"]
    assert debug["memory"] == [4096, "4G", "2G"]
    assert "gpus" not in debug
    assert data["partitions"]["gpu"]["gpus_of"] == {"v100": 4, "a100": 2}


# --- presets


@pytest.fixture
def site(tmp_path):
    """Writes a profile."""

    def write(text):
        (tmp_path / "site.toml").write_text(text, encoding="utf-8")
        return tmp_path / "site.toml"

    return write


def test_a_preset_gives_its_options_and_the_site_s_defaults():
    request = make({"preset": "gpu"}, PROFILE, ALICE)
    assert (request.resources.partition, request.resources.gpus) == ("gpu", 1)
    assert request.resources.walltime == Walltime(4 * 3600)
    assert request.environment.name == "science"
    assert "preset" not in request.choices


def test_options_beside_a_preset_win():
    request = make({"preset": "quick", "cpus": 4, "memory": ""}, PROFILE, ALICE)
    assert (request.resources.cpus, request.resources.walltime) == (4, Walltime(600))


@pytest.mark.parametrize("name", ["gone", "last", 7, ["quick"]])
def test_a_preset_that_the_site_does_not_have_is_refused(name):
    with pytest.raises(RequestError, match="Preset"):
        make({"preset": name}, PROFILE, ALICE)


def test_the_fields_sent_beside_a_preset_s_button_count_for_nothing():
    form = {"preset": ["quick"], "cpus": ["4"], "partition": ["gpu"], "cluster": ["comet"]}
    assert read(form) == {"preset": "quick", "cluster": "comet"}
    assert read({"preset": [""], "cpus": ["4"]}) == {"cpus": "4"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param(
            {"cpus": 5}, "presets[1] (quick).options.cpus: CPUs: you asked for 5; allowed here: 1 to 4", id="over"
        ),
        pytest.param({"colour": "red"}, "presets[1] (quick).options.colour: There is no option", id="unknown"),
        pytest.param({"gpus": 1}, "Partition 'debug' has no GPUs", id="elsewhere"),
        pytest.param({"preset": "quick"}, "a preset can't name a preset", id="itself"),
    ],
)
def test_a_preset_that_the_gate_refuses_is_a_mistake_in_the_profile(site, options, words):
    text = (
        'title = "T"\n[scheduler]\ntype = "slurm"\n[[partitions]]\nname = "debug"\nmax_walltime = "30m"\nmax_cpus = 4\n'
    )
    entries = ", ".join(f"{name} = {json.dumps(value)}" for name, value in options.items())
    text += '[[environments]]\nname = "e"\n[[presets]]\nname = "quick"\ntitle = "Q"\n'
    text += f"options = {{ {entries} }}\n"
    with pytest.raises(ProfileError) as caught:
        presets.load(site(text))
    assert words in str(caught.value)


@pytest.mark.parametrize("account", ["required", "optional"])
def test_a_preset_need_not_name_the_account(site, account):
    text = f'title = "T"\naccount = "{account}"\n[scheduler]\ntype = "slurm"\n[[partitions]]\nname = "debug"\n'
    text += 'max_walltime = "30m"\n[[environments]]\nname = "e"\n'
    text += '[[presets]]\nname = "q"\ntitle = "Q"\noptions = { walltime = "10m" }\n'
    assert presets.load(site(text)).presets[0].title == "Q"


def test_the_name_of_the_last_choice_is_taken():
    with pytest.raises(ProfileError, match="stands for a user's last choice"):
        parse(FULL | {"presets": [QUICK | {"name": "last"}]}, "site.toml")
