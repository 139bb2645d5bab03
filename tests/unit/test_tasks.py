"""Work on the loop: who is woken for what, and that long work lets others have their turn."""

import asyncio

from hpcspawner.jobs.tasks import Slices, Wake


async def test_who_is_woken_knows_for_which_jobs_in_the_order_they_came():
    wake = Wake()
    for tag in ("b", "a", "b"):
        wake.set(tag)
    await wake.wait()
    assert wake.taken() == ["b", "a"]
    assert (wake.taken(), wake.is_set()) == ([], False)


async def test_a_call_that_names_none_is_for_all():
    wake = Wake()
    wake.set("a")
    wake.set()
    assert wake.taken() is None
    assert wake.taken() == []


async def others_turns(slices, steps):
    """How often others had their turn while this many steps were done."""
    turns, over = [], asyncio.Event()

    async def other():
        while not over.is_set():
            turns.append(1)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(steps):
        await slices.pause()
    over.set()
    await task
    return len(turns)


async def test_others_have_their_turn_between_two_slices():
    assert await others_turns(Slices(0.0), 100) >= 100


async def test_a_slice_that_has_not_had_its_time_goes_on():
    assert await others_turns(Slices(3600.0), 100) <= 1
