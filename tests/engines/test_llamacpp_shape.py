"""What a worker is told, and what is made of what it reports."""

import json
from dataclasses import replace

import pytest

from autotuned.core.errors import ModelLoadFailed
from autotuned.core.model import LayerGroup, LoadPhase, ModelEntry
from autotuned.core.plan import CONTEXT_CHECKPOINTS_COUNT, KvCacheType
from autotuned.engines.gguf import read_header
from autotuned.engines.gguf_facts.facts import model_facts
from autotuned.engines.llamacpp.discovery import POCKET
from autotuned.engines.llamacpp.log import WorkerLog
from autotuned.engines.llamacpp.shape import (
    WEIGHTS_BYTES_PER_THREAD,
    applied_shape,
    default_threads,
    worker_settings,
)
from autotuned.engines.output import KEPT_LINES, LONGEST_LINE
from tests.engines.shapes import shape

REPORT = {
    "n_batch": "512",
    "n_ubatch": "512",
    "flash_attn": "enabled",
    "kv_unified": "false",
    "K": "f16",
    "V": "f16",
    "load_mode": "mmap",
    "prompt cache": "disabled",
}


def applied(planned, *, slots=None, total_slots=None, report=None):
    slots = [planned.context_tokens] * planned.slots_count if slots is None else slots
    total = planned.slots_count if total_slots is None else total_slots
    return applied_shape(
        planned,
        props=json.dumps({"total_slots": total, "more": {}}).encode(),
        slots=json.dumps([{"id": n, "n_ctx": context} for n, context in enumerate(slots)]).encode(),
        report=REPORT if report is None else report,
    )


def test_what_is_reported_as_planned_is_applied():
    assert applied(shape()) == shape()
    assert applied(shape(slots_count=3)) == shape(slots_count=3)


def test_a_context_may_be_rounded_up_to_a_whole_step():
    assert applied(shape(context_tokens=1000), slots=[1024]).context_tokens == 1024
    assert applied(shape(context_tokens=1000), slots=[1000]).context_tokens == 1000


def test_a_prompt_cache_has_whole_mib():
    planned = shape(host_prompt_cache_bytes=(7 << 20) + 1)
    report = REPORT | {"prompt cache": "enabled, size limit: 7 MiB"}
    assert applied(planned, report=report).host_prompt_cache_bytes == 7 << 20
    with pytest.raises(ModelLoadFailed, match="disabled prompt cache where enabled, size limit: 7 MiB"):
        applied(planned)
    assert applied(shape(host_prompt_cache_bytes=(1 << 20) - 1)).host_prompt_cache_bytes == 0


def test_a_batch_is_cut_to_the_cells_that_there_are():
    planned = shape(context_tokens=256, slots_count=3, batch_tokens=1024)
    assert applied(planned, report=REPORT | {"n_batch": "768"}).batch_tokens == 768
    unified = replace(planned, kv_unified=True)
    report = REPORT | {"n_batch": "256", "n_ubatch": "256", "kv_unified": "true"}
    assert applied(unified, report=report).micro_batch_tokens == 256


def test_only_layers_that_are_said_to_be_on_a_gpu_are():
    assert applied(shape(gpu_layers_count=5)).gpu_layers_count == 0
    assert applied(shape(gpu_layers_count=5), report={"offloaded": "5"}).gpu_layers_count == 5


def test_a_server_that_tells_less_is_believed_for_the_rest():
    assert applied(shape(), report={}) == shape()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"slots": [4096]}, r"\[4096\] context tokens where 2048 was planned"),
        ({"slots": [1024]}, r"\[1024\] context tokens"),
        ({"slots": []}, r"\[\] context tokens"),
        ({"slots": [2048, 2048]}, "2 slots with a context where 1"),
        ({"total_slots": 4}, "4 slots where 1"),
        ({"report": REPORT | {"n_batch": "2048"}}, "2048 batch tokens where 512"),
        ({"report": REPORT | {"n_ubatch": "64"}}, "64 micro batch tokens"),
        ({"report": REPORT | {"flash_attn": "disabled"}}, "disabled flash attention where enabled"),
        ({"report": REPORT | {"K": "q8_0"}}, "q8_0 key cache type where f16"),
        ({"report": REPORT | {"V": "q4_0"}}, "q4_0 value cache type where f16"),
        ({"report": REPORT | {"kv_unified": "true"}}, "true unified cache where false"),
        ({"report": REPORT | {"load_mode": "none"}}, "none load mode where mmap"),
        (
            {"report": REPORT | {"prompt cache": "enabled, size limit: 8192 MiB"}},
            "8192 MiB prompt cache where disabled",
        ),
    ],
)
def test_what_is_not_as_planned_is_never_reported_as_applied(told, words):
    with pytest.raises(ModelLoadFailed, match=words):
        applied(shape(), **told)


@pytest.mark.parametrize("junk", [b"", b"[]", b'{"total_slots": "x"}', b"<html>"])
def test_a_server_that_does_not_describe_itself_is_refused(junk):
    with pytest.raises(ModelLoadFailed, match="does not say what it loaded"):
        applied_shape(shape(), props=junk, slots=b'[{"n_ctx": 2048}]', report={})
    with pytest.raises(ModelLoadFailed, match=r"does not say what it loaded|context tokens"):
        applied_shape(shape(), props=b'{"total_slots": 1}', slots=junk, report={})


@pytest.fixture(scope="module")
def pocket_entry():
    facts = model_facts((read_header(POCKET),), POCKET)
    return ModelEntry(id="pocket", engine="llamacpp", path=str(POCKET), size_bytes=1, facts=facts)


def settings_of(entry, planned, threads=1):
    return worker_settings(entry, planned, socket_path="x.sock", prefix_folder="prefixes/", threads=threads)


def test_a_worker_is_told_everything(pocket_entry):
    planned = shape(slots_count=2, value_cache_type=KvCacheType.Q8_0, host_prompt_cache_bytes=(5 << 20) + 99)
    assert settings_of(pocket_entry, planned, threads=3) == {
        "model": str(POCKET),
        "alias": "pocket",
        "socket": "x.sock",
        "prefix_folder": "prefixes/",
        "cells_count": 4096,
        "slots_count": 2,
        "kv_unified": False,
        "key_cache_type": "f16",
        "value_cache_type": "q8_0",
        "batch_tokens": 512,
        "micro_batch_tokens": 512,
        "flash_attention": True,
        "gpu_layers_count": 0,
        "memory_mapped": True,
        "host_prompt_cache_mib": 5,
        "context_checkpoints_count": 0,
        "threads_count": 3,
        "http_threads_count": 5,
    }


def test_a_unified_cache_has_the_cells_of_one_context(pocket_entry):
    settings = settings_of(pocket_entry, shape(slots_count=3, kv_unified=True))
    assert (settings["cells_count"], settings["slots_count"], settings["kv_unified"]) == (2048, 3, True)


def test_a_model_that_cannot_rewind_gets_checkpoints(pocket_entry):
    windowed = replace(
        pocket_entry.facts, layer_groups=(LayerGroup(layers_count=4, kv_heads=2, window_tokens=64),)
    )
    assert not windowed.rewinds
    settings = settings_of(replace(pocket_entry, facts=windowed), shape())
    assert settings["context_checkpoints_count"] == CONTEXT_CHECKPOINTS_COUNT > 0


def test_a_model_takes_as_many_threads_as_its_weights_keep_at_work(monkeypatch, pocket_entry):
    monkeypatch.setattr("psutil.cpu_count", lambda logical: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(16)), raising=False)
    assert default_threads(0) == default_threads(pocket_entry.facts.weights_bytes) == 1
    assert default_threads(3 * WEIGHTS_BYTES_PER_THREAD) == 3
    assert default_threads(1 << 40) == 8
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert default_threads(1 << 40) == 2
    monkeypatch.setattr("psutil.cpu_count", lambda logical: None)
    assert default_threads(1 << 40) == 2
    assert settings_of(pocket_entry, shape(), threads=0)["threads_count"] == 1


# What a worker writes.


def log_of(*lines):
    log = WorkerLog()
    for line in lines:
        log.add(line)
    return log


def test_the_phases_of_a_load_are_in_its_lines():
    log = WorkerLog()
    seen = [log.phase]
    for line in (
        "0.00.003.190 I srv          init: loading model",
        "0.00.008.951 I llama_context: constructing llama_context",
        "0.00.015.630 I srv          init: model loaded",
    ):
        log.add(line)
        seen.append(log.phase)
    assert seen == [LoadPhase.STARTING, LoadPhase.READING_WEIGHTS, LoadPhase.ALLOCATING, LoadPhase.ALLOCATING]
    assert not log.is_serving
    log.add("0.00.015.630 I srv          init: listening on unix://x.sock")
    assert log.is_serving


def test_what_was_applied_is_in_its_lines():
    log = log_of(
        "0.00.008.700 I load_tensors: offloaded 33/33 layers to GPU",
        "0.00.008.963 I llama_context: n_batch               = 512",
        "llama_context: n_ubatch              = 256",
        "0.00.008.965 I llama_context: flash_attn            = enabled",
        "0.00.008.965 I llama_context: kv_unified            = false",
        "0.00.007.1 I load_tensors: loading model tensors, this can take a while... (load_mode = none)",
        "0.00.011.2 I srv    load_model: prompt cache is enabled, size limit: 7 MiB",
        "0.00.011.3 I srv    load_model: context checkpoints enabled, max = 2, min spacing = 8192",
        "x I llama_kv_cache: size =    4.00 MiB (  2048 cells,   4 layers,  2/2 seqs), K (f16):    2.00 MiB, V (q8_0):    1.06 MiB",
    )
    assert log.report == {
        "offloaded": "33",
        "n_batch": "512",
        "n_ubatch": "256",
        "flash_attn": "enabled",
        "kv_unified": "false",
        "load_mode": "none",
        "prompt cache": "enabled, size limit: 7 MiB",
        "context checkpoints": "enabled, max = 2",
        "K": "f16",
        "V": "q8_0",
    }


def test_the_first_error_is_the_cause():
    log = log_of(
        "0.00.001.000 W llama_model_load: something odd",
        "0.00.003.900 E llama_model_load: error loading model: tensor 'x'  is  not there.",
        "0.00.003.905 E cmn  common_init_: failed to load model",
        "error: Failed to init server.",
    )
    assert log.first_error == "llama_model_load: error loading model: tensor 'x' is not there"
    assert log_of("error: cannot start").first_error == "error: cannot start"


def test_last_words_are_those_of_a_failing_check_and_never_a_requests():
    assert (
        log_of("0.1 E srv send_error: my secret", "GGML_ASSERT(x) failed", "").last_words
        == "GGML_ASSERT(x) failed"
    )
    assert log_of("0.1 E srv send_error: my secret").last_words == ""


def test_a_log_is_bounded():
    log = log_of(*("x" * 10_000 for _ in range(1000)))
    assert len(log.lines) == KEPT_LINES
    assert {len(line) for line in log.lines} == {LONGEST_LINE}
