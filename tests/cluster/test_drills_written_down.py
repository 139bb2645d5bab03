"""The page about reliability says what the drills have found. To write it anew: DRILLS=write make test ARGS=drills."""

from cluster.drills import record


def settled(line):
    """A line of the table without what was seen on the way to the end: how much of that is caught is chance."""
    return [cell.rpartition(" → ")[2] for cell in line.split(" | ")]


def test_the_page_says_what_the_drills_found():
    assert record.rows, "no drill has run: this test is the last of `tests/run drills`"
    if record.wants_writing():
        record.rewrite(record.rows)
    page = record.written()
    differing = {
        row.key: (row.line, page.get(row.key))
        for row in record.rows
        if settled(row.line) != settled(page.get(row.key, ""))
    }
    assert not differing, "\n".join(f"found: {found}\npage:  {line}" for found, line in differing.values())
