"""The shipped profiles, as far as this cluster can take them."""

from pathlib import Path

import pytest
from cluster.conftest import on_head

from hpcspawner.request.gate import make
from hpcspawner.request.model import LocalAccount
from hpcspawner.schedulers.base import JobLabel
from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.sudo import submit_words
from hpcspawner.script.render import submission
from hpcspawner.script.settings import CallHome
from hpcspawner.site.profile import load

PROFILES = Path(__file__).parents[2] / "profiles"
ALICE = LocalAccount("alice", "/home/alice")
HERE = {"debug", "compute", "gpu-shared"}


def requests():
    for path in sorted(PROFILES.glob("*.toml")):
        profile = load(path)
        if profile.scheduler.type == "slurm":
            for partition in profile.partitions:
                if partition.name in HERE:
                    yield pytest.param(profile, partition.name, id=f"{path.stem}-{partition.name}")


REQUESTS = list(requests())


def test_comet_and_its_partitions_are_among_them():
    assert {"comet-debug", "comet-compute", "comet-gpu-shared"} <= {case.id for case in REQUESTS}


@pytest.mark.parametrize(("profile", "partition"), REQUESTS)
def test_sbatch_accepts_the_job(profile, partition, lab):
    request = make({"partition": partition}, profile, ALICE)
    home = CallHome("https://hub.example.org/hub/api/hpcspawner", "ticket")
    job = submission(request, Slurm(), profile.job, JobLabel("jupyter", "h0000test"), home)
    words = submit_words(Slurm(), job.options, profile.directives)
    on_head(*words, "--test-only", user="alice", stdin=job.script)
