"""How fast a model would answer, by estimate: each token reads what computes it from memory.

``recommend`` and ``services.hardware`` ask. Sources: a decode step reads all active weights once, so that
bandwidth bounds it; what comes on top is a fixed time a layer. The constants fit the figures that llama.cpp
publishes for a 7 B model in Q4_0 on Apple silicon (14 tokens/s on an M1 with 68 GB/s, 83 on an M4 Max with
546 GB/s) and for the same on CUDA, and for processors what ``tests/bench`` measures.
Invariant: more bandwidth is never slower, more bytes never faster; 0 where the bandwidth is unknown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from autotuned.core.hardware import Bandwidth
from autotuned.core.model import ModelFacts
from autotuned.core.registry import RegistryModel
from autotuned.policy.places import Place, PlaceBudget

# Share of the bandwidth that a decode step reaches; the experts of a mixture lie scattered.
REACHED_RATIO = 0.85
MIXTURE_REACHED_RATIO = 0.6
# Of what architectures the files are mixtures of experts: "moe" is in the name of most. Some of llama.cpp's
# and MLX's are called otherwise.
MIXTURE = "moe"
OTHER_MIXTURES = (
    "arctic", "dbrx", "deepseek", "dots1", "gpt-oss", "grok", "jamba", "kimi", "llama4", "minimax", "mixtral",
    "qwen3next", "smallthinker",
)  # fmt: skip
# What a layer takes beside reading it: starting kernels, waiting for all threads.
LAYER_SECONDS: Mapping[Place, float] = MappingProxyType(
    {Place.RAM: 0.10e-3, Place.UNIFIED: 0.14e-3, Place.GPU: 0.04e-3}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoding:
    """What computes one token: ``active_ratio`` of the weights, 1 where it is no mixture of experts."""

    weights_bytes: int
    layers_count: int
    active_ratio: float = 1.0


def decoding_of(model: RegistryModel, weights_bytes: int) -> Decoding:
    """The decoding of one of its downloads."""
    return Decoding(
        weights_bytes=weights_bytes,
        layers_count=model.layers_count,
        active_ratio=min(model.active_parameters_count / max(model.parameters_count, 1), 1.0),
    )


def decode_tokens_per_second(decoding: Decoding, place: Place, bandwidth: Bandwidth) -> float:
    """Tokens a second of one conversation at its beginning; 0 where it cannot be estimated."""
    active_bytes = decoding.weights_bytes * decoding.active_ratio
    if not bandwidth.bytes_per_second or active_bytes <= 0:
        return 0.0
    reached = REACHED_RATIO if decoding.active_ratio == 1.0 else MIXTURE_REACHED_RATIO
    reading_seconds = active_bytes / (reached * bandwidth.bytes_per_second)
    return 1.0 / (reading_seconds + decoding.layers_count * LAYER_SECONDS[place])


def installed_tokens_per_second(
    facts: ModelFacts, required_bytes: int, known: RegistryModel | None, budgets: Sequence[PlaceBudget]
) -> float:
    """Speed of an installed model where it would run; 0 where its active parameters are not known.

    Files of mixtures of experts do not tell how many of their parameters compute a token: the registry does.
    """
    place = next((each for each in budgets if each.is_used and required_bytes <= each.capacity_bytes), None)
    if place is None or (known is None and _is_mixture(facts.architecture)):
        return 0.0
    decoding = Decoding(weights_bytes=facts.weights_bytes, layers_count=facts.layers_count)
    if known is not None:
        decoding = decoding_of(known, facts.weights_bytes)
    return decode_tokens_per_second(decoding, place.place, place.bandwidth)


def _is_mixture(architecture: str) -> bool:
    """Whether only a part of the weights may compute a token."""
    name = architecture.lower().replace("_", "-")
    return MIXTURE in name or name.replace("qwen3-next", "qwen3next").startswith(OTHER_MIXTURES)
