"""Every comment about a waiting job that OpenPBS's and Torque's schedulers have is a sentence with advice."""

from pathlib import Path

import pytest

from hpcspawner.schedulers import pbs_words
from hpcspawner.schedulers.openpbs import OpenPBS
from hpcspawner.schedulers.torque import Torque

# The texts in the two programs, with %s filled in.
LINES = Path(__file__).with_name("pbs_comments.txt").read_text(encoding="utf-8").splitlines()
COMMENTS = [line for line in LINES if not line.startswith("#")]


@pytest.mark.parametrize("comment", COMMENTS)
def test_every_comment_is_a_sentence_with_advice(comment):
    for scheduler in (OpenPBS(), Torque()):
        explained, advice = scheduler.explain(comment), scheduler.advise(comment)
        assert explained[0].isupper()
        assert explained.rstrip(")").endswith(".")
        assert "Not Running" not in explained
        assert "{" not in explained + advice
        assert advice[0].isupper()
        assert advice.endswith(".")


def test_every_row_of_the_table_is_met_by_a_comment():
    met = {one for one in pbs_words.COMMENTS for said in COMMENTS if one.match(pbs_words._bare(said)) is not None}
    assert set(pbs_words.COMMENTS) - met == set()


@pytest.mark.parametrize(
    ("comment", "sentence", "advice"),
    [
        ("Not Running: Insufficient amount of resource: ncpus (R: 64 A: 2 T: 64)", "asked for (ncpus).", "smaller"),
        ("Not Running: User has reached server running job limit.", "that one user may have.", "Stop servers"),
        ("Not Running: Job would cross into primetime", "before primetime begins.", "shorter wall time"),
        ("Can Never Run: Not enough total nodes available", "it will not start.", "ask for less"),
        ("Not Running: Words of a site's own", "Words of a site's own.", ""),
        ("", "", ""),
        ("Job run at Sat Nov 21 at 02:36 on (vm:ncpus=1)", "", ""),
    ],
)
def test_advice_fits_the_comment(comment, sentence, advice):
    assert sentence in OpenPBS().explain(comment)
    assert advice in OpenPBS().advise(comment)
    assert bool(OpenPBS().advise(comment)) == bool(advice)
