"""A program for tests: llama.cpp's own HTTP server, from the wheel, with one model.

    python -I -B llamacpp_server.py '{"model": ..., "alias": ..., "address": ..., ...}'

``address`` is a host or the path of a Unix socket. Its defaults are those that people start
``llama-server`` with, unlike those of the daemon's own worker: it stands for a server of somebody else.
Invariant: it ends when its standard input does, so that it never outlives who started it.
"""

from __future__ import annotations

import json
import os
import sys

import xllamacpp


def main() -> None:
    """Loads, serves until the standard input ends."""
    settings = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.model_alias = {settings["alias"]}
    params.hostnames = [settings["address"]]
    params.port = settings.get("port", 0)
    params.api_keys = settings.get("api_keys", [])
    params.n_ctx = settings["context_tokens"]
    params.n_batch = settings.get("batch_tokens", 512)
    params.n_parallel = settings.get("slots_count", 1)
    params.kv_unified = params.n_parallel > 1
    params.flash_attn_type = (
        xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
        if settings.get("flash_attention", True)
        else xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    )
    # The threads of so small a model wait for each other longer than they compute.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.offline = True
    params.fit_params = False
    params.warmup = False
    params.ui = False
    params.use_jinja = True
    params.cache_ram_mib = 64
    server = xllamacpp.Server(params)
    while os.read(0, 512):
        pass
    del server


if __name__ == "__main__":
    main()
