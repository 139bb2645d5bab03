"""The page about reliability says what the drills have found. To write it anew: DRILLS=write make test ARGS=cluster."""

import pytest
from cluster.drills import record


def test_the_page_says_what_the_drills_found():
    if not record.rows:
        pytest.skip("no drill has run")
    if record.wants_writing():
        record.rewrite(record.rows)
    page = record.written()
    differing = {row.key: (row.line, page.get(row.key)) for row in record.rows if page.get(row.key) != row.line}
    assert not differing, "\n".join(f"found: {found}\npage:  {line}" for found, line in differing.values())
