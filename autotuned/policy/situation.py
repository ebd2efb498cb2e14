"""What a plan looks at beside the request: the model, what is configured, what was learned, memory.

``services`` assemble it before each plan; every module of ``policy`` that decides over memory reads it.
Invariant: one situation is one moment; nothing in it changes while a plan is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autotuned.core.learning import Learned
from autotuned.core.memory import Footprint, MemoryView
from autotuned.core.model import ModelFacts
from autotuned.core.plan import LoadShape


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapeDefaults:
    """What is configured of a load, and the cores that compute it.

    ``batch_tokens`` 0 chooses. ``kv_cache`` "auto" takes the profile's type, and Q8_0 when memory is
    short; the others are kept whatever happens. ``margin_bytes`` stay free after a load;
    ``prompt_cache_share`` is the share of what is left that the host prompt cache may take. Where a
    ``gpu`` computes, all layers are offered to it. ``assumed`` names the fields of a shape that the engine
    decides for itself.
    """

    slots_count: int
    batch_tokens: int
    flash_attention: bool
    kv_cache: Literal["auto", "f16", "q8_0"]
    memory_mapped: bool
    cores_count: int
    margin_bytes: int
    prompt_cache_share: float
    gpu: bool
    assumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """The state that a plan is made in.

    ``memory.residents`` never holds the model itself. ``loaded`` is its shape, None where it is not in
    memory; ``loaded_freed_bytes`` is what unloading it adds to the memory that can be had;
    ``loaded_promised_bytes`` of them it has not taken yet, as with ``Resident``. ``loaded_footprint`` is
    what the engine measured of it, None where nobody knows.
    """

    facts: ModelFacts
    learned: Learned
    defaults: ShapeDefaults
    memory: MemoryView
    loaded: LoadShape | None = None
    loaded_freed_bytes: int = 0
    loaded_promised_bytes: int = 0
    loaded_footprint: Footprint | None = None
