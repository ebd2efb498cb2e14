"""The values of a model's ``config.json``, read with care: foreign files say anything.

``facts``, ``layers`` and ``recurrent`` read it. Invariant: a number is a number, and never negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autotuned.core.model import LayerGroup

MAX_LAYERS = 10_000
FULL, SLIDING = "full_attention", "sliding_attention"


class Configuration:
    """The values; those of the language model come first where it is a part of another."""

    def __init__(self, values: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> None:
        inner = values.get("text_config")
        self._inner: Mapping[str, Any] = inner if isinstance(inner, dict) else {}
        self._values = values
        self._defaults = defaults or {}
        name = values.get("model_type") or self._inner.get("model_type")
        self.model_type = name if isinstance(name, str) else ""

    def with_defaults(self, defaults: Mapping[str, Any]) -> Configuration:
        """The same with what an architecture takes where nothing is said."""
        return Configuration(self._values, defaults)

    def value(self, name: str, default: Any = None) -> Any:
        """A value; the default where it is absent or null."""
        for values in (self._inner, self._values, self._defaults):
            if values.get(name) is not None:
                return values[name]
        return default

    def number(self, *names: str, default: int = 0) -> int:
        """The first of these that is there."""
        for name in names:
            found = self.value(name)
            if isinstance(found, int | float) and not isinstance(found, bool) and 0 <= found < 1 << 50:
                return int(found)
        return default

    @property
    def layers_count(self) -> int:
        """The layers of the model."""
        return min(self.number("num_hidden_layers", "n_layer", "n_layers", "num_layers"), MAX_LAYERS)

    @property
    def kinds(self) -> list[str]:
        """What each layer is, where that is listed."""
        found = self.value("layer_types")
        if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
            return []
        return found[: self.layers_count]

    def attention(self, window_tokens: int = 0) -> LayerGroup:
        """One layer of plain attention."""
        heads = self.number("num_attention_heads", "n_head", "n_heads", default=1) or 1
        length = self.number("head_dim") or self.number("hidden_size", "d_model", "n_embd") // heads
        return LayerGroup(
            layers_count=1,
            kv_heads=self.number("num_key_value_heads", default=heads),
            key_length=length,
            value_length=length,
            window_tokens=window_tokens,
        )
