"""Which replies go on in a larger context, and what is then asked for."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    Message,
    RawPrompt,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    TextPart,
    Tool,
)
from autotuned.core.generation import FinishReason
from autotuned.policy.continuation import cannot_go_on, rest_of
from autotuned.policy.prefixes import chain

QUESTION = ChatInput((Message(Role.USER, (TextPart("Tell me a story."),)),))
REQUEST = GenerationRequest(model="pocket", input=QUESTION)
STORY = "Once upon a time"


def test_a_reply_without_a_limit_goes_on_where_it_ended():
    assert rest_of(REQUEST, FinishReason.LENGTH, 100, STORY) == replace(REQUEST, reply_so_far=STORY)


@given(st.integers(1, 1 << 20), st.integers(0, 1 << 20))
def test_a_limit_of_the_client_is_never_exceeded(limit, reply_tokens):
    rest = rest_of(replace(REQUEST, max_reply_tokens=limit), FinishReason.LENGTH, reply_tokens, STORY)
    if reply_tokens >= limit:
        assert rest is None
    else:
        assert rest.max_reply_tokens + reply_tokens == limit
        assert rest.max_reply_tokens > 0


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.TOOL_CALLS])
def test_a_reply_that_the_model_ended_is_complete(reason):
    assert rest_of(REQUEST, reason, 100, STORY) is None


def test_a_context_that_the_client_sets_is_its_limit():
    assert rest_of(replace(REQUEST, context_tokens=512), FinishReason.LENGTH, 100, STORY) is None


@pytest.mark.parametrize(
    ("request_", "only_text", "why"),
    [
        (REQUEST, True, ""),
        (replace(REQUEST, input=RawPrompt("Once")), True, ""),
        (REQUEST, False, "it holds more than text"),
        (
            replace(REQUEST, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
            True,
            "its form is prescribed",
        ),
        (replace(REQUEST, input=RawPrompt("def f(", "return 1")), True, "it fills a gap"),
        (
            replace(REQUEST, input=replace(QUESTION, tools=(Tool("ls", "", "{}"),))),
            True,
            "it may become a call of a tool",
        ),
    ],
)
def test_what_the_engine_keeps_beside_the_text_cannot_be_gone_on_from(request_, only_text, why):
    assert cannot_go_on(request_, only_text=only_text) == why


def test_the_state_of_a_reply_so_far_has_a_name_and_belongs_to_the_same_conversation():
    whole = chain(replace(REQUEST, reply_so_far=STORY), "namespace")
    prompt = chain(REQUEST, "namespace")
    assert whole.conversation == prompt.conversation
    assert whole.boundaries[:-1] == prompt.boundaries
    other = chain(replace(REQUEST, reply_so_far=STORY + "!"), "namespace")
    assert other.boundaries[:-1] == prompt.boundaries
    assert other.boundaries[-1] != whole.boundaries[-1]


def test_the_same_holds_for_raw_prompts():
    raw = replace(REQUEST, input=RawPrompt("x" * 700))
    whole = chain(replace(raw, reply_so_far="y" * 700), "namespace")
    assert whole.conversation == chain(raw, "namespace").conversation
    assert whole.boundaries[0] == chain(raw, "namespace").boundaries[0]
    assert (
        whole.boundaries
        == chain(replace(raw, input=RawPrompt("x" * 700 + "y" * 700)), "namespace").boundaries
    )
