from __future__ import annotations

import asyncio
import logging

import pytest
from autotune.errors import ContextTooLong, EngineUnreachable, ModelNotFound, QueueFull
from autotune.v1 import inference_service_pb2 as wire
from autotune_shim.http import BODY_LIMIT_BYTES

from tests.shim.scripted import (
    AT_ONCE,
    CHAT,
    PATIENCE_SECONDS,
    Pause,
    ScriptedClient,
    begin,
    finished,
    post,
    queued,
    started,
    text,
)

STREAM = {**CHAT, "stream": True}
BOTH = pytest.mark.parametrize("body", [CHAT, STREAM], ids=["whole", "stream"])
DIED = EngineUnreachable("The engine died; send the request again.")


async def reached(pause: Pause) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await pause.reached.wait()


async def test_a_whole_answer():
    client = ScriptedClient([queued(1), started(), text("Hello"), finished()])
    call = await post(client, CHAT)
    assert (call.status, call.headers["content-type"]) == (200, "application/json")
    assert call.headers["content-length"] == str(len(call.body))
    assert call.json()["choices"][0]["message"]["content"] == "Hello"
    assert client.requests[0].model == "pocket"
    assert client.running == 0


async def test_a_streamed_answer():
    call = await post(ScriptedClient([queued(1), started(), text("Hel"), text("lo"), finished()]), STREAM)
    assert call.status == 200
    assert call.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert [event["choices"][0]["delta"].get("content") for event in call.events[:-1]] == [
        "",
        "Hel",
        "lo",
        None,
    ]
    assert call.events[-1] == "[DONE]"
    assert call.complete


async def test_each_piece_is_sent_as_it_comes():
    pause = Pause()
    call = begin(ScriptedClient([started(), text("first"), pause, text("second"), finished()]), STREAM)
    await call.until(b'"content":"first"')
    assert b"second" not in call.body
    pause.go.set()
    assert b'"content":"second"' in (await call.done()).body


async def test_completions_are_served_as_well():
    client = ScriptedClient([started(), text("x"), finished()])
    call = await post(client, {"prompt": "def", "suffix": "end"}, path="/v1/completions")
    assert call.json()["choices"][0]["text"] == "x"
    assert client.requests[0].raw_prompt.suffix == "end"


async def test_the_body_may_come_in_pieces():
    client = ScriptedClient([started(), text("x"), finished()])
    call = begin(client)
    call.feed(b'{"messages":[{"role":"us', more=True)
    call.feed(b"", more=True)
    call.feed(b'er","content":"Hi"}]}')
    assert (await call.done()).status == 200
    assert client.requests[0].chat.messages[0].parts[0].text == "Hi"


async def test_the_profile_header_arrives():
    client = ScriptedClient([started(), finished()])
    await post(client, CHAT, headers={"X-Autotune-Profile": "fast"})
    assert client.requests[0].profile == wire.PROFILE_FAST


@BOTH
@pytest.mark.parametrize(
    "script",
    [
        [ModelNotFound('There is no model "x"; did you mean "pocket"?')],
        [queued(1), ModelNotFound('There is no model "x"; did you mean "pocket"?')],
        [queued(1), started(), ModelNotFound('There is no model "x"; did you mean "pocket"?')],
    ],
    ids=["at once", "queued", "started"],
)
async def test_a_failure_before_the_first_piece_has_its_status(body, script):
    call = await post(ScriptedClient(script), body)
    assert call.status == 404
    assert call.headers["content-type"] == "application/json"
    assert call.json()["error"] == {
        "message": 'There is no model "x"; did you mean "pocket"?',
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@BOTH
async def test_a_full_queue(body):
    call = await post(ScriptedClient([QueueFull("8 requests wait; try again soon.", retry_seconds=4)]), body)
    assert (call.status, call.headers["retry-after"]) == (429, "4")
    assert call.json()["error"]["code"] == "queue_full"


@BOTH
async def test_a_prompt_that_is_too_long(body):
    call = await post(ScriptedClient([ContextTooLong("The prompt has 9,000 tokens; shorten it.")]), body)
    assert (call.status, call.json()["error"]["code"]) == (400, "context_length_exceeded")


async def test_a_failure_after_the_first_piece_is_the_last_event():
    call = await post(ScriptedClient([started(), text("Hel"), DIED]), STREAM)
    assert call.status == 200
    assert call.complete
    assert call.events[-1]["error"]["message"] == DIED.message
    assert b"[DONE]" not in call.body
    assert [event["choices"][0]["delta"]["content"] for event in call.events[:-1]] == ["", "Hel"]


async def test_a_whole_answer_that_breaks_is_no_answer():
    call = await post(ScriptedClient([started(), text("Hel"), DIED]), CHAT)
    assert (call.status, call.json()["error"]["code"]) == (503, "engine_unreachable")


@BOTH
async def test_a_stream_that_ends_without_an_end_is_an_error(body):
    call = await post(ScriptedClient([started()]), body)
    assert (call.status, call.json()["error"]["code"]) == (500, "internal_error")


@BOTH
async def test_an_unexpected_exception_is_logged_and_not_told(body, caplog):
    call = await post(ScriptedClient([started(), KeyError("secret")]), body)
    assert call.status == 500
    assert b"secret" not in call.body
    assert "secret" in caplog.text


async def test_an_unexpected_exception_in_a_stream_ends_it(caplog):
    call = await post(ScriptedClient([started(), text("x"), KeyError("secret")]), STREAM)
    assert call.complete
    assert call.events[-1]["error"]["code"] == "internal_error"
    assert b"secret" not in call.body
    assert "secret" in caplog.text


async def test_who_waits_long_gets_headers_and_signs_of_life():
    pause = Pause()
    call = begin(ScriptedClient([queued(2), pause, started(), text("x"), finished()]), STREAM, pace=AT_ONCE)
    await call.until(b": queued position=2\n\n: queued position=2\n\n")
    assert call.status == 200
    pause.go.set()
    await call.done()
    assert call.events[-2]["choices"][0]["finish_reason"] == "stop"


async def test_a_long_prefill_has_signs_of_life():
    pause = Pause()
    call = begin(ScriptedClient([started(), pause, text("x"), finished()]), STREAM, pace=AT_ONCE)
    await call.until(b": working\n\n")
    pause.go.set()
    assert (await call.done()).events[-1] == "[DONE]"


async def test_a_failure_after_the_grace_is_an_event():
    pause = Pause()
    call = begin(ScriptedClient([queued(2), pause, DIED]), STREAM, pace=AT_ONCE)
    await call.until(b": queued")
    pause.go.set()
    await call.done()
    assert (call.status, call.events[-1]["error"]["code"]) == (200, "engine_unreachable")


async def test_a_queue_that_ends_within_the_grace_keeps_the_status():
    pause = Pause()
    call = begin(ScriptedClient([queued(2), pause, DIED]), STREAM)
    await reached(pause)
    pause.go.set()
    assert (await call.done()).status == 503


@BOTH
@pytest.mark.parametrize("before", [[], [queued(1)], [started()]], ids=["at once", "queued", "prefill"])
async def test_a_client_that_goes_before_the_first_piece_ends_the_call(body, before):
    pause = Pause()
    client = ScriptedClient([*before, pause, text("x"), finished()])
    call = begin(client, body)
    await reached(pause)
    call.hang_up()
    await call.done()
    assert client.ended.is_set()
    assert client.running == 0
    assert (call.status, call.body) == (0, b"")


async def test_a_client_that_goes_in_mid_stream_ends_the_call():
    pause = Pause()
    client = ScriptedClient([started(), text("Once"), pause, text("upon"), finished()])
    call = begin(client, STREAM)
    await reached(pause)
    call.hang_up()
    await call.done()
    assert client.running == 0
    assert b"upon" not in call.body


async def test_a_client_that_goes_while_the_whole_answer_grows_ends_the_call():
    pause = Pause()
    client = ScriptedClient([started(), text("Once"), pause, finished()])
    call = begin(client, CHAT)
    await reached(pause)
    call.hang_up()
    await call.done()
    assert client.running == 0
    assert call.status == 0


async def test_a_client_that_goes_before_its_body_came_asks_nothing():
    client = ScriptedClient([started(), finished()])
    call = begin(client)
    call.feed(b'{"messages":', more=True)
    call.hang_up()
    await call.done()
    assert (call.status, client.requests) == (0, [])


@BOTH
async def test_a_server_that_stops_says_so(body):
    pause = Pause()
    client = ScriptedClient([started(), pause, finished()])
    call = begin(client, body)
    await reached(pause)
    call.task.cancel()
    await call.done()
    assert client.running == 0
    assert (call.status, call.json()["error"]["code"]) == (503, "shutting_down")


async def test_a_server_that_stops_in_mid_stream_says_so():
    pause = Pause()
    client = ScriptedClient([started(), text("Once"), pause, finished()])
    call = begin(client, STREAM)
    await reached(pause)
    call.task.cancel()
    await call.done()
    assert client.running == 0
    assert call.complete
    assert call.events[-1]["error"]["code"] == "shutting_down"


async def test_an_announced_body_past_the_limit_is_refused_unread():
    client = ScriptedClient([started(), finished()])
    call = await begin(client, headers={"Content-Length": str(BODY_LIMIT_BYTES + 1)}).done()
    assert (call.status, call.json()["error"]["code"]) == (413, "request_too_large")
    assert client.requests == []


async def test_a_body_past_the_limit_is_refused_while_it_comes():
    client = ScriptedClient([started(), finished()])
    call = begin(client)
    for _ in range(BODY_LIMIT_BYTES // (8 * 1024**2)):
        call.feed(b" " * (8 * 1024**2), more=True)
    call.feed(b" ", more=True)  # no end ever comes
    assert (await call.done()).status == 413
    assert client.requests == []


@pytest.mark.parametrize("body", [b"{", b'{"messages":[]}', b"\xff", b'{"messages":[{"role":"user"}],"n":2}'])
async def test_a_bad_body_is_refused_without_asking(body, caplog):
    client = ScriptedClient([started(), finished()])
    call = await post(client, body)
    assert call.status == 400
    assert call.json()["error"]["type"] == "invalid_request_error"
    assert client.requests == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
@pytest.mark.parametrize("stream", [False, True])
async def test_an_event_of_a_newer_daemon_is_skipped(path, stream):
    unknown, unknown_part = wire.GenerateResponse(), wire.GenerateResponse(delta=wire.Delta(part_index=1))
    client = ScriptedClient([unknown, started(), unknown, text("x"), unknown_part, finished()])
    fields = {"prompt": "p"} if path == "/v1/completions" else CHAT
    call = await post(client, {**fields, "stream": stream}, path=path)
    assert (call.status, call.complete) == (200, True)
    last = call.events[-2] if stream else call.json()
    assert last["choices"][0]["finish_reason"] == "stop"
    assert b"tool_calls" not in call.body


@BOTH
@pytest.mark.parametrize(
    ("headers", "program"),
    [
        ({}, ""),
        ({"User-Agent": "OpenAI/Python 1.99.1"}, "OpenAI/Python"),
        ({"User-Agent": "curl/8.5.0"}, "curl/8.5.0"),
    ],
)
async def test_the_daemon_hears_which_program_asks(body, headers, program):
    client = ScriptedClient([started(), text("Hello"), finished()])
    await post(client, body, headers=headers)
    assert client.programs == [program]
