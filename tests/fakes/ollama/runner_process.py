"""One model behind llama.cpp's own HTTP server, as the original's ``llama-server`` child.

    python -I -B runner_process.py '{"model": ..., "socket": ..., ...}'

``runner`` starts it. It says ``ready`` on its output and serves until its input ends, which is when
the double is gone, however that went.
"""

import contextlib
import ctypes
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import xllamacpp

LOAD_VERBOSITY = 4
SERVING_VERBOSITY = 1


def main() -> int:
    settings = json.loads(sys.argv[1])
    params = _params(settings)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    with contextlib.suppress(OSError, ValueError):
        library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
        ctypes.c_int.in_dll(library, "common_log_verbosity_thold").value = SERVING_VERBOSITY
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while os.read(0, 512):
        pass
    del server
    # The double removes it unless it was killed.
    shutil.rmtree(Path(settings["socket"]).parent, ignore_errors=True)
    return 0


def _params(settings: dict[str, Any]) -> "xllamacpp.CommonParams":
    """What the original sets; all else is llama.cpp's default, its host prompt cache too."""
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.offline = True
    params.ui = False
    params.verbosity = LOAD_VERBOSITY
    params.n_ctx = settings["num_ctx"] * settings["parallel"]
    params.n_parallel = settings["parallel"]
    params.n_batch = params.n_ubatch = settings["num_batch"]
    params.n_gpu_layers = settings["num_gpu"]
    params.ctx_shift = settings["context_shift"]
    params.n_keep = settings["num_keep"]
    params.embedding = settings["embedding"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    params.fit_params = False
    params.use_jinja = True
    if settings["cache_type"]:
        cache_type = xllamacpp.ggml_type[f"GGML_TYPE_{settings['cache_type'].upper()}"]
        params.cache_type_k = params.cache_type_v = cache_type
    flash = xllamacpp.llama_flash_attn_type
    params.flash_attn_type = {
        None: flash.LLAMA_FLASH_ATTN_TYPE_AUTO,
        True: flash.LLAMA_FLASH_ATTN_TYPE_ENABLED,
        False: flash.LLAMA_FLASH_ATTN_TYPE_DISABLED,
    }[settings["flash_attention"]]
    if settings["use_mmap"] is False:
        params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_NONE
    _take_environment(params)
    return params


def _take_environment(params: "xllamacpp.CommonParams") -> None:
    """The variables that a ``llama-server`` reads for what its command line leaves open."""
    for variable, name in (
        ("LLAMA_ARG_CACHE_RAM", "cache_ram_mib"),
        ("LLAMA_ARG_CTX_CHECKPOINTS", "n_ctx_checkpoints"),
        ("LLAMA_ARG_CACHE_REUSE", "n_cache_reuse"),
    ):
        if variable in os.environ:
            setattr(params, name, int(os.environ[variable]))
    for variable, name in (
        ("LLAMA_ARG_KV_UNIFIED", "kv_unified"),
        ("LLAMA_ARG_CACHE_IDLE_SLOTS", "cache_idle_slots"),
    ):
        if variable in os.environ:
            setattr(params, name, os.environ[variable].lower() in {"1", "true", "on", "enabled"})


if __name__ == "__main__":
    sys.exit(main())
