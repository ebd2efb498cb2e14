"""What an engine cannot do is refused by name, and nothing else is."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    ImagePart,
    Message,
    RawPrompt,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Role,
    TextPart,
    Tool,
)
from autotuned.core.ports import Capabilities
from autotuned.policy.capabilities import refusal

EVERYTHING = Capabilities(**{field.name: True for field in fields(Capabilities)})
THINKS = "{% if enable_thinking %}<think>{% endif %}"
HELLO = ChatInput((Message(Role.USER, (TextPart("Hello"),)),))
PLAIN = GenerationRequest(model="", input=HELLO)
CASES = {
    "images": replace(PLAIN, input=ChatInput((Message(Role.USER, (ImagePart(b"", "image/png"),)),))),
    "tools": replace(PLAIN, input=replace(HELLO, tools=(Tool("f", "", ""),))),
    "json_schema": replace(PLAIN, response_format=ResponseFormat(ResponseFormatKind.JSON_OBJECT)),
    "logprobs": replace(PLAIN, top_logprobs_count=0),
    "reasoning": replace(PLAIN, reasoning_effort=ReasoningEffort.HIGH),
    "raw_prompt": replace(PLAIN, input=RawPrompt("Once")),
}


@pytest.mark.parametrize("capability", CASES)
def test_a_missing_capability_refuses_what_needs_it_and_only_that(capability):
    without = replace(EVERYTHING, **{capability: False})
    assert "not supported" in refusal(CASES[capability], without, THINKS)
    assert refusal(CASES[capability], EVERYTHING, THINKS) == ""
    assert refusal(PLAIN, without, THINKS) == ""


@pytest.mark.parametrize("capability", ["json_schema", "logprobs", "reasoning"])
def test_what_is_asked_of_an_answer_is_refused_for_raw_prompts_too(capability):
    asked = replace(CASES[capability], input=RawPrompt("Once"))
    assert "not supported" in refusal(asked, replace(EVERYTHING, **{capability: False}), THINKS)
    assert refusal(asked, EVERYTHING, THINKS) == ""


def test_an_effort_that_no_template_reads_is_refused():
    effort = CASES["reasoning"]
    assert (
        refusal(effort, EVERYTHING, "plain") == "this model does not reason; leave the reasoning effort out"
    )
    assert refusal(replace(effort, reasoning_effort=ReasoningEffort.NONE), EVERYTHING, "plain") == ""
    assert refusal(replace(effort, input=RawPrompt("Once")), EVERYTHING, "plain") == ""
