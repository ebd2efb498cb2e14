"""Checkpoints against the engine: its server says how large each is that it makes while it reads a prompt."""

import json
import re
import subprocess
import sys

import pytest

from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT, KvCacheType, LoadShape
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.policy.kv import checkpoint_bytes
from tests.engines.random_models import write_model

SERVE = """
import http.client, json, os, socket, sys
import xllamacpp
path, context, cache_type, prompt_tokens, checkpoints = json.loads(sys.argv[1])
params = xllamacpp.CommonParams()
params.model.path = path
params.hostnames = ["s.sock"]
params.n_ctx = 2 * context
params.n_parallel = 2
params.n_batch = params.n_ubatch = 256
params.n_ctx_checkpoints = checkpoints
params.kv_unified = params.fit_params = params.warmup = params.cache_idle_slots = False
params.cache_ram_mib = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.verbosity = 4
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type["GGML_TYPE_" + cache_type]
server = xllamacpp.Server(params)
connection = http.client.HTTPConnection("worker")
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect("s.sock")
prompt = [100 + number % 1000 for number in range(prompt_tokens)]
connection.request("POST", "/completion", json.dumps({"prompt": prompt, "n_predict": 1}), {"Content-Type": "application/json"})
answer = connection.getresponse()
body = answer.read()
assert answer.status == 200, body
import ctypes
library = ctypes.CDLL(xllamacpp.xllamacpp.__file__)
log = library["_Z15common_log_mainv"]
log.restype = ctypes.c_void_p
library["_Z16common_log_flushP10common_log"](ctypes.c_void_p(log()))
os._exit(0)
"""
CREATED = re.compile(r"created context checkpoint (\d+) of (\d+) .*size = ([0-9.]+) MiB")
# Types and row sizes of each layer, and three decimals of a MiB.
HEADERS_BYTES = 1024
ROUNDING_BYTES = 0.00051 * (1 << 20)


def created(path, folder, *, context, cache_type, prompt_tokens):
    """MiB of each checkpoint that a prompt of so many tokens left."""
    argument = json.dumps([str(path), context, cache_type.name, prompt_tokens, CONTEXT_CHECKPOINTS_COUNT])
    served = subprocess.run(
        [sys.executable, "-c", SERVE, argument],
        cwd=folder,
        check=False,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=100,
    )
    assert served.returncode == 0, served.stderr[-2000:]
    found = CREATED.findall(served.stderr + served.stdout)
    assert {most for _, most, _ in found} <= {str(CONTEXT_CHECKPOINTS_COUNT)}
    return [float(size) for _, _, size in found]


def facts_and_shape(path, context, cache_type):
    shape = LoadShape(
        context_tokens=context,
        slots_count=2,
        kv_unified=False,
        key_cache_type=cache_type,
        value_cache_type=cache_type,
        batch_tokens=256,
        micro_batch_tokens=256,
        flash_attention=True,
        gpu_layers_count=0,
        host_prompt_cache_bytes=0,
        memory_mapped=True,
    )
    return model_facts((read_header(path),), path), shape


@pytest.mark.parametrize(
    ("architecture", "cache_type", "sizes"),
    [
        ("gemma3", KvCacheType.F16, {"layers": 7, "window": 400}),
        ("gemma3", KvCacheType.Q8_0, {"layers": 6, "window": 700}),
        ("gpt-oss", KvCacheType.F16, {"window": 128}),
        ("gemma4", KvCacheType.F16, {"layers": 11, "window": 300}),
        ("mamba2", KvCacheType.F16, {}),
        ("granitehybrid", KvCacheType.F16, {"layers": 7}),
        ("qwen3next", KvCacheType.Q8_0, {"layers": 8}),
        ("lfm2", KvCacheType.F16, {}),
    ],
)
def test_checkpoints_take_what_was_computed(architecture, cache_type, sizes, tmp_path):
    path = write_model(tmp_path / "model.gguf", architecture, **sizes)
    facts, shape = facts_and_shape(path, 1536, cache_type)
    told = created(path, tmp_path, context=1536, cache_type=cache_type, prompt_tokens=1300)
    computed = checkpoint_bytes(facts, shape) / CONTEXT_CHECKPOINTS_COUNT / shape.slots_count
    assert told
    largest = max(told) * (1 << 20)
    assert abs(computed - largest) <= HEADERS_BYTES + ROUNDING_BYTES


def test_a_model_that_rewinds_makes_none(tmp_path):
    path = write_model(tmp_path / "model.gguf", "qwen3")
    facts, shape = facts_and_shape(path, 1536, KvCacheType.F16)
    assert checkpoint_bytes(facts, shape) == 0
    assert created(path, tmp_path, context=1536, cache_type=KvCacheType.F16, prompt_tokens=1300) == []
