"""Long texts are taken apart as `str.split` would."""

import pytest

from hpcspawner.schedulers import pieces
from hpcspawner.schedulers.pieces import split


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize(
    "text", ["", "abc", "--", "a--b--c", "--a----b--", "a-b-c", "-" * 9, "a--" * 50, "no mark in it" * 20]
)
def test_it_is_what_split_gives(monkeypatch, size, text):
    monkeypatch.setattr(pieces, "_PIECE", size)
    assert list(split(text, "--")) == text.split("--")
