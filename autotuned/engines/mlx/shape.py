"""What a worker is told to be, the shape that this comes to, and the bytes that it reports.

``engine`` uses it for each load. Invariant: a shape that was not applied is never reported as applied.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.memory import Footprint
from autotuned.core.model import ModelEntry
from autotuned.core.plan import KvCacheType, LoadShape
from autotuned.engines.mlx.protocol import LoadReport, WorkerSettings

QUANTISED_BITS = 8


def applied_shape(planned: LoadShape) -> LoadShape:
    """The shape that a worker gives this plan. Raises ``ModelLoadFailed`` for one that none can have."""
    if planned.key_cache_type is not planned.value_cache_type:
        raise ModelLoadFailed(
            "MLX keeps keys and values in one type; ask for the same key and value cache types."
        )
    batch_tokens = min(planned.batch_tokens, planned.context_tokens)
    return replace(
        planned,
        batch_tokens=batch_tokens,
        micro_batch_tokens=batch_tokens,
        # MLX has no knob for these: one request at a time, and weights that are read into memory.
        slots_count=1,
        kv_unified=False,
        memory_mapped=False,
    )


def worker_settings(
    entry: ModelEntry, shape: LoadShape, *, socket_path: Path, prefix_folder: Path
) -> WorkerSettings:
    """The argument of the worker program."""
    return WorkerSettings(
        model=entry.path,
        alias=entry.id,
        socket=os.fspath(socket_path),
        prefix_folder=os.fspath(prefix_folder),
        context_tokens=shape.context_tokens,
        batch_tokens=shape.batch_tokens,
        cache_bits=QUANTISED_BITS if shape.key_cache_type is KvCacheType.Q8_0 else 0,
        prompt_cache_bytes=shape.host_prompt_cache_bytes,
    )


def footprint(report: LoadReport, shape: LoadShape) -> Footprint:
    """The bytes of a loaded model. The KV cache is what the whole context takes; it grows as it is used."""
    return Footprint(
        weights_bytes=report.weights_bytes,
        repacked_weights_bytes=0,
        kv_cache_bytes=report.kv_cache_bytes,
        compute_bytes=report.compute_bytes,
        process_bytes=max(0, report.resident_bytes - report.active_bytes),
        host_prompt_cache_bytes=shape.host_prompt_cache_bytes,
    )
