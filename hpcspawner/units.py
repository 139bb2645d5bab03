"""Human text for times and sizes, parsed once; what schedulers read differently is refused. Foreign text, made safe."""

import re
import reprlib
import time
from dataclasses import dataclass
from decimal import Decimal

from hpcspawner.language import Text, _

_UNIT_SECONDS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
# Blanks belong to the unit before them: were there a choice, a refusal would take as long as all choices.
_WORDS = re.compile(r"(?:(\d{1,6})d\s*)?(?:(\d{1,6})h\s*)?(?:(\d{1,6})m\s*)?(?:(\d{1,6})s)?", re.ASCII)
_CLOCK = re.compile(r"(?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d)", re.ASCII)
_EPOCH = re.compile(r"\d{1,11}", re.ASCII)
# What Slurm prints where there is no limit.
_ENDLESS = frozenset({"infinite", "unlimited", "none", "n/a"})
_MEMORY = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*([MGT])(?:i?B)?", re.ASCII | re.IGNORECASE)
_MEMORY_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}
# Beyond these what is written could not be read again; no scheduler takes as much.
_LONGEST_S = 10_000 * 86400 - 1
_MOST_MIB = 999_999_999


def printable(text: str) -> str:
    """The same text on one line: each line break, control character and unseen mark becomes a space.

    For all that others have written and we log, keep or show: no line of a log can be forged with it.

    >>> printable("no\\n200 GET /hub/admin \\x1b[2J")
    'no 200 GET /hub/admin  [2J'
    """
    return text if text.isprintable() else "".join(letter if letter.isprintable() else " " for letter in text)


def epoch(text: str) -> float:
    """Seconds since 1970 that a program has printed as a number; 0 for any other text.

    >>> epoch("1795227628"), epoch("2026-11-21T05:02:49"), epoch("N/A")
    (1795227628.0, 0.0, 0.0)
    """
    return float(text) if _EPOCH.fullmatch(text) else 0.0


_MONTHS = (
    *(_("January"), _("February"), _("March"), _("April"), _("May"), _("June")),
    *(_("July"), _("August"), _("September"), _("October"), _("November"), _("December")),
)


def clock_time(at: float) -> Text:
    """Seconds since 1970 as a time of the Hub's clock, for people, with the name of its zone."""
    then = time.localtime(at)
    day = day_of_month(then.tm_mday, then.tm_mon)
    zone = time.strftime("%Z", then)
    return _(
        "{time} on {day} {year} ({zone})", time=time.strftime("%H:%M", then), day=day, year=then.tm_year, zone=zone
    )


def day_of_month(day: int, month: int) -> Text:
    """A day of the year, for people: `02 November`."""
    written = f"{day:02d}"
    return _("{day} {month}", day=written, month=_MONTHS[month - 1])


def shown(value: object, longest: int = 60) -> str:
    """A value of any shape as a message may tell it: on one line, of about `longest` characters at most."""
    teller = reprlib.Repr()
    teller.maxlevel = 3
    teller.maxstring = teller.maxother = longest
    try:
        text = teller.repr(value)
    except ValueError:
        # A whole number with more digits than Python writes.
        text = f"<{type(value).__name__}>"
    return text if len(text) <= longest else text[: longest - 3] + "..."


@dataclass(frozen=True, slots=True, order=True)
class Walltime:
    """A length of time in whole seconds.

    >>> Walltime.parse("1d 12h")
    Walltime(seconds=129600)
    >>> str(Walltime(5400))
    '1h 30m'
    """

    seconds: int

    @classmethod
    def parse(cls, text: object) -> "Walltime":
        """Read `30m`, `12h`, `1d 12h` or `1-12:00:00`; raise ValueError for all else.

        A bare number and a two-part time mean different things to different schedulers, so neither is guessed at.
        """
        if isinstance(text, str):
            seconds = _clock_seconds(text.strip()) or _word_seconds(text.strip().lower())
            if 0 < seconds <= _LONGEST_S:
                return cls(seconds)
        raise ValueError(_("not a wall time: {text} ({how})", text=shown(text), how=_how_to_write_walltime(text)))

    def clock(self) -> str:
        """As `D-HH:MM:SS`, which Slurm reads, or `HH:MM:SS` below one day."""
        days, rest = divmod(self.seconds, 86400)
        return f"{days}-{_hms(rest)}" if days else _hms(rest)

    def hours_clock(self) -> str:
        """As `HH:MM:SS` with as many hours as it takes, which Torque reads."""
        return _hms(self.seconds)

    def __str__(self) -> str:
        left, parts = self.seconds, []
        for unit, length in _UNIT_SECONDS.items():
            count, left = divmod(left, length)
            if count:
                parts.append(f"{count}{unit}")
        return " ".join(parts) or "0s"


@dataclass(frozen=True, slots=True, order=True)
class Memory:
    """An amount of memory in whole MiB; the letters are binary, as schedulers read them.

    >>> Memory.parse("64G")
    Memory(mib=65536)
    >>> str(Memory(1536))
    '1536M'
    """

    mib: int

    @classmethod
    def parse(cls, text: object) -> "Memory":
        """Read `512M`, `64G`, `1.5T`; raise ValueError for all else, a bare number above all.

        A part of a MiB is dropped, so `62.7G` is 64204 MiB.
        """
        match = _MEMORY.fullmatch(text.strip()) if isinstance(text, str) else None
        if match:
            # Not as a float, which would lose the last MiB of some.
            mib = int(Decimal(match[1]) * _MEMORY_MIB[match[2].upper()])
            if 1 <= mib <= _MOST_MIB:
                return cls(mib)
        raise ValueError(_("not an amount of memory: {text} ({how})", text=shown(text), how=_how_to_write_memory(text)))

    def __str__(self) -> str:
        for letter in ("T", "G"):
            count, rest = divmod(self.mib, _MEMORY_MIB[letter])
            if count and not rest:
                return f"{count}{letter}"
        return f"{self.mib}M"


def _how_to_write_memory(text: object) -> str:
    """Also for what `sinfo` prints: whole MiB without a letter."""
    how = _("write '512M', '64G' or '1.5T'")
    if isinstance(text, str) and re.fullmatch(r"\d{1,9}\+?", text.strip(), re.ASCII):
        mib = text.strip().rstrip("+")
        return _("{how}; {mib}M if these are MiB, as sinfo prints them", how=how, mib=mib)
    return how


def _how_to_write_walltime(text: object) -> str:
    how = _("write '90m', '12h', '1d 12h' or '1-12:00:00'")
    if isinstance(text, str) and text.strip().lower() in _ENDLESS:
        return _("{how}: there is no wall time without an end, so write the longest that you allow", how=how)
    return how


def _clock_seconds(text: str) -> int:
    match = _CLOCK.fullmatch(text)
    if not match:
        return 0
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    if match[1] and hours > 23:
        return 0
    return days * 86400 + hours * 3600 + minutes * 60 + seconds


def _word_seconds(text: str) -> int:
    match = _WORDS.fullmatch(text)
    if not match:
        return 0
    return sum(int(count or 0) * length for count, length in zip(match.groups(), _UNIT_SECONDS.values(), strict=True))


def _hms(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
