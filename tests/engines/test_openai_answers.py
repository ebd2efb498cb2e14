"""What is made of the answers of servers, each with habits of its own."""

import json

import pytest

from autotuned.core.chat import ImagePart, Message, RawPrompt, Role, TextPart
from autotuned.core.errors import (
    AutotuneError,
    ContextTooLong,
    EngineUnreachable,
    FieldInvalid,
    ModelNotFound,
    Unsupported,
)
from autotuned.core.generation import (
    AlternativeLogprob,
    EngineFinished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from tests.engines.openai_case import HandClock, engine_of
from tests.engines.scripted_server import HANG, HEAD, LAST_CHUNK, chunk, event
from tests.engines.scripted_upstream import DONE, USAGE, chunk_of, error, scripted_upstream
from tests.engines.shapes import SHAPE
from tests.suites.engine_case import WEATHER, answer, ask, finish_of, text_of

HELLO = ask("Hello!")
RAW = type(HELLO)(model="m", input=RawPrompt("Hello"))
STOP = chunk_of(finish_reason="stop")


@pytest.fixture
async def server():
    async with scripted_upstream() as server:
        yield server


@pytest.fixture
async def model(server):
    engine = engine_of(server.url, clock=HandClock(), silence_seconds=0.3)
    (entry,) = await engine.models()
    yield await engine.load(entry, SHAPE, lambda _: None)
    await engine.close()


async def replay(model, server, *pieces, request=HELLO):
    server.script = [HEAD, *pieces]
    return await answer(model, request)


async def test_an_answer_ends_with_its_counts(model, server):
    events = await replay(
        model, server, chunk_of(role="assistant", content=None), chunk_of(content="Hi"), STOP, USAGE, HANG
    )
    assert events == [TextDelta(0, "Hi"), EngineFinished(FinishReason.STOP, Usage(9, 0, 2), 0.0, 0.0)]


@pytest.mark.parametrize(
    ("pieces", "usage"),
    [
        ([STOP, DONE, LAST_CHUNK], Usage(0, 0, 0)),
        ([STOP, LAST_CHUNK], Usage(0, 0, 0)),
        ([STOP], Usage(0, 0, 0)),
        ([DONE, LAST_CHUNK], Usage(0, 0, 0)),
        ([STOP, USAGE], Usage(9, 0, 2)),
        ([STOP, chunk(b"data: [DONE]"), LAST_CHUNK], Usage(0, 0, 0)),
        (
            [event(b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":3}}}'), DONE],
            Usage(5, 3, 1),
        ),
        (
            [event(b'{"choices":[{"index":0,"delta":{"content":""}}],"usage":{"prompt_tokens":5,"completion_tokens":1,"prompt_tokens_details":null}}'), STOP, DONE],
            Usage(5, 0, 1),
        ),
        ([event(b'{"choices":[],"usage":null}'), STOP, event(b'{"choices":[],"usage":{"prompt_tokens":null}}')], Usage(0, 0, 0)),
    ],
    ids=["no usage", "no mark", "broken after the end", "no reason", "no mark but usage", "no last line", "usage in the last", "usage in each", "nulls"],
)  # fmt: skip
async def test_the_end_of_an_answer_has_many_forms(model, server, pieces, usage):
    events = await replay(model, server, chunk_of(content="Hi"), *pieces)
    assert events == [TextDelta(0, "Hi"), EngineFinished(FinishReason.STOP, usage, 0.0, 0.0)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("stop", FinishReason.STOP),
        ("eos", FinishReason.STOP),
        ("content_filter", FinishReason.STOP),
        ("length", FinishReason.LENGTH),
        ("tool_calls", FinishReason.TOOL_CALLS),
        ("function_call", FinishReason.TOOL_CALLS),
    ],
)
async def test_a_reason_has_many_names(model, server, text, reason):
    events = await replay(model, server, chunk_of(content="Hi", finish_reason=text), DONE)
    assert finish_of(events).finish_reason is reason


async def test_line_ends_and_comments_do_not_matter(model, server):
    lines = b': keepalive 3/9\r\n\r\ndata: {"choices":[{"delta":{"content":"Hi"}}]}\r\n\r\n: x\r\n\r\n'
    events = await replay(model, server, *(chunk(lines[at : at + 1]) for at in range(len(lines))), STOP, DONE)
    assert text_of(events) == "Hi"


async def test_thoughts_have_two_names_and_come_once(model, server):
    events = await replay(
        model,
        server,
        chunk_of(reasoning="They "),
        chunk_of(reasoning_content="greet", reasoning="greet"),
        chunk_of(reasoning_content="."),
        chunk_of(content="Hi"),
        STOP,
        DONE,
    )
    assert events[:-1] == [
        ReasoningDelta(0, "They "),
        ReasoningDelta(0, "greet"),
        ReasoningDelta(0, "."),
        TextDelta(1, "Hi"),
    ]


def call(arguments, name=None, **fields):
    return {"function": {"arguments": arguments} | ({"name": name} if name else {}), **fields}


@pytest.mark.parametrize(
    "deltas",
    [
        [[call('{"a"', "f", index=0, id="x")], [call(":1}", index=0)], [call("{}", "g", index=1, id="y")]],
        [[call('{"a":1}', "f", index=0, id="x"), call("{}", "g", index=1, id="y")]],
        [[call('{"a":1}', "f", id="x")], [call("{}", "g", id="y")]],
        [[call('{"a":1}', "f", index=0, id="x")], [call("{}", "g", index=0, id="y")]],
        [[call('{"a"', "f", index=0, id="x")], [call(":1}", "f", index=0, id="x")], [call("{}", "g", index=1, id="y")]],
        [[call('{"a"', "f", id="x")], [call(":1}")], [call("{}", "g", id="y")]],
        [[call({"a": 1}, "f", index=0, id="x"), call({}, "g", index=1, id="y")]],
        [[call(None, "f", index=0, id="x")], [call('{"a":1}', index=0)], [call("{}", "g", index=1, id="y")]],
    ],
    ids=["fragments", "whole", "no index", "one index", "repeated", "no index, fragments", "objects", "null first"],
)  # fmt: skip
async def test_tool_calls_come_in_many_forms(model, server, deltas):
    events = await replay(
        model,
        server,
        *(chunk_of(tool_calls=calls) for calls in deltas),
        chunk_of(finish_reason="tool_calls"),
        DONE,
        request=ask("Hello!", tools=(WEATHER,)),
    )
    found = {}
    for each in (each for each in events if isinstance(each, ToolCallDelta)):
        key = found.setdefault(each.part_index, [each.id, each.name, ""])
        key[2] += each.arguments_json_fragment
    (first, second) = found.values()
    assert (first[:2], json.loads(first[2])) == (["x", "f"], {"a": 1})
    assert (second[:2], json.loads(second[2] or "{}")) == (["y", "g"], {})


async def test_calls_without_ids_get_some(model, server):
    deltas = [[call("{}", "f")], [call("{}", "g")]]
    events = await replay(model, server, *(chunk_of(tool_calls=each) for each in deltas), STOP, DONE)
    calls = [each for each in events if isinstance(each, ToolCallDelta)]
    assert [each.name for each in calls] == ["f", "g"]
    assert len({each.id for each in calls} - {""}) == 2
    # A server that was told which tool to call says that it stopped.
    assert finish_of(events).finish_reason is FinishReason.TOOL_CALLS


async def test_log_probabilities_need_no_bytes(model, server):
    logprobs = {"content": [{"token": "é", "logprob": -0.5, "top_logprobs": [{"token": "e", "logprob": -1}]}]}
    choice = {"choices": [{"delta": {"content": "é"}, "logprobs": logprobs}]}
    events = await replay(
        model,
        server,
        event(json.dumps(choice).encode()),
        STOP,
        DONE,
        request=ask("Hello!", top_logprobs_count=1),
    )
    token = TokenLogprob("é", "é".encode(), -0.5, (AlternativeLogprob("e", b"e", -1.0),))
    assert events[0] == TextDelta(0, "é", (token,))


async def test_a_raw_prompt_is_answered_in_the_old_form(model, server):
    first = {
        "choices": [
            {
                "text": "a",
                "logprobs": {
                    "tokens": ["a"],
                    "token_logprobs": [-0.5],
                    "top_logprobs": [{"a": -0.5, "b": -1.5}],
                },
            }
        ]
    }
    last = {"choices": [{"text": "", "finish_reason": "length"}], "usage": None}
    request = type(RAW)(model="m", input=RawPrompt("Hello", "end"), top_logprobs_count=1)
    events = await replay(
        model,
        server,
        *(event(json.dumps(each).encode()) for each in (first, last)),
        USAGE,
        DONE,
        request=request,
    )
    token = TokenLogprob("a", b"a", -0.5, (AlternativeLogprob("a", b"a", -0.5),))
    assert events == [TextDelta(0, "a", (token,)), EngineFinished(FinishReason.LENGTH, Usage(9, 0, 2), 0, 0)]
    assert server.heads[-1].startswith(b"POST /v1/completions ")
    assert (server.bodies[-1]["prompt"], server.bodies[-1]["suffix"]) == ("Hello", "end")


@pytest.mark.parametrize(
    "pieces",
    [
        [event(b"{not json")],
        [event(b'{"choices": 5}')],
        [event(b'{"choices":[{"delta":{"content":"Hi"},"finish_reason":"whim"}]}'), DONE],
        [DONE],
        [LAST_CHUNK],
        [event(b"null")],
        [b"zz\r\n"],
    ],
    ids=["no json", "wrong type", "unknown reason", "done at once", "empty", "null", "bad chunk"],
)
@pytest.mark.parametrize("request_", [HELLO, RAW], ids=["chat", "raw"])
async def test_an_answer_that_is_none_is_an_error(model, server, pieces, request_):
    with pytest.raises(EngineUnreachable, match="send the request again"):
        await replay(model, server, *pieces, request=request_)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"error": {"message": "Compute error", "code": 500}}, "Compute error"),
        ({"error": "out of memory"}, "out of memory"),
        ({"error": {"message": "gone", "type": "server_error", "code": None}}, "gone"),
        ({"object": "error", "message": "EngineCore died", "code": 500}, "EngineCore died"),
        ({"error": {"message": {"deep": 1}}}, "deep"),
    ],
)
@pytest.mark.parametrize("request_", [HELLO, RAW], ids=["chat", "raw"])
async def test_an_error_in_mid_stream_is_told(model, server, body, words, request_):
    with pytest.raises(EngineUnreachable, match=words):
        await replay(model, server, event(json.dumps(body).encode()), DONE, request=request_)


OVERFLOWS = [
    ("This model's maximum context length is 4096 tokens. However, you requested 5600 tokens (5100 in the messages, 500 in the completion). Please reduce the length.", 5100),
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens. Please reduce.", 5000),
    ("This model's maximum context length is 4096 tokens. However, your request has 5001 input tokens.", 5001),
    ("This model's maximum context length is 4096 tokens. However, your messages resulted in 5002 tokens.", 5002),
    ("You passed 5003 input tokens and requested 1 output tokens. However, the model's context length is only 4096 tokens", 5003),
    ("Requested token count exceeds the model's maximum context length of 4096 tokens. You requested a total of 5604 tokens: 5004 tokens from the input messages and 600 tokens for the completion.", 5004),
    ("The input (5005 tokens) is longer than the model's context length (4096 tokens).", 5005),
    ("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5006 `inputs` tokens and 20 `max_new_tokens`", 5006),
    ("The prompt has 5,007 tokens and the context holds 4,096; shorten it.", 5007),
]  # fmt: skip


@pytest.mark.parametrize(("message", "prompt_tokens"), OVERFLOWS)
async def test_a_prompt_that_is_too_long_has_its_numbers(model, server, message, prompt_tokens):
    for body in ({"error": {"message": message, "code": 400}}, {"object": "error", "message": message}):
        server.script = [error(400, body)]
        with pytest.raises(ContextTooLong) as refusal:
            await answer(model, HELLO)
        assert (refusal.value.prompt_tokens, refusal.value.context_tokens) == (prompt_tokens, 4096)


async def test_a_reply_that_does_not_fit_is_the_limits_fault(model, server):
    message = "'max_tokens' is too large: 5000. This model's maximum context length is 4096 tokens and your request has 12 input tokens"
    server.script = [error(400, {"error": {"message": message}})]
    with pytest.raises(FieldInvalid, match=r"max_reply_tokens: .* at most 4,084"):
        await answer(model, HELLO)


CASES = [
    (400, {"error": {"message": "", "type": "invalid_request_error", "code": "context_length_exceeded"}}, ContextTooLong, "at least"),
    (404, {"error": {"message": "no", "code": "model_not_found"}}, ModelNotFound, "m"),
    (400, {"error": {"message": "The requested model 'm' is not supported by any provider", "code": "model_not_supported"}}, ModelNotFound, "m"),
    (404, {"detail": "Not Found"}, EngineUnreachable, "dialect"),
    (404, b"Not Found", EngineUnreachable, "dialect"),
    (404, {"error": "This model has no chat template"}, FieldInvalid, "no chat template"),
    (400, {"error": "temperature must be at least 0"}, FieldInvalid, "temperature"),
    (422, {"detail": [{"loc": ["body"], "msg": "extra fields"}]}, FieldInvalid, "extra fields"),
    (400, {"error": {"message": "Grammar error: bad schema", "code": 400}}, FieldInvalid, "chat.tools"),
    (501, {"error": {"message": "not here"}}, Unsupported, "not here"),
    (500, {"error": {"message": "boom", "code": "internal"}}, EngineUnreachable, "500, boom"),
    (500, b"", EngineUnreachable, "without a word"),
    (302, b"", EngineUnreachable, "302"),
    (500, b"<html><body><h1>Internal  error</h1></body></html>", EngineUnreachable, "500, Internal error"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "kind", "words"), CASES)
async def test_an_error_has_its_meaning(model, server, *, status, body, kind, words):
    server.script = [error(status, body)]
    with pytest.raises(AutotuneError, match=words) as refusal:
        await answer(model, ask("Hello!", tools=(WEATHER,)))
    assert type(refusal.value) is kind
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "image input is not supported - hint: you may need to provide the mmproj"),
        (400, "m is not a multimodal model"),
        (404, "Only 'text' content type is supported."),
    ],
)
async def test_images_that_a_server_does_not_read_are_refused(model, server, status, message):
    server.script = [error(status, {"error": {"message": message}})]
    picture = Message(Role.USER, (TextPart("What is this?"), ImagePart(b"\x89PNG", "image/png")))
    with pytest.raises(Unsupported, match="Images are not supported"):
        await answer(model, ask(picture))


async def test_a_prompt_is_computed_ahead_where_it_is_kept(model, server):
    assert [event async for event in model.prefill(ask("Hello!", max_reply_tokens=9), "talk")] == []
    assert server.bodies[-1]["max_tokens"] == 1
    server.models = [{"id": "m", "owned_by": "somebody"}]
    engine = engine_of(server.url)
    (entry,) = await engine.models()
    assert not engine.capabilities().prefills
    other = await engine.load(entry, SHAPE, lambda _: None)
    with pytest.raises(Unsupported, match="keep prompts"):
        await anext(other.prefill(HELLO, "talk"))
    assert len(server.bodies) == 1
    await engine.close()


async def test_an_old_server_ends_its_answers_by_closing(model, server):
    head = b"HTTP/1.0 200 OK\r\nServer: BaseHTTP/0.6 Python/3.11.7\r\nContent-type: text/event-stream\r\n\r\n"
    lines = b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n'
    end = b'data: {"choices":[{"delta":{"role":"assistant"},"finish_reason":"stop"}]}\n\n'
    server.script = [head, lines, end]
    assert text_of(await answer(model, HELLO)) == "Hi"
    server.script = [b'HTTP/1.0 400 Bad Request\r\n\r\n{"error": "bad thing"}']
    with pytest.raises(FieldInvalid, match="bad thing"):
        await answer(model, HELLO)
    server.script = [head, lines]
    with pytest.raises(EngineUnreachable, match="too early"):
        await answer(model, HELLO)
