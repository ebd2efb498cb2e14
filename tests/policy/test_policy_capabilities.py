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
    Sampling,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)
from autotuned.core.engine import ALL_SAMPLING, Capabilities
from autotuned.policy.capabilities import refusal
from tests.examples import POCKET

EVERYTHING = Capabilities(**{field.name: True for field in fields(Capabilities) if field.type == "bool"})
THINKS = replace(POCKET, thinks=True)
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
    assert refusal(effort, EVERYTHING, POCKET) == "this model does not reason; leave the reasoning effort out"
    assert refusal(replace(effort, reasoning_effort=ReasoningEffort.NONE), EVERYTHING, POCKET) == ""
    assert refusal(replace(effort, input=RawPrompt("Once")), EVERYTHING, POCKET) == ""
    assert refusal(effort, replace(EVERYTHING, is_local=False), POCKET) == ""


@pytest.mark.parametrize("mode", list(ToolChoiceMode))
def test_only_a_choice_that_can_be_enforced_is_taken(mode):
    tools = (Tool("f", "", ""),)
    request = replace(PLAIN, input=replace(HELLO, tools=tools, tool_choice=ToolChoice(mode, "f")))
    forced = mode in {ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED}
    assert bool(refusal(request, replace(EVERYTHING, tool_choice=False), POCKET)) is forced
    assert refusal(request, EVERYTHING, POCKET) == ""


@pytest.mark.parametrize("field", sorted(ALL_SAMPLING))
def test_a_way_to_draw_that_the_engine_ignores_is_refused(field):
    value = ((5, 1.0),) if field == "logit_bias" else 1
    request = replace(PLAIN, sampling=Sampling(**{field: value}))
    without = replace(EVERYTHING, sampling=ALL_SAMPLING - {field})
    assert refusal(request, without, POCKET) == f"{field} is not supported; leave it out"
    assert refusal(request, EVERYTHING, POCKET) == ""
    assert refusal(PLAIN, without, POCKET) == ""


def test_every_field_of_sampling_has_its_name_in_the_list():
    assert {field.name for field in fields(Sampling)} == ALL_SAMPLING
