from __future__ import annotations

import json
from typing import Any

import pytest
from autotune.v1 import chat_pb2
from autotune.v1 import inference_service_pb2 as wire
from autotune_shim.exchange import RequestInvalid
from autotune_shim.openai.completion_request import read_completion_request


def read(**fields: Any) -> wire.GenerateRequest:
    return read_completion_request(json.dumps(fields).encode(), {})[1]


def test_prompt_and_suffix_meet_no_template():
    request = read(prompt="def f(", suffix="return x", temperature=0, max_tokens=4, stop="\n")
    assert request.raw_prompt == chat_pb2.RawPrompt(prompt="def f(", suffix="return x")
    assert request.sampling.HasField("temperature")
    assert (request.max_reply_tokens, list(request.stop_sequences)) == (4, ["\n"])


def test_a_list_of_one_prompt_is_that_prompt():
    assert read(prompt=["x"]).raw_prompt.prompt == "x"


def test_logprobs_is_a_count():
    assert read(prompt="x", logprobs=5).top_logprobs_count == 5
    assert read(prompt="x", logprobs=0).HasField("top_logprobs_count")
    assert not read(prompt="x").HasField("top_logprobs_count")


def test_echo_false_and_best_of_one_are_harmless():
    assert read(prompt="x", echo=False, best_of=1, n=1, user="u") == read(prompt="x")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ["x", "y"]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "echo": True}, "echo"),
        ({"prompt": "x", "best_of": 2}, "best_of"),
        ({"prompt": "x", "n": 3}, "n"),
        ({"prompt": "x", "messages": []}, "messages"),
        ({"prompt": "x", "logprobs": True}, "logprobs"),
    ],
)
def test_what_is_wrong_is_named(fields, field):
    with pytest.raises(RequestInvalid) as caught:
        read(**fields)
    assert caught.value.field == field
    assert caught.value.status == 400
