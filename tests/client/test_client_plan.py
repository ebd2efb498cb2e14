"""Plans, prewarms, saved prefixes and the policies of a load, through both clients."""

from __future__ import annotations

import pytest
from autotune import errors
from autotune.aio_client import AsyncClient
from autotune.chat import chat_request, prewarm_request
from autotune.client import Client
from autotune.requests import load_model_request
from autotune.v1 import chat_pb2, inference_service_pb2, model_service_pb2

DEADLINE_SECONDS = 10.0


async def test_a_load_carries_its_policies(daemon):
    request = load_model_request("pocket", profile="fast", no_swap=True, keep_alive_seconds=-1)
    with Client(daemon.address) as client:
        list(client.load_model(request))
    (got,) = daemon.requests
    assert got.profile == inference_service_pb2.PROFILE_FAST
    assert got.swap_policy == inference_service_pb2.SWAP_POLICY_NEVER
    assert got.keep_alive_duration.ToNanoseconds() == -1_000_000_000


async def test_a_plan_is_told_for_a_count_or_a_conversation(daemon):
    with Client(daemon.address) as client:
        response = client.plan_model(
            "pocket", prompt=5000, profile="fast", max_reply_tokens=7, context_tokens=4096, no_swap=True
        )
        assert response.model.id == "pocket"
        assert response.plan.shape.context_tokens == 2048
        assert daemon.requests[-1] == model_service_pb2.PlanModelRequest(
            model="pocket",
            prompt_tokens=5000,
            profile=inference_service_pb2.PROFILE_FAST,
            max_reply_tokens=7,
            context_tokens=4096,
            swap_policy=inference_service_pb2.SWAP_POLICY_NEVER,
        )
        client.plan_model()
        assert daemon.requests[-1] == model_service_pb2.PlanModelRequest()
    async with AsyncClient(daemon.address) as client:
        assert await client.plan_model(prompt="How long is this?") == response
        assert daemon.requests[-1].chat.messages[0].parts[0].text == "How long is this?"
        with pytest.raises(errors.FieldInvalid):
            await client.plan_model(prompt=2**70)
        with pytest.raises(errors.ModelNotFound):
            await client.plan_model("poket")


async def test_a_prewarm_tells_what_it_found(daemon):
    with Client(daemon.address) as client:
        response = client.prewarm(
            [{"role": "user", "content": "Hi"}], "pocket", system="Be brief.", store=False
        )
    assert (response.prompt_tokens, response.cached_tokens, response.overtaken) == (24, 8, False)
    (got,) = daemon.prewarms
    assert [message.role for message in got.chat.messages] == [chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER]
    assert got.store_policy == inference_service_pb2.STORE_POLICY_DISCARD
    async with AsyncClient(daemon.address) as client:
        assert await client.prewarm() == response
    assert daemon.prewarms[-1].chat == chat_pb2.ChatInput()


def test_a_prewarm_in_the_background_can_be_cancelled(daemon):
    daemon.prewarm_holds = True
    with Client(daemon.address) as client:
        prewarm = client.begin_prewarm(prewarm_request(model="pocket"))
        assert daemon.prewarming.acquire(timeout=DEADLINE_SECONDS)
        prewarm.cancel()
        assert daemon.cancelled.wait(DEADLINE_SECONDS)
        prewarm.cancel()
        client.info()


async def test_prefixes_are_deleted(daemon):
    with Client(daemon.address) as client:
        response = client.delete_prefixes("pocket")
        assert (response.deleted_count, response.freed_bytes) == (3, 12 << 20)
    async with AsyncClient(daemon.address) as client:
        assert (await client.delete_prefixes()).deleted_count == 3
    assert [request.model for request in daemon.requests] == ["pocket", ""]


@pytest.mark.parametrize(
    ("options", "field", "value"),
    [
        ({"no_swap": True}, "swap_policy", inference_service_pb2.SWAP_POLICY_NEVER),
        ({"no_swap": False}, "swap_policy", inference_service_pb2.SWAP_POLICY_ALLOW),
        ({"store": False}, "store_policy", inference_service_pb2.STORE_POLICY_DISCARD),
        ({"store": True}, "store_policy", inference_service_pb2.STORE_POLICY_KEEP),
    ],
)
def test_a_policy_is_said_when_it_is_chosen(options, field, value):
    assert getattr(chat_request("hello", **options), field) == value
    assert getattr(chat_request("hello"), field) == 0


@pytest.mark.parametrize(
    ("seconds", "nanoseconds"),
    [
        (0, 0),
        (600, 600 * 10**9),
        (0.25, 250_000_000),
        (-1, -(10**9)),
        (-0.25, -250_000_000),
        (-1.5, -15 * 10**8),
    ],
)
def test_a_keep_alive_is_a_duration(seconds, nanoseconds):
    request = chat_request("hello", keep_alive_seconds=seconds)
    assert request.keep_alive_duration.ToNanoseconds() == nanoseconds


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e30])
def test_a_keep_alive_that_is_no_time_is_refused(seconds):
    with pytest.raises(errors.FieldInvalid) as caught:
        chat_request("hello", keep_alive_seconds=seconds)
    assert caught.value.metadata == {"field": "keep_alive_duration"}
