"""What the engine allocates for a model in a shape: loads it in a process of its own and reads the log.

``allocations(path, shapes, folder)`` loads the model once for each shape and returns the caches of each load.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autotuned.core.plan import LoadShape

_LOAD = """
import ctypes, json, os, sys
import xllamacpp
servers = []
path, shapes = sys.argv[1], json.loads(sys.argv[2])
for number, shape in enumerate(shapes):
    params = xllamacpp.CommonParams()
    params.model.path = path
    params.hostnames = [f"{number}.sock"]
    params.n_parallel = shape["slots"]
    params.n_ctx = shape["context"] * (1 if shape["unified"] else shape["slots"])
    params.kv_unified = shape["unified"]
    params.n_batch = shape["batch"]
    params.n_ubatch = shape["micro_batch"]
    params.fit_params = params.warmup = params.cache_idle_slots = False
    params.cache_ram_mib = 0
    params.verbosity = 4
    params.cpuparams.n_threads = 1
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{shape['key']}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{shape['value']}"]
    flash = "ENABLED" if shape["flash"] else "DISABLED"
    params.flash_attn_type = xllamacpp.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{flash}"]
    servers.append(xllamacpp.Server(params))
# What its log thread still holds is written; the servers' own end would take seconds.
library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
log = library["_Z15common_log_mainv"]
log.restype = ctypes.c_void_p
library["_Z16common_log_flushP10common_log"](ctypes.c_void_p(log()))
os._exit(0)
"""
_BEGIN = "constructing llama_context"
_KV = re.compile(
    r"llama_kv_cache: size = +(?P<size>[0-9.]+) MiB \( *(?P<cells>\d+) cells, +(?P<layers>\d+) layers, "
    r"+(?P<seqs>\d+)/(?P<streams>\d+) seqs\), K \(\w+\): +(?P<keys>[0-9.]+) MiB, V \(\w+\): +(?P<values>[0-9.]+) MiB"
)
_RECURRENT = re.compile(r"llama_memory_recurrent: size = +(?P<size>[0-9.]+) MiB \( *(?P<cells>\d+) cells")


@dataclass(frozen=True, kw_only=True)
class Cache:
    """One attention cache: cells of one stream, layers, streams, and MiB with two decimals."""

    cells: int
    layers: int
    streams: int
    mebibytes: float

    @property
    def rows(self) -> int:
        """Keys and values of one token in one layer, counted over all of it."""
        return self.cells * self.layers * self.streams


@dataclass(frozen=True, kw_only=True)
class Allocation:
    """What one load said: its attention caches that have layers, and MiB of its recurrent state."""

    caches: tuple[Cache, ...]
    recurrent_mebibytes: float


def allocations(path: Path, shapes: Sequence[LoadShape], folder: Path) -> list[Allocation]:
    """The caches of each load."""
    arguments = json.dumps([_arguments(shape) for shape in shapes])
    loaded = subprocess.run(
        [sys.executable, "-c", _LOAD, path, arguments],
        cwd=folder,
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=100,
    )
    assert loaded.returncode == 0, loaded.stderr[-2000:]
    loads = (loaded.stderr + loaded.stdout).split(_BEGIN)[1:]
    assert len(loads) == len(shapes)
    return [_allocation(load) for load in loads]


def _arguments(shape: LoadShape) -> dict[str, object]:
    return {
        "context": shape.context_tokens,
        "slots": shape.slots_count,
        "unified": shape.kv_unified,
        "batch": shape.batch_tokens,
        "micro_batch": shape.micro_batch_tokens,
        "key": shape.key_cache_type.name,
        "value": shape.value_cache_type.name,
        "flash": shape.flash_attention,
    }


def _allocation(log: str) -> Allocation:
    caches = [
        Cache(
            cells=int(told["cells"]),
            layers=int(told["layers"]),
            streams=int(told["streams"]),
            mebibytes=float(told["size"]),
        )
        for told in _KV.finditer(log)
    ]
    return Allocation(
        caches=tuple(cache for cache in caches if cache.layers),
        recurrent_mebibytes=sum(float(told["size"]) for told in _RECURRENT.finditer(log)),
    )
