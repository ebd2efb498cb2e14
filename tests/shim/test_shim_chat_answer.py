from __future__ import annotations

import json
from typing import Any

import pytest
from autotune.errors import EngineUnreachable
from autotune.v1 import inference_service_pb2 as wire
from autotune_shim.openai.chat_answer import ChatStream, ChatWhole
from hypothesis import given
from hypothesis import strategies as st

from tests.shim.scripted import call, finished, reasoning, started, text, token

AUTOTUNE = {
    "request_id": "r1",
    "engine": "llamacpp",
    "profile": None,
    "ttft_ms": 12.5,
    "queue_ms": 0.0,
    "load_ms": 0.0,
    "total_ms": 1000.0,
    "tokens_per_second": 123.46,
    "prefill_tokens_per_second": 0.0,
    "context_tokens": 2048,
    "plan": {
        "action": "reuse",
        "kv_cache_bytes": 1024,
        "memory_bytes": 4096,
        "reasons": [{"code": "bucket", "text": "2,048 tokens hold prompt and reply."}],
    },
}
USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 3,
    "total_tokens": 12,
    "prompt_tokens_details": {"cached_tokens": 4},
}


def whole(*events: wire.GenerateResponse, profile: wire.Profile = wire.PROFILE_UNSPECIFIED) -> Any:
    answer = ChatWhole(profile=profile)
    for event in events:
        assert not answer.complete
        answer.event(event)
    assert answer.complete
    reply = answer.reply()
    assert reply.status == 200
    return json.loads(reply.body)


def stream(*events: wire.GenerateResponse, includes_usage: bool = False) -> list[Any]:
    answer = ChatStream(includes_usage=includes_usage, profile=wire.PROFILE_FAST)
    sent = b"".join(answer.event(event) for event in events)
    assert answer.complete
    parts = sent.decode().split("\n\n")
    assert parts[-2:] == ["data: [DONE]", ""]
    assert all(part.startswith("data: ") and "\n" not in part for part in parts[:-1])
    return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]


def deltas(chunks: list[Any]) -> list[Any]:
    return [chunk["choices"][0]["delta"] for chunk in chunks if chunk["choices"]]


def test_a_whole_answer():
    answer = whole(started(), text("Hello"), text(" there."), finished())
    assert answer.pop("created") > 1_700_000_000
    assert answer.pop("system_fingerprint").startswith("fp_llamacpp_")
    assert answer == {
        "id": "chatcmpl-r1",
        "object": "chat.completion",
        "model": "pocket",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there.", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": USAGE,
        "autotune": AUTOTUNE,
    }


def test_an_empty_answer_is_an_empty_text():
    assert whole(started(), finished())["choices"][0]["message"]["content"] == ""


def test_a_named_profile_is_told():
    assert whole(started(), finished(), profile=wire.PROFILE_QUALITY)["autotune"]["profile"] == "quality"


def test_a_whole_answer_with_reasoning_and_calls():
    answer = whole(
        started(),
        reasoning("They want"),
        reasoning(" a sum."),
        call(1, "c1", "add", '{"a": 1'),
        call(2, "c2", "get_time", "{}"),
        call(1, arguments=', "b": 2}'),
        finished(wire.FINISH_REASON_TOOL_CALLS),
    )["choices"][0]
    assert answer["finish_reason"] == "tool_calls"
    assert answer["message"] == {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "They want a sum.",
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}},
            {"id": "c2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}},
        ],
    }


def test_a_stream_opens_with_the_role_and_ends_with_the_numbers():
    chunks = stream(started(), text("Hello"), text(" there."), finished(wire.FINISH_REASON_LENGTH))
    assert deltas(chunks) == [
        {"role": "assistant", "content": ""},
        {"content": "Hello"},
        {"content": " there."},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "length"]
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-r1"}
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {"pocket"}
    assert len({chunk["created"] for chunk in chunks}) == 1
    assert "usage" not in chunks[0]
    assert chunks[-1]["autotune"] == {**AUTOTUNE, "profile": "fast"}


def test_nothing_is_sent_before_the_first_piece():
    answer = ChatStream(includes_usage=False, profile=wire.PROFILE_UNSPECIFIED)
    assert answer.event(started()) == b""
    assert answer.event(text("")) == b""
    assert b'"role"' in answer.event(text("x"))


def test_a_stream_without_any_piece_still_has_a_role():
    assert deltas(stream(started(), finished())) == [{"role": "assistant", "content": ""}, {}]


def test_usage_comes_in_a_chunk_of_its_own_when_asked_for():
    chunks = stream(started(), text("x"), finished(), includes_usage=True)
    assert [chunk["usage"] for chunk in chunks] == [None, None, None, USAGE]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["autotune"]["ttft_ms"] == 12.5


def test_streamed_calls_carry_id_and_name_once():
    chunks = stream(
        started(),
        reasoning("Hm."),
        call(1, "c1", "add"),
        call(1, arguments='{"a": 1'),
        call(1, arguments="}"),
        call(3, "c2", "get_time", "{}"),
        finished(wire.FINISH_REASON_TOOL_CALLS),
    )
    assert deltas(chunks)[1:] == [
        {"reasoning_content": "Hm."},
        {
            "tool_calls": [
                {"index": 0, "id": "c1", "type": "function", "function": {"name": "add", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
        {
            "tool_calls": [
                {
                    "index": 1,
                    "id": "c2",
                    "type": "function",
                    "function": {"name": "get_time", "arguments": "{}"},
                }
            ]
        },
        {},
    ]


LOGPROBS = [token("Hé", -0.5, Ha=-1.5), token("!", float("-inf"))]
WRITTEN = [
    {
        "token": "Hé",
        "logprob": -0.5,
        "bytes": [72, 195, 169],
        "top_logprobs": [{"token": "Ha", "logprob": -1.5, "bytes": [72, 97]}],
    },
    {"token": "!", "logprob": -9999.0, "bytes": [33], "top_logprobs": []},
]


def test_logprobs():
    choice = whole(
        started(), text("Hé", logprobs=LOGPROBS[:1]), text("!", logprobs=LOGPROBS[1:]), finished()
    )["choices"][0]
    assert choice["logprobs"] == {"content": WRITTEN}
    chunk = stream(started(), text("Hé!", logprobs=LOGPROBS), finished())[1]["choices"][0]
    assert (chunk["delta"], chunk["logprobs"]) == ({"content": "Hé!"}, {"content": WRITTEN})


def test_logprobs_of_a_token_that_is_no_text_yet_are_kept():
    chunk = stream(started(), text("", logprobs=LOGPROBS[1:]), finished())[1]["choices"][0]
    assert chunk["logprobs"] == {"content": WRITTEN[1:]}


def test_a_failure_is_the_last_event_and_no_text():
    answer = ChatStream(includes_usage=False, profile=wire.PROFILE_UNSPECIFIED)
    sent = answer.failure(EngineUnreachable("The engine died; send the request again."))
    assert json.loads(sent.removeprefix(b"data: "))["error"] == {
        "message": "The engine died; send the request again.",
        "type": "server_error",
        "param": None,
        "code": "engine_unreachable",
    }
    assert sent.endswith(b"\n\n")


@pytest.mark.parametrize(("position", "comment"), [(2, b": queued position=2\n\n"), (0, b": working\n\n")])
def test_signs_of_life_are_comments(position, comment):
    assert ChatStream(includes_usage=False, profile=wire.PROFILE_UNSPECIFIED).waiting(position) == comment


@given(st.lists(st.text(min_size=1), min_size=1), st.booleans())
def test_any_text_survives_the_stream(pieces, includes_usage):
    chunks = stream(started(), *map(text, pieces), finished(), includes_usage=includes_usage)
    assert [delta["content"] for delta in deltas(chunks)[1:-1]] == pieces
    assert whole(started(), *map(text, pieces), finished())["choices"][0]["message"]["content"] == "".join(
        pieces
    )


@given(st.text(min_size=1), st.text(min_size=1))
def test_names_cannot_break_the_frame_of_a_chunk(name, piece):
    event = started(request_id=name)
    event.started.model = f'{name}"content":""'
    chunks = stream(event, text(piece), finished())
    assert deltas(chunks)[1] == {"content": piece}
    assert chunks[1]["model"] == f'{name}"content":""'
