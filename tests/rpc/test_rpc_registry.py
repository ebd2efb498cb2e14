"""RegistryService over a socket: what is recommended, and every model that there is to download."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from autotune.v1 import registry_service_pb2 as pb
from autotune.v1 import registry_service_pb2_grpc
from google.rpc import error_details_pb2, status_pb2

from autotuned.core.model import LayerGroup
from autotuned.core.registry import Rank, RegistryModel, RegistrySize
from autotuned.rpc.hardware import registry_model_message
from autotuned.storage.registry import packaged_models
from tests.rpc.served import served
from tests.services.scripted import entry

OWN = """
[[models]]
id = "mine"
parameters = 1000
names = { ollama = "me/mine:1b" }
sizes = [{ of = "ollama", quantization = "Q8_0", bytes = 1000 }]

[[models]]
id = "wrong"
parameters = 1000
names = { ollama = "me/wrong" }
sizes = []
"""
LARGEST = "4294967296"
TOO_LARGE = """
[[models]]
id = "heads"
parameters = 1000
layers = 1
attention = [{{ layers = 1, kv_heads = {0} }}]
names = {{ ollama = "heads" }}
sizes = [{{ of = "ollama", quantization = "Q8_0", bytes = 1000 }}]

[[models]]
id = "ranks"
parameters = 1000
scores = {{ coding = [1, {0}] }}
names = {{ ollama = "ranks" }}
sizes = [{{ of = "ollama", quantization = "Q8_0", bytes = 1000 }}]
"""
BARE = RegistryModel(
    id="bare", name="Bare", publisher="", license="", parameters_count=0, active_parameters_count=0
)


def stub(house):
    channel = grpc.aio.insecure_channel(house.client.address)
    return channel, registry_service_pb2_grpc.RegistryServiceStub(channel)


async def test_the_packaged_models_are_listed_by_id_with_all_that_is_known():
    async with served() as house:
        listed = await house.client.list_registry_models()
    packaged = sorted(packaged_models(), key=lambda model: model.id)
    assert list(listed.models) == [registry_model_message(model) for model in packaged]
    assert listed.problems == []
    assert listed.own_file == str(house.data / "models.toml")


async def test_a_page_is_as_long_as_it_was_asked_to_be():
    async with served() as house:
        channel, registry = stub(house)
        ids, token = [], ""
        while True:
            page = await registry.ListRegistryModels(
                pb.ListRegistryModelsRequest(page_size=7, page_token=token)
            )
            assert 0 < len(page.models) <= 7
            ids += [model.id for model in page.models]
            token = page.next_page_token
            if not token:
                break
        assert ids == sorted(model.id for model in packaged_models())
        with pytest.raises(grpc.aio.AioRpcError, match="page_size"):
            await registry.ListRegistryModels(pb.ListRegistryModelsRequest(page_size=-1))
        await channel.close()


async def test_a_users_own_models_are_listed_and_what_is_wrong_with_them_is_told():
    async with served(own_registry=OWN) as house:
        listed = await house.client.list_registry_models()
        (mine,) = [model for model in listed.models if model.is_own]
        assert (mine.id, mine.names["ollama"], mine.sizes[0].size_bytes) == ("mine", "me/mine:1b", 1000)
        assert len(listed.models) == len(packaged_models()) + 1
        (problem,) = listed.problems
        assert '"wrong"' in problem
        assert list((await house.client.resolve_pull("mine")).sources) == ["me/mine:1b"]
        (house.data / "models.toml").unlink()
        assert not any(model.is_own for model in (await house.client.list_registry_models()).models)


async def test_figures_that_no_message_holds_leave_out_their_model_alone():
    async with served(own_registry=TOO_LARGE.format(LARGEST)) as house:
        listed = await house.client.list_registry_models()
        assert len(listed.models) == len(packaged_models())
        assert [name in problem for name, problem in zip(("heads", "ranks"), listed.problems, strict=True)]
    async with served(own_registry=TOO_LARGE.format((1 << 31) - 1)) as house:
        listed = await house.client.list_registry_models()
        assert [model.id for model in listed.models if model.is_own] == ["heads", "ranks"]


@pytest.mark.parametrize("use_case", ["chat", "coding", "reasoning", "agents"])
async def test_three_models_are_recommended_for_each_use(use_case):
    async with served() as house:
        told = await house.client.recommend_models(use_case)
    assert len(told.recommendations) == 3
    assert [budget.name for budget in told.budgets] == ["RAM"]
    for pick in told.recommendations:
        assert pick.pull_name in {*pick.model.names.values(), f"hf:{pick.model.names['huggingface']}"} or (
            pick.pull_name == f"hf:{pick.model.names['huggingface']}:{pick.size.quantization}"
        )
        assert pick.size in pick.model.sizes
        assert 0 < pick.footprint.total_bytes <= pick.budget.capacity_bytes
        assert pick.budget in told.budgets
        assert pick.context_tokens > 0
        assert pick.estimated_tokens_per_second > 0
        assert pick.reasons
        assert not pick.installed_as
    scores = [pick.score for pick in told.recommendations]
    assert 0 < max(scores) == scores[0] <= 100


async def test_the_uses_differ_and_chat_is_the_one_without_a_name():
    async with served() as house:
        channel, registry = stub(house)
        unnamed = await registry.RecommendModels(pb.RecommendModelsRequest())
        chat = await house.client.recommend_models("chat")
        coding = await house.client.recommend_models("coding")
        await channel.close()
    assert unnamed == chat
    assert unnamed != coding


async def test_a_use_that_does_not_exist_is_refused():
    async with served() as house:
        channel, registry = stub(house)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await registry.RecommendModels(pb.RecommendModelsRequest(use_case=99))
        await channel.close()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    (details,) = [
        value for key, value in caught.value.trailing_metadata() if key == "grpc-status-details-bin"
    ]
    info = error_details_pb2.ErrorInfo()
    assert status_pb2.Status.FromString(details).details[0].Unpack(info)
    assert (info.reason, info.metadata["field"]) == ("FIELD_INVALID", "use_case")


async def test_what_is_installed_is_told_where_it_is_recommended():
    async with served() as house:
        names = [pick.pull_name for pick in (await house.client.recommend_models()).recommendations]
        name = next(each for each in names if not each.startswith("hf:"))
        house.engines[0].entries = (replace(entry("here"), id=name),)
        picks = (await house.client.recommend_models()).recommendations
        assert {pick.pull_name: pick.installed_as for pick in picks}[name] == name


def test_what_is_not_known_is_empty_or_absent():
    assert registry_model_message(BARE) == pb.RegistryModel(id="bare", name="Bare", modalities=["text"])
    assert registry_model_message(replace(BARE, overall_score=0.0)).HasField("overall_score")


def test_every_figure_is_written():
    model = RegistryModel(
        id="a",
        name="A",
        publisher="P",
        license="MIT",
        parameters_count=9,
        active_parameters_count=3,
        released="2026-01",
        architecture="arch",
        layers_count=2,
        train_context_tokens=4096,
        layer_groups=(
            LayerGroup(
                layers_count=2,
                kv_heads=8,
                key_length=128,
                value_length=64,
                window_tokens=1024,
                recurrent_elements=7,
            ),
        ),
        thinks=True,
        calls_tools=True,
        modalities=("text", "image"),
        names={"mlx": "p/a"},
        sizes=(RegistrySize(of="mlx", quantization="4bit", size_bytes=5),),
        overall_score=41.5,
        ranks={"coding": Rank(3, 30)},
        sources={"sizes": "https://example.org"},
        notes="N",
        is_own=True,
    )
    told = registry_model_message(model)
    assert {field.name for field, _ in told.ListFields()} == set(pb.RegistryModel.DESCRIPTOR.fields_by_name)
    (layers,) = told.layers
    assert {field.name for field, _ in layers.ListFields()} == set(
        pb.RegistryLayers.DESCRIPTOR.fields_by_name
    )
    assert (layers.key_length, layers.value_length, layers.recurrent_elements_count) == (128, 64, 7)
    assert (told.parameters_count, told.active_parameters_count) == (9, 3)
    assert (told.ranks["coding"].place, told.ranks["coding"].models_count) == (3, 30)
    assert dict(told.names) == {"mlx": "p/a"}
