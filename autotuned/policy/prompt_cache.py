"""How much memory the engine may fill with KV states of conversations that are in no slot.

``plan`` asks at each load. It is optional memory: it takes a share of what a load leaves, and nothing
once memory is in demand.
"""

from __future__ import annotations

from autotuned.core.memory import PressureTier

LARGEST_BYTES = 8 << 30
SMALLEST_BYTES = 16 << 20
STEP_BYTES = 1 << 20


def host_prompt_cache_bytes(share: float, left_bytes: int, pressure: PressureTier) -> int:
    """Its budget in whole MiB: ``share`` of the bytes that the load leaves beyond its margin, at most 8 GiB.

    0 below 16 MiB, where no conversation would fit, and from ELEVATED pressure on.
    """
    if pressure >= PressureTier.ELEVATED:
        return 0
    budget = min(int(max(left_bytes, 0) * share), LARGEST_BYTES) // STEP_BYTES * STEP_BYTES
    return budget if budget >= SMALLEST_BYTES else 0
