"""Which slot a conversation gets."""

import asyncio
from contextlib import AsyncExitStack

from autotuned.engines.llamacpp.slots import Slots


async def use(slots, conversation):
    """Takes a slot as a request does; returns its number."""
    async with slots.take(conversation) as slot:
        slots.hold(slot, conversation)
        return slot.number


async def test_a_conversation_keeps_its_slot_and_a_new_one_gets_the_least_recently_used():
    slots = Slots(3)
    assert [await use(slots, name) for name in "abc"] == [0, 1, 2]
    assert [await use(slots, name) for name in "bac"] == [1, 0, 2]
    assert await use(slots, "d") == 1
    assert await use(slots, "b") == 0


async def test_two_requests_of_one_conversation_get_two_slots_and_the_last_one_holds_it():
    slots = Slots(2)
    async with slots.take("a") as first:
        slots.hold(first, "a")
        assert await use(slots, "a") == 1
    async with slots.take_holder("a") as slot:
        assert slot.number == 1
    assert first.holds == ""


async def test_a_request_waits_for_a_free_slot_and_a_waiter_that_leaves_takes_none():
    slots = Slots(1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(slots.take("a"))
        waiting = [asyncio.create_task(use(slots, name)) for name in "bcd"]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[1].cancel()
    assert await waiting[0] == await waiting[2] == 0
    assert waiting[1].cancelled()
    assert await use(slots, "e") == 0


async def test_a_holder_is_waited_for_and_is_none_when_it_went_to_another():
    slots = Slots(1)
    await use(slots, "a")

    async def holder(conversation):
        async with slots.take_holder(conversation) as slot:
            return slot

    assert await holder("b") is None
    async with slots.take("b") as slot:
        waiting = asyncio.create_task(holder("a"))
        await asyncio.sleep(0)
        slots.hold(slot, "b")
    assert await waiting is None
    assert (await holder("b")).number == 0


async def test_a_conversation_without_a_name_is_held_by_nobody():
    slots = Slots(2)
    assert [await use(slots, "") for _ in range(3)] == [0, 1, 0]
    async with slots.take_holder("") as slot:
        assert slot is None
