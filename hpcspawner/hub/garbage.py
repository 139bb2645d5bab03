"""When Python looks through the Hub's memory for what is of no use, which stops all that the Hub does.

With a thousand servers these are 300,000 objects. Python's own settings have it do so by the number of new objects,
several times a minute; here it does so when the Hub's memory has grown.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import time
from pathlib import Path

# Of the young, often: that is quick. Of all, never by their number.
_COLLECT_AFTER = (2_000, 5, 1_000_000)
# So long a Hub that starts again takes up its servers. They are not looked at either; once they have ended, what they
# leave behind stays, as much as they are.
_SETTLES_S = 120.0
_PYTHONS_OWN = gc.get_threshold()
_LOOK_S = 10.0
# What servers that have ended may leave behind meanwhile: some 20 KiB each. The share is for large Hubs, where a look
# takes longer.
_GROWTH_BYTES = 128 * 2**20
_GROWTH_SHARE = 1 / 8
_MEMORY = Path("/proc/self/statm")
_PAGE_BYTES = resource.getpagesize()


def look_at_the_young_alone() -> None:
    """Have Python collect what is new, and never look through all there is by itself."""
    gc.set_threshold(*_COLLECT_AFTER)


def leave_alone_what_stays() -> None:
    """Have no look at the objects that there are now; they are there until the Hub ends."""
    gc.collect()
    gc.freeze()


async def collect_as_memory_grows(log: logging.Logger) -> None:
    """Until the Hub ends. Where the system does not tell how much memory it has, Python's own settings stay."""
    try:
        base = resident_bytes()
    except OSError as error:
        log.warning("hpcspawner: can't read %s (%s): Python collects its garbage by its own settings", _MEMORY, error)
        gc.set_threshold(*_PYTHONS_OWN)
        return
    look_at_the_young_alone()
    settled_at = time.monotonic() + _SETTLES_S
    while True:
        await asyncio.sleep(_LOOK_S)
        # A Hub that may open no more files at the moment has other troubles, and looks again.
        with contextlib.suppress(OSError):
            if time.monotonic() < settled_at:
                gc.freeze()
                base = resident_bytes()
            elif resident_bytes() - base > max(_GROWTH_BYTES, _GROWTH_SHARE * base):
                gc.collect()
                base = resident_bytes()


def resident_bytes() -> int:
    """How much of this process is in memory."""
    return int(_MEMORY.read_text().split()[1]) * _PAGE_BYTES
