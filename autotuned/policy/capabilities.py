"""Whether an engine can carry out a request: what it cannot do is refused, never dropped."""

from __future__ import annotations

from dataclasses import fields

from autotuned.core.chat import (
    ChatInput,
    GenerationRequest,
    RawPrompt,
    ReasoningEffort,
    ResponseFormatKind,
    Sampling,
    ToolChoiceMode,
)
from autotuned.core.engine import Capabilities
from autotuned.core.model import ModelFacts
from autotuned.policy.prompt import has_images


def refusal(request: GenerationRequest, capabilities: Capabilities, facts: ModelFacts) -> str:
    """Why engine or model cannot do it, as a clause without a full stop; empty when they can."""
    if isinstance(request.input, RawPrompt):
        problem = "" if capabilities.raw_prompt else "raw prompts are not supported; send a chat"
    else:
        problem = chat_refusal(request.input, capabilities)
    return (
        problem or _answer_refusal(request, capabilities) or _reasoning_refusal(request, capabilities, facts)
    )


def chat_refusal(chat: ChatInput, capabilities: Capabilities) -> str:
    """Why the engine cannot read a conversation, in the same words."""
    if has_images(chat.messages) and not capabilities.images:
        return "images are not supported; send text only"
    if chat.tools and not capabilities.tools:
        return "tools are not supported; send the request without tools"
    forced = chat.tool_choice.mode in {ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED}
    if chat.tools and forced and not capabilities.tool_choice:
        return "a call of a tool cannot be required; leave the tool choice to the model"
    return ""


def _answer_refusal(request: GenerationRequest, capabilities: Capabilities) -> str:
    if request.response_format.kind is not ResponseFormatKind.TEXT and not capabilities.json_schema:
        return "structured answers are not supported; ask for plain text"
    if request.top_logprobs_count is not None and not capabilities.logprobs:
        return "log probabilities are not supported; leave them out"
    if request.reasoning_effort not in {None, ReasoningEffort.NONE} and not capabilities.reasoning:
        return "reasoning effort is not supported; leave it out"
    for field in _SAMPLING:
        if field not in capabilities.sampling and getattr(request.sampling, field) not in {None, ()}:
            return f"{field} is not supported; leave it out"
    return ""


def _reasoning_refusal(request: GenerationRequest, capabilities: Capabilities, facts: ModelFacts) -> str:
    """An effort that no template reads would change nothing; a raw prompt meets no template.

    What a model elsewhere can do is for its server to say.
    """
    if request.reasoning_effort in {None, ReasoningEffort.NONE} or isinstance(request.input, RawPrompt):
        return ""
    return (
        ""
        if facts.thinks or not capabilities.is_local
        else "this model does not reason; leave the reasoning effort out"
    )


_SAMPLING = tuple(field.name for field in fields(Sampling))
