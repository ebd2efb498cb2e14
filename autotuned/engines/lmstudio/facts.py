"""From what LM Studio lists, and the file where it lies on this machine, to the models of the core.

``engine`` calls it after each look. With the file, layers and content are known exactly; without it, only
what the server tells, and what it does not tell is 0.
Invariant: equal digests mean equal weights; a server elsewhere is no reason to look at files here.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from autotuned.core.model import ModelEntry, ModelFacts
from autotuned.engines.lmstudio.listing import ListedModel

NAME = "lmstudio"


def entry_of(model: ListedModel, from_file: ModelFacts | None, *, url: str, is_here: bool) -> ModelEntry:
    """The entry of one model."""
    facts = _joined(model, from_file) if from_file else _told(model, url if not is_here else "")
    return ModelEntry(
        id=model.key,
        engine=NAME,
        path=url,
        size_bytes=max(model.size_bytes, facts.weights_bytes, 0),
        facts=facts,
    )


def _joined(model: ListedModel, facts: ModelFacts) -> ModelFacts:
    """The file's own facts; LM Studio adds whether there is a projector beside it, and has its own limit."""
    limit = min(model.context_tokens or facts.train_context_tokens, facts.train_context_tokens)
    return replace(
        facts,
        train_context_tokens=limit,
        calls_tools=facts.calls_tools or model.calls_tools,
        thinks=facts.thinks or model.thinks,
        modalities=_modalities(model),
    )


def _told(model: ListedModel, url: str) -> ModelFacts:
    weights_bytes = max(model.size_bytes, 0)
    return ModelFacts(
        digest=f"remote:{url}:{model.key}" if url else _digest(model),
        architecture=model.architecture,
        name=model.name,
        quantization=model.quantization,
        parameters_count=0,
        weights_bytes=weights_bytes,
        weights_bytes_by_type=((model.quantization, weights_bytes),) if weights_bytes else (),
        layers_count=0,
        embedding_length=0,
        vocabulary_size=0,
        layer_groups=(),
        train_context_tokens=model.context_tokens,
        chat_template="",
        calls_tools=model.calls_tools,
        thinks=model.thinks,
        modalities=_modalities(model),
    )


def _digest(model: ListedModel) -> str:
    """A name for a content that cannot be seen: whatever LM Studio tells of it."""
    told = (model.publisher, model.key, model.quantization, str(model.size_bytes))
    return f"{NAME}:{hashlib.sha256(chr(0).join(told).encode()).hexdigest()}"


def _modalities(model: ListedModel) -> tuple[str, ...]:
    return ("text", "image") if model.sees else ("text",)
