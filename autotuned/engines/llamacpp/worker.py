"""The worker: llama.cpp's own HTTP server, from the wheel, with one model and one shape.

    python -I -B worker.py '{"model": ..., "socket": ..., ...}'

``process`` starts it under the guard; nothing imports it, and it alone imports ``xllamacpp``. Its
argument is the JSON of ``shape.worker_settings``.
Invariant: every default of the engine that memory, answers or privacy depend on is set here, whether
or not it is already what it should be.
"""

import contextlib
import ctypes
import json
import os
import sys
from typing import Any

import xllamacpp

# 4 shows every buffer of a load; afterwards only errors, because each line costs a request time.
LOAD_VERBOSITY = 4
SERVING_VERBOSITY = 1


def main() -> int:
    """Loads, serves until the guard lets go, and says in one line why it could not."""
    params = server_params(json.loads(sys.argv[1]))
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        _flush_log()
        sys.stderr.write(f"error: {error}\n")
        return 1
    _quieten()
    # The server has threads of its own; this one waits until the guard is gone.
    while os.read(0, 512):
        pass
    del server
    return 0


def server_params(settings: dict[str, Any]) -> "xllamacpp.CommonParams":
    """The engine's parameters for these settings."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = [settings["socket"]]
    params.offline = True
    params.verbosity = LOAD_VERBOSITY
    _set_memory(params, settings)
    _set_serving(params, settings)
    return params


def _set_memory(params: "xllamacpp.CommonParams", settings: dict[str, Any]) -> None:
    """The shape, and nothing beside it: no fitting, no caches that were not planned."""
    flash_attention = xllamacpp.llama_flash_attn_type
    params.n_ctx = settings["cells_count"]
    params.n_parallel = settings["slots_count"]
    params.kv_unified = settings["kv_unified"]
    params.n_batch = settings["batch_tokens"]
    params.n_ubatch = settings["micro_batch_tokens"]
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{settings['key_cache_type'].upper()}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{settings['value_cache_type'].upper()}"]
    params.flash_attn_type = (
        flash_attention.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if settings["flash_attention"]
        else flash_attention.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    params.n_gpu_layers = settings["gpu_layers_count"]
    params.load_mode = (
        xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP
        if settings["memory_mapped"]
        else xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    )
    params.fit_params = False
    params.swa_full = False
    params.no_kv_offload = False
    params.no_extra_bufts = False
    params.check_tensors = False
    params.warmup = True
    params.cache_ram_mib = settings["host_prompt_cache_mib"]
    # Would empty a slot into that cache as soon as another one is used: nothing could be saved from it.
    params.cache_idle_slots = False
    params.n_ctx_checkpoints = settings["context_checkpoints_count"]
    params.sleep_idle_seconds = -1


def _set_serving(params: "xllamacpp.CommonParams", settings: dict[str, Any]) -> None:
    """How requests are served, and what is not served at all."""
    params.cpuparams.n_threads = settings["threads_count"]
    params.cpuparams_batch.n_threads = settings["threads_count"]
    params.n_threads_http = settings["http_threads_count"]
    params.cont_batching = True
    params.ctx_shift = False
    params.cache_prompt = True
    params.n_cache_reuse = 0
    params.slot_prompt_similarity = 0.1
    params.slot_save_path = settings["prefix_folder"]
    params.embedding = False
    params.use_jinja = True
    params.enable_chat_template = True
    params.prefill_assistant = True
    params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
    params.n_predict = -1
    # Silence is how the daemon sees a server that hangs.
    params.sse_ping_interval = -1
    params.endpoint_slots = True
    params.endpoint_props = False
    params.endpoint_metrics = False
    params.ui = False
    params.ui_mcp_proxy = False
    params.cors_origins = ""
    params.cors_credentials = False
    params.api_keys = []
    params.reuse_port = False


def _quieten() -> None:
    """Lowers the verbosity, which the server reads once, through the library's own variable."""
    with contextlib.suppress(OSError, ValueError):
        ctypes.c_int.in_dll(_library(), "common_log_verbosity_thold").value = SERVING_VERBOSITY


def _flush_log() -> None:
    """Writes what the library's log thread still holds: it has the reason why a load failed."""
    with contextlib.suppress(OSError, AttributeError):
        log = _library()["_Z15common_log_mainv"]
        log.restype = ctypes.c_void_p
        _library()["_Z16common_log_flushP10common_log"](ctypes.c_void_p(log()))


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(xllamacpp.xllamacpp.__file__)


if __name__ == "__main__":
    sys.exit(main())
