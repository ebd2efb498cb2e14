"""Small models with random weights, as files that llama.cpp loads: one for each kind of layer state.

``write_model(path, "gemma3", layers=6)`` writes one; ``random_architectures`` knows what tensors and
keys each architecture has. Vocabulary and chat template are those of the pocket model, so chats
work; the words that come out mean nothing. ``write_large_llama`` is for measurements.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from autotuned.engines.llamacpp.discovery import POCKET
from tests.engines.random_architectures import ARCHITECTURES
from tests.engines.random_parts import Model, Sizes, is_plain

# So many random numbers are drawn; larger tensors repeat them, which costs seconds less.
DRAWN = 1 << 20
STEP = 256


def write_model(
    path: Path, architecture: str = "llama", *, weights: str = "F16", seed: int = 0, **sizes: Any
) -> Path:
    """Writes a model and returns its path. ``weights`` is "F16", "F32", "Q8_0" or "Q4_0" (matrices alone).

    ``sizes`` are fields of ``Sizes``, beside ``keys``: metadata that replaces what the architecture
    has ("attention.sliding_window": 100, below the architecture's name; None takes a key away).
    """
    keys = sizes.pop("keys", {})
    model = ARCHITECTURES[architecture](Sizes(**sizes))
    _write(path, architecture, model, keys=keys, weights=weights, seed=seed)
    return path


def write_large_llama(
    path: Path,
    *,
    parameters_count: int = 130_000_000,
    weights: str = "Q8_0",
    train_context_tokens: int = 32_768,
    seed: int = 0,
) -> Path:
    """Writes a model of about so many parameters, in a second for each 500 MB.

    It has 8 layers of 8 KV heads with 128 elements: 32 KiB a token in F16, as much as one of 8B has in
    8 layers. The number of parameters decides how wide its feed-forward layers are.
    """
    sizes = {"layers": 8, "embedding": 1024, "heads": 8, "kv_heads": 8, "head_length": 128}
    attention = 4 * 1024 * 1024
    left = parameters_count - vocabulary_size() * 1024 - 8 * attention
    feed_forward = max(STEP, round(left / (8 * 3 * 1024) / STEP) * STEP)
    return write_model(
        path,
        "llama",
        weights=weights,
        seed=seed,
        feed_forward=feed_forward,
        train_context=train_context_tokens,
        **sizes,
    )


def vocabulary_size() -> int:
    """Tokens of the pocket model, which every model here has."""
    return len(_pocket_tokenizer()["tokenizer.ggml.tokens"])


@cache
def _pocket_tokenizer() -> dict[str, Any]:
    fields = gguf.GGUFReader(POCKET).fields
    return {key: field.contents() for key, field in fields.items() if key.startswith("tokenizer.")}


def _write(
    path: Path, architecture: str, model: Model, *, keys: dict[str, Any], weights: str, seed: int
) -> None:
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_string("general.name", "random weights")
    for key, value in (model.keys | keys).items():
        if value is not None:
            _add(writer, f"{architecture}.{key}", value)
    for key, value in _pocket_tokenizer().items():
        _add(writer, key, value)
    drawn = np.random.default_rng(seed).standard_normal(DRAWN, dtype=np.float32)
    for name, shape in model.tensors.items():
        _add_tensor(writer, name, shape, drawn, "F32" if is_plain(name) else weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _add_tensor(
    writer: gguf.GGUFWriter, name: str, shape: tuple[int, ...], drawn: np.ndarray, weights: str
) -> None:
    """Adds a tensor. ``shape`` has the length of a row first, as the format has it."""
    rows = shape[::-1]
    count = int(np.prod(shape))
    if name.endswith("ssm_a"):
        writer.add_tensor(name, np.full(rows, -1, np.float32))
        return
    if len(shape) == 1 and name.endswith(".weight"):
        writer.add_tensor(name, np.ones(rows, np.float32))
        return
    if len(shape) == 1 or weights == "F32":
        writer.add_tensor(name, np.resize(drawn * np.float32(0.02), count).reshape(rows))
        return
    if weights == "F16":
        writer.add_tensor(name, np.resize((drawn * np.float32(0.02)).astype(np.float16), count).reshape(rows))
        return
    block_bytes, blocks = _blocks(drawn, weights)
    stored = np.resize(blocks, count // 32).view(np.uint8)
    stored = stored.reshape(*rows[:-1], rows[-1] // 32 * block_bytes)
    writer.add_tensor(name, stored, raw_dtype=gguf.GGMLQuantizationType[weights])


def _blocks(drawn: np.ndarray, weights: str) -> tuple[int, np.ndarray]:
    """Bytes of a block, and blocks: 32 elements with one scale, in 8 bits or in 4 with an offset of 8."""
    count = DRAWN // 32
    values = np.clip(drawn * 32, -127, 127).astype(np.int8).reshape(-1, 32)
    if weights == "Q8_0":
        blocks = np.zeros(count, np.dtype([("scale", "<f2"), ("values", "i1", 32)]))
        blocks["values"] = values
    else:
        blocks = np.zeros(count, np.dtype([("scale", "<f2"), ("values", "u1", 16)]))
        halves = (values // 16 + 8).astype(np.uint8)
        blocks["values"] = halves[:, :16] | (halves[:, 16:] << 4)
    blocks["scale"] = 0.02 / 32 if weights == "Q8_0" else 0.02 / 2
    return blocks.dtype.itemsize, blocks
