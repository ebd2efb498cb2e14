"""Equals stand in for each other before an answer begins, and for nothing that has begun."""

import asyncio
import json
import time
from contextlib import aclosing

import pytest

from autotuned.core.engine import EngineState
from autotuned.core.errors import EngineUnreachable, ModelNotFound, QueueFull
from tests.engines.openai_case import HandClock, engine_of
from tests.engines.processes import until
from tests.engines.scripted_server import HANG, HEAD, LAST_CHUNK
from tests.engines.scripted_upstream import ANSWER, chunk_of, error, scripted_upstream
from tests.engines.shapes import SHAPE
from tests.fakes.serving import free_port
from tests.suites.engine_case import answer, ask, finish_of, text_of

HELLO = ask("Hello!")


async def load(engine, model_id="m"):
    entry = next(entry for entry in await engine.models() if entry.id == model_id)
    return await engine.load(entry, SHAPE, lambda _: None)


@pytest.fixture
async def pair():
    """Two equals, the first of which is always chosen first."""
    async with scripted_upstream() as first, scripted_upstream() as second:
        yield first, second


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture
async def engine(pair, clock):
    engine = engine_of(*(server.url for server in pair), clock=clock, silence_seconds=0.2)
    yield engine
    await engine.close()


@pytest.fixture
async def model(engine):
    return await load(engine)


@pytest.mark.parametrize("status", [401, 403, 429, 502, 503, 504])
async def test_an_equal_takes_what_a_server_cannot_take_now(model, pair, status):
    first, second = pair
    first.script = [error(status, {"error": {"message": "not now"}})]
    assert text_of(await answer(model, HELLO)) == "Hello!"
    assert [len(server.bodies) for server in pair] == [1, 1]
    # It is left alone meanwhile.
    await answer(model, HELLO)
    assert [len(server.bodies) for server in pair] == [1, 2]
    assert second.bodies[0] == first.bodies[0]


async def test_an_equal_takes_what_a_server_that_is_gone_cannot():
    port = free_port()
    async with scripted_upstream() as second:
        async with scripted_upstream(port=port) as first:
            engine = engine_of(first.url, second.url)
            model = await load(engine)
        assert text_of(await answer(model, HELLO)) == "Hello!"
        assert len(second.bodies) == 1
        await engine.close()


async def test_a_connection_that_breaks_before_the_answer_is_replaced(model, pair):
    pair[0].script = []
    assert text_of(await answer(model, HELLO)) == "Hello!"
    assert [len(server.bodies) for server in pair] == [1, 1]


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_a_refusal_is_no_reason_to_ask_another(model, pair, status):
    pair[0].script = [error(status, {"error": {"message": "no"}})]
    with pytest.raises(Exception, match="no"):
        await answer(model, HELLO)
    assert [len(server.bodies) for server in pair] == [1, 0]


async def test_each_equal_is_asked_once(model, pair):
    for server in pair:
        server.script = [error(503, {"error": "down"})]
    with pytest.raises(EngineUnreachable, match=r"not available \(503, down\)") as failure:
        await answer(model, HELLO)
    assert not failure.value.served
    assert [len(server.bodies) for server in pair] == [1, 1]


@pytest.mark.parametrize(
    "script",
    [
        [HEAD, chunk_of(content="Hel")],
        [HEAD, chunk_of(content="Hel"), LAST_CHUNK],
        [HEAD, LAST_CHUNK],
        [HEAD, chunk_of(content="Hel"), HANG],
        [HEAD, HANG],
        [HANG],
    ],
    ids=["broken", "cut", "empty", "hangs in mid-stream", "hangs at once", "no head"],
)
async def test_nothing_is_asked_again_once_it_was_taken(model, pair, script):
    pair[0].script = script
    began_at = time.monotonic()
    with pytest.raises(EngineUnreachable, match="send the request again") as failure:
        await answer(model, HELLO)
    assert time.monotonic() - began_at < 5.0
    assert failure.value.served
    assert [len(server.bodies) for server in pair] == [1, 0]
    await until(lambda: pair[0].connections_count == 0, "the connection is closed")


async def test_the_rest_doubles_up_to_a_minute(model, pair, engine, clock):
    pair[0].script = [error(502, b"<html>bad gateway</html>")]
    rests = []
    for number in range(8):
        await answer(model, HELLO, f"talk {number}")
        before = len(pair[0].bodies)
        rests.append(engine._servers[0].rest_seconds)
        clock.seconds += rests[-1] - 0.01
        await answer(model, HELLO, f"talk {number}")
        assert len(pair[0].bodies) == before
        clock.seconds += 0.02
    assert rests == pytest.approx([1, 2, 4, 8, 16, 32, 60, 60])
    pair[0].script = ANSWER
    await answer(model, HELLO)
    pair[0].script = [error(502, b"")]
    await answer(model, HELLO)
    assert engine._servers[0].rest_seconds == pytest.approx(1)


async def test_the_least_busy_server_is_chosen_for_its_size(clock):
    async with scripted_upstream() as small, scripted_upstream() as large:
        engine = engine_of(f"{small.url} slots=1", f"{large.url} slots=3", clock=clock)
        model = await load(engine)
        assert model.shape.slots_count == engine.capabilities().slots_count == 4
        for server in (small, large):
            server.script = [HEAD, chunk_of(content="Hel"), HANG]
        streams = [model.generate(HELLO, f"talk {number}") for number in range(4)]
        for stream in streams:
            await anext(stream)
        assert [len(small.bodies), len(large.bodies)] == [1, 3]
        for stream in streams:
            await stream.aclose()
        await until(lambda: small.connections_count + large.connections_count == 0, "all are closed")
        await engine.close()


async def test_a_conversation_stays_where_its_prompt_is(model, pair):
    async with aclosing(model.generate(HELLO, "other")) as other:
        pair[0].script = [HEAD, chunk_of(content="Hel"), HANG]
        await anext(other)
        await answer(model, HELLO, "mine")
    for _ in range(3):
        await answer(model, HELLO, "mine")
    assert len(pair[1].bodies) == 4


async def test_a_request_goes_only_where_its_model_is(pair, clock):
    pair[0].models = [{"id": "a"}, {"id": "both", "max_model_len": 100}]
    pair[1].models = [{"id": "b"}, {"id": "both", "max_model_len": 80}]
    engine = engine_of(*(server.url for server in pair), clock=clock)
    entries = {entry.id: entry for entry in await engine.models()}
    assert list(entries) == ["a", "both", "b"]
    assert entries["both"].facts.train_context_tokens == 80
    assert entries["b"].path == f"{pair[1].url}/v1"
    await answer(await load(engine, "b"), HELLO)
    assert [len(server.bodies) for server in pair] == [0, 1]
    assert pair[1].bodies[0]["model"] == "b"
    await engine.close()


async def test_too_many_requests_say_when_to_try_again(model, pair, clock):
    pair[0].script = [error(429, {"error": {"message": "slow down"}}, "Retry-After: 7")]
    pair[1].script = [error(429, {"error": {"message": "slow down"}}, "Retry-After: 20")]
    with pytest.raises(QueueFull) as refusal:
        await answer(model, HELLO)
    assert refusal.value.retry_seconds == 20
    clock.seconds += 3
    with pytest.raises(QueueFull, match="4 seconds") as refusal:
        await answer(model, HELLO)
    assert refusal.value.retry_seconds == 4
    assert [len(server.bodies) for server in pair] == [1, 1]


async def test_a_refused_token_is_not_in_what_is_said(clock, caplog):
    async with scripted_upstream() as server:
        engine = engine_of(
            server.url, words="token=env:LAB", environment={"LAB": "s3cret-token"}, clock=clock
        )
        model = await load(engine)
        assert b"\r\nAuthorization: Bearer s3cret-token\r\n" in server.heads[0]
        server.script = [error(401, {"error": {"message": "bad key s3cret-token", "code": 401}})]
        with pytest.raises(EngineUnreachable, match="refuses the token of env:LAB") as failure:
            await answer(model, HELLO)
        server.list_answer = [error(401, {"error": "bad key s3cret-token"})]
        clock.seconds += 10
        assert await engine.models() == []
        status = engine.status()
        assert status.state is EngineState.UNREACHABLE
        assert "refuses the token of env:LAB" in status.detail
        for text in (failure.value.message, str(status), caplog.text, repr(engine._servers[0]._endpoint)):
            assert "s3cret" not in text
        await engine.close()


async def test_a_model_that_is_gone_is_not_found(model, engine, pair, clock):
    pair[0].script = [error(404, {"error": {"message": "The model `m` does not exist.", "code": 404}})]
    with pytest.raises(ModelNotFound, match="does not have it any more"):
        await answer(model, HELLO)
    entry = (await engine.models())[0]
    for server in pair:
        server.models = [{"id": "m2"}]
    clock.seconds += 10
    with pytest.raises(ModelNotFound, match='did you mean "m2"'):
        await engine.load(entry, SHAPE, lambda _: None)
    assert not model.is_gone
    clock.seconds += 60
    await engine.refresh()
    assert model.is_gone
    assert await model.wait_gone() == "no server has listed it for a while"
    with pytest.raises(EngineUnreachable, match="is gone"):
        await answer(model, HELLO)


async def test_without_a_server_nothing_hangs_and_nothing_is_listed(clock):
    engine = engine_of(f"http://127.0.0.1:{free_port()}", clock=clock)
    assert await engine.models() == []
    status = engine.status()
    assert status.state is EngineState.UNREACHABLE
    assert "cannot be reached" in status.detail
    assert [finding.code for finding in status.findings] == ["server-unreachable"]
    await engine.close()


async def test_a_server_that_hangs_costs_a_list_two_seconds_once():
    async with scripted_upstream(list_answer=[HANG]) as server:
        engine = engine_of(server.url)
        began_at = time.monotonic()
        assert await engine.models() == []
        assert 1.5 < time.monotonic() - began_at < 4.0
        began_at = time.monotonic()
        assert await engine.models() == []
        assert time.monotonic() - began_at < 0.5
        await engine.close()


async def test_a_server_that_loads_is_starting(clock):
    loading = [error(503, {"error": {"message": "Loading model", "code": 503}})]
    async with scripted_upstream(list_answer=loading) as server:
        engine = engine_of(server.url, clock=clock)
        await engine.refresh()
        assert engine.status().state is EngineState.STARTING
        server.list_answer = None
        clock.seconds += 2
        await engine.refresh()
        assert engine.status().state is EngineState.READY
        await engine.close()


async def test_unloading_ends_what_runs(model, pair):
    pair[0].script = [HEAD, chunk_of(content="Hel"), HANG]
    stream = model.generate(HELLO, "talk")
    await anext(stream)
    await model.unload()
    with pytest.raises(EngineUnreachable, match="unloaded"):
        await anext(stream)
    await until(lambda: pair[0].connections_count == 0, "the connection is closed")


async def test_cancelling_closes_the_connection(model, pair):
    pair[0].script = [HEAD, HANG]
    task = asyncio.create_task(answer(model, HELLO))
    await until(lambda: pair[0].bodies != [], "the request arrived")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: pair[0].connections_count == 0, "the connection is closed")


async def test_a_web_page_says_that_the_url_is_wrong(model, pair):
    page = b"<html><title>Welcome</title></html>"
    for script in ([error(200, page, "Content-Type: text/html; charset=utf-8")], [error(404, page)]):
        pair[0].script = script
        with pytest.raises(EngineUnreachable, match="does not speak OpenAI's dialect"):
            await answer(model, HELLO)


async def test_a_list_that_cannot_be_read_is_told(clock):
    for body in (b"<html>", b"", json.dumps({"models": 1}).encode()):
        async with scripted_upstream(list_answer=[error(200, body)]) as server:
            engine = engine_of(server.url, clock=clock)
            assert await engine.models() == []
            assert "cannot be read" in engine.status().detail
            await engine.close()


async def test_an_answer_tells_its_counts(model):
    assert finish_of(await answer(model, HELLO)).usage.prompt_tokens == 9
