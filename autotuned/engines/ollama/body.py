"""From a core request to the JSON that Ollama's own endpoints read.

``model`` calls it for every request, ``loading`` for a load. ``messages`` knows the conversation.

Of the options that shape a load only the context is ever sent, and it is sent always. Ollama compares
numbers, so a client that leaves it out shares the model wherever its default is the same number; and a
context that was said is never lowered behind our back, as one that was not is when memory is short. All else
of a load (batch, layers on the GPU, threads) is left to Ollama, which chooses it for each context.
Invariants: everything that a request asks for is in its body or refused here; all bodies of one load have the
same load options, ``shift`` among them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import msgspec

from autotuned.core.chat import (
    GenerationRequest,
    RawPrompt,
    ReasoningEffort,
    ResponseFormat,
    ResponseFormatKind,
    Sampling,
)
from autotuned.core.errors import FieldInvalid, Unsupported
from autotuned.engines.chat_json import Json, encoded
from autotuned.engines.ollama.facts import Known
from autotuned.engines.ollama.messages import chat_json
from autotuned.engines.ollama.versions import Features

CHAT_TARGET = "/api/chat"
GENERATE_TARGET = "/api/generate"
# A number: the text "-1" is refused. The daemon decides when a model leaves, nobody else.
FOREVER = -1
# What Ollama keeps a model for where nobody says anything.
USUAL_KEEP_ALIVE_SECONDS = 300
# 0 computes the prompt alone on some of Ollama's ways and means "no limit" on others.
LEAST_REPLY_TOKENS = 1
MAX_REPLY_TOKENS = (1 << 31) - 1
# The engine below takes this seed for "draw one"; every other 32-bit number is a seed.
RANDOM_SEED = 0xFFFFFFFF
LEVELLED_FAMILIES = frozenset({"gptoss", "gpt-oss"})


@dataclass(frozen=True, slots=True)
class Call:
    """Where a request goes, and its JSON."""

    target: str
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Incarnation:
    """What all requests to one loaded model have in common."""

    model: Known
    context_tokens: int
    features: Features

    def common(self) -> Json:
        """The part of a body that every request has."""
        return {
            "model": self.model.name,
            "stream": True,
            "keep_alive": FOREVER,
            "truncate": False,
            "shift": False,
        }

    def load_options(self) -> Json:
        """The options that shape a load."""
        return {"num_ctx": self.context_tokens}


def load_call(incarnation: Incarnation) -> Call:
    """The call that loads the model and asks nothing."""
    body = incarnation.common() | {"messages": [], "options": incarnation.load_options(), "stream": False}
    return Call(CHAT_TARGET, encoded(body))


def give_back_call(incarnation: Incarnation) -> Call:
    """The call that changes nothing but how long the model stays: as long as Ollama's own default."""
    body = incarnation.common() | {"messages": [], "options": incarnation.load_options(), "stream": False}
    return Call(CHAT_TARGET, encoded(body | {"keep_alive": USUAL_KEEP_ALIVE_SECONDS}))


def unload_call(name: str) -> Call:
    """The call that has a model leave when nobody uses it any more."""
    return Call(CHAT_TARGET, encoded({"model": name, "messages": [], "keep_alive": 0}))


def generation_call(request: GenerationRequest, incarnation: Incarnation) -> Call:
    """The call that streams this generation. Raises ``FieldInvalid`` and ``Unsupported``."""
    if request.reply_so_far:
        raise Unsupported("Ollama cannot go on with a reply that was cut; send the request again.")
    if request.sampling.logit_bias:
        raise Unsupported("Ollama has no bias for tokens; leave the logit bias out.")
    model = incarnation.model
    body = incarnation.common() | {"options": incarnation.load_options() | _options(request, model)}
    if wanted := _format(request.response_format):
        body["format"] = wanted
    if request.top_logprobs_count is not None:
        body |= _logprobs(request, incarnation)
    if isinstance(request.input, RawPrompt):
        return Call(GENERATE_TARGET, encoded(body | _raw(request, request.input, model)))
    body |= chat_json(request.input, model=model.name, sees=model.sees)
    if model.thinks and request.reasoning_effort is not None:
        body["think"] = _think(request.reasoning_effort, incarnation)
    return Call(CHAT_TARGET, encoded(body))


def prefill_call(request: GenerationRequest, incarnation: Incarnation) -> Call:
    """The call that computes the state of this prompt, and one token, which is the least."""
    return generation_call(replace(request, max_reply_tokens=LEAST_REPLY_TOKENS), incarnation)


def _options(request: GenerationRequest, model: Known) -> Json:
    """The options that shape no load. A limit is always said: the Modelfile may have one of its own."""
    sampling: Sampling = request.sampling
    values: Json = {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "seed": None if sampling.seed is None else sampling.seed % RANDOM_SEED,
        "num_predict": _reply_limit(request),
    }
    if request.stop_sequences:
        values["stop"] = list(dict.fromkeys((*request.stop_sequences, *model.stop_sequences)))
    return {name: value for name, value in values.items() if value is not None}


def _reply_limit(request: GenerationRequest) -> int:
    if request.max_reply_tokens is None:
        return -1
    return min(max(LEAST_REPLY_TOKENS, request.max_reply_tokens), MAX_REPLY_TOKENS)


def _format(wanted: ResponseFormat) -> str | msgspec.Raw | None:
    if wanted.kind is ResponseFormatKind.TEXT:
        return None
    if wanted.kind is ResponseFormatKind.JSON_OBJECT:
        return "json"
    return msgspec.Raw(wanted.schema_json.encode())


def _logprobs(request: GenerationRequest, incarnation: Incarnation) -> Json:
    if not incarnation.features.logprobs:
        raise Unsupported("This version of Ollama tells no log probabilities; update it or leave them out.")
    if not isinstance(request.input, RawPrompt) and request.input.tools:
        raise Unsupported("Log probabilities are not supported together with tools; leave one of them out.")
    return {"logprobs": True, "top_logprobs": request.top_logprobs_count}


def _raw(request: GenerationRequest, prompt: RawPrompt, model: Known) -> Json:
    if request.reasoning_effort is not None:
        raise Unsupported("A raw prompt has no reasoning effort; send a chat instead.")
    if not prompt.prompt:
        raise FieldInvalid("raw.prompt", "is empty, which Ollama takes for a load; send some text.")
    body: Json = {"prompt": prompt.prompt}
    # Otherwise what looks like a thought would be cut out of the answer.
    if model.thinks:
        body["think"] = False
    if not prompt.suffix:
        return body | {"raw": True}
    if not model.fills_in:
        raise Unsupported(f'Filling in the middle is not supported by "{model.name}"; use another model.')
    return body | {"suffix": prompt.suffix}


def _think(effort: ReasoningEffort, incarnation: Incarnation) -> bool | str:
    """A word where it is taken; else yes or no."""
    if effort is ReasoningEffort.NONE:
        return False
    facts = incarnation.model.facts
    takes_words = incarnation.features.thinking_levels or (
        facts is not None and facts.architecture in LEVELLED_FAMILIES
    )
    return effort.value if takes_words else True
