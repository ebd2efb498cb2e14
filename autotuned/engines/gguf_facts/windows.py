"""Which layers of a model attend to a window only, and how many tokens it has.

``layers`` asks. The rules are those of llama.cpp's model classes: most files say how large the window
is and not where it is, so the pattern comes with the architecture. A file may list its layers instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.engines.gguf_facts.metadata import MAX_CONTEXT, Metadata

_WINDOW = "attention.sliding_window"
_PATTERN = "attention.sliding_window_pattern"
# EXAONE 4 has windows in its 32B alone, which llama.cpp knows by its layers.
_EXAONE4_LAYERS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """Layer ``i`` of each ``period`` has a window, but the last one; or but the first one.

    ``period`` is what a file without the key means, 0 that all layers have one. ``default_tokens`` is
    the window without the key, 0 is none. ``fixed_tokens`` is the window whatever a file says above 0.
    """

    period: int = 0
    full_first: bool = False
    default_tokens: int = 0
    fixed_tokens: int = 0


_RULES = {
    "afmoe": _Rule(period=4),
    "cohere2": _Rule(period=4),
    "cohere2moe": _Rule(period=4, full_first=True),
    "dots3note": _Rule(),
    "exaone-moe": _Rule(period=4, default_tokens=128),
    "exaone4": _Rule(period=4, default_tokens=4096),
    "gemma2": _Rule(period=2, default_tokens=4096),
    "gemma3": _Rule(period=6),
    "gemma3n": _Rule(period=5),
    "gemma4": _Rule(),
    "gpt-oss": _Rule(period=2),
    "granite_swa": _Rule(),
    "laguna": _Rule(period=4, full_first=True),
    "lfm2": _Rule(),
    "llama4": _Rule(period=4, default_tokens=8192, fixed_tokens=8192),
    "mellum": _Rule(period=4),
    "mimo2": _Rule(),
    "muse-glimmer": _Rule(period=4),
    "olmo2": _Rule(period=4),
    "plamo3": _Rule(period=8),
    "smallthinker": _Rule(period=4, full_first=True, fixed_tokens=4096),
    "step35": _Rule(),
}
# All layers with attention have the window, whatever a file lists.
_FOR_ALL = {"lfm2"}
# Files of these have the keys of a window, and the engine does not use it.
_WITHOUT = {
    "deci",
    "granitehybrid",
    "llama",
    "mistral3",
    "nemotron_h",
    "phi3",
    "phimoe",
    "qwen2",
    "qwen2moe",
    "qwen2vl",
    "qwen3",
    "qwen3moe",
    "starcoder2",
}


def window_tokens(metadata: Metadata, layers_count: int, trunk_count: int) -> tuple[int, ...]:
    """The window of each layer; 0 for layers that attend to everything, as those behind the trunk do.

    An architecture that is newer than the rules has windows where the file lists the layers. Raises
    ``ModelInvalid``.
    """
    architecture = metadata.architecture
    has_windows = architecture in _RULES or metadata.elements(_PATTERN)
    if architecture in _WITHOUT or not has_windows:
        return (0,) * layers_count
    if architecture == "exaone4" and trunk_count != _EXAONE4_LAYERS:
        return (0,) * layers_count
    rule = _RULES.get(architecture, _Rule())
    tokens = metadata.number(_WINDOW, rule.default_tokens, most=MAX_CONTEXT)
    if tokens and rule.fixed_tokens:
        tokens = rule.fixed_tokens
    pattern = _pattern(metadata, rule, layers_count)
    return tuple(tokens * (pattern[layer] and layer < trunk_count) for layer in range(layers_count))


def _pattern(metadata: Metadata, rule: _Rule, layers_count: int) -> tuple[bool, ...]:
    """Which layers have a window."""
    said = metadata.value(_PATTERN)
    if isinstance(said, tuple) and metadata.architecture not in _FOR_ALL:
        # llama.cpp fills its table from the front; layers behind a shorter list have none.
        listed = tuple(bool(each) for each in said[:layers_count])
        return listed + (False,) * (layers_count - len(listed))
    is_number = isinstance(said, int) and not isinstance(said, bool)
    period = metadata.number(_PATTERN) if is_number and rule.period else rule.period
    if not period:
        return (True,) * layers_count
    full = 0 if rule.full_first else period - 1
    return tuple(layer % period != full for layer in range(layers_count))
