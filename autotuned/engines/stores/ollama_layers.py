"""The small files of a model that Ollama keeps: system prompt, first messages, parameters.

``ollama`` reads them with a manifest. The context, the longest reply and what llama.cpp does not know are not
taken from the parameters: the first two are the daemon's to plan.
Invariant: pure; a parameter that makes no sense is as none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from autotuned.core.chat import Message, Role, Sampling, TextPart
from autotuned.engines.model_defaults import ModelDefaults

SYSTEM = "application/vnd.ollama.image.system"
MESSAGES = "application/vnd.ollama.image.messages"
PARAMETERS = "application/vnd.ollama.image.params"
KINDS = frozenset({SYSTEM, MESSAGES, PARAMETERS})

_LARGEST_WHOLE = (1 << 31) - 1


class _Said(msgspec.Struct):
    role: Role
    content: str = ""


def defaults_of(texts: Mapping[str, bytes]) -> ModelDefaults:
    """What the files of these kinds say. Raises ``ValueError`` for what is damaged."""
    said = msgspec.json.decode(texts.get(MESSAGES, b"[]"), type=list[_Said])
    parameters = msgspec.json.decode(texts.get(PARAMETERS, b"{}"), type=dict[str, object])
    return ModelDefaults(
        system=texts.get(SYSTEM, b"").decode(),
        messages=tuple(Message(each.role, (TextPart(each.content),)) for each in said),
        sampling=_sampling(parameters),
        stop_sequences=_stop_sequences(parameters.get("stop")),
    )


def _sampling(parameters: Mapping[str, object]) -> Sampling:
    return Sampling(
        temperature=_number(parameters.get("temperature")),
        top_p=_number(parameters.get("top_p")),
        top_k=_whole(parameters.get("top_k")),
        min_p=_number(parameters.get("min_p")),
        seed=_whole(parameters.get("seed")),
        repeat_penalty=_number(parameters.get("repeat_penalty")),
        presence_penalty=_number(parameters.get("presence_penalty")),
        frequency_penalty=_number(parameters.get("frequency_penalty")),
    )


def _number(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return value if math.isfinite(value) and abs(value) <= _LARGEST_WHOLE else None


def _whole(value: object) -> int | None:
    """A negative one stands for "draw one" or "all", which is what the engine does without it."""
    number = _number(value)
    return int(number) if number is not None and number >= 0 else None


def _stop_sequences(value: object) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list):
        return ()
    return tuple(text for text in values if isinstance(text, str) and text)
