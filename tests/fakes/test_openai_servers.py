"""The real servers answer as the tests of the adapter rely on, and leave nothing behind."""

from __future__ import annotations

import json

import httpx
import psutil
import pytest

from tests.fakes.openai_servers import MLX_LM_IS_INSTALLED, running_llamacpp, running_mlx_lm
from tests.fakes.serving import family_of, is_alive, running

QUESTION = {
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
}
# llama.cpp's server closes some connections after a stream, so that each request has one of its own.
ONE_REQUEST = httpx.Limits(max_keepalive_connections=0)
ANSWER = "The capital of France is Paris."
WEATHER = {
    "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
    "temperature": 0,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "The weather of a city",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                },
            },
        }
    ],
}
SERVERS = [
    pytest.param(running_llamacpp, {}, id="llamacpp"),
    pytest.param(running_llamacpp, {"api_key": "secret"}, id="llamacpp-key"),
    pytest.param(
        running_mlx_lm,
        {},
        id="mlx-lm",
        marks=pytest.mark.skipif(not MLX_LM_IS_INSTALLED, reason="mlx-lm is not installed"),
    ),
]


def events_of(text):
    """The data of the events of a stream, without its comments."""
    return [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize(("start", "settings"), SERVERS)
async def test_a_real_server_answers_streams_and_leaves_nothing(start, settings):
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    async with (
        start(**settings) as server,
        httpx.AsyncClient(
            base_url=server.url, headers=server.headers, trust_env=False, timeout=60, limits=ONE_REQUEST
        ) as client,
    ):
        models = (await client.get("/v1/models")).json()["data"]
        assert [model["id"] for model in models] == [server.model]

        body = {**QUESTION, "model": server.model}
        whole = (await client.post("/v1/chat/completions", json=body)).json()
        assert whole["choices"][0]["message"]["content"] == ANSWER
        assert whole["choices"][0]["finish_reason"] == "stop"

        body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = await client.post("/v1/chat/completions", json=body)
        *chunks, end = events_of(answer.text)
        deltas = [json.loads(chunk) for chunk in chunks]
        pieces = [choice["delta"].get("content") or "" for chunk in deltas for choice in chunk["choices"]]
        assert "".join(pieces) == ANSWER
        assert len(pieces) > 5
        assert (deltas[-1]["choices"], deltas[-1]["usage"]["completion_tokens"]) == ([], 8)
        assert deltas[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 14}
        assert end == "[DONE]"

        called = (await client.post("/v1/chat/completions", json={**WEATHER, "model": server.model})).json()
        [call] = called["choices"][0]["message"]["tool_calls"]
        assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
        assert called["choices"][0]["finish_reason"] == "tool_calls"

        process_id = server.process.pid
        assert psutil.pid_exists(process_id)
    assert server.process.returncode is not None
    assert not psutil.pid_exists(process_id)
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


async def test_a_key_is_asked_for():
    async with (
        running_llamacpp(api_key="secret") as server,
        httpx.AsyncClient(trust_env=False, limits=ONE_REQUEST) as client,
    ):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = await client.post(
                f"{server.base_url}/chat/completions", json={**QUESTION, "model": "pocket"}, headers=headers
            )
            assert answer.status_code == 401
            assert answer.json()["error"]["type"] == "authentication_error"


async def test_a_server_that_cannot_start_says_why(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("raise SystemExit('no luck')")
    with pytest.raises(AssertionError, match="no luck"):
        async with running([program], ready_url="http://127.0.0.1:9/health"):
            pass


async def test_a_test_that_fails_leaves_no_server():
    async def fail():
        async with running_llamacpp() as server:
            ids.append(server.process.pid)
            raise ZeroDivisionError

    ids = []
    with pytest.raises(ZeroDivisionError):
        await fail()
    assert not any(map(is_alive, family_of(ids[0])))
    assert not psutil.pid_exists(ids[0])
