"""Downloads, the registry and the hardware through both clients."""

from __future__ import annotations

import subprocess
import sys
from contextlib import aclosing, closing

import pytest
from autotune import errors
from autotune.aio_client import AsyncClient
from autotune.client import Client
from autotune.registry import RegistryList, recommend_models_request
from autotune.v1 import model_service_pb2, registry_service_pb2

from tests.fakes.download_messages import GIB, machine, offer, progress, registry_model
from tests.fakes.fake_messages import engine, listed_model

PATIENCE_SECONDS = 10.0
PULLED = ["progress", "offer", "progress", "progress", "progress", "progress", "pulled"]


@pytest.fixture
def house(daemon):
    daemon.engines = [engine("llamacpp"), engine("ollama"), engine("mlx")]
    daemon.models = [listed_model("pocket"), listed_model("qwen3:8b", "ollama", size_bytes=5 * GIB)]
    return daemon


async def test_a_pull_is_an_offer_progress_and_the_model(house):
    expected = model_service_pb2.PullModelRequest(model="qwen3:8b", engine="mlx", allow_too_large=True)
    with Client(house.address) as client:
        events = list(client.pull_model("qwen3:8b", "mlx", allow_too_large=True))
        assert house.requests[-1] == expected
        assert len(list(client.pull_model("qwen3:8b"))) == len(PULLED)
        assert house.requests[-1] == model_service_pb2.PullModelRequest(model="qwen3:8b")
    assert [event.WhichOneof("event") for event in events] == PULLED
    assert events[-1].pulled.model.id == "qwen3:8b"
    async with AsyncClient(house.address) as client:
        assert [event async for event in client.pull_model("qwen3:8b", "mlx", allow_too_large=True)] == events
        assert house.requests[-1] == expected


async def test_a_model_that_is_too_large_needs_consent(house):
    house.too_large = {"huge"}
    with Client(house.address) as client:
        with pytest.raises(errors.ModelTooLarge) as caught:
            list(client.pull_model("huge"))
        assert caught.value.metadata["suggestion"] == "qwen3:4b"
        assert list(client.pull_model("huge", allow_too_large=True))
    async with AsyncClient(house.address) as client:
        with pytest.raises(errors.ModelTooLarge):
            [event async for event in client.pull_model("huge")]


def endless(house):
    def script(request, context):
        yield offer("qwen3:8b")
        yield progress(model_service_pb2.PULL_PHASE_DOWNLOADING, 1, 2)
        house.hold(context)

    return script


def test_closing_a_blocking_pull_ends_it(house):
    house.pull_script = endless(house)
    with Client(house.address) as client:
        with closing(client.pull_model("qwen3:8b")) as events:
            assert next(events).HasField("offer")
        assert house.cancelled.wait(PATIENCE_SECONDS)


async def test_closing_an_asyncio_pull_ends_it(house):
    house.pull_script = endless(house)
    async with AsyncClient(house.address) as client:
        async with aclosing(client.pull_model("qwen3:8b")) as events:
            assert (await anext(events)).HasField("offer")
        assert house.cancelled.wait(PATIENCE_SECONDS)


async def test_delete_says_what_is_free_again(house):
    expected = model_service_pb2.DeleteModelResponse(freed_bytes=5 * GIB, paths=["http://ollama.example"])
    with Client(house.address) as client:
        assert client.delete_model("qwen3:8b", "ollama") == expected
        assert house.requests[-1].engine == "ollama"
        with pytest.raises(errors.ModelNotFound):
            client.delete_model("nothing")
    async with AsyncClient(house.address) as client:
        assert await client.delete_model("qwen3:8b") == expected
        with pytest.raises(errors.ModelNotFound):
            await client.delete_model("nothing")


async def test_resolve_tells_sources_and_how_they_were_found(house):
    with Client(house.address) as client:
        found = client.resolve_pull("qwen3:8b", "mlx")
        with pytest.raises(errors.FieldInvalid):
            client.resolve_pull("")
    assert list(found.sources) == ["hf:mlx-community/Qwen3-8B-4bit"]
    async with AsyncClient(house.address) as client:
        assert await client.resolve_pull("qwen3:8b", "mlx") == found


async def test_recommendations_are_for_a_use(house):
    with Client(house.address) as client:
        recommended = client.recommend_models("coding")
        assert house.requests[-1].use_case == registry_service_pb2.USE_CASE_CODING
        client.recommend_models()
        assert house.requests[-1].use_case == registry_service_pb2.USE_CASE_CHAT
    assert recommended.recommendations[0].pull_name == "qwen3:8b"
    async with AsyncClient(house.address) as client:
        assert await client.recommend_models("coding") == recommended


def test_a_use_that_there_is_not_is_refused_with_those_that_there_are():
    assert recommend_models_request("").use_case == registry_service_pb2.USE_CASE_UNSPECIFIED
    with pytest.raises(errors.FieldInvalid) as caught:
        recommend_models_request("poetry")
    assert caught.value.message == 'use_case: "poetry" is not one of chat, coding, reasoning, agents.'


async def test_the_registry_is_walked_page_by_page(house):
    house.registry = [registry_model(f"m{number}") for number in range(5)]
    house.registry_problems = ["mine: it has no license; add one."]
    house.page_limit = 2
    expected = RegistryList(list(house.registry), list(house.registry_problems), "/config/registry.toml")
    with Client(house.address) as client:
        assert client.list_registry_models() == expected
    assert len(house.requests) == 3
    async with AsyncClient(house.address) as client:
        assert await client.list_registry_models() == expected


async def test_the_hardware_is_told_as_it_is(house):
    with Client(house.address) as client:
        assert client.hardware() == machine()
    async with AsyncClient(house.address) as client:
        assert await client.hardware() == machine()


@pytest.mark.parametrize("call", ["pull_model", "delete_model", "resolve_pull"])
def test_a_name_that_is_no_unicode_is_refused(house, call):
    with Client(house.address) as client, pytest.raises(errors.FieldInvalid, match="lone surrogate"):
        getattr(client, call)("bad \udcff")
    assert house.requests == []


def test_a_client_that_asks_for_no_registry_imports_nothing_for_it():
    program = "import sys, autotune.client, autotune.aio_client; print('\\n'.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "autotune.v1.model_service_pb2" in result.stdout
    assert "autotune.registry" not in result.stdout
    assert "registry_service" not in result.stdout
