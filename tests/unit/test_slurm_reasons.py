"""Every reason for waiting that Slurm 22.05 to 26.05 has is a sentence of ours, with what a user can do about it."""

from pathlib import Path

import pytest

from hpcspawner.schedulers.slurm import Slurm
from hpcspawner.schedulers.slurm_words import REASONS

# squeue(1), "JOB REASON CODES", and the names that the controller prints besides.
NAMES = Path(__file__).with_name("slurm_reasons.txt").read_text(encoding="utf-8").split()
SLURM = Slurm()


@pytest.mark.parametrize("name", [*NAMES, *REASONS])
def test_every_reason_is_a_sentence_with_advice(name):
    explained = SLURM.explain(name)
    assert explained.endswith(".")
    assert explained != name
    assert explained[0].isupper()
    assert " " in explained
    advice = SLURM.advise(name)
    assert advice.endswith(".")
    assert advice[0].isupper()


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("AssocGrpGRESMinutes", "another account"),
        ("QOSMaxGRESPerUser", "when some of those jobs end"),
        ("QOSMaxMemoryPerJob", "ask for less"),
        ("QOSMinGRES", "ask for more"),
        ("MaxCpuRunMinsPerUser", "when some of those jobs end"),
        ("MaxPoweredUpNodes", "passes by itself"),
        ("ReqNodeNotAvail, UnavailableNodes:n1", "shorter wall time"),
        ("launch_failed_requeued_held", "start again"),
        ("(null)", ""),
        ("SomethingNew", ""),
    ],
)
def test_advice_fits_the_reason(reason, part):
    assert part in SLURM.advise(reason)
    assert bool(SLURM.advise(reason)) == bool(part)
