"""Engines and findings, and an engine that is chosen, through both clients."""

from __future__ import annotations

import subprocess
import sys

import grpc
import pytest
from autotune import errors
from autotune.aio_client import AsyncClient
from autotune.chat import ReplyBuilder, chat_request, prewarm_request
from autotune.client import Client
from autotune.requests import load_model_request, plan_model_request
from autotune.v1 import engine_service_pb2, inference_service_pb2, model_service_pb2

from tests.fakes.fake_messages import (
    engine,
    finished,
    listed_model,
    rich_status,
    running_model,
    started,
)

UNREACHABLE = engine_service_pb2.ENGINE_STATE_UNREACHABLE


@pytest.fixture
def two_engines(daemon):
    daemon.engines = [engine("llamacpp"), engine("ollama"), engine("gpu", UNREACHABLE, detail="it is away")]
    daemon.models = [
        listed_model("pocket"),
        listed_model("qwen3", "ollama", "llamacpp", aliases=["qwen3:8b"]),
        listed_model("ollama/odd", "ollama"),
    ]
    return daemon


async def test_engines_are_told_as_they_are(two_engines):
    with Client(two_engines.address) as client:
        engines = client.list_engines()
    assert [each.name for each in engines] == ["llamacpp", "ollama", "gpu"]
    assert engines[2] == engine("gpu", UNREACHABLE, detail="it is away")
    async with AsyncClient(two_engines.address) as client:
        assert await client.list_engines() == engines
    assert two_engines.requests[-1] == engine_service_pb2.ListEnginesRequest()


async def test_findings_come_worst_first(two_engines):
    kind = engine_service_pb2.Finding
    note = kind(code="a", severity=kind.SEVERITY_INFO, subject="gpu", text="It is slow.")
    problem = kind(code="b", severity=kind.SEVERITY_PROBLEM, subject="disk", text="Full.", advice="Empty it.")
    two_engines.findings = [note, problem]
    with Client(two_engines.address) as client:
        assert client.list_findings() == [problem, note]
    async with AsyncClient(two_engines.address) as client:
        assert await client.list_findings() == [problem, note]
    assert two_engines.requests[-1] == engine_service_pb2.ListFindingsRequest()


async def test_what_is_refused_is_an_error(two_engines):
    two_engines.refusal = rich_status(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "It stops.")
    with Client(two_engines.address) as client:
        for call in (client.list_engines, client.list_findings):
            with pytest.raises(errors.ShuttingDown):
                call()
    async with AsyncClient(two_engines.address) as client:
        for call in (client.list_engines, client.list_findings):
            with pytest.raises(errors.ShuttingDown):
                await call()


def test_every_request_can_name_its_engine():
    requests = (
        chat_request("hello", engine="ollama"),
        prewarm_request(engine="ollama"),
        load_model_request("pocket", engine="ollama"),
        plan_model_request("pocket", engine="ollama"),
    )
    assert [request.engine for request in requests] == ["ollama"] * 4
    silent = (chat_request("hello"), prewarm_request(), load_model_request("x"), plan_model_request("x"))
    assert [request.engine for request in silent] == [""] * 4


async def test_an_engine_is_chosen_by_argument_or_by_name(two_engines):
    with Client(two_engines.address) as client:
        assert client.get_model("qwen3").engine == "ollama"
        assert client.get_model("qwen3", "llamacpp").engine == "llamacpp"
        assert client.get_model("llamacpp/qwen3:8b").engine == "llamacpp"
        assert client.get_model("ollama/odd").id == "ollama/odd"
        assert client.plan_model("qwen3", engine="llamacpp").model.path == "/models/qwen3.gguf"
        assert client.chat("hello", "pocket", engine="llamacpp").text
        assert two_engines.requests[-1].engine == "llamacpp"
        assert client.prewarm(model="pocket", engine="llamacpp").prompt_tokens == 24
        assert two_engines.prewarms[-1].engine == "llamacpp"
        *_, last = client.load_model(load_model_request("qwen3", engine="llamacpp"))
        assert last.loaded.running_model.engine == "llamacpp"
    async with AsyncClient(two_engines.address) as client:
        assert (await client.get_model("qwen3", "llamacpp")).engine == "llamacpp"
        assert (await client.chat("hello", "pocket", engine="llamacpp")).text
        assert two_engines.requests[-1].engine == "llamacpp"


async def test_unload_takes_it_from_one_engine_or_from_each(two_engines):
    two_engines.running = [running_model("qwen3", "ollama")]
    outcome = model_service_pb2.UnloadModelResponse
    with Client(two_engines.address) as client:
        assert client.unload_model("qwen3").outcome == outcome.OUTCOME_UNLOADED
        assert client.unload_model("qwen3", engine="ollama").outcome == outcome.OUTCOME_UNLOADED
        assert client.unload_model("llamacpp/qwen3").outcome == outcome.OUTCOME_NOT_LOADED
    async with AsyncClient(two_engines.address) as client:
        response = await client.unload_model("qwen3", engine="llamacpp")
        assert response.outcome == outcome.OUTCOME_NOT_LOADED


def test_an_engine_that_is_not_there_is_refused(two_engines):
    with Client(two_engines.address) as client:
        for call in (
            lambda: client.get_model("pocket", "olama"),
            lambda: client.chat("hello", engine="olama"),
            lambda: client.prewarm(engine="olama"),
            lambda: client.plan_model("pocket", engine="olama"),
            lambda: client.unload_model("pocket", engine="olama"),
            lambda: list(client.load_model(load_model_request("pocket", engine="olama"))),
        ):
            with pytest.raises(errors.FieldInvalid) as caught:
                call()
            assert caught.value.message == (
                'engine: there is no engine "olama"; use one of: gpu, llamacpp, ollama.'
            )
        with pytest.raises(errors.ModelNotFound):
            client.get_model("pocket", "ollama")
        with pytest.raises(errors.EngineUnreachable) as away:
            client.get_model("gpu/pocket")
    assert away.value.metadata == {"engine": "gpu"}


def reply_of(*events: inference_service_pb2.GenerateResponse) -> object:
    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder.reply()


def test_cached_tokens_are_none_where_the_engine_does_not_tell():
    assert reply_of(started(), finished()).cached_tokens == 8
    assert reply_of(started(), finished(cached_tokens=0)).cached_tokens == 0
    late = reply_of(started(counts=False), finished())
    assert (late.usage.prompt_tokens, late.cached_tokens) == (24, 8)
    assert reply_of(started(counts=False), finished(cached_tokens=0)).cached_tokens is None


def test_a_client_that_asks_for_no_engine_imports_nothing_for_it():
    program = "import sys, autotune.client, autotune.aio_client; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "autotune.v1.model_service_pb2" in result.stdout
    assert "engine_service" not in result.stdout
