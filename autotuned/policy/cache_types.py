"""How the elements of a KV cache are stored: decided at a load, kept by a growth.

``plan`` calls it. The configuration decides, then the profile of the first load; memory that is short
makes a cache Q8_0 that nobody configured. Invariant: the types are ones that the engine can store.
"""

from __future__ import annotations

from dataclasses import dataclass

from autotuned.core.memory import PressureTier
from autotuned.core.model import CacheLayout, ModelFacts
from autotuned.core.plan import KvCacheType, LoadShape, Need, Reason
from autotuned.policy import reasons
from autotuned.policy.kv import fits_blocks, has_latent_attention
from autotuned.policy.profiles import PROFILES
from autotuned.policy.situation import ShapeDefaults, Situation

F16, Q8_0 = KvCacheType.F16, KvCacheType.Q8_0


@dataclass(frozen=True, slots=True)
class CacheTypes:
    """Types of keys and values."""

    key: KvCacheType
    value: KvCacheType


def first_types(need: Need, situation: Situation) -> tuple[CacheTypes, tuple[Reason, ...]]:
    """The types of a load, and why they are what they are."""
    defaults, pressure = situation.defaults, situation.memory.pressure
    if defaults.kv_cache == "f16":
        return CacheTypes(F16, F16), ()
    if defaults.kv_cache == "q8_0":
        why = reasons.CONFIGURED_CACHE
    elif PROFILES[need.profile].kv_cache_type is Q8_0:
        why = reasons.profile_cache(need.profile)
    elif pressure >= PressureTier.HIGH:
        why = reasons.pressed_cache(pressure)
    else:
        return CacheTypes(F16, F16), ()
    types = quantised_types(situation.facts, defaults)
    obstacles = _obstacles(situation.facts, defaults)
    return types, obstacles if types == CacheTypes(F16, F16) else (why, *obstacles)


def grown_types(loaded: LoadShape, situation: Situation) -> tuple[CacheTypes, tuple[Reason, ...]]:
    """The types of a loaded model that is loaded again; only high pressure changes them."""
    kept = CacheTypes(loaded.key_cache_type, loaded.value_cache_type)
    pressure = situation.memory.pressure
    if pressure < PressureTier.HIGH:
        return kept, ()
    smaller = smaller_types(kept, situation.facts, situation.defaults)
    return (kept, ()) if smaller == kept else (smaller, (reasons.pressed_cache(pressure),))


def whole_types(situation: Situation) -> CacheTypes:
    """The largest types that the configuration allows."""
    if situation.defaults.kv_cache == "q8_0":
        return quantised_types(situation.facts, situation.defaults)
    return CacheTypes(F16, F16)


def smaller_types(types: CacheTypes, facts: ModelFacts, defaults: ShapeDefaults) -> CacheTypes:
    """What these types become where memory is short: Q8_0, unless the types are configured."""
    if defaults.kv_cache != "auto":
        return types
    quantised = quantised_types(facts, defaults)
    return CacheTypes(
        Q8_0 if types.key is Q8_0 else quantised.key, Q8_0 if types.value is Q8_0 else quantised.value
    )


def quantised_types(facts: ModelFacts, defaults: ShapeDefaults) -> CacheTypes:
    """Q8_0 where every head divides into its blocks; values also need flash attention.

    Keys that stand for the values, too, have the type of the values, and MLX cannot quantise them. Of
    others it keeps keys and values in one type.
    """
    is_mlx = facts.cache_layout is CacheLayout.MLX
    if is_mlx and has_latent_attention(facts):
        return CacheTypes(F16, F16)
    key = _storable(_key_lengths(facts))
    value = _storable(_value_lengths(facts)) if defaults.flash_attention else F16
    if (is_mlx or has_latent_attention(facts)) and key is not value:
        return CacheTypes(F16, F16)
    return CacheTypes(key, value)


def _obstacles(facts: ModelFacts, defaults: ShapeDefaults) -> tuple[Reason, ...]:
    """Why keys or values stay F16."""
    found = [reasons.odd_heads("key", length) for length in _odd(_key_lengths(facts))]
    if not defaults.flash_attention:
        found.append(reasons.NO_FLASH_ATTENTION)
    else:
        found += [reasons.odd_heads("value", length) for length in _odd(_value_lengths(facts))]
    if found and has_latent_attention(facts):
        found.append(reasons.LATENT_ATTENTION)
    return tuple(found)


def _odd(lengths: tuple[int, ...]) -> tuple[int, ...]:
    """The first length that no Q8_0 cache can have; nothing where all can."""
    return tuple(length for length in lengths if not fits_blocks(length, Q8_0))[:1]


def _storable(lengths: tuple[int, ...]) -> KvCacheType:
    return F16 if _odd(lengths) else Q8_0


def _key_lengths(facts: ModelFacts) -> tuple[int, ...]:
    return tuple(group.key_length for group in facts.layer_groups if group.kv_heads)


def _value_lengths(facts: ModelFacts) -> tuple[int, ...]:
    """Layers with latent attention store no values: their length of 0 fits any type."""
    return tuple(group.value_length for group in facts.layer_groups if group.kv_heads)
