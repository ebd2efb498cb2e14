"""Lines as Ollama streams them, and the events that they become."""

from __future__ import annotations

import json

import pytest

from autotuned.core.errors import ContextTooLong, FieldInvalid, ModelNotFound, Unsupported
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
from autotuned.engines.chat_events import UnreadableStream
from autotuned.engines.ollama.body import Call
from autotuned.engines.ollama.events import AnswerReader, ServerProblem
from autotuned.engines.ollama.refusals import refusal

DONE = {"done": True, "done_reason": "stop", "message": {"role": "assistant", "content": ""}}


def message(**fields):
    return {"model": "m", "done": False, "message": {"role": "assistant", "content": "", **fields}}


def read(*lines, top=None, **settings):
    reader = AnswerReader(top, **settings)
    events = [event for line in lines for event in reader.feed(json.dumps(line).encode())]
    return reader, events


def test_a_chat_thinks_answers_and_calls():
    call = {"id": "call_1", "function": {"name": "f", "arguments": {"b": 1, "a": "é"}}}
    other = {"function": {"name": "g", "arguments": {}}}
    _, events = read(
        message(thinking="Hm"),
        message(thinking="m."),
        message(content="Hi"),
        message(content="!"),
        message(tool_calls=[call, other]),
        DONE,
    )
    assert events[:4] == [
        ReasoningDelta(0, "Hm"),
        ReasoningDelta(0, "m."),
        TextDelta(1, "Hi"),
        TextDelta(1, "!"),
    ]
    first, second, finish = events[4:]
    assert first == ToolCallDelta(2, "call_1", "f", '{"b": 1, "a": "\\u00e9"}')
    assert isinstance(second, ToolCallDelta)
    assert (second.part_index, second.name, second.arguments_json_fragment) == (3, "g", "{}")
    assert second.id.startswith("call_")
    assert finish.finish_reason is FinishReason.TOOL_CALLS


def test_one_call_is_one_call():
    call = {"function": {"name": "f", "arguments": {}}}
    _, events = read(message(tool_calls=[call, call]), message(tool_calls=[call]), calls_one_tool=True)
    assert len(events) == 1


def test_the_end_has_the_servers_own_numbers():
    reader, events = read(
        DONE
        | {
            "done_reason": "length",
            "load_duration": 250_000_000,
            "prompt_eval_count": 20,
            "prompt_eval_cached_count": 5,
            "prompt_eval_duration": 1_500_000_000,
            "eval_count": 7,
            "eval_duration": 500_000_000,
        }
    )
    assert events == [EngineFinished(FinishReason.LENGTH, Usage(20, 5, 7), 1.5, 0.5)]
    assert reader.finished
    assert reader.load_seconds == 0.25


def test_a_raw_answer_is_text():
    _, events = read(
        {"response": "Hi", "done": False}, {"response": "!", "done": True, "done_reason": "stop"}
    )
    assert events[:2] == [TextDelta(0, "Hi"), TextDelta(0, "!")]
    assert events[2].finish_reason is FinishReason.STOP


def test_log_probabilities_have_their_bytes():
    half = {"token": "\ufffd", "logprob": -1.0, "bytes": [0xC3]}
    token = half | {"top_logprobs": [half, {"token": "b", "logprob": -2.0}]}
    _, events = read(message(content="\ufffd") | {"logprobs": [token]}, top=1)
    expected = TokenLogprob("\ufffd", b"\xc3", -1.0, (AlternativeLogprob("\ufffd", b"\xc3", -1.0),))
    assert events == [TextDelta(0, "\ufffd", (expected,))]
    _, events = read(message() | {"logprobs": [token]})
    assert events[0].text == ""
    assert events[0].logprobs[0].alternatives == ()


def test_an_error_in_the_stream_is_one():
    with pytest.raises(ServerProblem, match="out of memory"):
        read(message(content="Hi"), {"error": "out of memory"})


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"done": 1}', b'{"message": 3}', b"[" * 2000, b"\xff\xfe"])
def test_what_cannot_be_read_is_said(line):
    with pytest.raises(UnreadableStream):
        AnswerReader(None).feed(line)


# What errors mean.

INNER = {
    "error": {
        "code": 400,
        "message": "request (3014 tokens) exceeds the available context size (2048 tokens), try increasing it",
        "type": "exceed_context_size_error",
        "n_prompt_tokens": 3014,
        "n_ctx": 2048,
    }
}
RENDERED = (
    "the prompt is longer than the context length currently available to the model; shorten the prompt, "
    "adjust the context length in settings, or use a model with a longer context length"
)


def meaning(text, status=400, body=b'{"messages":[]}'):
    return refusal(text, status, Call("/api/chat", body), model="m:latest", context_tokens=2048)


@pytest.mark.parametrize(
    ("text", "tokens", "words"),
    [
        (json.dumps(INNER), 3014, "has 3,014 tokens"),
        (INNER["error"]["message"], 3014, "has 3,014 tokens"),
        (RENDERED, 2048, "at least 2,048"),
        ("the input length exceeds the context length", 2048, "at least 2,048"),
    ],
)
def test_a_prompt_that_is_too_long_is_counted_where_the_server_counts(text, tokens, words):
    error = meaning(text)
    assert isinstance(error, ContextTooLong)
    assert (error.prompt_tokens, error.context_tokens) == (tokens, 2048)
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "status", "kind", "words"),
    [
        ("model 'm' not found", 404, ModelNotFound, "m:latest"),
        ('"m" does not support thinking', 400, Unsupported, "thinking"),
        ("registry.ollama.ai/library/m:latest does not support tools", 400, Unsupported, "tools"),
        (
            '{"error":{"code":500,"message":"Jinja Exception: roles must alternate.","type":"x"}}',
            500,
            FieldInvalid,
            "chat.messages",
        ),
        (
            '{"error":{"code":400,"message":"JSON schema conversion failed:\\nbanana"}}',
            400,
            FieldInvalid,
            "chat.tools",
        ),
        ("top_logprobs must be between 0 and 20", 400, FieldInvalid, "top_logprobs"),
    ],
)
def test_what_the_client_can_mend_is_the_clients(text, status, kind, words):
    error = meaning(text, status)
    assert isinstance(error, kind)
    assert words in error.message
    assert "\n" not in error.message


def test_a_schema_is_the_response_formats_where_there_is_one():
    error = meaning("JSON schema conversion failed", body=b'{"format":{}}')
    assert isinstance(error, FieldInvalid)
    assert error.field == "response_format.schema_json"


@pytest.mark.parametrize("status", [500, 503])
def test_what_the_server_did_is_nobodys_fault(status):
    assert meaning("model runner has unexpectedly stopped", status) is None
