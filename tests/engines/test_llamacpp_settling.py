"""What touches a slot waits for it: the engine harms an answer when its slot is named for another."""

import asyncio
import json
from contextlib import aclosing

import pytest

from autotuned.core.errors import EngineUnreachable, StorageFull
from tests.engines.processes import until
from tests.engines.scripted_server import HANG, HEAD, event, plain, scripted_server
from tests.engines.scripted_worker import ScriptedWorker, scripted_model
from tests.engines.shapes import SHAPE, shape
from tests.suites.engine_case import TALK, answer, ask

PROGRESS = {
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}],
    "prompt_progress": {"total": 9, "cache": 2, "processed": 2, "time_ms": 0},
}
BEGUN = (HEAD, event(json.dumps(PROGRESS).encode()), HANG)


def slots(*, first_is_busy):
    states = [{"id": 0, "is_processing": first_is_busy}, {"id": 1, "is_processing": True}]
    return [plain(200, json.dumps(states).encode())]


def targets(server):
    return [request.split(b" HTTP")[0] for request in server.requests]


@pytest.fixture
def worker(paths):
    return ScriptedWorker(paths.runtime / "server.sock")


async def give_up(model, worker):
    """Begins an answer and closes it; the worker may still be at work on it."""
    async with (
        scripted_server(worker.socket_path, BEGUN) as server,
        aclosing(model.generate(ask("Hello!"), TALK)) as events,
    ):
        await anext(events)
    return server


async def test_a_slot_is_named_only_when_the_worker_has_let_go_of_it(worker, paths):
    model = scripted_model(worker, paths.prefixes, shape(slots_count=2))
    server = await give_up(model, worker)
    assert b'{"id_slot":0,' in server.requests[0]
    async with scripted_server(worker.socket_path, slots(first_is_busy=True)) as server:
        again = asyncio.create_task(answer(model, ask("Hello!")))
        await until(lambda: len(server.requests) >= 3, "the slot was looked at again and again")
        assert set(targets(server)) == {b"GET /slots"}
        again.cancel()
        with pytest.raises(asyncio.CancelledError):
            await again
    async with scripted_server(worker.socket_path, slots(first_is_busy=False)) as server:
        with pytest.raises(EngineUnreachable):
            await answer(model, ask("Hello!"))
    assert targets(server) == [b"GET /slots", b"POST /v1/chat/completions"]
    assert b'{"id_slot":0,' in server.requests[1]


async def test_one_slot_is_never_named(worker, paths):
    model = scripted_model(worker, paths.prefixes, SHAPE)
    await give_up(model, worker)
    server = await give_up(model, worker)
    assert targets(server) == [b"POST /v1/chat/completions"]
    assert b"id_slot" not in server.requests[0]


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (plain(500, b'{"error": {"code": 500, "message": "Unable to save slot"}}'), StorageFull),
        (plain(200, b'{"n_saved": 7, "n_written": 5000}'), StorageFull),
        (plain(200, b"<html>"), EngineUnreachable),
    ],
    ids=["refused", "not there", "unreadable"],
)
async def test_a_state_that_was_not_written_is_told(worker, paths, reply, error):
    model = scripted_model(worker, paths.prefixes, SHAPE)
    await give_up(model, worker)
    async with scripted_server(worker.socket_path, [reply]) as server:
        with pytest.raises(error):
            await model.save_prefix(TALK, "state.bin")
    assert targets(server) == [b"POST /slots/0?action=save"]
