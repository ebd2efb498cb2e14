from __future__ import annotations

import json
from typing import Any

from autotune.errors import Internal
from autotune.v1 import inference_service_pb2 as wire
from autotune_shim.openai.completion_answer import CompletionStream, CompletionWhole
from hypothesis import given
from hypothesis import strategies as st

from tests.shim.scripted import finished, started, text, token

TOKENS = [token("ab", -0.5, x=-1.0), token("c", -0.25)]


def whole(*events: wire.GenerateResponse) -> Any:
    answer = CompletionWhole(profile=wire.PROFILE_UNSPECIFIED)
    for event in events:
        answer.event(event)
    assert answer.complete
    return json.loads(answer.reply().body)


def stream(*events: wire.GenerateResponse, includes_usage: bool = False) -> list[Any]:
    answer = CompletionStream(includes_usage=includes_usage, profile=wire.PROFILE_UNSPECIFIED)
    sent = b"".join(answer.event(event) for event in events).decode()
    assert answer.complete
    assert sent.endswith("\n\ndata: [DONE]\n\n")
    return [json.loads(part.removeprefix("data: ")) for part in sent.split("\n\n")[:-2]]


def test_a_whole_completion():
    answer = whole(started(), text("return "), text("x"), finished(wire.FINISH_REASON_LENGTH))
    assert answer["id"] == "cmpl-r1"
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [
        {"index": 0, "text": "return x", "logprobs": None, "finish_reason": "length"}
    ]
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 4}
    assert answer["autotune"]["context_tokens"] == 2048


def test_the_logprobs_of_a_completion_are_columns():
    answer = whole(started(), text("ab", logprobs=TOKENS[:1]), text("c", logprobs=TOKENS[1:]), finished())
    assert answer["choices"][0]["logprobs"] == {
        "tokens": ["ab", "c"],
        "token_logprobs": [-0.5, -0.25],
        "top_logprobs": [{"x": -1.0}, {}],
        "text_offset": [0, 2],
    }


def test_streamed_logprobs_go_on_counting():
    chunks = stream(started(), text("ab", logprobs=TOKENS[:1]), text("c", logprobs=TOKENS[1:]), finished())
    assert [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks[:2]] == [[0], [2]]


def test_a_streamed_completion():
    chunks = stream(started(), text("a"), text(""), text("b"), finished(), includes_usage=True)
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == ["a", "b", ""]
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 3
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 3
    assert chunks[-1]["autotune"]["request_id"] == "r1"


def test_without_usage_the_numbers_come_with_the_end():
    assert stream(started(), text("a"), finished())[-1]["autotune"]["request_id"] == "r1"


def test_failure_and_signs_of_life():
    answer = CompletionStream(includes_usage=False, profile=wire.PROFILE_UNSPECIFIED)
    assert b'"code":"internal_error"' in answer.failure(Internal("It broke; see the log."))
    assert answer.waiting(1) == b": queued position=1\n\n"


@given(st.lists(st.text(min_size=1), min_size=1))
def test_any_text_survives_the_stream(pieces):
    chunks = stream(started(), *map(text, pieces), finished())
    assert [chunk["choices"][0]["text"] for chunk in chunks[:-1]] == pieces
