"""Spare time of a model: work in it never holds up a request, and is never lost without a word."""

from __future__ import annotations

import asyncio

import pytest

from autotuned.core.errors import ModelLoadFailed, ShuttingDown
from tests.services.test_turns import Client, make, settle


class Work:
    """Work that lasts until it is told to end; takes a moment to give way."""

    def __init__(self, turns, *, steps_to_give_way=3):
        self.running = False
        self.gave_way = False
        self.may_end = asyncio.Event()
        self._steps = steps_to_give_way
        self.task = asyncio.create_task(turns.in_spare_time(self._run))

    async def _run(self):
        self.running = True
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            for _ in range(self._steps):
                await asyncio.sleep(0)
            self.gave_way = True
            raise
        finally:
            self.running = False


async def leave(*clients):
    for client in clients:
        client.leave.set()
    await asyncio.gather(*(client.task for client in clients))


async def test_it_runs_at_once_where_nobody_asks():
    work = Work(make())
    await settle()
    assert work.running
    work.may_end.set()
    assert await work.task is True


async def test_it_gives_way_before_the_request_runs():
    turns = make()
    work = Work(turns)
    await settle()
    client = Client(turns)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not client.running.is_set()  # the engine is still at its batch
    await client.running.wait()
    assert work.gave_way
    assert client.positions == []
    assert await work.task is False
    await leave(client)


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_request_never_queues_behind_it_even_where_nobody_may_wait(slots):
    turns = make(slots=slots, max_waiting=0)
    work = Work(turns)
    await settle()
    clients = [Client(turns) for _ in range(slots)]
    await settle()
    assert all(client.running.is_set() for client in clients)
    assert await work.task is False
    await leave(*clients)


async def test_it_waits_until_the_model_rests_and_takes_no_place_in_the_queue():
    turns = make(max_waiting=1)
    first = Client(turns)
    await settle()
    work = Work(turns)
    await settle()
    second = Client(turns)
    await settle()
    assert second.positions == [1]
    assert (turns.active_count, turns.waiting_count) == (1, 1)
    await leave(first)
    await settle()
    assert second.running.is_set()
    assert not work.running
    await leave(second)
    await settle()
    assert work.running
    work.may_end.set()
    assert await work.task is True


async def test_two_of_them_run_one_after_the_other():
    turns = make()
    works = [Work(turns) for _ in range(2)]
    await settle()
    assert [work.running for work in works] == [True, False]
    works[0].may_end.set()
    await settle()
    assert [work.running for work in works] == [False, True]
    works[1].may_end.set()
    assert [await work.task for work in works] == [True, True]


async def test_its_own_queue_is_bounded_too():
    turns = make(max_waiting=1)
    client = Client(turns)
    await settle()
    waiting, refused = Work(turns), Work(turns)
    assert await refused.task is False
    await leave(client)
    await settle()
    assert waiting.running
    waiting.may_end.set()
    await waiting.task


async def test_a_wait_that_takes_too_long_ends():
    turns = make(wait_seconds=0.01)
    client = Client(turns)
    await settle()
    assert await Work(turns).task is False
    await leave(client)


async def test_what_it_raises_reaches_who_asked():
    async def fail():
        raise ModelLoadFailed("It died.")

    turns = make()
    with pytest.raises(ModelLoadFailed):
        await turns.in_spare_time(fail)
    await leave(Client(turns))


async def test_who_asked_may_leave_and_the_next_one_gets_the_time():
    turns = make()
    first, second = Work(turns), Work(turns)
    await settle()
    first.task.cancel()
    await asyncio.wait([first.task])
    assert first.gave_way
    await settle()
    assert second.running
    second.task.cancel()
    await asyncio.wait([second.task])
    client = Client(turns)
    await client.running.wait()
    await leave(client)


async def test_a_request_that_leaves_while_it_gives_way_keeps_no_turn():
    turns = make()
    work = Work(turns, steps_to_give_way=20)
    await settle()
    client = Client(turns)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    client.task.cancel()
    await asyncio.wait([client.task])
    assert await work.task is False
    assert turns.active_count == 0
    later = Work(turns)
    await settle()
    assert later.running
    later.may_end.set()
    await later.task


async def test_a_daemon_that_stops_ends_it_and_refuses_who_waits():
    turns = make()
    running, waiting = Work(turns), Work(turns)
    await settle()
    turns.refuse_waiting()
    for work in (running, waiting):
        with pytest.raises(ShuttingDown):
            await work.task
    assert running.gave_way
    with pytest.raises(ShuttingDown):
        await Work(turns).task
