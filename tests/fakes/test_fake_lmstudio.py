"""The double of LM Studio is as strict as the original, and its model is real."""

from __future__ import annotations

import json

import psutil
import pytest

from tests.fakes.lmstudio.asking import (
    ANSWER,
    ASK_WEATHER,
    CHAT,
    LONG,
    QUESTION,
    STREAM,
    WEATHER,
    chunks_of,
    instances,
    load,
    text_of,
    unload_all,
    with_pocket,
)
from tests.fakes.lmstudio.start import running_lmstudio


@pytest.fixture(scope="module")
async def running():
    async with running_lmstudio(models=("pocket", "second"), context_tokens=512) as server:
        yield server


@pytest.fixture
async def server(running):
    """The server with nothing loaded."""
    await unload_all(running)
    return running


@pytest.fixture
async def loaded(running):
    """The server with the pocket model loaded, and nothing else."""
    return await with_pocket(running)


async def test_a_model_on_disk_is_described(server):
    [pocket, second] = (await server.client.get("/api/v1/models")).json()["models"]
    assert second["key"] == "second"
    assert pocket == {
        "type": "llm",
        "publisher": "autotune",
        "key": "pocket",
        "display_name": "Pocket",
        "architecture": "llama",
        "quantization": {"name": "Q8_0", "bits_per_weight": 8},
        "size_bytes": 2316000,
        "params_string": "2M",
        "loaded_instances": [],
        "max_context_length": 8192,
        "format": "gguf",
        "capabilities": {"vision": False, "trained_for_tool_use": True},
        "description": None,
    }


async def test_a_loaded_model_is_loaded_a_second_time(server):
    first = await load(server, context_length=1024, eval_batch_size=256, echo_load_config=True)
    assert (first["type"], first["instance_id"], first["status"]) == ("llm", "pocket", "loaded")
    assert first["load_time_seconds"] > 0
    assert first["load_config"] == {
        "context_length": 1024,
        "eval_batch_size": 256,
        "flash_attention": True,
        "offload_kv_cache_to_gpu": True,
        "parallel": 4,
    }
    second = await load(server)
    assert second["instance_id"] == "pocket:2"
    assert "load_config" not in second
    [pocket, _] = (await server.client.get("/api/v1/models")).json()["models"]
    shown = {instance["id"]: instance["config"]["context_length"] for instance in pocket["loaded_instances"]}
    assert shown == {"pocket": 1024, "pocket:2": 512}

    answer = await server.client.post("/api/v1/models/unload", json={"instance_id": "pocket"})
    assert answer.json() == {"instance_id": "pocket"}
    assert await instances(server) == ["pocket:2"]


async def test_an_instance_is_a_process_that_its_unload_ends(server):
    await load(server)
    [instance] = (await server.state())["instances"]
    assert psutil.pid_exists(instance["process_id"])
    await unload_all(server)
    assert not psutil.pid_exists(instance["process_id"])


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({}, 400, {"code": "missing_required_parameter", "param": "model"}),
        ({"model": "pocket", "ttl": 60}, 400, {"message": "Unrecognized key(s) in object: 'ttl'"}),
        ({"model": "pocket", "parallel": 2}, 400, {"code": "unrecognized_keys"}),
        ({"model": "pocket", "context_length": "512"}, 400, {"param": "context_length"}),
        ({"model": "pocket", "context_length": True}, 400, {"param": "context_length"}),
        ({"model": "pocket", "context_length": 9000}, 400, {"param": "context_length"}),
        ({"model": "nothing"}, 404, {"type": "model_not_found"}),
    ],
)
async def test_a_load_takes_what_is_documented_alone(server, body, status, error):
    answer = await server.client.post("/api/v1/models/load", json=body)
    assert answer.status_code == status
    assert answer.json()["error"].items() >= error.items()
    assert await instances(server) == []


async def test_what_is_not_loaded_cannot_be_unloaded(server):
    answer = await server.client.post("/api/v1/models/unload", json={"instance_id": "pocket"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (404, "model_not_found")


async def test_an_answer_is_real_and_says_nothing_of_the_cache(loaded):
    # Unknown fields are ignored, those of other servers, too.
    body = {**QUESTION, "n": 3, "logprobs": True, "cache_prompt": False, "max_tokens": -1}
    answer = (await loaded.client.post(CHAT, json=body)).json()
    assert answer["model"] == "pocket"
    assert answer["choices"] == [
        {
            "index": 0,
            "logprobs": None,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": ANSWER, "tool_calls": []},
        }
    ]
    assert answer["usage"] == {"prompt_tokens": 15, "completion_tokens": 8, "total_tokens": 23}


async def test_a_stream_has_usage_when_it_is_asked_for(loaded):
    chunks = chunks_of((await loaded.client.post(CHAT, json=STREAM)).text)
    assert text_of(chunks) == ANSWER
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "The"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert not any("usage" in chunk or "timings" in chunk for chunk in chunks)

    body = {**STREAM, "max_tokens": 3, "stream_options": {"include_usage": True}}
    *_, finish, usage = chunks_of((await loaded.client.post(CHAT, json=body)).text)
    assert finish["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 15, "completion_tokens": 3, "total_tokens": 18}


async def test_tools_are_called_in_pieces(loaded):
    whole = (await loaded.client.post(CHAT, json=ASK_WEATHER)).json()["choices"][0]
    assert whole["finish_reason"] == "tool_calls"
    assert "content" not in whole["message"]
    [call] = whole["message"]["tool_calls"]
    assert (call["function"]["name"], len(call["id"])) == ("get_weather", 9)

    chunks = chunks_of((await loaded.client.post(CHAT, json={**ASK_WEATHER, "stream": True})).text)
    pieces = [call for chunk in chunks for call in chunk["choices"][0]["delta"].get("tool_calls", [])]
    assert pieces[0]["function"] == {"name": "get_weather", "arguments": ""}
    assert "id" not in pieces[1]
    assert json.loads("".join(piece["function"]["arguments"] for piece in pieces)) == {"city": "Paris"}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_an_answer_follows_a_schema(loaded):
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}
    answer = (await loaded.client.post(CHAT, json={**QUESTION, "response_format": form})).json()
    assert isinstance(json.loads(answer["choices"][0]["message"]["content"])["yes"], bool)


async def test_text_is_completed(loaded):
    body = {"model": "pocket", "prompt": "The capital of", "max_tokens": 3, "temperature": 0}
    answer = (await loaded.client.post("/v1/completions", json=body)).json()
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == " France is Paris"
    chunks = chunks_of((await loaded.client.post("/v1/completions", json={**body, "stream": True})).text)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == " France is Paris"
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def with_parameters(parameters):
    return {"tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}]}


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"messages": []}, "'messages' field is required"),
        ({"response_format": {"type": "json_object"}}, "'response_format.type' must be"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function"}}, "Invalid tool_choice type: 'object'"),
        (with_parameters({}), "Invalid discriminator value. Expected 'object'"),
        (with_parameters({"type": "object"}), "properties"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "images"),
    ],
)
async def test_what_the_original_refuses_is_refused(server, fields, error):
    answer = await server.client.post(CHAT, json={**QUESTION, **fields})
    assert answer.status_code == 400
    assert error in answer.json()["error"]
    assert await instances(server) == []


async def test_an_unknown_model_and_embeddings_are_refused(loaded):
    answer = await loaded.client.post(CHAT, json={**QUESTION, "model": "nothing"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "model_not_found")
    answer = await loaded.client.post("/v1/embeddings", json={"model": "pocket", "input": "x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_an_unknown_endpoint_answers_200(loaded):
    answer = await loaded.client.get("/health")
    assert answer.status_code == 200
    assert answer.json() == {"error": "Unexpected endpoint or method. (GET /health)"}


async def test_a_prompt_that_is_too_long_is_an_error_inside_a_stream(loaded):
    sentence = "Trying to keep the first 610 tokens when context the overflows."
    answer = await loaded.client.post(CHAT, json=LONG)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(sentence)
    answer = await loaded.client.post(CHAT, json={**LONG, "stream": True})
    assert answer.status_code == 200
    name, data = answer.text.strip().splitlines()
    assert name == "event: error"
    assert json.loads(data.removeprefix("data: "))["error"]["message"].startswith(sentence)


async def test_a_conversation_is_kept(loaded):
    body = {"model": "pocket", "temperature": 0, "input": "My name is Ada."}
    first = (await loaded.client.post("/api/v1/chat", json=body)).json()
    body |= {"input": [{"type": "text", "content": "What is my name?"}]}
    body |= {"previous_response_id": first["response_id"], "store": False}
    second = (await loaded.client.post("/api/v1/chat", json=body)).json()
    assert second["output"] == [{"type": "message", "content": "Your name is Ada."}]
    assert "response_id" not in second


async def test_a_conversation_streams_its_load_too(server):
    body = {"model": "pocket", "temperature": 0, "input": QUESTION["messages"][0]["content"], "stream": True}
    lines = (await server.client.post("/api/v1/chat", json=body)).text.splitlines()
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert kinds[:4] == ["chat.start", "model_load.start", "model_load.progress", "model_load.end"]
    assert kinds[-2:] == ["message.end", "chat.end"]
    assert events[-1]["result"]["output"] == [{"type": "message", "content": ANSWER}]


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"tools": [WEATHER], "input": "Hi"}, "unrecognized_keys"),
        ({"messages": QUESTION["messages"], "input": "Hi"}, "unrecognized_keys"),
        ({"input": [{"type": "message", "role": "assistant", "content": "Hi"}]}, "invalid_union"),
        ({}, "invalid_union"),
    ],
)
async def test_a_conversation_takes_the_side_of_the_user_alone(loaded, fields, code):
    answer = await loaded.client.post("/api/v1/chat", json={"model": "pocket", **fields})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_the_older_api_says_what_is_loaded_and_how_fast(server):
    answer = await server.client.get("/api/v0/models/pocket")
    assert answer.json() == {
        "id": "pocket",
        "object": "model",
        "type": "llm",
        "publisher": "autotune",
        "arch": "llama",
        "compatibility_type": "gguf",
        "quantization": "Q8_0",
        "state": "not-loaded",
        "max_context_length": 8192,
    }
    await load(server, context_length=1024)
    [pocket, second] = (await server.client.get("/api/v0/models")).json()["data"]
    assert (pocket["state"], pocket["loaded_context_length"]) == ("loaded", 1024)
    assert second["state"] == "not-loaded"
    assert (await server.client.get("/api/v0/models/nothing")).status_code == 404

    answer = (await server.client.post("/api/v0/chat/completions", json=QUESTION)).json()
    assert answer["stats"]["stop_reason"] == "eosFound"
    assert answer["stats"]["tokens_per_second"] > 0
    *_, last = chunks_of((await server.client.post("/api/v0/chat/completions", json=STREAM)).text)
    assert last["model_info"]["context_length"] == 1024
    assert last["usage"]["completion_tokens"] == 8
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["runtime"]["supported_formats"] == ["gguf"]
