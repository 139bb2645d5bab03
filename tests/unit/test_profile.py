"""Site profiles: what loads, what is refused, and in which words."""

import json
import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from hpcspawner.errors import ProfileError
from hpcspawner.site import profile as profile_module
from hpcspawner.site.profile import SiteProfile, find_shipped, load
from hpcspawner.units import Memory, Walltime

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "profiles").glob("*.toml"))
REFERENCE = ROOT / "docs" / "reference" / "profile.md"

GOOD = """\
title = "Test cluster"

[scheduler]
type = "slurm"

[[partitions]]
name = "debug"
max_walltime = "30m"
max_nodes = 2
max_cpus = 4
max_memory = "4G"

[[partitions]]
name = "gpu"
max_walltime = "1d"
gpus = { v100 = 4 }

[[images]]
name = "torch"
path = "/images/torch.sif"

[[environments]]
name = "jupyter"
"""


@pytest.fixture
def site(tmp_path):
    """Write a profile of this text; its path."""

    def write(text):
        path = tmp_path / "site.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def problems(site):
    """What is wrong with a profile of this text, in lines."""

    def load_bad(text):
        with pytest.raises(ProfileError) as caught:
            load(site(text))
        return caught.value.problems

    return load_bad


def changed(old, new):
    """The good profile with one thing changed."""
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


# ---- what loads


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_profile_loads(path):
    assert load(path).title


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_line_of_a_shipped_profile_that_sets_a_limit_or_a_module_is_explained(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    said = re.compile(r"^(max_|modules|conda|gpus|min_gpus|whole_nodes|account|type)\b")
    for before, line in zip(["", *lines], lines, strict=False):
        assert "#" in line or before.startswith("#") or not said.match(line), f"{path.name}: {line}"


def test_all_sites_and_the_minimal_profiles_are_shipped():
    assert {path.name for path in SHIPPED} == {
        *("comet.toml", "stratus.toml", "tscc.toml", "rhea.toml", "hydra.toml"),
        *("slurm-minimal.toml", "openpbs-minimal.toml", "torque-minimal.toml", "local.toml"),
    }


def test_comet_offers_what_is_known_of_it():
    comet = load(find_shipped("comet.toml"))
    assert [partition.name for partition in comet.partitions] == ["debug", "compute", "gpu-shared"]
    assert comet.default_partition.name == "compute"
    assert comet.partition("debug").max_walltime == Walltime.parse("30m")
    assert (comet.partition("compute").whole_nodes, comet.partition("compute").max_cpus) == (True, 24)
    assert (comet.partition("gpu-shared").min_gpus, comet.partition("gpu-shared").max_gpus) == (1, 3)
    assert (comet.defaults.walltime, comet.defaults.directory) == (Walltime.parse("30m"), "~")
    assert comet.account == "optional"
    assert all(environment.purge_modules for environment in comet.environments)
    assert [interface.name for interface in comet.interfaces] == ["lab", "notebook"]
    assert {image.path for image in comet.images} == {
        "/share/apps/gpu/singularity/images/tensorflow/tensorflow-v2.3.0-gpu-20200929.simg",
        "/share/apps/gpu/singularity/images/pytorch/pytorch-gpu.simg",
        "/share/apps/compute/singularity/images/tensorflow/tensorflow-cpu.simg",
    }


@pytest.mark.parametrize(
    ("name", "scheduler"),
    [
        ("comet.toml", "slurm"),
        ("stratus.toml", "slurm"),
        ("tscc.toml", "torque"),
        ("rhea.toml", "torque"),
        ("hydra.toml", "slurm"),
        ("slurm-minimal.toml", "slurm"),
        ("torque-minimal.toml", "torque"),
        ("openpbs-minimal.toml", "openpbs"),
        ("local.toml", "local"),
    ],
)
def test_each_site_has_the_scheduler_that_it_has(name, scheduler):
    assert load(find_shipped(name)).scheduler.type == scheduler


def test_rhea_and_hydra_and_tscc_offer_what_is_known_of_them():
    rhea, hydra, tscc = (load(find_shipped(f"{name}.toml")) for name in ("rhea", "hydra", "tscc"))
    assert rhea.default_partition.max_walltime == Walltime.parse("48h")
    assert rhea.defaults.nodes == 1
    assert rhea.default_partition.max_nodes > 1
    assert hydra.default_environment.modules == ("anaconda/3",)
    assert len(tscc.partitions) == 1
    assert [interface.name for interface in tscc.interfaces] == ["lab", "notebook"]


def test_times_and_sizes_are_values_after_loading(site):
    debug = load(site(GOOD)).partition("debug")
    assert (debug.max_walltime, debug.max_memory) == (Walltime(1800), Memory(4096))


def test_what_is_left_out_has_a_default(site):
    loaded = load(site(GOOD))
    assert loaded.default_partition.name == "debug"
    assert loaded.default_environment.name == "jupyter"
    assert [interface.url for interface in loaded.interfaces] == ["/lab", "/tree"]
    assert loaded.scheduler.prefix == ("sudo", "-n", "-u", "{user}")
    assert loaded.defaults.walltime == Walltime(1800)
    assert loaded.contact.email is None


def test_limits_have_defaults_and_a_user_who_chooses_nothing_gets_them(site):
    loaded = load(site(GOOD))
    assert (loaded.limits.queue, loaded.limits.idle) == (Walltime.parse("7d"), None)
    assert (loaded.limits.renewals, loaded.limits.warning) == (0, Walltime.parse("5m"))
    assert (loaded.default_queue_limit, loaded.default_idle_limit, loaded.job.requeue) == (
        Walltime.parse("7d"),
        None,
        False,
    )


def test_limits_are_read_and_defaults_go_before_them(site):
    limits = '[limits]\nqueue = "2d"\nidle = "4h"\nrenewals = 3\nwarning = false\n[job]\nrequeue = true\n'
    loaded = load(site(GOOD + limits))
    assert (loaded.default_queue_limit, loaded.default_idle_limit) == (Walltime.parse("2d"), Walltime.parse("4h"))
    assert (loaded.limits.renewals, loaded.limits.warning, loaded.job.requeue) == (3, None, True)
    chosen = load(site(f'{GOOD}{limits}[defaults]\nqueue_limit = "1d"\nidle_limit = "1h"\nrenewals = 2\n'))
    assert (chosen.default_queue_limit, chosen.default_idle_limit) == (Walltime.parse("1d"), Walltime.parse("1h"))


def test_the_local_scheduler_has_no_prefix_and_an_admin_may_empty_that_of_others(site):
    assert load(site(changed('"slurm"', '"local"'))).scheduler.prefix == ()
    assert load(site(changed('"slurm"', '"slurm"\ncommand_prefix = []'))).scheduler.prefix == ()


def test_an_image_is_found_by_name_and_by_path(site):
    loaded = load(site(GOOD))
    assert loaded.image("torch") is loaded.image("/images/torch.sif") is loaded.images[0]
    assert loaded.image("other") is None


def test_a_loaded_profile_can_t_be_changed(site):
    loaded = load(site(GOOD))
    with pytest.raises(ValueError, match="frozen"):
        loaded.title = "Another"


# ---- what is refused


def test_three_mistakes_are_named_in_one_message(site):
    text = changed('max_walltime = "30m"', 'max_walltime = "30:00"').replace('name = "gpu"', 'name = "debug"')
    path = site(text.replace("max_nodes = 2", "max_node = 2"))
    with pytest.raises(ProfileError) as caught:
        load(path)
    assert str(caught.value) == (
        "The site profile has 3 mistakes:\n"
        f"  {path}: partitions: 'debug' appears 2 times; give each entry its own name\n"
        f"  {path}: partitions[1] (debug).max_walltime: not a wall time: '30:00' "
        "(write '90m', '12h', '1d 12h' or '1-12:00:00')\n"
        f"  {path}: partitions[1] (debug).max_node: unknown key (see the profile reference for the keys that exist)"
    )


def test_one_mistake_is_one_mistake(site):
    with pytest.raises(ProfileError, match="has 1 mistake:"):
        load(site(changed('"slurm"', '"pbs"')))


def test_a_file_that_is_no_toml_is_told_with_line_and_column(problems):
    assert problems('title = "A"\ntitle == 3\n') == ("is not TOML: Invalid value (at line 2, column 8)",)


def test_a_file_that_is_no_text_is_told(tmp_path):
    path = tmp_path / "site.toml"
    path.write_bytes(b'title = "\xff"')
    with pytest.raises(ProfileError, match="is not TOML"):
        load(path)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        pytest.param("absent.toml", "No such file or directory", id="absent"),
        pytest.param(".", "Is a directory", id="a folder"),
    ],
)
def test_a_file_that_can_t_be_read_is_told_with_the_reason(tmp_path, name, why):
    path = tmp_path / name
    with pytest.raises(ProfileError) as caught:
        load(path)
    assert str(caught.value) == f"The site profile has 1 mistake:\n  {path}: can't be read: {why}"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        pytest.param(
            'name = "jupyter"',
            'name = "jupyter"\nmodule = "anaconda"',
            "environments[1] (jupyter).module: unknown key (see the profile reference for the keys that exist)",
            id="a key that is not there",
        ),
        pytest.param('title = "Test cluster"', "", "title: is missing", id="a key left out"),
        pytest.param(
            'title = "Test cluster"', "title = 3", "title: Input should be a valid string; got '3'", id="type"
        ),
        pytest.param(
            'type = "slurm"',
            'type = "pbs"',
            "scheduler.type: 'pbs' is not an installed scheduler; the installed ones are: slurm, openpbs, torque, "
            "local",
            id="a scheduler that is not there",
        ),
        pytest.param(
            "max_cpus = 4",
            "max_cpus = 0",
            "partitions[1] (debug).max_cpus: Input should be greater than or equal to 1; got '0'",
            id="no cores",
        ),
        pytest.param(
            "max_cpus = 4",
            'max_cpus = "4"',
            "partitions[1] (debug).max_cpus: Input should be a valid integer; got '4'",
            id="a number as text",
        ),
        pytest.param(
            'max_memory = "4G"',
            "max_memory = 4",
            "partitions[1] (debug).max_memory: not an amount of memory: 4 (write '512M', '64G' or '1.5T')",
            id="memory without a unit",
        ),
        pytest.param(
            'max_walltime = "1d"',
            "max_walltime = 60",
            "partitions[2] (gpu).max_walltime: not a wall time: 60 (write '90m', '12h', '1d 12h' or '1-12:00:00')",
            id="a time without a unit",
        ),
        pytest.param(
            "gpus = { v100 = 4 }",
            "gpus = { v100 = 4 }\nmin_gpus = 5",
            "partitions[2] (gpu): min_gpus is 5, but gpus allows 4 at most",
            id="more GPUs at least than at most",
        ),
        pytest.param(
            'path = "/images/torch.sif"',
            'path = "torch.sif"',
            "images[1] (torch).path: write an absolute path, or a reference such as 'docker://…', 'oras://…', "
            "'oci-archive:/…'",
            id="a path from nowhere",
        ),
        pytest.param(
            'path = "/images/torch.sif"',
            'path = "~/torch.sif"',
            "images[1] (torch).path: write an absolute path, or a reference such as 'docker://…', 'oras://…', "
            "'oci-archive:/…'",
            id="an image in a home, whose path no shell reads",
        ),
        pytest.param(
            'name = "jupyter"',
            'name = "jupyter"\npath = ["~alice/bin"]',
            "environments[1] (jupyter).path[1]: write an absolute path, or one that begins with '~/'",
            id="the home of somebody else",
        ),
        pytest.param(
            'name = "jupyter"',
            'name = "my jupyter"',
            "environments[1] (my jupyter).name: 'my jupyter' has characters that are not allowed here "
            "(pattern ^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$)",
            id="a name with a space",
        ),
        pytest.param(
            'name = "jupyter"',
            'name = "jupyter"\nmodules = ["a; rm -rf /"]',
            "environments[1] (jupyter).modules[1]: 'a;' is not a module name: it begins with '-' or contains a "
            "quote, '$', '`', ';' or '&'",
            id="a command in a module's name",
        ),
    ],
)
def test_a_mistake_is_told_with_its_place_and_its_cure(problems, old, new, problem):
    assert problems(changed(old, new)) == (problem,)


@pytest.mark.parametrize("table", ["partitions", "environments", "images"])
def test_a_name_that_stands_twice_is_told(problems, table):
    entries = tomllib.loads(GOOD)[table]
    name = entries[0]["name"]
    again = {
        "partitions": f'[[partitions]]\nname = "{name}"\nmax_walltime = "1h"\n',
        "environments": f'[[environments]]\nname = "{name}"\n',
        "images": f'[[images]]\nname = "{name}"\npath = "/other.sif"\n',
    }[table]
    assert problems(GOOD + again) == (f"{table}: '{name}' appears 2 times; give each entry its own name",)


def test_an_interface_that_stands_three_times_is_told(problems):
    assert problems(GOOD + '[[interfaces]]\nname = "lab"\n' * 3) == (
        "interfaces: 'lab' appears 3 times; give each entry its own name",
    )


@pytest.mark.parametrize(
    ("default", "problem"),
    [
        pytest.param('walltime = "1h"', "walltime: 1h is more than partition 'debug' allows (30m)", id="wall time"),
        pytest.param("nodes = 3", "nodes: 3 is more than partition 'debug' allows (2)", id="nodes"),
        pytest.param("cpus = 5", "cpus: 5 is more than partition 'debug' allows (4)", id="cpus"),
        pytest.param('memory = "5G"', "memory: 5G is more than partition 'debug' allows (4G)", id="memory"),
        pytest.param("gpus = 1", "gpus: 1 is more than partition 'debug' allows (0)", id="gpus"),
    ],
)
def test_a_default_beyond_its_partition_s_limit_is_told(problems, default, problem):
    assert problems(f"{GOOD}[defaults]\n{default}\n") == (f"defaults.{problem}",)


def test_all_defaults_beyond_their_limits_are_told_at_once(problems):
    found = problems(f'{GOOD}[defaults]\nwalltime = "1h"\nnodes = 3\ncpus = 5\n')
    assert [problem.partition(":")[0] for problem in found] == ["defaults.walltime", "defaults.nodes", "defaults.cpus"]


@pytest.mark.parametrize(
    ("limits", "default", "problem"),
    [
        pytest.param("", 'queue_limit = "8d"', "queue_limit: 8d is more than limits.queue allows (7d)", id="queue"),
        pytest.param(
            'idle = "1h"', 'idle_limit = "2h"', "idle_limit: 2h is more than limits.idle allows (1h)", id="idle"
        ),
        pytest.param("", "renewals = 1", "renewals: 1 is more than limits.renewals allows (0)", id="renewals"),
    ],
)
def test_a_default_beyond_the_site_s_limit_is_told(problems, limits, default, problem):
    assert problems(f"{GOOD}[limits]\n{limits}\n[defaults]\n{default}\n") == (f"defaults.{problem}",)


WRITE = "(write '90m', '12h', '1d 12h' or '1-12:00:00')"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param("queue = 7", f"queue: not a wall time: 7 {WRITE}", id="a time without a unit"),
        pytest.param("queue = false", f"queue: not a wall time: False {WRITE}", id="no limit of waiting"),
        pytest.param('idle = "1:00"', f"idle: not a wall time: '1:00' {WRITE}", id="an ambiguous time"),
        pytest.param(
            "renewals = 1001", "renewals: Input should be less than or equal to 1000; got '1001'", id="too many"
        ),
        pytest.param("renewals = -1", "renewals: Input should be greater than or equal to 0; got '-1'", id="too few"),
        pytest.param(
            "warning = true",
            f"warning: not a wall time: True {WRITE}; false switches it off",
            id="a warning of no time",
        ),
        pytest.param(
            "idel = 1", "idel: unknown key (see the profile reference for the keys that exist)", id="a misspelt key"
        ),
    ],
)
def test_a_mistake_in_the_limits_is_told_with_its_cure(problems, line, problem):
    assert problems(f"{GOOD}[limits]\n{line}\n") == (f"limits.{problem}",)


def test_limits_of_another_partition_than_the_default_one_do_not_bind_the_defaults(site):
    assert load(site(f'{GOOD}[defaults]\npartition = "gpu"\nwalltime = "1d"\ngpus = 4\n')).defaults.gpus == 4


def test_a_default_that_the_admin_did_not_write_is_no_mistake(site):
    assert load(site(changed('max_walltime = "30m"', 'max_walltime = "15m"'))).title


@pytest.mark.parametrize(
    ("key", "offered"),
    [("partition", "debug, gpu"), ("environment", "jupyter"), ("interface", "lab, notebook"), ("image", "torch")],
)
def test_a_default_that_is_not_offered_is_told_with_what_is(problems, key, offered):
    assert problems(f'{GOOD}[defaults]\n{key} = "nothing"\n') == (
        f"defaults.{key}: 'nothing' is not one of: {offered}",
    )


def test_an_environment_s_image_that_is_not_listed_is_told(problems):
    assert problems(f'{GOOD}image = "nothing"\n') == ("environments (jupyter).image: 'nothing' is not one of: torch",)


def test_an_image_where_none_is_listed_is_told_so(problems):
    without = changed('[[images]]\nname = "torch"\npath = "/images/torch.sif"\n', "")
    assert problems(f'{without}image = "torch"\n') == (
        "environments (jupyter).image: 'torch' is not one of: none (no [[images]] are listed)",
    )


def test_a_default_account_that_is_not_offered_is_told(problems):
    text = f'accounts = ["ddp363"]\n{GOOD}[defaults]\naccount = "tro100"\n'
    assert problems(text) == ("defaults.account: 'tro100' is not one of accounts: ddp363",)


@pytest.mark.parametrize(
    ("table", "line", "problem"),
    [
        pytest.param(
            "[scheduler]",
            'node_name = "{host}.cluster"',
            "scheduler.node_name: {host} is not a placeholder here; use {node}",
            id="in a node's name",
        ),
        pytest.param(
            "[scheduler]",
            'command_prefix = ["sudo", "-u", "{name}"]',
            "scheduler.command_prefix: {name} is not a placeholder here; use {user}",
            id="in a prefix",
        ),
        pytest.param(
            "[scheduler]",
            'command_prefix = ["sudo", "-u", "{node}"]',
            "scheduler.command_prefix: {node} is not a placeholder here; use {user}",
            id="at the wrong place",
        ),
        pytest.param(
            "[scheduler]",
            'command_prefix = ["sudo", "-u", "{}"]',
            "scheduler.command_prefix: {} is not a placeholder here; use {user}",
            id="without a word",
        ),
        pytest.param(
            "[directories]",
            'allowed = ["/scratch/{usr}"]',
            "directories.allowed: {usr} is not a placeholder here; use {user} and {home} and {group}",
            id="in an allowed folder",
        ),
        pytest.param(
            "[defaults]",
            'directory = "/scratch/{user.name}"',
            "defaults.directory: {user.name} is not a placeholder here; use {user} and {home} and {group}",
            id="in the default folder",
        ),
    ],
)
def test_a_placeholder_that_means_nothing_is_told(problems, table, line, problem):
    text = changed(f"{table}\n", f"{table}\n{line}\n") if table in GOOD else f"{GOOD}{table}\n{line}\n"
    assert problems(text) == (problem,)


def test_placeholders_stand_where_they_mean_something(site):
    text = changed(
        "[scheduler]\n", '[scheduler]\nnode_name = "{node}.cluster"\ncommand_prefix = ["become", "{user}"]\n'
    )
    text += '[directories]\nallowed = ["{home}/work", "/scratch/{user}"]\n[defaults]\ndirectory = "{home}/work"\n'
    assert load(site(text)).directories.allowed == ("{home}/work", "/scratch/{user}")


def test_the_local_scheduler_takes_no_prefix(problems):
    (problem,) = problems(changed('type = "slurm"', 'type = "local"\ncommand_prefix = ["sudo"]'))
    assert problem == "scheduler.command_prefix: 'local' runs jobs as the Hub's own account; leave the prefix out"


def test_a_helper_without_a_prefix_would_be_no_users(problems):
    (problem,) = problems(changed('type = "slurm"', 'type = "local"\nhelper = "/usr/local/libexec/hpcspawner"'))
    assert problem == (
        "scheduler.helper: there is no command_prefix that would run it as the user; leave the helper out"
    )


@pytest.mark.parametrize("path", ["hpcspawner", "/a b", "/a,b", "/a:b", "/a*", "/a/../b", "/", "/a=b", "/a!"])
def test_a_helpers_path_has_no_sign_that_sudoers_would_read(problems, path):
    (problem,) = problems(changed('type = "slurm"', f'type = "slurm"\nhelper = "{path}"'))
    assert problem.startswith("scheduler.helper: ")


CONTROL = [
    pytest.param(r"\n", id="line feed"),
    pytest.param(r"\r", id="carriage return"),
    pytest.param(r"\t", id="tab"),
    pytest.param(r"\u0000", id="null"),
    pytest.param(r"\u001b", id="escape"),
    pytest.param(r"\u007f", id="delete"),
]


@pytest.mark.parametrize("character", CONTROL)
@pytest.mark.parametrize(
    ("table", "line", "place"),
    [
        pytest.param("", 'title = "A{}B"', "title", id="title"),
        pytest.param("[defaults]", 'directory = "/a{}b"', "defaults.directory", id="path"),
        pytest.param("[job]", 'python = "a{}b"', "job.python", id="command"),
        pytest.param("[[job.directives]]", 'option = "x"\nvalue = "a{}b"', "job.directives[1].value", id="directive"),
        pytest.param("[directories]", 'allowed = ["/a{}b"]', "directories.allowed[1]", id="list of paths"),
        pytest.param("[contact]", 'email = "a{}b"', "contact.email", id="mail address"),
    ],
)
def test_a_control_character_is_refused_wherever_text_is_one_line(problems, table, line, place, character):
    line = line.replace("{}", character)
    text = changed('title = "Test cluster"', line) if not table else f"{GOOD}{table}\n{line}\n"
    assert problems(text) == (f"{place}: control characters and line breaks are not allowed here",)


def test_prologue_and_epilogue_may_have_many_lines(site):
    assert "\n" in load(site(f'{GOOD}[job]\nprologue = """\nulimit -c 0\necho hi\n"""\n')).job.prologue


@pytest.mark.parametrize(
    "option", [pytest.param("a b", id="space"), pytest.param("--wrap", id="dashes"), pytest.param("x=1", id="equals")]
)
def test_a_directive_s_option_is_a_plain_word(problems, option):
    (problem,) = problems(f'{GOOD}[[job.directives]]\noption = "{option}"\n')
    assert problem.startswith(f"job.directives[1].option: '{option}' has characters that are not allowed here")


@pytest.mark.parametrize("ports", [[80, 90], [30000, 20000], [60000, 70000]])
def test_ports_that_are_no_range_are_refused(problems, ports):
    assert problems(f"{GOOD}[job]\nports = {ports}\n") == (
        f"job: ports: {ports} is not a range within 1024 to 65535, lower one first",
    )


def test_an_empty_profile_is_told_what_it_lacks(problems):
    assert problems("") == (
        "title: is missing",
        "scheduler: is missing",
        "partitions: is missing",
        "environments: is missing",
    )


def test_a_table_where_a_list_of_tables_belongs_is_told(problems):
    text = 'title = "A"\n[scheduler]\ntype = "local"\n[partitions]\nname = "a"\n[[environments]]\nname = "a"\n'
    (problem,) = problems(text)
    assert problem.startswith("partitions: Input should be a valid tuple")


# ---- where shipped profiles are found


def test_a_shipped_profile_is_found_by_its_name():
    assert find_shipped("comet.toml") == ROOT / "profiles" / "comet.toml"


def test_an_installed_package_finds_its_profiles_under_share(tmp_path, monkeypatch):
    module = tmp_path / "lib" / "python3.11" / "site-packages" / "hpcspawner" / "site" / "profile.py"
    folder = tmp_path / "share" / "hpcspawner" / "profiles"
    for path in (module, folder / "ours.toml"):
        path.parent.mkdir(parents=True)
        path.touch()
    monkeypatch.setattr(profile_module, "__file__", str(module))
    assert find_shipped("ours.toml") == folder / "ours.toml"


def test_a_name_that_is_not_shipped_gets_the_list_of_those_that_are():
    with pytest.raises(
        FileNotFoundError,
        match=r"no profile named 'komet.toml' is shipped; the shipped ones are: "
        r"comet.toml, hydra",
    ):
        find_shipped("komet.toml")


# ---- the reference in docs/

SECTIONS = {
    "SiteProfile": "Top level",
    "Access": "`[scheduler]`",
    "Partition": "`[[partitions]]`",
    "Environment": "`[[environments]]`",
    "Image": "`[[images]]`",
    "OwnImages": "`[own_images]`",
    "OwnSetup": "`[own_setup]`",
    "OwnEnvironments": "`[own_environments]`",
    "Parallel": "`[job.parallel]`",
    "Interface": "`[[interfaces]]`",
    "Preset": "`[[presets]]`",
    "Defaults": "`[defaults]`",
    "Limits": "`[limits]`",
    "Directories": "`[directories]`",
    "Job": "`[job]`",
    "Directive": "`directives`",
    "Contact": "`[contact]`",
    "Words": "`[words]`",
    "UserNames": "`[users]`",
    "Cost": "`[cost]`",
    "Rates": "`cost` of a partition",
}
MODELS = {
    name: model
    for name, model in vars(profile_module).items()
    if isinstance(model, type) and issubclass(model, profile_module.Frozen) and model is not profile_module.Frozen
}


def documented(heading):
    """Keys in the first column of the table under a heading, each with its row."""
    text = REFERENCE.read_text(encoding="utf-8")
    assert f"\n## {heading}\n" in text, f"{REFERENCE.name} has no section {heading}"
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return {match[1]: match[0] for match in re.finditer(r"^\| `(\w+)` \|.*$", section, re.MULTILINE)}


def test_every_model_of_a_profile_has_a_section_in_the_reference():
    assert set(MODELS) == set(SECTIONS)


@pytest.mark.parametrize(("name", "model"), MODELS.items(), ids=MODELS)
def test_the_reference_has_every_key_and_no_other(name: str, model: type[BaseModel]):
    assert list(documented(SECTIONS[name])) == list(model.model_fields)


@pytest.mark.parametrize(("name", "model"), MODELS.items(), ids=MODELS)
def test_the_reference_says_which_keys_are_required(name: str, model: type[BaseModel]):
    rows = documented(SECTIONS[name])
    required = {key for key, field in model.model_fields.items() if field.is_required()}
    assert {key for key, row in rows.items() if "**required**" in row} == required


@pytest.mark.parametrize(
    "page", [path for path in (ROOT / "docs").rglob("*.md")], ids=lambda path: str(path.relative_to(ROOT / "docs"))
)
def test_every_whole_profile_in_the_docs_loads(page, site):
    for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        data = tomllib.loads(block)
        if {"title", "scheduler", "partitions", "environments"} <= set(data):
            assert isinstance(load(site(block)), SiteProfile)


def test_every_profile_of_an_example_loads():
    found = sorted((ROOT / "examples").rglob("*.toml"))
    assert found
    for path in found:
        assert load(path).title


@pytest.mark.parametrize("place", ["allowed", "directory"])
@pytest.mark.parametrize("rule", ["$WORK/x", "${WORK}"])
def test_a_variable_that_the_site_has_not_named_is_a_mistake(site, place, rule):
    text = GOOD + '[directories]\nvariables = { SCRATCH = "/scratch/{group}/{user}" }\n'
    text += f'allowed = ["{rule}"]\n' if place == "allowed" else f'[defaults]\ndirectory = "{rule}"\n'
    with pytest.raises(ProfileError, match=re.escape(f"{rule[:7].rstrip('/x')} is not defined")) as error:
        load(site(text))
    assert "directories.variables has: $SCRATCH" in str(error.value)


# --- names as sites have them


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('name = "debug"', 'name = "debug@cluster"'),
        ('name = "debug"', 'name = "debug"\naccounts = ["abc@v100", "abc@cpu"]'),
        ('name = "debug"', 'name = "debug"\nfeatures = ["GPU_MEM:32GB", "a100|v100", "[rack1|rack2]", "intel*2"]'),
        ('name = "debug"', 'name = "debug"\nqos = ["qos_gpu-t3", "a:b"]'),
        ("gpus = { v100 = 4 }", 'gpus = { "a100_3g.20gb" = 4, "nvidia_a100-pcie-40gb" = 1 }'),
    ],
)
def test_names_that_slurm_gives_are_taken(site, old, new):
    assert load(site(changed(old, new)))


@pytest.mark.parametrize(
    ("modules", "loaded"),
    [
        ([".hidden/1.0"], (".hidden/1.0",)),
        (["/opt/mod/jupyter", "~/mod/x"], ("/opt/mod/jupyter", "~/mod/x")),
        (["python@3.10", "hdf5@1.12+mpi~cxx"], ("python@3.10", "hdf5@1.12+mpi~cxx")),
        (["gcc/12 openmpi/4", "anaconda"], ("gcc/12", "openmpi/4", "anaconda")),
    ],
)
def test_modules_are_named_as_module_load_takes_them(site, modules, loaded):
    profile = load(site(changed('name = "jupyter"', f'name = "jupyter"\nmodules = {json.dumps(modules)}')))
    assert profile.environments[0].modules == loaded


@pytest.mark.parametrize("module", ["-f", "a -f", "a;b", "$HOME/x", "a'b", "`id`", "a\\b", "a&b", "#a"])
def test_what_is_no_module_is_refused(problems, module):
    text = changed('name = "jupyter"', f'name = "jupyter"\nmodules = {json.dumps([module])}')
    (problem,) = problems(text)
    assert problem.startswith("environments[1] (jupyter).modules[1]: ")


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('features = ["a:b"]', "features"),
        ('features = ["a+b"]', "features"),
        ('features = ["a|b"]', "features"),
        ('qos = ["a,walltime=9"]', "qos"),
    ],
)
def test_names_that_torque_reads_as_more_than_one_are_refused(problems, line, place):
    text = changed('name = "debug"', f'name = "debug"\n{line}').replace('"slurm"', '"torque"')
    (problem,) = problems(text)
    assert problem.startswith(f"partitions[1] (debug).{place}: ")
    assert "letters, digits and the signs" in problem


def test_another_server_is_no_queue_of_torques(problems):
    (problem,) = problems(changed('name = "debug"', 'name = "debug@other"').replace('"slurm"', '"torque"'))
    assert problem.startswith(
        "partitions[1] (debug@other).name: 'debug@other' is not a valid partition name for this scheduler"
    )


# --- what a site adds and takes away


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("comment", 'tag = "job-name"'),
        ("job-name", "names its jobs itself"),
        ("output", "job.log"),
        ("error", "job.log"),
        ("export", "scheduler.variables"),
        ("export-file", "scheduler.variables"),
        ("array", "one job"),
        ("dependency", "follow-up"),
        ("clusters", "one cluster"),
        ("requeue", "job.requeue"),
        ("signal", "limits.warning"),
        ("uid", "its user"),
        ("wrap", "job script"),
        ("quiet", "prints"),
        # What sbatch completes itself.
        ("comm", 'tag = "job-name"'),
        ("clus", "one cluster"),
        ("depend", "follow-up"),
        ("outp", "job.log"),
        ("constr", "in full"),
    ],
)
@pytest.mark.parametrize("table", ["job", "partitions[1] (debug)"])
def test_a_directive_that_would_take_away_what_the_hub_needs_is_refused(problems, option, words, table):
    text = f'{GOOD}[[job.directives]]\noption = "{option}"\nvalue = "x"\n'
    if table != "job":
        text = changed('name = "debug"', f'name = "debug"\ndirectives = [{{ option = "{option}", value = "x" }}]')
    (problem,) = problems(text)
    assert problem.startswith(f"{table}.directives[1].option: {option!r} can't be set: ")
    assert words in problem


@pytest.mark.parametrize(
    ("option", "value"), [("N", "x"), ("q", "a@b"), ("o", "x"), ("e", "x"), ("t", "1-2"), ("z", ""), ("W", "depend=x")]
)
def test_a_directive_of_torques_that_would_take_it_away_is_refused(problems, option, value):
    text = f'{GOOD}[[job.directives]]\noption = "{option}"\nvalue = "{value}"\n'.replace('"slurm"', '"torque"')
    (problem,) = problems(text)
    assert problem.startswith(f"job.directives[1].option: {option!r} can't be set: ")


@pytest.mark.parametrize(
    ("option", "value"),
    [("gres", "lscratch:10"), ("mail-type", "NONE"), ("wait-all-nodes", "1"), ("mem", "3G"), ("constraint", "ib|opa")],
)
def test_other_directives_are_the_sites(site, option, value):
    assert load(site(f'{GOOD}[[job.directives]]\noption = "{option}"\nvalue = "{value}"\n'))


def test_the_comment_is_the_sites_where_the_mark_stands_elsewhere(site):
    text = changed('type = "slurm"', 'type = "slurm"\ntag = "job-name"')
    assert load(site(f'{text}[[job.directives]]\noption = "comment"\nvalue = "cost-centre"\n'))


@pytest.mark.parametrize(
    "option", ["comment", "job-name", "time", "dependency", "output", "chdir", "of our own", "Mem"]
)
def test_what_carries_the_life_of_a_job_is_not_left_out(problems, option):
    (problem,) = problems(f'{GOOD}[job]\nleave_out = ["{option}"]\n')
    assert problem.startswith(
        f"job.leave_out: {option!r} can't be left out for scheduler type 'slurm'; you can leave out: partition,"
    )


@pytest.mark.parametrize("option", ["N", "W", "walltime", "l", "partition"])
def test_what_carries_the_life_of_a_job_of_torques_is_not_left_out(problems, option):
    (problem,) = problems(f'{GOOD}[job]\nleave_out = ["{option}"]\n'.replace('"slurm"', '"torque"'))
    assert problem.startswith(
        f"job.leave_out: {option!r} can't be left out for scheduler type 'torque'; you can leave out: q, A,"
    )


@pytest.mark.parametrize(
    "name", ["PATH", "LC_ALL", "HOME", "SBATCH_COMMENT", "SQUEUE_FORMAT", "SLURM_CLUSTERS", "LD_PRELOAD"]
)
def test_a_variable_that_would_change_what_commands_do_or_print_is_refused(problems, name):
    text = changed('type = "slurm"', f'type = "slurm"\nvariables = {{ {name} = "x" }}')
    (problem,) = problems(text)
    assert problem.startswith(f"scheduler.variables.{name}: can't be set: ")


def test_a_variable_may_be_empty(site):
    profile = load(site(changed('name = "jupyter"', 'name = "jupyter"\nvariables = { XDG_RUNTIME_DIR = "" }')))
    assert profile.environments[0].variables == {"XDG_RUNTIME_DIR": ""}
