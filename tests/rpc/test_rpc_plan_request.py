"""Wire to core: prewarms and plans."""

from __future__ import annotations

import pytest
from autotune.v1 import chat_pb2 as chat
from autotune.v1 import inference_service_pb2 as pb
from autotune.v1 import model_service_pb2 as models

from autotuned.core.chat import ChatInput, ProfileName, RawPrompt, ReasoningEffort, Role
from autotuned.core.errors import AutotuneError, FieldInvalid
from autotuned.core.memory import SwapPolicy
from autotuned.rpc.request import plan_request, prewarm_request

SYSTEM = chat.Message(role=chat.ROLE_SYSTEM, parts=[chat.Part(text="Be brief.")])


def test_a_prewarm_arrives_whole():
    core = prewarm_request(
        pb.PrewarmRequest(
            model="pocket",
            chat=chat.ChatInput(messages=[SYSTEM], tools=[chat.Tool(name="f")]),
            profile=pb.PROFILE_FAST,
            reasoning_effort=pb.REASONING_EFFORT_LOW,
            context_tokens=4096,
            swap_policy=pb.SWAP_POLICY_NEVER,
            store_policy=pb.STORE_POLICY_DISCARD,
        ),
        "agent",
    )
    assert [message.role for message in core.input.messages] == [Role.SYSTEM]
    assert [tool.name for tool in core.input.tools] == ["f"]
    assert (core.model, core.client, core.context_tokens) == ("pocket", "agent", 4096)
    assert (core.profile, core.reasoning_effort) == (ProfileName.FAST, ReasoningEffort.LOW)
    assert (core.swap_policy, core.discard) == (SwapPolicy.NEVER, True)


def test_a_prewarm_of_nothing_but_the_model_is_taken():
    assert prewarm_request(pb.PrewarmRequest()).input == ChatInput(messages=())


@pytest.mark.parametrize(
    ("request_", "sentence"),
    [
        (pb.PrewarmRequest(context_tokens=0), "context_tokens: 0 is out of range; use 1 or more."),
        (
            pb.PrewarmRequest(chat=chat.ChatInput(messages=[chat.Message()])),
            "chat.messages[0].role: it is missing; use system, user, assistant or tool.",
        ),
        (
            pb.PrewarmRequest(store_policy=pb.STORE_POLICY_KEEP),
            "store_policy is not supported yet; leave the field out.",
        ),
    ],
)
def test_a_bad_prewarm_is_refused(request_, sentence):
    with pytest.raises(AutotuneError) as caught:
        prewarm_request(request_)
    assert caught.value.message == sentence


@pytest.mark.parametrize(
    ("fields", "expected_input", "expected_tokens"),
    [
        ({}, ChatInput(messages=()), None),
        ({"prompt_tokens": 5000}, ChatInput(messages=()), 5000),
        ({"text": "Hello"}, RawPrompt("Hello"), None),
    ],
)
def test_a_plan_is_for_a_count_a_text_or_nothing_known(fields, expected_input, expected_tokens):
    core, prompt_tokens = plan_request(models.PlanModelRequest(**fields))
    assert (core.input, prompt_tokens) == (expected_input, expected_tokens)


def test_a_plan_request_arrives_whole():
    core, prompt_tokens = plan_request(
        models.PlanModelRequest(
            model="pocket",
            chat=chat.ChatInput(messages=[SYSTEM]),
            profile=pb.PROFILE_QUALITY,
            max_reply_tokens=9,
            context_tokens=4096,
            swap_policy=pb.SWAP_POLICY_NEVER,
        ),
        "agent",
    )
    assert core.input.messages[0].role is Role.SYSTEM
    assert prompt_tokens is None
    assert (core.model, core.client, core.max_reply_tokens, core.context_tokens) == (
        "pocket",
        "agent",
        9,
        4096,
    )
    assert (core.profile, core.swap_policy) == (ProfileName.QUALITY, SwapPolicy.NEVER)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"prompt_tokens": 0}, "prompt_tokens: 0 is out of range; use 1 or more."),
        ({"text": ""}, "text: it is empty; send some text, or leave it out."),
        ({"chat": chat.ChatInput()}, "chat.messages: the list is empty; send at least one message."),
        ({"max_reply_tokens": -1}, "max_reply_tokens: -1 is out of range; use 1 or more."),
    ],
)
def test_a_bad_plan_request_is_refused(fields, sentence):
    with pytest.raises(FieldInvalid) as caught:
        plan_request(models.PlanModelRequest(**fields))
    assert caught.value.message == sentence
