"""The bounded queue of a model: order, bounds, and a turn that is never lost."""

from __future__ import annotations

import asyncio

import pytest

from autotuned.core.errors import QueueFull, ShuttingDown
from autotuned.core.settings import QueueSettings
from autotuned.services.turns import Turns


def make(slots=1, max_waiting=2, wait_seconds=60.0):
    return Turns(
        model="pocket",
        slots_count=slots,
        settings=QueueSettings(max_waiting=max_waiting, wait_seconds=wait_seconds),
    )


class Client:
    """A task that takes a turn, and holds it until it is told to leave."""

    def __init__(self, turns):
        self.positions = []
        self.running = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._run(turns))

    async def _run(self, turns):
        async with turns.turn(self.positions.append):
            self.running.set()
            await self.leave.wait()


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_turns_are_granted_in_the_order_of_asking():
    turns = make()
    clients = [Client(turns) for _ in range(3)]
    await settle()
    assert [client.running.is_set() for client in clients] == [True, False, False]
    assert [client.positions for client in clients] == [[], [1], [2]]
    clients[0].leave.set()
    await settle()
    assert [client.running.is_set() for client in clients] == [True, True, False]
    assert clients[2].positions == [2, 1]
    for client in clients:
        client.leave.set()
    await asyncio.gather(*(client.task for client in clients))
    assert (turns.active_count, turns.waiting_count) == (0, 0)


async def test_slots_run_together():
    turns = make(slots=2)
    clients = [Client(turns) for _ in range(3)]
    await settle()
    assert [client.running.is_set() for client in clients] == [True, True, False]
    for client in clients:
        client.leave.set()
    await asyncio.gather(*(client.task for client in clients))


async def test_a_full_queue_refuses_with_the_sentence_and_the_numbers():
    turns = make(max_waiting=1)
    clients = [Client(turns) for _ in range(2)]
    await settle()
    with pytest.raises(QueueFull) as caught:
        async with turns.turn(lambda _: None):
            pytest.fail("a turn was granted")
    assert caught.value.message == (
        'The queue of "pocket" is full at its limit of 1 waiting; '
        "try again in a few seconds or raise queue.max_waiting."
    )
    assert caught.value.metadata == {"model": "pocket", "maxWaiting": "1"}
    for client in clients:
        client.leave.set()
    await asyncio.gather(*(client.task for client in clients))


async def test_a_wait_that_takes_too_long_is_refused_and_leaves_no_place_behind():
    turns = make(wait_seconds=0.01)
    holder = Client(turns)
    await settle()
    with pytest.raises(QueueFull, match=r'The request waited 0\.01 s for "pocket"'):
        async with turns.turn(lambda _: None):
            pytest.fail("a turn was granted")
    assert turns.waiting_count == 0
    holder.leave.set()
    await holder.task
    assert turns.active_count == 0


async def test_a_cancelled_wait_moves_the_others_up():
    turns = make()
    clients = [Client(turns) for _ in range(3)]
    await settle()
    clients[1].task.cancel()
    await settle()
    assert clients[2].positions == [2, 1]
    clients[0].leave.set()
    await settle()
    assert clients[2].running.is_set()
    clients[2].leave.set()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
    assert (turns.active_count, turns.waiting_count) == (0, 0)


async def test_a_turn_granted_in_the_moment_of_a_cancel_goes_to_the_next():
    turns = make()
    clients = [Client(turns) for _ in range(3)]
    await settle()
    clients[0].leave.set()
    await clients[0].task  # the turn was granted to the second, whose task has not run since
    clients[1].task.cancel()
    await settle()
    assert clients[2].running.is_set()
    clients[2].leave.set()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
    assert turns.active_count == 0


async def test_a_grant_passes_over_one_that_is_being_cancelled():
    turns = make()
    clients = [Client(turns) for _ in range(3)]
    await settle()
    clients[1].task.cancel()
    clients[0].leave.set()
    await clients[0].task
    await settle()
    assert clients[2].running.is_set()
    clients[2].leave.set()
    await asyncio.gather(*(client.task for client in clients), return_exceptions=True)
    assert (turns.active_count, turns.waiting_count) == (0, 0)


async def test_who_waits_is_sent_away_when_the_daemon_stops():
    turns = make()
    clients = [Client(turns) for _ in range(2)]
    await settle()
    turns.refuse_waiting()
    with pytest.raises(ShuttingDown):
        await clients[1].task
    clients[0].leave.set()
    await clients[0].task
    assert (turns.active_count, turns.waiting_count) == (0, 0)
