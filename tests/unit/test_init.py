"""The profile that `hpcspawner init` writes, of a cluster or of another spawner's settings: it loads, always."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from traitlets.config import Config

from hpcspawner.cli import convert
from hpcspawner.cli.draft import MARK, Draft, DraftEnvironment
from hpcspawner.cli.init import _found_environments, _found_images, _jupyter_modules
from hpcspawner.schedulers.inventory import Inventory, PartitionLimits
from hpcspawner.site.profile import parse
from hpcspawner.units import Memory, Walltime

DEBUG = PartitionLimits("debug", False, True, Walltime(1800), 2, 64, Memory(128000))
COMPUTE = PartitionLimits("compute", True, True, None, None, None, None, {"v100": 4}, ("skylake",), ("a",), ("long",))
CLUSTER = Inventory((DEBUG, COMPUTE), ("n1",), ("root", "ddp363"), ("normal",))
ENVIRONMENT = DraftEnvironment("jupyter", ("/opt/jupyter/bin",))


def draft(**values):
    return Draft(
        **({"title": "T", "scheduler": "slurm", "inventory": CLUSTER, "environments": (ENVIRONMENT,)} | values)
    )


def loaded(text):
    return parse(tomllib.loads(text), "site.toml")


def test_a_profile_is_written_that_says_what_the_cluster_says():
    profile = loaded(draft().text())
    assert [one.name for one in profile.partitions] == ["compute", "debug"]
    compute, debug = profile.partitions
    assert (debug.max_walltime, debug.max_cpus, debug.max_memory) == (Walltime(1800), 64, Memory(125 * 1024))
    assert (compute.gpus, compute.accounts, compute.qos) == ({"v100": 4}, ("a",), ("long",))
    assert profile.defaults.partition == "compute"
    assert profile.defaults.walltime == Walltime(3600)


def test_what_the_cluster_does_not_say_is_marked():
    text = draft(environments=(DraftEnvironment("jupyter", ("/opt/jupyter/bin",), unsure=True),)).text()
    marked = [line for line in text.splitlines() if MARK in line]
    assert [line.partition(MARK)[2].strip() for line in marked[1:5]] == [
        "the cluster sets no limit",
        "the cluster does not say how many CPUs a node has",
        "the cluster does not say how much memory a node has",
        "no Jupyter was found: name a folder that compute nodes see (init --environments=…)",
    ]
    loaded(text)


@given(
    title=st.text(min_size=1, max_size=40).filter(str.isprintable),
    names=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4, unique=True),
    scheduler=st.sampled_from(["slurm", "torque", "openpbs"]),
)
def test_names_of_any_kind_leave_a_profile_that_loads(title, names, scheduler):
    partitions = tuple(PartitionLimits(name, gpus={name: 1}, features=(name,)) for name in ["debug", *names])
    text = draft(title=title, inventory=Inventory(partitions, accounts=tuple(names)), scheduler=scheduler).text()
    assert tomllib.loads(text)["title"] == title


def test_environments_images_and_modules_are_found_in_folders(tmp_path, monkeypatch):
    for name in ("one/bin", "two/bin", "odd name/bin"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "jupyterhub-singleuser").touch()
    found = list(_found_environments(str(tmp_path)))
    assert {one.name for one in found} == {"one", "two", "odd-name"}
    assert [one.path for one in _found_environments(f"{tmp_path}/one:{tmp_path}/one/bin")] == [
        (f"{tmp_path}/one/bin",),
        (f"{tmp_path}/one/bin",),
    ]
    assert len({one.name for one in _found_environments(f"{tmp_path}/one:{tmp_path}/one/bin")}) == 2
    for name in ("torch.sif", "old.simg", "notes.txt"):
        (tmp_path / name).touch()
    assert dict(_found_images(str(tmp_path))) == {"torch": f"{tmp_path}/torch.sif", "old": f"{tmp_path}/old.simg"}
    (tmp_path / "modules/anaconda3").mkdir(parents=True)
    (tmp_path / "modules/anaconda3/2024.02.lua").touch()
    (tmp_path / "modules/gcc").mkdir()
    monkeypatch.setenv("MODULEPATH", f"{tmp_path}/modules:/nowhere")
    assert list(_jupyter_modules()) == ["anaconda3/2024.02"]


# --- batchspawner and wrapspawner


def converted(into=None, **sections):
    config = Config({"JupyterHub": {"spawner_class": "batchspawner.SlurmSpawner"}} | sections)
    return convert.read(config).into(into or draft()).text()


def test_batchspawners_settings_become_a_profile():
    text = converted(
        Spawner={"default_url": "/lab", "notebook_dir": "~", "environment": {"A": "b"}, "start_timeout": 600},
        BatchSpawnerBase={"req_runtime": "12:00:00", "req_memory": "4gb", "req_nprocs": "2", "req_account": "ddp363"},
        SlurmSpawner={
            "req_partition": "compute",
            "req_qos": "normal",
            "req_options": "--constraint=skylake --mail-type NONE",
            "req_prologue": "module load anaconda3\nexport X='1'",
            "req_epilogue": "echo over",
            "cmd": ["/sw/jupyter/bin/jupyterhub-singleuser"],
            "batchspawner_singleuser_cmd": "/sw/jupyter/bin/batchspawner-singleuser",
            "req_ngpus": "1",
        },
    )
    profile = loaded(text)
    (partition,) = profile.partitions
    assert (partition.name, partition.max_walltime, partition.max_memory, partition.qos) == (
        *("compute", Walltime(43200), Memory(4096)),
        ("normal",),
    )
    chosen = profile.defaults
    assert (chosen.walltime, chosen.memory, chosen.cpus, chosen.gpus) == (Walltime(43200), Memory(4096), 2, 1)
    assert chosen.account == "ddp363"
    assert profile.directives == (("constraint", "skylake"), ("mail-type", "NONE"))
    assert profile.job.prologue.strip() == "module load anaconda3\nexport X='1'"
    assert profile.job.epilogue.strip() == "echo over"
    (environment,) = profile.environments
    assert (environment.path, environment.variables) == (("/sw/jupyter/bin",), {"A": "b"})
    assert "not carried over: start_timeout = '600' (configure() sets it)" in text


@pytest.mark.parametrize("options", ["--account=tro100", "--mail-type=NONE -A tro100"])
def test_an_account_among_the_options_becomes_the_default(options):
    text = converted(SlurmSpawner={"req_options": options, "req_account": "ddp363"})
    assert loaded(text).defaults.account == "tro100"
    assert "the option" not in text


def test_a_site_script_gives_its_own_lines_and_options():
    script = """\
#!/bin/bash
#SBATCH --partition={partition}
#SBATCH --output=/tmp/x.log
#SBATCH --mail-type=END
#SBATCH --reservation=class
source /etc/profile
module load jupyter
echo {username} starts
{cmd}
rm -rf /scratch/x
"""
    text = converted(SlurmSpawner={"batch_script": script})
    profile = loaded(text)
    assert profile.job.prologue.split("\n")[:2] == ["source /etc/profile", "module load jupyter"]
    assert profile.job.epilogue.strip() == "rm -rf /scratch/x"
    assert ("mail-type", "END") in profile.directives
    assert "output" not in dict(profile.directives)
    assert "not carried over: the line 'echo {username} starts' of batch_script" in text


def test_wrapspawners_choices_become_partitions():
    config = Config(
        {
            "JupyterHub": {"spawner_class": "wrapspawner.ProfilesSpawner"},
            "ProfilesSpawner": {
                "profiles": [
                    ("Local", "local", "jupyterhub.spawner.LocalProcessSpawner", {"ip": "0.0.0.0"}),
                    ("Short", "s", "batchspawner.SlurmSpawner", {"req_partition": "debug", "req_runtime": "30"}),
                    (
                        "Long",
                        "l",
                        "batchspawner.SlurmSpawner",
                        {"req_partition": "compute", "req_runtime": "2-00:00:00"},
                    ),
                    ("Gone", "g", "batchspawner.SlurmSpawner", {"req_partition": "old"}),
                ]
            },
        }
    )
    text = convert.read(config).into(draft()).text()
    profile = loaded(text)
    assert {one.name for one in profile.partitions} == {"debug", "compute"}
    assert profile.defaults.partition == "debug"
    assert profile.defaults.walltime == Walltime(1800)
    for words in (
        "was the choice 'Short': partition debug, runtime 30",
        "not carried over: the choice 'Local', a LocalProcessSpawner",
        "not carried over: partition 'old': the cluster has none of this name",
    ):
        assert words in text


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({}, "'not set'; init converts: SlurmSpawner"),
        ({"JupyterHub": {"spawner_class": "kubespawner.KubeSpawner"}}, "is 'KubeSpawner'"),
        ({"JupyterHub": {"spawner_class": "wrapspawner.ProfilesSpawner"}}, "has no profiles"),
        (
            {
                "JupyterHub": {"spawner_class": "wrapspawner.ProfilesSpawner"},
                "ProfilesSpawner": {"profiles": [("L", "l", "jupyterhub.spawner.LocalProcessSpawner", {})]},
            },
            "none of wrapspawner's profiles",
        ),
    ],
    ids=str,
)
def test_what_is_for_no_batch_system_is_refused(config, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        convert.read(Config(config))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"req_cluster": "x"}, "req_cluster = 'x'"),
        ({"req_memory": "lots"}, "req_memory = 'lots': write defaults.memory by hand"),
        ({"req_runtime": "soon"}, "req_runtime = 'soon': write defaults.walltime by hand"),
        ({"notebook_dir": "/home/{username}"}, "notebook_dir = '/home/{username}'"),
        ({"default_url": "/lab?reset"}, "default_url = '/lab?reset'"),
        ({"cmd": ["/x/jupyterhub-singleuser", "--debug"]}, "an argument of cmd, '--debug'"),
        ({"req_account": "two words"}, "req_account = 'two words'"),
        ({"exec_prefix": "ssh {host} sudo -u {username}"}, "exec_prefix = "),
        ({"req_prologue": "cd /home/{username}"}, "req_prologue, for it has places"),
        ({"req_options": "--array=1-3"}, "the option array"),
        ({"req_our_own": "x"}, "req_our_own = 'x' (it has no place in a profile)"),
        ({"req_srun": ""}, "req_srun = '' (the server is started without srun)"),
    ],
    ids=str,
)
def test_what_has_no_place_in_a_profile_is_named(settings, words):
    text = converted(SlurmSpawner=settings)
    assert f"{MARK} not carried over: {words}" in text
    loaded(text)


@pytest.mark.parametrize(
    ("text", "scheduler", "seconds"),
    [
        ("30", "slurm", 1800),
        ("3600", "torque", 3600),
        ("30:00", "slurm", 1800),
        ("8:00:00", "torque", 28800),
        ("1-00:00:00", "slurm", 86400),
        ("", "slurm", None),
        ("{runtime}", "slurm", None),
    ],
)
def test_a_run_time_is_read_as_its_scheduler_reads_it(text, scheduler, seconds):
    found = convert.walltime(text, scheduler)
    assert (found and found.seconds) == seconds


@pytest.mark.parametrize(
    ("text", "scheduler", "mib"),
    [
        ("4gb", "torque", 4096),
        ("2000", "slurm", 2000),
        ("2000", "torque", None),
        ("204800kb", "torque", 200),
        ("", "slurm", None),
    ],
)
def test_memory_is_read_as_its_scheduler_reads_it(text, scheduler, mib):
    found = convert.memory(text, scheduler)
    assert (found and found.mib) == mib
