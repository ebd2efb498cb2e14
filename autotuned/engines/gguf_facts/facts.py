"""From the header of a GGUF file to the facts that planning needs.

``discovery`` calls it; ``layers`` knows what each architecture keeps. The keys are those of
llama.cpp's ``llama-arch``; a key that is absent takes the default that llama.cpp takes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from autotuned.core.model import ModelFacts
from autotuned.engines.gguf import GgufHeader
from autotuned.engines.gguf_facts.layers import layer_groups
from autotuned.engines.gguf_facts.metadata import MAX_CONTEXT, Metadata

_TOKENS = "tokenizer.ggml.tokens"
_MENTIONS_TOOLS = re.compile(r"\btools\b")
# A template that begins a thought, closes one, or takes a switch for it. "</think>" alone does not
# count: templates of models that do not think cut it out of what others wrote.
_MENTIONS_THOUGHT = re.compile(r"enable_thinking|reasoning_effort|<think>|<\|channel\|>analysis")

# general.file_type: how most of the weights are stored.
FILE_TYPES = {
    0: "F32",
    1: "F16",
    2: "Q4_0",
    3: "Q4_1",
    7: "Q8_0",
    8: "Q5_0",
    9: "Q5_1",
    10: "Q2_K",
    11: "Q3_K_S",
    12: "Q3_K_M",
    13: "Q3_K_L",
    14: "Q4_K_S",
    15: "Q4_K_M",
    16: "Q5_K_S",
    17: "Q5_K_M",
    18: "Q6_K",
    19: "IQ2_XXS",
    20: "IQ2_XS",
    21: "Q2_K_S",
    22: "IQ3_XS",
    23: "IQ3_XXS",
    24: "IQ1_S",
    25: "IQ4_NL",
    26: "IQ3_S",
    27: "IQ3_M",
    28: "IQ2_S",
    29: "IQ2_M",
    30: "IQ4_XS",
    31: "IQ1_M",
    32: "BF16",
    36: "TQ1_0",
    37: "TQ2_0",
    38: "MXFP4",
    39: "NVFP4",
    40: "Q1_0",
}


def model_facts(headers: tuple[GgufHeader, ...], path: Path) -> ModelFacts:
    """Facts of the model whose parts have these headers, the first part first.

    Raises ``ModelInvalid`` for a file that holds no language model, or lacks what every one has.
    Images and sound take a second file, which this engine is not given: what it reads is text.
    """
    metadata = Metadata(headers[0], path)
    kind = metadata.general_text("general.type", "model")
    if kind != "model":
        raise metadata.invalid(f"holds a {kind}, not a model")
    if metadata.value("attention.causal") is False:
        raise metadata.invalid("holds an embedding model, which cannot generate text")
    if not sum(header.tensors_count for header in headers):
        raise metadata.invalid("has no weights")
    groups = layer_groups(metadata)
    bytes_by_type = _bytes_by_type(headers)
    chat_template = metadata.general_text("tokenizer.chat_template", "")
    return ModelFacts(
        digest=hashlib.sha256(b"".join(header.fingerprint for header in headers)).hexdigest(),
        architecture=metadata.architecture,
        name=metadata.general_text("general.name", path.stem),
        quantization=_quantization(headers, bytes_by_type),
        parameters_count=sum(header.parameters_count for header in headers),
        weights_bytes=sum(count for _, count in bytes_by_type),
        weights_bytes_by_type=bytes_by_type,
        layers_count=sum(group.layers_count for group in groups),
        embedding_length=metadata.number("embedding_length", least=1),
        vocabulary_size=metadata.general_elements(_TOKENS)
        or metadata.number("vocab_size", 0, most=MAX_CONTEXT),
        layer_groups=groups,
        train_context_tokens=metadata.number("context_length", least=1, most=MAX_CONTEXT),
        chat_template=chat_template,
        calls_tools=_MENTIONS_TOOLS.search(chat_template) is not None,
        thinks=_MENTIONS_THOUGHT.search(chat_template) is not None,
        position_switch_tokens=_position_switch_tokens(metadata),
    )


def _position_switch_tokens(metadata: Metadata) -> int:
    """The context that the model was first trained for, beyond which llama.cpp takes its long factors.

    Models of the Phi family have two sets of factors. YaRN names an original context, too, and has none.
    """
    if metadata.value("rope.scaling.type") == "yarn":
        return 0
    return metadata.number("rope.scaling.original_context_length", 0, most=MAX_CONTEXT)


def _bytes_by_type(headers: Sequence[GgufHeader]) -> tuple[tuple[str, int], ...]:
    """Bytes of the tensors of each type over all parts, largest first."""
    sums: dict[str, int] = {}
    for header in headers:
        for name, count in header.weights_by_type.items():
            sums[name] = sums.get(name, 0) + count
    return tuple(sorted(sums.items(), key=lambda each: (-each[1], each[0])))


def _quantization(headers: Sequence[GgufHeader], bytes_by_type: Sequence[tuple[str, int]]) -> str:
    """What the first part says, or the type of most bytes."""
    file_type = headers[0].values.get("general.file_type")
    if isinstance(file_type, int) and file_type in FILE_TYPES:
        return FILE_TYPES[file_type]
    return bytes_by_type[0][0]
