"""Each call of the blocking and the asyncio client against a daemon on a real socket."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, closing

import pytest
from autotune import errors
from autotune.aio_client import AsyncClient
from autotune.channel import OPTIONS
from autotune.chat import chat_request
from autotune.client import Client
from autotune.requests import load_model_request
from autotune.v1 import chat_pb2, inference_service_pb2, model_pb2, model_service_pb2

from tests.fakes.fake_daemon import FakeDaemon, say
from tests.fakes.fake_messages import delta, finished, running_model, started

DEADLINE_SECONDS = 10.0


def model(name: str) -> model_pb2.Model:
    return model_pb2.Model(id=name, engine="llamacpp")


def endless(daemon: FakeDaemon):
    """One piece, then nothing until the client gives up."""

    def script(request, context):
        yield started()
        yield delta("Once")
        daemon.hold(context)

    return script


async def test_generate_yields_the_events_in_order(daemon):
    def kinds(events):
        return [event.WhichOneof("event") for event in events]

    expected = ["queued", "started", "delta", "delta", "finished"]
    with Client(daemon.address) as client:
        assert kinds(client.generate(chat_request("hello"))) == expected
    async with AsyncClient(daemon.address) as client:
        assert kinds([event async for event in client.generate(chat_request("hello"))]) == expected


async def test_a_request_arrives_as_it_was_sent(daemon):
    request = chat_request(
        [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"content": "Three?"},
        ],
        model="pocket",
        system="Be brief.",
        profile="fast",
        temperature=0.0,
        max_reply_tokens=5,
        seed=-3,
        context_tokens=4096,
    )
    async with AsyncClient(daemon.address) as client:
        [_ async for _ in client.generate(request)]
    (got,) = daemon.requests
    assert got == request
    assert [(message.role, message.parts[0].text) for message in got.chat.messages] == [
        (chat_pb2.ROLE_SYSTEM, "Be brief."),
        (chat_pb2.ROLE_USER, "One?"),
        (chat_pb2.ROLE_ASSISTANT, "Two."),
        (chat_pb2.ROLE_USER, "Three?"),
    ]
    assert got.sampling.HasField("temperature")
    assert got.sampling.temperature == 0.0
    assert got.sampling.seed == -3
    assert (got.max_reply_tokens, got.context_tokens) == (5, 4096)
    assert got.profile == inference_service_pb2.PROFILE_FAST


def test_what_is_left_out_is_absent_on_the_wire():
    request = chat_request("hello")
    assert not request.HasField("keep_alive_duration")
    assert not request.sampling.HasField("temperature")
    assert not request.sampling.HasField("seed")
    assert not request.HasField("max_reply_tokens")
    assert not request.HasField("context_tokens")
    assert request.profile == inference_service_pb2.PROFILE_UNSPECIFIED


@pytest.mark.parametrize("bad", [{"profile": "swift"}, {"conversation": [{"role": "robot", "content": "x"}]}])
def test_an_unknown_name_is_refused_with_the_known_ones(bad):
    with pytest.raises(errors.FieldInvalid, match="is not one of"):
        chat_request(**{"conversation": "hello", **bad})


async def test_chat_collects_the_whole_answer(daemon):
    with Client(daemon.address) as client:
        reply = client.chat("What is the capital of France?", temperature=0.0)
    assert reply.text == "The capital of France is Paris."
    assert (reply.finish_reason, reply.model, reply.engine, reply.request_id) == (
        "stop",
        "pocket",
        "llamacpp",
        "r1",
    )
    assert (reply.usage.prompt_tokens, reply.usage.cached_tokens, reply.usage.reply_tokens) == (24, 8, 9)
    assert reply.timings.decode_tokens_per_second == 412.34
    assert reply.plan.shape.context_tokens == 2048
    async with AsyncClient(daemon.address) as client:
        assert await client.chat("What is the capital of France?") == reply


async def test_chat_keeps_reasoning_and_tool_calls_apart_from_the_text(daemon):
    def script(request, context):
        def part(index: int, **content):
            return inference_service_pb2.GenerateResponse(
                delta=inference_service_pb2.Delta(part_index=index, **content)
            )

        def call(**fragment):
            return {"tool_call": inference_service_pb2.ToolCallFragment(**fragment)}

        yield part(0, reasoning="Hmm, ")
        yield part(0, reasoning="tools.")
        yield part(1, text="Let me see.")
        yield part(2, **call(id="a", name="clock", arguments_json_fragment='{"zone"'))
        yield part(3, **call(id="b", name="dice", arguments_json_fragment="{}"))
        yield part(2, **call(arguments_json_fragment=': "UTC"}'))
        yield finished(inference_service_pb2.FINISH_REASON_TOOL_CALLS)

    daemon.script = script
    with Client(daemon.address) as client:
        reply = client.chat("What time is it?")
    assert (reply.reasoning, reply.text, reply.finish_reason) == ("Hmm, tools.", "Let me see.", "tool_calls")
    assert [(call.id, call.name, call.arguments_json) for call in reply.tool_calls] == [
        ("a", "clock", '{"zone": "UTC"}'),
        ("b", "dice", "{}"),
    ]


def test_closing_a_blocking_stream_cancels_the_call(daemon):
    daemon.script = endless(daemon)
    with Client(daemon.address) as client:
        with closing(client.generate(chat_request("hello"))) as events:
            next(events)
            assert next(events).delta.text == "Once"
        assert daemon.cancelled.wait(DEADLINE_SECONDS)


def test_a_blocking_stream_can_be_closed_while_it_waits(daemon):
    daemon.script = endless(daemon)
    with Client(daemon.address) as client:
        events = client.generate(chat_request("hello"))
        next(events)
        assert next(events).delta.text == "Once"
        closing_thread = threading.Timer(0.05, events.close)
        closing_thread.start()
        assert list(events) == []
        assert daemon.cancelled.wait(DEADLINE_SECONDS)
        closing_thread.join()


async def test_closing_an_asyncio_stream_cancels_the_call(daemon):
    daemon.script = endless(daemon)
    async with AsyncClient(daemon.address) as client:
        async with aclosing(client.generate(chat_request("hello"))) as events:
            await anext(events)
            assert (await anext(events)).delta.text == "Once"
        assert await asyncio.to_thread(daemon.cancelled.wait, DEADLINE_SECONDS)


async def test_cancelling_the_reading_task_cancels_the_call(daemon):
    daemon.script = endless(daemon)
    came = asyncio.Event()

    async def read(client: AsyncClient) -> None:
        async for event in client.generate(chat_request("hello")):
            if event.delta.text:
                came.set()

    async with AsyncClient(daemon.address) as client:
        task = asyncio.create_task(read(client))
        await asyncio.wait_for(came.wait(), DEADLINE_SECONDS)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(daemon.cancelled.wait, DEADLINE_SECONDS)


async def test_a_stream_that_was_never_read_makes_no_call(daemon):
    async with AsyncClient(daemon.address) as client:
        await client.generate(chat_request("hello")).aclose()
        await client.info()
    with Client(daemon.address) as client:
        client.generate(chat_request("hello")).close()
        client.info()
    assert [type(request).__name__ for request in daemon.requests] == ["GetInfoRequest"] * 2


async def test_closing_the_client_ends_a_running_stream(daemon):
    daemon.script = endless(daemon)
    client = Client(daemon.address)
    events = client.generate(chat_request("hello"))
    next(events)
    next(events)
    threading.Thread(target=client.close).start()
    with pytest.raises(errors.Cancelled):
        next(events)


async def test_a_stream_has_the_deadline_that_it_is_given(daemon):
    daemon.script = endless(daemon)
    with Client(daemon.address) as client, pytest.raises(errors.DeadlineExceeded):
        list(client.generate(chat_request("hello"), timeout_seconds=0.2))
    async with AsyncClient(daemon.address) as client:
        with pytest.raises(errors.DeadlineExceeded):
            [_ async for _ in client.generate(chat_request("hello"), timeout_seconds=0.2)]


async def test_a_short_call_has_the_clients_deadline(daemon):
    daemon.stalls = True
    with (
        Client(daemon.address, deadline_seconds=0.2) as client,
        pytest.raises(errors.DeadlineExceeded) as caught,
    ):
        client.info()
    assert caught.value.message == (
        'The daemon did not answer in time; try again, or look at it with "autotunectl status".'
    )
    async with AsyncClient(daemon.address, deadline_seconds=0.2) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.info()


@pytest.mark.parametrize("page_limit", [1, 2, 5, 1000])
async def test_lists_walk_all_pages(daemon, page_limit):
    names = [f"model-{number}" for number in range(5)]
    daemon.page_limit = page_limit
    daemon.models = [model(name) for name in names]
    daemon.running = [running_model(name) for name in names]
    daemon.default_model = "model-3"
    with Client(daemon.address) as client:
        listing = client.list_models()
        assert [entry.id for entry in client.list_running_models()] == names
    assert ([entry.id for entry in listing.models], listing.default_model) == (names, "model-3")
    async with AsyncClient(daemon.address) as client:
        assert await client.list_models() == listing
        assert [entry.id for entry in await client.list_running_models()] == names


async def test_one_model_is_told_by_name_or_by_default(daemon):
    daemon.models = [model("pocket"), model("other")]
    async with AsyncClient(daemon.address) as client:
        assert (await client.get_model("other")).id == "other"
        assert (await client.get_model()).id == "pocket"
    with Client(daemon.address) as client:
        assert client.get_model().id == "pocket"
        with pytest.raises(errors.ModelNotFound) as caught:
            client.get_model("poket")
        assert caught.value.metadata == {"model": "poket", "suggestion": "pocket"}
        with pytest.raises(errors.FieldInvalid):
            client.get_model("\ud800")
        with pytest.raises(errors.FieldInvalid):
            client.unload_model("\ud800")


async def test_a_load_reports_progress_and_ends_loaded(daemon):
    request = load_model_request("pocket", 4096)
    with Client(daemon.address) as client:
        kinds = [event.WhichOneof("event") for event in client.load_model(request)]
    assert kinds == ["progress", "progress", "loaded"]
    async with AsyncClient(daemon.address) as client:
        events = [event async for event in client.load_model(request)]
    assert events[-1].loaded.running_model.id == "pocket"
    assert daemon.requests[0] == request
    assert daemon.requests[0].context_tokens == 4096
    assert not load_model_request("pocket").HasField("context_tokens")


async def test_unload_tells_what_it_found(daemon):
    outcomes = model_service_pb2.UnloadModelResponse
    with Client(daemon.address) as client:
        assert client.unload_model("pocket").outcome == outcomes.OUTCOME_NOT_LOADED
        daemon.running = [running_model()]
        assert client.unload_model("pocket").outcome == outcomes.OUTCOME_UNLOADED
    async with AsyncClient(daemon.address) as client:
        assert (await client.unload_model("pocket")).freed_memory_bytes == 30 << 20


async def test_counts_and_vectors_come_back(daemon):
    count = inference_service_pb2.CountTokensRequest(text="hello")
    embed = inference_service_pb2.EmbedRequest(texts=["a", "b"])
    with Client(daemon.address) as client:
        assert client.count_tokens(count).tokens == 5
        assert len(client.embed(embed).embeddings) == 2
    async with AsyncClient(daemon.address) as client:
        assert (await client.count_tokens(count)).tokens == 5
        assert len((await client.embed(embed)).embeddings) == 2


async def test_snapshots_are_taken_and_watched(daemon):
    with Client(daemon.address) as client:
        assert client.snapshot().cpu_cores_count == 2
        with closing(client.watch_snapshots(0.25)) as stream:
            assert [next(stream).sequence, next(stream).sequence] == [1, 2]
        assert daemon.requests[-1].interval_duration.ToMilliseconds() == 250
        assert daemon.cancelled.wait(DEADLINE_SECONDS)
    async with AsyncClient(daemon.address) as client:
        assert (await client.snapshot()).memory_total_bytes == 8 << 30
        async with aclosing(client.watch_snapshots()) as stream:
            assert (await anext(stream)).snapshot.cpu_cores_count == 2
        assert daemon.requests[-1].interval_duration.ToMilliseconds() == 1000
        with pytest.raises(errors.FieldInvalid):
            client.watch_snapshots(float("nan"))


async def test_the_daemon_knows_who_calls(daemon):
    with Client(daemon.address, "my tool\n", client_version="1.2") as client:
        client.info()
        assert daemon.metadata["autotune-client"] == "my-tool-/1.2"
    async with AsyncClient(daemon.address, client_name="shim", client_version="3") as client:
        await client.chat("hello")
        assert daemon.metadata["autotune-client"] == "shim/3"
        [_ async for _ in client.generate(chat_request("hello"), on_behalf_of="aider é/0.1" + "x" * 200)]
        assert daemon.metadata["autotune-client"] == "aider--/0.1" + "x" * 89


async def test_shutdown_tells_how_long_running_requests_have(daemon):
    async with AsyncClient(daemon.address) as client:
        assert (await client.shutdown()).drain_duration.seconds == 5


def test_shutdown_blocking(daemon):
    with Client(daemon.address) as client:
        assert client.shutdown().drain_duration.seconds == 5


async def test_a_client_outlives_the_daemon_and_reaches_the_next_one(daemon):
    async with AsyncClient(daemon.address) as client:
        await client.info()
        daemon.stop()
        for _ in range(20):  # the longer it fails, the longer it may wait between attempts
            with pytest.raises(errors.DaemonUnreachable):
                await client.info()
            await asyncio.sleep(0.02)
        with FakeDaemon() as second:
            (second.runtime / "autotuned.sock").rename(daemon.runtime / "autotuned.sock")
            second.script = say("Back again.")
            async with asyncio.timeout(DEADLINE_SECONDS):
                while True:
                    try:
                        assert (await client.chat("hello")).text == "Back again."
                        break
                    except errors.DaemonUnreachable:
                        await asyncio.sleep(0.02)


def test_a_daemon_that_is_back_does_not_count_as_gone_for_long():
    assert dict(OPTIONS)["grpc.max_reconnect_backoff_ms"] <= 100
