"""What most unit tests start from."""

import os
from pathlib import Path

import pytest
from material import FULL

from hpcspawner.request.model import LocalAccount
from hpcspawner.site.profile import SiteProfile

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def profile():
    return SiteProfile.model_validate(FULL)


@pytest.fixture
def alice():
    return LocalAccount("alice", "/home/alice")


@pytest.fixture
def golden():
    """Compare a whole text with a file; `GOLDEN=write` writes the files anew, to be read before they are committed."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if os.environ.get("GOLDEN") == "write":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert text == path.read_text(encoding="utf-8")

    return check
