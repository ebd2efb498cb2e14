"""From the header of a GGUF file to the facts that planning needs.

``discovery`` calls it. The keys are those of llama.cpp's ``llama-arch``; a key that is absent takes
the default that llama.cpp takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from autotuned.core.errors import ModelInvalid
from autotuned.core.model import ModelFacts
from autotuned.engines.gguf import GgufHeader, Value, invalid_file

MAX_LAYERS = 1024
MAX_NUMBER = 1 << 31

# Keys, below the architecture's name, of layers that keep less or other state than plain attention.
OTHER_STATE_KEYS = (
    "attention.sliding_window",
    "attention.chunk_size",
    "attention.kv_lora_rank",
    "attention.key_length_mla",
    "attention.shared_kv_layers",
    "attention.recurrent_layers",
    "full_attention_interval",
    "ssm.",
    "shortconv.",
    "wkv.",
)

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
    """
    values = _Values(headers[0].values, path)
    kind = values.text("general.type", "model")
    if kind != "model":
        raise values.invalid(f"holds a {kind}, not a model")
    architecture = values.text("general.architecture")
    if values.values.get(f"{architecture}.attention.causal") is False:
        raise values.invalid("holds an embedding model, which cannot generate text")
    if not sum(header.tensors_count for header in headers):
        raise values.invalid("has no weights")
    layers_count = values.number(f"{architecture}.block_count", least=1, most=MAX_LAYERS)
    embedding_length = values.number(f"{architecture}.embedding_length", least=1)
    heads = values.per_layer(
        f"{architecture}.attention.head_count", layers_count, default=(0,) * layers_count
    )
    kv_heads = values.per_layer(f"{architecture}.attention.head_count_kv", layers_count, default=heads)
    head_length = embedding_length // max(heads) if any(heads) else 0
    return ModelFacts(
        architecture=architecture,
        name=values.text("general.name", path.stem),
        quantization=_quantization(headers),
        parameters_count=sum(header.parameters_count for header in headers),
        weights_bytes=sum(header.weights_bytes for header in headers),
        layers_count=layers_count,
        embedding_length=embedding_length,
        kv_heads_per_layer=kv_heads,
        key_length=values.number(f"{architecture}.attention.key_length", head_length),
        value_length=values.number(f"{architecture}.attention.value_length", head_length),
        train_context_tokens=values.number(f"{architecture}.context_length", least=1),
        kv_is_dense=all(kv_heads) and not _has_other_state(values.values, architecture),
        chat_template=values.text("tokenizer.chat_template", ""),
    )


class _Values:
    """The metadata of one file, read with the types that its keys must have."""

    def __init__(self, values: Mapping[str, Value], path: Path) -> None:
        self.values = values
        self._path = path

    def invalid(self, problem: str) -> ModelInvalid:
        """The error that says what is wrong with this file."""
        return invalid_file(self._path, problem)

    def text(self, key: str, default: str | None = None) -> str:
        """A text. Raises ``ModelInvalid`` when it is another type, or absent without a default."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            raise self._missing_or_wrong(key, "text")
        return value

    def number(self, key: str, default: int | None = None, *, least: int = 0, most: int = MAX_NUMBER) -> int:
        """A whole number within bounds. Raises ``ModelInvalid`` like ``text``."""
        value = self.values.get(key, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._missing_or_wrong(key, "a whole number")
        return self._in_range(key, value, least, most)

    def per_layer(self, key: str, layers_count: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """A number for each layer, whether the file has one for all or one for each."""
        value = self.values.get(key)
        if value is None and key not in self.values:
            return default
        if not isinstance(value, tuple):
            return (self.number(key),) * layers_count
        if len(value) != layers_count:
            raise self.invalid(f'has {len(value):,} values for "{key}", but {layers_count:,} layers')
        return tuple(self._whole(key, entries) for entries in value)

    def _whole(self, key: str, value: float) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise self._missing_or_wrong(key, "a list of whole numbers")
        return self._in_range(key, value, 0, MAX_NUMBER)

    def _in_range(self, key: str, value: int, least: int, most: int) -> int:
        if not least <= value <= most:
            raise self.invalid(f'has {value:,} for "{key}", which no model has')
        return value

    def _missing_or_wrong(self, key: str, expected: str) -> ModelInvalid:
        if key in self.values:
            return self.invalid(f'has a value for "{key}" that is not {expected}')
        return self.invalid(f'does not say its "{key}", so that no engine here can run it')


def _has_other_state(values: Mapping[str, Value], architecture: str) -> bool:
    prefixes = tuple(f"{architecture}.{key}" for key in OTHER_STATE_KEYS)
    return any(key.startswith(prefixes) and value != 0 for key, value in values.items())


def _quantization(headers: Iterable[GgufHeader]) -> str:
    """What the file says, or the type of most of its bytes."""
    bytes_by_type: dict[str, int] = {}
    for header in headers:
        file_type = header.values.get("general.file_type")
        if isinstance(file_type, int) and file_type in FILE_TYPES:
            return FILE_TYPES[file_type]
        for name, count in header.weights_by_type.items():
            bytes_by_type[name] = bytes_by_type.get(name, 0) + count
    return max(bytes_by_type, key=lambda name: bytes_by_type[name])
