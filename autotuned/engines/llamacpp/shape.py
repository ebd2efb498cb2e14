"""What a worker is told to be, and what it then reports to be.

``engine`` makes a worker's settings with ``worker_settings`` and checks the worker with
``applied_shape``. Invariant: a shape that was not applied is never reported as applied.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import msgspec
import psutil

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import ModelEntry
from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT, LoadShape

# The engine rounds the context of a slot up to whole steps.
CONTEXT_STEP = 256
# Beside those that stream, so many requests (counts, health) are answered at the same time.
SPARE_HTTP_THREADS = 3
WEIGHTS_BYTES_PER_THREAD = 32 << 20
MIB_BYTES = 1 << 20


def worker_settings(
    entry: ModelEntry, shape: LoadShape, *, socket_path: str, prefix_folder: str, threads: int
) -> dict[str, Any]:
    """The argument of the worker program. ``threads`` 0 takes ``default_threads``."""
    rewinds = entry.facts is not None and entry.facts.rewinds
    streams_count = 1 if shape.kv_unified else shape.slots_count
    return {
        "model": entry.path,
        "alias": entry.id,
        "socket": socket_path,
        "cells_count": shape.context_tokens * streams_count,
        "slots_count": shape.slots_count,
        "kv_unified": shape.kv_unified,
        "key_cache_type": shape.key_cache_type.value,
        "value_cache_type": shape.value_cache_type.value,
        "batch_tokens": shape.batch_tokens,
        "micro_batch_tokens": shape.micro_batch_tokens,
        "flash_attention": shape.flash_attention,
        "gpu_layers_count": shape.gpu_layers_count,
        "prefix_folder": prefix_folder,
        "memory_mapped": shape.memory_mapped,
        "host_prompt_cache_mib": shape.host_prompt_cache_bytes // MIB_BYTES,
        # Attention with windows and recurrent layers cannot go back; it restarts from these.
        "context_checkpoints_count": 0 if rewinds else CONTEXT_CHECKPOINTS_COUNT,
        "threads_count": threads or default_threads(entry.facts.weights_bytes if entry.facts else 0),
        "http_threads_count": shape.slots_count + SPARE_HTTP_THREADS,
    }


def default_threads(weights_bytes: int) -> int:
    """The physical cores that this process may use, but no more than the weights keep at work.

    The threads meet after each operation. Where one has little to read, a meeting costs more than
    the work, and when another program holds a core they all wait for it: the pocket model writes
    2,400 tokens/s with one thread and 50 with two on a machine whose second core is busy.
    """
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    physical = psutil.cpu_count(logical=False) or usable
    return max(1, min(physical, usable, weights_bytes // WEIGHTS_BYTES_PER_THREAD))


class _Slot(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    total_slots: int


def applied_shape(planned: LoadShape, *, props: bytes, slots: bytes, report: dict[str, str]) -> LoadShape:
    """The shape that the worker says it has, from its ``/props``, its ``/slots`` and its log.

    The context may be the planned one rounded up to a whole step, a batch may be cut to the context,
    the prompt cache is rounded down to whole MiB, and layers stay off the GPU where the build or the
    machine has none. With a unified cache each slot says that it has all of it. Raises
    ``ModelLoadFailed`` for anything else that is not as planned.
    """
    try:
        slot_contexts = [slot.n_ctx for slot in msgspec.json.decode(slots, type=list[_Slot])]
        total_slots = msgspec.json.decode(props, type=_Props).total_slots
    except msgspec.DecodeError as error:
        raise ModelLoadFailed(f"The engine does not say what it loaded ({error}); update it.") from error
    rounded = -(-planned.context_tokens // CONTEXT_STEP) * CONTEXT_STEP
    context_tokens = min(slot_contexts, default=0)
    if not planned.context_tokens <= context_tokens <= max(slot_contexts, default=0) <= rounded:
        raise _differs("context tokens", planned.context_tokens, slot_contexts)
    _check("slots", planned.slots_count, total_slots)
    _check("slots with a context", planned.slots_count, len(slot_contexts))
    cells = rounded * (1 if planned.kv_unified else planned.slots_count)
    batch_tokens = min(planned.batch_tokens, cells)
    applied = replace(
        planned,
        context_tokens=context_tokens,
        batch_tokens=batch_tokens,
        micro_batch_tokens=min(planned.micro_batch_tokens, batch_tokens),
        host_prompt_cache_bytes=planned.host_prompt_cache_bytes // MIB_BYTES * MIB_BYTES,
        gpu_layers_count=int(report.get("offloaded", "0")),
    )
    for key, wanted in _expected_report(applied).items():
        _check(REPORTED_NAMES.get(key, key), wanted, report.get(key, wanted))
    return applied


# What the log calls something that a sentence had better call otherwise.
REPORTED_NAMES = {
    "n_batch": "batch tokens",
    "n_ubatch": "micro batch tokens",
    "flash_attn": "flash attention",
    "kv_unified": "unified cache",
    "K": "key cache type",
    "V": "value cache type",
    "load_mode": "load mode",
    "mmap": "memory mapping",
}


def _expected_report(shape: LoadShape) -> dict[str, str]:
    """What the log of a worker with this shape says."""
    prompt_cache_mib = shape.host_prompt_cache_bytes // MIB_BYTES
    return {
        "n_batch": str(shape.batch_tokens),
        "n_ubatch": str(shape.micro_batch_tokens),
        "flash_attn": "enabled" if shape.flash_attention else "disabled",
        "kv_unified": "true" if shape.kv_unified else "false",
        "K": shape.key_cache_type.value,
        "V": shape.value_cache_type.value,
        "load_mode": "mmap" if shape.memory_mapped else "none",
        "mmap": "true" if shape.memory_mapped else "false",
        "prompt cache": f"enabled, size limit: {prompt_cache_mib} MiB" if prompt_cache_mib else "disabled",
    }


def _check(name: str, wanted: object, found: object) -> None:
    if found != wanted:
        raise _differs(name, wanted, found)


def _differs(name: str, wanted: object, found: object) -> ModelLoadFailed:
    return ModelLoadFailed(
        f"The engine applied {found} {name} where {wanted} was planned; nothing was loaded, "
        "ask for a shape that this model can have."
    )
