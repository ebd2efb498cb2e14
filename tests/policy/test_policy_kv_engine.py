"""The arithmetic against the engine: llama.cpp tells, while it loads, what it allocates."""

import re
import subprocess
import sys
from importlib.resources import files

import pytest

from autotuned.core.plan import KvCacheType
from autotuned.policy.kv import kv_cache_bytes, padded_context
from tests.examples import POCKET

LOAD = """
import os, sys
import xllamacpp
path, context, slots, key, value, flash = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path = path
params.n_ctx = int(context) * int(slots)
params.n_parallel = int(slots)
params.n_batch = params.n_ubatch = 64
params.kv_unified = params.fit_params = params.warmup = params.cache_idle_slots = False
params.cache_ram_mib = 0
params.verbosity = 4
params.cache_type_k = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + key)
params.cache_type_v = getattr(xllamacpp.ggml_type, "GGML_TYPE_" + value)
params.flash_attn_type = getattr(xllamacpp.llama_flash_attn_type, "LLAMA_FLASH_ATTN_TYPE_" + flash)
server = xllamacpp.Server(params)
os._exit(0)
"""
SIZE_LINE = re.compile(r"llama_kv_cache: size = +([0-9.]+) MiB \( *(\d+) cells")


@pytest.mark.parametrize(
    ("context_tokens", "slots_count", "key", "value", "flash_attention"),
    [
        (1000, 1, KvCacheType.F16, KvCacheType.F16, True),
        (600, 3, KvCacheType.F16, KvCacheType.F16, True),
        (2048, 2, KvCacheType.Q8_0, KvCacheType.Q8_0, True),
        (1536, 1, KvCacheType.Q8_0, KvCacheType.F16, False),
    ],
)
def test_the_engine_allocates_what_was_computed(context_tokens, slots_count, key, value, flash_attention):
    arguments = (
        files("autotuned.data") / "pocket.gguf",
        context_tokens,
        slots_count,
        key.name,
        value.name,
        "ENABLED" if flash_attention else "DISABLED",
    )
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    told = SIZE_LINE.search(loaded.stderr + loaded.stdout)
    assert told is not None, loaded.stderr
    computed_bytes = kv_cache_bytes(
        POCKET,
        context_tokens=context_tokens,
        slots_count=slots_count,
        key_cache_type=key,
        value_cache_type=value,
        flash_attention=flash_attention,
    )
    assert int(told[2]) == padded_context(context_tokens)
    assert told[1] == f"{computed_bytes / 2**20:.2f}"
