"""Times and sizes: what is read, how it is written again, and what is not guessed at."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcspawner.units import Memory, Walltime, printable

DAY = 86400
WALLTIMES = st.integers(1, 366 * DAY).map(Walltime)
MEMORIES = st.integers(1, 999_999_999).map(Memory)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("45s", 45, id="seconds"),
        pytest.param("90m", 5400, id="minutes"),
        pytest.param("12h", 12 * 3600, id="hours"),
        pytest.param("2d", 2 * DAY, id="days"),
        pytest.param("1d 12h", 129600, id="days and hours"),
        pytest.param("1d12h", 129600, id="without a space"),
        pytest.param("1d 2h 3m 4s", DAY + 2 * 3600 + 3 * 60 + 4, id="all four"),
        pytest.param("1d 30m", DAY + 1800, id="a unit left out"),
        pytest.param("0d 5m", 300, id="a unit of zero"),
        pytest.param("90M", 5400, id="capital letter"),
        pytest.param("  30m\n", 1800, id="blanks around"),
        pytest.param("1-12:00:00", 129600, id="days and clock"),
        pytest.param("12:30:00", 12 * 3600 + 30 * 60, id="clock"),
        pytest.param("0:00:01", 1, id="one second by the clock"),
        pytest.param("48:00:00", 2 * DAY, id="clock with many hours"),
        pytest.param("366-23:59:59", 367 * DAY - 1, id="a whole leap year"),
    ],
)
def test_a_wall_time_is_read_in_the_units_it_is_written_in(text, seconds):
    assert Walltime.parse(text) == Walltime(seconds)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("30:00", id="two parts: minutes to Slurm, hours to others"),
        pytest.param("60", id="bare number: minutes to Slurm, seconds to Torque"),
        pytest.param(60, id="a number that is no text"),
        pytest.param(datetime.time(12, 30), id="a time that TOML read"),
        pytest.param("1-12", id="days and hours, which only Slurm reads"),
        pytest.param("1-12:00", id="days and two parts"),
        pytest.param("1-24:00:00", id="a day's 25th hour"),
        pytest.param("00:60:00", id="sixty minutes"),
        pytest.param("00:00:60", id="sixty seconds"),
        pytest.param("1:2:3", id="minutes of one digit"),
        pytest.param("", id="nothing"),
        pytest.param("  ", id="blanks"),
        pytest.param("0m", id="no time at all"),
        pytest.param("00:00:00", id="no time by the clock"),
        pytest.param("-30m", id="negative"),
        pytest.param("1.5h", id="a fraction"),
        pytest.param("30 m", id="a space before the unit"),
        pytest.param("30min", id="a unit written out"),
        pytest.param("1w", id="a unit that is not there"),
        pytest.param("12h 1d", id="units in the wrong order"),
        pytest.param("1h 1h", id="a unit twice"),
        pytest.param("1d 12:00:00", id="two ways mixed"),
        pytest.param("UNLIMITED", id="a word of Slurm's"),
        pytest.param("\u0663\u0665m", id="digits of another alphabet"),
        pytest.param("30m\n#SBATCH --uid=0", id="a second line"),
        pytest.param("9" * 5000 + "m", id="thousands of digits"),
        pytest.param(None, id="null"),
        pytest.param(True, id="a truth value"),
        pytest.param(["30m"], id="a list"),
    ],
)
def test_a_wall_time_that_could_mean_several_things_is_refused(text):
    with pytest.raises(ValueError, match=r"not a wall time: .*write '90m', '12h', '1d 12h' or '1-12:00:00'"):
        Walltime.parse(text)


@pytest.mark.parametrize("unit", [Walltime, Memory])
@pytest.mark.parametrize("text", ["1d{}x", "1d1h{}x", "1h{0}1m{0}x", "1{}x", "{}x"])
def test_the_longest_text_is_refused_in_time_that_grows_with_its_length(unit, text):
    """With any choice in the pattern this would not end before the test run does."""
    with pytest.raises(ValueError, match="not a"):
        unit.parse(text.format(" " * 200_000))


def test_a_refusal_shows_what_was_written_and_no_more_than_fits_a_line():
    with pytest.raises(ValueError, match="'30:00'"):
        Walltime.parse("30:00")
    with pytest.raises(ValueError, match="not a wall time") as caught:
        Walltime.parse("x" * 10_000)
    assert len(str(caught.value)) < 200


@given(WALLTIMES)
def test_a_wall_time_as_text_is_read_as_itself(walltime):
    assert Walltime.parse(str(walltime)) == walltime


@given(WALLTIMES)
def test_a_wall_time_as_slurm_s_clock_is_read_as_itself(walltime):
    assert Walltime.parse(walltime.clock()) == walltime


@given(WALLTIMES)
def test_a_wall_time_as_torque_s_clock_is_read_as_itself(walltime):
    assert Walltime.parse(walltime.hours_clock()) == walltime


@given(st.text() | st.text(alphabet="0123456789dhms:- "))
def test_whatever_is_written_is_a_wall_time_or_a_refusal_in_words(text):
    try:
        walltime = Walltime.parse(text)
    except ValueError as error:
        assert str(error).startswith("not a wall time: ")  # noqa: PT017 - either outcome is right
    else:
        assert walltime.seconds > 0
        assert text.strip() not in ("60", "30:00")


@pytest.mark.parametrize(
    ("seconds", "text", "clock", "hours_clock"),
    [
        pytest.param(1, "1s", "00:00:01", "00:00:01", id="a second"),
        pytest.param(1800, "30m", "00:30:00", "00:30:00", id="half an hour"),
        pytest.param(5400, "1h 30m", "01:30:00", "01:30:00", id="an hour and a half"),
        pytest.param(DAY - 1, "23h 59m 59s", "23:59:59", "23:59:59", id="just below a day"),
        pytest.param(DAY, "1d", "1-00:00:00", "24:00:00", id="a day"),
        pytest.param(129600, "1d 12h", "1-12:00:00", "36:00:00", id="a day and a half"),
        pytest.param(100 * DAY, "100d", "100-00:00:00", "2400:00:00", id="a hundred days"),
    ],
)
def test_each_scheduler_gets_the_form_that_it_reads(seconds, text, clock, hours_clock):
    walltime = Walltime(seconds)
    assert (str(walltime), walltime.clock(), walltime.hours_clock()) == (text, clock, hours_clock)


def test_wall_times_compare_by_length():
    assert Walltime.parse("90m") == Walltime.parse("1h 30m")
    assert Walltime.parse("23h") < Walltime.parse("1d") < Walltime.parse("1-00:00:01")


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        pytest.param("512M", 512, id="mebibytes"),
        pytest.param("64G", 65536, id="binary, not 61035"),
        pytest.param("2T", 2 * 1024 * 1024, id="tebibytes"),
        pytest.param("1.5T", 1_572_864, id="a fraction that is whole MiB"),
        pytest.param("0.5G", 512, id="half a gibibyte"),
        pytest.param("64g", 65536, id="small letter"),
        pytest.param("64GB", 65536, id="with B"),
        pytest.param("64GiB", 65536, id="with iB"),
        pytest.param("64 G", 65536, id="a space before the unit"),
        pytest.param("  64G\n", 65536, id="blanks around"),
    ],
)
def test_memory_is_binary_as_schedulers_read_it(text, mib):
    assert Memory.parse(text) == Memory(mib)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("64", id="bare number: MB to Slurm, bytes to Torque"),
        pytest.param(64, id="a number that is no text"),
        pytest.param("64K", id="kibibytes"),
        pytest.param("65536 bytes", id="bytes"),
        pytest.param("64Gb/s", id="more after the unit"),
        pytest.param("0G", id="none at all"),
        pytest.param("0.5M", id="less than a MiB"),
        pytest.param("-4G", id="negative"),
        pytest.param("1e3G", id="exponent"),
        pytest.param(".5G", id="nothing before the point"),
        pytest.param("1,5G", id="comma"),
        pytest.param("4G 512M", id="two amounts"),
        pytest.param("\u0664G", id="digits of another alphabet"),
        pytest.param("4G\n#SBATCH --uid=0", id="a second line"),
        pytest.param("9" * 5000 + "G", id="thousands of digits"),
        pytest.param("", id="nothing"),
        pytest.param(None, id="null"),
        pytest.param(True, id="a truth value"),
    ],
)
def test_an_amount_of_memory_that_could_mean_several_things_is_refused(text):
    with pytest.raises(ValueError, match=r"not an amount of memory: .*write '512M', '64G' or '1.5T'"):
        Memory.parse(text)


@given(MEMORIES)
def test_memory_as_text_is_read_as_itself(memory):
    assert Memory.parse(str(memory)) == memory


@given(st.text() | st.text(alphabet="0123456789.MGTib "))
def test_whatever_is_written_is_an_amount_of_memory_or_a_refusal_in_words(text):
    try:
        memory = Memory.parse(text)
    except ValueError as error:
        assert str(error).startswith("not an amount of memory: ")  # noqa: PT017 - either outcome is right
    else:
        assert memory.mib >= 1


@pytest.mark.parametrize(
    ("mib", "text"),
    [
        pytest.param(1, "1M", id="a mebibyte"),
        pytest.param(1023, "1023M", id="just below a gibibyte"),
        pytest.param(1024, "1G", id="a gibibyte"),
        pytest.param(1536, "1536M", id="no fractions"),
        pytest.param(65536, "64G", id="many gibibytes"),
        pytest.param(1024 * 1024, "1T", id="a tebibyte"),
        pytest.param(1024 * 1024 + 1024, "1025G", id="no whole tebibytes"),
    ],
)
def test_memory_is_written_in_the_largest_unit_without_a_fraction(mib, text):
    assert str(Memory(mib)) == text


def test_memory_compares_by_size():
    assert Memory.parse("1024M") == Memory.parse("1G")
    assert Memory.parse("1023M") < Memory.parse("1G") < Memory.parse("1T")


# --- foreign text


@given(st.text(max_size=200))
def test_any_text_is_made_one_printable_line_of_the_same_length(text):
    made = printable(text)
    assert made.isprintable()
    assert len(made) == len(text)
    assert all(after in (before, " ") for before, after in zip(text, made, strict=True))


@pytest.mark.parametrize("text", ["", "no such partition", "über 3 µs: «ja»", "名前"])
def test_text_of_any_language_stays_as_it_is(text):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "mib"),
    [("62.7G", 64204), ("1.4T", 1468006), ("1.3M", 1), ("1.1T", 1153433), ("125.5GB", 128512), ("0.999T", 1047527)],
)
def test_a_part_of_a_mib_is_dropped(text, mib):
    assert Memory.parse(text) == Memory(mib)


@given(st.decimals(min_value=1, max_value=900, places=3))
def test_an_amount_in_gib_is_never_more_than_was_written(number):
    mib = Memory.parse(f"{number}G").mib
    assert mib <= number * 1024 < mib + 1


@pytest.mark.parametrize("text", ["515000", "1031000+"])
def test_what_sinfo_prints_as_memory_is_told_how_to_write_it(text):
    with pytest.raises(ValueError, match=f"{text.rstrip('+')}M if these are MiB, as sinfo prints them"):
        Memory.parse(text)


@pytest.mark.parametrize("text", ["infinite", "UNLIMITED", "Infinite"])
def test_a_time_without_an_end_is_told_that_there_is_none(text):
    with pytest.raises(ValueError, match="there is no wall time without an end, so write the longest that you allow"):
        Walltime.parse(text)
