"""What the layers of each architecture keep in mlx_lm's caches.

``facts`` calls it. The caches are those that ``make_cache`` of the architecture makes: full attention,
windows (``RotatingKVCache``), recurrent state (``ArraysCache``, in ``recurrent``). An architecture that is
not named here attends to everything in all layers, which is what mlx_lm does where nothing else is said.
Invariant: the groups add up to the layers of the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from autotuned.core.model import LayerGroup
from autotuned.engines.mlx import recurrent
from autotuned.engines.mlx.configuration import FULL, SLIDING, Configuration

Layers = Callable[[Configuration], Sequence[LayerGroup]]


def layer_groups(configuration: Configuration, element_bytes: int) -> tuple[LayerGroup, ...]:
    """Layers that keep the same, those of the first layer first."""
    name = configuration.model_type
    layers: Sequence[LayerGroup]
    if name in recurrent.ARCHITECTURES:
        layers = recurrent.ARCHITECTURES[name](configuration, element_bytes)
    else:
        layers = _ARCHITECTURES.get(name, _plain)(configuration)
    return tuple(replace(layer, layers_count=count) for layer, count in Counter(layers).items())


def _plain(configuration: Configuration) -> list[LayerGroup]:
    return [configuration.attention()] * configuration.layers_count


def _typed(configuration: Configuration, kinds: Sequence[str]) -> list[LayerGroup]:
    """Windows where the kind of a layer says so."""
    window = configuration.number("sliding_window")
    full, sliding = configuration.attention(), configuration.attention(window_tokens=window)
    return [full if kind == FULL else sliding for kind in kinds]


def _listed(configuration: Configuration) -> list[LayerGroup]:
    """Layers as they are listed; all of them attend to everything where there is no list."""
    return _typed(configuration, configuration.kinds or [FULL] * configuration.layers_count)


def _every(configuration: Configuration, period: int) -> list[LayerGroup]:
    """The last layer of each period attends to everything."""
    places = range(configuration.layers_count)
    return _typed(
        configuration,
        [FULL if period and place % period == period - 1 else SLIDING for place in places],
    )


def _gemma3(configuration: Configuration) -> list[LayerGroup]:
    configuration = configuration.with_defaults(
        {"head_dim": 256, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 512}
        if configuration.model_type == "gemma3"
        else {"head_dim": 256, "sliding_window": 512}
    )
    return _every(configuration, configuration.number("sliding_window_pattern", default=6))


def _cohere2(configuration: Configuration) -> list[LayerGroup]:
    configuration = configuration.with_defaults({"head_dim": 128, "sliding_window": 4096})
    return _every(configuration, configuration.number("sliding_window_pattern", default=4))


def _gpt_oss(configuration: Configuration) -> list[LayerGroup]:
    configuration = configuration.with_defaults({"head_dim": 64, "sliding_window": 128})
    if configuration.kinds:
        return _typed(configuration, configuration.kinds)
    return _every(configuration, 2)


def _olmo3(configuration: Configuration) -> list[LayerGroup]:
    return _typed(configuration, configuration.kinds) if configuration.kinds else _every(configuration, 4)


def _exaone4(configuration: Configuration) -> list[LayerGroup]:
    """A word of L (local) and G (global) that repeats; without one everything is global."""
    pattern = configuration.value("sliding_window_pattern")
    if not isinstance(pattern, str) or not pattern:
        return _plain(configuration)
    places = range(configuration.layers_count)
    kinds = [SLIDING if pattern[place % len(pattern)] == "L" else FULL for place in places]
    return _typed(configuration, kinds)


def _gemma3n(configuration: Configuration) -> list[LayerGroup]:
    """The last layers use the caches of others."""
    shared = configuration.number("num_kv_shared_layers")
    own = max(configuration.layers_count - shared, 0)
    return [*_typed(configuration, configuration.kinds[:own]), *[LayerGroup(layers_count=1)] * shared]


def _latent(configuration: Configuration) -> list[LayerGroup]:
    """One latent vector and one part for the positions stand for keys and values of all heads."""
    length = configuration.number("kv_lora_rank") + configuration.number("qk_rope_head_dim")
    layer = LayerGroup(layers_count=1, kv_heads=1, key_length=length)
    return [layer] * configuration.layers_count


def _deepseek2(configuration: Configuration) -> list[LayerGroup]:
    """Latent attention whose keys and values are kept in full."""
    key = configuration.number("qk_nope_head_dim") + configuration.number("qk_rope_head_dim")
    layer = LayerGroup(
        layers_count=1,
        kv_heads=configuration.number("num_attention_heads"),
        key_length=key,
        value_length=configuration.number("v_head_dim"),
    )
    return [layer] * configuration.layers_count


_ARCHITECTURES: Mapping[str, Layers] = {
    **dict.fromkeys(("llama", "mistral", "ministral3", "iquestcoder", "xverse"), _listed),
    **dict.fromkeys(("gemma3", "gemma3_text"), _gemma3),
    "gemma3n": _gemma3n,
    "cohere2": _cohere2,
    "gpt_oss": _gpt_oss,
    "olmo3": _olmo3,
    "exaone4": _exaone4,
    "deepseek_v2": _deepseek2,
    **dict.fromkeys(("deepseek_v3", "kimi_k2", "joyai_llm_flash", "glm4_moe_lite"), _latent),
}
