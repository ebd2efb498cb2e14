"""What a model makes of a server's answers, the strange ones included."""

import asyncio
import json

import pytest

from autotuned.core.chat import RawPrompt
from autotuned.core.errors import AutotuneError, ContextTooLong, EngineUnreachable, FieldInvalid, Unsupported
from autotuned.core.generation import (
    EngineFinished,
    FinishReason,
    PrefillProgress,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from tests.engines.scripted_server import HANG, HEAD, LAST_CHUNK, event, plain, scripted_server
from tests.engines.scripted_worker import ScriptedWorker, scripted_model
from tests.engines.shapes import SHAPE
from tests.suites.engine_case import WEATHER, answer, ask


@pytest.fixture
def worker(paths):
    return ScriptedWorker(paths.runtime / "server.sock")


@pytest.fixture
def model(worker, paths):
    return scripted_model(worker, paths.prefixes, SHAPE)


async def replay(model, worker, *chunks, request=None):
    """The events of a stream with these chunks."""
    script = [HEAD, *(event(json.dumps(each).encode()) for each in chunks), event(b"[DONE]"), LAST_CHUNK]
    async with scripted_server(worker.socket_path, script):
        return await answer(model, request or ask("Hello!"))


def delta(finish_reason=None, **fields):
    return {"choices": [{"finish_reason": finish_reason, "index": 0, "delta": fields}]}


def tool_call(index, arguments, **fields):
    function = {"arguments": arguments} | ({"name": fields.pop("name")} if "name" in fields else {})
    return delta(tool_calls=[{"index": index, "function": function, **fields}])


PROGRESS = delta(role="assistant", content=None) | {
    "prompt_progress": {"total": 9, "cache": 2, "processed": 2, "time_ms": 0}
}
USAGE = {
    "choices": [],
    "usage": {"completion_tokens": 4, "prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 2}},
    "timings": {"cache_n": 2, "prompt_n": 7, "prompt_ms": 250.0, "predicted_n": 4, "predicted_ms": 500.0},
}
FINISHED = EngineFinished(FinishReason.STOP, Usage(9, 2, 4), 0.25, 0.5)


async def test_reasoning_text_and_tool_calls_are_parts_in_order(model, worker):
    events = await replay(
        model,
        worker,
        PROGRESS,
        delta(role="assistant", content=None),
        delta(reasoning_content="They "),
        delta(reasoning_content="greet."),
        delta(content="Let me"),
        delta(content=" see."),
        tool_call(0, "{", id="a", type="function", name="get_weather"),
        tool_call(0, "}"),
        tool_call(1, "{}", id="b", type="function", name="get_time"),
        delta(content="Done."),
        delta(finish_reason="tool_calls"),
        USAGE,
    )
    assert events == [
        PrefillProgress(9, 2, 2),
        ReasoningDelta(0, "They "),
        ReasoningDelta(0, "greet."),
        TextDelta(1, "Let me"),
        TextDelta(1, " see."),
        ToolCallDelta(2, "a", "get_weather", "{"),
        ToolCallDelta(2, "", "", "}"),
        ToolCallDelta(3, "b", "get_time", "{}"),
        TextDelta(4, "Done."),
        EngineFinished(FinishReason.TOOL_CALLS, Usage(9, 2, 4), 0.25, 0.5),
    ]


async def test_times_that_the_server_does_not_tell_are_zero(model, worker):
    events = await replay(model, worker, PROGRESS, {"choices": [], "usage": USAGE["usage"]})
    assert events[-1] == EngineFinished(FinishReason.STOP, Usage(9, 2, 4), 0.0, 0.0)


async def test_nothing_is_read_after_the_end(model, worker):
    script = [HEAD, event(json.dumps(PROGRESS).encode()), event(json.dumps(USAGE).encode()), HANG]
    async with scripted_server(worker.socket_path, script):
        assert await answer(model, ask("Hello!")) == [PrefillProgress(9, 2, 2), FINISHED]


def problem(kind="server_error", code=500, message="Compute error.", **fields):
    return {"error": {"code": code, "message": message, "type": kind, **fields}}


OVERFLOW = problem("exceed_context_size_error", 400, "too long", n_prompt_tokens=3000, n_ctx=2048)
TEMPLATE = problem(
    "invalid_request_error", 400, "While executing ...\n   ^\nError: Jinja Exception: Roles must alternate!"
)
GRAMMAR = problem("invalid_request_error", 400, "Failed to initialize samplers: failed to parse grammar")
OTHER = problem("invalid_request_error", 400, "Field 'x':   wrong\n")


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (problem(), EngineUnreachable, r'worker of "pocket" failed \(Compute error\)'),
        (problem("unavailable_error", 503, "Loading model"), EngineUnreachable, "Loading model"),
        (OVERFLOW, ContextTooLong, r"3,000 tokens and the context holds 2,048"),
        (TEMPLATE, FieldInvalid, r"chat.messages: .* \(Roles must alternate!\)"),
        (GRAMMAR, FieldInvalid, "chat.tools: the engine cannot enforce this schema"),
        (OTHER, FieldInvalid, r"request: the engine refuses it \(Field 'x': wrong\)"),
        (problem("not_supported_error", 501, "no embeddings"), Unsupported, "no embeddings"),
    ],
    ids=["server", "loading", "overflow", "template", "grammar", "other", "unsupported"],
)
@pytest.mark.parametrize("in_mid_stream", [False, True], ids=["at once", "in mid-stream"])
async def test_an_error_of_the_server_has_its_meaning(model, worker, *, error, kind, words, in_mid_stream):
    body = json.dumps(error).encode()
    first = json.dumps(PROGRESS).encode()
    if in_mid_stream:
        script = [HEAD, event(first), event(body), LAST_CHUNK]
    else:
        script = [plain(error["error"]["code"], body)]
    async with scripted_server(worker.socket_path, script):
        with pytest.raises(kind, match=words) as refusal:
            await answer(model, ask("Hello!", tools=(WEATHER,)))
    assert type(refusal.value) is kind
    assert "\n" not in refusal.value.message


async def test_an_error_that_is_no_json_is_told_by_its_status(model, worker):
    async with scripted_server(worker.socket_path, [plain(500, b"<html>oops</html>")]):
        with pytest.raises(EngineUnreachable, match="oops"):
            await answer(model, ask("Hello!"))
        with pytest.raises(EngineUnreachable, match="oops"):
            await model.count_tokens("hello")


@pytest.mark.parametrize(
    "script",
    [
        [HEAD, event(b"{not json"), LAST_CHUNK],
        [HEAD, event(b'{"choices": 5}'), LAST_CHUNK],
        [HEAD, event(json.dumps(delta(finish_reason="whim")).encode()), LAST_CHUNK],
        [HEAD, event(b"[DONE]"), LAST_CHUNK],
        [HEAD, LAST_CHUNK],
        [HEAD, event(json.dumps(PROGRESS).encode())],
        [b"not http"],
        [],
    ],
    ids=[
        "no json",
        "wrong type",
        "unknown reason",
        "done at once",
        "empty",
        "broken off",
        "no http",
        "closed",
    ],
)
@pytest.mark.parametrize("is_raw", [False, True], ids=["chat", "raw"])
async def test_an_answer_without_an_end_is_an_error(model, worker, script, is_raw):
    request = ask("Hello!")
    if is_raw:
        request = type(request)(model="pocket", input=RawPrompt("Hello"))
    async with scripted_server(worker.socket_path, script):
        with pytest.raises(EngineUnreachable, match="send the request again"):
            await answer(model, request)
    assert worker.killed_because is None


async def test_a_worker_that_falls_silent_is_ended(model, worker):
    script = [HEAD, event(json.dumps(PROGRESS).encode()), HANG]
    async with scripted_server(worker.socket_path, script):
        with pytest.raises(EngineUnreachable, match="fell silent"):
            await answer(model, ask("Hello!"))
    assert worker.killed_because == "it fell silent and was ended"


async def test_a_count_that_cannot_be_read_is_an_error(model, worker):
    async with scripted_server(worker.socket_path, [plain(200, b'{"tokens": "many"}')]):
        with pytest.raises(EngineUnreachable, match="cannot be read"):
            await model.count_tokens("hello")
        with pytest.raises(EngineUnreachable, match="cannot be read"):
            await model.count_tokens(ask("Hello!").input)


async def test_a_raw_prompt_ends_for_the_reason_that_the_server_gives(model, worker):
    request = type(ask("x"))(model="pocket", input=RawPrompt("Hello"))
    for stop_type, reason in (("limit", "LENGTH"), ("eos", "STOP"), ("word", "STOP")):
        end = {
            "content": "",
            "stop": True,
            "stop_type": stop_type,
            "tokens_evaluated": 3,
            "tokens_predicted": 2,
        }
        events = await replay(model, worker, {"content": "a"}, {"content": "b"}, end, request=request)
        assert events[:2] == [TextDelta(0, "a"), TextDelta(0, "b")]
        assert events[2] == EngineFinished(FinishReason[reason], Usage(3, 0, 2), 0.0, 0.0)


async def test_many_errors_are_all_of_the_tree(model, worker):
    """Whatever a stream consists of, what is raised has a reason."""
    for junk in (b"null", b"[]", b'"x"', b"1", b'{"error": {}}', b'{"error": {"code": 200}}', b"\xff\xfe"):
        async with scripted_server(worker.socket_path, [HEAD, event(junk), LAST_CHUNK]):
            with pytest.raises(AutotuneError):
                async with asyncio.timeout(5):
                    await answer(model, ask("Hello!"))
