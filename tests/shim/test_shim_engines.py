"""Several engines behind the OpenAI API: names with an engine, models of several, counts that come late."""

from __future__ import annotations

import json
from typing import Any

import pytest
from autotune.v1 import inference_service_pb2 as wire
from autotune.v1 import model_pb2
from autotune_shim.exchange import WholeAnswer
from autotune_shim.openai.chat_answer import ChatStream, ChatWhole
from autotune_shim.openai.completion_answer import CompletionStream, CompletionWhole

from tests.shim.scripted import CHAT, ScriptedClient, finished, get, post, started, text

COUNTS = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}


def usage_of(kind: Any, *events: wire.GenerateResponse) -> Any:
    """The token counts of an answer, whole or streamed."""
    if issubclass(kind, WholeAnswer):
        answer = kind(profile=wire.PROFILE_UNSPECIFIED)
        for event in events:
            answer.event(event)
        return json.loads(answer.reply().body)["usage"]
    stream = kind(profile=wire.PROFILE_UNSPECIFIED, includes_usage=True)
    sent = b"".join(stream.event(event) for event in events).decode()
    return json.loads(sent.split("\n\n")[-3].removeprefix("data: "))["usage"]


@pytest.mark.parametrize("kind", [ChatWhole, ChatStream, CompletionWhole, CompletionStream])
def test_counts_that_come_with_the_end_are_the_usage(kind):
    late = started(counts=False)
    assert usage_of(kind, late, text("a"), finished()) == {
        **COUNTS,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


@pytest.mark.parametrize("kind", [ChatWhole, ChatStream, CompletionWhole, CompletionStream])
def test_an_unknown_count_of_cached_tokens_is_left_out(kind):
    unknown = finished(cached_tokens=0)
    assert usage_of(kind, started(counts=False), text("a"), unknown) == COUNTS
    assert usage_of(kind, started(), text("a"), unknown) == {
        **COUNTS,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


async def test_a_context_that_the_engine_does_not_tell_is_null():
    first = started(counts=False)
    first.started.plan.shape.assumed.append("context_tokens")
    call = await post(ScriptedClient([first, text("a"), finished()]), CHAT)
    assert (call.status, call.json()["autotune"]["context_tokens"]) == (200, None)


@pytest.mark.parametrize("name", ["ollama/qwen3:8b", "gpu/x", "hf.co/org/name:Q4_K_M"])
async def test_a_name_with_an_engine_passes_through(name):
    client = ScriptedClient([started(), text("a"), finished()])
    for path, body in (
        ("/v1/chat/completions", {**CHAT, "model": name}),
        ("/v1/completions", {"model": name, "prompt": "a"}),
    ):
        call = await post(client, body, path=path)
        assert (call.status, client.requests[-1].model, client.requests[-1].engine) == (200, name, "")
    call = await get(client, f"/v1/models/{name}")
    assert (call.status, call.json()["id"]) == (200, name)


async def test_a_model_of_several_engines_is_listed_once():
    places = [
        model_pb2.ModelPlace(engine="llamacpp", id="qwen3"),
        model_pb2.ModelPlace(engine="ollama", id="qwen3:latest"),
        model_pb2.ModelPlace(engine="lmstudio", id="qwen3", problem="It is damaged."),
    ]
    models = [
        model_pb2.Model(id="qwen3", engine="ollama", places=places, aliases=["qwen3:latest"]),
        model_pb2.Model(id="x", engine="gpu", places=[model_pb2.ModelPlace(engine="gpu", id="x")]),
        model_pb2.Model(id="broken", engine="llamacpp", places=places[:1], problem="It is damaged."),
    ]
    listed = (await get(ScriptedClient(models=models), "/v1/models")).json()["data"]
    assert [(model["id"], model["owned_by"]) for model in listed] == [
        ("qwen3", "ollama"),
        ("x", "gpu"),
        ("broken", "llamacpp"),
    ]
    assert [model["autotune"]["engines"] for model in listed] == [["ollama", "llamacpp"], ["gpu"], []]
    assert listed[0]["autotune"]["aliases"] == ["qwen3:latest"]
    assert listed[1]["autotune"]["fit"] is None
