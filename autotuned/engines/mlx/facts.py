"""From a folder in Hugging Face's layout to the facts that planning needs, without MLX.

``discovery`` calls it; ``layers`` knows what each architecture keeps. The keys are those of
``config.json``; one that is absent takes the default that mlx_lm takes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import CacheLayout, ModelFacts
from autotuned.engines.gguf_content import fingerprint
from autotuned.engines.mlx.configuration import Configuration
from autotuned.engines.mlx.layers import layer_groups
from autotuned.engines.mlx.safetensors import SafetensorsHeader, Tensor, read_header

# What mlx_lm loads of a folder.
WEIGHTS = "model*.safetensors"
MAX_CONTEXT = 1 << 30
MAX_TEXT_BYTES = 32 << 20
ELEMENT_BYTES = {"F32": 4, "BF16": 2, "F16": 2}
PACKED = "U32"
PACKED_BITS = 32

_MENTIONS_TOOLS = re.compile(r"\btools\b")
# A template that begins a thought, closes one, or takes a switch for it.
_MENTIONS_THOUGHT = re.compile(r"enable_thinking|reasoning_effort|<think>|<\|channel\|>analysis")


def model_facts(folder: Path) -> ModelFacts:
    """Facts of the model in this folder. Raises ``ModelInvalid`` for one that mlx_lm cannot load."""
    values = _object(folder, "config.json")
    if values.get("model_file"):
        raise _invalid(folder, "brings program code of its own, which is not run")
    configuration = Configuration(values)
    if not configuration.model_type:
        raise _invalid(folder, "has a config.json that names no model type")
    paths = sorted(folder.glob(WEIGHTS))
    if not paths:
        raise _invalid(folder, f"has no weights ({WEIGHTS})")
    headers = [read_header(path) for path in paths]
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    element_bytes = _cache_element_bytes(tensors)
    groups = layer_groups(configuration, element_bytes)
    bytes_by_type = _bytes_by_type(tensors)
    tokenizer = _object(folder, "tokenizer_config.json")
    template = _chat_template(folder, tokenizer)
    return ModelFacts(
        digest=_digest(folder, headers),
        architecture=configuration.model_type,
        name=folder.name,
        quantization=_quantization(values, bytes_by_type),
        parameters_count=_parameters_count(values, tensors),
        weights_bytes=sum(count for _, count in bytes_by_type),
        weights_bytes_by_type=bytes_by_type,
        layers_count=sum(group.layers_count for group in groups),
        embedding_length=configuration.number("hidden_size", "d_model", "n_embd"),
        vocabulary_size=configuration.number("vocab_size"),
        layer_groups=groups,
        train_context_tokens=_context_tokens(configuration, tokenizer),
        chat_template=template,
        calls_tools=_MENTIONS_TOOLS.search(template) is not None,
        thinks=_MENTIONS_THOUGHT.search(template) is not None,
        cache_layout=CacheLayout.MLX,
        cache_element_bytes=element_bytes,
    )


def _context_tokens(configuration: Configuration, tokenizer: Mapping[str, Any]) -> int:
    """What the positions reach to; YaRN stretches those that the model was first trained for."""
    count = configuration.number("max_position_embeddings", "n_positions", "max_seq_len")
    scaling = configuration.value("rope_scaling", {})
    if isinstance(scaling, dict) and scaling.get("rope_type", scaling.get("type")) == "yarn":
        factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
        if isinstance(factor, int | float) and isinstance(original, int):
            count = max(count, int(factor * original))
    if not count:
        limit = tokenizer.get("model_max_length")
        count = int(limit) if isinstance(limit, int | float) and 0 < limit <= MAX_CONTEXT else 0
    return min(count, MAX_CONTEXT)


def _bytes_by_type(tensors: Mapping[str, Tensor]) -> tuple[tuple[str, int], ...]:
    """Bytes of the tensors of each type, largest first."""
    sums: dict[str, int] = {}
    for tensor in tensors.values():
        sums[tensor.dtype] = sums.get(tensor.dtype, 0) + tensor.bytes_count
    return tuple(sorted(sums.items(), key=lambda each: (-each[1], each[0])))


def _quantization(values: Mapping[str, Any], bytes_by_type: Sequence[tuple[str, int]]) -> str:
    """What mlx_lm wrote into the configuration, or the type of most bytes."""
    return written_quantization(values) or (bytes_by_type[0][0] if bytes_by_type else "")


def written_quantization(values: Mapping[str, Any]) -> str:
    """What a configuration says of its model's weights, as in "4-bit"; "" where it says nothing."""
    bits = _quantization_values(values).get("bits")
    if not isinstance(bits, int):
        return ""
    mode = _quantization_values(values).get("mode", "affine")
    return f"{bits}-bit" if mode == "affine" else f"{mode} {bits}-bit"


def _quantization_values(values: Mapping[str, Any]) -> Mapping[str, Any]:
    found = values.get("quantization") or values.get("quantization_config")
    return found if isinstance(found, dict) else {}


def _parameters_count(values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
    """Weights as they were trained: several are packed into one element of a quantised tensor."""
    quantization = _quantization_values(values)
    count = 0
    for name, tensor in tensors.items():
        stem, _, last = name.rpartition(".")
        is_quantised = f"{stem}.scales" in tensors
        if is_quantised and last in {"scales", "biases"}:
            continue
        if is_quantised and tensor.dtype == PACKED:
            own = quantization.get(stem)
            bits = (own if isinstance(own, dict) else quantization).get("bits", 4)
            count += tensor.elements_count * PACKED_BITS // max(int(bits), 1)
        else:
            count += tensor.elements_count
    return count


def _cache_element_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Keys and values have the type that the model computes in: that of its embeddings or their scales."""
    for ending in ("embed_tokens.scales", "embed_tokens.weight"):
        for name, tensor in tensors.items():
            if name.endswith(ending) and tensor.dtype in ELEMENT_BYTES:
                return ELEMENT_BYTES[tensor.dtype]
    counts: dict[str, int] = {}
    for tensor in tensors.values():
        counts[tensor.dtype] = counts.get(tensor.dtype, 0) + 1
    known = [dtype for dtype in ELEMENT_BYTES if dtype in counts]
    return ELEMENT_BYTES[max(known, key=lambda dtype: counts[dtype])] if known else 2


def _digest(folder: Path, headers: Sequence[SafetensorsHeader]) -> str:
    """The content: configuration, tokenizer, and for each file of weights what ``gguf_content`` covers."""
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"):
        try:
            with (folder / name).open("rb") as file:
                digest.update(fingerprint(file, header_bytes=0, file_bytes=file.seek(0, 2)))
        except OSError:
            digest.update(b"-")
    for header in headers:
        digest.update(header.fingerprint)
    return digest.hexdigest()


def _chat_template(folder: Path, tokenizer: Mapping[str, Any]) -> str:
    """The file of its own where there is one, else what the tokenizer's configuration says."""
    path = folder / "chat_template.jinja"
    try:
        if path.stat().st_size <= MAX_TEXT_BYTES:
            return path.read_text("utf-8", "replace")
    except OSError:
        pass
    template = tokenizer.get("chat_template")
    if template is None:
        template = _object(folder, "chat_template.json").get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else ""


def _object(folder: Path, name: str) -> dict[str, Any]:
    """A JSON object of the folder; empty where there is none. Raises ``ModelInvalid`` for a damaged one."""
    path = folder / name
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise _invalid(folder, f"has a {name} that is too large")
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError:
        return {}
    except (ValueError, RecursionError) as error:
        raise _invalid(folder, f"has a damaged {name} ({error})") from error


def _invalid(folder: Path, problem: str) -> ModelInvalid:
    return ModelInvalid(f'"{folder}" {problem}; use another model or download it again.', path=str(folder))
